"""MongoDB, a replica set of one node or more: one process per database, one transaction per group of batches.

A batch is a transaction with ``w=majority, j=true``. Groups end at 1,000 documents; a batch that is larger,
as the members of a big room are, has a transaction of its own, up to what ``batches`` refuses. ``lazy`` is
``full`` here: a lazy batch shares its group's commit, and what was acknowledged is read back at once, because
only what most members have is read (``readConcern: majority``).

Only calls that PyMongo's asyncio client shares with Motor are used. Errors are ``StoreError`` with
neither password nor document in their text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pymongo import AsyncMongoClient, IndexModel, ReadPreference
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from hansa.store import mongo_takeover
from hansa.store.base import (
    Collection,
    Durability,
    Key,
    NewerSchema,
    NotDeclared,
    Put,
    Row,
    Schema,
    StoreError,
    Value,
    Write,
)
from hansa.store.batches import batch_of, heartbeat
from hansa.store.bounds import Whole
from hansa.store.credentials import Credentials
from hansa.store.faults import FaultKind, StoreFault, StoreLost, mongo_kind
from hansa.store.memory import split
from hansa.store.mongo_lease import SECONDS, MongoLease, await_if_needed, reason
from hansa.store.mongo_reads import MongoReads
from hansa.store.mongo_rows import MongoCollection, encode_key, rows_of
from hansa.store.mongo_transaction import ANSWER_TIMEOUT_S, DURABLE, MongoStep
from hansa.store.mongo_writer import CLOSING, MongoWriter

T = TypeVar("T")

#: Versions of what is declared, and in the body where a migration stands.
_SCHEMAS = rows_of("", "hansa", Collection(name="schema", key={"owner": str}, fields={"version": int}))
#: Rows of one transaction of a migration.
_STRIDE = 100
#: MongoDB 4.2, the first with pipelines in updates; 4.4, which can be told how many members an index needs.
_WIRE, _WIRE_QUORUM = 8, 9
#: How long the indexes of one collection may take, in ms.
_INDEXES_MS = 3_600_000


def _new_client(url: str) -> Any:
    patience: dict[str, Any] = (
        {} if "serverselectiontimeoutms" in url.lower() else {"serverSelectionTimeoutMS": 5_000}
    )
    return AsyncMongoClient(url, appname="hansa", **patience)


class MongoStore:
    """See ``hansa.store.base.Store``. ``connect`` makes the driver's client of a URL."""

    def __init__(self, url: str, *, connect: Callable[[str], Any] = _new_client) -> None:
        parts = urlsplit(url)
        self._url = url
        self._connect = connect
        self._credentials = Credentials(url)
        self._named = parts.path.strip("/")
        self._place = f"{self._named} at {parts.netloc.rpartition('@')[2]}"
        self._rows: dict[tuple[str, str], MongoCollection] = {}
        self._client: Any = None
        self._database: Any = None
        self._lease: MongoLease | None = None
        self._writer: MongoWriter | None = None
        self._reads: MongoReads | None = None
        self._wire = 0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"MongoStore({self._place})"

    @property
    def transactions(self) -> int:
        """How many were committed."""
        return self._writer.transactions if self._writer else 0

    def _to_store_error(self, error: Exception) -> StoreError:
        text = reason(error) if isinstance(error, PyMongoError) else type(error).__name__
        return StoreFault(mongo_kind(error), f"MongoDB {self._place}: {self._credentials.blank(text)}")

    async def open(self) -> None:
        """See ``Store.open``."""
        try:
            self._client = self._connect(self._url)
            self._database = self._of_client(self._client)
            await self._require_suitable_server()
            lease = MongoLease(self._database)
            self._writer = writer = MongoWriter(self._client, self._database, lease)
            writer.position = await lease.take(await writer.session())
            self._lease = lease
            self._reads = MongoReads(self._client, self.probe, self._require_open)
            await self._create_collections([_SCHEMAS])
        except (PyMongoError, ValueError) as error:
            await self._disconnect()
            raise self._to_store_error(error) from None
        except StoreError:
            await self._disconnect()
            raise
        self._keep_lease()

    def _of_client(self, client: Any) -> Any:
        return client.get_database(
            self._named,
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=DURABLE,
        )

    async def request_takeover(self) -> None:
        """See ``Shared.request_takeover``."""
        client = self._connect(self._url)
        try:
            await mongo_takeover.request_takeover(self._of_client(client))
        except PyMongoError as error:
            raise self._to_store_error(error) from None
        finally:
            await await_if_needed(client.close())

    async def takeover_requested_by(self) -> str:
        """See ``Shared.takeover_requested_by``."""
        return await self._read_answer(partial(mongo_takeover.takeover_requested_by, self._database))

    async def _require_suitable_server(self) -> None:
        hello = await self._database.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise StoreError(
                f"MongoDB {self._place} is not a replica set, so it has no transactions: start it with "
                f"--replSet and run rs.initiate(); one node is enough"
            )
        self._wire = hello.get("maxWireVersion", 0)
        if self._wire < _WIRE:
            raise StoreError(f"MongoDB {self._place} is too old: 4.2 is the least")

    def _keep_lease(self) -> None:
        """Keep the lease while nothing is written: an empty batch, after which the next beat is due."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SECONDS / 3, self._keep_lease)
        if self._writer is not None:
            self._writer.add(heartbeat(loop))

    async def close(self) -> None:
        """See ``Store.close``."""
        writer, self._writer = self._writer, None
        if self._timer is not None:
            self._timer.cancel()
        ended = writer is None or await writer.close()
        await self._disconnect(release=ended)
        if writer is not None and not ended:
            await writer.abandon()

    async def _disconnect(self, *, release: bool = True) -> None:
        lease, client, reads = self._lease, self._client, self._reads
        self._lease = self._client = self._writer = self._reads = None
        if lease is not None and release:
            with contextlib.suppress(PyMongoError, TimeoutError):  # it ends by itself
                async with asyncio.timeout(CLOSING):
                    await lease.release()
        if reads is not None:
            await reads.close()
        if client is not None:
            await await_if_needed(client.close())
            await asyncio.sleep(0)  # sockets are closed in the next turn of the loop

    async def declare(self, scope: str, schema: Schema) -> None:
        """See ``Store.declare``. A migration goes by strides of rows in the order of their keys, each one
        transaction with a mark of where it stands, so that one that was killed goes on where it stood. A
        row that a migration adds to the collection it walks is itself walked if it comes later.
        """
        every = [rows_of(scope, schema.owner, collection) for collection in schema.collections]
        name = f"{scope}/{schema.owner}"
        kept = await self._find_one(_SCHEMAS, (name,))
        version = int(kept.fields["version"] or 0) if kept else schema.version
        if version > schema.version:
            raise NewerSchema(scope, schema, version, str(self._place))
        try:
            await self._create_collections(every)
        except PyMongoError as error:
            raise self._to_store_error(error) from None
        for rows in every:
            self._rows[scope, rows.collection.name] = rows
        mark = kept.body if kept else b""
        while version < schema.version:
            await self._migrate_version(scope, schema, version, mark)
            version, mark = version + 1, b""
        if kept is None:
            await self._write_steps([MongoStep(_SCHEMAS, Put("schema", (name,), b"", {"version": version}))])

    async def _create_collections(self, every: Sequence[MongoCollection]) -> None:
        present = set(await self._database.list_collection_names())
        for rows in every:
            if rows.name not in present:
                await self._database.create_collection(rows.name)
            indexes = [IndexModel(index) for index in rows.indexes()]
            if indexes:  # not of all members: one that is down would be waited for without end
                quorum = {"commitQuorum": "majority"} if self._wire >= _WIRE_QUORUM else {}
                await self._database[rows.name].create_indexes(indexes, maxTimeMS=_INDEXES_MS, **quorum)
            if rows.name in present:
                for name in rows.surplus(await self._database[rows.name].index_information()):
                    await self._database[rows.name].drop_index(name)

    async def undeclared(self, scope: str, schema: Schema) -> list[str]:
        """See ``Indexed``."""
        every = [rows_of(scope, schema.owner, collection) for collection in schema.collections]

        async def found() -> list[str]:
            present = set(await self._database.list_collection_names())
            return [
                f"{rows.name}.{name}"
                for rows in every
                if rows.name in present
                for name in rows.surplus(await self._database[rows.name].index_information())
            ]

        return await self._read_answer(found)

    async def _migrate_version(self, scope: str, schema: Schema, version: int, mark: bytes) -> None:
        step = schema.migrations.get(version)
        if step is None:
            raise StoreError(f"{schema.owner} has no migration from version {version}")
        key = (f"{scope}/{schema.owner}",)
        names = [collection.name for collection in schema.collections]
        at, after = json.loads(mark) if mark else (names[0] if names else "", "")
        for name in names[names.index(at) :] if at in names else names:
            rows = self._collection_of(scope, name)
            while True:
                found = await self._find_documents(rows, {"_id": {"$gt": after}}, [("_id", 1)], _STRIDE)
                if not found:
                    break
                after = found[-1]["_id"]
                put = Put("schema", key, json.dumps([name, after]).encode(), {"version": version})
                writes = [w for document in found for w in step(name, rows.row(document))]
                await self._write_steps(
                    [*self._to_steps(scope, writes), MongoStep(_SCHEMAS, put)], whole=True
                )
            after = ""
        await self._write_steps([MongoStep(_SCHEMAS, Put("schema", key, b"", {"version": version + 1}))])

    def _collection_of(self, scope: str, name: str) -> MongoCollection:
        rows = self._rows.get((scope, name))
        if rows is None:
            raise NotDeclared(scope, name)
        return rows

    def _to_steps(self, scope: str, writes: Sequence[Write]) -> list[MongoStep]:
        return [MongoStep(self._collection_of(*split(scope, write.collection)), write) for write in writes]

    async def commit(
        self, scope: str, writes: Sequence[Write], *, durability: Durability = "full"
    ) -> list[int]:
        """See ``Store.commit``."""
        del durability
        if self._writer is None:
            raise StoreError("the store is closed")
        if not writes:
            return []
        return await self._write_steps(self._to_steps(scope, writes), whole=isinstance(writes, Whole))

    async def _write_steps(self, steps: Sequence[MongoStep], *, whole: bool = False) -> list[int]:
        self._require_open()
        assert self._writer is not None
        batch = batch_of(steps, asyncio.get_running_loop().create_future(), whole=whole)
        self._writer.add(batch)
        return await batch.done

    async def _find_documents(
        self, rows: MongoCollection, where: Mapping[str, Any], order: list[tuple[str, int]] | None, limit: int
    ) -> list[dict[str, Any]]:
        async def found() -> list[dict[str, Any]]:
            cursor = self._database[rows.name].find(where, sort=order, limit=limit, batch_size=limit)
            documents: list[dict[str, Any]] = await cursor.to_list(limit)
            return documents

        return await self._read_answer(found)

    async def _read_answer(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer to a read. Raises StoreError."""
        self._require_open()
        assert self._reads is not None
        try:
            return await self._reads.ask(call)
        except TimeoutError:
            text = f"MongoDB {self._place} has not answered for {ANSWER_TIMEOUT_S:.0f} s"
            raise StoreFault(FaultKind.AWAY, text) from None
        except PyMongoError as error:
            raise self._to_store_error(error) from None

    def _require_open(self) -> None:
        if self._writer is None:
            raise StoreError("the store is closed")
        if self._writer.lost.is_set():
            raise StoreLost

    async def _find_one(self, rows: MongoCollection, key: Key) -> Row | None:
        found = await self._find_documents(rows, {"_id": encode_key(key)}, None, 1)
        return rows.row(found[0]) if found else None

    async def get(self, scope: str, collection: str, key: Key) -> Row | None:
        """See ``Store.get``."""
        return await self._find_one(self._collection_of(scope, collection), key)

    async def get_many(self, scope: str, collection: str, keys: Sequence[Key]) -> dict[Key, Row]:
        """See ``Store.get_many``."""
        rows, found = self._collection_of(scope, collection), dict[Key, Row]()
        for at in range(0, len(keys), 1000):
            wanted = list({encode_key(key) for key in keys[at : at + 1000]})
            for document in await self._find_documents(rows, {"_id": {"$in": wanted}}, None, len(wanted)):
                row = rows.row(document)
                found[row.key] = row
        return found

    async def scan(
        self,
        scope: str,
        collection: str,
        *,
        index: tuple[str, ...] = (),
        equal: Sequence[Value] = (),
        after: Value = None,
        upto: Value = None,
        limit: int = 1000,
        reverse: bool = False,
    ) -> list[Row]:
        """See ``Store.scan``."""
        rows = self._collection_of(scope, collection)
        search = rows.search(index, equal, after, upto, reverse=reverse)
        if search.nothing or limit <= 0:
            return []
        found = await self._find_documents(rows, search.where, search.order, min(int(limit), 10_000))
        return [rows.row(document) for document in found]

    async def count(self, scope: str, collection: str, *, equal: Mapping[str, Value] | None = None) -> int:
        """See ``Store.count``."""
        rows = self._collection_of(scope, collection)
        where = rows.counted(equal or {})

        async def counted() -> int:
            return int(await self._database[rows.name].count_documents(where))

        return await self._read_answer(counted)

    async def position(self) -> int:
        """See ``Store.position``."""
        if self._writer is None:
            raise StoreError("the store is closed")
        return self._writer.position

    async def lost(self) -> StoreError:
        """See ``Store.lost``."""
        if self._writer is None:
            raise StoreError("the store is closed")
        await self._writer.lost.wait()
        return StoreLost()

    async def advance(self, position: int) -> None:
        """See ``Store.advance``."""
        if self._writer is None or self._lease is None:
            raise StoreError("the store is closed")
        try:
            await self._lease.advance(position)
        except PyMongoError as error:
            raise self._to_store_error(error) from None
        self._writer.position = max(self._writer.position, position)

    async def probe(self) -> None:
        """See ``Store.probe``: a transaction that extends the lease."""
        await self._write_steps(())
