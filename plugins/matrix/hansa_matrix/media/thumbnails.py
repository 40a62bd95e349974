"""Smaller pictures, made in a thread by a library, of files whose size is known before they are unpacked."""

from __future__ import annotations

import asyncio
import io
from collections import OrderedDict
from dataclasses import dataclass

from hansa import NetworkContext, Request
from PIL import Image, ImageOps, UnidentifiedImageError

from hansa_matrix.federation.server import error
from hansa_matrix.media.library import Item, Library

_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/gif": "GIF", "image/webp": "WEBP"}
#: Bytes of a file, and pixels of a picture, that are unpacked.
_MOST_BYTES, _MOST_PIXELS = 30 * 1024 * 1024, 40_000_000
#: Sizes that are made: what a client asks for is answered by the next larger one.
_SIZES = (32, 96, 320, 640, 800, 1600)
_AT_A_TIME, _KEPT_BYTES = 2, 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Small:
    """A picture that was made here."""

    type: str
    data: bytes


def wanted(request: Request) -> tuple[tuple[int, int], bool]:
    """The size that a request asks for, and whether the picture may be cut to it. Raises the error answer of
    one that asks for none.
    """
    sides: list[int] = []
    for name in ("width", "height"):
        value = request.first(name)
        sides.append(int(value) if value.isascii() and value.isdigit() and len(value) < 6 else 0)
    method = request.first("method") or "scale"
    if not all(sides) or method not in {"scale", "crop"}:
        raise error(400, "M_INVALID_PARAM", "width and height are numbers, method is scale or crop")
    return (sides[0], sides[1]), method == "crop"


class Thumbnails:
    """The last ones are kept in memory."""

    def __init__(self, ctx: NetworkContext, library: Library) -> None:
        self._ctx = ctx
        self._library = library
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        self._kept: OrderedDict[tuple[str, int, int, bool], Small | None] = OrderedDict()
        self._bytes = 0

    async def of(self, item: Item, size: tuple[int, int], *, crop: bool) -> Small | None:
        """A picture of about a size; None if the file is as small already. Raises the error answer of a file
        that is no picture, or too large a one.
        """
        if item.type not in _FORMATS:
            raise error(400, "M_UNKNOWN", f"there is no thumbnail of {item.type}")
        width, height = (next((s for s in _SIZES if s >= side), _SIZES[-1]) for side in size)
        key = (item.blob.digest, width, height, crop)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if item.blob.size > _MOST_BYTES:
            raise error(413, "M_TOO_LARGE", "the picture is too large for a thumbnail")
        async with self._slots:
            data = b"".join([chunk async for chunk in self._library.read(item)])
            try:
                small = await asyncio.to_thread(_made, data, item.type, (width, height), crop)
            except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as problem:
                self._ctx.count("matrix_thumbnails_failed")
                raise error(400, "M_UNKNOWN", "the file is no picture that can be read") from problem
            except Image.DecompressionBombError as problem:
                raise error(413, "M_TOO_LARGE", "the picture is too large for a thumbnail") from problem
        self._keep(key, small)
        return small

    def _keep(self, key: tuple[str, int, int, bool], small: Small | None) -> None:
        self._kept[key] = small
        self._bytes += len(small.data) if small is not None else 0
        while self._bytes > _KEPT_BYTES or len(self._kept) > 10_000:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= len(gone.data) if gone is not None else 0


def _made(data: bytes, content_type: str, size: tuple[int, int], crop: bool) -> Small | None:
    with Image.open(io.BytesIO(data), formats=[_FORMATS[content_type]]) as picture:
        if picture.width * picture.height > _MOST_PIXELS:
            raise Image.DecompressionBombError
        if picture.width <= size[0] and picture.height <= size[1]:
            return None
        picture.draft("RGB", size)
        turned = ImageOps.exif_transpose(picture)
        plain = turned.convert("RGBA" if turned.has_transparency_data else "RGB")
    resampling = Image.Resampling.LANCZOS
    if crop:
        plain = ImageOps.fit(plain, size, method=resampling)
    else:
        plain.thumbnail(size, resample=resampling)
    out = io.BytesIO()
    if plain.mode == "RGBA":
        plain.save(out, "PNG")
        return Small("image/png", out.getvalue())
    plain.save(out, "JPEG", quality=80)
    return Small("image/jpeg", out.getvalue())
