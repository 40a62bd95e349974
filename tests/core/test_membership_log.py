"""Who was in a room when, and which part of its past a person may read."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hansa import Membership, NativeId, RoomInfo, RoomMember, ViewDelta
from hansa.bus import history_reader, membership_log, schema
from hansa.bus.room_removal import remove_room
from hansa.model.history_visibility import Timeline, can_read_event, readable_ranges
from hansa.model.view import RoomView
from hansa.store.base import ScopedStore
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing import run_hansa, until
from hansa.testing.actor import Actor, Config, module

ANN, BOB, EVE = NativeId("left", "ann@x"), NativeId("left", "bob@x"), NativeId("left", "eve@x")


def town(made: dict[str, Actor], **more: Any):
    networks = {"left": (module(made), Config())}
    return run_hansa(networks, rooms=[("left:a",)], **more)


def test_a_timeline_says_what_was_when():
    line = Timeline(((6, "", "join"), (14, "join", "leave")), "leave")
    assert [line.value_at(n) for n in (1, 2, 3, 6, 7, 9)] == ["", "", "join", "join", "leave", "leave"]
    assert line.values_around(3) == {"", "join"}
    assert line.values_around(7) == {"join", "leave"}
    assert line.values_around(5) == {"join"}
    assert line.has_later(2, "join")
    assert not line.has_later(7, "join")
    always = Timeline((), "join")
    assert always.value_at(1) == "join"


NEVER, BEFORE_JOIN = Timeline((), ""), Timeline(((10, "", "invite"), (18, "invite", "join")), "join")
GONE = Timeline(((4, "", "join"), (8, "join", "leave")), "leave")


@pytest.mark.parametrize(
    ("visibility", "person", "seq", "readable"),
    [
        ("world_readable", NEVER, 3, True),
        ("shared", NEVER, 3, False),
        ("shared", BEFORE_JOIN, 3, True),
        ("invited", BEFORE_JOIN, 3, False),
        ("invited", BEFORE_JOIN, 6, True),
        ("joined", BEFORE_JOIN, 6, False),
        ("joined", BEFORE_JOIN, 9, True),
        ("joined", BEFORE_JOIN, 10, True),
        ("joined", GONE, 3, True),
        ("joined", GONE, 4, True),  # their own leave
        ("shared", GONE, 5, False),
        ("shared", GONE, 1, True),
        ("invited", Timeline(((10, "", "invite"),), "invite"), 6, False),  # never came in
    ],
)
def test_who_reads_what(visibility: str, person: Timeline, seq: int, readable: bool):
    assert can_read_event(Timeline((), visibility), person, seq) is readable


def test_the_event_that_closes_the_history_is_read_by_the_more_generous_value():
    closing = Timeline(((10, "shared", "joined"),), "joined")
    late = Timeline(((18, "", "join"),), "join")
    assert [can_read_event(closing, late, n) for n in (4, 5, 6)] == [True, True, False]


async def test_memberships_are_logged_with_the_event_and_outlive_a_restart():
    made: dict[str, Actor] = {}
    disk = MemoryDisk()
    async with town(made, store=MemoryStore(disk)) as app:
        left = made["left"]
        await left.join("a", ANN.id)  # 1
        await left.say("a", ANN.id, "before bob")  # 2
        await left.join("a", BOB.id)  # 3
        await left.join("a", BOB.id, "Bobby")  # 4: a name, and no membership
        await left.kick("a", ANN.id, BOB)  # 5
        assert app.rooms.room_of(NativeId("left", "a")).head == 5
    async with town(made, store=MemoryStore(disk)) as app:
        ctx = made["left"].ctx
        await until(lambda: ctx.get_link("a"))
        found = [await ctx.was_joined("a", BOB, n) for n in range(1, 7)]
        assert found == [False, False, True, True, False, False]
        assert [await ctx.was_joined("a", ANN, n) for n in (1, 2, 5)] == [True] * 3
        assert not await ctx.was_joined("a", EVE, 3)
        rows = await app.core.scan("membership_log", equal=(app.rooms.room_of(NativeId("left", "a")).id,))
        assert len(rows) == 3


async def test_a_change_without_an_event_is_logged_at_its_place():
    made: dict[str, Actor] = {}
    async with town(made) as _:
        left = made["left"]
        await left.join("a", ANN.id)
        row = RoomMember(user=EVE, membership=Membership.JOIN)
        await left.ctx.reconcile_view("a", ViewDelta(upserts=(row,)))
        await left.say("a", ANN.id, "two")
        await left.ctx.reconcile_view("a", ViewDelta(removed=(EVE,)))
        assert [await left.ctx.was_joined("a", EVE, n) for n in (1, 2, 3)] == [False, True, False]


async def test_changes_without_an_event_at_one_place_keep_what_was_before_them():
    made: dict[str, Actor] = {}
    async with town(made) as _:
        left = made["left"]
        await left.ctx.reconcile_view("a", ViewDelta(info=RoomInfo(history_visibility="joined")))
        await left.join("a", ANN.id)  # 1
        await left.say("a", ANN.id, "before eve")  # 2
        for membership in (Membership.JOIN, Membership.LEAVE):
            row = RoomMember(user=EVE, membership=membership)
            await left.ctx.reconcile_view("a", ViewDelta(upserts=(row,)))
        for visibility in ("world_readable", "joined"):
            info = RoomInfo(history_visibility=visibility)
            await left.ctx.reconcile_view("a", ViewDelta(info=info))
        await left.say("a", ANN.id, "after eve")  # 3
        assert [await left.ctx.was_joined("a", EVE, n) for n in (1, 2, 3)] == [False] * 3
        assert await texts(made, EVE) == []


async def test_rows_of_one_commit_at_one_place_are_one_change():
    view, key = RoomView("r"), ("r", EVE.network, EVE.id, 5)
    store = ScopedStore(MemoryStore(), "")
    await store.declare(schema.SCHEMA)
    came = RoomMember(user=EVE, membership=Membership.JOIN)
    first = membership_log.membership_writes(view, ViewDelta(upserts=(came,)), 5)
    view.apply(ViewDelta(upserts=(came,)))
    second = membership_log.membership_writes(view, ViewDelta(removed=(EVE,)), 5)
    (row,) = await membership_log.since_position(store, second, first)
    assert (row.key, row.body) == (key, b'["",""]')


async def _before_a_crowd(made: dict[str, Actor], size: int) -> tuple[Actor, tuple[RoomMember, ...]]:
    """Two events of a room whose past is for those who were there, and people who are to enter."""
    left = made["left"]
    await left.ctx.reconcile_view("a", ViewDelta(info=RoomInfo(history_visibility="joined")))
    await left.join("a", ANN.id)  # 1
    await left.say("a", ANN.id, "before them")  # 2
    people = (NativeId("left", f"p{number}@x") for number in range(size))
    return left, tuple(RoomMember(user=user, membership=Membership.JOIN) for user in people)


async def test_a_change_of_thousands_is_logged_and_does_not_open_the_past_to_them():
    made: dict[str, Actor] = {}
    async with town(made) as app:
        left, crowd = await _before_a_crowd(made, 2500)
        await left.ctx.reconcile_view("a", ViewDelta(upserts=crowd))
        await left.say("a", ANN.id, "after them")  # 3
        for person in (crowd[0], crowd[1250], crowd[-1]):
            assert [await left.ctx.was_joined("a", person.user, n) for n in (1, 2, 3)] == [False, False, True]
            assert await texts(made, person.user) == ["after them"]
        await left.ctx.reconcile_view("a", ViewDelta(removed=tuple(person.user for person in crowd)))
        await left.say("a", ANN.id, "without them")  # 4
        assert await texts(made, crowd[1250].user) == ["after them"]
        assert not await app.core.scan("people_change")


async def test_a_change_of_thousands_whose_rows_are_not_in_their_places_yet_is_read(monkeypatch):
    made: dict[str, Actor] = {}
    async with town(made) as app:
        left, crowd = await _before_a_crowd(made, 1500)

        async def settle_later(_: Any) -> None:
            room.stale = True

        room = app.rooms.room_of(NativeId("left", "a"))
        with monkeypatch.context() as away:  # the database, between the commit and the pieces
            away.setattr(app.rooms, "settle", settle_later)
            await left.ctx.reconcile_view("a", ViewDelta(upserts=crowd))
        assert await app.core.scan("people_change")
        assert await texts(made, crowd[-1].user) == []
        await left.say("a", ANN.id, "after them")  # 3
        assert not await app.core.scan("people_change")
        assert await texts(made, crowd[-1].user) == ["after them"]


async def texts(made: dict[str, Actor], user: NativeId, **what: Any) -> list[str]:
    found = await made["left"].ctx.read_history_for("a", user, **{"limit": 100, **what})
    return [getattr(event.content, "text", "") for event in found.events if hasattr(event.content, "text")]


async def test_history_for_a_person_in_both_directions_by_place_time_and_count():
    made: dict[str, Actor] = {}
    async with town(made) as app:
        left = made["left"]
        await left.join("a", ANN.id)  # 1
        for n in range(2, 8):
            await left.say("a", ANN.id, f"m{n}")
        assert await texts(made, ANN) == ["m2", "m3", "m4", "m5", "m6", "m7"]
        assert await texts(made, ANN, limit=2) == ["m6", "m7"]
        assert await texts(made, ANN, limit=2, upto_seq=4) == ["m3", "m4"]
        assert await texts(made, ANN, limit=2, after_seq=3) == ["m4", "m5"]
        assert await texts(made, ANN, after_seq=3, upto_seq=5) == ["m4", "m5"]
        room = app.rooms.room_of(NativeId("left", "a"))
        times = [event.received for event in room.tail]
        assert await texts(made, ANN, since=times[-1] + 1) == []
        assert await texts(made, ANN, until=times[0]) == []
        assert await texts(made, EVE) == []  # a stranger


async def test_who_comes_later_reads_what_the_visibility_of_then_allows():
    made: dict[str, Actor] = {}
    async with town(made) as _:
        left = made["left"]
        await left.join("a", ANN.id)
        await left.say("a", ANN.id, "open")
        await left.ctx.reconcile_view("a", ViewDelta(info=RoomInfo(history_visibility="joined")))
        await left.say("a", ANN.id, "closed")
        await left.join("a", BOB.id)
        await left.say("a", ANN.id, "together")
        await left.ctx.reconcile_view("a", ViewDelta(info=RoomInfo(history_visibility="world_readable")))
        await left.say("a", ANN.id, "to all")
        assert await texts(made, BOB) == ["open", "together", "to all"]
        assert await texts(made, BOB, after_seq=0) == ["open", "together", "to all"]
        assert await texts(made, EVE) == ["to all"]
        assert await texts(made, ANN) == ["open", "closed", "together", "to all"]


async def test_one_answer_looks_at_so_many_events(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(history_reader, "_PAGE_SIZE", 2)
    monkeypatch.setattr(history_reader, "MAX_EXAMINED", 4)
    monkeypatch.setattr(history_reader, "MAX_EVENTS", 3)
    made: dict[str, Actor] = {}
    async with town(made) as _:
        left = made["left"]
        await left.join("a", ANN.id)
        for n in range(2, 10):
            await left.say("a", ANN.id, f"m{n}")
        assert await texts(made, ANN) == ["m7", "m8", "m9"]
        assert await texts(made, ANN, since=1, limit=100, after_seq=0) == ["m2", "m3"]


@pytest.mark.parametrize("seed", range(6))
async def test_pages_have_every_event_once_in_both_directions(seed: int):
    """Whatever the visibility and the membership were meanwhile, and whatever the bounds are."""
    chance = Random(seed)
    made: dict[str, Actor] = {}
    async with town(made) as app:
        left = made["left"]
        await left.join("a", ANN.id)
        for n in range(60):
            what = chance.random()
            if what < 0.15:
                await (left.join("a", BOB.id) if chance.random() < 0.5 else left.kick("a", ANN.id, BOB))
            elif what < 0.25:
                value = chance.choice(["shared", "joined", "invited", "world_readable"])
                await left.ctx.reconcile_view("a", ViewDelta(info=RoomInfo(history_visibility=value)))
            else:
                await left.say("a", ANN.id, f"m{n}")
        room = app.rooms.room_of(NativeId("left", "a"))
        visibilities = await app.history.log.visibilities(room.view)
        for user in (ANN, BOB, EVE):
            memberships = await app.history.log.memberships(room, user)
            for _ in range(8):
                first, last = chance.randint(1, room.head), chance.randint(1, room.head)
                size = chance.choice([1, 2, 7, 100])
                wanted = [n for n in range(first, last + 1) if can_read_event(visibilities, memberships, n)]
                forth, back = list[int](), list[int]()
                at: int | None = first - 1
                while at is not None:
                    page = await left.ctx.read_history_for("a", user, limit=size, after_seq=at, upto_seq=last)
                    assert len(page.events) <= size
                    forth += [event.seq for event in page.events]
                    at = page.next_seq
                assert forth == wanted, (seed, user, first, last, size)
                at = last
                while at is not None:
                    page = await left.ctx.read_history_for("a", user, limit=size, upto_seq=at)
                    back = [event.seq for event in page.events] + back
                    at = page.next_seq
                assert [n for n in back if n >= first] == wanted, (seed, user, first, last, size)


def test_ranges_say_what_the_events_say():
    chance = Random(5)
    for _ in range(300):
        lines = list[Timeline]()
        for values in (["shared", "joined", "invited", "world_readable"], ["", "invite", "join", "leave"]):
            places = sorted({chance.randint(0, 30) for _ in range(chance.randint(0, 6))})
            kinds = [chance.choice(values) for _ in range(len(places) + 1)]
            changes = tuple((at, kinds[n], kinds[n + 1]) for n, at in enumerate(places))
            lines.append(Timeline(changes, kinds[-1]))
        first, last = chance.randint(1, 16), chance.randint(0, 16)
        ranges = readable_ranges(*lines, first, last)
        listed = [n for start, end in ranges for n in range(start, end + 1)]
        assert listed == [n for n in range(first, last + 1) if can_read_event(*lines, n)], lines


async def test_history_since_and_until_every_time():
    made: dict[str, Actor] = {}
    async with town(made) as app:
        left = made["left"]
        await left.join("a", ANN.id)
        for n in range(2, 30):
            await left.say("a", ANN.id, f"m{n}")
        room = app.rooms.room_of(NativeId("left", "a"))
        rows = await app.core.scan("event", equal=(room.id,))
        times = [int(row.fields["received"] or 0) for row in rows]
        for ms in {0, *times, times[-1] + 1}:
            wanted = [n for n, at in enumerate(times, 1) if at >= ms]
            page = await left.ctx.read_history_for("a", ANN, limit=100, since=ms, after_seq=0)
            assert [event.seq for event in page.events] == wanted
            page = await left.ctx.read_history_for("a", ANN, limit=100, until=ms)
            assert [event.seq for event in page.events] == [n for n in range(1, 30) if n not in wanted]


async def test_a_removed_room_leaves_no_rows():
    made: dict[str, Actor] = {}
    async with town(made) as app:
        left = made["left"]
        await left.join("a", ANN.id)
        await left.ctx.reconcile_view("a", ViewDelta(info=RoomInfo(history_visibility="joined")))
        room = app.rooms.room_of(NativeId("left", "a"))
        await left.ctx.close_link("a")
        of_room = [one.name for one in schema.SCHEMA.collections if next(iter(one.key)) == "room"]
        assert {"event", "membership_log", "visibility_log"} <= set(of_room)
        assert await app.core.scan("membership_log", equal=(room.id,))
        await remove_room(app.core, app.rooms, room)
        for collection in of_room:
            assert await app.core.scan(collection, equal=(room.id,)) == [], collection
