"""Parts of a body that are there for clients that do not know an extension.

SPEC: XEP-0428 section 2; XEP-0426 section 2 (positions are code points).
"""

from __future__ import annotations

from itertools import islice

from hansa_xmpp.proto.render import xml_element
from hansa_xmpp.proto.stanza import NS_FALLBACK, Stanza

#: The parts of a body that may be marked.
_MAX_RANGES = 16


def body_without_fallback(stanza: Stanza, body: str, of: str) -> str:
    """``body`` without the parts that are there for clients that do not know the namespace ``of``. A range
    that is not within the body removes nothing, and a body that would be empty stays whole.
    """
    removed = [False] * len(body)
    for start, end in islice(_fallback_ranges(stanza, len(body), of), _MAX_RANGES):
        removed[start:end] = [True] * (end - start)
    kept = "".join(c for c, gone in zip(body, removed, strict=True) if not gone)
    return kept.lstrip("\n") if kept.strip() and len(kept) < len(body) else body


def _fallback_ranges(stanza: Stanza, length: int, of: str) -> list[tuple[int, int]]:
    found = list[tuple[int, int]]()
    for fallback in stanza.element.iterfind(f"{{{NS_FALLBACK}}}fallback"):
        if fallback.get("for") != of:
            continue
        for part in fallback.iterfind(f"{{{NS_FALLBACK}}}body"):
            start, end = parse_offset(part.get("start", "0")), parse_offset(part.get("end", str(length)))
            if start is not None and end is not None and start < end <= length:
                found.append((start, end))
    return found


def parse_offset(text: str) -> int | None:
    """A position in a text, in code points; None where it cannot be read."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else None


def fallback_xml(of: str, part: tuple[int, int] | None = None) -> str:
    """Says that the body, or a part of it, is for clients that do not know the namespace ``of``."""
    inner = "" if part is None else xml_element("body", "", start=str(part[0]), end=str(part[1]))
    return xml_element("fallback", NS_FALLBACK, inner or xml_element("body"), **{"for": of})
