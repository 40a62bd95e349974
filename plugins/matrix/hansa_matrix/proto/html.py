"""HTML of messages (``org.matrix.custom.html``), as spans over a text, and the other way.

SPEC: Client-Server API, section "m.room.message msgtypes": the tags and attributes that a client may show.
The text in other tags stays. A table becomes lines with ``|`` between its cells.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import unquote

import nh3
from hansa import (
    MAX_SPAN_DEPTH,
    MAX_SPAN_VALUE,
    Formatted,
    Span,
    SpanKind,
    SpanNode,
    arrange_spans,
    outer_first,
    span_tree,
)

from hansa_matrix.proto.ids import is_valid_user_id

#: Bytes of HTML, and tags in it, that are read: the time to clean nested lists grows with their square.
MAX_HTML, MAX_TAGS = 65_536, 300
#: Tags of the clean HTML: a parser opens elements that were not closed again in each paragraph.
_MAX_CLEAN_TAGS = 4 * MAX_TAGS
_INLINE = {
    "b": SpanKind.BOLD,
    "strong": SpanKind.BOLD,
    "i": SpanKind.ITALIC,
    "em": SpanKind.ITALIC,
    "del": SpanKind.STRIKE,
    "s": SpanKind.STRIKE,
    "code": SpanKind.CODE,
}
_HEADINGS = {f"h{level}" for level in range(1, 7)}
#: Line breaks around an element.
_BREAKS = {
    "p": 2,
    "blockquote": 1,
    "div": 1,
    "ul": 1,
    "ol": 1,
    "li": 1,
    "pre": 1,
    "tr": 1,
    "table": 1,
    "hr": 1,
}
_BREAKS |= dict.fromkeys(_HEADINGS, 2) | {"details": 1, "summary": 1, "caption": 1}
_TAGS = {*_INLINE, *_BREAKS, "a", "br", "span", "img", "td", "th", "u", "sup", "sub", "thead", "tbody"}
_ATTRIBUTES = {
    "a": {"href"},
    "span": {"data-mx-spoiler"},
    "code": {"class"},
    "ol": {"start"},
    "img": {"alt", "title"},
}
_SCHEMES = {"https", "http", "ftp", "mailto", "magnet", "matrix"}
_LANGUAGE = re.compile(r"\blanguage-([\w+#.-]{1,40})")
_SPACE = re.compile(r"[ \t\r\n\f]+")
_MARKER = re.compile(r" *(-|[0-9]{1,9}\.) ")
_NUMBER = re.compile(r"[0-9]{1,9}\.")
_CONTROLS = re.compile(r"[\x00-\x20\x7f]")


def parse_html(source: str) -> Formatted | None:
    """Read HTML; None where it is larger than the bounds. The ``value`` of a mention is the Matrix user id;
    its ``user`` is not set.
    """
    if source.count("<") > MAX_TAGS or len(source.encode(errors="replace")) > MAX_HTML:
        return None
    clean = nh3.clean(
        source,
        tags=_TAGS,
        clean_content_tags={"script", "style", "mx-reply"},
        attributes=_ATTRIBUTES,
        url_schemes=_SCHEMES,
        link_rel=None,
    )
    if clean.count("<") > _MAX_CLEAN_TAGS:
        return None
    reader = _Reader()
    reader.feed(clean)
    reader.close()
    return arrange_spans("".join(reader.parts), outer_first(reader.spans))


@dataclass(slots=True)
class _Element:
    """An open element. ``start`` is None until there is a text in it; ``prefix`` comes before that text."""

    tag: str
    kind: SpanKind | None = None
    value: str = ""
    prefix: str = ""
    start: int | None = None
    #: The number of the next item of an ordered list, None in any other.
    number: int | None = None


class _Reader(HTMLParser):
    """Takes clean HTML: each element is closed, in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.spans: list[Span] = []
        self._at = 0
        self._open: list[_Element] = []
        self._breaks = 0
        self._space = False
        self._preformatted = 0

    def _emit(self, text: str) -> None:
        if self._at and self._breaks:
            self._add("\n" * self._breaks)
        elif self._at and self._space:
            self._add(" ")
        self._breaks, self._space = 0, False
        for element in self._open:
            if element.start is None:
                element.start = self._at
                self._add(element.prefix)
        self._add(text)

    def _add(self, text: str) -> None:
        if text:
            self.parts.append(text)
            self._at += len(text)

    def _break(self, tag: str) -> None:
        self._breaks = max(self._breaks, _BREAKS.get(tag, 0))
        self._space = self._space and not self._breaks

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element, or take one that has no content."""
        given = {name: value or "" for name, value in attrs}
        if tag == "br":
            self._breaks, self._space = min(self._breaks + 1, 2), False
            return
        self._break(tag)
        if tag == "hr":
            self._emit("---")
            self._break(tag)
        elif tag == "img":
            if text := given.get("alt") or given.get("title"):
                self._emit(text)
        else:
            self._open.append(self._element(tag, given))
            self._preformatted += tag == "pre"

    def _element(self, tag: str, given: dict[str, str]) -> _Element:
        if tag == "a":
            uri = _CONTROLS.sub("", given.get("href", ""))
            user_id = user_id_of_link(uri)
            kind = SpanKind.MENTION if user_id else SpanKind.LINK if _has_scheme(uri) else None
            return _Element(tag, kind, user_id or uri)
        if tag == "span" and "data-mx-spoiler" in given:
            return _Element(tag, SpanKind.SPOILER, given["data-mx-spoiler"][:MAX_SPAN_VALUE])
        if tag == "blockquote":
            return _Element(tag, SpanKind.QUOTE)
        if tag == "pre":
            return _Element(tag, SpanKind.CODE_BLOCK)
        if tag == "ol":
            start = given.get("start", "1")
            return _Element(
                tag, number=int(start) if start.isascii() and start.isdigit() and len(start) < 9 else 1
            )
        if tag == "li":
            return self._item()
        if tag == "code" and self._preformatted:
            language = _LANGUAGE.search(given.get("class", ""))
            for element in self._open:
                if language and element.tag == "pre":
                    element.value = language[1]
            return _Element(tag)
        if tag in {"td", "th"}:
            first = self._open and self._open[-1].tag == "tr" and self._open[-1].start is None
            return _Element(tag, prefix="" if first else " | ")
        return _Element(tag, SpanKind.BOLD if tag in _HEADINGS else _INLINE.get(tag))

    def _item(self) -> _Element:
        lists = [element for element in self._open if element.tag in {"ul", "ol"}]
        marker = "-"
        if lists and lists[-1].number is not None:
            marker = f"{lists[-1].number}."
            lists[-1].number += 1
        return _Element(
            "li", SpanKind.LIST_ITEM, marker, prefix=f"{'  ' * min(len(lists) - 1, MAX_SPAN_DEPTH)}{marker} "
        )

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last."""
        if not self._open or self._open[-1].tag != tag:
            return
        element = self._open.pop()
        self._preformatted -= tag == "pre"
        if element.kind is not None and element.start is not None:
            self.spans.append(
                Span(
                    start=element.start,
                    end=self._at,
                    kind=element.kind,
                    value=element.value,
                )
            )
        self._break(tag)

    def handle_data(self, data: str) -> None:
        """Take text. White space is one space, but in preformatted text."""
        if self._preformatted:
            lines = data if self._open[-1].start is not None else data.removeprefix("\n")
            if lines.strip("\n"):
                self._emit(lines.rstrip("\n"))
                self._breaks = min(len(lines) - len(lines.rstrip("\n")), 2)
            return
        words = _SPACE.sub(" ", data)
        if words[:1] == " " and not self._breaks:
            self._space = True
        if text := words.strip(" "):
            self._emit(text)
            self._space = words[-1] == " "


