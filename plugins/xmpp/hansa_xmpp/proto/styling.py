"""Message styling: the marks in a body, as spans over the text without them, and the other way.

SPEC: XEP-0393 section 5 (blocks and spans), section 6 (how to disable styling).
"""

from __future__ import annotations

import re
from bisect import bisect_right

from hansa import (
    MAX_MARKS,
    Formatted,
    Span,
    SpanKind,
    SpanNode,
    arrange_spans,
    length_of_marks,
    mark_span,
    outer_first,
    plain_text,
    span_tree,
)

_DIRECTIVES = {"*": SpanKind.BOLD, "_": SpanKind.ITALIC, "~": SpanKind.STRIKE, "`": SpanKind.CODE}
_MARKS = {kind: mark for mark, kind in _DIRECTIVES.items()}
_FENCE = "```"
#: Quotes in quotes that are read as such.
_MAX_QUOTES = 8
_LANGUAGE = re.compile(r"\s*[\w+#.-]{0,40}\s*")
_MAY_BE_STYLED = re.compile(r"[*_~`]|^>", re.MULTILINE)


def parse_styling(body: str) -> Formatted:
    """Read a body (XEP-0393, section 5). Its marks are not in the text."""
    if not _MAY_BE_STYLED.search(body):
        return Formatted(text=body)
    reader = _Reader()
    reader.read_blocks(body.split("\n"), 0)
    return arrange_spans("".join(reader.parts), outer_first(reader.spans))


class _Reader:
    """The text so far, and its spans."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.at = 0
        self.spans: list[Span] = []
        self._begun = False

    def _emit(self, text: str) -> None:
        self.parts.append(text)
        self.at += len(text)

    def _begin_line(self) -> None:
        if self._begun:
            self._emit("\n")
        self._begun = True

    def _span(self, kind: SpanKind, start: int, value: str = "") -> None:
        if self.at > start:
            self.spans.append(Span(start=start, end=self.at, kind=kind, value=value))

    def read_blocks(self, lines: list[str], depth: int) -> None:
        """Read the lines of a body, or of a quote without their marks."""
        number = 0
        while number < len(lines):
            line = lines[number]
            if line.startswith(_FENCE) and _LANGUAGE.fullmatch(line, len(_FENCE)):
                number = self._read_code(lines, number)
            elif line.startswith(">") and depth < _MAX_QUOTES:
                quoted: list[str] = []
                while number < len(lines) and lines[number].startswith(">"):
                    inner = lines[number][1:]
                    quoted.append(inner[1:] if inner[:1].isspace() else inner)
                    number += 1
                start = self.at + self._begun
                self.read_blocks(quoted, depth + 1)
                self._span(SpanKind.QUOTE, start)
            else:
                self._begin_line()
                self._read_line(line)
                number += 1

    def _read_code(self, lines: list[str], number: int) -> int:
        end = number + 1
        while end < len(lines) and lines[end] != _FENCE:
            end += 1
        start = self.at + self._begun
        for line in lines[number + 1 : end]:
            self._begin_line()
            self._emit(line)
        self._span(SpanKind.CODE_BLOCK, start, lines[number].removeprefix(_FENCE).strip())
        return end + 1

    def _read_line(self, line: str) -> None:
        closers: dict[str, list[int]] = {mark: [] for mark in _DIRECTIVES}
        for position, char in enumerate(line):
            if char in closers and position and not line[position - 1].isspace():
                closers[char].append(position)
        self._read_spans(line, 0, len(line), closers)

    def _read_spans(self, line: str, at: int, end: int, closers: dict[str, list[int]]) -> None:
        """Read ``line[at:end]``: all of a block, or what two directives enclose."""
        plain = first = at
        while at < end:
            kind = _DIRECTIVES.get(line[at])
            if kind is None or not (at == first or line[at - 1].isspace()) or at + 1 >= end:
                at += 1
                continue
            if line[at + 1] == line[at]:  # nothing is between them: neither is a directive
                at += 2
                continue
            closing = closers[line[at]]
            found = bisect_right(closing, at)
            if line[at + 1].isspace() or found == len(closing) or closing[found] >= end:
                at += 1
                continue
            self._emit(line[plain:at])
            start = self.at
            if kind is SpanKind.CODE:
                self._emit(line[at + 1 : closing[found]])
            else:
                self._read_spans(line, at + 1, closing[found], closers)
            self._span(kind, start)
            plain = at = closing[found] + 1
        self._emit(line[plain:end])


def render_styling(formatted: Formatted) -> tuple[str, bool]:
    """The body of a text, and True where it must be marked ``<unstyled/>`` (XEP-0393, section 6): it would be
    read as another text. Formatting that styling cannot say is left out; a link says where it leads.
    """
    if not formatted.spans or length_of_marks(formatted) > MAX_MARKS:
        return formatted.text, _looks_styled(formatted.text)
    nodes = span_tree(formatted)
    body = _render(nodes, "", marked=True)
    if parse_styling(body).text == _render(nodes, "", marked=False):
        return body, False
    plain = plain_text(formatted)
    return plain, _looks_styled(plain)


def _looks_styled(body: str) -> bool:
    return parse_styling(body) != Formatted(text=body)


def _render(nodes: list[SpanNode], before: str, *, marked: bool) -> str:
    """``before`` is the character in front of the nodes: empty where a directive may open."""
    text = ""
    for node in nodes:
        if isinstance(node, str):
            text += node
            continue
        span, inner = node
        last = text[-1:] or before
        opens = marked and span.kind in _MARKS and (not last or last.isspace())
        made = _render(inner, "" if opens else last, marked=marked)
        if opens:
            made = _mark(made, _MARKS[span.kind])
        elif marked and span.kind is SpanKind.CODE_BLOCK:
            made = f"{_FENCE}{span.value}\n{made}\n{_FENCE}"
        elif marked or span.kind is not SpanKind.QUOTE:
            made = mark_span(span, made)
        text += made
    return text


def _mark(text: str, mark: str) -> str:
    """Each line between two directives, if it can stand there."""
    return "\n".join(
        f"{mark}{line}{mark}"
        if line and mark not in line and not line[0].isspace() and not line[-1].isspace()
        else line
        for line in text.split("\n")
    )
