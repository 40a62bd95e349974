"""A room that forks again and again is merged by this server, if a local user may send in it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hansa import Member, Membership, NativeId
from hansa.testing import until
from hansa_matrix.rooms.inbound.extremity_merge import DUMMY
from hansa_matrix.rooms.room import MatrixRoom
from matrix.server_with_peer import ServerWithPeer, server_with_peer


def room_of(house: ServerWithPeer) -> MatrixRoom:
    found = house.matrix.get_room(house.room.room_id)
    assert isinstance(found, MatrixRoom)
    return found


async def forked(house: ServerWithPeer, count: int, **over: Any) -> None:
    """So many events beside each other, taken and judged."""
    for number in range(count):
        raw = house.forger.message(house.room, f"m{number}", **over)
        assert (await house.send(raw))[0] == 200
    line = house.matrix.room_queues[house.room.room_id]
    await until(lambda: not line.running)


async def told(house: ServerWithPeer, count: int) -> list[dict[str, Any]]:
    """The dummy events that the forger's server got."""
    async with asyncio.timeout(10):
        while True:
            bodies = [orjson.loads(r.body or b"{}") for r in house.peer.asked if "/send/" in r.target]
            sent = [pdu for body in bodies for pdu in body["pdus"] if pdu["type"] == DUMMY]
            if len(sent) >= count:
                return sent
            await asyncio.sleep(0.01)


def accept(house: ServerWithPeer) -> None:
    house.peer.answer = lambda request: (200, {"pdus": {}}) if "/send/" in request.target else None


@pytest.mark.parametrize("version", ["2", "10", "12"])
async def test_more_than_ten_ends_are_tied_together(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        accept(house)
        await forked(house, 10)
        room = room_of(house)
        assert len(room.head.extremities) == 10
        assert "matrix_forks_healed" not in {name for name, _ in house.app.counters}
        await forked(house, 1)
        assert len(room.head.extremities) == 1
        (dummy,) = await told(house, 1)
        assert len(dummy["prev_events"]) == 11
        assert dummy["content"] == {}
        assert "state_key" not in dummy
        assert dummy["sender"] == house.matrix.bridge_user


async def test_the_bridge_user_ties_before_anybody_else_does(tmp_path):
    async with server_with_peer(tmp_path) as house:
        accept(house)
        matrix = house.matrix
        early = f"@aaa:{matrix.bridge_user.partition(':')[2]}"
        joins = Member(user=NativeId("matrix", early), membership=Membership.JOIN)
        draft = ("m.room.member", early, {"membership": "join"})
        assert await matrix.local_events.send(early, house.room.room_id, joins, draft) is None
        await forked(house, 12)
        (dummy,) = await told(house, 1)
        assert dummy["sender"] == matrix.bridge_user
        room, server = room_of(house), early.partition(":")[2]
        assert [user async for user in room.joined_users_of(server)] == [early, matrix.bridge_user]
        leaves = Member(user=NativeId("matrix", early), membership=Membership.LEAVE)
        draft = ("m.room.member", early, {"membership": "leave"})
        assert await matrix.local_events.send(early, house.room.room_id, leaves, draft) is None
        assert [user async for user in room.joined_users_of(server)] == [matrix.bridge_user]


async def test_as_many_as_it_takes(tmp_path):
    async with server_with_peer(tmp_path) as house:
        accept(house)
        await house.send(*(house.forger.message(house.room, f"m{n}") for n in range(50)))
        await forked(house, 1)
        assert len(room_of(house).head.extremities) <= 10
        sizes = [len(dummy["prev_events"]) for dummy in await told(house, 3)]
        assert sizes[:2] == [20, 20]
        assert max(sizes) == 20


async def test_where_nobody_of_ours_may_speak_it_is_tried_once_an_hour(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path, "10") as house:
        accept(house)
        administration = house.matrix.local_events
        room_id = house.room.room_id
        (levels,) = [
            p
            for p in await room_of(house).state_events(await room_of(house).state())
            if p.type == "m.room.power_levels"
        ]
        bridge = house.matrix.bridge_user
        content = {**levels.content, "events": {DUMMY: 100}, "users": {bridge: 50}}
        await administration.send_state(room_id, "m.room.power_levels", "", content)
        tried: list[str] = []
        say = administration.send

        async def watched(sender: str, *rest: Any) -> Any:
            tried.append(sender)
            return await say(sender, *rest)

        monkeypatch.setattr(administration, "send", watched)
        await forked(house, 12)
        assert len(room_of(house).head.extremities) >= 12
        assert len(tried) == 1
        await forked(house, 3)
        assert len(tried) == 1
        now = house.app.contexts["matrix"].clock.monotonic()
        monkeypatch.setattr(type(house.app.contexts["matrix"].clock), "monotonic", lambda _: now + 3601)
        await forked(house, 1)
        assert len(tried) == 2
