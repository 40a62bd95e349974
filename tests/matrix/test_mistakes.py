"""Mistakes that implementers of Matrix servers have made (docs/rules.md), each a test that fails if it is made here."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from hansa import LocalProtocolError, Row
from hansa_matrix.federation.client import RemoteError
from hansa_matrix.federation.destination_queue import DestinationQueue
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from hansa_matrix.rooms.event_store import Status, StoredEvent
from matrix.server_with_peer import OURS, THEIRS, V2, ServerWithPeer, server_with_peer

USER = f"@m:{THEIRS}"


async def say(house: ServerWithPeer, kind: str, key: str | None, content: dict[str, Any]) -> str:
    """Sends an event of a local user; returns its id."""
    made = await house.matrix.local_events.send_state(house.room.room_id, kind, key, content)
    return str(made)


async def status(house: ServerWithPeer, name: str) -> str:
    """Returns the status of an event, as soon as it is stored."""
    async with asyncio.timeout(5):
        while True:
            row = await house.matrix.store.get("pdu", (name,))
            if row is not None and row.fields["after"]:
                return str(row.fields["status"])
            await asyncio.sleep(0)


def room(house: ServerWithPeer) -> Any:
    return house.matrix.get_room(house.room.room_id)


def state_event(
    house: ServerWithPeer, kind: str, content: dict[str, Any], **over: Any
) -> tuple[str, dict[str, Any]]:
    raw = house.forger.finish(house.room, house.forger.draft(house.room, kind, content, "", **over))
    return event_id(raw, house.room.version), raw


async def mighty(house: ServerWithPeer) -> None:
    """The forger's person may do everything."""
    named = {"room": house.room.room_id, "user": USER, "level": 100}
    event = (await house.matrix.network.admin_commands()["rooms level"](named))["event"]
    house.room.state["m.room.power_levels", ""] = event
    house.room.tips = {event: 50}


