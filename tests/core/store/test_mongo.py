"""The store contract on MongoDB over a real socket, who may use a database, and what survives a kill."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys

import pymongo
import pytest
from hansa import Retry
from hansa.seams import SystemClock
from hansa.store import mongo
from hansa.store.base import (
    Append,
    Collection,
    Conflict,
    Insert,
    NewerSchema,
    Put,
    Schema,
    StoreError,
    TooLarge,
)
from hansa.store.faults import StoreLost
from hansa.store.mongo import MongoStore
from hansa.testing import running
from hansa.testing.actor import Actor, Config, module
from hansa.testing.store_suite import LINE, SCHEMA, THING, StoreSuite
from motor.motor_asyncio import AsyncIOMotorClient
from peers.waiting import until

CHILD = """
import asyncio, sys
from hansa.store.base import Append, Put
from hansa.store.mongo import MongoStore
from hansa.testing.store_suite import SCHEMA

async def main():
    store = MongoStore(sys.argv[1])
    await store.open()
    await store.declare("s", SCHEMA)
    n = 0
    while True:
        position, = await store.commit("s", [Append("line", b"", {"who": n}), Put("thing", ("a", n))])
        print(position, flush=True)
        n += 1

asyncio.run(main())
"""


class TestMongo(StoreSuite):
    @pytest.fixture
    async def store(self, mongo_url):
        store = MongoStore(mongo_url)
        await store.open()
        yield store
        await store.close()

    async def test_what_waits_is_gathered_into_few_transactions(self, store):
        await store.declare("s", SCHEMA)
        before = store.transactions
        await asyncio.gather(*(store.commit("s", [Put("thing", ("a", n))]) for n in range(200)))
        assert store.transactions - before <= 8

    async def test_one_conflict_in_a_group_leaves_the_others_alone(self, store):
        await store.declare("s", SCHEMA)
        await store.commit("s", [Insert("thing", ("a", 0))])
        batches = [[Insert("thing", ("a", n)), Append("line", b"", {"who": n})] for n in range(5)]
        done = await asyncio.gather(*(store.commit("s", batch) for batch in batches), return_exceptions=True)
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

    async def test_a_batch_beyond_all_measure_is_refused_whole(self, store, monkeypatch):
        await store.declare("s", SCHEMA)
        monkeypatch.setattr(mongo, "MAX_WRITES", 10)
        monkeypatch.setattr(mongo, "MAX_BYTES", 100)
        with pytest.raises(TooLarge, match="11 writes"):
            await store.commit("s", [Put("thing", ("a", n)) for n in range(11)])
        with pytest.raises(TooLarge, match="101 bytes"):
            await store.commit("s", [Put("thing", ("a", 1), b"x" * 101)])
        assert await store.count("s", "thing") == 0


class TestMotor(StoreSuite):
    """The client before PyMongo's own in its place."""

    @pytest.fixture
    async def store(self, mongo_url):
        store = MongoStore(mongo_url, connect=AsyncIOMotorClient)
        await store.open()
        yield store
        await store.close()


async def opened(url: str) -> MongoStore:
    store = MongoStore(url)
    await store.open()
    await store.declare("s", SCHEMA)
    return store


def lease(url: str, change: dict) -> dict:
    """The lease as it was before a change that somebody else makes to it."""
    with pymongo.MongoClient(url) as client:
        rows = client.get_default_database()["hansa.lease"]
        return rows.find_one_and_update({"_id": "store"}, {"$set": change})


def at(seconds: float) -> int:
    """A moment from now in ms since 1970."""
    return SystemClock().now() + int(seconds * 1000)


async def test_everything_stands_after_close_and_open(mongo_url):
    for count in range(3):
        store = await opened(mongo_url)
        assert await store.count("s", "thing") == await store.position() == count
        assert await store.commit("s", [Put("thing", ("a", count)), Append("line")]) == [count + 1]
        await store.close()


async def test_a_second_process_is_refused_by_name(mongo_url):
    first = await opened(mongo_url)
    with pytest.raises(StoreError, match=f"in use by process {os.getpid()} on "):
        await MongoStore(mongo_url).open()
    await first.commit("s", [Put("thing", ("a", 1))])
    await first.close()
    second = await opened(mongo_url)
    assert await second.count("s", "thing") == 1
    await second.close()


async def test_another_machine_is_waited_for_until_its_lease_ends(mongo_url):
    await (await opened(mongo_url)).close()
    owner = {"host": "elsewhere", "pid": os.getpid(), "born": "1", "namespace": "another kernel"}
    lease(mongo_url, {"token": "theirs", "owner": owner, "until": at(60)})
    with pytest.raises(StoreError, match="on elsewhere"):
        await MongoStore(mongo_url).open()
    lease(mongo_url, {"until": at(-1)})
    await (await opened(mongo_url)).close()


