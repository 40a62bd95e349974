"""Globs: ``*`` is any run of characters, the empty one too, and ``?`` is one character.

Nothing is tried twice: what stands between two stars is taken where it first occurs, which is as good as
anywhere later. The time grows with the text times the glob at most, whatever the stars could stand for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

#: Expressions for what stands between two stars of a glob, of all globs together.
MAX_PIECES = 2000


class Glob:
    """One glob. ``wildcards`` is the characters of ``*?`` that are special; the others stand for themselves.
    ``ignore_case`` compares without regard to case, character by character.
    """

    __slots__ = ("_literals", "_pieces")

    def __init__(self, text: str, *, wildcards: str = "*?", ignore_case: bool = False) -> None:
        pieces = text.split("*") if "*" in wildcards else [text]
        single = "?" in wildcards
        self._literals: Sequence[str] | None = None
        self._pieces: Sequence[tuple[re.Pattern[str], int]] = ()
        if ignore_case or (single and "?" in text):
            self._pieces = [(_piece_expression(piece, single, ignore_case), len(piece)) for piece in pieces]
        else:
            self._literals = pieces

    @property
    def pieces(self) -> Sequence[re.Pattern[str]]:
        """The patterns between the stars, of a glob with ``?`` or of one that ignores case."""
        return [piece for piece, _ in self._pieces]

    def matches(self, text: str) -> bool:
        """True if the glob covers a whole text."""
        if self._literals is not None:
            return _pieces_cover(self._literals, text)
        (first, size), *rest = self._pieces
        if not rest:
            return first.fullmatch(text) is not None
        last, length = rest.pop()
        end = len(text) - length
        if end < size or first.match(text) is None or last.match(text, end) is None:
            return False
        at = size
        for piece, _ in rest:
            match = piece.search(text, at, end)
            if match is None:
                return False
            at = match.end()
        return True


def glob_expression(glob: str) -> str:
    """The source of a regular expression for ``fullmatch`` with ``re.DOTALL``. Alternatives of these are the
    form of a long list that every text is held against: they never go back (atomic groups).
    """
    first, *rest = (_piece_source(piece, single=True) for piece in re.split(r"\*+", glob))
    if not rest:
        return first
    last = rest.pop()
    return first + "".join(f"(?>.*?{piece})" for piece in rest) + ".*" + last


def _pieces_cover(pieces: Sequence[str], text: str) -> bool:
    if len(pieces) == 1:
        return pieces[0] == text
    first, last = pieces[0], pieces[-1]
    at, end = len(first), len(text) - len(last)
    if end < at or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in pieces[1:-1]:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


@lru_cache(maxsize=MAX_PIECES)
def _piece_expression(piece: str, single: bool, ignore_case: bool) -> re.Pattern[str]:
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    return re.compile(_piece_source(piece, single=single), flags)


def _piece_source(piece: str, *, single: bool) -> str:
    return "".join("." if single and character == "?" else re.escape(character) for character in piece)
