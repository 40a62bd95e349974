"""Types and names of files: as senders claim them, as the first bytes show them, as an answer states them."""

from __future__ import annotations

import re
from email.message import Message as Headers
from typing import Final

#: The media type of bytes of which nothing is known.
UNKNOWN_TYPE: Final = "application/octet-stream"
#: Bytes of a file's beginning that ``detect_media_type`` needs.
SNIFFED_BYTES = 512
_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,127}/[a-z0-9!#$&^_.+-]{1,127}", re.ASCII)
_RANGE = re.compile(r"bytes=(?P<first>[0-9]{0,15})-(?P<last>[0-9]{0,15})", re.ASCII)
#: Types that no browser runs: an answer may show them in a page rather than have them saved.
INLINE = frozenset(
    {
        "text/plain", "text/css", "text/csv", "application/json", "application/ld+json",
        "image/jpeg", "image/gif", "image/png", "image/apng", "image/webp", "image/avif",
        "video/mp4", "video/webm", "video/ogg", "video/quicktime",
        "audio/mp4", "audio/webm", "audio/aac", "audio/mpeg", "audio/ogg", "audio/wave", "audio/wav",
        "audio/x-wav", "audio/x-pn-wav", "audio/flac", "audio/x-flac",
    }
)  # fmt: skip
#: ``(offset, bytes, type, further types that have the same bytes)``.
_SIGNATURES: Final[tuple[tuple[int, bytes, str, frozenset[str]], ...]] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png", frozenset({"image/apng"})),
    (0, b"\xff\xd8\xff", "image/jpeg", frozenset()),
    (0, b"GIF87a", "image/gif", frozenset()),
    (0, b"GIF89a", "image/gif", frozenset()),
    (8, b"WEBP", "image/webp", frozenset()),
    (8, b"WAVE", "audio/wav", frozenset({"audio/wave", "audio/x-wav", "audio/x-pn-wav"})),
    (4, b"ftypavif", "image/avif", frozenset()),
    (4, b"ftypheic", "image/heic", frozenset()),
    (4, b"ftypqt  ", "video/quicktime", frozenset()),
    (4, b"ftypM4A ", "audio/mp4", frozenset({"video/mp4"})),
    (4, b"ftyp", "video/mp4", frozenset({"audio/mp4", "video/quicktime"})),
    (0, b"\x1a\x45\xdf\xa3", "video/webm", frozenset({"audio/webm", "video/x-matroska"})),
    (0, b"OggS", "audio/ogg", frozenset({"video/ogg", "application/ogg"})),
    (0, b"fLaC", "audio/flac", frozenset({"audio/x-flac"})),
    (0, b"ID3", "audio/mpeg", frozenset({"audio/mp3"})),
    (0, b"\xff\xfb", "audio/mpeg", frozenset({"audio/mp3"})),
    (0, b"\xff\xf3", "audio/mpeg", frozenset({"audio/mp3"})),
    (0, b"\xff\xf1", "audio/aac", frozenset()),
    (0, b"\xff\xf9", "audio/aac", frozenset()),
    (0, b"%PDF-", "application/pdf", frozenset()),
    (0, b"\x7fELF", "application/x-executable", frozenset()),
    (0, b"MZ", "application/vnd.microsoft.portable-executable", frozenset()),
)  # fmt: skip
_SIGNED = frozenset(kind for _, _, kind, _ in _SIGNATURES)
_MARKUP = (
    (b"<svg", "image/svg+xml"),
    (b"<!doctype html", "text/html"),
    (b"<html", "text/html"),
    (b"<script", "text/html"),
    (b"<body", "text/html"),
)


def parse_media_type(value: object) -> str:
    """A media type without parameters, in lower case; that of mere bytes for a text that is not one."""
    text = value.partition(";")[0].strip().lower() if isinstance(value, str) else ""
    return text if _TYPE.fullmatch(text) else UNKNOWN_TYPE


def detect_media_type(head: bytes, claimed: str) -> str:
    """The media type that the first ``SNIFFED_BYTES`` of a file show. ``claimed`` is the sender's word: it
    counts for bytes without a signature, unless it is a type whose files all have one.
    """
    claimed = parse_media_type(claimed)
    for offset, signature, kind, alike in _SIGNATURES:
        if head.startswith(signature, offset):
            return claimed if claimed in alike else kind
    begun = head[:SNIFFED_BYTES].lstrip().lower()
    if begun.startswith(b"<"):
        for mark, kind in _MARKUP:
            if mark in begun:
                return kind
    if claimed in _SIGNED or (claimed.startswith("text/") and b"\0" in head[:SNIFFED_BYTES]):
        return UNKNOWN_TYPE
    return claimed


def parse_byte_range(header: str, size: int) -> range | None:
    """The bytes that a ``Range`` asks for of a file of ``size`` bytes: empty where it has none of them, None
    where the whole file is the answer, as to several ranges at once. SPEC: RFC 9110, 14.1.2.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or not (match["first"] or match["last"]):
        return None
    if not match["first"]:
        return range(max(0, size - int(match["last"])), size)
    first, last = int(match["first"]), int(match["last"] or size)
    if match["last"] and last < first:
        return None
    return range(first, min(last + 1, size)) if first < size else range(0)


def sanitise_name(name: str) -> str:
    """A file's name that can be shown and saved under."""
    shown = "".join(c for c in name.replace("\\", "/").rpartition("/")[2] if c.isprintable())
    return shown[:255]


def parse_file_name(disposition: object) -> str:
    """The name that a ``Content-Disposition`` gives, without any folder; empty if it gives none."""
    if not isinstance(disposition, str) or len(disposition) > 2000:
        return ""
    # Bytes that are not UTF-8 arrive as lone surrogates, which cannot be encoded.
    text = disposition.encode(errors="surrogatepass").decode(errors="replace")
    headers = Headers()
    headers["Content-Disposition"] = text.replace("\r", " ").replace("\n", " ")
    try:
        return sanitise_name(headers.get_filename(""))
    except (LookupError, TypeError, ValueError):  # parameters in parts that contradict each other
        return ""


def content_disposition(content_type: str, name: str) -> str:
    """How a browser is to take a file: nothing that it might run is shown in a page."""
    how = "inline" if content_type in INLINE else "attachment"
    if not name:
        return how
    headers = Headers()
    headers.add_header("Content-Disposition", how, filename=("utf-8", "", name))
    return str(headers["Content-Disposition"])
