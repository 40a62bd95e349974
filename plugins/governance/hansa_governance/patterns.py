"""Many globs at once: a name is tried against those alone of which it
has a piece.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from hansa import Glob

WILD = frozenset("*?")
_WILD_RUN = re.compile(r"[*?]+")

Where = Literal["head", "tail", "within"]


class _Piece(NamedTuple):
    """Text without wildcards that a glob has, and where a name has to have it."""

    where: Where
    text: str


def _split_glob(glob: str) -> list[_Piece]:
    parts = _WILD_RUN.split(glob)
    found = [_Piece("head", parts[0]), _Piece("tail", parts[-1])]
    found += [_Piece("within", text) for text in parts[1:-1]]
    return [piece for piece in found if piece.text]


class Patterns:
    """Globs with wildcards. Each is kept under the piece of it that the fewest others have; the time that a
    name takes follows from its length and not from their number.
    """

    def __init__(self, globs: Iterable[str]) -> None:
        self._globs = tuple(globs)
        pieces = [_split_glob(glob) for glob in self._globs]
        shared = Counter(piece for each in pieces for piece in each)
        #: By length and text, the numbers of the globs.
        self._by: dict[Where, dict[int, dict[str, list[int]]]] = {"head": {}, "tail": {}, "within": {}}
        self._always: list[int] = []
        for number, each in enumerate(pieces):
            if not each:
                self._always.append(number)
                continue
            rarest = min(each, key=lambda piece: (shared[piece], piece.where == "within", -len(piece.text)))
            of_length = self._by[rarest.where].setdefault(len(rarest.text), defaultdict(list))
            of_length[rarest.text].append(number)

    def __bool__(self) -> bool:
        return bool(self._globs)

    def first(self, name: str) -> str:
        """The first glob that covers a name, empty if none does."""
        numbers = {*self._always, *self._candidate_globs(name)}
        return next((self._globs[n] for n in sorted(numbers) if Glob(self._globs[n]).matches(name)), "")

    def _candidate_globs(self, name: str) -> Iterator[int]:
        for length, known in self._by["head"].items():
            yield from known.get(name[:length], ())
        for length, known in self._by["tail"].items():
            yield from known.get(name[-length:], ())
        for length, known in self._by["within"].items():
            yield from _matches_within(known, name, length)


def _matches_within(known: dict[str, list[int]], name: str, length: int) -> Sequence[int]:
    seen = known.keys() & {name[at : at + length] for at in range(len(name) - length + 1)}
    return [number for text in seen for number in known[text]]
