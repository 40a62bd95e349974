"""Quotas of files: per user, per other server, for all copies, and for the disk.

An upload counts before it is complete: it reserves its space, so that many uploads at once cannot exceed a
quota that each of them would keep.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import orjson
from hansa import (
    CompareAndSwap,
    Conflict,
    HansaError,
    NetworkContext,
    Remove,
    Write,
    pages,
)

#: Copies of one server's files, and of all servers': small files are bounded too.
MAX_COPIES_PER_SERVER, MAX_COPIES = 20_000, 200_000
#: The owner of the usage of all copies together.
COPIES = "*"
#: Bytes of the disk that are kept at a time for a file whose size is not known.
_RESERVE_STEP = 1024 * 1024
_PAGE_SIZE = 500


class OverQuota(HansaError):
    """A person's files, or one server's copies, would be more than they may."""


class DiskFull(HansaError):
    """The rest of the disk is reserved for events, and is not available for files."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes and files."""

    size: int = 0
    files: int = 0

    def is_over(self, size: int, files: int) -> bool:
        """True if the use exceeds that many bytes or files; 0 means that there is no limit."""
        return (self.size > size > 0) or (self.files > files > 0)


class Promise:
    """A place for a file of at most ``size`` bytes. ``left`` of the disk are kept for it: all where the size
    is known, else some at a time, so that nothing is evicted for a file that is small in the end.
    """

    def __init__(self, owner: str, size: int, *, known: bool) -> None:
        self.owner = owner
        self.size = size
        self.left = size if known else min(size, _RESERVE_STEP)

    async def count_chunks(
        self, chunks: AsyncIterator[bytes], more: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[bytes]:
        """The chunks of the file; ``more`` is asked for each further part of the disk, and may raise."""
        async for chunk in chunks:
            if len(chunk) > self.left:
                self.left += max(_RESERVE_STEP, len(chunk))
                await more()
            self.left -= len(chunk)
            yield chunk


class Quotas:
    """The use of each quota. It is in the store, by owner: a user, ``*`` or another server."""

    def __init__(self, ctx: NetworkContext, evict: Callable[[int], Awaitable[bool]]) -> None:
        """``evict`` removes copies of at least so many bytes; False if there are none."""
        self._ctx = ctx
        self._evict = evict
        self._promises: set[Promise] = set()

    def limits_of(self, owner: str) -> tuple[int, int]:
        """Bytes and files that an owner may have; 0: no bound."""
        config = self._ctx.config
        if owner == COPIES:
            return config.media_quota_remote, MAX_COPIES
        if owner.startswith("@"):
            return config.media_quota_per_user, config.media_files_per_user
        return (config.media_quota_per_server, MAX_COPIES_PER_SERVER) if owner else (0, 0)

    async def usage_of(self, owner: str) -> tuple[Usage, bytes | None]:
        """Returns the use of an owner, and the row that holds it."""
        row = await self._ctx.store.get("media_usage", (owner,))
        return (Usage(*orjson.loads(row.body)), row.body) if row is not None else (Usage(), None)

    async def usage_writes(self, owner: str, size: int, files: int) -> list[Write]:
        """The writes that add to what an owner has; they fail where that has changed meanwhile. An owner
        without files has no row.
        """
        used, body = await self.usage_of(owner)
        now = Usage(max(0, used.size + size), max(0, used.files + files))
        if owner == COPIES:
            self._ctx.set_gauge("matrix_media_copies_bytes", now.size)
            self._ctx.set_gauge("matrix_media_copies", now.files)
        counted = CompareAndSwap("media_usage", (owner,), body, orjson.dumps([now.size, now.files]))
        if now.files or body is None:
            return [counted]
        return [Remove("media_usage", (owner,), body)]

    async def purge_empty(self) -> None:
        """Let go of the rows of those who have nothing, and say how many have something."""
        async for rows in pages(self._ctx.store, "media_usage", size=_PAGE_SIZE):
            for row in rows:
                if not Usage(*orjson.loads(row.body)).files:
                    with suppress(Conflict):  # they have something now
                        await self._ctx.store.commit([Remove("media_usage", row.key, row.body)])

    @asynccontextmanager
    async def reserve_space(self, owner: str, most: int, size: int | None) -> AsyncIterator[Promise]:
        """A place that nobody else gets meanwhile, for a file of ``size`` bytes or, where that is not known,
        of as many as there may be. Raises ``OverQuota``, ``DiskFull``.
        """
        used, _ = await self.usage_of(owner) if owner.startswith("@") else (Usage(), None)
        promise = self._make_promise(owner, used, most, size)
        self._promises.add(promise)
        try:
            await self.require_disk_space()
            yield promise
        finally:
            self._promises.discard(promise)

    def _make_promise(self, owner: str, used: Usage, most: int, size: int | None) -> Promise:
        """Nothing is awaited in here: what others were promised cannot change before this is promised."""
        left = most
        if owner.startswith("@"):
            bytes_, files = self.limits_of(owner)
            promised = [one for one in self._promises if one.owner == owner]
            if bytes_:
                left = min(most, bytes_ - used.size - sum(one.size for one in promised))
            if files and used.files + len(promised) >= files:
                left = 0
        if left <= 0 or (size or 0) > left:
            self._ctx.count("matrix_media_refused", reason="quota")
            raise OverQuota(
                f"{owner} has {used.files} files of {used.size} bytes: the quota leaves less than this file"
            )
        return Promise(owner, size or left, known=bool(size))

    async def require_within(self, owner: str, size: int) -> None:
        """A person's new file of a size is still within what they may. Raises ``OverQuota``."""
        used, _ = await self.usage_of(owner)
        if Usage(used.size + size, used.files + 1).is_over(*self.limits_of(owner)):
            raise OverQuota(f"the files of {owner} would be {used.files + 1} of {used.size + size} bytes")

    async def require_disk_space(self) -> None:
        """The disk has enough for all that was promised, if need be once copies were evicted. Raises
        ``DiskFull``.
        """
        while (short := await self._missing_disk_bytes()) > 0:
            copies, _ = await self.usage_of(COPIES)
            if copies.size < short or not await self._evict(short):
                self._ctx.count("matrix_media_refused", reason="disk")
                raise DiskFull("the disk is full but for what events need")

    async def _missing_disk_bytes(self) -> int:
        """How many bytes the disk has too few for all that was promised and the reserve; 0 or less if it has
        enough. Raises OSError.
        """
        space = await self._ctx.blobs.space()
        reserve: int = min(self._ctx.config.media_reserve, space.total // 20)
        self._ctx.set_gauge("matrix_media_disk_free_bytes", space.free)
        return sum(one.left for one in self._promises) + reserve - space.free
