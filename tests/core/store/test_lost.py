"""A process that has no database any more ends at once: nothing is read or written after it knows."""

from __future__ import annotations

import asyncio

import pytest
from hansa.environment import SystemClock
from hansa.store.base import Put
from hansa.store.faults import FaultKind, ResultUnknown, StoreLost
from hansa.store.health import StoreHealth, WatchedStore
from hansa.store.memory import MemoryStore
from hansa.testing.store_suite import SCHEMA


class Failing(MemoryStore):
    """Its commits fail as told; what was to be written is kept nevertheless."""

    fault = None

    async def commit(self, scope, writes, *, durability="full"):
        found = await super().commit(scope, writes, durability=durability)
        if self.fault is not None:
            raise self.fault
        return found


@pytest.mark.parametrize("fault", [StoreLost(), ResultUnknown("the answer was lost")])
async def test_after_the_database_is_lost_nothing_is_read_or_written(fault):
    inner = Failing()
    told = []
    store = WatchedStore(inner, StoreHealth(SystemClock()), told.append)
    await store.open()
    await store.declare("s", SCHEMA)
    inner.fault = fault
    with pytest.raises(type(fault)):
        await store.commit("s", [Put("thing", ("a", 1))])
    assert told == [fault]
    assert await store.lost() is fault
    inner.fault = None
    for call in (
        lambda: store.commit("s", [Put("thing", ("a", 2))]),
        lambda: store.get("s", "thing", ("a", 1)),
        lambda: store.get_many("s", "thing", [("a", 1)]),
        lambda: store.scan("s", "thing"),
        lambda: store.count("s", "thing"),
        store.position,
        store.probe,
    ):
        with pytest.raises(type(fault)):
            await call()
    store.health.record_write()
    assert store.health.degraded.kind in {FaultKind.LOST, FaultKind.UNKNOWN}
    assert len(told) == 1
    assert await inner.get("s", "thing", ("a", 2)) is None
    await store.close()


async def test_a_database_whose_commits_take_long_is_slow_until_one_does_not():
    class Stepping(SystemClock):
        step = 0.0
        time = 0.0

        def monotonic(self) -> float:
            self.time += self.step
            return self.time

    clock = Stepping()
    store = WatchedStore(MemoryStore(), StoreHealth(clock))
    await store.open()
    await store.declare("s", SCHEMA)
    seen = []
    for clock.step in (0.1, 2.5, 1.5, 0.1):
        await store.commit("s", [Put("thing", ("a", 1))])
        seen.append(store.health.state)
    assert seen == ["up", "slow", "slow", "up"]
    store.health.record_fault(StoreLost())
    assert store.health.state == "lost"
    await store.close()


class Ended(BaseException):
    """The process has ended: what follows in it never happens."""


@pytest.mark.parametrize("fault", [StoreLost(), ResultUnknown("the answer was lost")])
@pytest.mark.parametrize("call", ["commit", "read", "watch"])
async def test_the_process_ends_before_anybody_in_it_learns_why(fault, call):
    """So nothing is sent because of it, and nothing after it: what ends the process returns to nobody."""

    class Telling(Failing):
        async def get(self, scope, collection, key):
            if self.fault is not None:
                raise self.fault
            return await super().get(scope, collection, key)

        async def lost(self):
            if call != "watch":
                await asyncio.Event().wait()
            return fault

    inner = Telling()
    ended = []

    def end(what):
        ended.append(what)
        raise Ended

    store = WatchedStore(inner, StoreHealth(SystemClock()), end)
    await store.open()
    if call == "watch":
        with pytest.raises(Ended):
            await store._watching
    else:
        await store.declare("s", SCHEMA)
        inner.fault = fault
        wanted = store.commit("s", [Put("thing", ("a", 1))])
        if call == "read":
            wanted.close()
            wanted = store.get("s", "thing", ("a", 1))
        with pytest.raises(Ended):
            await wanted
    assert ended == [fault]
    store._watching.cancel()
