"""Formatting codes of IRC to and from spans. Colours, reverse and underline have no span."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from hansa import Formatted, Message, Span, SpanKind, SpanNode, Style, arrange_spans, mark_span, span_tree

from hansa_irc.lines import divide_text

_CODES = {"\x02": SpanKind.BOLD, "\x1d": SpanKind.ITALIC, "\x1e": SpanKind.STRIKE, "\x11": SpanKind.CODE}
_MARKS = {kind: code for code, kind in _CODES.items()} | {SpanKind.CODE_BLOCK: "\x11"}
_RESET = "\x0f"
#: A code with what belongs to it: colours by number and by value.
_TOKEN = re.compile(
    r"\x03(?:[0-9]{1,2}(?:,[0-9]{1,2})?)?|\x04(?:[0-9A-Fa-f]{6}(?:,[0-9A-Fa-f]{6})?)?|[\x02\x0f\x11\x16\x1d\x1e\x1f]"
)
#: Control characters that no text has on IRC; those of formatting are written by ``divide_formatted`` alone.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_CTCP = re.compile("\x01([A-Za-z]+)(?: ([^\x01]*))?\x01?")
#: Bytes that codes may add to a piece of a line.
_ROOM_FOR_CODES = 8


def read_formatted(written: str) -> Formatted:
    """The text and the spans of one line of IRC."""
    spans: list[Span] = []
    began: dict[SpanKind, int] = {}
    text = ""
    at = 0

    def end(kinds: Iterable[SpanKind]) -> None:
        spans.extend(Span(start=began.pop(kind), end=len(text), kind=kind) for kind in list(kinds))

    for match in _TOKEN.finditer(written):
        text += _CONTROL.sub("", written[at : match.start()])
        at = match.end()
        kind = _CODES.get(match[0])
        if match[0] == _RESET:
            end(began)
        elif kind in began:
            end([kind])
        elif kind is not None:
            began[kind] = len(text)
    text += _CONTROL.sub("", written[at:])
    end(began)
    return arrange_spans(text, sorted(spans, key=lambda span: (span.start, -span.end)))


def read_message(written: str, *, notice: bool) -> Message | None:
    """The message of a ``PRIVMSG`` or ``NOTICE``; None for a CTCP that is not ``ACTION``, and for nothing."""
    style = Style.NOTICE if notice else Style.TEXT
    if written.startswith("\x01"):
        match = _CTCP.fullmatch(written)
        if match is None or match[1].upper() != "ACTION":
            return None
        style, written = Style.EMOTE, match[2] or ""
    formatted = read_formatted(written)
    if not formatted.text.strip():
        return None
    return Message(text=formatted.text, spans=formatted.spans, style=style)


def write_formatted(formatted: Formatted) -> list[str]:
    """The lines of a text, with codes. Each line stands alone: IRC ends all formatting with the line."""
    return [
        line
        for line in _reopened(_write(span_tree(formatted)).split("\n"))
        if line.strip(" \x02\x1d\x1e\x11")
    ]


def divide_formatted(line: str, limit: int) -> Iterator[str]:
    """The pieces of a line of ``write_formatted`` within ``limit`` UTF-8 bytes."""
    yield from _reopened(list(divide_text(line, limit - _ROOM_FOR_CODES)))


def plain_word(text: str, length: int = 64) -> str:
    """A name for a line of IRC: without controls and line breaks, bounded."""
    return " ".join(_CONTROL.sub("", text).split())[:length]


def _write(nodes: list[SpanNode]) -> str:
    return "".join(_CONTROL.sub("", node) if isinstance(node, str) else _write_span(*node) for node in nodes)


def _write_span(span: Span, inner: list[SpanNode]) -> str:
    text = _write(inner)
    code = _MARKS.get(span.kind)
    if code is None:
        return mark_span(span, text)
    return f"{code}{text}{code}"


def _reopened(pieces: list[str]) -> list[str]:
    """Pieces of one text, each of which begins with the codes that the one before left open."""
    made: list[str] = []
    opened: list[str] = []
    for piece in pieces:
        made.append("".join(opened) + piece)
        for code in re.findall("[\x02\x1d\x1e\x11]", piece):
            if code in opened:
                opened.remove(code)
            else:
                opened.append(code)
    return made
