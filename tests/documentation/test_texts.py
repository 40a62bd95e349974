"""Texts that people see, errors, help and descriptions, are plain English."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent.parent
#: What reads as translated. "There is no such room" and "no longer" are English.
_ODD = re.compile(
    r"(?<!there )\b(?:is|are) no (?!longer)|\bdoes not do\b|\bwho(?:m|ever)\b|\bto be had\b"
    r"|\b(?:somebody|anybody|anew)\b|\bof (?:ours|theirs|yours)\b",
    re.IGNORECASE,
)


def _texts(path: Path) -> list[tuple[int, str]]:
    """Every string with a blank that is not a docstring, with its line; what is formatted in is ``{}``."""
    tree = ast.parse(path.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            said = "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose | parts:
            said = node.value
        else:
            continue
        if " " in said:
            found.append((node.lineno, said))
    return found


@pytest.mark.parametrize("tree", ["core/hansa", "plugins"])
def test_no_text_reads_as_translated(tree):
    texts = [
        (f"{path.relative_to(_ROOT)}:{line}", text)
        for path in sorted((_ROOT / tree).rglob("*.py"))
        if "testing" not in path.parts
        for line, text in _texts(path)
    ]
    assert len(texts) > 100
    assert [(where, text) for where, text in texts if _ODD.search(text)] == []
