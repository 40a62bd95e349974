"""The way out against servers that are slow, lie or swell, and against too many who want to use it."""

from __future__ import annotations

import asyncio
import functools
import gzip
import re
import socket
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp.resolver import AsyncResolver
from hansa import Failure, HttpError, HttpRequest
from hansa.http import client
from hansa.http.client import HttpClient
from hansa.http.client_slots import Cause, SlotLimits, Slots
from hansa.testing import until

MIB = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\n"


class Counts(dict[str, int]):
    def __call__(self, name: str, **labels: str) -> None:
        key = " ".join([name, *labels.values()])
        self[key] = self.get(key, 0) + 1


class Peer:
    """A server that answers what it is given, or keeps silent, and counts its connections."""

    def __init__(self, answer: bytes | None, rest: bytes = b"") -> None:
        self.answer, self.rest = answer, rest
        self.now = self.most = self.all = 0
        self.gone = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """In a task of its own: one of ``start_server`` complains when the test ends first."""
        self.tasks.append(asyncio.ensure_future(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.now += 1
        self.all += 1
        self.most = max(self.most, self.now)
        try:
            while await reader.read(65536):
                if self.answer is not None:
                    writer.write(self.answer + self.rest)
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.now -= 1
            self.gone.set()
            writer.close()


@asynccontextmanager
async def peers(*served: Peer) -> AsyncIterator[list[int]]:
    async with AsyncExitStack() as stack:
        ports = []
        for peer in served:
            server = await asyncio.start_server(peer.accept, "127.0.0.1", 0)
            stack.push_async_callback(ended, peer.tasks)
            stack.callback(server.close)
            ports.append(server.sockets[0].getsockname()[1])
        yield ports


@asynccontextmanager
async def way_out(**more: Any) -> AsyncIterator[HttpClient]:
    http = HttpClient(**{"private_networks": ["127.0.0.0/8"], **more})
    try:
        yield http
    finally:
        await http.close()


def get(port: int, **more: Any) -> HttpRequest:
    return HttpRequest(**{"method": "GET", "host": "127.0.0.1", "port": port, "target": "/", **more})


def whole(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    return OK + f"Content-Length: {len(body)}\r\n{lines}\r\n".encode() + body


async def ended(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# Shares.


async def test_what_strangers_cause_leaves_room_for_everybody_else():
    """300 unsigned requests used up all 256 outgoing connections for 15 s."""
    silent = [Peer(None) for _ in range(60)]
    friend = Peer(whole(b"{}"))
    counts = Counts()
    async with peers(*silent, friend) as (*ports, good), way_out(count=counts) as http:
        tasks = [
            asyncio.ensure_future(http.request(get(ports[n % 60], share=f"group {n % 75}", stranger=True)))
            for n in range(300)
        ]
        await until(lambda: sum(p.now for p in silent) == 32)
        assert (await http.request(get(good, timeout=5))).body == b"{}"
        measured = {(name, labels["pool"]): value for name, labels, value in http.measures()}
        assert measured["http_out_open", "strangers"] == 32
        assert measured["http_out_waiting", "strangers"] == 64
        assert sum(1 for task in tasks if task.done()) == 300 - 32 - 64
        await ended(tasks)
    assert sum(p.all for p in silent) == 32 and max(p.most for p in silent) <= 2
    assert counts["http_out_refused strangers"] == 300 - 32 - 64


async def test_one_who_causes_requests_has_four_of_the_strangers_places():
    silent = [Peer(None) for _ in range(10)]
    async with peers(*silent) as ports, way_out() as http:
        greedy = [asyncio.ensure_future(http.request(get(p, share="a", stranger=True))) for p in ports]
        await until(lambda: sum(p.now for p in silent) == 4)
        other = asyncio.ensure_future(http.request(get(ports[9], share="b", stranger=True)))
        await until(lambda: silent[9].now == 1)
        assert sum(p.now for p in silent) == 5
        await ended([*greedy, other])


async def test_a_destination_has_eight_places_and_another_is_not_kept_waiting():
    silent, friend = Peer(None), Peer(whole(b"{}"))
    async with peers(silent, friend) as (slow, good), way_out() as http:
        tasks = [asyncio.ensure_future(http.request(get(slow))) for _ in range(300)]
        await until(lambda: silent.now == 8)
        assert (await http.request(get(good, timeout=5))).status == 200
        assert sum(1 for task in tasks if task.done()) == 300 - 8 - 256  # so many may wait
        await ended(tasks)
    assert silent.most == 8


async def test_who_does_not_answer_shares_the_places_of_the_unproven():
    silent = [Peer(None) for _ in range(8)]
    friend = Peer(whole(b"{}"))
    limits = SlotLimits(known=6, unproven=4)
    async with peers(*silent, friend) as (*ports, good), way_out(limits=limits) as http:
        assert (await http.request(get(good, timeout=5))).status == 200  # has answered before
        tasks = [asyncio.ensure_future(http.request(get(port))) for port in ports]
        await until(lambda: sum(p.now for p in silent) == 4)
        assert (await http.request(get(good, timeout=5))).status == 200
        assert sum(p.now for p in silent) == 4
        await ended(tasks)


async def test_whoever_is_cancelled_leaves_the_place_to_the_next():
    slots = Slots(SlotLimits(per_destination=1), Counts())
    order: list[str] = []
    first = asyncio.Event()

    async def use(name: str, release: asyncio.Event) -> None:
        async with slots.place(Cause(destination="d")):
            order.append(name)
            await release.wait()

    one = asyncio.ensure_future(use("one", first))
    await until(lambda: order == ["one"])
    two, three = (asyncio.ensure_future(use(n, asyncio.Event())) for n in ("two", "three"))
    await until(lambda: slots.waiting("known") == 2)
    first.set()
    await one  # the place is given to the second, who is gone before it has run
    two.cancel()
    await until(lambda: order[-1] == "three")
    three.cancel()
    await asyncio.gather(two, three, return_exceptions=True)
    assert order in (["one", "three"], ["one", "two", "three"])
    assert slots.open("known") == 0 and slots.waiting("known") == 0


async def test_waiting_ends(monkeypatch):
    monkeypatch.setattr("hansa.http.client_slots._STRANGER_WAIT", 0.01)
    counts = Counts()
    slots = Slots(SlotLimits(strangers=1), counts)
    async with slots.place(Cause(destination="d", stranger=True)):
        with pytest.raises(HttpError) as raised:
            async with slots.place(Cause(destination="e", stranger=True)):
                pytest.fail("there was a place")
    assert raised.value.kind is Failure.BUSY and counts["http_out_refused wait"] == 1
    assert slots.open("strangers") == 0 and slots.waiting("strangers") == 0


# Answers.


def packed(size: int) -> bytes:
    """So many bytes, packed as tightly as gzip can."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(packer.compress(bytes(MIB)) for _ in range(size // MIB)), packer.flush()])


@pytest.mark.parametrize("size", [16 * MIB, 64 * MIB])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_bomb_is_not_unpacked(size, chunked):
    body, most = packed(size), 64 * 1024
    if chunked:
        answer = OK + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer += b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    else:
        answer = whole(body, "Content-Encoding: gzip")
    del body
    async with peers(Peer(answer)) as (port,), way_out() as http:
        http._open_session()  # what certificates take is not to be measured
        tracemalloc.start()
        try:
            with pytest.raises(HttpError) as raised:
                await http.request(get(port, max_body=most))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert raised.value.kind is Failure.TOO_LARGE
    assert peak < MIB, peak


async def test_of_a_bomb_that_nobody_reads_little_is_held():
    answer = whole(packed(64 * MIB), "Content-Encoding: gzip")
    async with peers(Peer(answer)) as (port,), way_out() as http:
        http._open_session()
        tracemalloc.start()
        try:
            async with http.stream(get(port, max_body=64 * MIB)) as stream:
                size = 0
                async for chunk in stream.chunks:
                    size += len(chunk)
                    if size > MIB:
                        break
                for _ in range(200):
                    await asyncio.sleep(0)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 2 * MIB, peak


async def test_an_answer_that_is_gzip_is_unpacked():
    body = b"x" * 300_000
    async with (
        peers(Peer(whole(gzip.compress(body), "Content-Encoding: gzip"))) as (port,),
        way_out() as http,
    ):
        assert (await http.request(get(port))).body == body


async def test_a_body_has_a_least_speed(monkeypatch):
    monkeypatch.setattr(client, "_GRACE", 0.05)
    counts = Counts()
    peer = Peer(OK + b"Content-Length: 100\r\n\r\n", b"0123456789")
    async with peers(peer) as (port,), way_out(count=counts) as http:
        with pytest.raises(HttpError) as raised:
            await http.request(get(port))
        await asyncio.wait_for(peer.gone.wait(), 5)
    assert raised.value.kind is Failure.TIMED_OUT and counts["http_out_slow"] == 1


async def test_the_connection_closes_when_nobody_reads_on():
    peer = Peer(OK + b"Content-Length: 100\r\n\r\n", b"0123456789")
    async with peers(peer) as (port,), way_out() as http:
        async with http.stream(get(port)) as answer:
            assert await anext(answer.chunks) == b"0123456789"
        await asyncio.wait_for(peer.gone.wait(), 5)


async def test_a_request_nobody_waits_for_any_more_ends():
    peer = Peer(None)
    async with peers(peer) as (port,), way_out() as http:
        task = asyncio.ensure_future(http.request(get(port)))
        await until(lambda: peer.now == 1)
        await ended([task])
        await asyncio.wait_for(peer.gone.wait(), 5)
        assert all(value == 0 for _, _, value in http.measures())


# What is told of a failure.


async def test_failures_have_words_without_addresses_ports_or_errors(caplog):
    caplog.set_level("INFO", "hansa.http")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        async with (
            peers(Peer(None), Peer(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), Peer(whole(b"x" * 99))) as ports,
            way_out() as http,
        ):
            silent, other, large = ports
            cases = [
                (get(port), Failure.UNREACHABLE),
                (get(silent, timeout=0.05), Failure.TIMED_OUT),
                (get(other), Failure.PROTOCOL),
                (get(other, tls_name="h", timeout=5), Failure.CERTIFICATE),
                (get(large, max_body=9), Failure.TOO_LARGE),
                (get(port, host="10.0.0.1"), Failure.GUARDED),
                (get(port, host="nobody.invalid"), Failure.UNREACHABLE),
            ]
            for request, kind in cases:
                caplog.clear()
                with pytest.raises(HttpError) as raised:
                    await http.request(request)
                error = raised.value
                assert (str(error), error.kind) == (kind.value, kind), error.detail
                assert not re.search(r"\d|127|Errno|rrno|\[", str(error))
                assert str(request.port) in error.detail or kind is Failure.GUARDED, error.detail
                http._told._sources.clear()
                assert error.detail in caplog.text  # the operator finds it in the log
                assert "ConnectionKey" not in error.detail and "OSError(" not in error.detail


# The guard.


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
        "::1%lo",
        "2130706433",
        "127.1",
        "0x7f000001",
        "0177.0.0.1",
        "0",
    ],
)
async def test_nothing_leads_to_a_private_address(host):
    peer = Peer(whole(b"{}"))
    async with peers(peer) as (port,), way_out(private_networks=[]) as http:
        with pytest.raises(HttpError) as raised:
            await http.request(get(port, host=host, timeout=5))
    assert raised.value.kind in {Failure.GUARDED, Failure.PROTOCOL, Failure.UNREACHABLE}
    assert peer.all == 0


async def test_an_address_is_judged_once_more_before_connecting(monkeypatch):
    """This holds for every way of resolving the name."""

    async def lies(self: Any, host: str, port: int = 0, family: Any = 0) -> Any:
        return [
            {"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}
        ]

    monkeypatch.setattr(client._GuardedResolver, "resolve", lies)
    peer = Peer(whole(b"{}"))
    async with peers(peer) as (port,), way_out(private_networks=[]) as http:
        with pytest.raises(HttpError) as raised:
            await http.request(get(port, host="public.example"))
    assert raised.value.kind is Failure.GUARDED and peer.all == 0


async def test_name_servers_that_keep_silent_hold_nobody_up(monkeypatch):
    """A thread for each name would be taken until none is left, for anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        ask = functools.partial(AsyncResolver, nameservers=["127.0.0.1"], udp_port=port, tcp_port=port)
        monkeypatch.setattr(client, "AsyncResolver", ask)
        async with peers(Peer(whole(b"{}"))) as (good,), way_out() as http:
            tasks = [
                asyncio.ensure_future(http.request(get(1, host=f"tarpit{n}.example", timeout=20)))
                for n in range(100)
            ]
            async with asyncio.timeout(10):
                silent.settimeout(10)
                await asyncio.to_thread(silent.recv, 512)  # they are being asked for
                assert (await http.request(get(good, host="127.0.0.1"))).body == b"{}"
                assert (await http.request(get(good, host="localhost"))).body == b"{}"
                await asyncio.to_thread(int)
            assert not any(task.done() for task in tasks)
            await ended(tasks)