def user_id_of_link(uri: str) -> str:
    """The user id of a ``matrix.to`` link or a ``matrix:`` URI (appendix "URIs"); empty for another link."""
    if uri.startswith("https://matrix.to/#/"):
        name = unquote(uri[20:].partition("?")[0])
    elif uri.startswith("matrix:u/"):
        name = "@" + unquote(uri[9:].partition("?")[0])
    else:
        return ""
    return name if is_valid_user_id(name) else ""


def _has_scheme(uri: str) -> bool:
    return uri.partition(":")[0].lower() in _SCHEMES


def render_html(formatted: Formatted) -> str:
    """The HTML of a text. A mention is its text."""
    return _render(span_tree(formatted))


def _render(nodes: list[SpanNode]) -> str:
    parts: list[str] = []
    list_tag = ""
    for number, node in enumerate(nodes):
        if isinstance(node, str):
            follows = number + 1 < len(nodes) and _is_block(nodes[number + 1])
            text = node.removeprefix("\n") if number and _is_block(nodes[number - 1]) else node
            text = text.removesuffix("\n") if follows else text
            if list_tag and (text or not follows):
                parts.append(f"</{list_tag}>")
                list_tag = ""
            parts.append(html.escape(text, quote=False).replace("\n", "<br>"))
            continue
        span, inner = node
        tag = ("ol" if _NUMBER.fullmatch(span.value) else "ul") if span.kind is SpanKind.LIST_ITEM else ""
        if tag != list_tag:
            parts.append(f"</{list_tag}>" if list_tag else "")
            start = "" if tag != "ol" or span.value == "1." else f' start="{int(span.value[:-1])}"'
            parts.append(f"<{tag}{start}>" if tag else "")
            list_tag = tag
        parts.append(_element(span, inner))
    parts.append(f"</{list_tag}>" if list_tag else "")
    return "".join(parts)


def _is_block(node: SpanNode) -> bool:
    return not isinstance(node, str) and node[0].kind in {
        SpanKind.QUOTE,
        SpanKind.CODE_BLOCK,
        SpanKind.LIST_ITEM,
    }


_SIMPLE = {
    SpanKind.BOLD: "strong",
    SpanKind.ITALIC: "em",
    SpanKind.STRIKE: "del",
    SpanKind.CODE: "code",
    SpanKind.QUOTE: "blockquote",
}


def _element(span: Span, inner: list[SpanNode]) -> str:
    if span.kind is SpanKind.CODE_BLOCK:
        language = f' class="language-{html.escape(span.value)}"' if span.value else ""
        return f"<pre><code{language}>{html.escape(_text(inner), quote=False)}</code></pre>"
    if span.kind is SpanKind.LIST_ITEM:
        return f"<li>{_render(_without_marker(inner))}</li>"
    made = _render(inner)
    if span.kind is SpanKind.LINK and _has_scheme(span.value):
        return f'<a href="{html.escape(span.value)}">{made}</a>'
    if span.kind is SpanKind.SPOILER:
        return f'<span data-mx-spoiler="{html.escape(span.value)}">{made}</span>'
    tag = _SIMPLE.get(span.kind, "")
    return f"<{tag}>{made}</{tag}>" if tag else made


def _without_marker(inner: list[SpanNode]) -> list[SpanNode]:
    if inner and isinstance(inner[0], str):
        return [_MARKER.sub("", inner[0], count=1), *inner[1:]]
    return inner


def _text(nodes: list[SpanNode]) -> str:
    return "".join(node if isinstance(node, str) else _text(node[1]) for node in nodes)
