"""Quotas of files: of each sender, of all senders of one server, of all together, and of the disk.

What counts is in the store, and is compared when a file is committed. An upload also takes its place in
memory before its first byte, so that many at once do not fill the disk first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

from hansa.api.media import MediaUnavailable
from hansa.model.events import Refusal, RefusalCode
from hansa.store.base import CompareAndSwap, Remove, ScopedStore, Write
from hansa.store.blobs import ScopedBlobs

#: The owner of the usage of all files together.
ALL = "*"
#: The part of the disk that is never kept free for other things: a reserve is at most a twentieth of it.
_RESERVE_SHARE = 20


@dataclass(frozen=True, slots=True)
class FileOwner:
    """The rows of usage that a file counts in, besides that of all: ``NETWORK:SENDER``, and the sender's
    server, ``*NETWORK:SERVER``.
    """

    sender: str
    server: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """Limits of the files that the core keeps, in bytes and files. ``reserve`` bytes of the disk stay free.
    ``link_ttl_s`` is the lifetime of a link in seconds; ``public_url`` the beginning of each, empty where no
    links can be made.
    """

    max_file: int = 50 * 1024 * 1024
    quota_per_sender: int = 1024**3
    quota_per_server: int = 10 * 1024**3
    files_per_sender: int = 10_000
    quota: int = 20 * 1024**3
    reserve: int = 1024**3
    link_ttl_s: int = 7 * 86_400
    public_url: str = ""


@dataclass(frozen=True, slots=True)
class MediaUsage:
    """Bytes and files."""

    size: int = 0
    files: int = 0


def _no_space(text: str) -> MediaUnavailable:
    return MediaUnavailable(Refusal(code=RefusalCode.TOO_LARGE, text=text))


class MediaQuotas:
    """What each sender has, and what uploads under way may take."""

    def __init__(self, store: ScopedStore, blobs: ScopedBlobs, limits: MediaLimits) -> None:
        self._store = store
        self._blobs = blobs
        self._limits = limits
        #: Bytes that uploads under way may take, by owner.
        self.reserved: list[tuple[FileOwner, int]] = []

    async def read_usage(self, owner: str) -> tuple[MediaUsage, bytes | None]:
        """The use of an owner, and the body of the row that holds it."""
        row = await self._store.get("usage", (owner,))
        return (MediaUsage(*orjson.loads(row.body)), row.body) if row is not None else (MediaUsage(), None)

    @asynccontextmanager
    async def reserve_space(self, owner: FileOwner, size: int) -> AsyncIterator[int]:
        """Reserves the place of a file of ``size`` bytes, or of an unknown size (0). The value is the number
        of bytes that the file may have. Raises ``MediaUnavailable``, OSError.
        """
        limits = self._limits
        if size > limits.max_file:
            raise _no_space(f"the file is over {limits.max_file} bytes")
        mine, _ = await self.read_usage(owner.sender)
        neighbours, _ = await self.read_usage(owner.server)
        every, _ = await self.read_usage(ALL)
        space = await self._blobs.space()
        # Nothing is awaited from here until the place is taken.
        all_reserved = sum(most for _, most in self.reserved)
        own = [most for one, most in self.reserved if one.sender == owner.sender]
        of_server = sum(most for one, most in self.reserved if one.server == owner.server)
        if mine.files + len(own) >= limits.files_per_sender:
            raise _no_space(f"the sender has {mine.files} files, which is the limit")
        free = space.free - min(limits.reserve, space.total // _RESERVE_SHARE) - all_reserved
        left = min(
            limits.max_file,
            limits.quota_per_sender - mine.size - sum(own),
            limits.quota_per_server - neighbours.size - of_server,
            limits.quota - every.size - all_reserved,
            free,
        )
        if left <= 0 or size > left:
            raise _no_space("there is no space for the file: a quota, or the disk, is full")
        place = (owner, size or left)
        self.reserved.append(place)
        try:
            yield place[1]
        finally:
            self.reserved.remove(place)

    async def usage_writes(self, owner: FileOwner, size: int, files: int) -> list[Write]:
        """The writes that add to the use of a sender, of a server and of all; they conflict if that changed
        meanwhile. Raises ``MediaUnavailable`` where an addition is over a quota.
        """
        writes: list[Write] = []
        limits = self._limits
        quotas = {
            owner.sender: limits.quota_per_sender,
            owner.server: limits.quota_per_server,
            ALL: limits.quota,
        }
        for one, quota in quotas.items():
            usage, body = await self.read_usage(one)
            now = MediaUsage(max(0, usage.size + size), max(0, usage.files + files))
            too_many = one == owner.sender and now.files > limits.files_per_sender
            if files > 0 and (now.size > quota or too_many):
                raise _no_space("there is no space for the file: a quota is full")
            if now.files or body is None:
                writes.append(CompareAndSwap("usage", (one,), body, orjson.dumps([now.size, now.files])))
            else:
                writes.append(Remove("usage", (one,), body))
        return writes
