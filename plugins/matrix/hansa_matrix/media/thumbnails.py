"""Smaller pictures of files that are here: one is made at a time, for each in turn, and the last are kept."""

from __future__ import annotations

from collections import OrderedDict

from hansa import NetworkContext, NoBlob, RemoteProtocolError, Request

from hansa_matrix.federation.server import error
from hansa_matrix.media.decoder import Decoder, Small, TooLarge, Unreadable
from hansa_matrix.media.library import Item, Library
from hansa_matrix.media.shrinking import FORMATS
from hansa_matrix.slots import Bounds, Shares

#: Bytes of a file that is unpacked.
_MOST_BYTES = 30 * 1024 * 1024
#: Sizes that are made: what a client asks for is answered by the next larger one.
_SIZES = (32, 96, 320, 640, 800, 1600)
#: Seconds for which a file that failed is not tried again: the machine may have been busy.
_FAILED_FOR = 600.0
_KEPT_BYTES, _MOST_KEPT = 16 * 1024 * 1024, 10_000
#: One process makes one picture; of each person or server two hundred may wait, and their turns alternate.
_BOUNDS = Bounds(in_all=1, each={"for": 1}, waiting=200)


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
        self._decoder = Decoder(ctx)
        self._shares = Shares(_BOUNDS)
        self._kept: OrderedDict[tuple[str, int, int, bool], Small | None] = OrderedDict()
        self._bytes = 0
        #: Files of which none can be made, and why: everybody in a room looks at the same picture.
        self._failed: OrderedDict[str, tuple[float, RemoteProtocolError]] = OrderedDict()

    async def of(self, item: Item, size: tuple[int, int], *, crop: bool, who: str) -> Small | None:
        """A picture of about a size; None if the file is as small already. ``who`` asks: a person or a
        server. Raises the error answer of a file that is no picture, or too large a one, and ``Busy``.
        """
        if item.type not in FORMATS:
            raise error(400, "M_UNKNOWN", f"there is no thumbnail of {item.type}")
        width, height = (next((s for s in _SIZES if s >= side), _SIZES[-1]) for side in size)
        key = (item.blob.digest, width, height, crop)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if item.blob.size > _MOST_BYTES:
            raise error(413, "M_TOO_LARGE", "the picture is too large for a thumbnail")
        self._may(item)
        async with self._shares.slot(("for", who)):
            if key in self._kept:
                return self._kept[key]
            self._may(item)
            small = await self._made(item, (width, height), crop=crop)
            self._keep(key, small)
            return small

    async def _made(self, item: Item, size: tuple[int, int], *, crop: bool) -> Small | None:
        try:
            chunks = self._library.read(item)
            return await self._decoder.shrink(chunks, item.type, item.blob.size, size, crop=crop)
        except Unreadable:
            raise self._fails(
                item, error(400, "M_UNKNOWN", "the file is no picture that can be read")
            ) from None
        except TooLarge:
            problem = error(413, "M_TOO_LARGE", "the picture is too large for a thumbnail")
            raise self._fails(item, problem) from None
        except NoBlob as problem:
            raise error(404, "M_NOT_FOUND", "the file is gone") from problem

    def _fails(self, item: Item, problem: RemoteProtocolError) -> RemoteProtocolError:
        self._ctx.count("matrix_thumbnails_failed")
        until = self._ctx.clock.monotonic() + _FAILED_FOR
        self._failed[item.blob.digest + item.type] = until, problem
        if len(self._failed) > _MOST_KEPT:
            self._failed.popitem(last=False)
        return problem

    def _may(self, item: Item) -> None:
        """Raises the error answer of a file that failed a while ago."""
        until, problem = self._failed.get(item.blob.digest + item.type, (0.0, None))
        if problem is not None and until > self._ctx.clock.monotonic():
            raise error(problem.hint, problem.code, problem.reason)

    def _keep(self, key: tuple[str, int, int, bool], small: Small | None) -> None:
        self._kept[key] = small
        self._bytes += len(small.data) if small is not None else 0
        while self._bytes > _KEPT_BYTES or len(self._kept) > _MOST_KEPT:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= len(gone.data) if gone is not None else 0
