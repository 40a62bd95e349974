"""Globs, matched in time that grows with the text and not with what the stars could stand for.

SPEC: appendices, "Glob-style matching".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

_Part = re.Pattern[str]
_PARTS = 2000


@lru_cache(maxsize=_PARTS)
def _parts(glob: str) -> tuple[tuple[_Part, int], ...]:
    """What is between the stars, each with its length: a ``?`` is one character, whichever."""
    found = []
    for part in glob.split("*"):
        pattern = "".join("." if c == "?" else re.escape(c) for c in part)
        found.append((re.compile(pattern, re.IGNORECASE | re.DOTALL), len(part)))
    return tuple(found)


def is_glob(pattern: str) -> bool:
    """Whether a pattern stands for more than itself."""
    return "*" in pattern or "?" in pattern


def matches(glob: str, text: str) -> bool:
    """Whether a text is what a glob says, whatever the case."""
    (first, size), *rest = _parts(glob)
    if not rest:
        return first.fullmatch(text) is not None
    last, length = rest.pop()
    end = len(text) - length
    if end < size or first.match(text) is None or last.match(text, end) is None:
        return False
    return _follow(rest, text[:end], size) >= 0


def finds(glob: str, text: str) -> bool:
    """Whether a part of a text is what a glob says, with nothing that belongs to words beside it."""
    (first, _), *rest = _parts(glob)
    if not rest:
        return _search(first, text, 0, lambda start, end: _apart(text, start) and _until(text, end)) >= 0
    at = 0
    if first.pattern:
        at = _search(first, text, 0, lambda start, _: _apart(text, start))
    last, _ = rest.pop()
    at = _follow(rest, text, at) if at >= 0 else -1
    if at < 0 or not last.pattern:
        return at >= 0
    return _search(last, text, at, lambda _, end: _until(text, end)) >= 0


def _follow(parts: Sequence[tuple[_Part, int]], text: str, at: int) -> int:
    """Where parts end that follow each other from a place on, each as early as it can; -1 if they do not."""
    for part, _ in parts:
        found = part.search(text, at)
        if found is None:
            return -1
        at = found.end()
    return at


def _search(part: _Part, text: str, at: int, good: Callable[[int, int], bool]) -> int:
    """Where the first match from a place on ends whose start and end are good; -1 if there is none."""
    while (found := part.search(text, at)) is not None:
        if good(found.start(), found.end()):
            return found.end()
        at = found.start() + 1
    return -1


def _apart(text: str, at: int) -> bool:
    """Whether something that begins here is no part of a longer word."""
    return at == 0 or not of_words(text[at - 1])


def _until(text: str, at: int) -> bool:
    """Whether something that ends here is no part of a longer word."""
    return at == len(text) or not of_words(text[at])


def of_words(character: str) -> bool:
    """Whether a character belongs to words: by the specification those of ASCII alone do."""
    return character.isascii() and (character.isalnum() or character == "_")
