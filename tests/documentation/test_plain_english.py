"""Texts for readers are plain English, as far as patterns can hold it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hansa.cli import main

ROOT = Path(__file__).parents[2]
#: Generated from docstrings, which are not held yet.
GENERATED_FROM_DOCSTRINGS = ROOT / "docs" / "hooks.md"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page != GENERATED_FROM_DOCSTRINGS),
]
#: "There is no limit" and "is no longer" are plain; "0 is no limit" is not.
NOT_PLAIN = re.compile(
    r"\b(?:whom|whomever|whoever|does not do)\b"
    r"|(?<!there )\bis no\b(?! longer| more than| less than)"
    r"|\bwhat [^.|\n]* is none\b",
    re.IGNORECASE,
)


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _parsers(child)


def _marks(text: str) -> list[str]:
    return [text[max(0, found.start() - 40) : found.end() + 40] for found in NOT_PLAIN.finditer(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_is_plain(page):
    assert _marks(page.read_text(encoding="utf-8")) == []


def test_help_is_plain():
    texts = [parser.format_help() for parser in _parsers(main._parser())]
    assert len(texts) > 20
    assert [mark for text in texts for mark in _marks(text)] == []


def test_marks_are_found():
    for text in (
        "0 is no limit",
        "people whom one knows",
        "Whoever asks",
        "what there is of it is none",
        "it does not do",
    ):
        assert _marks(text), text
    for text in ("There is no limit.", "It is no longer there.", "This is not a limit."):
        assert not _marks(text), text
