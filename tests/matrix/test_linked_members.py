"""Who is in a room when it is linked gets a ghost in Matrix; an unlinked room's ghosts leave."""

from __future__ import annotations

from typing import Any

from hansa import NativeId
from hansa.testing import until
from matrix.server_with_peer import OURS, ServerWithPeer
from matrix.test_kinds_cross import linked

JULIET = NativeId("stage", "juliet@x")


async def membership(house: ServerWithPeer, room_id: str) -> str:
    """The membership of Juliet's ghost in the state of a Matrix room; empty if it has none."""
    ghost = await house.app.contexts["matrix"].get_ghost_id(JULIET)
    room = house.matrix.get_room(room_id)
    assert room is not None
    key = ("m.room.member", ghost)
    found: Any = await room.events_of(await room.state(), [key])
    return str(found[key].content["membership"]) if key in found else ""


async def test_the_ghosts_of_an_unlinked_room_leave_the_matrix_room(tmp_path):
    async with linked(tmp_path) as house:
        room_id = house.peer.room.room_id
        await house.stage.join("lobby", JULIET.id)
        await until(lambda: _is(house, room_id, "join"))
        link = house.peer.app.rooms.link(NativeId("stage", "lobby"))
        await house.peer.app.linker.unlink_room(link)
        assert await membership(house.peer, room_id) == "leave"
        assert house.peer.app.rooms.link(NativeId("matrix", room_id)) is not None
        view = house.ctx.get_view(room_id)
        assert not [person for person in view.joined() if person.user.network == "stage"]


async def test_the_ghosts_in_a_matrix_room_that_is_unlinked_itself_leave_it_and_its_own_people_stay(tmp_path):
    async with linked(tmp_path) as house:
        app, room_id = house.peer.app, house.peer.room.room_id
        await house.stage.join("lobby", JULIET.id)
        await until(lambda: _is(house, room_id, "join"))
        await app.linker.unlink_room(app.rooms.link(NativeId("matrix", room_id)))
        await until(lambda: _is(house, room_id, "leave"))
        room = house.peer.matrix.get_room(room_id)
        assert room is not None
        assert [user async for user in room.joined_users_of(OURS)] == [house.peer.matrix.bridge_user]
        view = app.rooms.room_of(NativeId("stage", "lobby")).view
        assert [person.user for person in view.joined()] == [JULIET]


async def test_those_who_were_there_before_a_matrix_room_is_linked_enter_it(tmp_path):
    async with linked(tmp_path) as house:
        app = house.peer.app
        alone = await app.link_room(["stage:garden"])
        await house.stage.join("garden", JULIET.id, "Juliet")
        await app.link_room(["matrix:#garden"], alone, create=True)
        room_id = await house.peer.matrix.network.room_at(f"#garden:{OURS}")
        await until(lambda: _is(house, room_id, "join"))


async def _is(house: Any, room_id: str, wanted: str) -> bool:
    return await membership(house.peer, room_id) == wanted
