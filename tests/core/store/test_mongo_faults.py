"""Failures of MongoDB's driver, injected between the store and the driver, or by the server.

In every case a batch is there whole and once, or not at all, and an error was raised if it is not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace

import pymongo
import pytest
from hansa.store import mongo, mongo_writer
from hansa.store.base import Append, CompareAndSwap, Conflict, Insert, Put, StoreError
from hansa.store.faults import FaultKind, ResultUnknown, StoreFault, StoreLost
from hansa.store.mongo import MongoStore
from hansa.store.mongo_lease import await_if_needed
from hansa.testing import until
from hansa.testing.store_suite import SCHEMA
from motor.motor_asyncio import AsyncIOMotorClient
from peers.mongo import Mongo, url_with
from pymongo.errors import AutoReconnect, NotPrimaryError, OperationFailure, WriteConcernError

TRANSIENT = {"errorLabels": ["TransientTransactionError"]}
UNKNOWN = {"errorLabels": ["UnknownTransactionCommitResult"]}


def conflict():
    return OperationFailure("WriteConflict", 112, {**TRANSIENT, "code": 112, "codeName": "WriteConflict"})


def not_primary():
    return NotPrimaryError("not primary", {**TRANSIENT, "code": 10107})


def rolled_back():
    return OperationFailure("no such transaction", 251, {**TRANSIENT, "code": 251})


def lost_answer():
    return AutoReconnect("connection closed", UNKNOWN)


def no_label():
    return OperationFailure("an error of the server's own", 1, {"code": 1, "codeName": "InternalError"})


def slow_members():
    return WriteConcernError("waiting for replication timed out", 64, {**UNKNOWN, "code": 64})


def impossible_concern():
    return WriteConcernError(
        "not enough members", 100, {"code": 100, "codeName": "UnsatisfiableWriteConcern"}
    )


class Driver:
    """A client whose ``lease``, ``write``, ``commit`` and ``abort`` calls fail as planned: ``(call, when, error)``,
    where ``when`` is before the call, after it, or instead of it with the transaction rolled back by the server;
    an abort fails before it.
    """

    def __init__(self, url: str, client=pymongo.AsyncMongoClient) -> None:
        self.plan: deque[tuple[str, str, Exception]] = deque()
        self.commits = 0
        self._client = client(url)

    def __getattr__(self, name):
        return getattr(self._client, name)

    def get_database(self, name, **options):
        return _Database(self, self._client.get_database(name, **options))

    async def start_session(self):
        session = await await_if_needed(self._client.start_session())
        commit = session.commit_transaction

        async def planned():
            self.commits += 1
            await self.call("commit", commit, session)

        session.commit_transaction = planned
        inner = getattr(session, "delegate", session)  # what Motor has of PyMongo
        finish = inner._finish_transaction_with_retry

        def finished(command):
            """An abort that fails does so in the driver, which then takes it for done."""
            if command == "abortTransaction" and self.plan and self.plan[0][0] == "abort":
                raise self.plan.popleft()[2]
            return finish(command)

        inner._finish_transaction_with_retry = finished
        return session

    async def call(self, name, call, session, *args, **options):
        when, error = "", None
        if session is not None and self.plan and self.plan[0][0] == name:
            _, when, error = self.plan.popleft()
        if when == "rolled back":
            await session.abort_transaction()
        if when in {"before", "rolled back"}:
            raise error
        if name != "commit":
            options["session"] = session
        answer = await call(*args, **options)
        if when == "after":
            raise error
        return answer


class _Database:
    def __init__(self, driver, database) -> None:
        self._driver, self._database = driver, database

    def __getattr__(self, name):
        return getattr(self._database, name)

    def __getitem__(self, name):
        return _Collection(self._driver, self._database[name])


class _Collection:
    def __init__(self, driver, collection) -> None:
        self._driver, self._collection = driver, collection

    def __getattr__(self, name):
        return getattr(self._collection, name)

    async def bulk_write(self, *args, session=None, **options):
        return await self._driver.call("write", self._collection.bulk_write, session, *args, **options)

    async def find_one_and_update(self, *args, session=None, **options):
        call = self._collection.find_one_and_update
        return await self._driver.call("lease", call, session, *args, **options)


@pytest.fixture(params=[pymongo.AsyncMongoClient, AsyncIOMotorClient], ids=["pymongo", "motor"])
async def made(mongo_url, request) -> AsyncIterator[SimpleNamespace]:
    drivers: list[Driver] = []

    def connect(url: str) -> Driver:
        drivers.append(Driver(url, request.param))
        return drivers[0]

    store = MongoStore(mongo_url, connect=connect)
    await store.open()
    await store.declare("s", SCHEMA)
    await store.commit("s", [Put("thing", ("old", 0), b"old")])
    yield SimpleNamespace(store=store, driver=drivers[0], url=mongo_url)
    await store.close()


def batch(number: int):
    return [
        Insert("thing", ("a", number), b"%d" % number),
        Append("line", b"", {"who": number}),
        Append("line", b"", {"who": number}),
    ]


async def whole(store: MongoStore, numbers: list[int]) -> bool:
    things = [row.key[1] for row in await store.scan("s", "thing", equal=("a",))]
    lines = [row.fields["who"] for row in await store.scan("s", "line")]
    return things == numbers and lines == [n for n in numbers for _ in range(2)]


@pytest.mark.parametrize(
    ("call", "when", "error"),
    [
        ("lease", "before", conflict),
        ("write", "before", conflict),
        ("write", "after", conflict),
        ("write", "after", not_primary),
        ("commit", "before", not_primary),
        ("commit", "rolled back", rolled_back),
        ("commit", "before", lost_answer),
        ("commit", "after", lost_answer),
        ("commit", "after", slow_members),
    ],
)
async def test_what_can_be_done_again_is_done_once(made, call, when, error):
    made.driver.plan.extend([(call, when, error())] * (1 if (call, when) == ("commit", "after") else 3))
    assert await made.store.commit("s", batch(1)) == [1, 2]
    assert not made.driver.plan
    assert await made.store.commit("s", batch(2)) == [3, 4]
    assert await whole(made.store, [1, 2])
    assert await made.store.position() == 4


async def test_a_transaction_that_nobody_could_abort_holds_nobody_up(made):
    """The connection was cut in the middle of it, so that the server has it open and holds its rows."""
    made.driver.plan.extend([("write", "after", not_primary()), ("abort", "before", TimeoutError())])
    assert await made.store.commit("s", batch(1)) == [1, 2]
    assert not made.driver.plan
    assert await made.store.commit("s", batch(2)) == [3, 4]
    assert await whole(made.store, [1, 2])


async def test_a_whole_group_goes_again_after_a_write_conflict(made):
    made.driver.plan.extend([("write", "after", conflict()), ("commit", "rolled back", rolled_back())])
    got = await asyncio.gather(*(made.store.commit("s", batch(n)) for n in range(10)))
    assert got == [[2 * n + 1, 2 * n + 2] for n in range(10)]
    assert await whole(made.store, list(range(10)))


async def test_an_insert_and_a_cas_are_judged_anew_when_a_transaction_goes_again(made):
    """Another writer came between: the conflict is told, not overwritten."""

    async def between(change):
        with pymongo.MongoClient(made.url) as client:
            rows = client.get_default_database()["network.s.suite.thing"]
            change(rows)

    cas = CompareAndSwap("thing", ("old", 0), b"old", b"ours")
    made.driver.plan.append(("commit", "rolled back", rolled_back()))
    under_way = asyncio.ensure_future(made.store.commit("s", [Append("line"), cas]))
    await until(lambda: not made.driver.plan)
    await between(lambda rows: rows.update_one({"room": "old"}, {"$set": {"B": b"theirs"}}))
    with pytest.raises(Conflict):
        await under_way
    row = await made.store.get("s", "thing", ("old", 0))
    assert row.body == b"theirs"
    assert await made.store.count("s", "line") == await made.store.position() == 0


#: What a commit may raise whatever became of it, and how often before the database tells that.
DOUBTS = [lost_answer, slow_members, impossible_concern, rolled_back, no_label]


@pytest.mark.parametrize("asked", [1, 5])
@pytest.mark.parametrize("error", DOUBTS)
async def test_a_commit_that_was_kept_is_acknowledged_whatever_it_raised(made, error, asked):
    """The first commit is kept and raises; so do those of the questions what became of it."""
    before = made.driver.commits
    made.driver.plan.extend([("commit", "after", error())] * asked)
    assert await made.store.commit("s", batch(1)) == [1, 2]
    assert await made.store.position() == 2
    with pytest.raises(Conflict):
        await made.store.commit("s", batch(1))
    assert await made.store.commit("s", batch(2)) == [3, 4]
    assert await whole(made.store, [1, 2])
    assert made.driver.commits == before + asked + 2


@pytest.mark.parametrize("when", ["before", "rolled back"])
@pytest.mark.parametrize("error", DOUBTS)
async def test_a_commit_that_was_not_kept_is_done_again_whatever_it_raised(made, error, when):
    made.driver.plan.extend([("commit", when, error()), ("lease", "before", lost_answer())])
    assert await made.store.commit("s", batch(1)) == [1, 2]
    assert await made.store.commit("s", batch(2)) == [3, 4]
    assert await whole(made.store, [1, 2])


async def in_doubt(made) -> None:
    begun = made.driver.commits
    await until(lambda: made.driver.commits >= begun + 3)


async def test_while_a_commit_is_in_doubt_it_waits_and_what_was_not_begun_fails(made, monkeypatch):
    """Its result is told when the database says it, however late; nothing else is written until then."""
    monkeypatch.setattr(mongo_writer, "_BEGIN", 0.05)
    monkeypatch.setattr(mongo_writer, "_STILL", 0.02)
    made.driver.plan.extend([("commit", "after", lost_answer())] * 1000)
    first = asyncio.ensure_future(made.store.commit("s", batch(1)))
    await in_doubt(made)
    for _ in range(2):
        with pytest.raises(StoreFault, match="away") as caught:
            await made.store.commit("s", batch(2))
        assert caught.value.kind is FaultKind.AWAY
        assert not isinstance(caught.value, ResultUnknown)
    with pytest.raises(StoreFault):
        await made.store.probe()
    assert not first.done()
    made.driver.plan.clear()
    assert await first == [1, 2]
    assert await made.store.commit("s", batch(2)) == [3, 4]
    assert await whole(made.store, [1, 2])


async def test_a_commit_in_doubt_when_the_lease_is_taken_is_lost(made):
    """The process that took the database over may have found the commit or not."""
    made.driver.plan.extend([("commit", "after", lost_answer())] * 1000)
    first = asyncio.ensure_future(made.store.commit("s", batch(1)))
    await in_doubt(made)
    with pymongo.MongoClient(made.url) as client:
        client.get_default_database()["hansa.lease"].update_one(
            {"_id": "store"}, {"$set": {"token": "other"}}
        )
    made.driver.plan.clear()
    with pytest.raises(StoreLost):
        await first
    assert isinstance(await made.store.lost(), StoreLost)


async def test_a_store_that_is_closed_in_doubt_says_that_it_does_not_know(made, monkeypatch):
    monkeypatch.setattr(mongo_writer, "CLOSING", 0.2)
    made.driver.plan.extend([("commit", "after", lost_answer())] * 1000)
    first = asyncio.ensure_future(made.store.commit("s", batch(1)))
    await in_doubt(made)
    await made.store.close()
    with pytest.raises(ResultUnknown):
        await first


@pytest.mark.parametrize(("call", "error"), [("write", conflict), ("lease", not_primary)])
async def test_patience_ends_and_says_so(made, monkeypatch, call, error):
    monkeypatch.setattr(mongo_writer, "_BEGIN", 0.05)
    made.driver.plan.extend([(call, "before", error())] * 1000)
    with pytest.raises(StoreError, match="MongoDB"):
        await made.store.commit("s", batch(1))
    made.driver.plan.clear()
    assert len(await made.store.commit("s", batch(2))) == 2
    assert await whole(made.store, [2])


async def test_an_error_does_not_show_what_was_written(made):
    details = {"writeErrors": [{"code": 121, "errmsg": "no", "op": {"B": b"secret"}}]}
    made.driver.plan.append(("write", "before", pymongo.errors.BulkWriteError(details)))
    with pytest.raises(StoreError) as caught:
        await made.store.commit("s", batch(1))
    assert "121" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_right_that_is_missing_is_named_without_what_was_asked(made):
    said = 'not authorized on hansa to execute command { find: "core.core.room", filter: { _id: "secret" } }'
    denied = pymongo.errors.OperationFailure(
        said, 13, {"errmsg": said, "codeName": "Unauthorized", "code": 13}
    )
    made.driver.plan.append(("write", "before", denied))
    with pytest.raises(StoreFault, match=r"not authorized on hansa to execute find$") as caught:
        await made.store.commit("s", batch(1))
    assert caught.value.kind is FaultKind.FORBIDDEN and "secret" not in str(caught.value)


@pytest.fixture
def server_fails(mongo_url) -> Iterator[Callable[..., None]]:
    """Makes the server itself fail the next commands of the store's client. A server without fail points is
    asked before the test begins, so that the test leaves nothing behind.
    """
    with pymongo.MongoClient(mongo_url) as client:
        off = {"configureFailPoint": "failCommand", "mode": "off"}
        try:
            client.admin.command(off)
        except OperationFailure as error:
            pytest.skip(f"this MongoDB has no fail points: {error}")

        def fail(times: int, **data) -> None:
            point = {"configureFailPoint": "failCommand", "mode": {"times": times}}
            client.admin.command({**point, "data": {"appName": "hansa", **data}})

        yield fail
        client.admin.command(off)


@pytest.mark.parametrize(
    "fault",
    [
        {"failCommands": ["insert"], "errorCode": 112, **TRANSIENT},
        {"failCommands": ["findAndModify"], "errorCode": 112, **TRANSIENT},
        {"failCommands": ["insert"], "closeConnection": True},
        {"failCommands": ["commitTransaction"], "errorCode": 10107},
        {"failCommands": ["commitTransaction"], "closeConnection": True},
        {"failCommands": ["commitTransaction"], "errorCode": 251, **TRANSIENT},
        {"failCommands": ["commitTransaction"], "writeConcernError": {"code": 64, "errmsg": "slow"}},
    ],
)
async def test_what_the_server_fails_is_done_again(mongo_url, server_fails, fault):
    store = MongoStore(url_with(mongo_url, heartbeatFrequencyMS="500"))
    await store.open()
    await store.declare("s", SCHEMA)
    server_fails(3, **fault)
    assert await store.commit("s", batch(1)) == [1, 2]
    assert await store.commit("s", batch(2)) == [3, 4]
    assert await whole(store, [1, 2])
    await store.close()


@pytest.fixture
def mortal(tmp_path) -> Iterator[Mongo]:
    """A database of this test alone, which may be killed: SecantusDB keeps ``j=true`` only when told to."""
    server = Mongo(tmp_path, "--sync-on-commit").require_mortal().start()
    yield server
    server.stop()


async def opened(url: str) -> MongoStore:
    store = MongoStore(url_with(url, heartbeatFrequencyMS="500", serverSelectionTimeoutMS="500"))
    await store.open()
    await store.declare("s", SCHEMA)
    await store.commit("s", batch(1))
    return store


async def test_reads_and_writes_wait_for_a_database_that_comes_back(mortal):
    store = await opened(mortal.database())
    mortal.kill()
    work = [asyncio.ensure_future(store.commit("s", batch(2))), asyncio.ensure_future(whole(store, [1, 2]))]
    await asyncio.wait(work, timeout=0.7)
    assert not work[0].done()
    await asyncio.get_running_loop().run_in_executor(None, mortal.start)
    assert await work[0] == [3, 4]
    await work[1]
    assert await whole(store, [1, 2])
    await store.close()


async def test_close_is_bounded_while_the_database_is_away(mortal, monkeypatch):
    for part in (mongo, mongo_writer):
        monkeypatch.setattr(part, "CLOSING", 0.2)
    store = await opened(mortal.database())
    mortal.kill()
    work = [asyncio.ensure_future(store.commit("s", batch(n))) for n in range(2, 80)]
    work.append(asyncio.ensure_future(whole(store, [1])))
    await asyncio.wait(work, timeout=0.1)
    async with asyncio.timeout(5):
        await store.close()
        done = await asyncio.gather(*work, return_exceptions=True)
    assert all(isinstance(d, StoreError) for d in done)
