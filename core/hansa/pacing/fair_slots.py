"""Slots that many names share, none more than its share.

Waiting requests are served in turn by name: a name with many requests waits behind itself, not in front of
others.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hansa.model.errors import Busy


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotShares:
    """``in_all`` slots; ``each`` of one name, by the kind of name; ``waiting`` of one first name, and of all
    together ten times that.
    """

    in_all: int
    each: Mapping[str, int]
    waiting: int


@dataclass(frozen=True, slots=True)
class _SlotWaiter:
    names: tuple[tuple[str, str], ...]
    ready: asyncio.Future[None]


class FairSlots:
    """See the module. A name is ``(kind, who)``; an empty ``who`` has no share of its own."""

    def __init__(self, bounds: SlotShares) -> None:
        self._bounds = bounds
        self._taken: Counter[tuple[str, str]] = Counter()
        self._in_all = 0
        self._lines: OrderedDict[tuple[str, str], deque[_SlotWaiter]] = OrderedDict()

    @property
    def taken(self) -> int:
        """Slots in use."""
        return self._in_all

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._lines.values()))

    @asynccontextmanager
    async def hold_slot(self, *names: tuple[str, str]) -> AsyncIterator[None]:
        """A slot for as long as the block runs; the first name is the one whose turn is waited for. Raises
        ``Busy`` where too many wait already.
        """
        if self._lines or not self._has_free_slot(names):
            await self._wait_for_slot(names)
        else:
            self._take_slot(names)
        try:
            yield
        finally:
            self._release_slot(names)

    def _has_free_slot(self, names: Iterable[tuple[str, str]]) -> bool:
        if self._in_all >= self._bounds.in_all:
            return False
        return all(self._taken[one] < self._bounds.each[one[0]] for one in names if one[1])

    def _take_slot(self, names: Iterable[tuple[str, str]]) -> None:
        self._in_all += 1
        self._taken.update(names)

    def _release_slot(self, names: Iterable[tuple[str, str]]) -> None:
        self._in_all -= 1
        for one in names:
            self._taken[one] -= 1
            if not self._taken[one]:
                del self._taken[one]
        self._serve_waiters()

    async def _wait_for_slot(self, names: tuple[tuple[str, str], ...]) -> None:
        line = self._lines.get(names[0], deque())
        if len(line) >= self._bounds.waiting or self.waiting >= 10 * self._bounds.waiting:
            raise Busy("too much of this is waiting already", after=5.0)
        waiter = _SlotWaiter(names, asyncio.get_running_loop().create_future())
        self._lines.setdefault(names[0], line).append(waiter)
        self._serve_waiters()
        try:
            await waiter.ready
        except asyncio.CancelledError:
            if waiter.ready.done() and not waiter.ready.cancelled():
                self._release_slot(names)
            else:
                line.remove(waiter)
                if not line:
                    del self._lines[names[0]]
            raise

    def _serve_waiters(self) -> None:
        """Slots that are free go to those who wait, each line in its turn."""
        while (found := self._next_waiter()) is not None:
            name, waiter = found
            line = self._lines.pop(name)
            line.remove(waiter)
            if line:
                self._lines[name] = line  # at the end: the others come first now
            self._take_slot(waiter.names)
            waiter.ready.set_result(None)

    def _next_waiter(self) -> tuple[tuple[str, str], _SlotWaiter] | None:
        if self._in_all >= self._bounds.in_all:
            return None
        for name, line in self._lines.items():
            for waiter in line:
                if not waiter.ready.cancelled() and self._has_free_slot(waiter.names):
                    return name, waiter
        return None
