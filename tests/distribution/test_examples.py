"""The examples as third parties' distributions: built, installed, found by entry point, run, and tested."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest
from peers.process import free_port
from peers.waiting import until

from .environments import PLAIN, ROOT, Environment, build, command

EXAMPLES = {
    "hansa-directory": "hansa_directory",
    "hansa-echo": "hansa_echo",
    "hansa-irc": "hansa_irc",
    "hansa-quiet-hours": "hansa_quiet_hours",
    "hansa-webhook": "hansa_webhook",
}


@pytest.fixture(scope="session")
def with_examples(installed, tmp_path_factory) -> Environment:
    out = tmp_path_factory.mktemp("examples")
    for name in EXAMPLES:
        build(ROOT / "examples" / name, out, "--wheel")
    installed.install(*out.glob("*.whl"))
    return installed


CONFIGURATION = """
[server]
listen = ["http://127.0.0.1:{port}"]
[networks.echo]
plugin = "echo"
prefix = "I heard: "
[networks.other]
plugin = "echo"
[policies.night]
plugin = "quiet-hours"
begins = 00:00:00
ends = 23:59:59.999999
[[rooms]]
links = ["echo:lobby", "other:lobby"]
"""


async def test_hansa_loads_and_runs_them_by_entry_point(with_examples, tmp_path):
    file = tmp_path / "hansa.toml"
    file.touch(0o600)
    file.write_text(CONFIGURATION.format(port=free_port()))
    said = with_examples.run("hansa", "check", "-c", file).stdout
    assert said == f"{file} is good: 2 networks, 1 policy, 1 room\n"

    def asked(*words):
        return json.loads(with_examples.run("hansa", *words, "--json", "-c", file).stdout)

    log = (tmp_path / "output.log").open("w+")
    running = subprocess.Popen(
        [with_examples.folder / "bin" / "hansa", "run", "-v", "-c", file],
        cwd=tmp_path,
        env=PLAIN,
        stdout=log,
        stderr=log,
    )
    try:

        async def linked():
            assert running.poll() is None, (tmp_path / "output.log").read_text()
            return "ready\n" in (tmp_path / "output.log").read_text() and len(asked("rooms", "ls")) == 1

        await until("the configured room is linked", linked, 30)
        plugins = {p["name"]: p for p in asked("plugins")}
        assert plugins["echo"]["distributions"] == ["hansa-echo"]
        assert plugins["echo"]["enabled"] == ["networks.echo", "networks.other"]
        assert plugins["quiet-hours"]["enabled"] == ["policies.night"]
        assert plugins["matrix"] == {
            "name": "matrix",
            "module": "hansa_matrix",
            "distributions": ["hansa"],
            "enabled": [],
            "versions": [version("hansa")],
        }
        assert {n["id"]: n["state"] for n in asked("status")["networks"]} == {"echo": "up", "other": "up"}
        (room,) = asked("rooms", "ls")
        assert {link["link"] for link in room["links"]} == {"echo:lobby", "other:lobby"}
        judged = asked("policy", "test", "--room", "echo:lobby", "--sender", "echo:echo", "--text", "hush")
        assert judged["action"] == "deny"
        assert judged["policies"][0]["reasons"] == ["QUIET_HOURS begins, ends"]
    finally:
        running.terminate()
        assert running.wait(15) == 0
        log.close()
    assert (tmp_path / "output.log").read_text().endswith("stopping\nstopped\n")


@pytest.mark.parametrize("name", EXAMPLES)
def test_its_own_tests_pass_where_it_is_installed(name, with_examples, tmp_path):
    for part in ("pyproject.toml", "tests"):
        source = ROOT / "examples" / name / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / part)
    done = command(with_examples.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path)
    assert " passed" in done.stdout and "failed" not in done.stdout
    home = with_examples.ask(f"import {EXAMPLES[name]} as found\nanswer = found.__file__")
    assert home.startswith(str(with_examples.site_packages))


def test_they_type_check_against_what_is_installed(with_examples, tmp_path):
    for name, module in EXAMPLES.items():
        source = ROOT / "examples" / name / module
        if source.is_dir():
            shutil.copytree(source, tmp_path / module)
        else:
            shutil.copy(source.with_suffix(".py"), tmp_path)
    command(
        *(sys.executable, "-m", "mypy", "--strict", "--python-executable", with_examples.python),
        *("--cache-dir", tmp_path / "cache", *(path.name for path in tmp_path.glob("hansa_*"))),
        cwd=tmp_path,
    )
