"""Words and phrases that no text may hold, whole words only, whatever their case, form and look.

Found are words as ``folding`` compares them; words cut in pieces by characters that are not letters
(``clas-sified``, ``c.l.a.s.s``); letters that stand alone, with anything between them (``c l a s s``);
digits and signs in the place of letters (``c1assif1ed``, ``cla$$ified``); digits before and behind a word of
four letters or more (``classified1``); what is written backwards to be shown forwards. Not found are words
cut in pieces of several letters by spaces (``class ified``), other languages, pictures, what is encrypted.

In scripts that put no spaces between words (Chinese, Japanese, Thai, Khmer and their like) a word is found
wherever it stands. A text is read once however many words there are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from hansa_governance.folding import BREAK, always, forms, pieces, prepare

#: Letters and digits, and the break between strings.
_TOKEN = re.compile(rf"([^\W_]+|{BREAK})")
#: Letters of scripts without spaces between words, in a row.
_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua9e0-\ua9ff\uaa60-\uaadf\uf900-\ufaff\U00020000-\U000323af]+"
)
_MIXED = re.compile(r"[^\W\d_][01345789@$€]|[01345789@$!€][^\W\d_]")
#: Letters for digits and signs that look like them: a ``1`` is an ``i`` or an ``l``.
_DIGITS = str.maketrans("0134578@$€!", "oleastbasei")
_DIGITS_I = str.maketrans("0134578@$€!", "oieastbasei")
#: Where it is both in one word, a letter that no word has stands for either: in a word with such a sign only,
#: so that "fall" is not taken for "fail".
_EITHER = str.maketrans("0134578@$€!il", "o\u01c0eastbase\u01c0\u01c0\u01c0")
_SIGNED = re.compile(r"(?<![\w@$€!])[^\W0134578]*+[0134578@$€!][\w@$€!]*+")
#: A word with digits before or behind it, alone.
_NUMBERED = re.compile(r"(?<![^\W_])(?:\d+([^\W\d_]{4,})\d*|([^\W\d_]{4,})\d+)(?![^\W_])")
#: What is shown from its end, up to where that ends. Not the end of a string, which begins another one.
_BACKWARDS = re.compile(f"\u202e([^\u202c\n{BREAK}]*)")
#: More than this (characters) of one crossing is not read; it is taken for a text that holds a word.
MAX_CHARACTERS = 1 << 20
#: Characters, and words, that are looked at in one go: a call into the interpreter is never interrupted.
_AT_ONCE, _WORDS_AT_ONCE = 16 * 1024, 1000


def tokens(text: str) -> list[str]:
    """The words of a text that is folded already."""
    return _TOKEN.findall(text)


def _word_windows(form: str, ahead: int) -> Iterator[tuple[list[str], int]]:
    """Yields windows over a text: the parts between words and the words in turn, and the number of words to
    look at now. ``ahead`` more words follow them, if there are so many.
    """
    if len(form) <= _AT_ONCE:
        parts = _TOKEN.split(form)
        yield parts, len(parts) // 2
        return
    parts, at, found = [], 0, _TOKEN.finditer(form)
    while batch := list(islice(found, _WORDS_AT_ONCE)):
        for one in batch:
            parts += (form[at : one.start()], one[1])
            at = one.end()
        ready = len(parts) // 2 - ahead
        if ready > 0:
            yield parts, ready
            del parts[: 2 * ready]
    yield parts, len(parts) // 2


def _read_forms(text: str, going: Callable[[], None] = always) -> Iterator[str]:
    for form in forms(text, going):
        yield form
        parts = pieces(form)
        if not any(_MIXED.search(part) for part in parts):  # no map: others have their turn between two
            continue
        yield _join_parts(parts, lambda part: part.translate(_DIGITS))
        if "1" in form or "!" in form:
            yield _join_parts(parts, lambda part: part.translate(_DIGITS_I))
            yield _join_parts(
                parts, lambda part: _SIGNED.sub(lambda found: found[0].translate(_EITHER), part)
            )
        numbered = _join_parts(parts, lambda part: _NUMBERED.sub(r"\1\2", part))
        if numbered != form:
            yield numbered


def _join_parts(parts: Iterable[str], made: Callable[[str], str]) -> str:
    return "".join(map(made, parts))


class PhraseList:
    """Found by their first word and their length."""

    def __init__(self, words: Iterable[str]) -> None:
        self._phrases: dict[tuple[str, ...], str] = {}
        self._lengths: dict[str, set[int]] = {}
        self._joined: dict[str, str] = {}
        self._begun: set[str] = set()
        self._spaceless: dict[str, str] = {}
        self._starts: set[str] = set()
        for configured in words:
            word = " ".join(tokens(unicodedata.normalize("NFKC", configured.casefold())))
            read_as = set(_read_forms(configured))
            for read in read_as | {one.translate(_EITHER) for one in read_as}:
                if _SPACELESS.fullmatch(read):
                    self._spaceless[read] = word
                    self._starts |= {read[:length] for length in range(1, len(read))}
                phrase = tuple(_TOKEN.findall(read))
                if phrase:
                    self._phrases[phrase] = word
                    self._lengths.setdefault(phrase[0], set()).add(len(phrase))
                    self._joined["".join(phrase)] = word
        for joined in self._joined:
            self._begun |= {joined[:length] for length in range(1, len(joined))}
        self._firsts = self._begun | set(self._lengths)
        #: Words that can belong to a phrase, or pieces to a word, at most.
        self._ahead = max(map(len, self._joined), default=0)
        if self._phrases:
            prepare()  # now, and not at the first message

    def __bool__(self) -> bool:
        return bool(self._phrases)

    def find(self, texts: Iterable[str], going: Callable[[], None] = always) -> str:
        """The first forbidden phrase, as configured but for case and signs, empty if there is none. ``going``
        is called again and again meanwhile; what it raises ends the reading.
        """
        if not self._phrases:
            return ""
        whole = BREAK.join(text.replace(BREAK, "") for text in texts)
        if len(whole) > MAX_CHARACTERS:
            return f"(longer than {MAX_CHARACTERS} characters)"
        forwards = _BACKWARDS.sub(lambda found: found[1][::-1], whole) if "\u202e" in whole else whole
        every = (form for text in dict.fromkeys((whole, forwards)) for form in _read_forms(text, going))
        for form in dict.fromkeys(every):
            found = self._find_in_form(form, going)
            if found:
                return found
        return ""

    def _find_in_form(self, form: str, going: Callable[[], None]) -> str:
        within = self._find_spaceless(form, going) if self._spaceless else ""
        if within:
            return within
        for parts, count in _word_windows(form, self._ahead):
            going()
            words = parts[1 : 2 * count : 2]
            if self._firsts.isdisjoint(words):
                continue
            for number, first in enumerate(words):
                if first in self._firsts and (found := self._phrase_from(parts, 2 * number + 1, first)):
                    return found
        return ""

    def _phrase_from(self, parts: list[str], at: int, first: str) -> str:
        """A phrase whose first word, or a word whose first piece, is at ``at``."""
        for length in self._lengths.get(first, ()):
            phrase = tuple(parts[at : at + 2 * length : 2])
            if phrase in self._phrases:
                return self._phrases[phrase]
        return self._word_of_pieces(parts, at) if first in self._begun else ""

    def _find_spaceless(self, form: str, going: Callable[[], None]) -> str:
        """A word of a script without spaces, anywhere in a row of its letters."""
        if form.isascii():
            return ""
        for at in range(0, len(form), _AT_ONCE):
            going()
            for row in _SPACELESS.finditer(form, at, at + _AT_ONCE):
                for start in range(row.start(), row.end()):
                    if found := self._phrase_at(form, start):
                        return found
        return ""

    def _phrase_at(self, form: str, start: int) -> str:
        end = start + 1
        while end <= len(form):
            piece = form[start:end]
            if piece in self._spaceless:
                return self._spaceless[piece]
            if piece not in self._starts:
                break
            end += 1
        return ""

    def _word_of_pieces(self, parts: list[str], at: int) -> str:
        """A word that begins with the piece at ``at`` and goes on in the next ones."""
        joined = parts[at]
        alone = len(joined) == 1
        while joined in self._begun and at + 2 < len(parts):
            between, piece = parts[at + 1], parts[at + 2]
            alone = alone and len(piece) == 1
            if piece == BREAK or not (alone or not any(map(str.isspace, between))):
                return ""
            at, joined = at + 2, joined + piece
            if joined in self._joined:
                return self._joined[joined]
        return ""
