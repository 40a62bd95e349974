"""Rows of the core end with what they belong to: a link, a room, or their time."""

from __future__ import annotations

import pytest
from hansa import DeliveryRejected, Message, NativeId, Submission
from hansa.app import App
from hansa.bus import event_names
from hansa.bus.room_removal import remove_room
from hansa.store.base import Put
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing import run_hansa, until
from hansa.testing.actor import Actor, Config, module

ROOM = (("left:a", "right:b"),)
RIGHT = NativeId("right", "b")


def networks(made):
    return dict.fromkeys(("left", "right"), (module(made), Config()))


async def submit_chosen(actor: Actor, room: str, chosen: str) -> None:
    inbound = Submission(
        origin=NativeId(actor.ctx.id, f"said {chosen}"),
        room=NativeId(actor.ctx.id, room),
        sender=NativeId(actor.ctx.id, "ann@x"),
        content=Message(text="x"),
        ts=actor.ctx.clock.now(),
        chosen_ids=(chosen,),
    )
    (done,) = await actor.ctx.submit([inbound])
    assert done.event is not None


async def links_of(app: App, collection: str) -> set[str]:
    return {str(row.key[0]) for row in await app.core.scan(collection)}


async def reject_every_event(app: App, left: Actor, right: Actor) -> None:
    def reject(_delivery):
        raise DeliveryRejected("too bitter")

    right.before_send = reject
    await left.say("a", "ann@x", "one")
    await until(lambda: app.counters.get(("dead_letters", (("network", "right"),))))


async def test_what_is_kept_of_a_link_ends_with_it():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        await reject_every_event(app, made["left"], made["right"])
        await app.core.commit([Put("unshown", ("right:b",), b"1")])
        for collection in ("cursor", "dead", "unshown"):
            assert "right:b" in await links_of(app, collection), collection
        await app.linker.unlink_room(app.rooms.link(RIGHT))
        for collection in ("cursor", "dead", "unshown"):
            assert "right:b" not in await links_of(app, collection), collection


async def test_a_native_room_that_moves_to_another_room_leaves_its_dead_letters():
    """A dead letter is named by its place in the log, and another event has that place in the other room."""
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=(("left:a", "right:b"), ("left:c",))) as app:
        await reject_every_event(app, made["left"], made["right"])
        await app.linker.unlink_room(app.rooms.link(NativeId("left", "a")))
        await app.link_room(["right:b"], app.rooms.room_of(NativeId("left", "c")).id)
        assert app.rooms.link(RIGHT).room == app.rooms.link(NativeId("left", "c")).room
        assert await links_of(app, "dead") == set()


async def test_rows_of_links_that_a_process_did_not_remove_go_at_the_next_start():
    disk, made = MemoryDisk(), dict[str, Actor]()
    async with run_hansa(networks(made), rooms=ROOM, store=MemoryStore(disk)) as app:
        place = {"room": "r", "ts": 1}
        await app.core.commit(
            [
                Put("cursor", ("right:gone",), b"", {"seq": 3}),
                Put("unshown", ("right:gone",), b"1"),
                Put("dead", ("right:gone", 3), b"{}", place),
                Put("dead", ("right:b", 3), b"{}", place),
            ]
        )
    async with run_hansa(networks(made), store=MemoryStore(disk)) as app:
        assert await links_of(app, "cursor") == {"left:a", "right:b"}
        assert await links_of(app, "unshown") == set()
        assert await links_of(app, "dead") == {"right:b"}


async def test_a_removed_room_leaves_no_row_of_what_was_said_in_it():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made), rooms=ROOM) as app:
        room = app.rooms.room_of(RIGHT)
        await submit_chosen(made["left"], "a", "1")
        await app.core.commit([Put("told", (room.id, "x"), b"")])
        for link in list(room.links.values()):
            await app.linker.unlink_room(link)
        await remove_room(app.core, app.rooms, room)
        for collection in ("chosen", "told", "cursor", "unshown", "event", "alias"):
            assert await app.core.scan(collection) == [], collection


async def test_ids_that_senders_chose_are_forgotten_after_ninety_days(monkeypatch):
    made: dict[str, Actor] = {}
    monkeypatch.setattr(event_names, "_SWEPT", 2)
    async with run_hansa(networks(made), rooms=ROOM) as app:
        left, ann = made["left"], NativeId("left", "ann@x")
        for number in range(5):
            await submit_chosen(left, "a", str(number))
        rows = {row.key: row for row in await app.core.scan("chosen")}
        young = event_names.chosen_key(app.rooms.room_of(RIGHT).id, ann, "4")
        old = 90 * 86_400_000 + 1
        await app.core.commit(
            [
                Put("chosen", key, row.body, {**row.fields, "at": int(row.fields["at"] or 0) - old})
                for key, row in rows.items()
                if key != young
            ]
        )
        assert await app.names.forget_old_chosen_ids(app.seams.clock.now()) == 4
        assert await left.ctx.event_by_chosen_id("a", ann, "4") is not None
        assert await left.ctx.event_by_chosen_id("a", ann, "0") is None


@pytest.mark.parametrize("remains", [True, False])
async def test_people_stay_while_their_network_has_another_link_of_the_room(remains):
    made: dict[str, Actor] = {}
    links = ("left:a", "right:b", "right:c") if remains else ("left:a", "right:b")
    async with run_hansa(networks(made), rooms=(links,)) as app:
        await made["right"].join("b", "bob@y")
        room = app.rooms.room_of(RIGHT)
        await app.linker.unlink_room(app.rooms.link(RIGHT))
        there = {person.user.id for person in room.view.joined()}
        assert there == ({"bob@y"} if remains else set())
