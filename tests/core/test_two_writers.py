"""Two of the core's own parts over one store, as two processes would be: nothing that one kept is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hansa import AccountLogin, LocalProtocolError, NativeId
from hansa.bus.rooms import Rooms
from hansa.bus.schema import SCHEMA
from hansa.environment import SystemClock, SystemRandom
from hansa.logins.rows import LoginRows
from hansa.logins.secret_box import SecretBox
from hansa.model.content import Membership
from hansa.model.view import RoomInfo, RoomMember, ViewDelta
from hansa.store.base import Conflict, Put, ScopedStore
from hansa.store.conflict_retry import TRIES, Changed, again_on_conflict, change_row
from hansa.store.memory import MemoryStore
from hansa.store.sqlite import SqliteStore
from hansa.testing.store_suite import SCHEMA as THINGS


@pytest.fixture(params=["memory", "sqlite"])
async def store(request, tmp_path) -> AsyncIterator[ScopedStore]:
    made = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "db", synchronous="OFF")
    await made.open()
    await made.declare("", SCHEMA)
    await made.declare("s", THINGS)
    yield ScopedStore(made, "")
    await made.close()


async def opened(store):
    """The rooms as a process finds them."""
    rooms = Rooms(store, SystemClock(), SystemRandom())
    await rooms.load()
    return rooms


def person(name: str) -> RoomMember:
    return RoomMember(user=NativeId("x", name), membership=Membership.JOIN, server="x.example")


NATIVE = NativeId("x", "room")


async def test_of_two_who_change_a_room_the_second_reads_it_first(store):
    first = await opened(store)
    link = await first.open_link(NATIVE, view=ViewDelta(info=RoomInfo(name="one")))
    second = await opened(store)
    await first.commit_change(first.room_of(NATIVE), ViewDelta(upserts=(person("romeo"),)))
    room = second.room_of(NATIVE)
    with pytest.raises(Conflict):
        await second.commit_change(room, ViewDelta(info=RoomInfo(name="two")))
    assert room.stale and room.view.facts.name == "one"
    await second.reload(room)
    await second.commit_change(room, ViewDelta(info=RoomInfo(name="two")))
    found = (await opened(store)).get(link.room).view
    assert found.facts.name == "two" and NativeId("x", "romeo") in found.people


async def test_a_native_room_is_linked_once(store):
    two = [await opened(store), await opened(store)]
    done = await asyncio.gather(*(rooms.open_link(NATIVE) for rooms in two), return_exceptions=True)
    assert sorted(isinstance(one, LocalProtocolError) for one in done) == [False, True]
    (link,) = (await opened(store)).links("x")
    assert link in done


async def test_a_head_that_fell_behind_its_log_is_put_right(store):
    """Every turn would insert an event that there is, and fail."""
    rooms = await opened(store)
    link = await rooms.open_link(NATIVE)
    events = [Put("event", (link.room, n), b"{}", {"id": f"e{n}", "received": 10 * n}) for n in (1, 2)]
    await store.commit(events)
    room = (await opened(store)).room_of(NATIVE)
    assert (room.head, room.received) == (2, 20)


async def test_what_many_change_in_one_row_is_all_there(store):
    things = ScopedStore(store._store, "s")

    def more(row):
        return Changed(body=b"%d" % (int(row.body if row else b"0") + 1), fields={"size": 1})

    await asyncio.gather(*(change_row(things, "thing", ("a", 1), more) for _ in range(6)))
    row = await things.get("thing", ("a", 1))
    assert (row.body, row.fields["size"]) == (b"6", 1)
    beside = Put("thing", ("b", 1), b"x")
    removed = await change_row(things, "thing", ("a", 1), lambda _: Changed(body=None, beside=(beside,)))
    assert removed.body == b"6" and await things.get("thing", ("a", 1)) is None
    assert await things.get("thing", ("b", 1)) is not None
    assert await change_row(things, "thing", ("c", 1), lambda _: None) is None


async def test_a_race_that_is_never_won_ends(store):
    tried = []

    async def turn():
        tried.append(1)
        raise Conflict("thing", ("a", 1))

    with pytest.raises(Conflict):
        await again_on_conflict(turn)
    assert len(tried) == TRIES
    with pytest.raises(Conflict):
        await again_on_conflict(turn, collections={"other"})
    assert len(tried) == TRIES + 1


async def test_an_account_and_a_person_are_logged_in_once(store):
    first, second = (LoginRows(store, SecretBox(bytes(32), SystemRandom())) for _ in "ab")
    ann, ben = NativeId("left", "ann"), NativeId("left", "ben")
    await first.insert("irc", AccountLogin(person=ann, account="annette", secret="x"))
    for login in (
        AccountLogin(person=ben, account="annette", secret="y"),
        AccountLogin(person=ann, account="other", secret="y"),
    ):
        with pytest.raises(Conflict):
            await second.insert("irc", login)
    assert [(one.person, one.secret) for one in await second.list_logins("irc")] == [(ann, "x")]
    gone = await asyncio.gather(first.remove("irc", ann), second.remove("irc", ann))
    assert sorted(gone, key=str) == [None, "annette"]
    await second.insert("irc", AccountLogin(person=ben, account="annette", secret="y"))
