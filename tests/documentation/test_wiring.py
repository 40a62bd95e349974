"""A part is complete once it is constructed, and takes few others (``homeserver.py`` builds the Matrix parts).

A collaborator is a constructor argument that is not a value: a number, a text, or a read-only collection.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "hansa": ROOT / "core" / "hansa",
    "hansa_governance": ROOT / "plugins" / "governance" / "hansa_governance",
    "hansa_matrix": ROOT / "plugins" / "matrix" / "hansa_matrix",
    "hansa_xmpp": ROOT / "plugins" / "xmpp" / "hansa_xmpp",
}
MAX_COLLABORATORS = 4
_VALUES = {
    "str",
    "int",
    "float",
    "bool",
    "bytes",
    "Mapping",
    "Iterable",
    "Container",
    "Collection",
    "Sequence",
}
#: How much of each does not hold yet. The numbers only go down.
TOO_MANY_COLLABORATORS = {"hansa": 0, "hansa_governance": 0, "hansa_matrix": 0, "hansa_xmpp": 0}
PATCHED_LATE = {"hansa": 0, "hansa_governance": 0, "hansa_matrix": 0, "hansa_xmpp": 0}
CALLBACKS_WITH_A_DEFAULT = {"hansa": 0, "hansa_governance": 0, "hansa_matrix": 0, "hansa_xmpp": 0}
#: Modules that put parts together outside of a constructor.
_BUILDERS = {"app.py", "serve.py", "homeserver.py", "startup.py", "network.py", "endpoints.py", "plugin.py"}


#: The parser of the standard library, which is set up by its attributes.
_EXPAT = "parser"


def _modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    folder = PACKAGES[package]
    for path in sorted(folder.rglob("*.py")):
        if "testing" not in path.relative_to(folder).as_posix():
            yield path.relative_to(folder).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def _constructors(package: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for name, module in _modules(package):
        for one in ast.walk(module):
            if isinstance(one, ast.ClassDef):
                for function in one.body:
                    if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                        yield f"{name} {one.name}", function


def _is_value(annotation: ast.expr | None) -> bool:
    if isinstance(annotation, ast.BinOp):  # ``str | None``
        return _is_value(annotation.left) and _is_value(annotation.right)
    if isinstance(annotation, ast.Constant):
        return annotation.value is None
    if isinstance(annotation, ast.Subscript):
        return _is_value(annotation.value)
    return isinstance(annotation, ast.Name) and annotation.id in _VALUES


def _collaborators(function: ast.FunctionDef) -> list[str]:
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [one.arg for one in given if one.arg != "self" and not _is_value(one.annotation)]


def _assigned(function: ast.AST) -> Iterator[ast.Attribute]:
    for one in ast.walk(function):
        targets = (
            one.targets
            if isinstance(one, ast.Assign)
            else [one.target]
            if isinstance(one, ast.AnnAssign)
            else []
        )
        for target in targets:
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            yield from (part for part in parts if isinstance(part, ast.Attribute))


def _late_patches(package: str) -> list[str]:
    """Attributes of other objects that a constructor, or a module that builds, assigns."""
    functions: list[tuple[str, ast.AST]] = [
        (name.split()[0], function) for name, function in _constructors(package)
    ]
    functions += [(name, module) for name, module in _modules(package) if Path(name).name in _BUILDERS]
    found = [
        f"{name}: {ast.unparse(target)}"
        for name, function in functions
        for target in _assigned(function)
        if not (isinstance(target.value, ast.Name) and target.value.id in {"self", _EXPAT})
    ]
    return sorted(set(found))


def _callbacks_with_a_default(package: str) -> list[str]:
    """Attributes that a constructor sets to a callback which does nothing, for others to replace."""
    return [
        f"{name}: {ast.unparse(one.target)}"
        for name, function in _constructors(package)
        for one in ast.walk(function)
        if isinstance(one, ast.AnnAssign)
        and "Callable" in ast.unparse(one.annotation)
        and (
            isinstance(one.value, ast.Lambda)
            or (isinstance(one.value, ast.Constant) and one.value.value is None)
        )
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_constructors_take_at_most_four_collaborators(package):
    found = {
        name: given
        for name, function in _constructors(package)
        if len(given := _collaborators(function)) > MAX_COLLABORATORS
    }
    assert len(found) == TOO_MANY_COLLABORATORS[package], found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_part_is_changed_after_it_is_constructed(package):
    found = _late_patches(package)
    assert len(found) == PATCHED_LATE[package], found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_callback_waits_to_be_replaced(package):
    found = _callbacks_with_a_default(package)
    assert len(found) == CALLBACKS_WITH_A_DEFAULT[package], found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_constructor_takes_rooms_as_a_bare_mapping(package):
    found = [
        name
        for name, function in _constructors(package)
        for one in function.args.args
        if one.annotation is not None and "[str, MatrixRoom]" in ast.unparse(one.annotation)
    ]
    assert found == []


def test_the_matrix_plugin_has_no_long_argument_lists():
    found = [
        p.name for p in PACKAGES["hansa_matrix"].rglob("*.py") if "PLR0917" in p.read_text(encoding="utf-8")
    ]
    assert found == []
