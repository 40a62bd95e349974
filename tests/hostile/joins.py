"""Rooms of a hostile server whose every event is signed as it should be, and whose state is as much as it may be."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from hostile.scene import Evil, Scene, part
from peers.event_forge import JoinedRoom

Run = Callable[[Scene], Awaitable[object]]
More = Callable[[Evil, JoinedRoom], list[dict[str, Any]]]


def joining(more: More) -> Run:
    """Romeo joins a room with so much more state; all of it must arrive."""

    async def run(scene: Scene) -> None:
        evil = await scene.fresh()
        room, state = evil.founded(f"@mallory:{evil.name}")
        state += more(evil, room)
        evil.answers["/make_join/"] = evil.template(room, scene.romeo.id, "join")
        evil.says("/send_join/", orjson.dumps({"state": state, "auth_chain": [], "servers_in_room": []}))
        del state
        target = f"/_matrix/client/v3/join/{part(room.room_id)}?server_name={part(evil.name)}"
        try:
            assert await scene.as_romeo("POST", target, b"{}") == 200
        finally:
            evil.answers.clear()

    return run


def large(count: int) -> More:
    """State of 60 KiB each, of the smallest values."""
    values = [{"": 0}] * 8000

    def made(evil: Evil, room: JoinedRoom) -> list[dict[str, Any]]:
        return [evil.finish(room, evil.draft(room, "m.x", {"x": values}, str(n))) for n in range(count)]

    return made


def members(count: int) -> More:
    """People who are in it."""

    def made(evil: Evil, room: JoinedRoom) -> list[dict[str, Any]]:
        found = []
        for _ in range(count):
            one = JoinedRoom(room.room_id, room.version.id, f"@{secrets.token_hex(4)}:{evil.name}")
            one.state, one.tips = room.state, room.tips
            draft = evil.draft(one, "m.room.member", {"membership": "join"}, one.user)
            found.append(evil.finish(one, draft))
        return found

    return made


#: ``name -> (what is done, MiB, ms held)``. A join has to keep what the room is made of: the bytes of its events
#: until they are stored, and who is in it for as long as we are. 500 pieces of state are 30 MiB of bytes, 20,000
#: people some 10 KiB each.
JOINS: dict[str, tuple[Run, float, float]] = {
    "500 pieces of state of 60 KiB": (joining(large(500)), 80.0, 20.0),
    "20,000 people": (joining(members(20_000)), 256.0, 250.0),
}
