"""A room with more ends than an event may follow, and a sender that misses nothing of what is committed."""

from __future__ import annotations

from urllib.parse import quote

from hansa import Append, Inbound, Message, Put, Ref
from hansa_matrix.proto.hashing import event_id
from matrix.inbound import OURS, V1, inbound


async def spoken(house, text):
    """An event of our bridge user; its id on Matrix."""
    ctx = house.app.contexts["matrix"]
    (outcome,) = await ctx.submit(
        [
            Inbound(
                origin=Ref("matrix", f"own-{text}"),
                room=Ref("matrix", house.room.room_id),
                sender=Ref("matrix", f"@hansa:{OURS}"),
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
    async with inbound(tmp_path) as house:
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


async def test_what_is_committed_while_a_sender_reads_is_not_passed_over(tmp_path, monkeypatch):
    """Two sets of recipients; between the readings of the first and the second, both get an event."""
    async with inbound(tmp_path) as house:
        sender, ctx = house.app.runners["matrix"].network._sender, house.app.contexts["matrix"]
        first, second = sender._named(["a.test", "b.test"])[0], sender._named(["a.test"])[0]
        for set_id, names in ((first, ("a.test", "b.test")), (second, ("a.test",))):
            sender._learn(set_id, names)
        peer = sender._peers["a.test"]
        scan, reads = ctx.store.scan, []

        async def interrupted(*args, **options):
            rows = await scan(*args, **options)
            reads.append(options["equal"])
            if len(reads) == 1:
                for set_id in (first, second):
                    fields = {"recipients": set_id, "event_id": f"$to-{set_id}", "room_id": "!r"}
                    await ctx.store.commit([Append("out", b"", fields)])
            return rows

        monkeypatch.setattr(ctx.store, "scan", interrupted)
        before = await sender._waiting(peer)
        after = await sender._waiting(peer)
        assert len(reads) == 4
        seen = [row.fields["event_id"] for row in before]
        assert [row.fields["event_id"] for row in after] == [f"$to-{first}", f"$to-{second}"]
        assert seen == [] or seen[0] == f"$to-{first}"


async def test_a_set_that_was_learned_by_a_turn_that_failed_is_stored_by_the_next(tmp_path):
    async with inbound(tmp_path) as house:
        sender = house.app.runners["matrix"].network._sender
        for _ in range(2):
            assert [type(w) for w in sender.writes("$e", "!r", ["c.test"])] == [Append, Put]
        sender.sent(["c.test"])
        assert [type(w) for w in sender.writes("$e", "!r", ["c.test"])] == [Append]
