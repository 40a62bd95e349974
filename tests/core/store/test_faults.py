"""A database that fails is named by its kind, on real files; a fault is over when something was written."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
from hansa.environment import SystemClock
from hansa.store import disk_errors, sqlite, sqlite_files
from hansa.store.base import Append, Put, StoreError
from hansa.store.faults import FaultKind, ResultUnknown, StoreFault, mongo_kind, sqlite_fault
from hansa.store.health import StoreHealth, WatchedStore
from hansa.store.memory import MemoryStore
from hansa.store.sqlite import SqliteStore
from hansa.testing import until
from hansa.testing.store_suite import SCHEMA


@pytest.fixture
async def inner(tmp_path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "hansa.db", synchronous="OFF", busy=0.05)
    yield store
    await store.close()


@pytest.fixture
async def store(inner) -> WatchedStore:
    watched = WatchedStore(inner, StoreHealth(SystemClock()))
    await watched.open()
    await watched.declare("s", SCHEMA)
    return watched


async def asked(inner: SqliteStore, sql: str) -> None:
    await inner._run_in_writer(lambda: inner._writer_connection().execute(sql).fetchall())


def rows(count: int) -> list[Put]:
    return [Put("thing", ("a", n), os.urandom(4000)) for n in range(count)]


async def test_a_full_database_refuses_and_works_again_once_there_is_room(store, inner):
    await asked(inner, "PRAGMA max_page_count = 60")
    with pytest.raises(StoreFault, match="full") as caught:
        await store.commit("s", rows(200))
    assert caught.value.kind is FaultKind.FULL
    assert store.health.degraded.kind is FaultKind.FULL
    assert await store.count("s", "thing") == 0
    await asked(inner, "PRAGMA max_page_count = 1000000")
    await store.commit("s", rows(200))
    assert store.health.degraded is None
    assert store.health.faults[FaultKind.FULL] == 1


async def test_a_batch_that_does_not_fit_fails_alone_or_with_all_and_never_in_silence(store, inner):
    await asked(inner, "PRAGMA max_page_count = 60")
    batches = [store.commit("s", [Put("thing", ("b", n))]) for n in range(5)]
    done = await asyncio.gather(*batches, store.commit("s", rows(200)), return_exceptions=True)
    assert isinstance(done[-1], StoreFault)
    kept = {n for n in range(5) if not isinstance(done[n], BaseException)}
    assert all(isinstance(one, list | StoreFault) for one in done)
    found = await store.scan("s", "thing", equal=("b",))
    assert {row.key[1] for row in found} == kept


async def test_a_locked_database_is_noticed_by_a_probe_and_so_is_its_end(store, inner, tmp_path):
    assert await store.check() is None
    with closing(sqlite3.connect(tmp_path / "hansa.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreFault) as caught:
            await store.commit("s", [Put("thing", ("a", 1))])
        assert caught.value.kind is FaultKind.LOCKED
        found = await store.check()
        assert found is not None
        assert found.kind is FaultKind.LOCKED
        other.execute("ROLLBACK")
    assert await store.check() is None


async def test_a_damaged_page_is_named_and_stays_named_although_other_rows_can_be_written(tmp_path):
    first = SqliteStore(tmp_path / "hansa.db", synchronous="OFF")
    await first.open()
    await first.declare("s", SCHEMA)
    await first.commit("s", rows(300))
    await first.close()
    path = tmp_path / "hansa.db"
    with path.open("r+b") as file:
        for page in range(100, 200):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    inner = SqliteStore(path, synchronous="OFF")
    store = WatchedStore(inner, StoreHealth(SystemClock()))
    try:
        await store.open()
        await store.declare("s", SCHEMA)
        with pytest.raises(StoreFault) as caught:
            await store.scan("s", "thing", limit=10_000)
        assert caught.value.kind is FaultKind.DAMAGED
        await store.probe()
        assert (await store.check()).kind is FaultKind.DAMAGED
    finally:
        await store.close()


async def test_what_is_no_database_cannot_be_opened_and_that_is_said(tmp_path):
    (tmp_path / "hansa.db").write_bytes(b"not a database at all" * 1000)
    store = SqliteStore(tmp_path / "hansa.db")
    with pytest.raises(StoreError, match="damaged") as caught:
        await store.open()
    assert caught.value.kind is FaultKind.DAMAGED
    await store.close()


async def test_a_database_that_was_moved_away_is_away(store, tmp_path):
    assert await store.check() is None
    store.health._last_write -= 60  # the last write was a minute ago
    (tmp_path / "hansa.db").rename(tmp_path / "elsewhere.db")
    assert (await store.check()).kind is FaultKind.AWAY
    (tmp_path / "elsewhere.db").rename(tmp_path / "hansa.db")
    assert await store.check() is None


async def test_a_database_that_may_only_be_read_is_named(store, inner):
    await asked(inner, "PRAGMA query_only = 1")
    with pytest.raises(StoreFault) as caught:
        await store.commit("s", [Put("thing", ("a", 1))])
    assert caught.value.kind is FaultKind.READ_ONLY


async def test_a_store_that_does_not_answer_counts_as_away(monkeypatch):
    never = asyncio.Event()

    class Silent(MemoryStore):
        async def probe(self) -> None:
            await never.wait()

    monkeypatch.setattr("hansa.store.health.PROBE_TIMEOUT_S", 0.01)
    store = WatchedStore(Silent(), StoreHealth(SystemClock()))
    await store.open()
    assert (await store.check()).kind is FaultKind.AWAY
    never.set()
    await until(lambda: store._probing is None or store._probing.done())
    assert await store.check() is None
    await store.close()


def test_what_the_driver_says_of_an_outage_replaces_what_the_first_probe_knew():
    health = StoreHealth(SystemClock())
    health.record_fault(StoreFault(FaultKind.AWAY, "it has not answered for 3 s"))
    since = health.degraded.since
    health.record_fault(StoreFault(FaultKind.AWAY, "PostgreSQL at db1: connection refused"))
    assert "connection refused" in health.degraded.text
    assert health.degraded.since == since


@pytest.mark.parametrize(
    ("code", "kind"),
    [(13, "full"), (5, "locked"), (0x105, "locked"), (11, "damaged"), (26, "damaged"), (8, "read-only"),
     (0x508, "read-only"), (14, "away"), (10, "failing"), (7, "failing")],
)  # fmt: skip
def test_codes_of_sqlite_have_a_kind(code, kind):
    error = sqlite3.OperationalError("said")
    error.sqlite_errorcode = code
    assert sqlite_fault(error).kind.value == kind


def test_errors_of_mongodb_have_a_kind():
    errors = pytest.importorskip("pymongo.errors")
    assert mongo_kind(errors.ServerSelectionTimeoutError("x")) is FaultKind.AWAY
    assert mongo_kind(errors.AutoReconnect("x")) is FaultKind.AWAY
    for name, kind in (("OutOfDiskSpace", "full"), ("LockTimeout", "locked"), ("Unauthorized", "forbidden")):
        assert mongo_kind(errors.OperationFailure("x", 1, {"codeName": name})).value == kind
    assert mongo_kind(errors.OperationFailure("x", 1, {"codeName": "Other"})) is FaultKind.FAILING
    assert mongo_kind(errors.PyMongoError("x")) is FaultKind.FAILING


async def test_nothing_is_acknowledged_into_a_file_that_was_taken_away(store, inner, tmp_path):
    """Writes in progress are acknowledged when the file is back; writes that have not begun fail."""
    database = tmp_path / "hansa.db"
    database.rename(tmp_path / "elsewhere")
    first = asyncio.ensure_future(store.commit("s", [Append("line", b"x", {"who": 1})]))
    await until(lambda: inner._settling is not None)
    for _ in range(2):
        with pytest.raises(StoreFault, match="not the file any more"):
            await store.probe()
        with pytest.raises(StoreFault, match="not the file any more") as caught:
            await store.commit("s", [Put("thing", ("a", 2))])
        assert caught.value.kind is FaultKind.AWAY
        assert store.health.degraded.kind is FaultKind.AWAY
        assert not first.done()
        database.write_bytes(b"")  # another file in its place
    (tmp_path / "elsewhere").replace(database)
    assert await first == [1]
    await store.probe()
    assert store.health.degraded is None
    assert await store.get("s", "thing", ("a", 2)) is None
    assert await store.commit("s", [Append("line", b"x", {"who": 2})]) == [2]


async def test_without_the_log_nothing_is_acknowledged(store, tmp_path):
    (tmp_path / "hansa.db-wal").unlink()
    with pytest.raises(StoreFault, match="not the file any more"):
        await store.probe()
    with pytest.raises(StoreFault, match="not the file any more"):
        await store.commit("s", [Put("thing", ("a", 3))])


async def test_a_store_that_is_closed_while_its_file_is_away_says_that_it_does_not_know(inner, tmp_path):
    await inner.open()
    await inner.declare("s", SCHEMA)
    (tmp_path / "hansa.db").rename(tmp_path / "elsewhere")
    first = asyncio.ensure_future(inner.commit("s", [Put("thing", ("a", 1))]))
    await until(lambda: inner._settling is not None)
    await inner.close()
    with pytest.raises(ResultUnknown):
        await first


class Unsynced:
    """A connection whose commits are in the log, and whose fsync fails while ``failing``."""

    def __init__(self, connection) -> None:
        self._connection = connection
        self.failing = True
        self.asked = 0

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, sql, *values):
        if sql == "COMMIT" and self.failing:
            self.asked += 1
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = 1034  # SQLITE_IOERR_FSYNC
            raise error
        return self._connection.execute(sql, *values)


async def test_after_an_fsync_that_failed_not_kept_is_said_once_it_is_so(store, inner):
    """Until the log is written over, the next start would find the commit there."""
    disk = inner._db = Unsynced(inner._db)
    first = asyncio.ensure_future(store.commit("s", [Append("line", b"x", {"who": 1})]))
    await until(lambda: disk.asked >= 3)
    with pytest.raises(StoreFault, match="the writes before this one wait"):
        await store.commit("s", [Append("line", b"x", {"who": 2})])
    assert not first.done()
    disk.failing = False
    with pytest.raises(StoreFault, match="failing"):
        await first
    assert await store.commit("s", [Append("line", b"x", {"who": 3})]) == [1]
    assert [row.fields["who"] for row in await store.scan("s", "line")] == [3]
    assert store.health.degraded is None


async def test_a_reader_makes_no_new_file_in_place_of_one_that_is_away(inner, tmp_path):
    store = WatchedStore(inner, StoreHealth(SystemClock()))
    await inner.open()
    await inner.declare("s", SCHEMA)
    (tmp_path / "hansa.db").rename(tmp_path / "elsewhere")
    for _ in range(3):  # the first read opens the file
        with pytest.raises(StoreFault) as caught:
            await store.get("s", "thing", ("a", 1))
        assert caught.value.kind is FaultKind.AWAY
    assert not (tmp_path / "hansa.db").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "hansa.db")
    assert await store.get("s", "thing", ("a", 1)) is None


async def test_what_goes_away_during_a_commit_is_acknowledged_when_it_is_back(store, inner, tmp_path):
    taken = inner._set_meta

    def gone(name, value):
        taken(name, value)
        (tmp_path / "hansa.db").rename(tmp_path / "elsewhere")

    inner._set_meta = gone
    first = asyncio.ensure_future(store.commit("s", [Append("line", b"x", {"who": 1})]))
    await until(lambda: inner._settling is not None)
    inner._set_meta = taken
    assert not first.done()
    (tmp_path / "elsewhere").rename(tmp_path / "hansa.db")
    assert await first == [1]


async def test_a_full_disk_is_over_when_it_takes_as_much_as_it_did_not_take(store, inner):
    await asked(inner, "PRAGMA max_page_count = 60")
    with pytest.raises(StoreFault, match="full"):
        await store.commit("s", rows(200))
    await store.commit("s", [Put("thing", ("b", 1))])  # one row has a place
    assert store.health.degraded.kind is FaultKind.FULL
    store.health._last_write -= 60
    assert (await store.check()).kind is FaultKind.FULL  # and so would a probe of one row
    await asked(inner, "PRAGMA max_page_count = 1000000")
    store.health._last_write -= 60
    assert await store.check() is None
    assert await asked_for(inner, "SELECT COUNT(*) FROM hansa_meta WHERE name = 'room'") == 0


async def asked_for(inner: SqliteStore, sql: str) -> object:
    return (await inner._run_in_writer(lambda: inner._writer_connection().execute(sql).fetchone()))[0]


async def test_a_lock_is_waited_for_once(tmp_path):
    inner = SqliteStore(tmp_path / "hansa.db", synchronous="OFF", busy=20.0)
    await inner.open()
    await inner.declare("s", SCHEMA)
    inner._busy = 300
    inner._set_busy_timeout(300)
    with closing(sqlite3.connect(tmp_path / "hansa.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for waits in (sqlite._BUSY_STILL, sqlite._BUSY_STILL):
            with pytest.raises(StoreFault, match="locked"):
                await inner.commit("s", [Put("thing", ("a", 1))])
            assert await asked_for(inner, "PRAGMA busy_timeout") == waits
        other.execute("ROLLBACK")
    await inner.commit("s", [Put("thing", ("a", 1))])
    assert await asked_for(inner, "PRAGMA busy_timeout") == 300
    await inner.close()


async def test_a_log_that_grew_under_a_long_reader_is_small_again_when_it_ends(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sqlite, "_LOG_KEPT", 1 << 20)
    monkeypatch.setattr(sqlite_files, "LOG_LARGE", 8 << 20)
    monkeypatch.setattr(sqlite, "_CHECKPOINT", 100)
    inner = SqliteStore(tmp_path / "hansa.db", synchronous="OFF")
    await inner.open()
    await inner.declare("s", SCHEMA)
    log = tmp_path / "hansa.db-wal"
    with closing(sqlite3.connect(tmp_path / "hansa.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        for _ in range(12):
            await inner.commit("s", rows(300))
        assert log.stat().st_size > 8 << 20
        await inner.probe()
        await inner.probe()
        assert caplog.text.count("another process reads the database for long") == 1
    for _ in range(3):
        await inner.commit("s", rows(300))
    assert log.stat().st_size < 4 << 20
    await inner.close()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, FaultKind.FULL),
        (errno.EDQUOT, FaultKind.FULL),
        (errno.EROFS, FaultKind.READ_ONLY),
        (errno.EIO, FaultKind.FAILING),
    ],
)
def test_a_disk_is_asked_what_is_wrong_where_sqlite_says_only_that_it_failed(
    tmp_path, monkeypatch, number, kind
):
    def fails(*_args):
        raise OSError(number, "no")

    monkeypatch.setattr(disk_errors.os, "open", fails)
    assert disk_errors.why((tmp_path / "hansa.db",)) is kind


def test_a_disk_that_takes_what_it_is_given_says_nothing_and_keeps_nothing(tmp_path):
    assert disk_errors.why((tmp_path / "hansa.db",)) is FaultKind.FAILING
    assert list(tmp_path.iterdir()) == []
