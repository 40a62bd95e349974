"""Every code of a rule that code, tests or test data name is on docs/rules.md, with the tests that hold it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "rules.md"
_CODE = re.compile(r"(?<![\w.-])([ACDJKPRT])-(\d{1,2})(?: to \1-(\d{1,2}))?(?![\w-])")
_IN_NAME = re.compile(r"def test_([acdjkprt])(\d{1,2})_")
_MISTAKE = re.compile(
    r"\bmistakes? (\d+)(?: and (\d+))?|def test_mistakes?_(\d+)(?:_and_(\d+))?", re.IGNORECASE
)
#: Code, tests and test data. This file has no rules of its own.
USERS = [
    path
    for tree in ("core", "plugins", "tests", "bench", "examples")
    for path in sorted((ROOT / tree).rglob("*"))
    if path.suffix in {".py", ".json"} and path != Path(__file__)
]


def codes(text: str) -> Iterator[str]:
    """The codes that a text names; a range names each of its codes."""
    for letter, first, last in _CODE.findall(text):
        yield from (f"{letter}-{number}" for number in range(int(first), int(last or first) + 1))
    for letter, number in _IN_NAME.findall(text):
        yield f"{letter.upper()}-{number}"
    for numbers in _MISTAKE.findall(text):
        yield from (number for number in numbers if number)


def rules(page: str) -> dict[str, list[str]]:
    """The tests of each code on the page."""
    rows = re.findall(r"^\| ([A-Z]-\d+|\d+) \| .+? \| (`tests/.+`) \|$", page, flags=re.MULTILINE)
    return {code: re.findall(r"`(tests/[^`]+)`", tests) for code, tests in rows}


@cache
def _tests_of(path: Path) -> frozenset[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


RULES = rules(PAGE.read_text(encoding="utf-8"))


def test_the_page_has_every_code_that_is_used_and_no_other():
    used = {code: path for path in USERS for code in codes(path.read_text(encoding="utf-8"))}
    assert len(used) > 80
    assert {code: path for code, path in used.items() if code not in RULES} == {}
    assert set(RULES) - set(used) == set()


@pytest.mark.parametrize("code", RULES)
def test_the_tests_of_a_rule_exist(code):
    assert RULES[code]
    for named in RULES[code]:
        path, _, name = named.partition("::")
        assert name in _tests_of(ROOT / path), named


def test_codes_are_found():
    text = '"""J-9; T-13 to T-15. Mistakes 26 and 31."""\ndef test_k5_x(): ...\ndef test_mistake_7_y(): ...'
    assert list(codes(text)) == ["J-9", "T-13", "T-14", "T-15", "K-5", "26", "31", "7"]
    assert list(codes("UTF-8, RFC-9, XC-1, C-130, a-1, 1-2, D-3-x")) == []
