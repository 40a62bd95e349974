"""Files between servers: their ids, and the two parts in which a server gives one to another.

SPEC: server-server API, "Content Repository". The first part is an empty object, the second the file, or a
``Location`` to fetch it from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hansa.model.errors import RemoteProtocolError
from hansa.model.media_types import content_disposition, parse_media_type
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from hansa_matrix.proto import ids

_ID = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)
_CHARSET = re.compile(r"[a-z0-9][a-z0-9._:+-]{0,39}", re.ASCII)
_MAX_METADATA = 64 * 1024


@dataclass(frozen=True, slots=True)
class MxcUri:
    """A file by the server that has it and its id there: ``mxc://SERVER/ID``."""

    server: str
    media_id: str

    def __str__(self) -> str:
        return f"mxc://{self.server}/{self.media_id}"


def is_valid_media_id(value: object) -> bool:
    """Letters, digits, ``_`` and ``-``: nothing that a path could be made of (CVE-2021-41281)."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def parse_mxc(text: str) -> MxcUri | None:
    """A ``mxc://`` address, None if it is none."""
    server, slash, media_id = text.removeprefix("mxc://").partition("/")
    if not text.startswith("mxc://") or not slash or not ids.is_valid_server_name(server):
        return None
    return MxcUri(server, media_id) if is_valid_media_id(media_id) else None


def charset_of(value: object) -> str:
    """The character set that the media type of a text names, in lower case; empty where it names none."""
    if not isinstance(value, str) or not parse_media_type(value).startswith("text/"):
        return ""
    for parameter in value.split(";")[1:20]:
        key, _, given = parameter.partition("=")
        named = given.strip().strip('"').lower()
        if key.strip().lower() == "charset" and _CHARSET.fullmatch(named):
            return named
    return ""


def with_charset(content_type: str, characters: str) -> str:
    """A media type with its character set, where there is one."""
    return f"{content_type}; charset={characters}" if characters else content_type


def multipart_head(boundary: str, content_type: str, name: str) -> bytes:
    """All that comes before the bytes of the file."""
    how = content_disposition(parse_media_type(content_type), name)
    return (
        f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n"
        f"Content-Type: {content_type}\r\nContent-Disposition: {how}\r\n\r\n"
    ).encode()


def multipart_tail(boundary: str) -> bytes:
    """All that comes after them."""
    return f"\r\n--{boundary}--\r\n".encode()


class MultipartFileReader:
    """Reads a ``multipart/mixed`` answer as it comes. Raises RemoteProtocolError for any other."""

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/mixed" or not 0 < len(boundary) <= 70:
            raise RemoteProtocolError("the answer is not multipart/mixed")
        #: The headers of the file's part, once they are there.
        self.headers: Mapping[str, str] | None = None
        self._part = 0
        self._ended = False
        self._found: dict[str, str] = {}
        self._name, self._value, self._metadata = bytearray(), bytearray(), 0
        self._file: list[bytes] = []
        self._parser = MultipartParser(boundary, self._parser_callbacks(), max_header_count=20)

    def _parser_callbacks(self) -> Any:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._part += 1
        self._found = {}
        if self._part > 2:
            raise RemoteProtocolError("the answer has more than two parts")

    def _on_header_end(self) -> None:
        name, value = self._name.decode("latin-1").lower(), self._value.decode("latin-1")
        self._found[name] = value
        self._name.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        if self._part == 2:
            self.headers = self._found

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == 2:
            self._file.append(data[start:end])
            return
        self._metadata += end - start
        if self._metadata > _MAX_METADATA:
            raise RemoteProtocolError(f"the first part is over {_MAX_METADATA} bytes")

    def _on_end(self) -> None:
        self._ended = True

    def feed(self, chunk: bytes) -> bytes:
        """The bytes of the file that a chunk of the answer holds."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise RemoteProtocolError(f"the answer is not as multipart is written: {error}") from error
        found = b"".join(self._file)
        self._file.clear()
        return found

    def finish(self) -> None:
        """The answer has ended."""
        if not self._ended or self.headers is None:
            raise RemoteProtocolError("the answer ended before its two parts did")
