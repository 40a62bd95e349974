"""Reads while the primary changes: put again after whatever passes, and never answered from before a commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from types import SimpleNamespace

import pymongo
import pytest
from hansa.store import mongo_reads
from hansa.store.base import Collection, Put, Schema
from hansa.store.faults import StoreFault, StoreLost
from hansa.store.mongo import MongoStore
from hansa.testing.store_suite import SCHEMA
from pymongo.errors import AutoReconnect, OperationFailure, ServerSelectionTimeoutError
from pymongo.monitoring import CommandListener


class Client:
    """A client whose reads fail as planned; ``election`` is how often its primary changed."""

    def __init__(self, url: str) -> None:
        self.plan: deque[Exception] = deque()
        self.asked: list[str] = []
        self.made: list[dict] = []
        self.election = 0
        self._client = pymongo.AsyncMongoClient(url)
        self._described: tuple[int, object] = (-1, None)

    def __getattr__(self, name):
        return getattr(self._client, name)

    @property
    def topology_description(self):
        if self._described[0] != self.election:
            member = SimpleNamespace(
                is_writable=True, address=("x", 1), set_version=1, election_id=self.election
            )
            self._described = (self.election, SimpleNamespace(server_descriptions=lambda: {"x": member}))
        return self._described[1]

    def get_database(self, name, **options):
        return _Database(self, self._client.get_database(name, **options))


class _Database:
    def __init__(self, client, database) -> None:
        self._client, self._database = client, database

    def __getattr__(self, name):
        return getattr(self._database, name)

    def __getitem__(self, name):
        return _Collection(self._client, self._database[name])


class _Collection:
    def __init__(self, client, collection) -> None:
        self._client, self._collection = client, collection

    def __getattr__(self, name):
        return getattr(self._collection, name)

    def find(self, *args, **options):
        cursor, client = self._collection.find(*args, **options), self._client

        class Planned:
            async def to_list(self, limit):
                client.asked.append("read")
                if client.plan:
                    raise client.plan.popleft()
                return await cursor.to_list(limit)

        return Planned()

    async def find_one_and_update(self, *args, session=None, **options):
        if session is not None:
            self._client.asked.append("write")
        return await self._collection.find_one_and_update(*args, session=session, **options)

    async def create_indexes(self, indexes, **options):
        self._client.made.append({"count": len(indexes), **options})
        return await self._collection.create_indexes(indexes, **options)


@pytest.fixture
async def made(mongo_url, monkeypatch) -> AsyncIterator[SimpleNamespace]:
    monkeypatch.setattr(mongo_reads, "_FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(mongo_reads, "_MAX_DELAY_S", 0.01)
    clients: list[Client] = []

    def connect(url: str) -> Client:
        clients.append(Client(url))
        return clients[0]

    store = MongoStore(mongo_url, connect=connect)
    await store.open()
    await store.declare("s", SCHEMA)
    await store.commit("s", [Put("thing", ("a", 1), b"kept")])
    await store.get("s", "thing", ("a", 1))
    clients[0].asked.clear()
    yield SimpleNamespace(store=store, client=clients[0])
    await store.close()


def refused(code: int) -> OperationFailure:
    return OperationFailure("not now", code, {"code": code})


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("connection closed"),
        ServerSelectionTimeoutError("no primary"),
        refused(134),  # a member that has just started
        refused(43),  # a cursor of a primary that has gone
        refused(262),
        refused(189),
        TimeoutError(),
    ],
)
async def test_a_read_is_put_again_after_every_error_that_passes_and_behind_a_write(made, error):
    made.client.plan.extend([error] * 5)
    row = await made.store.get("s", "thing", ("a", 1))
    assert row.body == b"kept"
    assert not made.client.plan
    assert made.client.asked == ["read", *["write", "read"] * 5]


async def test_what_does_not_pass_is_told_at_once(made):
    made.client.plan.append(refused(13))
    with pytest.raises(StoreFault):
        await made.store.get("s", "thing", ("a", 1))
    assert made.client.asked == ["read"]


async def test_a_read_gives_up_after_a_minute_and_no_sooner(made, monkeypatch):
    assert mongo_reads.MAX_RETRY_S == 60
    monkeypatch.setattr(mongo_reads, "MAX_RETRY_S", 0.1)
    made.client.plan.extend([AutoReconnect("connection closed")] * 10_000)
    with pytest.raises(StoreFault, match="away"):
        await made.store.get("s", "thing", ("a", 1))
    assert len(made.client.asked) > 5


async def test_after_an_election_something_is_written_before_anything_is_read(made):
    """A new primary may answer from before what was acknowledged until it has committed something itself."""
    await made.store.get("s", "thing", ("a", 1))
    assert made.client.asked == ["read"]
    made.client.election += 1
    made.client.asked.clear()
    await asyncio.gather(*(made.store.get("s", "thing", ("a", 1)) for _ in range(5)))
    assert made.client.asked[0] == "write"
    assert sorted(made.client.asked).count("read") == 5
    made.client.asked.clear()
    await made.store.get("s", "thing", ("a", 1))
    assert made.client.asked == ["read"]


async def test_the_indexes_of_a_collection_are_one_command_that_waits_for_no_member_that_is_down(made):
    both = Collection(
        name="both", key={"name": str}, fields={"one": int, "two": int}, indexes=(("one",), ("two", "one"))
    )
    made.client.made.clear()
    await made.store.declare("s", Schema(owner="other", version=1, collections=(both,)))
    assert made.client.made == [{"count": 2, "commitQuorum": "majority", "maxTimeMS": 3_600_000}]


class Commands(CommandListener):
    """The names of all commands that a client sent."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event) -> None:
        pass

    def failed(self, event) -> None:
        pass


async def test_a_transaction_of_a_process_that_is_gone_keeps_nobody_out(mongo_url):
    """It holds the lease's row, for up to a minute."""
    first = MongoStore(mongo_url)
    await first.open()
    await first.declare("s", SCHEMA)
    with pymongo.MongoClient(mongo_url) as client:
        rows = client.get_default_database()["hansa.lease"]
        rows.update_one({"_id": "store"}, {"$set": {"owner.born": "1"}})  # the process id is another's now
    session = await first._writer.session()
    await session.start_transaction()
    await first._lease.hold(session, 1, "open")
    seen = Commands()
    second = MongoStore(mongo_url, connect=partial(pymongo.AsyncMongoClient, event_listeners=[seen]))
    await second.open()
    assert "killSessions" in seen.names
    await second.declare("s", SCHEMA)
    await second.commit("s", [Put("thing", ("a", 1))])
    with pytest.raises(pymongo.errors.PyMongoError):
        await session.commit_transaction()
    with pytest.raises(StoreLost):
        await first.commit("s", [Put("thing", ("a", 2))])
    await first.close()
    await second.close()