@pytest.mark.parametrize("version", ["10", "11", "12"])
async def test_mistake_17_nobody_creates_a_room_twice(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        await mighty(house)
        content = {"room_version": version, "creator": USER}
        _, raw = state_event(house, "m.room.create", content)
        _, answer = await house.send(raw)
        assert answer["pdus"] == {}
        with pytest.raises(LocalProtocolError, match="created only once"):
            await house.matrix.network.admin_commands()["rooms set"](
                {"room": house.room.room_id, "type": "m.room.create", "content": "{}"}
            )


async def test_mistakes_20_and_21_the_branches_of_a_fork_are_resolved_together(tmp_path):
    async with server_with_peer(tmp_path) as house:
        await mighty(house)
        topic, one = state_event(house, "m.room.topic", {"topic": "left"})
        name, other = state_event(house, "m.room.name", {"name": "right"})
        await house.send(one)
        await house.send(other)
        assert [await status(house, e) for e in (topic, name)] == ["accepted", "accepted"]
        state = await room(house).state()
        assert (state["m.room.topic", ""], state["m.room.name", ""]) == (topic, name)
        assert set(room(house).head.extremities) == {topic, name}
        await say(house, "m.room.message", None, {"body": "joins them"})
        assert len(room(house).head.extremities) == 1
        assert await room(house).state() == state


async def test_mistake_23_a_rejected_event_changes_no_state_and_what_follows_it_is_judged_by_itself(tmp_path):
    async with server_with_peer(tmp_path) as house:
        before = await room(house).state()
        ends = dict(room(house).head.extremities)
        rejected, raw = state_event(house, "m.room.power_levels", {"users": {USER: 100}})
        await house.send(raw)
        assert await status(house, rejected) == "rejected"
        assert await room(house).state() == before and room(house).head.extremities == ends
        after = house.forger.message(house.room, "after it", prev_events=[rejected])
        await house.send(after)
        assert await status(house, event_id(after, house.room.version)) == "accepted"
        assert await room(house).state() == before


async def test_mistake_24_soft_failed_events_are_no_ends_and_take_none_away(tmp_path):
    async with server_with_peer(tmp_path) as house:
        old = dict(house.room.tips)
        ban = await say(house, "m.room.member", USER, {"membership": "ban"})
        late = house.forger.message(house.room, "from before the ban", prev_events=list(old))
        await house.send(late)
        name = event_id(late, house.room.version)
        assert await status(house, name) == "soft_failed"
        assert set(room(house).head.extremities) == {ban}
        assert await house.app.contexts["matrix"].event_by(name) is None
        await say(house, "m.room.message", None, {"body": "goes on"})
        assert len(room(house).head.extremities) == 1


async def test_mistake_28_an_event_that_is_named_twice_comes_before_once(tmp_path):
    async with server_with_peer(tmp_path) as house:
        (tip,) = house.room.tips
        twice = house.forger.message(house.room, "x", prev_events=[tip, tip])
        await house.send(twice)
        name = event_id(twice, house.room.version)
        assert await status(house, name) == "accepted"
        ours = await say(house, "m.room.message", None, {"body": "y"})
        made = await room(house).events.load([ours, name], house.room.version)
        assert made[ours].pdu.prev_events == (name,)
        assert made[ours].pdu.depth == made[name].pdu.depth + 1


async def test_mistake_33_an_invite_that_comes_twice_is_one(tmp_path):
    async with server_with_peer(tmp_path) as house:
        target = f"@somebody:{OURS}"
        draft = house.forger.draft(house.room, "m.room.member", {"membership": "invite"}, target)
        raw = house.forger.finish(house.room, draft)
        name = event_id(raw, house.room.version)
        where = f"{quote(house.room.room_id, safe='')}/{quote(name, safe='')}"
        body = {
            "room_version": "12",
            "event": raw,
            "invite_room_state": [house.forger.created[house.room.room_id]],
        }
        answered, signed = await house.ask("PUT", f"{V2}/invite/{where}", body)
        assert answered == 200
        for _ in range(2):
            await house.send(signed["event"])
        assert await status(house, name) == "accepted"
        again = await house.ask("PUT", f"{V2}/invite/{where}", body)
        assert again[0] == 200
        members = [k for k in await room(house).state() if k == ("m.room.member", target)]
        assert len(members) == 1
        assert await house.matrix.pending_invites.every() == []  # it is in the room that we are in


async def test_mistake_35_a_server_asks_itself_nothing(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        with pytest.raises(RemoteError, match="no requests to itself"):
            await matrix.federation_client.request("GET", OURS, "/_matrix/federation/v1/version")
        asked = len(house.peer.asked)
        await say(house, "m.room.message", None, {"body": "x"})
        matrix.sender.send_ephemeral([OURS], ("a",), {})
        for _ in range(50):
            await asyncio.sleep(0)
        assert OURS not in matrix.destination_queues
        assert all(request.host_header != OURS for request in house.peer.asked[asked:])


def backlog(count: int, rooms: int) -> list[Row]:
    return [
        Row(key=(n + 1,), fields={"room_id": f"!{n % rooms}", "event_id": f"${n}", "recipients": 1}, body=b"")
        for n in range(count)
    ]


@pytest.mark.parametrize(("count", "sent"), [(1, 1), (50, 50), (1001, 3), (5000, 3)])
def test_mistake_36_only_a_long_backlog_is_cut_to_the_newest_of_each_room(count, sent):
    chosen = DestinationQueue._catch_up_events(backlog(count, 3))
    assert len(chosen) == sent
    assert chosen[-1].position == count and [r.position for r in chosen] == sorted(r.position for r in chosen)


async def test_mistake_25_an_auth_chain_is_whole_each_time_it_is_asked_for(tmp_path):
    """Nothing is remembered of a walk, so nothing can be remembered of one that broke off."""
    async with server_with_peer(tmp_path) as house:
        name, raw = state_event(house, "m.room.topic", {"topic": "x"})
        await mighty(house)
        name, raw = state_event(house, "m.room.topic", {"topic": "x"})
        await house.send(raw)
        assert await status(house, name) == "accepted"
        events, version = room(house).events, house.room.version
        chain = await events.auth_chain([name], version)
        gone = house.room.state["m.room.join_rules", ""]
        kept, load = chain[gone], events.load

        async def without(ids: Any, of: Any) -> Any:
            return {k: v for k, v in (await load(ids, of)).items() if k != gone}

        events.load = without
        assert gone not in await events.auth_chain([name], version)
        events.load = load
        assert (await events.auth_chain([name], version))[gone] is kept
        assert name not in chain  # mistake 18
        assert all(pdu_from_raw(s.pdu.raw, version).event_id == e for e, s in chain.items())


@pytest.mark.parametrize("version", ["2", "10", "12"])
async def test_r7_what_was_rejected_as_an_outlier_is_judged_anew_when_it_comes_by_itself(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        await mighty(house)
        name, raw = state_event(house, "m.room.topic", {"topic": "after all"})
        outlier = StoredEvent(
            pdu_from_raw(raw, house.room.version), Status.REJECTED, reason="3.rejected: as an outlier"
        )
        await house.matrix.store.commit([outlier.insert()])
        house.matrix.event_store.keep([outlier])
        assert (await house.send(raw))[0] == 200
        assert await status(house, name) == "accepted"
        assert (await room(house).state())["m.room.topic", ""] == name
        stored = (await room(house).events.load([name], house.room.version))[name]
        assert stored.reason == ""
        _, again = state_event(house, "m.room.name", {"name": "built on it"}, prev_events=[name])
        house.room.keep(pdu_from_raw(raw, house.room.version))
        assert await house.fate(again) == "accepted"
