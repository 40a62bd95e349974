"""The core with a failing database: nothing is lost, nothing is half done, nothing hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hansa import RoomInfo, StoreFault
from hansa.model.view import ViewDelta
from hansa.setup import ProcessListener
from hansa.store.base import Conflict
from hansa.store.faults import FaultKind, ResultUnknown
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing import run_hansa
from hansa.testing.actor import Actor, Config, module
from hansa.testing.faulty_store import FaultyStore, InjectedFault


class House:
    """Two networks in one room, over a database that fails as told."""

    def __init__(self, disk: MemoryDisk, made: dict[str, Actor]) -> None:
        self.disk = disk
        self.made = made
        self.store = FaultyStore(MemoryStore(disk))
        self.app = None
        self.lost = []

    @property
    def room(self):
        return next(iter(self.app.rooms))

    async def say(self, text: str, origin: str = ""):
        return await self.made["left"].say("a", "ann@x", text, origin=origin or f"o-{text}")

    async def log(self) -> list[int]:
        inner = self.store.inner
        return [int(row.key[1]) for row in await inner.scan("", "event", equal=(self.room.id,))]


@pytest.fixture
async def house(monkeypatch) -> AsyncIterator[House]:
    monkeypatch.setattr("hansa.bus.delivery._FAULT_MOST", 0.01)
    made: dict[str, Actor] = {}
    plugin = module(made)
    here = House(MemoryDisk(), made)
    networks = {"left": (plugin, Config()), "right": (plugin, Config())}
    async with run_hansa(
        networks,
        rooms=(("left:a", "right:b"),),
        store=here.store,
        listener=ProcessListener(on_store_lost=here.lost.append),
    ) as app:
        here.app = app
        yield here


def once(fault: InjectedFault):
    """That fault for the next commit of an event."""
    left = [fault]
    return lambda writes: left.pop() if left and any(w.collection == "event" for w in writes) else None


async def test_a_kept_commit_of_unknown_result_ends_the_process_and_the_next_one_goes_on(house):
    """Faults A and B: the room is as the store has it, whatever the process before had in memory."""
    await house.say("one")
    house.store.choose = once(InjectedFault.UNKNOWN_KEPT)
    with pytest.raises(ResultUnknown):
        await house.say("two")
    assert [type(fault) for fault in house.lost] == [ResultUnknown]
    commits = house.disk.commits
    for call in (
        house.say("three"),
        house.app.pipeline.correct(house.room.id, ViewDelta(info=RoomInfo(name="other"))),
    ):
        with pytest.raises(StoreFault):
            await call
    assert house.disk.commits == commits  # memory writes nothing any more
    made: dict[str, Actor] = {}
    plugin = module(made)
    networks = {"left": (plugin, Config()), "right": (plugin, Config())}
    async with run_hansa(networks, store=MemoryStore(house.disk)) as again:
        room = next(iter(again.rooms))
        assert room.head == 2
        repeated = await made["left"].say("a", "ann@x", "two", origin="o-two")
        assert repeated.duplicate
        assert (await made["left"].say("a", "ann@x", "three", origin="o-three")).event.seq == 3
        assert await made["right"].until("b", 2) in (["two", "three"], ["one", "two", "three"])


async def test_no_write_of_a_room_goes_back_behind_what_is_kept(house):
    """Fault B: a change from a memory that is older than the store is refused, read again, and made again."""
    await house.say("one")
    older = (house.room.head, house.room.received, house.room.kept)
    await house.say("two")
    house.room.head, house.room.received, house.room.kept = older
    with pytest.raises(Conflict):
        await house.app.rooms.commit_change(house.room, ViewDelta(info=RoomInfo(name="other")))
    house.room.head, house.room.received, house.room.kept = older
    house.room.stale = False
    await house.app.pipeline.correct(house.room.id, ViewDelta(info=RoomInfo(name="other")))
    assert house.room.head == 2
    assert house.room.view.facts.name == "other"
    assert (await house.say("three")).event.seq == 3
    assert await house.log() == [1, 2, 3]


async def test_a_room_whose_row_was_taken_back_by_an_older_hansa_is_mended(house):
    """Its head is the newest event's, whatever the row says."""
    await house.say("one")
    row = house.room.kept.body
    await house.say("two")
    table = house.disk.tables["", "room"]
    (key,) = table
    table[key] = type(table[key])(key=key, fields=table[key].fields, body=row)
    assert (await house.say("three")).event.seq == 3
    assert await house.log() == [1, 2, 3]


async def test_what_is_submitted_while_the_database_is_away_is_answered_and_all_goes_on_when_it_is_back(
    house,
):
    """Fault C, F, H: each submission fails with the database's fault, none is left without an answer."""
    await house.say("one")
    house.store.away = True
    done = await asyncio.gather(*(house.say(f"away {n}") for n in range(5)), return_exceptions=True)
    assert [one.kind for one in done] == [FaultKind.AWAY] * 5
    with pytest.raises(StoreFault):
        await house.app.pipeline.correct(house.room.id, ViewDelta(info=RoomInfo(name="other")))
    house.store.away = False
    assert (await house.say("two")).event.seq == 2
    await house.app.pipeline.correct(house.room.id, ViewDelta(info=RoomInfo(name="other")))
    assert await house.made["right"].until("b", 2) == ["one", "two"]


async def test_a_submission_whose_commit_is_acknowledged_late_is_answered_then(house):
    house.store.back.clear()
    house.store.choose = once(InjectedFault.LATE)
    first = asyncio.ensure_future(house.say("one"))
    second = asyncio.ensure_future(house.say("two"))
    await asyncio.wait({first, second}, timeout=0.05)
    assert not first.done()
    house.store.back.set()
    assert [(await one).event.seq for one in (first, second)] == [1, 2]
    assert await house.made["right"].until("b", 2) == ["one", "two"]


async def test_deliveries_go_on_after_the_database_was_away_and_no_letter_is_dead(house):
    """Fault E: a cursor that cannot be stored, and an alias that cannot, are not faults of the network."""
    away = iter([False] + [True] * 30)

    def choose(writes):
        lazy = any(write.collection in {"cursor", "alias"} for write in writes) and len(writes) == 1
        return InjectedFault.AWAY if lazy and next(away, False) else None

    house.store.choose = choose
    for number in range(4):
        await house.say(f"word {number}")
    assert await house.made["right"].until("b", 4) == [f"word {n}" for n in range(4)]
    assert await house.app.core.count("dead") == 0
    assert not [task for task in house.app._consuming.values() if task.done()]


async def test_a_lost_database_ends_everything_and_nothing_is_sent_any_more(house):
    """Fault D: not even what is in memory and could be delivered."""
    await house.say("one")
    await house.made["right"].until("b", 1)
    house.store.choose = once(InjectedFault.LOST)
    with pytest.raises(StoreFault):
        await house.say("two")
    assert len(house.lost) == 1
    with pytest.raises(StoreFault):
        await house.say("three")
    assert house.disk.tables["", "event"].keys() == {(house.room.id, 1)}
