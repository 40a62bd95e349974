"""The writing side of PostgreSQL: waiting batches become one transaction, and one transaction runs at a time.

So positions become visible in their order, and a commit's cost is shared: a group of batches is one call of
``postgres_function``. A group that meets a conflict, or holds what the database refuses, runs again batch by
batch, so that this is one batch's alone.

A session that ends during a call leaves it open whether the group was kept. The writer then makes another one
and takes a new token (``postgres_lease``), which says it, however long that takes; meanwhile the batches
behind the group fail. A group of lazy batches alone does not wait for the disk. Batches that the database may
still lose are remembered, and written again by a session that finds them lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hansa.store.base import Append, Conflict, StoreError
from hansa.store.batches import Batch, answer, fail, next_group, place
from hansa.store.faults import FaultKind, ResultUnknown, StoreFault, StoreLost
from hansa.store.postgres_batches import PostgresStep, values_of
from hansa.store.postgres_function import BEHIND, CALL, CONFLICT, GONE, function
from hansa.store.postgres_lease import SECONDS, TABLE, PostgresLease
from hansa.store.postgres_session import ERRORS, PostgresServer, PostgresSession, is_cut, reason, sqlstate
from hansa.store.postgres_tables import PostgresTable, Values

#: Seconds that one answer may take, and that closing waits for the database.
_ANSWER_TIMEOUT_S, CLOSING = 30.0, 3.0
#: Rows, and bytes of bodies, that give a group another second; and the most that any statement may take.
_ROWS_A_SECOND, _BYTES_A_SECOND, _AT_MOST = 1000, 4 * 1024 * 1024, 200
#: Seconds for which a group is tried that the database has not got, and for which others wait behind one.
#: ``_STILL``: where the group before was given up too.
_BEGIN, _STILL = 10.0, 1.0
#: Groups, and bytes of their bodies, that may be written before one waits for the disk.
_LAZY, _LAZY_BYTES = 50, 4 * 1024 * 1024
#: Another transaction was in the way: serialization_failure, deadlock_detected.
_AGAIN = frozenset({"40001", "40P01"})
#: Values that a column, a function or an index does not take.
_REFUSED = ("22", "23", "54")


_WENT_BACK = (
    "it went back behind what it had kept, as after a failover to a standby that had not received all of it "
    "or a restored backup, therefore this process ends"
)


@dataclass(frozen=True, slots=True)
class _Call:
    """A group as the function takes it. ``number`` is that of its commit."""

    number: int
    appends: int
    size: int
    values: Values


class PostgresWriter:
    """The one who writes. ``transactions`` counts those that were committed, for tests and metrics.

    ``tables`` are those of the store, which may become more. ``moved`` is told of the server that is written
    to.
    """

    def __init__(
        self, place: PostgresServer, tables: Sequence[PostgresTable], moved: Callable[[str], None]
    ) -> None:
        self._place = place
        self._tables = tables
        self._moved = moved
        self._lease = PostgresLease()
        self._session: PostgresSession | None = None
        self._call: Any = None
        self._known = -1
        self.position = 0
        self._number = 0
        self.transactions = 0
        self._waiting: deque[Batch[PostgresStep]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._unsure: list[_Call] = []
        self._watching: asyncio.TimerHandle | None = None
        #: Why there is no session.
        self._trouble: StoreError | None = None
        #: True if the last group was given up because the database is away.
        self.away = False
        #: Set once this process has lost its database, with the reason.
        self.lost = asyncio.Event()
        self.fault: StoreFault | None = None

    async def open(self) -> None:
        """Take the lease. Raises what ``ERRORS`` names, StoreError."""
        session = await self._connect_session()
        try:
            self.position, self._number = await self._lease.take(session.connection)
            await self._use_session(session)
        except BaseException:
            session.connection.terminate()
            raise

    async def _connect_session(self) -> PostgresSession:
        settings = {"plan_cache_mode": "force_generic_plan", "statement_timeout": f"{_AT_MOST}s"}
        return await self._place.connect(**settings)

    async def _use_session(self, session: PostgresSession) -> None:
        self._session, self._known, self._trouble = session, -1, None
        await self._create_function(session)
        self._call = await session.connection.prepare(CALL)
        self._moved(session.server)

    async def _create_function(self, session: PostgresSession) -> None:
        """The function for all tables that there are."""
        known = len(self._tables)
        if known != self._known:
            await session.connection.execute(function(TABLE, self._tables[:known], SECONDS))
            self._known = known

    def _drop_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.connection.terminate()

    def add(self, batch: Batch[PostgresStep]) -> None:
        """Queue a batch; its future gets positions or an error."""
        self._waiting.append(batch)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._drain_queue())

    async def close(self) -> None:
        """Let what waits be written, and the next process in; what the database does not take within
        seconds fails.
        """
        self._closing = True
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSING)
        fail(self._waiting, StoreError("the store was closed while its database was away"))
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1.0)
        session, self._session = self._session, None
        if session is None:
            return
        cut = session.cut_after(CLOSING)
        try:
            if self.fault is None:
                await self._lease.release(session.connection)
            await session.connection.close()
        except ERRORS:  # the lease ends by itself
            session.connection.terminate()
        finally:
            cut.cancel()

    async def advance(self, position: int) -> None:
        """Give positions above this one from now on. Raises what ``ERRORS`` names, StoreError."""
        session = await self._connect_session()
        try:
            await self._lease.advance(session.connection, position)
        finally:
            session.connection.terminate()
        self.position = max(self.position, position)

    async def _drain_queue(self) -> None:
        try:
            while self._waiting:
                self._watch_group(_BEGIN)
                await self._write_group(next_group(self._waiting))
        finally:
            self._task = None
            if self._watching is not None:
                self._watching.cancel()

    def _watch_group(self, seconds: float) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._watching = asyncio.get_running_loop().call_later(seconds, self._fail_waiting)

    def _fail_waiting(self) -> None:
        """Fail what waits behind a group that takes long: it was not begun, and may be sent again."""
        text = f"PostgreSQL {self._place} has not answered for {_BEGIN:.0f} s"
        fail(self._waiting, self._trouble or StoreFault(FaultKind.AWAY, text))
        self._waiting.clear()
        self._watch_group(_STILL)

    async def _write_group(self, group: Sequence[Batch[PostgresStep]]) -> None:
        try:
            await self._run_transaction(group)
        except (Conflict, _Refused) as error:
            if len(group) > 1:
                for batch in group:
                    await self._write_group([batch])
                return
            fail(group, error)
        except (StoreLost, ResultUnknown) as lost:
            self._end_writer(lost)
            fail(group, lost)
        except StoreError as error:
            fail(group, error)
        except asyncio.CancelledError:
            fail(group, ResultUnknown("the store was closed while PostgreSQL was asked to keep a batch"))
            raise
        except Exception as error:  # noqa: BLE001  # one group's fault must not end the writer
            fail(group, StoreFault(FaultKind.FAILING, f"{type(error).__name__} while writing"))
        else:
            answer(group)

    def _end_writer(self, fault: StoreFault) -> None:
        self.fault = fault
        self.lost.set()
        fail(self._waiting, fault)
        self._waiting.clear()

    async def _run_transaction(self, group: Sequence[Batch[PostgresStep]]) -> None:
        """One transaction, again while that can help. Raises Conflict, StoreError."""
        if self.fault is not None:
            raise self.fault
        size = sum(batch.size for batch in group)
        lazy = all(batch.lazy for batch in group) and self._may_be_lazy(size)
        appends = sum(batch.appends for batch in group)
        call = _Call(self._number + 1, appends, size, values_of(group))
        giving_up = self._make_deadline(_STILL if self.away else _BEGIN)
        wait = 0.01
        while True:
            try:
                await self._ensure_session()
                position = await self._call_function(call, lazy=lazy)
            except ERRORS as error:
                self._raise_meaning(error, group)
                if self._session is None:
                    self._trouble = self._place.fault(error)
                if giving_up() or not (self._session is None or sqlstate(error) in _AGAIN):
                    self.away = self._session is None
                    raise self._place.fault(error) from None
            except _Unsettled:
                kept = await self._settle_commit(call.number)
                if kept is None:
                    continue
                position = kept
                break
            else:
                break
            await asyncio.sleep(wait)
            wait = min(2 * wait, 1.0)
        self._commit_group(call, group, position, lazy=lazy)

    def _may_be_lazy(self, size: int) -> bool:
        held = sum(call.size for call in self._unsure)
        return len(self._unsure) < _LAZY and held + size <= _LAZY_BYTES

    def _commit_group(
        self, call: _Call, group: Sequence[Batch[PostgresStep]], position: int, *, lazy: bool
    ) -> None:
        place(group, position)
        self.position, self._number = position, call.number
        self.transactions += 1
        self.away = False
        if lazy:
            self._unsure.append(call)
        else:
            self._unsure.clear()  # what is durable has all before it

    def _raise_meaning(self, error: BaseException, group: Sequence[Batch[PostgresStep]]) -> None:
        """Raise what an answer of the function means, if it is one."""
        state = sqlstate(error)
        if state == CONFLICT:
            steps = [step for batch in group for step in batch.steps]
            step = steps[int(str(error)) - 1]
            assert not isinstance(step.write, Append)
            raise Conflict(step.table.collection.name, step.write.key) from None
        if state == GONE:
            raise StoreLost from None
        if state == BEHIND:
            raise StoreLost(_WENT_BACK) from None
        if state[:2] in _REFUSED:
            raise _Refused(f"PostgreSQL {self._place} does not take it: {reason(error)}") from None

    def _make_deadline(self, patience: float) -> Callable[[], bool]:
        now = asyncio.get_running_loop().time
        start = now()
        return lambda: now() - start > (min(CLOSING, patience) if self._closing else patience)

    async def _call_function(self, call: _Call, *, lazy: bool) -> int:
        """One call of the function; returns the last position. Raises ``_Unsettled`` where it is not known
        whether it was kept, and otherwise what ``ERRORS`` names.
        """
        session, values = self._session, call.values
        assert session is not None
        more = len(values.codes) // _ROWS_A_SECOND + call.size // _BYTES_A_SECOND
        cut = session.cut_after(_ANSWER_TIMEOUT_S + more)
        session.warned = False
        try:
            last = int(
                await self._call.fetchval(
                    self._lease.token,
                    call.number,
                    call.appends,
                    lazy,
                    values.codes,
                    values.texts,
                    values.numbers,
                    values.bodies,
                )
            )
            if session.warned:
                raise ConnectionError("the server warned")
            return last
        except ERRORS as error:
            if is_cut(error):
                self._drop_session()
                if sqlstate(error) != "25006":  # a server that takes no writes has not taken this one
                    raise _Unsettled from None
            raise
        finally:
            cut.cancel()

    async def _ensure_session(self) -> None:
        """A session that can write, the one that there is or a new one. Raises what ``ERRORS`` names."""
        if self._session is not None and self._session.connection.is_closed():
            self._drop_session()
        if self._session is None:
            try:
                await self._rejoin_lease(self._number)
            except _Unsettled:
                raise ConnectionError("the session ended") from None
        assert self._session is not None
        await self._create_function(self._session)

    async def _settle_commit(self, number: int) -> int | None:
        """Returns the last position if a commit was kept, None if not. Tries until it is known."""
        late = self._make_deadline(float("inf"))
        self.away, wait = True, 0.05
        while True:
            try:
                position, kept = await self._rejoin_lease(number)
            except StoreLost:
                raise
            except (*ERRORS, StoreError, _Unsettled) as error:
                self._trouble = error if isinstance(error, StoreError) else self._place.fault(error)
                if late():
                    text = f"the store was closed before PostgreSQL {self._place} could say: {reason(error)}"
                    raise ResultUnknown(text) from None
            else:
                return position if kept == number else None
            await asyncio.sleep(wait)
            wait = min(2 * wait, 1.0)

    async def _rejoin_lease(self, pending: int) -> tuple[int, int]:
        """A new session under a new token; the last position and the number of the last commit. Lost lazy
        batches are written again. ``pending``: the number of the commit that may have been kept.
        """
        session = await self._connect_session()
        cut = session.cut_after(_ANSWER_TIMEOUT_S)
        try:
            position, kept = await self._lease.again(session.connection)
            if session.warned:
                raise ConnectionError("the server warned")
            if kept not in {self._number, pending, *(call.number - 1 for call in self._unsure)}:
                raise StoreLost(_WENT_BACK)
            await self._use_session(session)
        except BaseException:
            session.connection.terminate()
            raise
        finally:
            cut.cancel()
        for call in self._unsure:
            if call.number > kept:
                position, kept = await self._write_again(call), call.number
        self._unsure.clear()
        return position, kept

    async def _write_again(self, call: _Call) -> int:
        try:
            return await self._call_function(call, lazy=False)
        except ERRORS as error:
            self._drop_session()
            if sqlstate(error) == CONFLICT:
                raise StoreLost(_WENT_BACK) from None
            raise


class _Unsettled(Exception):
    """It is not known whether a call was kept."""


class _Refused(StoreError):
    """The database does not take what a batch holds."""
