"""The tests of a store whose database is a server of its own, beyond the contract."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from hansa import RetryLater
from hansa.store.base import (
    Append,
    Collection,
    Conflict,
    Insert,
    NewerSchema,
    Put,
    Schema,
    Store,
    StoreError,
)
from hansa.testing import run_hansa
from hansa.testing.actor import Actor, Config, module
from hansa.testing.store_suite import LINE, SCHEMA, THING, StoreSuite

CHILD = """
import asyncio, importlib, sys
from hansa.store.base import Append, Put
from hansa.testing.store_suite import SCHEMA

async def main():
    store = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(sys.argv[3])
    await store.open()
    await store.declare("s", SCHEMA)
    n = 0
    while True:
        position, = await store.commit("s", [Append("line", b"", {"who": n}), Put("thing", ("a", n))])
        print(position, flush=True)
        n += 1

asyncio.run(main())
"""


class ServerStoreSuite(StoreSuite):
    """``made`` makes a store of a URL; ``url`` is a fixture: that of an empty database."""

    made: type

    @pytest.fixture
    async def store(self, url) -> AsyncIterator[Store]:
        store = self.made(url)
        await store.open()
        yield store
        await store.close()

    async def opened(self, url):
        store = self.made(url)
        await store.open()
        await store.declare("s", SCHEMA)
        return store

    async def test_what_waits_is_gathered_into_few_transactions(self, store):
        await store.declare("s", SCHEMA)
        before = store.transactions
        await asyncio.gather(*(store.commit("s", [Put("thing", ("a", n))]) for n in range(200)))
        assert store.transactions - before <= 8

    async def test_one_conflict_in_a_group_leaves_the_others_alone(self, store):
        await store.declare("s", SCHEMA)
        await store.commit("s", [Insert("thing", ("a", 0))])
        each = [[Insert("thing", ("a", n)), Append("line", b"", {"who": n})] for n in range(5)]
        done = await asyncio.gather(*(store.commit("s", batch) for batch in each), return_exceptions=True)
        assert isinstance(done[0], Conflict) and done[1:] == [[1], [2], [3], [4]]
        assert await store.count("s", "thing") == 5

    async def test_each_collection_names_its_own_duplicate(self, store):
        other = Collection(name="other", key={"name": str})
        await store.declare("s", Schema(owner="suite", version=1, collections=(THING, other)))
        await store.commit("s", [Insert("thing", ("a", 0)), Insert("other", ("x",))])
        for writes, name, key in (
            ([Insert("other", ("y",)), Insert("thing", ("a", 0))], "thing", ("a", 0)),
            ([Insert("thing", ("a", 1)), Insert("other", ("x",))], "other", ("x",)),
        ):
            with pytest.raises(Conflict) as caught:
                await store.commit("s", writes)
            assert (caught.value.collection, caught.value.key) == (name, key)
        assert await store.count("s", "thing") == await store.count("s", "other") == 1

    async def test_everything_stands_after_close_and_open(self, url):
        for count in range(3):
            store = await self.opened(url)
            assert await store.count("s", "thing") == await store.position() == count
            assert await store.commit("s", [Put("thing", ("a", count)), Append("line")]) == [count + 1]
            await store.close()

    async def test_a_second_process_is_refused_by_name(self, url):
        first = await self.opened(url)
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()} on "):
            await self.made(url).open()
        await first.commit("s", [Put("thing", ("a", 1))])
        await first.close()
        second = await self.opened(url)
        assert await second.count("s", "thing") == 1
        await second.close()

    async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(self, url):
        words = [sys.executable, "-c", CHILD, self.made.__module__, self.made.__name__, url]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        acknowledged = 0
        while acknowledged < 50:
            acknowledged = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in child.stdout.read().split())])
        child.wait()
        child.stdout.close()
        store = await self.opened(url)
        count = await store.count("s", "thing")
        assert count >= acknowledged
        assert count == await store.count("s", "line") == await store.position()
        assert await store.commit("s", [Append("line", b"", {"who": 0})]) == [count + 1]
        await store.close()

    async def test_a_migration_that_was_interrupted_goes_on_where_it_stood(self, url, monkeypatch):
        monkeypatch.setattr(f"{self.made.__module__}._STRIDE", 7)
        store = await self.opened(url)
        await store.commit("s", [Put("thing", ("a\0b", n), b"", {"size": 1}) for n in range(30)])
        seen: list[int] = []

        def double(collection, row):
            if collection != "thing":
                return []
            if row.key[1] == 20 and 20 not in seen:
                seen.append(20)
                raise RuntimeError("out of luck")
            seen.append(row.key[1])
            return [Put("thing", row.key, row.body, {**row.fields, "size": row.fields["size"] * 2})]

        second = Schema(owner="suite", version=2, collections=(THING, LINE), migrations={1: double})
        with pytest.raises(RuntimeError):
            await store.declare("s", second)
        await store.close()
        again = self.made(url)
        await again.open()
        await again.declare("s", second)
        assert {row.fields["size"] for row in await again.scan("s", "thing")} == {2}
        assert seen.count(13) == 1
        with pytest.raises(NewerSchema):
            await again.declare("s", SCHEMA)
        with pytest.raises(StoreError, match="no migration from version 2"):
            await again.declare("s", Schema(owner="suite", version=4, collections=(THING,), migrations={}))
        await again.close()

    async def test_after_a_restart_delivery_goes_on_where_it_stood(self, url):
        people: dict[str, Actor] = {}
        plugin = module(people)
        networks = {"left": (plugin, Config()), "right": (plugin, Config())}
        async with run_hansa(networks, rooms=(("left:a", "right:b"),), store=self.made(url)):
            await people["left"].say("a", "ann@x", "before")
            await people["right"].until("b", 1)

            def away(_):
                raise RetryLater("away", after=60)

            people["right"].before_send = away
            for number in range(20):
                await people["left"].say("a", "ann@x", f"waits {number}", origin=f"o{number}")
        async with run_hansa(networks, store=self.made(url)) as app:
            assert await people["right"].until("b", 20) == [f"waits {n}" for n in range(20)]
            assert next(iter(app.rooms)).head == 21
            assert (await people["left"].say("a", "ann@x", "waits 3", origin="o3")).duplicate
