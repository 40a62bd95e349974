"""A database that is full is said to be so until it has room, whatever small things it still takes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hansa.environment import SystemClock
from hansa.store.base import MAX_BODY, Delete, Put, Remove
from hansa.store.catalogue import NAME
from hansa.store.faults import FaultKind, StoreFault
from hansa.store.health import StoreHealth, WatchedStore
from hansa.store.memory import MemoryStore
from hansa.testing.store_suite import SCHEMA


class SmallStore(MemoryStore):
    """Takes batches of at most ``room`` bytes of bodies."""

    room = 10 * MAX_BODY

    async def commit(self, scope, writes, *, durability="full"):
        size = sum(len(w.body) for w in writes if not isinstance(w, Delete | Remove))
        if size > self.room:
            raise StoreFault(FaultKind.FULL, "no space left on device")
        return await super().commit(scope, writes, durability=durability)


@pytest.fixture
async def inner() -> SmallStore:
    return SmallStore()


@pytest.fixture
async def store(inner) -> AsyncIterator[WatchedStore]:
    watched = WatchedStore(inner, StoreHealth(SystemClock()))
    await watched.open()
    await watched.declare("s", SCHEMA)
    yield watched
    await watched.close()


async def checked(store: WatchedStore) -> FaultKind | None:
    store.health._last_write -= 60  # what was written is long ago
    found = await store.check()
    return found.kind if found is not None else None


@pytest.mark.parametrize("size", [10, 300_000, 5 * MAX_BODY])
async def test_full_is_over_when_there_is_room_for_what_did_not_fit(store, inner, size):
    most = min(size, MAX_BODY)
    batch = [Put("thing", ("a", n), bytes(most)) for n in range(size // most)]
    inner.room = 0
    with pytest.raises(StoreFault, match="full"):
        await store.commit("s", batch)
    await store.commit("s", [Put("thing", ("b", 1))])  # a row without a body has a place
    assert await checked(store) is FaultKind.FULL
    inner.room = min(max(size, 256 * 1024), MAX_BODY) - 1
    assert await checked(store) is FaultKind.FULL
    inner.room += 1
    assert await checked(store) is None
    assert await store.get("", NAME, ("", "probe")) is None


async def test_a_probe_that_was_under_way_when_the_disk_was_full_ends_nothing(store, inner):
    inner.room = 0
    probe = inner.probe

    async def meanwhile() -> None:
        with pytest.raises(StoreFault):
            await store.commit("s", [Put("thing", ("a", 1), b"x")])
        await probe()

    inner.probe = meanwhile
    store.health._last_write -= 60
    await store.check()
    assert store.health.degraded is not None and store.health.degraded.kind is FaultKind.FULL
