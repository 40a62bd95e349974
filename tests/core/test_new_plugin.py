"""``hansa plugin new`` writes a distribution, refuses bad names, and overwrites nothing."""

from __future__ import annotations

import ast
import importlib
import tomllib

import pytest
from hansa.cli import main, new_plugin
from hansa.model.errors import LocalProtocolError

KINDS = ("network", "policy", "observer")


@pytest.mark.parametrize("kind", KINDS)
def test_the_distribution_is_complete(kind, tmp_path, capsys):
    assert (
        main.main(["plugin", "new", "night-owl", f"--{kind}", "--into", str(tmp_path / "deep" / "down")]) == 0
    )
    folder = tmp_path / "deep" / "down" / "hansa-night-owl"
    assert capsys.readouterr().out == (
        f"{folder} has a plugin that runs. Next:\n"
        f"  python -m pip install --editable '{folder}[test]'\n"
        f"  python -m pytest {folder}\n"
    )
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {
        ".gitignore",
        "README.md",
        "hansa_night_owl/__init__.py",
        "hansa_night_owl/py.typed",
        "pyproject.toml",
        "tests/test_hansa_night_owl.py",
    } <= names
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["hansa.plugins"] == {"night-owl": "hansa_night_owl"}
    for path in folder.rglob("*.*"):
        text = path.read_text()
        assert not any(word in text for word in ("@NAME@", "@MODULE@", "@CLASS@", "@TABLE@", ".tmpl")), path
        if path.suffix == ".py":
            for imported in (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom)):
                if imported.module is None or imported.module.partition(".")[0] != "hansa":
                    continue
                assert imported.module in {"hansa", "hansa.testing", "hansa.testing.actor"}, path
                module = importlib.import_module(imported.module)
                assert [name.name for name in imported.names if not hasattr(module, name.name)] == [], path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "cannot be the name"),
        ("Owl", "cannot be the name"),
        ("night_owl", "cannot be the name"),
        ("../owl", "cannot be the name"),
        ("owl\n", "cannot be the name"),
        ("1owl", "cannot be the name"),
        ("owl-", "cannot be the name"),
        ("o" * 41, "cannot be the name"),
        ("media", "media is taken: it is a command"),
        ("rooms", "rooms is taken: it is a command"),
        ("matrix", "matrix is taken: it is an installed plugin"),
    ],
)
def test_a_bad_name_writes_nothing(name, reason, tmp_path, capsys):
    assert main.main(["plugin", "new", name, "--policy", "--into", str(tmp_path)]) == 1
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    kept = tmp_path / "hansa-owl" / "README.md"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(LocalProtocolError, match="exists already: nothing was written"):
        new_plugin.write_plugin("owl", "policy", tmp_path, {})
    assert [path.name for path in kept.parent.iterdir()] == ["README.md"]
    assert kept.read_text() == "mine"


def test_what_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    def fail(text, words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(new_plugin, "_fill", fail)
    with pytest.raises(OSError, match="No space"):
        new_plugin.write_plugin("owl", "network", tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_the_kind_must_be_said(capsys):
    with pytest.raises(SystemExit):
        main.main(["plugin", "new", "owl"])
    assert "one of the arguments --network --policy --observer is required" in capsys.readouterr().err
