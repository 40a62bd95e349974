"""Fixtures say what they give: a type checker sees through them, and renames reach the tests."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bare_fixtures(path: Path) -> list[str]:
    """The fixtures of a file without a return annotation."""
    return [
        f"{path.name}:{node.lineno} {node.name}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.returns is None
        and any("fixture" in ast.unparse(one) for one in node.decorator_list)
    ]


def test_every_fixture_has_a_return_annotation():
    assert [one for path in sorted((ROOT / "tests").rglob("*.py")) for one in bare_fixtures(path)] == []


@pytest.mark.parametrize(("arrow", "found"), [("", 1), (" -> int", 0)])
def test_a_fixture_without_one_is_found(tmp_path, arrow, found):
    path = tmp_path / "test_x.py"
    path.write_text(f"@pytest.fixture\ndef number(){arrow}:\n    return 1\n")
    assert len(bare_fixtures(path)) == found
