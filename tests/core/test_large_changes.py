"""A room of thousands of people: no commit is over the bounds, there is one moment from which a change holds, and
a process may die at each commit of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hansa import LocalProtocolError, NativeId
from hansa.bus.large_changes import AT_ONCE
from hansa.bus.rooms import Rooms
from hansa.bus.schema import SCHEMA
from hansa.bus.view_rules import ViewRulesTurn
from hansa.environment import SystemRandom
from hansa.model.content import Membership
from hansa.model.view import RoomInfo, RoomMember, ViewDelta
from hansa.store.base import Put, ScopedStore
from hansa.store.bounds import MAX_BYTES, MAX_WRITES, size_of
from hansa.store.faults import FaultKind, StoreFault
from hansa.store.memory import MemoryStore
from hansa.store.wrapper import StoreWrapper
from hansa.testing.actor import Actor, Config, module
from hansa.testing.clock import ManualClock
from hansa.testing.harness import run_hansa

NATIVE, OTHER, NEW = NativeId("x", "room"), NativeId("y", "other"), NativeId("x", "new")
HOUR = 3600.0


class Measured(StoreWrapper):
    """Notes how large each commit is, and ends at the ``last``-th one; ``kept``: after it was kept."""

    def __init__(self, store, last=0, *, kept=False):
        super().__init__(store)
        self.sizes: list[tuple[int, int]] = []
        self._last, self._kept = last, kept

    async def commit(self, scope, writes, *, durability="full"):
        self.sizes.append((len(writes), sum(map(size_of, writes))))
        dies = self._last and len(self.sizes) >= self._last
        if dies and not (self._kept and len(self.sizes) == self._last):
            raise StoreFault(FaultKind.AWAY, "the process is gone")
        found = await super().commit(scope, writes, durability=durability)
        if dies:
            raise StoreFault(FaultKind.AWAY, "the process is gone")
        return found


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    made = MemoryStore()
    await made.open()
    await made.declare("", SCHEMA)
    yield made
    await made.close()


async def opened(store, clock=None):
    rooms = Rooms(ScopedStore(store, ""), clock or ManualClock(), SystemRandom())
    await rooms.load()
    return rooms


def people(count, name="p", membership=Membership.JOIN):
    return tuple(
        RoomMember(
            user=NativeId("x", f"@{name}{n}:x.example"),
            membership=membership,
            server="x.example",
            name="N" * 60,
        )
        for n in range(count)
    )


def many(count=3 * AT_ONCE, **more):
    return ViewDelta(upserts=people(count), info=RoomInfo(name="many"), **more)


async def same_as_kept(store, rooms):
    """Memory is what another process reads."""
    anew = await opened(store)
    assert {room.id for room in anew} == {room.id for room in rooms}
    for room in rooms:
        other = anew.get(room.id)
        assert dict(other.view.people) == dict(room.view.people) and other.view.facts == room.view.facts
        assert other.kept == room.kept and other.kept.change is None and not room.stale
        assert other.links == room.links
    return anew


async def test_no_commit_of_a_room_of_twenty_thousand_is_over_the_bounds(store):
    measured = Measured(store)
    rooms = await opened(measured)
    await rooms.open_link(NATIVE, view=many(20_000))
    room = rooms.room_of(NATIVE)
    await rooms.commit_change(room, ViewDelta(removed=tuple(p.user for p in people(6000))))
    await rooms.supersede(NATIVE, NEW, ViewDelta(upserts=people(7000, "q")))
    assert max(rows for rows, _ in measured.sizes) <= AT_ONCE + 10 < MAX_WRITES
    assert max(size for _, size in measured.sizes) <= MAX_BYTES / 4
    await same_as_kept(store, rooms)
    assert len(room.view.people) == 7000 and await store.count("", "people_change") == 0


async def linked(rooms):
    await rooms.open_link(NATIVE, view=many(2 * AT_ONCE + 1))


async def changed(rooms):
    change = ViewDelta(
        upserts=people(AT_ONCE, "new"),
        removed=tuple(p.user for p in people(AT_ONCE)),
        info=RoomInfo(name="changed"),
    )
    await rooms.commit_change(rooms.room_of(NATIVE), change)


async def superseded(rooms):
    await rooms.supersede(NATIVE, NEW, ViewDelta(upserts=people(AT_ONCE + 1, "q")))


def shape(rooms):
    """Returns the rooms without their random names."""
    return sorted(
        (
            sorted(str(link.native) for link in room.links.values()),
            room.view.facts.name,
            len(room.view.people),
        )
        for room in rooms
    )


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(("first", "then"), [(None, linked), (linked, changed), (linked, superseded)])
async def test_a_process_may_die_at_each_commit(first, then, kept):
    """The data afterwards is as it was before, or as it should be after, and the same change can be made
    then.
    """
    seen = set()
    for last in range(1, 100):
        store = MemoryStore()
        await store.open()
        await store.declare("", SCHEMA)
        before = await opened(store)
        if first is not None:
            await first(before)
        was = shape(before)
        measured = Measured(store, last, kept=kept)
        with contextlib.suppress(StoreFault):
            await then(await opened(measured))
        done = len(measured.sizes) < last
        after = await opened(store, late := ManualClock())
        for room in after:
            assert room.kept.change is None
        if shape(after) == was:
            seen.add("before")
            assert not done
            await then(after)
        else:
            seen.add("after")
        wanted = shape(await same_as_kept(store, after))
        assert wanted != was
        late.advance(2 * HOUR)
        await opened(store, late)
        assert await store.count("", "people_change") == 0
        if done:
            break
    assert done and seen == {"before", "after"} and last > 5


async def test_what_is_half_done_is_ended_before_anything_else_happens_in_the_room(store):
    """The store goes away after the moment from which a change holds: the next change of the room, by this
    process or by another one, finds it whole.
    """
    counted = Measured(store)
    await linked(await opened(counted))
    other = MemoryStore()
    await other.open()
    await other.declare("", SCHEMA)
    measured = Measured(other, len(counted.sizes) - 2)
    rooms = await opened(measured)
    await linked(rooms)  # it holds, and so nobody is told otherwise
    room = rooms.room_of(NATIVE)
    assert room.stale and room.kept.change is not None
    assert await other.count("", "person") < 2 * AT_ONCE
    measured._last = 0
    one = replace(people(1)[0], name="other")
    await rooms.commit_change(room, ViewDelta(upserts=(one,)))
    assert room.view.people[one.user].name == "other"
    anew = await same_as_kept(other, rooms)
    assert len(anew.room_of(NATIVE).view.people) == 2 * AT_ONCE + 1


async def test_two_processes_end_the_same_change(store):
    counted = Measured(store)
    await linked(await opened(counted))
    other = MemoryStore()
    await other.open()
    await other.declare("", SCHEMA)
    measured = Measured(other, len(counted.sizes) - 2)
    rooms = await opened(measured)
    await linked(rooms)
    measured._last = 0
    found = await asyncio.gather(opened(other), opened(other), rooms.reload(rooms.room_of(NATIVE)))
    for one in found[:2]:
        assert len(one.room_of(NATIVE).view.people) == 2 * AT_ONCE + 1
    await same_as_kept(other, rooms)


async def test_what_nobody_names_stays_while_it_may_be_named(store):
    """Another process may be about to: after an hour it is gone."""
    clock = ManualClock()
    with pytest.raises(StoreFault):
        await linked(await opened(Measured(store, 2), clock))
    await opened(store, clock)
    assert await store.count("", "people_change") > 0
    clock.advance(HOUR + 1)
    await opened(store, clock)
    assert await store.count("", "people_change") == 0


async def test_a_part_that_is_not_there_is_said(store):
    rooms = await opened(Measured(store))
    await linked(rooms)
    row = await store.get("", "room", (rooms.room_of(NATIVE).id,))
    body = row.body[:-1] + b',"change":["lost",1]}'
    await store.commit("", [Put("room", row.key, body)])
    with pytest.raises(LocalProtocolError, match="a part of what changed"):
        await rooms.reload(rooms.room_of(NATIVE))


async def test_a_turn_that_takes_up_thousands_at_once_goes_the_same_way(monkeypatch):
    """An event that makes thousands come and go: it is answered once that holds, and nothing half is seen."""
    made: dict[str, Actor] = {}
    networks = dict.fromkeys(("left", "right"), (module(made), Config()))
    inner = MemoryStore()
    measured = Measured(inner)
    async with run_hansa(networks, rooms=[("left:a", "right:b")], store=measured) as app:
        room = app.rooms.room_of(NativeId("left", "a"))
        prepare = ViewRulesTurn.prepare_event
        view = ViewDelta(
            upserts=tuple(replace(p, user=NativeId("left", p.user.id)) for p in people(3 * AT_ONCE))
        )

        async def crowded(turn, inbound, verdict):
            return replace(await prepare(turn, inbound, verdict), view_delta=view)

        monkeypatch.setattr(ViewRulesTurn, "prepare_event", crowded)
        measured.sizes.clear()
        outcome = await made["left"].say("a", "romeo", "hello")
        assert outcome.event is not None
        assert len(room.view.people) == 3 * AT_ONCE
        assert max(rows for rows, _ in measured.sizes) <= AT_ONCE + 10
        monkeypatch.setattr(ViewRulesTurn, "prepare_event", prepare)
        assert (await made["left"].say("a", "@p0:x.example", "again")).event is not None
        assert room.kept.change is None
        anew = await opened(inner)
        assert dict(anew.get(room.id).view.people) == dict(room.view.people)


async def test_turns_that_are_too_much_together_are_taken_one_by_one(monkeypatch):
    """Each event whose writes alone are within the bounds gets through."""
    made: dict[str, Actor] = {}
    networks = dict.fromkeys(("left", "right"), (module(made), Config()))
    async with run_hansa(networks, rooms=[("left:a", "right:b")]) as app:
        prepare = ViewRulesTurn.prepare_event

        async def heavy(turn, inbound, verdict):
            rows = [Put("alias", ("left", f"{inbound.origin.id}{n}"), b"", {}) for n in range(2000)]
            return replace(await prepare(turn, inbound, verdict), writes=rows)

        monkeypatch.setattr(ViewRulesTurn, "prepare_event", heavy)
        said = [made["left"].say("a", "romeo", str(n)) for n in range(4)]
        outcomes = await asyncio.gather(*said)
        assert all(outcome.event is not None for outcome in outcomes)
        assert app.pipeline.counts["too_large"] >= 1
        assert app.pipeline.counts["committed"] == 4


async def test_one_event_may_do_more_than_fits_a_usual_commit(monkeypatch):
    made: dict[str, Actor] = {}
    networks = dict.fromkeys(("left", "right"), (module(made), Config()))
    async with run_hansa(networks, rooms=[("left:a", "right:b")]):
        prepare = ViewRulesTurn.prepare_event

        async def heavy(turn, inbound, verdict):
            rows = [Put("alias", ("left", f"x{n}"), b"", {}) for n in range(MAX_WRITES + 1)]
            return replace(await prepare(turn, inbound, verdict), writes=rows)

        monkeypatch.setattr(ViewRulesTurn, "prepare_event", heavy)
        assert (await made["left"].say("a", "romeo", "much")).event is not None
