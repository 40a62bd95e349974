"""Formatting of a text: spans over it. A network that shows no formatting ignores them, and loses no word.

Positions are code points. Spans nest or are disjoint. A span of a block (quote, code block, list item) covers
whole lines, without the line break at its end. The text of a list item begins with its marker (``-`` or
``2.``) and a space; quotes and code have no marks in the text.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice, pairwise

from hansa.model.ref import NativeId

#: Bounds of one text. Text beyond them has no formatting.
MAX_SPANS, MAX_SPAN_DEPTH, MAX_SPAN_VALUE = 500, 16, 2048
#: Characters of all values together, and of what marks and links add to a text that is written without spans.
MAX_VALUES, MAX_MARKS = 16_384, 65_536
#: Pieces of spans that blocks cut.
_MAX_PIECES = 4 * MAX_SPANS


class SpanKind(StrEnum):
    """The formatting that networks share."""

    BOLD = "bold"
    ITALIC = "italic"
    STRIKE = "strike"
    CODE = "code"
    #: ``value`` is the language, empty if it is not known.
    CODE_BLOCK = "code_block"
    QUOTE = "quote"
    #: ``value`` is the marker: ``-``, or a number and a dot.
    LIST_ITEM = "list_item"
    #: ``value`` is the URI.
    LINK = "link"
    #: ``user`` is the person.
    MENTION = "mention"
    #: ``value`` is the reason, empty if none is given.
    SPOILER = "spoiler"


SPAN_BLOCKS = frozenset({SpanKind.QUOTE, SpanKind.CODE_BLOCK, SpanKind.LIST_ITEM})
_CODE = frozenset({SpanKind.CODE, SpanKind.CODE_BLOCK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One stretch of a text, from ``start`` up to, not including, ``end``."""

    start: int
    end: int
    kind: SpanKind
    value: str = ""
    user: NativeId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Formatted:
    """A text and its spans, as ``arrange_spans`` puts them."""

    text: str
    spans: tuple[Span, ...] = ()


#: A piece of text, or a span with what is in it.
SpanNode = str | tuple[Span, "list[SpanNode]"]


def arrange_spans(text: str, spans: Iterable[Span]) -> Formatted:
    """Clip, widen to whole lines, split and sort spans, so that they nest and keep the bounds. Code holds
    no formatting, and no span of a line reaches into a block or out of it.
    """
    blocks: list[Span] = []
    lines: list[Span] = []
    for span in islice(spans, MAX_SPANS):
        if span.kind in SPAN_BLOCKS:
            blocks += _whole_lines(text, span)
        elif max(0, span.start) < min(len(text), span.end):
            lines.append(replace(span, start=max(0, span.start), end=min(len(text), span.end)))
    blocks = _nest(text, blocks)
    edges = sorted({edge for block in blocks for edge in (block.start, block.end)})
    pieces = (piece for span in lines for piece in _cut(span, edges))
    return Formatted(text=text, spans=tuple(_nest(text, [*blocks, *islice(pieces, _MAX_PIECES)])))


def _whole_lines(text: str, span: Span) -> list[Span]:
    start, end = max(0, span.start), min(len(text), span.end)
    if start >= end:
        return []
    start = text.rfind("\n", 0, start) + 1
    end = start + len(text[start:end].rstrip("\n"))  # empty lines at its end are not of the block
    after = text.find("\n", end)
    return [replace(span, start=start, end=len(text) if after < 0 else after)]


def _cut(span: Span, edges: list[int]) -> list[Span]:
    """The pieces of a span between the edges of blocks."""
    inside = edges[bisect_right(edges, span.start) : bisect_left(edges, span.end)]
    return [replace(span, start=start, end=end) for start, end in pairwise([span.start, *inside, span.end])]


def _nest(text: str, spans: list[Span]) -> list[Span]:
    """Spans in their order, none of which crosses another: the later one is split."""
    waiting = sorted(spans, key=_order)
    waiting.reverse()
    left = MAX_VALUES
    placed: list[Span] = []
    outer: list[Span] = []
    while waiting and len(placed) < MAX_SPANS:
        span = waiting.pop()
        while outer and outer[-1].end <= span.start:
            outer.pop()
        if outer and span.end > outer[-1].end:
            end = outer[-1].end
            rest = replace(span, start=end + (span.kind in SPAN_BLOCKS))
            span = replace(span, end=end)
            if rest.start < rest.end:
                _put_back(waiting, rest)
        fits = len(span.value) <= min(left, MAX_SPAN_VALUE)
        if fits and text[span.start : span.end].strip("\n") and _may_stand_in(span, outer):
            left -= len(span.value)
            placed.append(span)
            outer.append(span)
    return placed


