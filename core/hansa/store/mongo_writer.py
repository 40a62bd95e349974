"""The writing side of MongoDB: waiting batches become one transaction, and one transaction runs at a time.

So positions become visible in their order, and a commit's cost is shared. A batch that meets a conflict
aborts its transaction; the group then runs again batch by batch, and the conflict is that batch's alone. An
error that the driver calls transient (WriteConflict, a primary that steps down) repeats the transaction from
the start, with its inserts and compare-and-sets. While it is not known whether a group was kept, it waits and
nothing else is written; batches behind it fail after a while, since no part of them was begun.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from pymongo.errors import PyMongoError

from hansa.store.base import Append, Conflict, Key, StoreError
from hansa.store.batches import Batch, answer, fail, next_group, place
from hansa.store.faults import FaultKind, ResultUnknown, StoreFault, StoreLost, mongo_kind
from hansa.store.mongo_lease import MongoLease
from hansa.store.mongo_transaction import ANSWER_TIMEOUT_S, Keyed, MongoStep, MongoTransactions, NotKept, told

#: Seconds that the writer goes on when the store is being closed.
CLOSING = 3.0
#: How long a group is begun again before it fails, in seconds: nothing of it was kept, and who waits is told
#: to come again. ``_STILL``: where the group before it was given up too.
_BEGIN, _STILL = 10.0, 1.0
#: Codes of conflicts with other transactions, of engines that do not label them.
_CONFLICTS = {24, 112, 246, 251, 16777220}


class MongoWriter:
    """The one who writes. ``transactions`` counts those that were committed, for tests and metrics."""

    def __init__(self, client: Any, database: Any, lease: MongoLease) -> None:
        self.position = 0
        self.transactions = 0
        self._waiting: deque[Batch[MongoStep]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed_at: float | None = None
        self._transactions = MongoTransactions(client, database, lease, self)
        #: When the group of now was begun, and the last trouble that it met.
        self._began = 0.0
        self._trouble: Exception | None = None
        self._looking: asyncio.TimerHandle | None = None
        #: True if a group was given up, or may have to wait for long, because the database is away.
        self.away = False
        #: True if another process has taken the database over.
        self.lost = asyncio.Event()

    async def session(self) -> Any:
        """The session in which all is written."""
        return await self._transactions.session()

    def add(self, batch: Batch[MongoStep]) -> None:
        """Queue a batch; its future gets positions or an error."""
        self._waiting.append(batch)
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._drain_queue())
        if self._looking is None:
            self._looking = loop.call_later(_STILL, self._fail_waiting)

    def _fail_waiting(self) -> None:
        """Fail what waits behind a group that the database does not take: nothing of it was begun."""
        self._looking = None
        loop = asyncio.get_running_loop()
        patience = (_STILL if self.away else _BEGIN) if self._trouble is not None else ANSWER_TIMEOUT_S
        if self._task is not None and loop.time() - self._began > patience:
            self.away = True
            text = "MongoDB has not answered" if self._trouble is None else told(self._trouble)
            fail(self._waiting, StoreFault(FaultKind.AWAY, f"the writes before this one wait: {text}"))
            self._waiting.clear()
        if self._task is not None:
            self._looking = loop.call_later(_STILL, self._fail_waiting)

    def record_trouble(self, error: Exception) -> None:
        """See ``hansa.store.mongo_transaction.TransactionOwner``."""
        self._trouble = error

    def is_giving_up(self) -> bool:
        """See ``hansa.store.mongo_transaction.TransactionOwner``."""
        now = asyncio.get_running_loop().time()
        return self._closed_at is not None and now - self._closed_at > CLOSING / 2

    async def close(self) -> bool:
        """Let what waits be written; False if that did not end within seconds: the database is away."""
        self._closed_at = asyncio.get_running_loop().time()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSING)
        if self._looking is not None:
            self._looking.cancel()
        if self._task is None:
            await self._transactions.close()
        return self._task is None

    async def abandon(self) -> None:
        """Fail what still waits. The client is closed by now, which ends what the writer itself waits for."""
        fail(self._waiting, StoreFault(FaultKind.AWAY, "the store was closed while its database was away"))
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1.0)

    async def _drain_queue(self) -> None:
        try:
            while self._waiting:
                await self._write_group(next_group(self._waiting))
        finally:
            self._task = None

    async def _write_group(self, group: Sequence[Batch[MongoStep]]) -> None:
        try:
            await self._run_transaction(group)
        except Conflict as conflict:
            if len(group) > 1:
                for batch in group:
                    await self._write_group([batch])
                return
            fail(group, conflict)
        except StoreLost as lost:
            self.lost.set()
            fail(group, lost)
        except StoreError as error:
            fail(group, error)
        except asyncio.CancelledError:
            fail(group, self._cut_off("the store was closed"))
            raise
        except Exception as error:  # noqa: BLE001  # one group's fault must not end the writer
            fail(group, self._cut_off(f"{type(error).__name__} while writing"))
        else:
            answer(group)

    def _cut_off(self, why: str) -> StoreFault:
        if self._transactions.unsettled:
            return ResultUnknown(f"it is unknown whether MongoDB stored it: {why}")
        return StoreFault(FaultKind.FAILING, why)

    async def _run_transaction(self, group: Sequence[Batch[MongoStep]]) -> None:
        """One transaction, again and again while that can help. Raises Conflict, StoreError."""
        now = asyncio.get_running_loop().time
        self._began, self._trouble = now(), None
        wait = 0.002
        while True:
            error: Exception
            try:
                appends = sum(batch.appends for batch in group)
                position = await self._transactions.run(appends, partial(_place_steps, group))
            except NotKept as unkept:
                error, again = unkept.error, True
            except TimeoutError as late:
                error, again = late, True
            except PyMongoError as refused:
                error, again = refused, _is_transient(refused)
            else:
                self.position = max(self.position, position)
                self.transactions += 1
                self.away = False
                return
            self._trouble = error
            if not again or self.is_giving_up() or now() - self._began > (_STILL if self.away else _BEGIN):
                self.away = kind(error) is FaultKind.AWAY
                raise StoreFault(kind(error), f"MongoDB refused it: {told(error)}") from None
            await asyncio.sleep(wait)
            wait = min(2 * wait, 1.0)


def kind(error: Exception) -> FaultKind:
    """The kind of a driver's error; an answer that never came is one of a database that is away."""
    return FaultKind.AWAY if isinstance(error, TimeoutError) else mongo_kind(error)


def _is_transient(error: PyMongoError) -> bool:
    """True if a failure before the commit may not happen again when the transaction is repeated."""
    return error.has_error_label("TransientTransactionError") or getattr(error, "code", None) in _CONFLICTS


def _place_steps(group: Sequence[Batch[MongoStep]], position: int) -> dict[str, list[Keyed]]:
    """The steps by MongoDB collection, in their order, the appends with positions up to ``position``."""
    place(group, position)
    found: dict[str, list[Keyed]] = {}
    for batch in group:
        given = iter(batch.positions)
        for step in batch.steps:
            key: Key = (next(given),) if isinstance(step.write, Append) else step.write.key
            found.setdefault(step.rows.name, []).append(Keyed(step.rows, step.write, key))
    return found
