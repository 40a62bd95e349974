"""A room with more ends than an event may follow, and a sender that misses nothing of what is committed."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from hansa import Append, Member, Membership, Message, NativeId, Put, Row, StreamTail, Submission
from hansa.testing import until
from hansa_matrix.federation import sender
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.rooms.room import MAX_BRANCHES, MAX_ENDS
from matrix.server_with_peer import OURS, THEIRS, V1, server_with_peer


async def spoken(house, text):
    """An event of our bridge user; its id on Matrix."""
    ctx = house.app.contexts["matrix"]
    (outcome,) = await ctx.submit(
        [
            Submission(
                origin=NativeId("matrix", f"own-{text}"),
                room=NativeId("matrix", house.room.room_id),
                sender=NativeId("matrix", f"@hansa:{OURS}"),
                content=Message(text=text),
                ts=0,
            )
        ]
    )
    assert outcome.event is not None, outcome
    rows = await house.app.core.scan(
        "alias", index=("room", "seq"), equal=(outcome.event.room, outcome.event.seq)
    )
    return next(str(row.key[1]) for row in rows if str(row.key[1]).startswith("$"))


async def test_an_event_of_ours_follows_twenty_ends_and_stands_on_their_state_alone(tmp_path):
    async with server_with_peer(tmp_path) as house:
        house.matrix.keep_forward_extremities()
        ends = list(house.room.tips)
        fork = [house.forger.message(house.room, f"end {n}", prev_events=ends) for n in range(24)]
        content = {"topic": "of the last end"}
        draft = house.forger.draft(house.room, "m.room.topic", content, "", prev_events=ends)
        topic = house.forger.finish(house.room, draft)
        for raw in [*fork, topic]:
            assert await house.fate(raw) == "accepted"
        ours = await spoken(house, "over all")
        _, answer = await house.ask("GET", f"{V1}/event/{quote(ours, safe='')}")
        prevs = answer["pdus"][0]["prev_events"]
        assert len(prevs) == 20
        topic_id = event_id(topic, house.room.version)
        assert topic_id not in prevs
        target = f"{V1}/state_ids/{quote(house.room.room_id, safe='')}?event_id={quote(ours, safe='')}"
        _, state = await house.ask("GET", target)
        assert topic_id not in state["pdu_ids"]
        again = await spoken(house, "over the rest")
        _, answer = await house.ask("GET", f"{V1}/event/{quote(again, safe='')}")
        assert {ours, topic_id} <= set(answer["pdus"][0]["prev_events"])
        target = f"{V1}/state_ids/{quote(house.room.room_id, safe='')}?event_id={quote(again, safe='')}"
        assert topic_id in (await house.ask("GET", target))[1]["pdu_ids"]


async def _nothing(*_: Any) -> None:
    return None


@pytest.mark.parametrize("reads_itself", [True, False])
async def test_what_is_committed_while_a_sender_reads_is_not_passed_over(tmp_path, monkeypatch, reads_itself):
    """Two sets of recipients; between the readings of the first and the second, both get an event. Once from
    the store for this server alone, once from what was read for all.
    """
    async with server_with_peer(tmp_path) as house:
        sender, ctx = house.matrix.sender, house.app.contexts["matrix"]
        first, second = (
            sender._remote_destination_set(["a.test", "b.test"])[0],
            sender._remote_destination_set(["a.test"])[0],
        )
        for set_id, names in ((first, ("a.test", "b.test")), (second, ("a.test",))):
            sender._add_set(set_id, names)
        peer = house.matrix.destination_queues["a.test"]
        scan, reads = ctx.store.scan, []
        if reads_itself:
            monkeypatch.setattr(StreamTail, "after", _nothing)
        else:
            assert await peer.pending_rows() == []
            await ctx.store.commit([Append("out", b"", {"recipients": 1, "event_id": "$o", "room_id": "!r"})])

        async def interrupted(*args, **options):
            rows = await scan(*args, **options)
            reads.append(options)
            if len(reads) == 1:
                for set_id in (first, second):
                    fields = {"recipients": set_id, "event_id": f"$to-{set_id}", "room_id": "!r"}
                    await ctx.store.commit([Append("out", b"", fields)])
            return rows

        monkeypatch.setattr(ctx.store, "scan", interrupted)
        before = await peer.pending_rows()
        after = await peer.pending_rows()
        assert len(reads) == (4 if reads_itself else 2)
        seen = [row.fields["event_id"] for row in before]
        assert [row.fields["event_id"] for row in after] == [f"$to-{first}", f"$to-{second}"]
        assert seen == [] or seen[0] == f"$to-{first}"


async def test_a_set_that_was_learned_by_a_turn_that_failed_is_stored_by_the_next(tmp_path):
    async with server_with_peer(tmp_path) as house:
        sender = house.matrix.sender
        for _ in range(2):
            assert [type(w) for w in sender.event_writes("$e", "!r", ["c.test"])] == [Append, Put]
        sender.on_committed(["c.test"])
        assert [type(w) for w in sender.event_writes("$e", "!r", ["c.test"])] == [Append]


async def test_the_end_of_a_stream_is_read_once_for_all_and_goes_back_so_far(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        ctx = house.app.contexts["matrix"]

        async def add(count: int) -> None:
            fields = {"recipients": 1, "event_id": "$e", "room_id": "!r"}
            await ctx.store.commit([Append("out", b"", fields) for _ in range(count)])

        recent, start = StreamTail[Row](ctx.store, "out", 4, lambda row: row), await ctx.store.position()
        assert await recent.after(start) == []
        assert await recent.after(start - 1) is None
        await add(3)
        scan, reads = ctx.store.scan, []

        async def counted(*args: Any, **options: Any) -> Any:
            reads.append(options)
            await asyncio.sleep(0)
            return await scan(*args, **options)

        monkeypatch.setattr(ctx.store, "scan", counted)
        for found in await asyncio.gather(*(recent.after(start) for _ in range(50))):
            assert [row.position for row in found] == [start + 1, start + 2, start + 3]
        assert len(reads) == 1
        assert [row.position for row in await recent.after(start + 2)] == [start + 3]
        await add(3)
        assert await recent.after(start) is None
        assert [row.position for row in await recent.after(start + 2)] == [start + n for n in (3, 4, 5, 6)]
        await add(1200)
        assert await recent.after(start + 6) is None
        last = await ctx.store.position()
        assert [row.position for row in await recent.after(last - 4)] == [last - 3, last - 2, last - 1, last]


@pytest.mark.parametrize("how", ["soon", "at the end"])
async def test_where_a_server_stands_is_kept(tmp_path, monkeypatch, how):
    monkeypatch.setattr(sender, "_SAVE_AFTER_S", 0.0 if how == "soon" else 3600.0)
    async with server_with_peer(tmp_path) as house:
        house.peer.answer = lambda request: (200, {}) if "/send/" in request.target else None
        matrix = house.matrix
        await spoken(house, "hello")
        peer, store = matrix.destination_queues[THEIRS], matrix.store
        async with asyncio.timeout(5):
            await until(lambda: peer.position and peer.task is not None and peer.task.done())
            if how == "at the end":
                await matrix.network.stop()
            while (row := await store.get("destination", (THEIRS,))) is None:
                await asyncio.sleep(0)
        assert row.fields["position"] == peer.position


@pytest.mark.parametrize("version", ["1", "10", "12"])
async def test_a_flood_of_branches_neither_stops_a_room_nor_undoes_a_ban(tmp_path, version):
    """Hundreds of state events follow one and the same event: more than a turn keeps in memory, and more
    than each further event may cost.
    """
    async with server_with_peer(tmp_path, version) as house:
        matrix, room = house.matrix, house.room
        matrix.keep_forward_extremities()
        store, user = matrix.store, room.user
        here = matrix.get_room(room.room_id)
        tips = list(room.tips)
        refusal = await matrix.local_events.send_membership(
            matrix.bridge_user,
            room.room_id,
            Member(user=NativeId("matrix", "@bad:x"), membership=Membership.BAN),
            "@bad:x",
            {"membership": "ban"},
        )
        assert refusal is None

        async def flood(batches: int) -> None:
            for batch in range(0, batches * 50, 50):
                raws = []
                for n in range(batch, batch + 50):
                    content = {"membership": "join", "displayname": f"n{n}"}
                    draft = house.forger.draft(room, "m.room.member", content, user, prev_events=tips)
                    raws.append(house.forger.finish(room, draft))
                assert (await house.send(*raws))[0] == 200
                assert (await house.send(house.forger.message(room, f"m{batch}", prev_events=tips)))[0] == 200
            async with asyncio.timeout(30):
                while await store.scan("staged", limit=1):
                    await asyncio.sleep(0.005)

        await flood(6)
        assert house.counted("matrix_pdus") == {}
        assert len(here.head.extremities) <= MAX_ENDS
        assert len(set(here.head.extremities.values())) <= MAX_BRANCHES
        state = await here.state()
        members = await here.events_of(state, [("m.room.member", "@bad:x")])
        assert members["m.room.member", "@bad:x"].membership == "ban"
        assert await house.fate(house.forger.message(room, "over all", prev_events=tips)) == "accepted"
        ours = await spoken(house, "ours too")
        _, answer = await house.ask("GET", f"{V1}/event/{quote(ours, safe='')}")
        assert len(answer["pdus"][0]["prev_events"]) == 20


async def test_what_a_turn_makes_is_there_however_much_it_makes(tmp_path):
    """More state groups than are kept in memory, none of them durable yet."""
    async with server_with_peer(tmp_path) as house:
        groups = house.matrix.get_room(house.room.room_id).groups
        first = await groups.load(groups.last)
        made = [groups.after(groups.last, first, ("x", str(n)), f"${n}") for n in range(300)]
        for n, group in enumerate(made):
            assert (await groups.load(group))["x", str(n)] == f"${n}"
