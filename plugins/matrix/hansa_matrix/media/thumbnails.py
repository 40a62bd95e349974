"""Smaller pictures of files that are here: one is made at a time, for each in turn, and the last are kept."""

from __future__ import annotations

from hansa import (
    BlobNotFound,
    FairSlots,
    LruCache,
    NetworkContext,
    RemoteProtocolError,
    Request,
    SlotShares,
    WeightedLruCache,
)

from hansa_matrix.errors import matrix_error
from hansa_matrix.media.image_process import ImageProcess, Thumbnail, TooLarge, Unreadable
from hansa_matrix.media.image_worker import FORMATS
from hansa_matrix.media.repository import MediaItem, MediaRepository

#: Bytes of a file that is unpacked.
_MAX_FILE_BYTES = 30 * 1024 * 1024
#: Sizes that are made: what a client asks for is answered by the next larger one.
_SIZES = (32, 96, 320, 640, 800, 1600)
#: Seconds for which a file that failed is not tried again: the machine may have been busy.
_FAILURE_TTL_S = 600.0
_MAX_CACHED_BYTES, _MAX_CACHED = 16 * 1024 * 1024, 10_000
#: One process makes one picture; of each person or server two hundred may wait, and their turns alternate.
_SLOT_LIMITS = SlotShares(in_all=1, each={"for": 1}, waiting=200)


def parse_thumbnail_query(request: Request) -> tuple[tuple[int, int], bool]:
    """The size that a request asks for, and whether the picture may be cut to it. Raises the error answer of
    one that asks for none.
    """
    sides: list[int] = []
    for name in ("width", "height"):
        value = request.first(name)
        sides.append(int(value) if value.isascii() and value.isdigit() and len(value) < 6 else 0)
    method = request.first("method") or "scale"
    if not all(sides) or method not in {"scale", "crop"}:
        raise matrix_error(400, "M_INVALID_PARAM", "width and height are numbers, method is scale or crop")
    return (sides[0], sides[1]), method == "crop"


class Thumbnails:
    """The last ones are kept in memory."""

    def __init__(self, ctx: NetworkContext, library: MediaRepository) -> None:
        self._ctx = ctx
        self._library = library
        self._decoder = ImageProcess(ctx)
        self._shares = FairSlots(_SLOT_LIMITS)
        #: None stands for a file that is as small already.
        self._kept: WeightedLruCache[tuple[str, int, int, bool], Thumbnail | None] = WeightedLruCache(
            _MAX_CACHED, _MAX_CACHED_BYTES, lambda small: len(small.data) if small is not None else 0
        )
        #: Files of which none can be made, and why: everybody in a room looks at the same picture.
        self._failed: LruCache[str, tuple[float, RemoteProtocolError]] = LruCache(_MAX_CACHED)

    async def get_thumbnail(
        self, item: MediaItem, size: tuple[int, int], *, crop: bool, who: str
    ) -> Thumbnail | None:
        """Returns a thumbnail of about a size; None if the file is as small already. ``who`` is the user or
        server that asks. Raises the error answer for a file that is not a picture, or too large a one, and
        ``Busy``.
        """
        if item.type not in FORMATS:
            raise matrix_error(400, "M_UNKNOWN", f"there is no thumbnail of {item.type}")
        width, height = (next((s for s in _SIZES if s >= side), _SIZES[-1]) for side in size)
        key = (item.blob.digest, width, height, crop)
        if key in self._kept:
            return self._kept.get(key)
        if item.blob.size > _MAX_FILE_BYTES:
            raise matrix_error(413, "M_TOO_LARGE", "the picture is too large for a thumbnail")
        self._require_not_failed(item)
        async with self._shares.hold_slot(("for", who)):
            if key in self._kept:
                return self._kept.get(key)
            self._require_not_failed(item)
            small = await self._render_thumbnail(item, (width, height), crop=crop)
            self._kept.put(key, small)
            return small

    async def _render_thumbnail(
        self, item: MediaItem, size: tuple[int, int], *, crop: bool
    ) -> Thumbnail | None:
        try:
            chunks = self._library.read_chunks(item)
            return await self._decoder.shrink_image(chunks, item.type, item.blob.size, size, crop=crop)
        except Unreadable:
            raise self._remember_failure(
                item, matrix_error(400, "M_UNKNOWN", "the file is not a picture that can be read")
            ) from None
        except TooLarge:
            problem = matrix_error(413, "M_TOO_LARGE", "the picture is too large for a thumbnail")
            raise self._remember_failure(item, problem) from None
        except BlobNotFound as problem:
            raise matrix_error(404, "M_NOT_FOUND", "the file is gone") from problem

    def _remember_failure(self, item: MediaItem, problem: RemoteProtocolError) -> RemoteProtocolError:
        self._ctx.count("matrix_thumbnails_failed")
        until = self._ctx.clock.monotonic() + _FAILURE_TTL_S
        self._failed.put(item.blob.digest + item.type, (until, problem))
        return problem

    def _require_not_failed(self, item: MediaItem) -> None:
        """Raises the error answer of a file that failed a while ago."""
        until, problem = self._failed.get(item.blob.digest + item.type) or (0.0, None)
        if problem is not None and until > self._ctx.clock.monotonic():
            raise matrix_error(problem.hint, problem.code, problem.reason)
