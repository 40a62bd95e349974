"""The writing side of MongoDB: what waits becomes one transaction, and one transaction runs at a time.

So positions become visible in their order, and a commit's cost is shared. A batch that meets a conflict
aborts its transaction; the group then runs again batch by batch, and the conflict is that batch's alone.
What the driver calls transient (WriteConflict, a primary that steps down) is done again from the start:
inserts and compare-and-sets are then judged anew. A commit without an answer is sent again until it has one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo import DeleteOne, InsertOne, ReadPreference, ReplaceOne, WriteConcern
from pymongo.errors import BulkWriteError, PyMongoError
from pymongo.read_concern import ReadConcern

from hansa.store.base import Append, Cas, Conflict, Delete, Insert, Key, Remove, StoreError, Write
from hansa.store.faults import FaultKind, StoreFault, StoreLost, mongo_kind
from hansa.store.memory import checked
from hansa.store.mongo_lease import Lease, reason, settled
from hansa.store.mongo_rows import Document, Rows, key_text

#: An acknowledged write is in the journal of most members.
DURABLE = WriteConcern("majority", j=True, wtimeout=10_000)
#: A group ends at so many batches, documents or bytes of bodies; a larger batch is a group of its own.
_BATCHES, _DOCUMENTS, _BYTES = 64, 1000, 16 * 1024 * 1024
#: How long a commit is tried again before it fails, in seconds; and when the store is being closed.
_PATIENCE, CLOSING = 60.0, 3.0
#: The same before anything was sent to be committed: nothing was kept, and who waits is told to come again.
#: ``_STILL``: where the group before it was given up too.
_BEGIN, _STILL = 10.0, 1.0
_DUPLICATE = 11000


@dataclass(frozen=True, slots=True)
class Step:
    """One write and where it goes."""

    rows: Rows
    write: Write


@dataclass(slots=True, eq=False)
class Batch:
    """What is written whole or not at all. ``size`` is the bytes of its bodies."""

    steps: Sequence[Step]
    done: asyncio.Future[list[int]]
    size: int = 0
    documents: int = 0
    appends: int = 0
    positions: list[int] = field(default_factory=list)


def batch_of(steps: Sequence[Step], done: asyncio.Future[list[int]]) -> Batch:
    """A batch, weighed. Raises StoreError, TooLarge for what no store may take."""
    batch = Batch(steps, done, documents=len(steps))
    for step in steps:
        checked(step.rows.collection, step.write)
        if not isinstance(step.write, Delete | Remove):
            batch.size += len(step.write.body)
        batch.appends += isinstance(step.write, Append)
    return batch


@dataclass(frozen=True, slots=True)
class _Keyed:
    """A step whose key is known: an ``Append`` has been given its position."""

    rows: Rows
    write: Write
    key: Key

    def document(self) -> Document:
        assert not isinstance(self.write, Delete | Remove)
        return self.rows.document(self.key, self.write.fields, self.write.body)

    def operation(self) -> Any:
        if isinstance(self.write, Delete):
            return DeleteOne({"_id": key_text(self.key)})
        document = self.document()
        if isinstance(self.write, Append | Insert | Cas):
            return InsertOne(document)
        return ReplaceOne({"_id": document["_id"]}, document, upsert=True)


class Writer:
    """The one who writes. ``transactions`` counts those that were committed, for tests and metrics."""

    def __init__(self, client: Any, database: Any, lease: Lease, position: int) -> None:
        self._client = client
        self._database = database
        self._lease = lease
        self.position = position
        self.transactions = 0
        self._waiting: deque[Batch] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        #: Whether the last group was given up because the database is away.
        self.away = False
        #: Whether another process has taken the database over.
        self.lost = asyncio.Event()

    def add(self, batch: Batch) -> None:
        """Queue a batch; its future gets positions or an error."""
        self._waiting.append(batch)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def close(self) -> bool:
        """Let what waits be written; False if that did not end within seconds: the database is away."""
        self._closing = True
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSING)
        return self._task is None

    async def abandon(self) -> None:
        """Fail what still waits. The client is closed by now, which ends what the writer itself waits for."""
        _fail(self._waiting, StoreError("the store was closed while its database was away"))
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1.0)

    async def _drain(self) -> None:
        try:
            while self._waiting:
                await self._group(self._next())
        finally:
            self._task = None

    def _next(self) -> list[Batch]:
        group = [self._waiting.popleft()]
        documents, size = group[0].documents, group[0].size
        while self._waiting and len(group) < _BATCHES:
            documents += self._waiting[0].documents
            size += self._waiting[0].size
            if documents > _DOCUMENTS or size > _BYTES:
                break
            group.append(self._waiting.popleft())
        return group

    async def _group(self, group: Sequence[Batch]) -> None:
        try:
            await self._transact(group)
        except Conflict as conflict:
            if len(group) > 1:
                for batch in group:
                    await self._group([batch])
                return
            _fail(group, conflict)
        except StoreLost as lost:
            self.lost.set()
            _fail(group, lost)
        except StoreError as error:
            _fail(group, error)
        except asyncio.CancelledError:
            _fail(group, StoreError("it is not known whether MongoDB kept it: the store was closed"))
            raise
        except Exception as error:  # noqa: BLE001  # one group's fault must not end the writer
            _fail(group, StoreFault(FaultKind.FAILING, f"{type(error).__name__} while writing"))
        else:
            for batch in group:
                if not batch.done.done():
                    batch.done.set_result(batch.positions)

    async def _transact(self, group: Sequence[Batch]) -> None:
        """One transaction, again and again while that can help. Raises Conflict, StoreError."""
        late, giving_up = self._deadline(_PATIENCE), self._deadline(_STILL if self.away else _BEGIN)
        wait = 0.002
        while True:
            try:
                position = await self._transaction(group, late)
            except PyMongoError as error:
                if giving_up() or not error.has_error_label("TransientTransactionError"):
                    self.away = mongo_kind(error) is FaultKind.AWAY
                    raise StoreFault(mongo_kind(error), f"MongoDB did not take it: {reason(error)}") from None
            else:
                self.position = max(self.position, position)
                self.transactions += 1
                self.away = False
                return
            await asyncio.sleep(wait)
            wait = min(2 * wait, 1.0)

    def _deadline(self, patience: float) -> Callable[[], bool]:
        now = asyncio.get_running_loop().time
        start = now()
        return lambda: now() - start > (min(CLOSING, patience) if self._closing else patience)

    async def _transaction(self, group: Sequence[Batch], late: Callable[[], bool]) -> int:
        async with await settled(self._client.start_session()) as session:
            await settled(
                session.start_transaction(
                    read_concern=ReadConcern("snapshot"),
                    write_concern=DURABLE,
                    read_preference=ReadPreference.PRIMARY,
                )
            )
            position = await self._lease.hold(session, sum(batch.appends for batch in group))
            for steps in _placed(group, position).values():
                await self._collection(session, steps)
            await _commit(session, late)
            return position

    async def _collection(self, session: Any, steps: Sequence[_Keyed]) -> None:
        """The steps of one collection in few commands: those of one kind that follow each other are one."""
        if len({step.key for step in steps}) == len(steps):
            steps = sorted(steps, key=lambda step: type(step.write).__name__)
        run: list[_Keyed] = []
        for step in steps:
            compared = _compared(step)
            if compared is None:
                run.append(step)
                continue
            await self._run(session, run)
            run = []
            await self._compare(session, step, compared)
        await self._run(session, run)

    async def _run(self, session: Any, run: Sequence[_Keyed]) -> None:
        if not run:
            return
        rows = run[0].rows
        try:
            await self._database[rows.name].bulk_write([step.operation() for step in run], session=session)
        except BulkWriteError as error:
            first = error.details["writeErrors"][0] if error.details.get("writeErrors") else {}
            if first.get("code") == _DUPLICATE:
                raise Conflict(rows.collection.name, run[first["index"]].key) from None
            raise

    async def _compare(self, session: Any, step: _Keyed, there: Document) -> None:
        rows = self._database[step.rows.name]
        if isinstance(step.write, Remove):
            found = (await rows.delete_one(there, session=session)).deleted_count
        else:
            found = (await rows.replace_one(there, step.document(), session=session)).matched_count
        if not found:
            raise Conflict(step.rows.collection.name, step.key)


def _compared(step: _Keyed) -> Document | None:
    """What must be there for a step that compares; None for one that does not."""
    write = step.write
    if not isinstance(write, Cas | Remove) or (isinstance(write, Cas) and write.expect is None):
        return None
    there: Document = {"_id": key_text(step.key)}
    return there if write.expect is None else {**there, "B": write.expect}


def _placed(group: Sequence[Batch], position: int) -> dict[str, list[_Keyed]]:
    """The steps by MongoDB collection, in their order, the appends with positions up to ``position``."""
    at = position - sum(batch.appends for batch in group)
    found: dict[str, list[_Keyed]] = {}
    for batch in group:
        batch.positions = []
        for step in batch.steps:
            if isinstance(step.write, Append):
                at += 1
                batch.positions.append(at)
                key: Key = (at,)
            else:
                key = step.write.key
            found.setdefault(step.rows.name, []).append(_Keyed(step.rows, step.write, key))
    return found


async def _commit(session: Any, late: Callable[[], bool]) -> None:
    wait = 0.01
    while True:
        try:
            await session.commit_transaction()
        except PyMongoError as error:
            if not error.has_error_label("UnknownTransactionCommitResult"):
                raise
            if late():
                text = f"it is not known whether MongoDB kept it: {reason(error)}"
                raise StoreFault(mongo_kind(error), text) from None
        else:
            return
        await asyncio.sleep(wait)
        wait = min(2 * wait, 1.0)


def _fail(group: Iterable[Batch], error: StoreError) -> None:
    for batch in group:
        if not batch.done.done():
            batch.done.set_exception(error)
