"""Lines of IRC: RFC 1459, RFC 2812 and the message tags of IRCv3. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from hansa import RemoteProtocolError

#: Bytes of a line with its CR LF, without tags, and of its tags (IRCv3 message tags, "Size limit").
MAX_LINE, MAX_TAGS = 512, 8191
#: Parameters of a line (RFC 2812 section 2.3).
MAX_PARAMS = 15
#: Channels that one line enters.
_MAX_TARGETS = 10

_COMMAND = re.compile(r"[A-Za-z]{1,32}|[0-9]{3}")
_UNESCAPED = {":": ";", "s": " ", "\\": "\\", "r": "\r", "n": "\n"}
_FORBIDDEN = re.compile(r"[\r\n\0]")
#: What masks, lists, channels and servers are written with (RFC 2812 section 2.3.1 and 2.5).
_NOT_IN_NICKS = frozenset(" *?!@,:#&$+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line. ``source`` is ``nick!user@host`` or a server's name, empty where none is given."""

    command: str
    params: tuple[str, ...] = ()
    source: str = ""
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def nick(self) -> str:
        """What stands before ``!`` in the source."""
        return self.source.partition("!")[0]

    def param(self, number: int) -> str:
        """One parameter, empty where the line has fewer."""
        return self.params[number] if number < len(self.params) else ""


def parse_line(raw: bytes) -> Line:
    """Returns the line of ``raw``, which has no CR LF. Text that is not UTF-8 is read as Windows-1252.
    Raises RemoteProtocolError.
    """
    if len(raw) > MAX_TAGS + MAX_LINE:
        raise RemoteProtocolError(f"a line has {len(raw)} bytes")
    text = _decode(raw)
    if _FORBIDDEN.search(text):
        raise RemoteProtocolError("a line contains CR, LF or NUL")
    tags: Mapping[str, str] = MappingProxyType({})
    if text.startswith("@"):
        written, _, text = text.partition(" ")
        tags = _parse_tags(written[1:])
    text = text.lstrip(" ")
    source = ""
    if text.startswith(":"):
        source, _, text = text[1:].partition(" ")
        text = text.lstrip(" ")
    command, *params = _words(text) or [""]
    if not _COMMAND.fullmatch(command):
        raise RemoteProtocolError(f"{command[:40]!r} is not a command")
    if len(params) > MAX_PARAMS:
        raise RemoteProtocolError(f"a line has {len(params)} parameters")
    return Line(command=command.upper(), params=tuple(params), source=source, tags=tags)


def is_nick(text: str) -> bool:
    """True if a text may name one person: no mask of many, no list, no channel and no server."""
    return bool(text) and text.isprintable() and not set(text) & _NOT_IN_NICKS


def format_line(command: str, *params: str) -> bytes:
    """Returns a line with CR LF. Raises ValueError for what would be a different line, or too long."""
    for number, param in enumerate(params):
        last = number == len(params) - 1
        if _FORBIDDEN.search(param) or (not last and (not param or " " in param or param.startswith(":"))):
            raise ValueError(f"parameter {number} of {command} cannot be written: {param[:80]!r}")
    words = [command, *params]
    if params:
        words[-1] = f":{params[-1]}"
    raw = " ".join(words).encode() + b"\r\n"
    if len(raw) > MAX_LINE:
        raise ValueError(f"{command} has {len(raw)} bytes")
    return raw


def join_lines(channels: Sequence[str]) -> list[bytes]:
    """Lines that enter channels, several with each (RFC 2812 section 3.2.1)."""
    lines: list[list[str]] = [[]]
    for name in channels:
        group = [*lines[-1], name]
        if len(group) > _MAX_TARGETS or len(",".join(group).encode()) > MAX_LINE // 2:
            lines.append([name])
        else:
            lines[-1] = group
    return [format_line("JOIN", ",".join(names)) for names in lines if names]


def divide_text(text: str, limit: int) -> Iterator[str]:
    """The pieces of one line of text, each of ``limit`` UTF-8 bytes at most, divided between words, and
    otherwise between characters.
    """
    limit = max(limit, 8)
    while len(text.encode()) > limit:
        piece = text.encode()[:limit].decode(errors="ignore")
        space = piece.rfind(" ")
        if space > len(piece) // 3:
            yield piece[:space]
            text = text[space + 1 :]
        else:
            yield piece
            text = text[len(piece) :]
    if text:
        yield text


def room_for_text(source: str, command: str, target: str) -> int:
    """Bytes that the last parameter of a line may have, so that others get it whole: the server puts
    ``source`` before what we sent.
    """
    around = f":{source} {command} {target} :\r\n"
    return MAX_LINE - len(around.encode())


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def _words(text: str) -> list[str]:
    words: list[str] = []
    while text:
        if text.startswith(":"):
            words.append(text[1:])
            break
        word, _, text = text.partition(" ")
        if word:
            words.append(word)
        text = text.lstrip(" ")
    return words


def _parse_tags(written: str) -> dict[str, str]:
    tags: dict[str, str] = {}
    for tag in written.split(";"):
        key, _, value = tag.partition("=")
        if key:
            tags[key] = _unescape(value)
    return tags


def _unescape(value: str) -> str:
    return re.sub(r"\\(.?)", lambda match: _UNESCAPED.get(match[1], match[1]), value)
