"""Message markup: the elements beside a body, as spans over it.

Marks in the body belong to its text. An item of a list counts only if its text begins with a
marker (``-`` or ``2.``).

SPEC: XEP-0394 section 4 (spans and blocks), section 5 (rules); XEP-0426 section 2
(positions are code points).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from xml.etree.ElementTree import Element

from hansa import Span, SpanKind

from hansa_xmpp.proto.fallbacks import parse_offset
from hansa_xmpp.proto.stanza import Stanza, local_name

NS_MARKUP = "urn:xmpp:markup:0"
#: The elements of one markup that are read.
MAX_ELEMENTS = 200

_INLINE = {
    "strong": SpanKind.BOLD,
    "emphasis": SpanKind.ITALIC,
    "deleted": SpanKind.STRIKE,
    "code": SpanKind.CODE,
}
_LANGUAGE = re.compile(r"[\w+#.-]{1,40}", re.ASCII)
_MARKER = re.compile(r"(-|\d{1,9}\.) ", re.ASCII)


def parse_markup(stanza: Stanza) -> tuple[Span, ...] | None:
    """The spans over the first body of a stanza; None if it has no markup. They may cross, and are in no
    order: ``arrange_spans`` settles that. What is not within the body is left out.
    """
    markup, body = stanza.child("markup", NS_MARKUP), stanza.text_of("body")
    if markup is None or not body:
        return None
    elements = (element for element in markup if element.tag.startswith(f"{{{NS_MARKUP}}}"))
    return tuple(span for element in islice(elements, MAX_ELEMENTS) for span in _spans_of(element, body))


def moved_spans(spans: Iterable[Span], body: str, text: str) -> tuple[Span, ...]:
    """The spans of a body as those of ``text``, which is the end of it: without the quote of a reply, or
    ``/me``. None of them if it is not the end.
    """
    if not body.endswith(text):
        return ()
    before = len(body) - len(text)
    moved = (replace(span, start=max(0, span.start - before), end=span.end - before) for span in spans)
    return tuple(span for span in moved if span.start < span.end)


def _spans_of(element: Element, body: str) -> Iterator[Span]:
    name, start, end = local_name(element.tag), _offset(element, "start"), _offset(element, "end")
    if start is None or end is None or not start < end <= len(body):
        return
    if name == "span":
        for style in islice(element, len(_INLINE)):
            kind = _INLINE.get(local_name(style.tag))
            if kind is not None and style.tag.startswith(f"{{{NS_MARKUP}}}"):
                yield Span(start=start, end=end, kind=kind)
    elif name == "bcode":
        language = element.get("language", "")
        value = language if _LANGUAGE.fullmatch(language) else ""
        yield Span(start=start, end=end, kind=SpanKind.CODE_BLOCK, value=value)
    elif name == "bquote":
        yield Span(start=start, end=end, kind=SpanKind.QUOTE)
    elif name == "list":
        yield from _items_of(element, start, end, body)


def _items_of(element: Element, start: int, end: int, body: str) -> Iterator[Span]:
    """An item ends where the next one begins, or with the list."""
    items = islice(element.iterfind(f"{{{NS_MARKUP}}}li"), MAX_ELEMENTS)
    starts = [at for item in items if (at := _offset(item, "start")) is not None and start <= at < end]
    starts = sorted(set(starts))
    for at, stop in zip(starts, [*starts[1:], end], strict=True):
        marker = _MARKER.match(body, at, stop)
        if marker is not None and (at == 0 or body[at - 1] == "\n"):
            yield Span(start=at, end=stop, kind=SpanKind.LIST_ITEM, value=marker[1])


def _offset(element: Element, name: str) -> int | None:
    return parse_offset(element.get(name, ""))
