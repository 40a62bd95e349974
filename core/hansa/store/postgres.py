"""PostgreSQL 14 and later: one process per database, one transaction per group of batches.

Tables are made in the first schema of the role's ``search_path``. A commit is durable as the server's
``synchronous_commit`` says, which is never off but for lazy batches; on several servers it is on the standbys
that ``synchronous_standby_names`` asks for. Reads see what was committed, on the server that is written to.

Errors are ``StoreError`` with neither password nor row in their text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

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
from hansa.store.memory import split
from hansa.store.postgres_batches import PostgresStep
from hansa.store.postgres_lease import MAKE, SECONDS, NoLease
from hansa.store.postgres_rights import ALLOWED, MISSING, lacking, refused
from hansa.store.postgres_session import ERRORS, PostgresReaders, PostgresServer, is_cut, sqlstate
from hansa.store.postgres_tables import PostgresTable, table, value
from hansa.store.postgres_takeover import REQUESTED_BY, request_takeover
from hansa.store.postgres_writer import PostgresWriter

#: Sessions that read.
_READERS = 4
#: How long a read is asked again, and how long one may take, in seconds.
_READ_PATIENCE, _ANSWER_TIMEOUT_S = 60.0, 30.0
#: The errors if another process made the same at the same moment: unique_violation (of a catalogue of the
#: server), duplicate_table, duplicate_object; and how often it is tried.
_MADE_MEANWHILE, _TRIES = frozenset({"23505", "42P07", "42710"}), 5
#: Rows of one transaction of a migration.
_STRIDE = 100
#: Characters of a scope: with the longest key it fits an entry of an index.
_SCOPE = 100

#: Versions of what is declared, and in the body where a migration stands.
_SCHEMAS = Collection(name="schema", key={"owner": str}, fields={"version": int})
_COLUMNS = """
SELECT c.relname, array_agg(a.attname::text) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0
  AND NOT a.attisdropped GROUP BY c.relname
