"""An operator sees what takes a rank in a Matrix room, as its power levels are now."""

from __future__ import annotations

from types import SimpleNamespace

from clients.linked_chat import linked_chat
from hansa import Kind, NativeId
from hansa.admin.rooms import RoomCommands
from hansa.host.room_names import RoomNames


async def test_power_levels_say_what_takes_a_rank(tmp_path):
    async with linked_chat(tmp_path, rooms=()) as (home, _):
        app, alice = home.app, await home.person("alice")
        room = await alice.create(preset="public_chat")
        matrix = app.network("matrix")
        kinds = await matrix.restricted_kinds(room)
        assert Kind.TOPIC in kinds and Kind.NAME in kinds and Kind.MESSAGE not in kinds
        levels = await alice.get(f"/rooms/{room}/state/m.room.power_levels")
        await alice.state(
            room, "m.room.power_levels", {**levels, "events_default": 10, "state_default": 0, "events": {}}
        )
        kinds = await matrix.restricted_kinds(room)
        assert Kind.TOPIC not in kinds and {Kind.MESSAGE, Kind.REACTION} <= set(kinds)

        native = NativeId("matrix", room)
        await app.linker.link_room(["chat:side"], app.rooms.room_of(native).id)
        commands = RoomCommands(app, RoomNames(app))
        shown = await commands.room(SimpleNamespace(path={"room": app.rooms.room_of(native).id}), None)
        (pair,) = [pair for pair in shown["crosses"] if pair["from"] == "chat"]
        assert "message" in pair["ranked"] and "topic" not in pair["ranked"]
        (back,) = [pair for pair in shown["crosses"] if pair["from"] == "matrix"]
        assert back["ranked"] == []
