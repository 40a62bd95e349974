"""A least speed for streams: a slower one ends, and gives its place back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class MinimumRate:
    """Puts off an end for as long as ``least`` bytes come in each window of so many seconds."""

    def __init__(self, limit: asyncio.Timeout, least: int, window: float) -> None:
        self._limit = limit
        self._least = least
        self._window = window
        self._came = 0

    async def enforce_on(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same chunks."""
        async for chunk in chunks:
            self._came += len(chunk)
            if self._came >= self._least:
                self._came = 0
                self._limit.reschedule(asyncio.get_running_loop().time() + self._window)
            yield chunk


@asynccontextmanager
async def at_minimum_rate(least: int, window: float) -> AsyncIterator[MinimumRate]:
    """Raises TimeoutError out of the block when too little came."""
    async with asyncio.timeout(window) as limit:
        yield MinimumRate(limit, least, window)
