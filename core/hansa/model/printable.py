"""Text of peers as a terminal or a log may have it: nothing in it moves, hides or begins a line."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

#: Characters of one value on a terminal, and of one line in a log.
MAX_SHOWN, MAX_LOGGED = 2_000, 4_000

#: Controls (C0, DEL, C1), the separators of lines and paragraphs, what turns the direction of writing, what
#: has no width, tags, and half surrogate pairs. Joiners stay: scripts and emoji need them; they move nothing.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape_match(match: re.Match[str]) -> str:
    character = match[0]
    short = _SHORT.get(character)
    if short is not None:
        return short
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def printable(text: str, most: int = MAX_SHOWN) -> str:
    r"""One line of at most about ``most`` characters, in which invisible characters are escaped as Python
    does (``\x1b``, `` ``, ``\u202e``). The removed characters are counted.
    """
    cut = len(text) - most
    if cut > 0:
        text = text[:most]
    shown = text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub(_escape_match, text)
    return f"{shown}… ({cut} more)" if cut > 0 else shown


def printable_values(value: Any) -> Any:
    """JSON whose strings, names of members too, are printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(str(key)): printable_values(one) for key, one in value.items()}
    if isinstance(value, list):
        return [printable_values(one) for one in value]
    return value


def columns(text: str) -> int:
    """How many columns of a terminal printable text takes: wide characters two, marks and joiners none."""
    if text.isascii():
        return len(text)
    return sum(_column_width(character) for character in text)


def _column_width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
