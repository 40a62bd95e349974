"""Rooms that an operator makes: named, published, administered, and meant by their addresses."""

from __future__ import annotations

import pytest
from clients.matrix_server import matrix_server, part
from core.test_admin_gate import request
from hansa import Delete, LocalProtocolError, RoomWish
from hansa.admin.rooms import RoomCommands
from hansa.cli.main import commands_of
from hansa.host.room_names import RoomNames
from matrix.server_with_peer import OURS, THEIRS

PUBLISHED = "/publicRooms?limit=1000"


async def _made(home, wish: RoomWish, name: str = "plaza") -> str:
    room = await home.app.link_room([f"matrix:#{name}"], create=True, wish=wish)
    (link,) = home.app.rooms.get(room).links.values()
    return link.native.id


async def _state(person, room: str) -> dict:
    return {(e["type"], e["state_key"]): e["content"] for e in await person.get(f"/rooms/{part(room)}/state")}


async def test_a_room_of_the_configuration_has_a_name_and_is_published_where_that_is_said(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        hidden = await _made(home, RoomWish(), "attic")
        room = await _made(home, RoomWish(name="The plaza", published=True))
        await alice.join(room)
        await alice.join(hidden)
        assert (await _state(alice, room))["m.room.name", ""] == {"name": "The plaza"}
        assert (await _state(alice, hidden))["m.room.name", ""] == {"name": "attic"}
        listed = {r["room_id"]: r["name"] for r in (await alice.get(PUBLISHED))["chunk"]}
        assert listed == {room: "The plaza"}
        # Said later of a room that is there: published at the next start; its name is its people's by then.
        await _made(home, RoomWish(name="Another", published=True), "attic")
        assert {r["room_id"]: r["name"] for r in (await alice.get(PUBLISHED))["chunk"]} == {
            room: "The plaza",
            hidden: "attic",
        }
        unnamed = await home.matrix.network.room_at(f"#one:{OURS}")
        await _made(home, RoomWish(name="One"), "one")
        await alice.join(unnamed)
        assert (await _state(alice, unnamed))["m.room.name", ""] == {"name": "One"}


@pytest.mark.parametrize("version", ["11", "12"])
async def test_who_names_a_room_and_who_administers_it_is_the_operators_word(tmp_path, version):
    operator = f"@alice:{OURS}"
    async with matrix_server(tmp_path, version, naming_level=50, operator=operator) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await _made(home, RoomWish())
        for person in (alice, bob):
            await person.join(room)
        for kind, content in (("m.room.name", {"name": "x"}), ("m.room.topic", {"topic": "x"})):
            assert (await bob.ask("PUT", f"/rooms/{part(room)}/state/{kind}/", content))[0] == 403
            await alice.state(room, kind, content)
        levels = (await _state(alice, room))["m.room.power_levels", ""]
        assert levels["users"][operator] == 100
        await alice.state(room, "m.room.power_levels", {**levels, "users": {**levels["users"], bob.user: 50}})
        await bob.state(room, "m.room.topic", {"topic": "y"})


async def test_a_level_of_zero_lets_everybody_name_a_room(tmp_path):
    async with matrix_server(tmp_path, naming_level=0) as home:
        bob = await home.person("bob")
        room = await _made(home, RoomWish())
        await bob.join(room)
        await bob.state(room, "m.room.topic", {"topic": "y"})


@pytest.mark.parametrize(("name", "shown"), [("Bridge", {"displayname": "Bridge"}), ("", {})])
async def test_the_bridge_user_has_a_name(tmp_path, name, shown):
    async with matrix_server(tmp_path, bridge_name=name) as home:
        alice, bridge = await home.person("alice"), f"@hansa:{OURS}"
        room = await _made(home, RoomWish())
        await alice.join(room)
        assert (await _state(alice, room))["m.room.member", bridge] == {"membership": "join", **shown}
        assert await alice.get(f"/profile/{part(bridge)}") == shown
        assert (await _state(alice, room))["m.room.member", alice.user]["displayname"] == "alice"


async def test_every_command_that_takes_a_room_takes_its_address(tmp_path):
    """No command may say that it does not know the room; what else it says of it is its own affair."""
    async with matrix_server(tmp_path) as home:
        operations = home.matrix.network.admin_commands()
        taking = [c for c in commands_of("matrix") if any(a.name == "room" for a in c.arguments)]
        assert len(taking) > 10
        more = {
            "event": "$x",
            "user": f"@alice:{OURS}",
            "level": 5,
            "version": "12",
            "type": "x",
            "content": "{}",
        }
        for command in sorted(taking, key=lambda c: c.words == "rooms purge"):
            if command.words == "rooms knock":
                continue
            heard = []

            async def told(address: str, words: str = command.words, heard: list = heard) -> str:
                try:
                    return str(await operations[words]({**more, "room": address}))
                except LocalProtocolError as error:
                    heard.append(str(error))
                    return str(error)

            assert "no room is called #nowhere" in await told("#nowhere")
            said = await told("#one")
            assert "no room is called" not in said and "there is no room #" not in said, (command.words, said)
            assert "not in #one" not in said, (command.words, said)


async def test_rooms_are_listed_with_their_addresses(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(room_alias_name="balcony", name="Balcony")
        rooms, shed = RoomCommands(home.app, RoomNames(home.app)), await _made(home, RoomWish(), "shed")
        listed = {r["name"]: r["addresses"] for r in await rooms.rooms(request(), None)}
        assert listed["Balcony"] == [f"matrix:#balcony:{OURS}"]
        assert listed["shed"] == [f"matrix:#shed:{OURS}"]
        shown = await rooms.room(request(room="#balcony"), None)
        assert [link["link"] for link in shown["links"]] == [f"matrix:{room}"]
        # Without a local alias, the alias in its state; never one of this server, which are rows of its
        # store.
        matrix = home.matrix
        await matrix.store.commit([Delete("room_alias", (f"#shed:{OURS}",))])
        for server, found in ((THEIRS, [f"matrix:#x:{THEIRS}"]), (OURS, [])):
            content = f'{{"alias": "#x:{server}"}}'
            arguments = {"room": shed, "type": "m.room.canonical_alias", "content": content}
            await matrix.network.admin_commands()["rooms set"](arguments)
            listed = {r["name"]: r["addresses"] for r in await rooms.rooms(request(), None)}
            assert listed["shed"] == found
