"""Words and phrases that no message may hold, whole words only, whatever their case."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_WORD = re.compile(r"\w+")


def tokens(text: str) -> list[str]:
    """The words of a text, case-folded and in compatibility form."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class Words:
    """Found by their first word, so that a text is read once however many there are."""

    def __init__(self, words: Iterable[str]) -> None:
        self._by_first: dict[str, list[tuple[str, ...]]] = {}
        for word in words:
            phrase = tuple(tokens(word))
            if phrase:
                self._by_first.setdefault(phrase[0], []).append(phrase)

    def hit(self, texts: Iterable[str]) -> str:
        """The first forbidden phrase, empty if there is none."""
        if not self._by_first:
            return ""
        for text in texts:
            found = tokens(text)
            for at, first in enumerate(found):
                for phrase in self._by_first.get(first, ()):
                    if tuple(found[at : at + len(phrase)]) == phrase:
                        return " ".join(phrase)
        return ""
