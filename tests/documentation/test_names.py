"""Names of classes: each has one meaning in its package, and a plugin does not reuse a public one."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import hansa
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "hansa": ROOT / "core/hansa",
    **{p.name: p for p in sorted((ROOT / "plugins").glob("*/hansa_*")) if p.is_dir()},
}
#: Every plugin, and the scripted network of the tests, has a class of this name: the contract asks for it.
CONTRACT = {"Config"}
#: What is still wrong. Lines are only ever removed.
REPEATED: dict[str, set[str]] = {}
REUSED: dict[str, set[str]] = {}


def classes(folder: Path) -> dict[str, list[Path]]:
    """Every top-level class of a package, with the files that define one of that name."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found[node.name].append(path)
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_class_name_is_unique_in_its_package(package):
    repeated = {name for name, paths in classes(PACKAGES[package]).items() if len(paths) > 1} - CONTRACT
    assert repeated == set()


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "hansa"])
def test_a_plugin_does_not_reuse_a_public_name(package):
    reused = set(classes(PACKAGES[package])) & set(hansa.__all__)
    assert reused == set()


def test_a_repeated_name_is_found(tmp_path):
    (tmp_path / "a.py").write_text("class Room: ...\n")
    (tmp_path / "b.py").write_text("class Room: ...\n")
    assert len(classes(tmp_path)["Room"]) == 2


#: Per cent of the function names that are one word. The numbers only go down.
ONE_WORD = {
    "core/hansa": 46,
    "plugins/xmpp/hansa_xmpp": 28,
    "plugins/governance/hansa_governance": 27,
    "plugins/matrix/hansa_matrix": 31,
    "plugins/matrix/hansa_matrix/rooms": 29,
    "plugins/matrix/hansa_matrix/federation": 20,
    "plugins/matrix/hansa_matrix/local": 8,
    "plugins/matrix/hansa_matrix/server_api": 42,
    "plugins/matrix/hansa_matrix/admin": 38,
    "plugins/matrix/hansa_matrix/client_api": 43,
    "plugins/matrix/hansa_matrix/users": 44,
    "plugins/matrix/hansa_matrix/proto": 12,
}


def function_names(folder: Path) -> list[str]:
    """The names of all functions and methods of a folder, without the special ones."""
    return [
        node.name
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("__")
    ]


@pytest.mark.parametrize("folder", ONE_WORD)
def test_function_names_say_what_is_done_with_which_thing(folder):
    names = function_names(ROOT / folder)
    single = [name for name in names if "_" not in name.strip("_")]
    assert len(names) > 20
    assert 100 * len(single) / len(names) <= ONE_WORD[folder]


#: Names of limits that say neither of what nor in which unit.
BARE_LIMITS = {"PAGE", "PATIENCE"}


@pytest.mark.parametrize("folder", ["core/hansa", "plugins"])
def test_a_limit_says_what_it_limits(folder):
    """See the fifth rule of names in CONTRIBUTING."""
    old = {
        f"{path.name}: {node.id}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name)
        and node.id.isupper()
        and (node.id.lstrip("_").split("_")[0] in {"MOST", "WITHIN"} or node.id.lstrip("_") in BARE_LIMITS)
    }
    assert old == set()
