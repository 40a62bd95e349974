"""``hansa plugin new``: each distribution is installed without an index, loads, type-checks, and passes its own
tests as they are written.
"""

from __future__ import annotations

import shutil
import sys

import pytest

from .environments import Environment, command, environment

KINDS = ("network", "policy", "observer")


@pytest.fixture(scope="module")
def with_plugins(wheel, tmp_path_factory) -> Environment:
    """An environment with Hansa and three plugins that its own command wrote."""
    made = environment(tmp_path_factory.mktemp("new") / "env")
    made.install(wheel)
    for kind in KINDS:
        said = made.run("hansa", "plugin", "new", f"my-{kind}", f"--{kind}", "--into", "written").stdout
        assert said.count("\n  python -m ") == 2
        made.install(made.folder / "written" / f"hansa-my-{kind}")
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_its_tests_pass_as_written(kind, with_plugins, tmp_path):
    source = with_plugins.folder / "written" / f"hansa-my-{kind}"
    shutil.copy(source / "pyproject.toml", tmp_path)
    shutil.copytree(source / "tests", tmp_path / "tests")
    done = command(with_plugins.python, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", cwd=tmp_path)
    assert " passed" in done.stdout and "failed" not in done.stdout
    if kind != "policy":
        assert "skipped" not in done.stdout, done.stdout


CONFIGURATION = """
[networks.my_network]
plugin = "my-network"
[policies.my_policy]
plugin = "my-policy"
words = ["classified"]
[observers.my_observer]
plugin = "my-observer"
"""


def test_a_configuration_with_them_is_good(with_plugins, tmp_path):
    file = tmp_path / "hansa.toml"
    file.touch(0o600)
    file.write_text(f'[server]\nlisten = ["http://127.0.0.1:1"]\n{CONFIGURATION}')
    said = with_plugins.run("hansa", "check", "-c", file).stdout
    assert said == f"{file} is good: 1 network, 1 policy, 0 rooms, 1 observer\n"


def test_they_type_check(with_plugins, tmp_path):
    for kind in KINDS:
        module = f"hansa_my_{kind}"
        shutil.copytree(with_plugins.folder / "written" / f"hansa-my-{kind}" / module, tmp_path / module)
    command(
        *(sys.executable, "-m", "mypy", "--strict", "--python-executable", with_plugins.python),
        *("--cache-dir", tmp_path / "cache", *(f"hansa_my_{kind}" for kind in KINDS)),
        cwd=tmp_path,
    )
