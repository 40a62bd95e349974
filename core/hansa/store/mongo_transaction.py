"""One transaction of MongoDB, and whether it was kept.

What a commit answers is not always what became of it. Every transaction writes an id of its own into the row
of the lease, so that the row says which was kept last; one runs at a time. The row is asked in a transaction
of the same session, which ends an older one that is still open: a commit that comes late finds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pymongo import DeleteOne, InsertOne, ReadPreference, ReplaceOne, WriteConcern
from pymongo.errors import BulkWriteError, PyMongoError
from pymongo.read_concern import ReadConcern

from hansa.store.base import Append, Collection, CompareAndSwap, Conflict, Delete, Insert, Key, Remove, Write
from hansa.store.faults import ResultUnknown
from hansa.store.mongo_lease import MongoLease, await_if_needed, reason
from hansa.store.mongo_rows import Document, MongoCollection, encode_key

#: An acknowledged write is in the journal of most members.
DURABLE = WriteConcern("majority", j=True, wtimeout=10_000)
#: Seconds that the writes of one transaction may take, or one question to the database.
ANSWER_TIMEOUT_S = 30.0
#: The longest wait, in seconds, before it is asked again what became of a commit; and that a session ends.
_ASK_EVERY, _END_TIMEOUT_S = 1.0, 3.0
_DUPLICATE = 11000


@dataclass(frozen=True, slots=True)
class MongoStep:
    """One write and where it goes."""

    rows: MongoCollection
    write: Write

    @property
    def collection(self) -> Collection:
        """See ``batches.Step``."""
        return self.rows.collection


@dataclass(frozen=True, slots=True)
class Keyed:
    """A step whose key is known: an ``Append`` has been given its position."""

    rows: MongoCollection
    write: Write
    key: Key

    def document(self) -> Document:
        """The row as it is kept."""
        assert not isinstance(self.write, Delete | Remove)
        return self.rows.document(self.key, self.write.fields, self.write.body)

    def operation(self) -> Any:
        """The driver's operation for a step that compares nothing."""
        if isinstance(self.write, Delete):
            return DeleteOne({"_id": encode_key(self.key)})
        document = self.document()
        if isinstance(self.write, Append | Insert | CompareAndSwap):
            return InsertOne(document)
        return ReplaceOne({"_id": document["_id"]}, document, upsert=True)

    def compared(self) -> Document | None:
        """Returns the condition of a step that compares; None for a step that does not."""
        write = self.write
        if not isinstance(write, CompareAndSwap | Remove) or (
            isinstance(write, CompareAndSwap) and write.expect is None
        ):
            return None
        there: Document = {"_id": encode_key(self.key)}
        return there if write.expect is None else {**there, "B": write.expect}


class NotKept(Exception):
    """A commit raised ``error``, and the database says that nothing of it was kept."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class TransactionOwner(Protocol):
    """Who has the transactions run, while it is asked what was kept of one."""

    def record_trouble(self, error: Exception) -> None:
        """The database could not be asked."""
        ...

    def is_giving_up(self) -> bool:
        """True if it is no longer to be asked, because the process ends."""
        ...


class MongoTransactions:
    """Runs one transaction at a time for its ``owner``."""

    def __init__(
        self,
        client: Any,
        database: Any,
        lease: MongoLease,
        owner: TransactionOwner,
    ) -> None:
        self._client = client
        self._database = database
        self._lease = lease
        self._owner = owner
        self._session: Any = None
        #: True if a commit was sent whose result is not known yet.
        self.unsettled = False

    async def session(self) -> Any:
        """The session of all transactions. A new transaction of it ends one that is still open."""
        if self._session is None:
            self._session = await await_if_needed(self._client.start_session())
        return self._session

    async def close(self) -> None:
        """End the session, and what is open in it."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(PyMongoError, TimeoutError):
                async with asyncio.timeout(_END_TIMEOUT_S):
                    await session.end_session()

    async def run(self, appends: int, placed: Callable[[int], dict[str, list[Keyed]]]) -> int:
        """Write the steps that ``placed`` makes of the last position; returns that position.

        Raises Conflict; PyMongoError and TimeoutError before anything was sent to be committed; NotKept;
        StoreLost; ResultUnknown if the store is closed before the database told what became of the commit.
        """
        group = secrets.token_hex(8)
        session = await self.session()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await _begin_transaction(session)
                position = await self._lease.hold(session, appends, group)
                for steps in placed(position).values():
                    await self._write_collection(session, steps)
        except BaseException:
            await self._abort_transaction(session)
            raise
        self.unsettled = True
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await session.commit_transaction()
        except (PyMongoError, TimeoutError) as error:
            await self._settle_commit(session, group, error)
        self.unsettled = False
        self._lease.reached = position
        return position

    async def _abort_transaction(self, session: Any) -> None:
        """Let go of what a transaction holds. Where the database does not answer, the next transaction does
        it: that one is of the same session, and ends one that is still open. In another session it would run
        into the row of the lease, which the open one holds for as long as a transaction may last (60 s).
        """
        with contextlib.suppress(PyMongoError, TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(_END_TIMEOUT_S):
                if session.in_transaction:
                    await session.abort_transaction()

    async def _settle_commit(self, session: Any, group: str, error: Exception) -> None:
        """Ask until the database says what became of a commit that raised ``error``. Nothing else is written
        meanwhile, and nobody is told anything.
        """
        wait = 0.01
        while True:
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    if await self._was_kept(session, group):
                        return
                break
            except (PyMongoError, TimeoutError) as again:
                self._owner.record_trouble(again)
                if self._owner.is_giving_up():
                    text = f"it is unknown whether MongoDB stored it: {told(again)}"
                    raise ResultUnknown(text) from None
            await asyncio.sleep(wait)
            wait = min(2 * wait, _ASK_EVERY)
        self.unsettled = False
        raise NotKept(error)

    async def _was_kept(self, session: Any, group: str) -> bool:
        if session.in_transaction:
            await session.abort_transaction()
        await _begin_transaction(session)
        kept = await self._lease.keeps(session, group)
        await session.commit_transaction()
        return kept

    async def _write_collection(self, session: Any, steps: Sequence[Keyed]) -> None:
        """The steps of one collection in few commands: those of one kind that follow each other are one."""
        if len({step.key for step in steps}) == len(steps):
            steps = sorted(steps, key=lambda step: type(step.write).__name__)
        run: list[Keyed] = []
        for step in steps:
            compared = step.compared()
            if compared is None:
                run.append(step)
                continue
            await self._write_run(session, run)
            run = []
            await self._compare_and_write(session, step, compared)
        await self._write_run(session, run)

    async def _write_run(self, session: Any, run: Sequence[Keyed]) -> None:
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

    async def _compare_and_write(self, session: Any, step: Keyed, there: Document) -> None:
        rows = self._database[step.rows.name]
        if isinstance(step.write, Remove):
            found = (await rows.delete_one(there, session=session)).deleted_count
        else:
            found = (await rows.replace_one(there, step.document(), session=session)).matched_count
        if not found:
            raise Conflict(step.rows.collection.name, step.key)


async def _begin_transaction(session: Any) -> None:
    await await_if_needed(
        session.start_transaction(
            read_concern=ReadConcern("snapshot"),
            write_concern=DURABLE,
            read_preference=ReadPreference.PRIMARY,
        )
    )


def told(error: Exception) -> str:
    """An error for a log."""
    if isinstance(error, PyMongoError):
        return reason(error)
    return f"it has not answered for {ANSWER_TIMEOUT_S:.0f} s"