async def test_who_lost_the_database_writes_nothing_more(mongo_url):
    store = await opened(mongo_url)
    lease(mongo_url, {"until": at(-1)})
    second = await opened(mongo_url)
    for call in (
        lambda: store.commit("s", [Put("thing", ("a", 1)), Append("line")]),
        lambda: store.commit("s", [Put("thing", ("a", 1))]),
        lambda: store.get("s", "thing", ("a", 1)),
        store.probe,
    ):
        with pytest.raises(StoreLost, match="another process has taken it over"):
            await call()
    async with asyncio.timeout(5):
        assert isinstance(await store.lost(), StoreLost)
    assert await second.count("s", "thing") == 0
    await store.close()
    await second.commit("s", [Put("thing", ("a", 1))])
    await second.close()


async def test_the_lease_is_kept_while_nothing_is_written(mongo_url, monkeypatch):
    monkeypatch.setattr(mongo, "SECONDS", 0.15)
    store = await opened(mongo_url)
    lease(mongo_url, {"until": at(-1000)})

    async def extended() -> bool:
        return lease(mongo_url, {"looked": 1})["until"] > at(0)

    await until("the lease is extended", extended, 10)
    await store.close()


async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(mongo_url):
    child = subprocess.Popen([sys.executable, "-c", CHILD, mongo_url], stdout=subprocess.PIPE, text=True)
    acknowledged = 0
    while acknowledged < 50:
        acknowledged = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    acknowledged = max([acknowledged, *(int(line) for line in child.stdout.read().split())])
    child.wait()
    child.stdout.close()
    store = await opened(mongo_url)
    count = await store.count("s", "thing")
    assert count >= acknowledged
    assert count == await store.count("s", "line") == await store.position()
    assert await store.commit("s", [Append("line", b"", {"who": 0})]) == [count + 1]
    await store.close()


async def test_a_migration_that_was_interrupted_goes_on_where_it_stood(mongo_url, monkeypatch):
    monkeypatch.setattr(mongo, "_STRIDE", 7)
    store = await opened(mongo_url)
    await store.commit("s", [Put("thing", ("a", n), b"", {"size": 1}) for n in range(30)])
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
    again = MongoStore(mongo_url)
    await again.open()
    await again.declare("s", second)
    assert {row.fields["size"] for row in await again.scan("s", "thing")} == {2}
    assert seen.count(13) == 1
    with pytest.raises(NewerSchema):
        await again.declare("s", SCHEMA)
    with pytest.raises(StoreError, match="no migration from version 2"):
        await again.declare("s", Schema(owner="suite", version=4, collections=(THING,), migrations={}))
    await again.close()


async def test_the_password_is_in_no_error_and_no_log(mongo_url, caplog):
    caplog.set_level(logging.DEBUG)
    server = mongo_url.removeprefix("mongodb://").rpartition("@")[2]
    nobody = "127.0.0.1:9/hansa?serverSelectionTimeoutMS=200"
    for place in (server, nobody):
        store = MongoStore(f"mongodb://ann:s3cr%21et@{place}")
        with pytest.raises(StoreError) as caught:
            await store.open()
        assert "MongoDB " in str(caught.value)
        for text in (str(caught.value), repr(store), caplog.text):
            assert "s3cr!et" not in text and "s3cr%21et" not in text
    assert "127.0.0.1:9" in str(caught.value)


async def test_a_database_without_transactions_is_refused(mongo_url):
    class Alone(pymongo.AsyncMongoClient):
        def get_database(self, *args, **options):
            database = super().get_database(*args, **options)
            command = database.command

            async def standalone(name):
                hello = await command(name)
                hello.pop("setName")
                return hello

            database.command = standalone
            return database

    with pytest.raises(StoreError, match="is not a replica set"):
        await MongoStore(mongo_url, connect=Alone).open()


async def test_after_a_restart_delivery_goes_on_where_it_stood(mongo_url):
    made: dict[str, Actor] = {}
    plugin = module(made)
    networks = {"left": (plugin, Config()), "right": (plugin, Config())}
    async with running(networks, rooms=(("left:a", "right:b"),), store=MongoStore(mongo_url)):
        await made["left"].say("a", "ann@x", "before")
        await made["right"].until("b", 1)

        def away(_):
            raise Retry("away", after=60)

        made["right"].before_send = away
        for number in range(20):
            await made["left"].say("a", "ann@x", f"waits {number}", origin=f"o{number}")
    async with running(networks, store=MongoStore(mongo_url)) as app:
        assert await made["right"].until("b", 20) == [f"waits {n}" for n in range(20)]
        assert next(iter(app.rooms)).head == 21
        assert (await made["left"].say("a", "ann@x", "waits 3", origin="o3")).duplicate
