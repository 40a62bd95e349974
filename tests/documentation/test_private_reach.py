"""Tests use public names: the private attributes that they still reach for are counted, and get fewer.

``MatrixHarness`` in ``hansa_matrix.testing`` gives names to the parts of a Matrix network.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Uses of a private attribute of something else than ``self`` and ``cls``, by folder. Numbers only go down.
REACHED = {
    "clients": 43,
    "core": 53,
    "core/store": 51,
    "core/testing": 1,
    "documentation": 3,
    "e2e": 6,
    "governance": 6,
    "matrix": 65,
    "matrix/oracle": 1,
    "matrix/proto": 9,
    "matrix/room": 8,
    "peers": 1,
    "sim": 5,
    "xmpp": 3,
}
#: Tuples with names have these by their contract, and the standard library makes callers use these.
PUBLIC = {"_replace", "_asdict", "_fields", "_SubParsersAction", "_actions"}


def private_uses(path: Path) -> list[str]:
    """The expressions in a file that take a private attribute of another object."""
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in PUBLIC
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"})
    ]


def counted(root: Path) -> Counter[str]:
    """The number of private uses by folder below ``root``: its first two parts."""
    found: Counter[str] = Counter()
    for path in sorted(root.rglob("*.py")):
        folder = "/".join(path.relative_to(root).parent.parts[:2])
        found[folder] += len(private_uses(path))
    return +found


def test_private_attributes_are_used_less_and_less():
    found = counted(ROOT / "tests")
    assert {folder: count for folder, count in found.items() if count > REACHED.get(folder, 0)} == {}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("network._client", 1),
        ("self._client", 0),
        ("a.b()._c.d", 1),
        ("x.__dict__", 0),
        ("parts._replace(a=1)", 0),
    ],
)
def test_a_private_use_is_found(tmp_path, text, count):
    path = tmp_path / "test_x.py"
    path.write_text(f"{text}\n")
    assert len(private_uses(path)) == count