def _may_stand_in(span: Span, outer: list[Span]) -> bool:
    """Tell if a span may be placed within others. Quotes and list items stand in each other; any other kind
    adds nothing to its like around it.
    """
    again = span.kind not in {SpanKind.QUOTE, SpanKind.LIST_ITEM} and any(
        span.kind is one.kind for one in outer
    )
    in_code = bool(outer) and outer[-1].kind in _CODE
    return len(outer) < MAX_SPAN_DEPTH and not again and not in_code


def span_tree(formatted: Formatted) -> list[SpanNode]:
    """The text in pieces, with the spans that hold them."""
    root: list[SpanNode] = []
    stack: list[tuple[int, list[SpanNode]]] = [(len(formatted.text), root)]
    at = 0

    def close(upto: int) -> None:
        nonlocal at
        while stack[-1][0] <= upto and len(stack) > 1:
            end, nodes = stack.pop()
            if end > at:
                nodes.append(formatted.text[at:end])
                at = end

    for span in formatted.spans:
        close(span.start)
        if span.start > at:
            stack[-1][1].append(formatted.text[at : span.start])
            at = span.start
        inner: list[SpanNode] = []
        stack[-1][1].append((span, inner))
        stack.append((span.end, inner))
    close(len(formatted.text))
    if at < len(formatted.text):
        root.append(formatted.text[at:])
    return root


def plain_text(formatted: Formatted) -> str:
    """The text for a network without formatting: quotes and spoilers are marked, and a link says where it
    leads. Where that adds more than ``MAX_MARKS``, the text alone.
    """
    return _plain(span_tree(formatted)) if length_of_marks(formatted) <= MAX_MARKS else formatted.text


def length_of_marks(formatted: Formatted) -> int:
    """The characters that a text gets at most where its spans are written with marks."""
    quotes = [span for span in formatted.spans if span.kind is SpanKind.QUOTE]
    lines = sum(formatted.text.count("\n", span.start, span.end) + 1 for span in quotes)
    return 2 * lines + sum(16 + len(span.value) for span in formatted.spans)


def mark_span(span: Span, text: str) -> str:
    """The text of a span as plain text: with quote marks, the address of a link, a spoiler's warning."""
    if span.kind is SpanKind.QUOTE:
        return "\n".join(f"> {line}" for line in text.split("\n"))
    if span.kind is SpanKind.LINK and span.value not in {text, f"mailto:{text}"}:
        return f"{text} ({span.value})"
    if span.kind is SpanKind.SPOILER:
        return f"[spoiler: {span.value}] {text}" if span.value else f"[spoiler] {text}"
    return text


def outer_first(closed: list[Span]) -> list[Span]:
    """Order for ``arrange_spans`` the spans of a parser, which closes each before the one around it."""
    return sorted(reversed(closed), key=lambda span: span.start)  # noqa: C414  # equal ones keep the new order


def _plain(nodes: list[SpanNode]) -> str:
    return "".join(node if isinstance(node, str) else mark_span(node[0], _plain(node[1])) for node in nodes)


#: Which of two spans over the same text is the outer one; a kind not named is between them.
_RANK = {SpanKind.QUOTE: 0, SpanKind.LIST_ITEM: 1, SpanKind.CODE_BLOCK: 2, SpanKind.CODE: 4}


def _order(span: Span) -> tuple[int, int, int]:
    """Outer spans come before inner ones. Of two over the same text the first one is the outer one."""
    return (span.start, -span.end, _RANK.get(span.kind, 3))


def _put_back(waiting: list[Span], span: Span) -> None:
    """Put the rest of a split span where it belongs: ``waiting`` is sorted, the first one at its end."""
    at = len(waiting)
    while at and _order(waiting[at - 1]) < _order(span):
        at -= 1
    waiting.insert(at, span)
