"""Texts for readers are plain English, as far as patterns can hold it: pages, help, errors, descriptions."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hansa.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
#: "There is no limit" and "is no longer" are plain; "0 is no limit" is not.
WORDS = re.compile(
    r"(?<!there )\b(?:is|are) no\b(?! longer| more than| less than)"
    r"|\b(?:does not do|to be had|in vain|taken back|put right|goes? on with)\b"
    r"|\b(?:whom|whomever|whoever|somebody|anybody|anew)\b"
    r"|\bof (?:ours|theirs|yours)\b"
    r"|\bwhat [^.|\n]* is none\b",
    re.IGNORECASE,
)
#: A clause as the subject of a sentence: "What waits is judged again." A question is plain.
CLAUSES = re.compile(
    r"(?:^(?:- )?|[.:;] |\| )(?:What|Who|Whose) (?![^.\n]*\?)[^|\n]*|[.:;] (?:what|who) (?:is|has|was)\b[^|\n]*",
    re.MULTILINE,
)


def _marks(text: str) -> list[str]:
    """The places of a text that read as translated."""
    found = [*WORDS.finditer(text), *CLAUSES.finditer(text)]
    return [text[max(0, place.start() - 40) : place.end() + 40] for place in found]


def _prose(page: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]+`", "`code`", text)


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _parsers(child)


def _strings(source: str) -> list[tuple[int, str]]:
    """Every string with a blank that is not a docstring, with its line. A replacement field is ``{}``."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    strings = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings | parts
        ):
            text = node.value
        else:
            continue
        if " " in text:
            strings.append((node.lineno, text))
    return strings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_is_plain(page):
    assert _marks(_prose(page)) == []


def test_help_is_plain():
    texts = [parser.format_help() for parser in _parsers(main._make_parser())]
    assert len(texts) > 20
    assert [mark for text in texts for mark in _marks(text)] == []


@pytest.mark.parametrize("tree", ["core/hansa", "plugins"])
def test_errors_and_descriptions_are_plain(tree):
    texts = [
        (f"{path.relative_to(ROOT)}:{line}", text)
        for path in sorted((ROOT / tree).rglob("*.py"))
        if "testing" not in path.parts
        for line, text in _strings(path.read_text(encoding="utf-8"))
    ]
    assert len(texts) > 100
    assert [(where, text) for where, text in texts if _marks(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "0 is no limit",
        "people whom one knows",
        "Whoever asks",
        "a server of yours, such as this",
        "it is asked anew",
        "what there is of it is none",
        "it does not do",
        "an event that is not to be had",
        "What waits is judged again.",
        "One line.\nWho is denied sees nothing.",
        "- What a server did is not known.",
        "It waits; what is late is dropped.",
        "| a limit | Who asks too often |",
    ],
)
def test_a_mark_is_found(text):
    assert _marks(text)


@pytest.mark.parametrize(
    "text",
    [
        "There is no limit.",
        "It is no longer there.",
        "This is not a limit.",
        "It says what it needs.",
        "Who can read this? What is stored?",
        "## What is measured",
    ],
)
def test_plain_text_has_no_mark(text):
    assert not _marks(text)


def test_strings_of_code_are_found():
    source = 'def f(x):\n    """A docstring here."""\n    raise ValueError(f"{x} is no number")\n'
    assert _strings(source) == [(3, "{} is no number")]
