"""Words and phrases that no message may hold, whole words only, whatever their case and form.

Compared are letters and digits in compatibility form (NFKC) and case-folded. What is not seen does not count:
characters of format (zero-width, bidirectional, soft hyphen), variation selectors, marks that stand over
another letter without making one of their own. Letters of other scripts that look alike are not the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_WORD = re.compile(r"[^\W_]+")
#: Marks without a letter of their own after composition, variation selectors, fillers without a glyph.
_UNSEEN = re.compile(
    "[\u0300-\u036f\u115f\u1160\u17b4\u17b5\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u3164\ufe00-\ufe0f"
    "\ufe20-\ufe2f\uffa0\U000e0100-\U000e01ef]"
)


def tokens(text: str) -> list[str]:
    """The words of a text, in the form in which they are compared."""
    if text.isascii():
        return _WORD.findall(text.lower())
    seen = "".join(c for c in text if unicodedata.category(c) != "Cf")
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold())
    return _WORD.findall(_UNSEEN.sub("", folded))


class Words:
    """Found by their first word and their length, so that a text is read once however many there are."""

    def __init__(self, words: Iterable[str]) -> None:
        self._phrases = {phrase for phrase in (tuple(tokens(word)) for word in words) if phrase}
        self._lengths: dict[str, set[int]] = {}
        for phrase in self._phrases:
            self._lengths.setdefault(phrase[0], set()).add(len(phrase))

    def hit(self, texts: Iterable[str]) -> str:
        """The first forbidden phrase, empty if there is none."""
        if not self._phrases:
            return ""
        for text in texts:
            found = tokens(text)
            for at, first in enumerate(found):
                for length in sorted(self._lengths.get(first, ())):
                    phrase = tuple(found[at : at + length])
                    if phrase in self._phrases:
                        return " ".join(phrase)
        return ""
