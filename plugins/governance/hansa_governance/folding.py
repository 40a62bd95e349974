"""The form in which names and words are compared: what a person sees, not how it is written.

Unicode 15: NFKC and case folding (chapter 3, 3.13), the property Default_Ignorable_Code_Point
(DerivedCoreProperties.txt), confusables (UTS 39) from the library ``confusable_homoglyphs``. UTS 39 lacks
letters in circles and squares, small capitals and letters with strokes: these are told by their names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Literal

from confusable_homoglyphs import confusables

#: Default_Ignorable_Code_Point of Unicode 15, as inclusive ranges.
IGNORABLE = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x061C, 0x061C),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
#: Spaces that are too narrow to separate words for a reader, and line ends that clients do not show.
_NARROW = (*range(0x2006, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F)
#: Marks over and under letters of any script, points of Hebrew and Arabic: the word is the same without them.
_MARKS = (
    (0x0300, 0x036F),
    (0x0483, 0x0489),
    (0x0591, 0x05BD),
    (0x05BF, 0x05BF),
    (0x05C1, 0x05C2),
    (0x05C4, 0x05C5),
    (0x05C7, 0x05C7),
    (0x0610, 0x061A),
    (0x064B, 0x065F),
    (0x0670, 0x0670),
    (0x06D6, 0x06DC),
    (0x1AB0, 0x1AFF),
    (0x1DC0, 0x1DFF),
    (0x20D0, 0x20FF),
    (0xFE20, 0xFE2F),
)
#: Separates what belongs to different strings; no text has it.
BREAK = "\x01"
#: Control characters that part lines and words; all others are not seen.
_SPACES = frozenset("\t\n\r" + BREAK)
#: Letters whose look is told by their names.
_NAMED = re.compile(
    r"(?:(?:NEGATIVE |PARENTHESIZED |CROSSED )?(?:CIRCLED |SQUARED )?LATIN (?:SMALL|CAPITAL) LETTER"
    r"|LATIN LETTER SMALL CAPITAL|LATIN EPIGRAPHIC LETTER|MODIFIER LETTER (?:SMALL|CAPITAL)"
    r"|REGIONAL INDICATOR SYMBOL LETTER|COMBINING LATIN (?:SMALL LETTER|LETTER SMALL CAPITAL))"
    r" ([A-Z])(?: WITH .*)?"
)
_NAMED_IN = ((0x80, 0x24F), (0x250, 0x2AF), (0x1D00, 0x1DBF), (0x1E00, 0x1EFF), (0x2C60, 0x2C7F))
_NAMED_TOO = ((0xA720, 0xA7FF), (0xAB30, 0xAB6F), (0x1F110, 0x1F1FF), (0x1DF00, 0x1DF2F))
#: A mark of a script of its own behind a letter that has none.
_STRAY = re.compile(
    r"(?<=[a-z0-9])[\u0900-\u1CFF\u2DE0-\u2DFF\uA66F-\uA6F1\uA802-\uABED\U00010A01-\U0001E94A]+"
)
_PARTING = frozenset(" \t\n\r.,;:-/<>()&=\"'" + BREAK)
#: Control characters that are not seen.
_ODD = re.compile("[\x00\x02-\x08\x0b\x0c\x0e-\x1f\x7f]")
_STROKES = frozenset("lI1|")
#: Marks in a row that are read, as in Stream-Safe Text (UAX 15, 13): to order them takes quadratic time.
_MAX_MARKS = 30
#: No mark of Unicode 15 has a higher number.
_LAST_MARK = 0x1EA00
#: One sign that stands for a phrase each, of which a text would become 18 times as long.
_PHRASES = {0xFDFA: " ", 0xFDFB: " "}
#: Characters that are folded at once: one call into the interpreter is never interrupted. A text is
#: cut behind a sign that parts words where there is one among the last ``_BACK`` of a piece.
_PIECE, _BACK = 4096, 1024
_SMALL_L = re.compile(r"(?<=[a-z])I|I(?=[a-z])|(?<=[A-Za-z])[|\u2223](?=[A-Za-z])")


@cache
def _invisible_table(instead: str) -> dict[int, str | None]:
    table: dict[int, str | None] = {}
    for first, last in IGNORABLE:
        table |= dict.fromkeys(range(first, last + 1), instead or None)
    table |= dict.fromkeys(_NARROW, instead or None)
    controls = [*range(0x20), *range(0x7F, 0xA0)]
    return table | {c: instead or None for c in controls if chr(c) not in _SPACES}


@cache
def _mark_run_pattern() -> re.Pattern[str]:
    """Marks in a row, one more than are read: whatever does not begin a character of its own."""
    ranges: list[list[int]] = []
    for code in range(0x300, _LAST_MARK):
        if unicodedata.combining(unicodedata.normalize("NFKD", chr(code))[0]):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    marks = "[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges) + "]"
    return re.compile(f"({marks}{{{_MAX_MARKS}}}){marks}+")


def _normalize_text(form: Literal["NFC", "NFKC", "NFKD"], text: str) -> str:
    """``unicodedata.normalize`` in time linear in the text."""
    if len(text) > _MAX_MARKS:
        text = _mark_run_pattern().sub(r"\1", text.translate(_PHRASES))
    return unicodedata.normalize(form, text)


def pieces(text: str) -> list[str]:
    """A text in pieces that are folded each by itself."""
    found: list[str] = []
    at = 0
    while len(text) - at > _PIECE:
        end = at + _PIECE
        parted = next((i for i in range(end, end - _BACK, -1) if text[i - 1] in _PARTING), end)
        found.append(text[at:parted])
        at = parted
    return [*found, text[at:]]


@cache
def _marks_table() -> dict[int, None]:
    return dict.fromkeys(c for first, last in _MARKS for c in range(first, last + 1))


@cache
def _lookalike_table(stroke: str = "l") -> dict[int, str]:
    """Latin letters for what looks like them; ``stroke`` is what an upright line is taken for."""
    table: dict[int, str] = {}
    for ranges in (_NAMED_IN, _NAMED_TOO):
        for first, last in ranges:
            for code in range(first, last + 1):
                named = _NAMED.fullmatch(unicodedata.name(chr(code), ""))
                if named:
                    table[code] = named[1].lower()
    for character, alike in confusables.confusables_data.items():
        if character.isascii() or len(character) != 1 or ord(character) in table:
            continue
        seen = [one["c"] for one in alike if len(one["c"]) == 1 and one["c"].isascii() and one["c"].isalnum()]
        letters = [one for one in seen if one.isalpha()]
        if _STROKES.intersection(seen) or "PALOCHKA" in unicodedata.name(character, ""):
            table[ord(character)] = stroke
        elif seen:
            table[ord(character)] = (letters or seen)[0].lower()
    return table


@cache
def _upright_pattern() -> re.Pattern[str]:
    """The letters that look like an upright line."""
    one, other = _lookalike_table("l"), _lookalike_table("i")
    return re.compile("[" + "".join(re.escape(chr(code)) for code in one if one[code] != other[code]) + "]")


def prepare() -> None:
    """Make the tables, which takes long, before they are needed."""
    forms("\u00e9")
    _mark_run_pattern()


def folded(text: str) -> str:
    """Without case, forms of compatibility, marks, and whatever is not seen."""
    if text.isascii():
        return (text if text.isprintable() else text.translate(_invisible_table(""))).lower()
    return _fold_visible(text.translate(_invisible_table("")))


def prepared(name: str) -> str:
    """A name as it is compared: without case, forms of compatibility, and whatever is not seen. Marks stay:
    with them it is another name.
    """
    if name.isascii():
        return (name if name.isprintable() else name.translate(_invisible_table(""))).lower()
    seen = unicodedata.normalize("NFKC", name.translate(_invisible_table(""))).casefold()
    return unicodedata.normalize("NFKC", seen)


def _fold_visible(seen: str) -> str:
    if seen.isascii():
        return seen.lower()
    bare = _normalize_text("NFKD", seen).translate(_marks_table()).casefold()
    if not bare.isascii():
        bare = _normalize_text("NFKD", bare).translate(_marks_table())
    return bare if bare.isascii() else _normalize_text("NFC", bare)


def always() -> None:
    """Go on, whatever happens."""


def forms(text: str, going: Callable[[], None] = always) -> tuple[str, ...]:
    """Every form of a text that is compared, each once: as it is folded; with letters that look like Latin
    ones taken for them; with what is not seen taken for a space. ``going`` is called for each piece of it.
    """
    if len(text) <= _PIECE:
        return tuple(dict.fromkeys(_all_forms(text)))
    each = []
    for piece in pieces(text):
        going()
        each.append(_all_forms(piece))
    return tuple(dict.fromkeys("".join(form) for form in zip(*each, strict=True)))


def _all_forms(text: str) -> tuple[str, str, str, str]:
    """All of them, also those that are the same."""
    plain = text.isascii() and _ODD.search(text) is None
    seen = text if plain else text.translate(_invisible_table(""))
    bare, alike = _fold_visible(seen), _replace_lookalikes(seen, "l")
    upright = (
        _replace_lookalikes(seen, "i") if not seen.isascii() and _upright_pattern().search(seen) else alike
    )
    parted = _fold_visible(text.translate(_invisible_table(" "))) if len(seen) != len(text) else bare
    return bare, alike, upright, parted


def _replace_lookalikes(seen: str, stroke: str) -> str:
    if seen.isascii():
        return (_SMALL_L.sub("l", seen) if "I" in seen or "|" in seen else seen).lower()
    table = _lookalike_table(stroke)
    first = _fold_visible(_SMALL_L.sub("l", _normalize_text("NFKD", seen.translate(table))))
    return first if first.isascii() else _STRAY.sub("", first.translate(table))
