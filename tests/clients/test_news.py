"""The stream that clients are told from: in memory, in the store, and where one ends and the other begins."""

from __future__ import annotations

import pytest
from hansa import ScopedStore
from hansa.testing.harness import MemoryStore
from hansa_matrix.local import client_stream as module
from hansa_matrix.local.client_stream import ClientStream, stream_write
from hansa_matrix.schema import SCHEMA


async def filled(count: int) -> tuple[ScopedStore, list[int]]:
    store = MemoryStore()
    await store.open()
    scoped = ScopedStore(store, "matrix")
    await scoped.declare(SCHEMA)
    positions = []
    for number in range(count):
        positions += await scoped.commit([stream_write("!even" if number % 2 == 0 else "!odd", f"${number}")])
    return scoped, positions


@pytest.mark.parametrize("tail", [4, 100])
@pytest.mark.parametrize("before_asking", [True, False])
async def test_the_same_is_told_from_memory_and_from_the_store(monkeypatch, tail, before_asking):
    monkeypatch.setattr(module, "_TAIL", tail)
    store, positions = await filled(10 if before_asking else 0)
    news = ClientStream(store)
    await news.now()
    if not before_asking:
        for number in range(10):
            positions += await store.commit(
                [stream_write("!even" if number % 2 == 0 else "!odd", f"${number}")]
            )
    now = await news.now()
    assert now == positions[-1]
    for since in (0, *positions):
        for upto in positions:
            for topics in ({"!even"}, {"!even", "!odd"}, {f"!{n}" for n in range(50)} | {"!odd"}):
                found = await news.items_between(since, upto, topics, 100)
                said = [(i.topic, i.ref) for items in found.values() for i in items]
                wanted = [
                    (topic, f"${n}")
                    for topic in ("!even", "!odd")
                    for n, at in enumerate(positions)
                    if since < at <= upto and topic in topics and topic == ("!even" if n % 2 == 0 else "!odd")
                ]
                assert sorted(said) == sorted(wanted), (since, upto, topics)
    assert [i.ref for i in await news.last_items("!even", 2**53, 3)] == ["$4", "$6", "$8"]
    assert [i.ref for i in await news.last_items("!even", positions[6], 2)] == ["$2", "$4"]
    assert [i.ref for i in await news.first_items("!odd", positions[2], 2)] == ["$3", "$5"]
    assert await news.position_of("!odd", "$3") == positions[3]
    assert await news.position_of("!even", "$3") == 0
    more = await store.commit([stream_write("!even", "$new")])
    assert [
        i.position for i in await news.last_items("!even", 2**53, 1)
    ] == more  # though nobody asked how far it is


async def test_a_purged_topic_is_gone():
    store, _ = await filled(6)
    news = ClientStream(store)
    await news.purge_topic("!even")
    assert await ClientStream(store).last_items("!even", 2**53, 10) == []
    assert len(await ClientStream(store).last_items("!odd", 2**53, 10)) == 3
