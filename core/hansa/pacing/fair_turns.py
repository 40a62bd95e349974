"""One at a time: servers take turns, and so do the people of one server."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_Queue = deque[asyncio.Future[None]]


class FairTurns:
    """Gives turns in order, so that a caller with much work delays the others by one piece of it."""

    def __init__(self) -> None:
        self._busy = False
        #: By server, by person: who is first goes next.
        self._waiting: OrderedDict[str, OrderedDict[str, _Queue]] = OrderedDict()

    @asynccontextmanager
    async def of(self, server: str, person: str = "") -> AsyncIterator[None]:
        """Wait for a turn, which ends with the block."""
        if self._busy:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            people = self._waiting.setdefault(server, OrderedDict())
            people.setdefault(person, deque()).append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # it had come already
                    self._next_turn()
                raise
        self._busy = True
        try:
            yield
        finally:
            self._next_turn()

    def _next_turn(self) -> None:
        while self._waiting:
            server, people = next(iter(self._waiting.items()))
            person, queue = next(iter(people.items()))
            turn = queue.popleft()
            if queue:
                people.move_to_end(person)
            else:
                del people[person]
            if people:
                self._waiting.move_to_end(server)
            else:
                del self._waiting[server]
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False
