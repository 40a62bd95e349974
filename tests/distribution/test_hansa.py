"""Hansa as a distribution: what is in it, and that it works where the source tree is not."""

from __future__ import annotations

import base64
import os
import re
import resource
import tarfile
import zipfile

import pytest

from .environments import ROOT, build, environment

PACKAGES = {
    "hansa": "core",
    "hansa_matrix": "plugins/matrix",
    "hansa_xmpp": "plugins/xmpp",
    "hansa_governance": "plugins/governance",
}
#: What is heavy, or an extra: never imported but by who needs it.
HEAVY = {
    "aiodns",
    "aiohttp",
    "asyncpg",
    "canonicaljson",
    "cryptography",
    "hansa_governance",
    "hansa_matrix",
    "hansa_xmpp",
    "motor",
    "nacl",
    "prometheus_client",
    "pydantic",
    "pymongo",
    "slixmpp",
}


def members(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def test_the_wheel_holds_the_packages_with_their_types_and_nothing_else(wheel):
    names = members(wheel)
    top = {name.partition("/")[0] for name in names}
    (info,) = top - set(PACKAGES)
    assert re.fullmatch(r"hansa-[\d.]+\.dist-info", info)
    for package, folder in PACKAGES.items():
        assert f"{package}/py.typed" in names
        sources = {p.relative_to(ROOT / folder).as_posix() for p in (ROOT / folder / package).rglob("*.py")}
        assert {n for n in names if n.startswith(f"{package}/") and n.endswith(".py")} == sources
    points = names[f"{info}/entry_points.txt"].decode()
    assert (
        "[hansa.plugins]\n" in points
        and "xmpp = hansa_xmpp\n" in points
        and "hansa = hansa.cli.main:main\n" in points
    )
    metadata = names[f"{info}/METADATA"].decode()
    assert "Requires-Python: >=3.11\n" in metadata and "License-Expression: Apache-2.0\n" in metadata
    assert "Provides-Extra: all\n" in metadata
    assert names[f"{info}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_from_the_sdist_is_the_wheel_from_the_tree(wheel, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    build(ROOT, out, "--wheel")
    (direct,) = out.glob("*.whl")
    ours, other = members(direct), members(wheel)
    assert set(ours) == set(other)
    assert [name for name in ours if ours[name] != other[name]] == []


def test_the_sdist_holds_what_makes_and_tests_it_and_no_litter(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "tests/conftest.py",
        "scripts/test",
    ):
        assert wanted in names
    assert "examples/hansa-echo/pyproject.toml" in names
    assert {name.partition("/")[0] for name in names} <= {
        *("core", "plugins", "tests", "docs", "examples", "bench", "scripts"),
        *("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "PKG-INFO", ".gitignore"),
    }
    assert [n for n in names if "__pycache__" in n or n.endswith((".db", ".key", ".log"))] == []


LOOK = """
import importlib, importlib.util, sys
packages = ["hansa", "hansa_matrix", "hansa_xmpp", "hansa_governance"]
answer = {
    "from": {name: importlib.import_module(name).__file__ for name in packages},
    "resolves": [name for name in ("core", "plugins", "tests") if importlib.util.find_spec(name)],
}
"""


@pytest.mark.parametrize("how", ["wheel", "sdist", "editable"])
def test_it_installs_and_imports(how, request, tmp_path):
    if how == "wheel":
        made = request.getfixturevalue("installed")
    else:
        made = environment(tmp_path / "env")
        made.install(*(["--editable", ROOT] if how == "editable" else [request.getfixturevalue("sdist")]))
    seen = made.ask(LOOK)
    home = ROOT if how == "editable" else made.site_packages
    assert all(file.startswith(f"{home}{os.sep}") for file in seen["from"].values()), seen
    assert seen["resolves"] == []
    assert "Matrix, XMPP and governance" in made.run("hansa", "--help").stdout


CHECK = """
import sys
from hansa.cli.main import main
code = main({arguments!r})
answer = [code, sorted({{name.partition(".")[0] for name in sys.modules}})]
"""


def imported(made, tmp_path, toml):
    file = tmp_path / "hansa.toml"
    file.touch(0o600)
    file.write_text(toml)
    out = made.run(
        "python", "-c", CHECK.format(arguments=["check", "-c", str(file)]) + "\nprint(answer)"
    ).stdout
    said, answer = out.strip().splitlines()
    assert "is good" in said, said
    code, modules = eval(answer)
    assert code == 0
    return set(modules) & HEAVY


#: What plugins need to say which commands they add.
PLUGINS = {"canonicaljson", "hansa_governance", "hansa_matrix", "hansa_xmpp", "nacl", "pydantic"}


@pytest.mark.parametrize(("argument", "known"), [("--version", set()), ("--help", PLUGINS)])
def test_help_imports_nothing_heavy_and_starts_fast(installed, argument, known):
    program = (
        f"import sys\nfrom hansa.cli.main import main\ntry:\n    main(['{argument}'])\n"
        "except SystemExit:\n    pass\n"
    )
    out = installed.run(
        "python", "-c", program + "print(sorted({m.partition('.')[0] for m in sys.modules}))"
    ).stdout
    assert set(eval(out.splitlines()[-1])) & HEAVY <= known
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    installed.run("hansa", argument)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 1.0, f"{spent:.2f} s of CPU"


def test_check_imports_only_what_the_configuration_enables(installed, tmp_path):
    plain = '[server]\nlisten = ["http://127.0.0.1:8008"]\n'
    assert imported(installed, tmp_path, plain) == {"pydantic"}
    lists = '[policies.lists]\nplugin = "governance"\n'
    assert imported(installed, tmp_path, plain + lists) == {"pydantic", "hansa_governance"}
    key = tmp_path / "matrix.key"
    key.write_text(f"ed25519 a_1 {base64.b64encode(bytes(32)).decode().rstrip('=')}\n")
    key.chmod(0o600)
    matrix = '[networks.matrix]\nplugin = "matrix"\nserver_name = "example.org"\n'
    found = imported(installed, tmp_path, plain + matrix)
    assert found >= {"pydantic", "hansa_matrix"}
    assert not found & {"hansa_xmpp", "slixmpp", "motor", "pymongo", "aiohttp", "prometheus_client"}
    mongo = '[store]\nurl = "mongodb://localhost/hansa"\n'
    assert not imported(installed, tmp_path, plain + mongo) & {"motor", "pymongo"}
    postgres = '[store]\nurl = "postgres://localhost/hansa"\n'
    assert "asyncpg" not in imported(installed, tmp_path, plain + postgres)
    xmpp = '[networks.xmpp]\nplugin = "xmpp"\ncomponent = "bridge.example.org"\nsecret = "s"\n'
    assert imported(installed, tmp_path, plain + xmpp) == {"pydantic", "hansa_xmpp"}


def test_without_an_extra_it_says_what_to_install(wheel, tmp_path):
    made = environment(tmp_path / "env", without=("slixmpp",))
    made.install(wheel)
    file = tmp_path / "hansa.toml"
    file.write_text(
        '[server]\nlisten = ["http://127.0.0.1:8008"]\n'
        '[networks.office]\nplugin = "xmpp"\ncomponent = "bridge.example.org"\nsecret = "s"\n'
    )
    done = made.run("hansa", "check", "-c", file, check=False)
    assert done.returncode == 2
    wanted = "networks.office.plugin: plugin 'xmpp' needs slixmpp: install hansa[xmpp]"
    assert done.stdout == f"{file}: {wanted}\n"
