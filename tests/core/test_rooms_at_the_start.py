"""Loading rooms costs as much as there are rooms; links are closed, and move from room to room."""

from __future__ import annotations

import pytest
from hansa.bus import schema
from hansa.bus.rooms import Rooms
from hansa.environment import SystemClock, SystemRandom
from hansa.model.content import Membership
from hansa.model.ref import NativeId
from hansa.model.view import RoomInfo, RoomMember, ViewDelta
from hansa.store.base import ScopedStore
from hansa.store.memory import MemoryStore

ROOMS = 60


class Counted:
    """A link that counts how often its native room is looked at."""

    looks = 0

    def __init__(self, link) -> None:
        self._link = link

    @property
    def native(self) -> NativeId:
        type(self).looks += 1
        return self._link.native

    def __getattr__(self, name: str):
        return getattr(self._link, name)


async def opened() -> ScopedStore:
    memory = MemoryStore()
    await memory.open()
    store = ScopedStore(memory, "")
    await store.declare(schema.SCHEMA)
    return store


async def test_each_link_is_looked_at_a_few_times_and_not_once_for_each_room(monkeypatch):
    store = await opened()
    first = Rooms(store, SystemClock(), SystemRandom())
    for number in range(ROOMS):
        await first.open_link(NativeId("one" if number % 2 else "two", f"r{number}"))
    made = schema.link_of
    monkeypatch.setattr(schema, "link_of", lambda row: Counted(made(row)))
    monkeypatch.setattr(Counted, "looks", 0)
    second = Rooms(store, SystemClock(), SystemRandom())
    await second.load()
    assert len(list(second)) == ROOMS and len(second.links("one")) == ROOMS // 2
    assert Counted.looks < 5 * ROOMS


async def test_a_link_that_is_closed_is_gone_and_the_others_stay():
    store = await opened()
    rooms = Rooms(store, SystemClock(), SystemRandom())
    one, two, other = NativeId("one", "a"), NativeId("one", "b"), NativeId("two", "a")
    for native in (one, two, other):
        await rooms.open_link(native)
    await rooms.close_link(one)
    assert rooms.link(one) is None
    assert [link.native for link in rooms.links("one")] == [two]
    await rooms.close_link(two)
    assert rooms.links("one") == []
    assert rooms.link(other) is not None


@pytest.mark.parametrize("decides", [True, False])
async def test_a_link_that_moves_takes_its_people_along_and_the_facts_that_it_decides(decides: bool):
    store = await opened()
    rooms = Rooms(store, SystemClock(), SystemRandom())
    person = RoomMember(user=NativeId("one", "@ann"), membership=Membership.JOIN, name="Ann")
    brought = ViewDelta(upserts=(person,), info=RoomInfo(name="brought", topic="first"))
    here = await rooms.open_link(NativeId("two", "b"), view=ViewDelta(info=RoomInfo(name="here")))
    native = NativeId("one", "a")
    await rooms.open_link(native, authority=decides, view=brought)
    moved = await rooms.open_link(native, room=here.room, authority=decides)
    assert moved.room == here.room and moved.authority is decides
    for seen in (rooms, Rooms(store, SystemClock(), SystemRandom())):
        if seen is not rooms:
            await seen.load()
        view = seen.room_of(native).view
        assert view.facts == (brought.info if decides else RoomInfo(name="here"))
        assert view.people[person.user].name == "Ann"
