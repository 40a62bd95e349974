"""Repeated input: a transaction is answered as before, an event happens once."""

from __future__ import annotations

import orjson
import pytest
from hansa import Conflict, Insert
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import parse_pdu
from hansa_matrix.retention import _TXN_TTL_S, purge_expired
from hansa_matrix.rooms.event_store import Status, StoredEvent
from matrix.server_with_peer import THEIRS, V1, server_with_peer


def message(house, text):
    return house.forger.message(house.room, text)


async def seen(house):
    """The texts in the log, in order."""
    rows = await house.app.core.scan("event", limit=100)
    texts = [orjson.loads(row.body)["content"].get("text") for row in rows]
    return [text for text in texts if text]


async def test_a_repeated_transaction_is_answered_as_before_and_not_taken(tmp_path):
    async with server_with_peer(tmp_path) as house:
        first, other = message(house, "first"), message(house, "other")
        target = f"{V1}/send/the-same"
        status, answer = await house.ask("PUT", target, {"pdus": [first]})
        assert (status, list(answer["pdus"])) == (200, [event_id(first, house.room.version)])
        assert await house.ask("PUT", target, {"pdus": [other]}) == (200, answer)
        assert await house.fate(message(house, "last")) == "accepted"
        assert await seen(house) == ["first", "last"]


@pytest.mark.parametrize("forgotten", [False, True])
async def test_an_event_in_two_transactions_happens_once(tmp_path, forgotten):
    async with server_with_peer(tmp_path) as house:
        raw = message(house, "once")
        assert await house.fate(raw) == "accepted"
        if forgotten:
            house.matrix.event_cache.clear()
        status, answer = await house.send(raw)
        assert (status, list(answer["pdus"])) == (200, [event_id(raw, house.room.version)])
        assert await house.fate(message(house, "after")) == "accepted"
        assert await seen(house) == ["once", "after"]
        assert not await house.app.contexts["matrix"].store.scan("staged", limit=10)


async def test_transactions_of_every_server_are_forgotten_after_a_day(tmp_path):
    async with server_with_peer(tmp_path) as house:
        ctx = house.app.contexts["matrix"]
        now = ctx.clock.now()
        old, new = now - _TXN_TTL_S - 1, now
        names = [(server, f"{n}", at) for server in "abc" for n in range(3) for at in (old, new)]
        writes = [Insert("txn", (s, f"{n}{at}"), b"", {"ts": at}) for s, n, at in names]
        await ctx.store.commit(writes)
        await purge_expired(ctx)
        left = [row for row in await ctx.store.scan("txn") if row.key[0] in "abc"]
        assert [row.fields["ts"] for row in left] == [new] * 9


def lost_races(house):
    return house.app.pipeline.counts.get("lost_race", 0)


async def test_what_was_taken_for_new_and_was_not_is_looked_for_from_then_on(tmp_path):
    """Finding it out at the commit is dear: a peer cannot make us do it with every transaction."""
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        said = [message(house, text) for text in ("one", "two", "three")]
        assert [await house.fate(raw) for raw in said] == ["accepted"] * 3
        for raw in said:
            matrix.event_cache.clear()
            status, answer = await house.send(raw)
            assert (status, list(answer["pdus"].values())) == (200, [{}])
        assert lost_races(house) == 1
        assert await house.fate(message(house, "last")) == "accepted"
        assert await seen(house) == ["one", "two", "three", "last"]
        assert lost_races(house) == 1


async def test_what_a_turn_finds_is_counted_once_it_is_committed(tmp_path, monkeypatch):
    """A turn that loses a race is taken again: what it soft-failed, and what was refused in it, is one."""
    async with server_with_peer(tmp_path) as house:
        await house.fate(message(house, "first"))
        before, events = house.counted("matrix_pdus"), house.matrix.event_store
        inner, races = house.app.store.inner, [1, 1]

        class Racing:
            def __getattr__(self, name):
                return getattr(inner, name)

            async def commit(self, scope, writes, *, durability="full"):
                if scope == "" and any(w.collection.endswith("/pdu") for w in writes) and races:
                    races.pop()
                    raise Conflict("room", ("other",))
                return await inner.commit(scope, writes, durability=durability)

        house.app.store.inner = Racing()
        raw = house.forger.message(house.room, "from nobody", sender=f"@nobody:{THEIRS}")
        assert await house.fate(raw) == "rejected"
        assert not races and lost_races(house) == 2
        assert house.counted("matrix_pdus")["rejected"] == before.get("rejected", 0) + 1
        assert (await events.load([event_id(raw, house.room.version)], house.room.version)) != {}


async def test_an_event_that_is_known_without_a_place_gets_one(tmp_path):
    async with server_with_peer(tmp_path) as house:
        raw = message(house, "fetched before")
        outlier = StoredEvent(parse_pdu(raw, house.room.version), Status.OUTLIER)
        await house.app.contexts["matrix"].store.commit([outlier.put()])
        assert (await house.send(raw))[0] == 200
        assert await seen(house) == ["fetched before"]
        kept = await house.app.contexts["matrix"].store.get("pdu", (outlier.pdu.event_id,))
        assert kept.fields["status"] == "accepted" and kept.fields["after"]


async def test_an_event_that_was_rejected_stays_so_when_it_comes_again(tmp_path):
    async with server_with_peer(tmp_path) as house:
        raw = message(house, "not by now")
        group = house.matrix.rooms[house.room.room_id].head.group
        rejected = StoredEvent(parse_pdu(raw, house.room.version), Status.REJECTED, group, group, "a rule")
        await house.app.contexts["matrix"].store.commit([rejected.put()])
        assert (await house.send(raw))[0] == 200
        kept = await house.app.contexts["matrix"].store.get("pdu", (rejected.pdu.event_id,))
        assert kept.fields["status"] == "rejected" and await seen(house) == []
