"""Globs of push rules: whatever the case, of a whole text or of words in it.

SPEC: appendices, "Glob-style matching".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from hansa import Glob

#: Globs of push rules that are kept parsed.
_MAX_PARSED = 2000


@lru_cache(maxsize=_MAX_PARSED)
def _parse_glob(glob: str) -> Glob:
    return Glob(glob, ignore_case=True)


def is_glob(pattern: str) -> bool:
    """True if a pattern has wildcards."""
    return "*" in pattern or "?" in pattern


def matches_glob(glob: str, text: str) -> bool:
    """True if a glob covers a whole text, in any case."""
    return _parse_glob(glob).matches(text)


def contains_glob(glob: str, text: str) -> bool:
    """True if a glob covers a part of a text, with no word character beside it."""
    first, *rest = _parse_glob(glob).pieces
    if not rest:
        return (
            _find_piece(
                first, text, 0, lambda start, end: _starts_word(text, start) and _ends_word(text, end)
            )
            >= 0
        )
    at = 0
    if first.pattern:
        at = _find_piece(first, text, 0, lambda start, _: _starts_word(text, start))
    last = rest.pop()
    at = _match_pieces(rest, text, at) if at >= 0 else -1
    if at < 0 or not last.pattern:
        return at >= 0
    return _find_piece(last, text, at, lambda _, end: _ends_word(text, end)) >= 0


def _match_pieces(pieces: Sequence[re.Pattern[str]], text: str, at: int) -> int:
    """Where pieces end that follow each other from a place on, each as early as it can; -1 if they do not."""
    for piece in pieces:
        match = piece.search(text, at)
        if match is None:
            return -1
        at = match.end()
    return at


def _find_piece(piece: re.Pattern[str], text: str, at: int, good: Callable[[int, int], bool]) -> int:
    """Where the first match from a place on ends whose start and end are good; -1 if there is none."""
    while (match := piece.search(text, at)) is not None:
        if good(match.start(), match.end()):
            return match.end()
        at = match.start() + 1
    return -1


def _starts_word(text: str, at: int) -> bool:
    """True if a match that begins here is not a part of a longer word."""
    return at == 0 or not is_word_char(text[at - 1])


def _ends_word(text: str, at: int) -> bool:
    """True if a match that ends here is not a part of a longer word."""
    return at == len(text) or not is_word_char(text[at])


def is_word_char(character: str) -> bool:
    """True if a character belongs to a word. By the specification only ASCII characters do."""
    return character.isascii() and (character.isalnum() or character == "_")
