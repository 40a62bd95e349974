"""Rooms are named by operators as they like: by the core's id, a network's id, or an address."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest
from core.test_admin_gate import request
from hansa import LocalProtocolError, Message, NamesRooms, OpenedRoom, RemoteProtocolError, RoomWish
from hansa.admin.deliveries import DeliveryCommands
from hansa.admin.policies import PolicyCommands
from hansa.admin.rooms import RoomCommands
from hansa.app import App
from hansa.cli import show
from hansa.host.room_names import RoomNames
from hansa.model.commands import format_pairs
from hansa.testing import Actor, run_hansa
from hansa.testing.actor import Config, module


def named(made: dict[str, Actor], addresses: Mapping[str, str]) -> Any:
    """A plugin whose rooms have addresses: ``address -> id``; ``made`` gets its networks."""
    plugin = module(made)
    wishes: dict[str, RoomWish] = {}

    class Named(Actor):
        wished = wishes

        async def room_at(self, address: str) -> str | None:
            return addresses.get(address)

        async def addresses_of(self, natives: Collection[str]) -> Mapping[str, Sequence[str]]:
            return {native: [a] for a, native in addresses.items() if native in natives}

        async def found_room(self, address: str, wish: RoomWish) -> OpenedRoom:
            wishes[address] = wish
            return await self.open_room(address, create=True)

    from hansa import hookimpl

    @hookimpl
    def open_network(ctx: Any) -> Actor:
        made[ctx.id] = Named(ctx)
        return made[ctx.id]

    plugin.open_network = open_network
    return plugin


async def _everything(app: App, name: str) -> set[str]:
    """Returns the result of each command for a name, as the id of its room or link."""
    names = RoomNames(app)
    rooms, policies = RoomCommands(app, names), PolicyCommands(app, names)
    shown = await rooms.room(request(room=name), None)
    tested = await policies.test(request(), {"room": name, "sender": "right:ann@x", "text": "hi"})
    assert tested["action"] == "allow"
    await rooms.link(request(), {"room": name, "links": ["right:b"]})
    return {shown["room"]}


@pytest.mark.parametrize("name", ["left:a", "left:#lobby", "#lobby", ""])
async def test_every_command_takes_any_name(name: str) -> None:
    made: dict[str, Actor] = {}
    plugin = named(made, {"#lobby": "a"})
    async with run_hansa(
        {"left": (plugin, Config()), "right": (plugin, Config())}, rooms=[["left:a", "right:b"]]
    ) as app:
        assert isinstance(made["left"], NamesRooms)
        (room,) = app.rooms
        assert await _everything(app, name or room.id) == {room.id}
        rooms = RoomCommands(app, RoomNames(app))
        deliveries = DeliveryCommands(app, RoomNames(app))
        (listed,) = await rooms.rooms(request(), None)
        assert listed["addresses"] == ["left:#lobby"]
        assert "left:#lobby" in show.rooms([listed])
        assert "left:#lobby" in show.room(await rooms.room(request(room=room.id), None))
        if not name:
            return
        link = "left:a" if name == "#lobby" else name
        assert await deliveries.retry(request(), {"link": link}) == {"sent": 0, "failed": 0}
        assert await rooms.unlink(request(), {"link": link}) == {"unlinked": "left:a"}


async def test_a_name_that_leads_nowhere_or_to_several_rooms_is_told() -> None:
    made: dict[str, Actor] = {}
    plugin = named(made, {"#lobby": "a"})
    async with run_hansa(
        {"left": (plugin, Config()), "right": (plugin, Config())}, rooms=[["left:a"], ["right:a"]]
    ) as app:
        names = RoomNames(app)
        with pytest.raises(RemoteProtocolError, match="several rooms: use one of left:a, right:a"):
            await names.room("#lobby")
        for nowhere in ("#attic", "left:#attic", "left:z", "nowhere:a", ":", ""):
            with pytest.raises(RemoteProtocolError, match="there is no room"):
                await names.room(nowhere)
        assert (await names.room("right:#lobby")).links.keys() == {"right:a"}


async def test_a_wish_reaches_the_network_that_makes_the_room() -> None:
    made: dict[str, Actor] = {}
    plugin = named(made, {})
    async with run_hansa({"left": (plugin, Config()), "right": (plugin, Config())}) as app:
        rooms = RoomCommands(app, RoomNames(app))
        body = {"links": ["left:a", "right:b"], "name": "Lobby", "published": True}
        await rooms.create(request(), body)
        assert made["left"].wished == dict.fromkeys(("a", "b"), RoomWish(name="Lobby", published=True))
        await made["left"].join("a", "ann@x")
        assert (await made["left"].do("a", "ann@x", Message(text="hi"))).refusal is None


def test_small_answers_are_in_words() -> None:
    found = {"user": "@a:x", "admin": True, "reloaded": ["policy a", "certificates"], "needs_restart": []}
    assert format_pairs(found) == "user: @a:x\nadmin: yes\nreloaded: policy a, certificates"
    assert format_pairs({"left": None, "counts": {"a": 1, "b": False}, "seq": 0}) == (
        "left: none\ncounts: a: 1, b: no\nseq: 0"
    )


async def test_nothing_is_made_where_one_of_the_links_cannot_be() -> None:
    made: dict[str, Actor] = {}
    async with run_hansa({"left": (module(made), Config())}) as app:
        for bad in ("nowhere:#y", "lobby", "left:"):
            with pytest.raises(LocalProtocolError, match=bad.partition(":")[0]):
                await app.link_room(["left:a", bad], create=True)
        assert list(app.rooms) == []
