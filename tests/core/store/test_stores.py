"""The store contract on every store, and what is particular to SQLite."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from hansa.store.base import Collection, Conflict, Insert, NewerSchema, Put, Schema, StoreError
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.store.sqlite import SqliteStore
from hansa.testing.store_suite import SCHEMA, THING, StoreSuite


class TestMemory(StoreSuite):
    @pytest.fixture
    async def store(self) -> AsyncIterator[MemoryStore]:
        store = MemoryStore()
        await store.open()
        yield store
        await store.close()

    async def test_a_crash_loses_only_what_was_not_synced(self):
        disk = MemoryDisk()
        store = MemoryStore(disk)
        await store.open()
        await store.declare("s", SCHEMA)
        await store.commit("s", [Put("thing", ("a", 1))])
        for n in (2, 3):
            await store.commit("s", [Put("thing", ("a", n))], durability="lazy")
        disk.crash(lose=1)
        again = MemoryStore(disk)
        await again.open()
        await again.declare("s", SCHEMA)
        assert sorted(await again.get_many("s", "thing", [("a", n) for n in (1, 2, 3)])) == [
            ("a", 1),
            ("a", 2),
        ]


class TestSqlite(StoreSuite):
    @pytest.fixture
    async def store(self, tmp_path) -> AsyncIterator[SqliteStore]:
        store = SqliteStore(tmp_path / "hansa.db", synchronous="OFF")
        await store.open()
        yield store
        await store.close()

    async def test_what_waits_is_gathered_into_few_transactions(self, store):
        await store.declare("s", SCHEMA)
        before = store.transactions
        await asyncio.gather(*(store.commit("s", [Put("thing", ("a", n))]) for n in range(200)))
        assert store.transactions - before <= 20

    async def test_one_conflict_in_a_group_leaves_the_others_alone(self, store):
        await store.declare("s", SCHEMA)
        await store.commit("s", [Insert("thing", ("a", 0))])
        done = await asyncio.gather(
            *(store.commit("s", [Insert("thing", ("a", n))]) for n in range(5)), return_exceptions=True
        )
        assert [isinstance(d, Conflict) for d in done] == [True, False, False, False, False]
        assert await store.count("s", "thing") == 5


async def test_a_second_process_is_refused_by_name(tmp_path):
    first, second = SqliteStore(tmp_path / "db"), SqliteStore(tmp_path / "db")
    await first.open()
    with pytest.raises(StoreError, match=str(os.getpid())):
        await second.open()
    await first.close()
    await second.open()
    await second.close()


async def test_everything_stands_after_close_and_open(tmp_path):
    for count in range(3):
        store = SqliteStore(tmp_path / "db")
        await store.open()
        await store.declare("s", SCHEMA)
        assert await store.count("s", "thing") == count
        await store.commit("s", [Put("thing", ("a", count))])
        await store.close()


_CHILD = """
import asyncio, sys
from hansa.store.base import Put
from hansa.store.sqlite import SqliteStore
from hansa.testing.store_suite import SCHEMA

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    await store.declare("s", SCHEMA)
    n = 0
    while True:
        await store.commit("s", [Put("thing", ("a", n))])
        print(n, flush=True)
        n += 1

asyncio.run(main())
"""


async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path / "db")], stdout=subprocess.PIPE, text=True
    )
    acknowledged = -1
    while acknowledged < 50:
        acknowledged = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    acknowledged = max([acknowledged, *(int(line) for line in child.stdout.read().split())])
    child.wait()
    child.stdout.close()
    store = SqliteStore(tmp_path / "db")
    await store.open()
    await store.declare("s", SCHEMA)
    assert await store.count("s", "thing") >= acknowledged + 1
    await store.close()


async def test_each_step_of_a_migration_happens_once_whatever_stops_the_next(tmp_path):
    store = SqliteStore(tmp_path / "db")
    await store.open()
    await store.declare("s", SCHEMA)
    await store.commit("s", [Put("thing", ("a", n), b"", {"size": 1}) for n in range(5)])
    broken = True

    def double(collection, row):
        return [Put(collection, row.key, row.body, {**row.fields, "size": row.fields["size"] * 2})]

    def triple(collection, row):
        if broken and row.key[1] == 3:
            raise RuntimeError("out of luck")
        return [Put(collection, row.key, row.body, {**row.fields, "size": row.fields["size"] * 3})]

    third = Schema(owner="suite", version=3, collections=(THING,), migrations={1: double, 2: triple})
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await store.declare("s", third)
    await store.close()
    broken = False
    again = SqliteStore(tmp_path / "db")
    await again.open()
    await again.declare("s", third)
    assert {row.fields["size"] for row in await again.scan("s", "thing")} == {6}
    extra = Collection(name="never", key={"id": str})
    with pytest.raises(NewerSchema):
        await again.declare("s", Schema(owner="suite", version=1, collections=(THING, extra)))
    assert not [t for t in again._fetch_all("SELECT name FROM sqlite_master", ()) if "never" in str(t)]
    with pytest.raises(StoreError, match="no migration from version 3"):
        await again.declare("s", Schema(owner="suite", version=4, collections=(THING,)))
    await again.close()
