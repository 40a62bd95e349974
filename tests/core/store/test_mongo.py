"""The store contract on MongoDB over a real socket, who may use a database, and what survives a kill."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator

import pymongo
import pytest
from core.store.elsewhere import ServerStoreSuite
from hansa.environment import SystemClock
from hansa.store import mongo
from hansa.store.base import (
    Append,
    Put,
    StoreError,
)
from hansa.store.faults import StoreLost
from hansa.store.mongo import MongoStore
from hansa.testing.store_suite import SCHEMA, StoreSuite
from motor.motor_asyncio import AsyncIOMotorClient
from peers.waiting import until


class TestMongo(ServerStoreSuite):
    made = MongoStore

    @pytest.fixture
    def url(self, mongo_url) -> str:
        return mongo_url


class TestMotor(StoreSuite):
    """The client before PyMongo's own in its place."""

    @pytest.fixture
    async def store(self, mongo_url) -> AsyncIterator[MongoStore]:
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
    """Returns the lease as it was before a change by another process."""
    with pymongo.MongoClient(url) as client:
        rows = client.get_default_database()["hansa.lease"]
        return rows.find_one_and_update({"_id": "store"}, {"$set": change})


def at(seconds: float) -> int:
    """A moment from now in ms since 1970."""
    return SystemClock().now() + int(seconds * 1000)


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


async def test_a_backup_that_is_put_in_the_place_of_what_runs_is_noticed(mongo_url):
    """``mongorestore --drop`` beside a Hansa that runs: the token is its own."""
    store = await opened(mongo_url)
    await store.commit("s", [Append("line"), Append("line")])
    lease(mongo_url, {"position": 1})
    with pytest.raises(StoreLost, match="restored backup"):
        await store.commit("s", [Append("line"), Put("thing", ("a", 1))])
    await store.close()
    lease(mongo_url, {"until": at(-1)})
    again = await opened(mongo_url)
    assert await again.count("s", "thing") == 0
    await again.close()


async def test_the_lease_is_kept_while_nothing_is_written(mongo_url, monkeypatch):
    monkeypatch.setattr(mongo, "SECONDS", 1.0)
    store = await opened(mongo_url)
    lease(mongo_url, {"until": at(-1000)})

    async def extended() -> bool:
        return lease(mongo_url, {"looked": 1})["until"] > at(0)

    await until("the lease is extended", extended, 30)
    await store.close()


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
                return {key: value for key, value in hello.items() if key not in {"setName", "msg"}}

            database.command = standalone
            return database

    with pytest.raises(StoreError, match="is not a replica set"):
        await MongoStore(mongo_url, connect=Alone).open()
