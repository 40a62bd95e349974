"""Width and height of a picture, from its first bytes: PNG, GIF, JPEG, WebP, BMP."""

from __future__ import annotations

import struct
from typing import Final

#: Bytes of a file's beginning that ``read_image_size`` looks at.
HEADER_BYTES = 64 * 1024
#: A picture is larger in neither direction; a header that says more is not believed.
MAX_PIXELS_A_SIDE = 65_535
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def read_image_size(head: bytes) -> tuple[int, int]:
    """``(width, height)`` in pixels of the picture that begins with ``head``; ``(0, 0)`` where the bytes do
    not tell.
    """
    try:
        width, height = _find_size(head)
    except (struct.error, IndexError):
        return 0, 0
    if not (0 < width <= MAX_PIXELS_A_SIDE and 0 < height <= MAX_PIXELS_A_SIDE):
        return 0, 0
    return width, height


def _find_size(head: bytes) -> tuple[int, int]:
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        return _unpack_pair(">II", head, 16)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _unpack_pair("<HH", head, 6)
    if head.startswith(b"\xff\xd8\xff"):
        return _find_jpeg_size(head)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _find_webp_size(head)
    if head.startswith(b"BM"):
        width, height = _unpack_pair("<ii", head, 18)
        return width, abs(height)
    return 0, 0


def _unpack_pair(form: str, head: bytes, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(form, head, at)
    return int(first), int(second)


def _find_jpeg_size(head: bytes) -> tuple[int, int]:
    at = 2
    while at < len(head):
        if head[at] != 0xFF:
            return 0, 0
        marker = head[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _START_OF_FRAME:
            height, width = _unpack_pair(">HH", head, at + 5)
            return width, height
        else:
            (length,) = struct.unpack_from(">H", head, at + 2)
            if length < 2:
                return 0, 0
            at += 2 + length
    return 0, 0


def _find_webp_size(head: bytes) -> tuple[int, int]:
    form = head[12:16]
    if form == b"VP8 ":
        width, height = _unpack_pair("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    if form == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if form == b"VP8X":
        width = int.from_bytes(head[24:27], "little") + 1
        return width, int.from_bytes(head[27:30], "little") + 1
    return 0, 0
