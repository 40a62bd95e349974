"""Formatted text as Markdown, for networks and services that write it. Needs ``hansa[markdown]``.

SPEC: CommonMark 0.31.2; strikethrough as GitHub Flavored Markdown has it. HTML is text here, a picture is a
link to it, headings are bold, and a line break is a line break, as in chats.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from hansa.model.spans import (
    MAX_MARKS,
    Formatted,
    Span,
    SpanKind,
    SpanNode,
    arrange_spans,
    length_of_marks,
    mark_span,
    outer_first,
    span_tree,
)

#: Characters of a text that is parsed; a longer one is shown as it is.
MAX_MARKDOWN = 8192
#: Blocks within blocks that are read.
_MAX_NESTING = 12

_MARKS = {SpanKind.BOLD: "**", SpanKind.ITALIC: "*", SpanKind.STRIKE: "~~"}
_INLINE = {"strong": SpanKind.BOLD, "em": SpanKind.ITALIC, "s": SpanKind.STRIKE}
_SPECIAL = re.compile(r"[\\`*_~\[\]<>&!|]")
#: Blocks that go on with the next line, unless an empty one comes before it.
_CONTINUED = {SpanKind.QUOTE, SpanKind.LIST_ITEM}
#: What begins a block at the start of a line.
_BLOCK_START = re.compile(r"^([^\S\n]*)(?:([#+=:-])|(\d{1,9})([.)]))", re.MULTILINE)
_LIST_START = re.compile(r"(-|\d{1,9}\.) ")
#: The addresses that are written as links. Others run programs, or depend on where they are read.
_ADDRESS = re.compile(
    r"(?:https?|ftp|mailto|magnet|matrix|xmpp|ircs?|tel|geo):[^\x00-\x20\x7f<>\s\\]+", re.IGNORECASE
)
_BACKTICKS = re.compile(r"`+")
_PARSER = MarkdownIt("commonmark", {"html": False, "maxNesting": _MAX_NESTING}).enable("strikethrough")
_PARSER.disable(["html_block", "html_inline", "reference", "image"])


def parse_markdown(text: str) -> Formatted:
    """The text that Markdown says, and its spans. At most ``MAX_MARKDOWN`` characters are parsed."""
    if len(text) > MAX_MARKDOWN:
        return Formatted(text=text)
    reader = _Reader()
    reader.read(_PARSER.parse(text))
    return arrange_spans("".join(reader.parts), outer_first(reader.spans))


class _Reader:
    """The text so far, its spans, and what is open."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.spans: list[Span] = []
        self._at = 0
        self._open: list[tuple[int, SpanKind | None, str]] = []
        #: For each open list the number of its next item, 0 for one without numbers.
        self._lists: list[int] = []
        self._breaks = 0

    def read(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            name = token.type.removesuffix("_open").removesuffix("_close")
            if token.type == "inline":
                self.read(token.children or ())
            elif token.nesting == 1:
                self._begin(name, token)
            elif token.nesting == -1:
                self._finish(name)
            else:
                self._read_alone(token)

    def _emit(self, text: str) -> None:
        if not text:
            return
        breaks = "\n" * self._breaks if self._at else ""
        self._breaks = 0
        self.parts.append(breaks + text)
        self._at += len(breaks) + len(text)

    def _start(self) -> int:
        return self._at + (self._breaks if self._at else 0)

    def _begin(self, name: str, token: Token) -> None:
        kind, value = _INLINE.get(name), ""
        match name:
            case "blockquote":
                kind = SpanKind.QUOTE
            case "heading":
                kind = SpanKind.BOLD
            case "link":
                kind, value = SpanKind.LINK, str(token.attrGet("href") or "")
            case "ordered_list":
                self._lists.append(int(token.attrGet("start") or 1))
            case "bullet_list":
                self._lists.append(0)
            case "list_item":
                number = self._lists[-1]
                value = f"{number}." if number else "-"
                self._lists[-1] += bool(number)
                self._open.append((self._start(), SpanKind.LIST_ITEM, value))
                self._emit(f"{value} ")
                return
        self._open.append((self._start(), kind, value))

    def _finish(self, name: str) -> None:
        start, kind, value = self._open.pop()
        if name in {"ordered_list", "bullet_list"}:
            self._lists.pop()
        if kind is not None and self._at > start:
            self.spans.append(Span(start=start, end=self._at, kind=kind, value=value))
        if name in {"paragraph", "heading", "blockquote", "ordered_list", "bullet_list", "list_item"}:
            self._breaks = max(self._breaks, 1 if self._lists else 2)

    def _read_alone(self, token: Token) -> None:
        start = self._start()
        match token.type:
            case "softbreak" | "hardbreak":
                self._breaks = 1
            case "code_inline":
                self._emit(token.content)
                self.spans.append(Span(start=start, end=self._at, kind=SpanKind.CODE))
            case "fence" | "code_block":
                self._emit(token.content.removesuffix("\n"))
                value = token.info.split()[0] if token.info.split() else ""
                self.spans.append(Span(start=start, end=self._at, kind=SpanKind.CODE_BLOCK, value=value))
                self._breaks = 1 if self._lists else 2
            case "hr":
                self._emit("---")
                self._breaks = 2
            case _:
                self._emit(token.content)


def render_markdown(formatted: Formatted) -> str:
    """Markdown that says the text, with every span that Markdown has. A mention is its text."""
    if length_of_marks(formatted) > MAX_MARKS:
        return _escape(formatted.text)
    return _render(span_tree(formatted), "", "")


def _render(nodes: Sequence[SpanNode], before: str, after: str) -> str:
    """``before`` and ``after`` are the characters around the nodes."""
    text = ""
    block: SpanKind | None = None  # the last one, where nothing but a line break came after it
    for at, node in enumerate(nodes):
        following = nodes[at + 1] if at + 1 < len(nodes) else after
        if isinstance(node, str):
            if node != "\n" or not _continues(block, following):
                text += "\n" * (block in _CONTINUED and node[:1] == "\n" != node[1:2])
                block = None
            text += _escape(node)
        else:
            kind = node[0].kind
            if kind is SpanKind.LIST_ITEM and block is not kind and text.endswith("\n"):
                text += "\n"  # a number other than 1 begins no list in a paragraph
            text += _render_span(node, text[-1:] or before, _first_of(following))
            block = kind
    return text


def _continues(block: SpanKind | None, following: SpanNode) -> bool:
    """True between two items of a list."""
    return block is SpanKind.LIST_ITEM and not isinstance(following, str) and following[0].kind is block


def _first_of(node: SpanNode) -> str:
    while not isinstance(node, str):
        if not node[1]:
            return ""
        node = node[1][0]
    return node[:1]


def _render_span(node: tuple[Span, list[SpanNode]], before: str, after: str) -> str:
    span, inner = node
    raw = _raw(inner)
    match span.kind:
        case SpanKind.CODE:
            return _code(raw)
        case SpanKind.CODE_BLOCK:
            fence = "`" * max(3, _longest_backticks(raw) + 1)
            info = span.value if re.fullmatch(r"[\w+#.-]{0,40}", span.value) else ""
            return f"{fence}{info}\n{raw}\n{fence}"
        case SpanKind.QUOTE:
            return "\n".join(f"> {line}" for line in _render(inner, "", "").split("\n"))
        case SpanKind.LIST_ITEM:
            return _list_item(_render(inner, "", ""), raw)
        case SpanKind.LINK if "\n" not in raw and _ADDRESS.fullmatch(span.value):
            return f"[{_render(inner, '[', ']')}](<{span.value.replace('&', '&amp;')}>)"
        case kind if kind in _MARKS and _may_be_marked(raw, before, after):
            mark = _MARKS[kind]
            return f"{mark}{_render(inner, '*', '*')}{mark}"
        case SpanKind.LINK | SpanKind.SPOILER:
            return mark_span(span, _render(inner, before, after))
        case _:
            return _render(inner, before, after)


def _may_be_marked(raw: str, before: str, after: str) -> bool:
    """True where emphasis opens and closes whatever else is there (CommonMark, section 6.2)."""
    beside = all(not char or char.isspace() or char in "*~" for char in (before, after))
    return beside and raw[:1].isalnum() and raw[-1:].isalnum() and "\n\n" not in raw


def _raw(nodes: Sequence[SpanNode]) -> str:
    return "".join(node if isinstance(node, str) else _raw(node[1]) for node in nodes)


def _longest_backticks(text: str) -> int:
    return max((len(run) for run in _BACKTICKS.findall(text)), default=0)


def _code(raw: str) -> str:
    if "\n" in raw or not raw.strip():
        return _escape(raw)
    mark = "`" * (_longest_backticks(raw) + 1)
    padded = raw[0] in " `" or raw[-1] in " `"
    return f"{mark} {raw} {mark}" if padded else f"{mark}{raw}{mark}"


def _list_item(made: str, raw: str) -> str:
    """The marker of a list item stands in its text; the lines after the first are indented below it."""
    marker = _LIST_START.match(raw)
    if marker is None:
        return made
    escaped = _escape(marker[0])
    body = made.removeprefix(escaped)
    return marker[0] + body.replace("\n", "\n" + " " * len(marker[0]))


def _escape(text: str) -> str:
    text = _SPECIAL.sub(r"\\\g<0>", text)
    return _BLOCK_START.sub(_escape_block, text)


def _escape_block(found: re.Match[str]) -> str:
    space, mark, number, dot = found.groups()
    return f"{space}\\{mark}" if mark else f"{space}{number}\\{dot}"
