"""A transaction for which nobody has to be waited is judged in the commit that keeps its answer."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from hansa.store.faults import FaultKind, StoreFault
from hansa_matrix.proto.hashing import event_id
from matrix.inbound import V1, inbound


class Watched:
    """A store that keeps which collections each of its commits wrote; ``fails`` makes them fail."""

    def __init__(self, app):
        self._inner, self.commits, self.fails = app.store._store, [], False
        app.store._store = self

    def __getattr__(self, name):
        return getattr(self._inner, name)

    async def commit(self, scope, writes, **options):
        if self.fails:
            raise StoreFault(FaultKind.LOCKED, "busy")
        self.commits.append([write.collection.rpartition("/")[2] for write in writes])
        return await self._inner.commit(scope, writes, **options)

    def of(self, collection):
        return [commit for commit in self.commits if collection in commit]


async def known(house, raw):
    return (await house.ask("GET", f"{V1}/event/{event_id(raw, house.room.version)}"))[0] == 200


@pytest.mark.parametrize("count", [1, 50])
async def test_events_and_the_answer_are_one_commit(tmp_path, count):
    async with inbound(tmp_path) as house:
        watched = Watched(house.app)
        said = [house.forger.message(house.room, f"{n}") for n in range(count)]
        assert (await house.send(*said))[0] == 200
        assert await known(house, said[-1])  # at once: nothing is waited for
        (commit,) = watched.of("txn")
        assert commit.count("pdu") == count and commit.count("txn") == 1
        assert not watched.of("staged")


async def test_a_transaction_id_that_comes_again_takes_nothing(tmp_path):
    async with inbound(tmp_path) as house:
        target = f"{V1}/send/{secrets.token_hex(8)}"
        first, other = (house.forger.message(house.room, text) for text in ("first", "other"))
        before = await house.ask("PUT", target, {"pdus": [first]})
        assert before[0] == 200 and event_id(first, house.room.version) in before[1]["pdus"]
        assert await house.ask("PUT", target, {"pdus": [other]}) == before
        assert await house.ask("PUT", target, {"pdus": [first]}) == before
        assert not await known(house, other)
        assert await house.fate(other) == "accepted"


async def test_what_the_database_does_not_take_is_not_acknowledged(tmp_path):
    async with inbound(tmp_path) as house:
        watched = Watched(house.app)
        said, target = house.forger.message(house.room, "hark"), f"{V1}/send/{secrets.token_hex(8)}"
        watched.fails = True
        assert (await house.ask("PUT", target, {"pdus": [said]}))[0] >= 500
        watched.fails = False
        assert not await known(house, said)
        assert (await house.ask("PUT", target, {"pdus": [said]}))[0] == 200
        assert await known(house, said)


async def test_what_arrives_meanwhile_stands_behind_it_in_the_line(tmp_path):
    async with inbound(tmp_path) as house:
        watched = Watched(house.app)
        inner, reached, go_on = watched.commit, asyncio.Event(), asyncio.Event()

        async def slow(scope, writes, **options):
            if any(write.collection.endswith("pdu") for write in writes):
                reached.set()
                await go_on.wait()
            return await inner(scope, writes, **options)

        watched.commit = slow
        first, second = (house.forger.message(house.room, text) for text in ("first", "second"))
        one = asyncio.ensure_future(house.send(first))
        await reached.wait()
        assert (await house.send(second))[0] == 200  # it stands on the first, and is kept
        assert watched.of("staged") and not one.done()
        go_on.set()
        assert (await one)[0] == 200
        async with asyncio.timeout(10):
            while not await known(house, second):
                await asyncio.sleep(0)


async def test_a_forged_event_is_dropped_and_answered(tmp_path):
    async with inbound(tmp_path) as house:
        forged = house.forger.message(house.room, "hark")
        forged["content"]["body"] = "other words"  # its hash is another's: redacted
        unsigned = house.forger.message(house.room, "hush")
        unsigned["origin_server_ts"] += 1
        assert await house.fate(unsigned) == "dropped"
        assert (await house.send(forged))[0] == 200
        assert await known(house, forged)