"""
#: Not those of keys: what is unique is a constraint.
_INDEXES = """
SELECT i.relname::text, t.relname::text FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_class t ON t.oid = x.indrelid
WHERE i.relnamespace = current_schema()::regnamespace AND NOT x.indisunique
"""


class PostgresStore:
    """See ``hansa.store.base.Store``."""

    def __init__(self, url: str) -> None:
        self._place = PostgresServer(url)
        self._tables: list[PostgresTable] = []
        self._of_scope: dict[tuple[str, str], PostgresTable] = {}
        self._targets: dict[tuple[str, str], tuple[str, PostgresTable]] = {}
        self._readers: PostgresReaders | None = None
        self._writer: PostgresWriter | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reading: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"PostgresStore({self._place})"

    @property
    def transactions(self) -> int:
        """How many were committed."""
        return self._writer.transactions if self._writer else 0

    async def open(self) -> None:
        """See ``Store.open``."""
        readers = PostgresReaders(self._place, _READERS, _ANSWER_TIMEOUT_S)
        writer = PostgresWriter(self._place, self._tables, readers.moved)
        schemas = self._add_table("hansa", _SCHEMAS)
        try:
            await self._make_first(schemas)
            await writer.open()
        except ERRORS as error:
            raise self._place.fault(error) from None
        self._of_scope["", "schema"] = schemas
        self._readers, self._writer = readers, writer
        self._keep_lease()

    async def request_takeover(self) -> None:
        """See ``Shared.request_takeover``."""
        try:
            session = await self._place.connect()
            try:
                await request_takeover(session.connection)
            finally:
                session.connection.terminate()
        except ERRORS as error:
            raise self._place.fault(error) from None

    async def takeover_requested_by(self) -> str:
        """See ``Shared.takeover_requested_by``."""
        found = await self._fetch_values(REQUESTED_BY)
        return str(found[0][0]) if found else ""

    def _add_table(self, owner: str, collection: Collection) -> PostgresTable:
        """The table of a collection, which scopes share. One that has fields or indexes more replaces what
        was known of it.
        """
        made = table(owner, collection, len(self._tables))
        for known in self._tables:
            if known.name == made.name and known.collection == collection:
                return known
        self._tables.append(made)
        return made

    async def _make_first(self, schemas: PostgresTable) -> None:
        """Create what every database has. Two processes that meet an empty one may both try. Raises what
        ``ERRORS`` names, StoreError.
        """
        for attempt in range(_TRIES):
            try:
                await self._create_missing([schemas], MAKE)
            except ERRORS as error:
                if sqlstate(error) not in _MADE_MEANWHILE or attempt == _TRIES - 1:
                    raise
                await asyncio.sleep(0.1)
            else:
                return

    async def _create_missing(self, tables: Sequence[PostgresTable], first: str = "") -> None:
        """Create what is missing. Raises what ``ERRORS`` names."""
        session = await self._place.connect()
        connection = session.connection
        try:
            if first:
                # In this order: the lease is made before this table, so it was there if this table is.
                begun = await connection.fetchval("SELECT to_regclass($1)", tables[0].name)
                made = await connection.fetchval("SELECT to_regclass('hansa_lease')")
                await self._require_rights(connection, ["hansa_lease"], [] if made else [first])
                if begun and not made:
                    raise NoLease
                if not made:
                    await connection.execute(first)
            present = {name: set(columns) for name, columns in await connection.fetch(_COLUMNS)}
            indexes = dict(await connection.fetch(_INDEXES))
            changes = [sql for one in tables for sql in one.missing(present, indexes)]
            changes += [f'DROP INDEX IF EXISTS "{name}"' for one in tables for name in one.surplus(indexes)]
            await self._require_rights(
                connection, [one.name for one in tables if one.name in present], changes
            )
            if changes:
                await connection.execute(";".join(changes))
        finally:
            connection.terminate()

    async def _require_rights(self, connection: Any, tables: Sequence[str], changes: Sequence[str]) -> None:
        """Raises StoreFault naming the right that the role lacks for these tables and changes."""
        place = str(self._place)
        fault = refused(place, await connection.fetchrow(ALLOWED), making=bool(changes))
        if fault is not None:
            raise fault
        lacks = await connection.fetch(MISSING, list(tables))
        if lacks:
            raise lacking(place, lacks)

    async def undeclared(self, scope: str, schema: Schema) -> list[str]:
        """See ``Indexed``."""
        del scope  # scopes share tables
        try:
            session = await self._place.connect()
            try:
                found = dict(await session.connection.fetch(_INDEXES))
            finally:
                session.connection.terminate()
        except ERRORS as error:
            raise self._place.fault(error) from None
        tables = [table(schema.owner, collection, 0) for collection in schema.collections]
        return [name for one in tables for name in one.surplus(found)]

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
        if writer is not None:
            await writer.close()
        if self._readers is not None:
            self._readers.close()
            self._readers = None
        if self._reading:
            await asyncio.wait(self._reading, timeout=1.0)

    async def declare(self, scope: str, schema: Schema) -> None:
        """See ``Store.declare``. A migration goes by strides of rows in the order of their keys, each one
        transaction with a mark of where it stands, so that one that was killed goes on where it stood. A
        row that a migration adds to the collection it walks is itself walked if it comes later.
        """
        if len(scope) > _SCOPE:
            raise StoreError(f"{scope[:_SCOPE]!r}... is not a name for a scope: at most {_SCOPE} characters")
        tables = [self._add_table(schema.owner, collection) for collection in schema.collections]
        name = f"{scope}/{schema.owner}"
        kept = await self.get("", "schema", (name,))
        version = int(kept.fields["version"] or 0) if kept else schema.version
        if version > schema.version:
            raise NewerSchema(scope, schema, version, str(self._place))
        try:
            await self._create_missing(tables)
        except ERRORS as error:
            raise self._place.fault(error) from None
        for one in tables:
            self._of_scope[scope, one.collection.name] = one
        self._targets.clear()
        mark = kept.body if kept else b""
        while version < schema.version:
            await self._migrate_version(scope, schema, version, mark)
            version, mark = version + 1, b""
        if kept is None:
            await self._version_steps(name, version, b"", [])

    async def _version_steps(
        self, name: str, version: int, mark: bytes, steps: Sequence[PostgresStep]
    ) -> None:
        put = Put("schema", (name,), mark, {"version": version})
        await self._write_steps([*steps, PostgresStep(self._table_of("", "schema"), "", put)], whole=True)

    async def _migrate_version(self, scope: str, schema: Schema, version: int, mark: bytes) -> None:
        step = schema.migrations.get(version)
        if step is None:
            raise StoreError(f"{schema.owner} has no migration from version {version}")
        owner = f"{scope}/{schema.owner}"
        names = [collection.name for collection in schema.collections]
        at, _, after = mark.partition(b"\0")
        for name in names[names.index(at.decode()) :] if at.decode() in names else names:
            one = self._table_of(scope, name)
            while True:
                given = one.marked(after) if after else []
                found = await self._fetch_rows(one, one.following(first=not after), scope, _STRIDE, *given)
                if not found:
                    break
                after = one.mark(found[-1].key)
                steps = self._to_steps(scope, [write for row in found for write in step(name, row)])
                await self._version_steps(owner, version, name.encode() + b"\0" + after, steps)
            after = b""
        await self._version_steps(owner, version + 1, b"", [])

    def _table_of(self, scope: str, name: str) -> PostgresTable:
        found = self._of_scope.get((scope, name))
        if found is None:
            raise NotDeclared(scope, name)
        return found

    def _to_steps(self, scope: str, writes: Sequence[Write]) -> list[PostgresStep]:
        steps = []
        for write in writes:
            target = self._targets.get((scope, write.collection))
            if target is None:
                owner, name = split(scope, write.collection)
                target = self._targets[scope, write.collection] = owner, self._table_of(owner, name)
            steps.append(PostgresStep(target[1], target[0], write))
        return steps

    async def commit(
        self, scope: str, writes: Sequence[Write], *, durability: Durability = "full"
    ) -> list[int]:
        """See ``Store.commit``."""
        if self._writer is None:
            raise StoreError("the store is closed")
        if not writes:
            return []
        return await self._write_steps(
            self._to_steps(scope, writes), durability, whole=isinstance(writes, Whole)
        )

    async def _write_steps(
        self, steps: Sequence[PostgresStep], durability: Durability = "full", *, whole: bool = False
    ) -> list[int]:
        writer = self._writer
        if writer is None:
            raise StoreError("the store is closed")
        if writer.fault is not None:
            raise writer.fault
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        writer.add(batch_of(steps, done, lazy=durability == "lazy", whole=whole))
        return await done

    async def _fetch_values(self, sql: str, *values: Value | list[Value]) -> list[Sequence[object]]:
        """Runs a statement that reads, again while the database is away. It goes on although its caller has
        gone: ending it would cost a session.
        """
        if self._readers is None:
            raise StoreError("the store is closed")
        task = asyncio.get_running_loop().create_task(self._fetch_with_retry(sql, values))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        return await asyncio.shield(task)

    async def _fetch_with_retry(self, sql: str, values: Sequence[object]) -> list[Sequence[object]]:
        now = asyncio.get_running_loop().time
        start, wait = now(), 0.02
        while True:
            writer, readers = self._writer, self._readers
            if writer is None or readers is None:
                raise StoreError("the store is closed")
            if writer.fault is not None:
                raise writer.fault
            try:
                async with readers.session() as connection:
                    found: list[Sequence[object]] = await connection.fetch(sql, *values)
                    return found
            except ERRORS as error:
                if self._writer is None:
                    raise StoreError("the store is closed") from None
                if not is_cut(error) or now() - start > _READ_PATIENCE:
                    raise self._place.fault(error) from None
            await asyncio.sleep(wait)
            wait = min(2 * wait, 1.0)

    async def _fetch_rows(self, one: PostgresTable, sql: str, *values: Value | list[Value]) -> list[Row]:
        return [one.row(got) for got in await self._fetch_values(sql, *values)]

    async def get(self, scope: str, collection: str, key: Key) -> Row | None:
        """See ``Store.get``."""
        one = self._table_of(scope, collection)
        found = await self._fetch_rows(one, one.one(), scope, *map(value, key))
        return found[0] if found else None

    async def get_many(self, scope: str, collection: str, keys: Sequence[Key]) -> dict[Key, Row]:
        """See ``Store.get_many``."""
        one, found = self._table_of(scope, collection), dict[Key, Row]()
        for at in range(0, len(keys), 1000):
            wanted = list({tuple(key) for key in keys[at : at + 1000]})
            parts = [[value(key[n]) for key in wanted] for n in range(len(one.keys))]
            for row in await self._fetch_rows(one, one.some(), scope, *parts):
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
        one = self._table_of(scope, collection)
        if limit <= 0:
            return []
        sql, given = one.search(index, equal, after, upto, reverse=reverse)
        return await self._fetch_rows(one, sql, scope, min(int(limit), 10_000), *given)

    async def count(self, scope: str, collection: str, *, equal: Mapping[str, Value] | None = None) -> int:
        """See ``Store.count``."""
        sql, given = self._table_of(scope, collection).counted(equal or {})
        return int(str((await self._fetch_values(sql, scope, *given))[0][0]))

    async def position(self) -> int:
        """See ``Store.position``."""
        if self._writer is None:
            raise StoreError("the store is closed")
        return self._writer.position

    async def lost(self) -> StoreError:
        """See ``Store.lost``."""
        writer = self._writer
        if writer is None:
            raise StoreError("the store is closed")
        await writer.lost.wait()
        assert writer.fault is not None
        return writer.fault

    async def advance(self, position: int) -> None:
        """See ``Store.advance``."""
        if self._writer is None:
            raise StoreError("the store is closed")
        try:
            await self._writer.advance(position)
        except ERRORS as error:
            raise self._place.fault(error) from None

    async def probe(self) -> None:
        """See ``Store.probe``: a transaction that extends the lease."""
        await self._write_steps(())
