"""One person who asks much at once is served a few times at a time: others come in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from clients.matrix_server import matrix_server, part
from hansa import Busy
from hansa_matrix.client_api import request_slots
from hansa_matrix.client_api.http import MAX_PARALLEL_READS
from hansa_matrix.client_api.request_slots import RequestSlot, RequestSlots


async def test_others_are_answered_before_two_hundred_questions_of_one_person(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        for number in range(30):
            await alice.say(room, f"{number}")
        path = f"/rooms/{part(room)}/messages?dir=b&limit=30"
        done: list[str] = []

        async def asks(person: Any) -> None:
            assert len((await person.get(path))["chunk"]) == 30
            done.append(person.user)

        await asyncio.gather(*(asks(alice) for _ in range(200)), asks(bob))
        assert len(done) == 201
        assert done.index(bob.user) <= 2 * MAX_PARALLEL_READS


async def test_who_waits_for_news_keeps_nothing_from_being_answered(tmp_path, monkeypatch):
    monkeypatch.setattr(request_slots, "SLOT_TTL_S", 3600.0)
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await alice.sync()
        syncs = [alice.get(f"/sync?since={alice.since}&timeout=30000") for _ in range(3 * MAX_PARALLEL_READS)]
        syncs += [
            alice.get(f"/events?room_id={part(room)}&from={alice.since}&timeout=30000") for _ in range(9)
        ]

        async def others() -> None:
            assert (await alice.get("/account/whoami"))["user_id"] == alice.user
            await bob.join(room)

        async with asyncio.timeout(10):
            await asyncio.gather(*syncs, others())


async def test_places_are_given_in_order_and_come_back(monkeypatch):
    monkeypatch.setattr(request_slots, "SLOT_TTL_S", 3600.0)
    some, order = RequestSlots(each=2, waiting=3), list[int]()
    first = [await some.acquire_slot("a"), await some.acquire_slot("a")]
    assert (await some.acquire_slot("b")) is not None  # has places of their own

    async def waits(number: int) -> RequestSlot:
        place = await some.acquire_slot("a")
        order.append(number)
        return place

    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(waits(number)) for number in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await some.acquire_slot("a")
        waiting[1].cancel()  # hung up while waiting: nobody waits behind it for ever
        for place in first:
            some.release_slot("a", place)
    assert order == [0, 2]
    for number in (0, 2):
        some.release_slot("a", waiting[number].result())
    await asyncio.sleep(0)
    assert len(some) == 1  # b


async def test_who_hangs_up_as_they_are_served_gives_the_place_back():
    some = RequestSlots(each=1, waiting=3)
    first = await some.acquire_slot("a")
    async with asyncio.TaskGroup() as group:
        gone = group.create_task(some.acquire_slot("a"))
        await asyncio.sleep(0)
        some.release_slot("a", first)
        await asyncio.sleep(0)
        gone.cancel()
    await asyncio.sleep(0)
    assert len(some) == 0


async def test_what_takes_long_keeps_its_place_for_a_time_alone(monkeypatch):
    """It waits for another server: the person goes on meanwhile."""
    monkeypatch.setattr(request_slots, "SLOT_TTL_S", 0.02)
    some = RequestSlots(each=2, waiting=10)
    slow = [await some.acquire_slot("a") for _ in range(2)]
    async with asyncio.timeout(5):
        later = await asyncio.gather(*(some.acquire_slot("a") for _ in range(4)))
    for place in (*slow, *later):
        some.release_slot("a", place)
    await asyncio.sleep(0)
    assert len(some) == 0
