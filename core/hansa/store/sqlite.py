"""SQLite: one file, one process, one writer that gathers what waits into one transaction.

Every collection is a real table with its key, its declared fields and a body. Batches that wait while the
writer works become one transaction, each in a savepoint, so that one's Conflict leaves the others alone.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import quote

from hansa.store.base import (
    Append,
    CompareAndSwap,
    Conflict,
    Delete,
    Durability,
    HeldElsewhere,
    Insert,
    Key,
    NewerSchema,
    NotDeclared,
    Remove,
    Row,
    Schema,
    StoreError,
    Value,
    Write,
)
from hansa.store.bounds import Whole, bounded
from hansa.store.faults import FaultKind, ResultUnknown, StoreFault, faulting, sqlite_fault
from hansa.store.memory import checked, split
from hansa.store.sqlite_files import SqliteFiles
from hansa.store.sqlite_tables import SqliteTable, make, reads, surplus, table
from hansa.store.sqlite_unknown_result import InDoubt, UnknownResults, leaves_doubt

T = TypeVar("T")
_GROUP = 64
#: Bytes of a page. A commit writes every page that it touches, one in each of some fifteen trees: with pages
#: of half the usual size one event's commit takes 140 us of CPU in place of 226, and fifty events' as much.
_PAGE_SIZE = 2048
#: Pages in the log before they are copied to the tables: a page that many commits touch goes once.
_CHECKPOINT = 8000
#: Bytes of the log's file that stay after it was copied.
_LOG_KEPT = 64 * 1024 * 1024
#: Transactions after which the log is looked at too, which a probe does where less is written.
_LOOKED_EVERY = 200
#: Bytes that a probe writes where the disk was full: that one page has room says little.
_ROOM = 256 * 1024
#: Milliseconds that a write waits for a lock which the write before it has waited for in vain: what is queued
#: behind it is answered soon.
_BUSY_STILL = 250


@dataclass(slots=True, eq=False)
class _Batch:
    scope: str
    writes: Sequence[Write]
    done: asyncio.Future[list[int]]
    error: BaseException | None = None
    positions: list[int] = field(default_factory=list)


class SqliteStore:
    """See ``hansa.store.base.Store``. ``transactions`` counts the writer's, for tests and metrics."""

    def __init__(self, path: str | Path, *, synchronous: str = "FULL", busy: float = 10.0) -> None:
        """``busy``: seconds that a write waits for another process's lock."""
        self._path = Path(path)
        self._busy = self._waits = round(busy * 1000)
        self._files: SqliteFiles | None = None
        self._synchronous = synchronous
        self._tables: dict[tuple[str, str], SqliteTable] = {}
        self._named: dict[tuple[str, str], tuple[str, SqliteTable]] = {}
        self._writer = ThreadPoolExecutor(1, "hansa-writer")
        self._readers = ThreadPoolExecutor(2, "hansa-reader")
        self._lock: IO[bytes] | None = None
        self._db: sqlite3.Connection | None = None
        self._position = self._committed = 0
        self._waiting: deque[_Batch] = deque()
        self._writing = False
        #: True while the disk is full.
        self._full = False
        #: The check whether a group in doubt was kept. Nothing is begun meanwhile.
        self._settling: UnknownResults | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self.transactions = 0
        self._local = _Connections(self._connect)

    async def open(self) -> None:
        """See ``Store.open``."""
        await self._run_in_writer(self._open_file)

    def _open_file(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(f"{self._path}.lock", os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        lock = os.fdopen(handle, "a+b")  # held until close
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read(32).decode(errors="replace").strip()
            lock.close()
            raise HeldElsewhere(
                f"{self._path} is in use by process {owner or '?'}: stop it, or give this one another store"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
        self._lock = lock
        try:
            self._begin_writing()
        except BaseException:
            if self._db is not None:
                self._db.close()
            self._db = None
            lock.close()
            raise

    def _begin_writing(self) -> None:
        fresh = not self._path.exists()
        if fresh:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        self._db = self._connect()
        self._db.execute(f"PRAGMA page_size = {_PAGE_SIZE}")  # of a new database; others keep theirs
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {self._synchronous}")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
        self._db.execute(f"PRAGMA journal_size_limit = {_LOG_KEPT}")
        self._db.execute("CREATE TABLE IF NOT EXISTS hansa_meta (name TEXT PRIMARY KEY, value INTEGER)")
        row = self._db.execute("SELECT value FROM hansa_meta WHERE name = 'position'").fetchone()
        self._position = self._committed = row[0] if row else 0
        self._write_nothing()  # the log is there from the first write
        self._files = SqliteFiles(self._path)

    async def undeclared(self, scope: str, schema: Schema) -> list[str]:
        """See ``Indexed``."""
        del scope  # scopes share tables
        tables = [table(schema.owner, collection) for collection in schema.collections]
        return await self._run_in_writer(lambda: surplus(self._writer_connection(), tables))

    def _fault_kind(self) -> FaultKind:
        return self._files.why() if self._files is not None else FaultKind.FAILING

    def _connect(self) -> sqlite3.Connection:
        """Raises sqlite3.Error where the file is not there: in place of one that is away none is made."""
        where = f"file:{quote(str(self._path.absolute()))}?mode=rw"
        db = sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False)
        db.execute(f"PRAGMA busy_timeout = {self._busy}")
        db.execute("PRAGMA cache_size = -16384")
        return db

    async def close(self) -> None:
        """See ``Store.close``."""
        if self._settling is not None:
            self._settling.give_up(ResultUnknown(f"the store was closed meanwhile: {self._settling.fault}"))
        await self._idle.wait()
        if self._db is None:
            return
        await self._run_in_writer(self._close_file)
        self._writer.shutdown()
        self._readers.shutdown()
        self._local.close()

    def _close_file(self) -> None:
        assert self._db is not None
        assert self._lock is not None
        self._db.close()
        self._db = None
        self._lock.close()

    def _writer_connection(self) -> sqlite3.Connection:
        assert self._db is not None
        return self._db

    async def _run_in_writer(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._writer, faulting(work, self._fault_kind)
        )

    async def declare(self, scope: str, schema: Schema) -> None:
        """See ``Store.declare``."""
        name = f"schema {scope}/{schema.owner}"
        version = await self._run_in_writer(lambda: self._read_meta(name))
        if version is None:
            version = schema.version
        if version > schema.version:
            raise NewerSchema(scope, schema, version, str(self._path))
        tables = [table(schema.owner, collection) for collection in schema.collections]
        await self._run_in_writer(lambda: make(self._writer_connection(), tables))
        for one in tables:
            self._tables[scope, one.collection.name] = one
        self._named.clear()
        while version < schema.version:
            await self._run_in_writer(partial(self._migrate_version, scope, schema, version))
            version += 1
        await self._run_in_writer(lambda: self._set_meta(name, schema.version))

    def _migrate_version(self, scope: str, schema: Schema, version: int) -> None:
        """One version forward, with the note that it was done, in one transaction. In the writer's thread."""
        assert self._db is not None
        migrate = schema.migrations.get(version)
        if migrate is None:
            raise StoreError(f"there is no migration from version {version} of {schema.owner}")
        writes: list[Write] = []
        for collection in schema.collections:
            table = self._tables[scope, collection.name]
            sql = f'SELECT {table.columns} FROM "{table.name}" WHERE scope = ?'
            for got in self._fetch_all(sql, (scope,)):
                writes += migrate(collection.name, table.row(got))
        before, positions = self._position, list[int]()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for write in writes:
                checked(self._target_of(scope, write.collection)[1].collection, write)
                self._apply_write(scope, positions, write)
            self._set_meta("position", self._position)
            self._set_meta(f"schema {scope}/{schema.owner}", version + 1)
            self._db.execute("COMMIT")
        except BaseException:
            self._position = before
            self._db.execute("ROLLBACK")
            raise
        self._committed = self._position

    def _fetch_all(self, sql: str, values: Sequence[object]) -> list[tuple[object, ...]]:
        assert self._db is not None
        return self._db.execute(sql, values).fetchall()

    def _read_meta(self, name: str) -> int | None:
        rows = self._fetch_all("SELECT value FROM hansa_meta WHERE name = ?", (name,))
        return int(str(rows[0][0])) if rows else None

    def _set_meta(self, name: str, value: int) -> None:
        assert self._db is not None
        self._db.execute("INSERT OR REPLACE INTO hansa_meta VALUES (?, ?)", (name, value))

    def _table_of(self, scope: str, name: str) -> SqliteTable:
        table = self._tables.get((scope, name))
        if table is None:
            raise NotDeclared(scope, name)
        return table

    def _target_of(self, scope: str, collection: str) -> tuple[str, SqliteTable]:
        """The scope and the table that a write names."""
        found = self._named.get((scope, collection))
        if found is None:
            owner, name = split(scope, collection)
            found = self._named[scope, collection] = owner, self._table_of(owner, name)
        return found

    async def commit(
        self, scope: str, writes: Sequence[Write], *, durability: Durability = "full"
    ) -> list[int]:
        """See ``Store.commit``. A lazy batch waits for the next group too: nothing is gained by less."""
        del durability
        if self._db is None:
            raise StoreError("the store is closed")
        size = 0
        for write in writes:
            size += checked(self._target_of(scope, write.collection)[1].collection, write)
        bounded(len(writes), size, whole=isinstance(writes, Whole))
        if self._settling is not None:
            raise self._doubt_error(self._settling.fault)
        loop = asyncio.get_running_loop()
        batch = _Batch(scope, writes, loop.create_future())
        self._waiting.append(batch)
        if not self._writing:
            self._writing = True
            self._idle.clear()
            self._next_group(loop)
        return await batch.done

    def _next_group(self, loop: asyncio.AbstractEventLoop) -> None:
        group = [self._waiting.popleft() for _ in range(min(_GROUP, len(self._waiting)))]
        work = self._writer.submit(faulting(self._write_group, self._fault_kind), group)
        work.add_done_callback(lambda done: loop.call_soon_threadsafe(self._on_group_done, loop, group, done))

    def _on_group_done(
        self, loop: asyncio.AbstractEventLoop, group: Sequence[_Batch], done: Future[None]
    ) -> None:
        failed = done.exception()
        if isinstance(failed, InDoubt):
            for batch in self._waiting:
                if not batch.done.done():
                    batch.done.set_exception(self._doubt_error(failed.fault))
            self._waiting.clear()
            ask = faulting(partial(self._ask_if_kept, kept=failed.kept), self._fault_kind)
            self._settling = UnknownResults(
                failed, partial(self._writer.submit, ask), partial(self._on_group_settled, loop, group)
            )
            return
        self._on_group_settled(loop, group, failed)

    @staticmethod
    def _doubt_error(fault: StoreFault) -> StoreFault:
        """Returns the error for writes that wait while a group is in doubt."""
        return StoreFault(fault.kind, f"the writes before this one wait: {fault}")

    def _on_group_settled(
        self, loop: asyncio.AbstractEventLoop, group: Sequence[_Batch], failed: BaseException | None
    ) -> None:
        self._settling = None
        for batch in group:
            error = failed or batch.error
            if batch.done.done():
                continue
            if error is not None:
                batch.done.set_exception(error)
            else:
                batch.done.set_result(batch.positions)
        if self._waiting:
            self._next_group(loop)
        else:
            self._writing = False
            self._idle.set()

    def _write_group(self, group: Sequence[_Batch]) -> None:
        assert self._db is not None
        start, several, committing = self._position, len(group) > 1, False
        assert self._files is not None
        if self._files.lost:
            self._files.same()
        self._begin_transaction()
        try:
            for batch in group:
                before = self._position
                if several:
                    self._db.execute("SAVEPOINT batch")
                try:
                    for write in batch.writes:
                        self._apply_write(batch.scope, batch.positions, write)
                except (StoreError, sqlite3.Error) as error:
                    if not self._db.in_transaction:  # a disk that is full may have ended all of it
                        raise
                    self._db.execute("ROLLBACK TO batch" if several else "ROLLBACK")
                    self._position = before
                    batch.positions.clear()
                    batch.error = (
                        error if isinstance(error, StoreError) else sqlite_fault(error, self._fault_kind)
                    )
                if several:
                    self._db.execute("RELEASE batch")
            if self._position != start:
                self._set_meta("position", self._position)
            committing = True
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        except BaseException as error:
            self._position = start
            self._full |= getattr(error, "sqlite_errorcode", 0) & 0xFF in {10, 13}
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if committing and isinstance(error, sqlite3.Error) and leaves_doubt(error):
                raise InDoubt(sqlite_fault(error, self._fault_kind), kept=False) from error
            raise
        self._committed = self._position
        self.transactions += 1
        try:  # nothing is acknowledged that goes to a file which is away
            self._files.kept() if self.transactions % _LOOKED_EVERY else self._files.same()
        except StoreFault as away:
            raise InDoubt(away, kept=True) from away

    def _ask_if_kept(self, *, kept: bool) -> None:
        """Raises while it is not known what became of a group that is in doubt."""
        assert self._files is not None
        self._files.same()
        if not kept:
            self._committed_alone(self._write_nothing)

    def _committed_alone(self, work: Callable[[], object]) -> None:
        self._begin_transaction()
        db = self._writer_connection()
        try:
            work()
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _begin_transaction(self) -> None:
        """Take the lock."""
        assert self._db is not None
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            self._set_busy_timeout(_BUSY_STILL)
            raise
        self._set_busy_timeout(self._busy)

    def _set_busy_timeout(self, busy: int) -> None:
        if busy != self._waits:
            assert self._db is not None
            self._db.execute(f"PRAGMA busy_timeout = {busy}")
            self._waits = busy

    def _apply_write(self, owner: str, positions: list[int], write: Write) -> None:
        assert self._db is not None
        scope, table = self._target_of(owner, write.collection)
        name = table.collection.name
        if isinstance(write, Append):
            self._position += 1
            positions.append(self._position)
            self._db.execute(table.insert, table.values(scope, (self._position,), write.fields, write.body))
        elif isinstance(write, Delete):
            self._db.execute(f'DELETE FROM "{table.name}" WHERE {table.where}', (scope, *write.key))
        elif isinstance(write, Remove):
            found = self._db.execute(table.remove, (scope, *write.key, write.expect))
            if not found.rowcount:
                raise Conflict(name, write.key)
        elif isinstance(write, Insert) or (isinstance(write, CompareAndSwap) and write.expect is None):
            try:
                self._db.execute(table.insert, table.values(scope, write.key, write.fields, write.body))
            except sqlite3.IntegrityError:
                raise Conflict(name, write.key) from None
        elif isinstance(write, CompareAndSwap):
            values = table.values(scope, write.key, write.fields, write.body)[1 + len(table.keys) :]
            found = self._db.execute(table.update, (*values, scope, *write.key, write.expect))
            if not found.rowcount:
                raise Conflict(name, write.key)
        else:
            self._db.execute(table.upsert, table.values(scope, write.key, write.fields, write.body))

    async def _run_in_reader(self, sql: str, values: Sequence[object]) -> list[tuple[object, ...]]:
        def work() -> list[tuple[object, ...]]:
            return self._local.mine().execute(sql, values).fetchall()

        return await asyncio.get_running_loop().run_in_executor(
            self._readers, faulting(work, self._fault_kind)
        )

    async def get(self, scope: str, collection: str, key: Key) -> Row | None:
        """See ``Store.get``."""
        return (await self.get_many(scope, collection, [key])).get(tuple(key))

    async def get_many(self, scope: str, collection: str, keys: Sequence[Key]) -> dict[Key, Row]:
        """See ``Store.get_many``."""
        table = self._table_of(scope, collection)
        statements = list(reads(table, scope, keys))
        if not statements:
            return {}

        def work() -> list[tuple[object, ...]]:
            db = self._local.mine()
            return [got for sql, values in statements for got in db.execute(sql, values).fetchall()]

        rows = await asyncio.get_running_loop().run_in_executor(
            self._readers, faulting(work, self._fault_kind)
        )
        return {row.key: row for row in map(table.row, rows)}

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
        table = self._table_of(scope, collection)
        order = index or table.keys
        parts, values = ["scope = ?"], [scope, *equal]
        parts += [f'"{name}" IS ?' for name, _ in zip(order, equal, strict=False)]
        if len(equal) < len(order):
            ranged = f'"{order[len(equal)]}"'
            for bound, sign in ((after, "<" if reverse else ">"), (upto, ">=" if reverse else "<=")):
                if bound is not None:
                    parts.append(f"{ranged} {sign} ?")
                    values.append(bound)
        way = "DESC" if reverse else "ASC"
        columns = dict.fromkeys((*order, *table.keys))
        sorting = ", ".join(f'"{name}" {way}' for name in columns)
        sql = (
            f'SELECT {table.columns} FROM "{table.name}" WHERE {" AND ".join(parts)} '
            f"ORDER BY {sorting} LIMIT {min(int(limit), 10_000)}"
        )
        return [table.row(got) for got in await self._run_in_reader(sql, values)]

    async def count(self, scope: str, collection: str, *, equal: Mapping[str, Value] | None = None) -> int:
        """See ``Store.count``."""
        table, wanted = self._table_of(scope, collection), equal or {}
        parts = ["scope = ?", *(f'"{name}" IS ?' for name in wanted)]
        sql = f'SELECT COUNT(*) FROM "{table.name}" WHERE {" AND ".join(parts)}'
        return int(str((await self._run_in_reader(sql, (scope, *wanted.values())))[0][0]))

    async def position(self) -> int:
        """See ``Store.position``."""
        return self._committed

    async def lost(self) -> StoreError:
        """See ``Store.lost``: the lock of the file is held until it is closed."""
        never: asyncio.Future[StoreError] = asyncio.get_running_loop().create_future()
        return await never

    async def advance(self, position: int) -> None:
        """See ``Store.advance``."""
        await self._run_in_writer(partial(self._advance_position, position))

    def _advance_position(self, position: int) -> None:
        if position > self._position:
            self._set_meta("position", position)
            self._position = self._committed = position

    async def probe(self) -> None:
        """See ``Store.probe``. A file that was moved or replaced counts as away: writes to it are lost."""
        await self._run_in_writer(self._run_probe)

    def _run_probe(self) -> None:
        if self._db is None:
            raise StoreError("the store is closed")
        assert self._files is not None
        self._files.same()
        db = self._writer_connection()
        if not self._full:
            self._committed_alone(self._write_nothing)
            return
        room = "INSERT OR REPLACE INTO hansa_meta VALUES ('room', zeroblob(?))"
        self._committed_alone(lambda: db.execute(room, (_ROOM,)))
        db.execute("DELETE FROM hansa_meta WHERE name = 'room'")
        self._full = False

    def _write_nothing(self) -> None:
        """Write what says nothing."""
        self._set_meta("probe", self._read_meta("probe") != 1)


class _Connections:
    """One connection per reader thread, opened when it reads for the first time."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._by_thread: dict[int, sqlite3.Connection] = {}

    def mine(self) -> sqlite3.Connection:
        known = self._by_thread.get(threading.get_ident())
        if known is None:
            known = self._by_thread[threading.get_ident()] = self._connect()
        return known

    def close(self) -> None:
        for connection in self._by_thread.values():
            connection.close()
