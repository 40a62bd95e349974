"""Groups of batches of which SQLite does not say whether they are kept, until it does (ADR 15)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future

from hansa.store.faults import StoreFault

#: Seconds between two questions.
ASK_EVERY = 0.5
#: Primary code of failed input or output, and those of its kinds that leave no whole commit in the log:
#: reading and writing. What fails later, as an fsync does, may leave one, which the next start would find.
_IOERR, _NOT_WHOLE = 10, {266, 778}


class InDoubt(Exception):
    """A group may be kept. ``fault`` is why; ``kept`` is what becomes of it once the database can be written
    to: what is in a file that was taken away is kept when it is back, what is in the log without an fsync is
    written over.
    """

    def __init__(self, fault: StoreFault, *, kept: bool) -> None:
        super().__init__(str(fault))
        self.fault = fault
        self.kept = kept


def leaves_doubt(error: BaseException) -> bool:
    """True if a ``COMMIT`` that raised this error may have left a whole commit in the log."""
    code = getattr(error, "sqlite_errorcode", 0) if isinstance(error, sqlite3.Error) else 0
    return code & 0xFF == _IOERR and code not in _NOT_WHOLE


class UnknownResults:
    """Asks until it is known. ``ask`` is run in the writer's thread and raises StoreFault while it is not;
    ``settled`` is told afterwards what became of the group.
    """

    def __init__(
        self,
        doubt: InDoubt,
        ask: Callable[[], Future[None]],
        settled: Callable[[StoreFault | None], None],
    ) -> None:
        self.fault = doubt.fault
        self._doubt = doubt
        self._ask = ask
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(0.0, self._put_question)
        self._over = False

    def _put_question(self) -> None:
        self._ask().add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._on_answer, done))

    def _on_answer(self, done: Future[None]) -> None:
        if self._over:
            return
        if done.exception() is not None:
            self._timer = self._loop.call_later(ASK_EVERY, self._put_question)
            return
        self._end_asking(None if self._doubt.kept else self._doubt.fault)

    def _end_asking(self, fault: StoreFault | None) -> None:
        self._over = True
        self._timer.cancel()
        self._settled(fault)

    def give_up(self, fault: StoreFault) -> None:
        """The process ends: the group gets ``fault``."""
        if not self._over:
            self._end_asking(fault)
