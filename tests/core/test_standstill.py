"""A process that stood still asks its database before it speaks to anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hansa.environment import Failure, HttpError, HttpRequest
from hansa.http.client import HttpClient
from hansa.standstill import Standstill
from hansa.store.base import StoreError


class Bench:
    """A clock that is set, and a database that is asked."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked = 0
        self.answer: Callable[[], Awaitable[None]] = self.kept
        self.standstill = Standstill(lambda: self.now, self.probe)

    async def probe(self) -> None:
        self.asked += 1
        await self.answer()

    async def kept(self) -> None:
        pass

    async def lost(self) -> None:
        raise StoreError("another process has it")


@pytest.fixture
async def bench():
    made = Bench()
    watching = asyncio.ensure_future(made.standstill.watch())
    await asyncio.sleep(0)
    yield made
    watching.cancel()
    await asyncio.wait({watching})


async def test_who_did_not_stand_still_asks_nothing(bench):
    for _ in range(5):
        bench.now += 4.9
        assert await bench.standstill.may_speak()
    assert bench.asked == 0


async def test_who_stood_still_asks_once(bench):
    bench.now += 5.1
    assert await bench.standstill.may_speak()
    assert await bench.standstill.may_speak()
    assert bench.asked == 1


async def test_it_is_remembered_by_whoever_looks_first(bench):
    """The watch may come to its turn before whoever wants to speak."""
    bench.now += 5.1
    bench.standstill._look()
    assert await bench.standstill.may_speak()
    assert bench.asked == 1


async def test_who_stood_still_while_it_asked_asks_again(bench):
    async def slept() -> None:
        bench.now += 6.0
        bench.answer = bench.kept

    bench.now += 5.1
    bench.answer = slept
    assert await bench.standstill.may_speak()
    assert bench.asked == 2


async def test_who_lost_its_database_says_nothing(bench):
    bench.now += 5.1
    bench.answer = bench.lost
    http = HttpClient(private_networks=["127.0.0.0/8"])
    http.may_speak = bench.standstill.may_speak
    heard: list[object] = []
    server = await asyncio.start_server(lambda _reader, writer: heard.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    request = HttpRequest(method="PUT", host="127.0.0.1", port=port, target="/", timeout=5)
    try:
        for _ in range(2):
            with pytest.raises(HttpError) as caught:
                await http.request(request)
            assert caught.value.kind is Failure.BUSY
        assert not heard and bench.asked == 2
    finally:
        await http.close()
        server.close()
        await server.wait_closed()
