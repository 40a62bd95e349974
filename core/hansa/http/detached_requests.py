"""An answer in time where the work for it waits for a database that is away: the work goes on behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds that a request waits while the database is away, and between two checks of the requests that wait.
REQUEST_TIMEOUT_S, _CHECK_INTERVAL_S = 5.0, 1.0
#: Requests that are answered while their work goes on; further ones wait for it.
MAX_BEHIND = 1000


class Late(Exception):
    """The work goes on without a waiting caller: a repeated request finds its result."""


class DetachedRequests:
    """``away`` says whether the database is. Work whose commit may have been kept is never cut off: its
    client is told to come again and repeats it under the same transaction id.
    """

    def __init__(self, away: Callable[[], bool]) -> None:
        self._away = away
        #: Since when each waits.
        self._waiting: dict[asyncio.Future[None], float] = {}
        self._behind: set[asyncio.Future[Any]] = set()
        self._next_check: asyncio.TimerHandle | None = None

    async def of(self, work: Awaitable[T]) -> T:
        """Returns or raises the result of ``work``. Raises Late while the database is away,
        ``REQUEST_TIMEOUT_S`` seconds after the work began or later.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)
        waiter: asyncio.Future[None] = loop.create_future()

        def done(_: object) -> None:
            if not waiter.done():
                waiter.set_result(None)

        task.add_done_callback(done)
        self._waiting[waiter] = loop.time()
        if self._next_check is None:
            self._next_check = loop.call_later(_CHECK_INTERVAL_S, self._watch_database)
        try:
            await waiter
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            del self._waiting[waiter]
        if task.done():
            return task.result()
        self._behind.add(task)
        task.add_done_callback(self._on_request_ended)
        raise Late

    def _watch_database(self) -> None:
        loop = asyncio.get_running_loop()
        self._next_check = loop.call_later(_CHECK_INTERVAL_S, self._watch_database) if self._waiting else None
        if not self._away():
            return
        since = loop.time() - REQUEST_TIMEOUT_S
        room = MAX_BEHIND - len(self._behind)
        for waiter, began in self._waiting.items():
            if room > 0 and began <= since and not waiter.done():
                waiter.set_result(None)
                room -= 1

    def _on_request_ended(self, task: asyncio.Future[Any]) -> None:
        self._behind.discard(task)
        if not task.cancelled():
            task.exception()  # told to nobody: the database's fault is noted where it was met
