"""A transaction for which nobody has to be waited is judged in the commit that keeps its answer."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from hansa.store.faults import FaultKind, StoreFault
from hansa.testing import until
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.rooms.inbound import backlog, pdu_staging
from hansa_matrix.rooms.inbound.missing_events import MissingEvents
from matrix.server_with_peer import THEIRS, V1, server_with_peer


class Watched:
    """A store that keeps which collections each of its commits wrote; ``fails`` makes them fail."""

    def __init__(self, app):
        self._inner, self.commits, self.fails = app.store.inner, [], False
        app.store.inner = self

    def __getattr__(self, name):
        return getattr(self._inner, name)

    async def commit(self, scope, writes, **options):
        if self.fails:
            raise StoreFault(FaultKind.LOCKED, "busy")
        self.commits.append([write.collection.rpartition("/")[2] for write in writes])
        return await self._inner.commit(scope, writes, **options)

    def held(self, *, lost=False):
        """The next commit of an event waits, and is ``lost``: when it is reached, and what lets it go on."""
        inner, reached, go_on = self.commit, asyncio.Event(), asyncio.Event()

        async def slow(scope, writes, **options):
            if not reached.is_set() and any(write.collection.endswith("pdu") for write in writes):
                reached.set()
                await go_on.wait()
                if lost:
                    raise StoreFault(FaultKind.LOCKED, "busy")
            return await inner(scope, writes, **options)

        self.commit = slow
        return reached, go_on

    def of(self, collection):
        return [commit for commit in self.commits if collection in commit]


async def known(house, raw):
    return (await house.ask("GET", f"{V1}/event/{event_id(raw, house.room.version)}"))[0] == 200


@pytest.mark.parametrize("count", [1, 50])
async def test_events_and_the_answer_are_one_commit(tmp_path, count):
    async with server_with_peer(tmp_path) as house:
        watched = Watched(house.app)
        said = [house.forger.message(house.room, f"{n}") for n in range(count)]
        assert (await house.send(*said))[0] == 200
        assert await known(house, said[-1])  # at once: nothing is waited for
        (commit,) = watched.of("txn")
        assert commit.count("pdu") == count and commit.count("txn") == 1
        assert not watched.of("staged")


async def test_a_transaction_id_that_comes_again_takes_nothing(tmp_path):
    async with server_with_peer(tmp_path) as house:
        target = f"{V1}/send/{secrets.token_hex(8)}"
        first, other = (house.forger.message(house.room, text) for text in ("first", "other"))
        before = await house.ask("PUT", target, {"pdus": [first]})
        assert before[0] == 200 and event_id(first, house.room.version) in before[1]["pdus"]
        assert await house.ask("PUT", target, {"pdus": [other]}) == before
        assert await house.ask("PUT", target, {"pdus": [first]}) == before
        assert not await known(house, other)
        assert await house.fate(other) == "accepted"


async def test_what_the_database_does_not_take_is_not_acknowledged(tmp_path):
    async with server_with_peer(tmp_path) as house:
        watched = Watched(house.app)
        said, target = house.forger.message(house.room, "hark"), f"{V1}/send/{secrets.token_hex(8)}"
        watched.fails = True
        assert (await house.ask("PUT", target, {"pdus": [said]}))[0] >= 500
        watched.fails = False
        assert not await known(house, said)
        assert (await house.ask("PUT", target, {"pdus": [said]}))[0] == 200
        assert await known(house, said)


async def test_what_arrives_meanwhile_stands_behind_it_in_the_line(tmp_path):
    async with server_with_peer(tmp_path) as house:
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
            await until(lambda: known(house, second))


async def test_a_forged_event_is_dropped_and_answered(tmp_path):
    async with server_with_peer(tmp_path) as house:
        forged = house.forger.message(house.room, "hark")
        forged["content"]["body"] = "other words"  # its hash is another's: redacted
        unsigned = house.forger.message(house.room, "hush")
        unsigned["origin_server_ts"] += 1
        assert await house.fate(unsigned) == "dropped"
        assert (await house.send(forged))[0] == 200
        assert await known(house, forged)


def follow(house):
    """Two messages, the second of which stands on the first."""
    first = house.forger.message(house.room, "first")
    return first, house.forger.message(
        house.room, "second", prev_events=[event_id(first, house.room.version)], depth=first["depth"] + 1
    )


async def until_known(house, raw):
    await until(lambda: known(house, raw))


async def test_who_repeats_while_the_first_is_under_way_loses_nothing(tmp_path):
    async with server_with_peer(tmp_path) as house:
        watched = Watched(house.app)
        reached, go_on = watched.held()
        said, target = house.forger.message(house.room, "hark"), f"{V1}/send/{secrets.token_hex(8)}"
        first = asyncio.ensure_future(house.ask("PUT", target, {"pdus": [said]}))
        await reached.wait()
        again = asyncio.ensure_future(house.ask("PUT", target, {"pdus": [said]}))
        for _ in range(100):
            await asyncio.sleep(0)
        go_on.set()
        answers = [await first, await again]
        assert [status for status, _ in answers] == [200, 200] and answers[0] == answers[1]
        await until_known(house, said)


async def test_what_another_transaction_loses_is_kept_for_who_brought_it_too(tmp_path):
    async with server_with_peer(tmp_path) as house:
        watched = Watched(house.app)
        reached, go_on = watched.held(lost=True)
        said = house.forger.message(house.room, "hark")
        first = asyncio.ensure_future(house.send(said))
        await reached.wait()
        other = asyncio.ensure_future(house.send(said))
        for _ in range(100):
            await asyncio.sleep(0)
        go_on.set()
        assert (await first)[0] >= 500
        assert (await other)[0] == 200
        await until_known(house, said)


async def test_what_stands_on_an_event_that_is_dropped_waits_for_it(tmp_path):
    async with server_with_peer(tmp_path) as house:
        watched = Watched(house.app)
        first, second = follow(house)
        genuine = dict(first["signatures"][THEIRS])
        forged = {key: signature[::-1] for key, signature in genuine.items()}
        status, _ = await house.send({**first, "signatures": {THEIRS: forged}}, second)
        assert status == 200 and watched.of("staged")
        assert "refused" not in house.counted("matrix_pdus")


async def test_what_turns_out_to_lack_something_is_staged(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        watched = Watched(house.app)
        _, second = follow(house)

        async def nothing(*_):
            return []

        with monkeypatch.context() as patched:
            patched.setattr(MissingEvents, "missing_references", nothing)
            sent = asyncio.ensure_future(house.send(second))
            await until(lambda: watched.of("txn"))
        assert (await sent)[0] == 200 and watched.of("staged")


async def test_what_is_judged_counts_as_what_waits(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        watched = Watched(house.app)
        reached, go_on = watched.held()
        one, other = (house.forger.message(house.room, text) for text in ("one", "other"))
        monkeypatch.setattr(pdu_staging, "memory_size", lambda _: 100)
        monkeypatch.setattr(backlog, "MAX_BYTES_EACH", 150)
        monkeypatch.setattr(backlog, "LITTLE", 0)
        first = asyncio.ensure_future(house.send(one))
        async with asyncio.timeout(10):
            await reached.wait()
            status = (await house.send(other))[0]
            go_on.set()
            assert (await first)[0] == 200 and status == 429
        assert (await house.send(other))[0] == 200
        await until_known(house, other)
