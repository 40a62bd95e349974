"""A process that stood still asks its database before it sends anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

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
async def bench() -> AsyncIterator[Bench]:
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
    """The watch may run before the first sender does."""
    bench.now += 5.1
    bench.standstill._check_clock()
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


class Peer:
    """A server that keeps every byte that comes."""

    def __init__(self) -> None:
        self.came = b""
        self.connected = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected.set()
        with suppress(ConnectionError):
            while part := await reader.read(65536):
                self.came += part
        writer.close()


@asynccontextmanager
async def _peer(may_speak: Callable[[], Awaitable[bool]]) -> AsyncIterator[tuple[Peer, HttpClient, int]]:
    peer, http = Peer(), HttpClient(private_networks=["127.0.0.0/8"], may_speak=may_speak)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    try:
        yield peer, http, server.sockets[0].getsockname()[1]
    finally:
        await http.close()
        server.close()
        await server.wait_closed()


async def _refused(http: HttpClient, port: int, body: bytes | None) -> None:
    request = HttpRequest(method="PUT", host="127.0.0.1", port=port, target="/", body=body, timeout=5)
    with pytest.raises(HttpError) as caught:
        await http.request(request)
    assert caught.value.kind is Failure.BUSY


@pytest.mark.parametrize("body", [None, b"", b"body"])
async def test_who_lost_its_database_says_nothing(bench, body):
    bench.now += 5.1
    bench.answer = bench.lost
    async with _peer(bench.standstill.may_speak) as (peer, http, port):
        for _ in range(2):
            await _refused(http, port, body)
    assert peer.came == b"" and bench.asked == 2


@pytest.mark.parametrize("body", [None, b"", b"body"])
async def test_who_stands_still_while_it_connects_says_nothing(bench, body):
    async def may_speak() -> bool:
        await peer.connected.wait()
        bench.now += 5.1
        return await bench.standstill.may_speak()

    bench.answer = bench.lost
    async with _peer(may_speak) as (peer, http, port):
        await _refused(http, port, body)
    assert peer.came == b"" and bench.asked == 1


async def test_who_stands_still_before_the_body_is_written_says_nothing(bench):
    """The head is written with the body, in a task that begins later."""
    looks = 0

    async def may_speak() -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:
            bench.now += 5.1
        return await bench.standstill.may_speak()

    bench.answer = bench.lost
    async with _peer(may_speak) as (peer, http, port):
        await _refused(http, port, b"body")
    assert peer.came == b"" and looks == 2
