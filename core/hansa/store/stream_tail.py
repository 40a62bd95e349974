"""The end of a stream in memory: an appended row is read once, for any number of readers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from hansa.store.base import Row, ScopedStore

#: Rows that are read at once, where nothing else is said.
_PAGE_SIZE = 500


class Positioned(Protocol):
    """An item at a position of a stream."""

    @property
    def position(self) -> int:
        """The position in the stream."""
        ...


T = TypeVar("T", bound=Positioned)


class StreamTail(Generic[T]):
    """The last ``max_items`` rows of a stream, each as ``parse`` reads it.

    The first question begins ``reach`` positions before the end of the stream. ``page_size`` rows are read at
    once. ``on_added`` and ``on_dropped`` are told of every item.
    """

    def __init__(
        self,
        store: ScopedStore,
        stream: str,
        max_items: int,
        parse: Callable[[Row], T],
        *,
        reach: int = 0,
        page_size: int = _PAGE_SIZE,
        on_added: Callable[[T], None] = lambda _: None,
        on_dropped: Callable[[T], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._stream = stream
        self._max_items = max_items
        self._parse = parse
        self._reach = reach
        self._page_size = page_size
        self._on_added = on_added
        self._on_dropped = on_dropped
        #: Oldest first.
        self.items: deque[T] = deque()
        #: All that is in the stream after ``begin`` and up to ``end`` is in ``items``; -1 before the first
        #: question.
        self.begin = self.end = -1
        self._reading = asyncio.Lock()

    def reaches(self, position: int) -> bool:
        """True if everything after a position and up to ``end`` is here."""
        return position >= self.begin >= 0

    async def catch_up(self) -> int:
        """Read what was committed until now. The position of the store, which ``end`` has reached."""
        now = await self._store.position()
        if self.end >= now:
            return now
        async with self._reading:
            if self.end < 0:
                self.begin = self.end = max(0, now - self._reach)
            while self.end < now:
                await self._read_page(now)
        return now

    async def _read_page(self, upto: int) -> None:
        page = await self._store.scan(self._stream, after=self.end, upto=upto, limit=self._page_size)
        for item in map(self._parse, page):
            self.items.append(item)
            self._on_added(item)
        self.end = page[-1].position if len(page) == self._page_size else upto
        while len(self.items) > self._max_items:
            dropped = self.items.popleft()
            self.begin = dropped.position
            self._on_dropped(dropped)

    async def after(self, position: int) -> list[T] | None:
        """Every committed item behind a position, in order; None where that goes further back than this."""
        await self.catch_up()
        if not self.reaches(position):
            return None
        found: list[T] = []
        for item in reversed(self.items):
            if item.position <= position:
                break
            found.append(item)
        return found[::-1]
