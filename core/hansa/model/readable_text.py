"""The strings of what arrived that a person may read: found in any JSON, and freed of markup.

Denied by default: every string counts, names of members included, unless it is known to be an identifier. A
string is known to be one by where it stands *and* by its form, so that words do not pass as an id. The work
is linear in the size of what is looked at.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

#: Elements whose content many clients do not show: words may be cut in two by them.
_HIDING = frozenset({"script", "style", "textarea", "option", "noscript", "mx-reply", "title", "template"})
_NAME = re.compile(r"/?([A-Za-z][^\s/>]*)")
_ATTRIBUTE = re.compile(
    r"[\s/]*+([^\s/>=]?[^\s/>=]*+)\s*+(?:=\s*+(?:\"([^\"]*+)(\"?)|'([^']*+)('?)|([^\s>]*+)))?"
)
_OPENING = re.compile(r"<(?=[A-Za-z/!?])")
_SIMPLE = re.compile(r"<(/?)([A-Za-z][^\s/>]*)>")
_NAIVE = re.compile(r"<[^<>]*>")
#: Characters that are looked at in one go: a call into the interpreter is never interrupted.
_PIECE = 32 * 1024
_LONG_REFERENCE = re.compile(r"&#(?:[0-9]{9,}|[xX][0-9a-fA-F]{8,});?")


def strings_of(
    value: Any, *, names: Collection[str] = (), forms: Mapping[str, re.Pattern[str]] | None = None
) -> tuple[str, ...]:
    """Every string of a JSON value, the names of its members included, each once, in no meaningful order.

    ``names`` are names of members that say nothing. ``forms`` gives, by the name of the member that a string
    stands in (directly, in an array, or as a name of a member there), the form of an identifier: a string
    that has it wholly is left out.
    """
    known = forms or {}
    found: dict[str, None] = {}
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        inside, one = waiting.pop()
        match one:
            case str():
                form = known.get(inside)
                if one and (form is None or form.fullmatch(one) is None):
                    found[one] = None
            case dict():
                form = known.get(inside)
                for name, member in one.items():
                    if name and name not in names and (form is None or form.fullmatch(name) is None):
                        found[name] = None
                    waiting.append((name, member))
            case list() | tuple():
                waiting += [(inside, member) for member in one]
            case _:
                pass
    return tuple(found)


def readings(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts, and what is read of those that hold markup: without tags, with entities decoded.

    A tag may stand within a word or between two, may carry words in its attributes, and may hide what it
    holds; each of these is a reading of its own.
    """
    found: dict[str, None] = {}
    for text in texts:
        found[text] = None
        if "<" in text:
            found |= dict.fromkeys(_visible_texts(text))
        elif "&" in text:
            found[_decode_entities(text)] = None
    return tuple(found)


def _visible_texts(text: str) -> list[str]:
    joined, spaced, bare, attributes = list[str](), list[str](), list[str](), list[str]()
    at, hidden, depth, held = 0, "", 0, False
    while True:
        opening = _OPENING.search(text, at)
        piece = text[at : opening.start()] if opening else text[at:]
        joined.append(piece)
        spaced.append(piece)
        if not hidden:
            bare.append(piece)
        if opening is None:
            break
        name, closing, at = _parse_tag(text, opening.start(), attributes)
        spaced.append(" ")
        if hidden:
            depth += (name == hidden) * (-1 if closing else 1)
            hidden = hidden if depth else ""
        elif name in _HIDING and not closing:
            hidden, depth, held = name, 1, True
    read = [
        _decode_entities("".join(joined)),
        _decode_entities("".join(spaced)),
        _decode_entities(_without_tags(text)),
    ]
    if held:
        read.append(_decode_entities("".join(bare)))
    if attributes:
        read.append(_decode_entities("\n".join(attributes)))
    return read


def _parse_tag(text: str, at: int, attributes: list[str]) -> tuple[str, bool, int]:
    """The name of the tag that begins at ``at``, whether it closes, and where it ends: at the end of the text
    where it never does. Takes time linear in its length.
    """
    simple = _SIMPLE.match(text, at)
    if simple is not None:
        return simple[2].lower(), bool(simple[1]), simple.end()
    if text.startswith("<!--", at):
        return "", False, _index_past(text, "-->", at + 2)
    name = _NAME.match(text, at + 1)
    if name is None:
        return "", False, _index_past(text, ">", at + 1)
    here = name.end()
    while here < len(text) and text[here] != ">":
        attribute = _ATTRIBUTE.match(text, here)
        if attribute is None or attribute.end() == here:
            here += 1
            continue
        here = attribute.end()
        attributes += [part for part in (attribute[2], attribute[4], attribute[6]) if part]
        if (attribute[2] is not None and not attribute[3]) or (attribute[4] is not None and not attribute[5]):
            here = len(text)
    return name[1].lower(), text[at + 1] == "/", min(here + 1, len(text))


def _index_past(text: str, end: str, start: int) -> int:
    found = text.find(end, start)
    return len(text) if found < 0 else found + len(end)


def _split_before(text: str, before: str) -> Iterator[str]:
    """A text in pieces, each of which but the first begins with ``before``."""
    at = 0
    while len(text) - at > _PIECE:
        end = text.find(before, at + _PIECE)
        if end < 0:
            break
        yield text[at:end]
        at = end
    yield text[at:]


def _without_tags(text: str) -> str:
    return "".join(_NAIVE.sub("", piece) for piece in _split_before(text, "<"))


def _decode_entities(text: str) -> str:
    if "&" not in text:
        return text
    return "".join(html.unescape(_LONG_REFERENCE.sub("", piece)) for piece in _split_before(text, "&"))
