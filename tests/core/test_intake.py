"""Too many connections: each address and each neighbourhood uses up its own share, and nobody else's."""

from __future__ import annotations

import asyncio
import random
import ssl
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hansa import Request, Response, Router
from hansa.http import acceptor, connection
from hansa.http.connection_limits import ConnectionEntry, ConnectionLimiter, ConnectionLimits, RequestShares
from hansa.http.listener import Certificate, Dispatcher, Listener, TlsContexts
from hansa.http.unread_responses import UnreadResponses
from hansa.testing import until
from peers.ca import PrivateCA

GET = b"GET /here HTTP/1.1\r\nHost: h\r\n\r\n"


class Counts(dict[str, int]):
    def __call__(self, name: str, **labels: str) -> None:
        key = " ".join([name, *labels.values()])
        self[key] = self.get(key, 0) + 1


class Server:
    """``/here`` answers at once, ``/wait`` when told, ``/large`` with more than sockets hold."""

    def __init__(self, limits: ConnectionLimits, **more: Any) -> None:
        self.counts = Counts()
        self.clients: list[Client] = []
        self.intake = ConnectionLimiter(limits, self.counts)
        self.released = asyncio.Event()
        self.waiting = self.cancelled = 0
        router = self.router = Router()
        router.add("GET", "/here", self._here)
        router.add("GET", "/wait", self._wait)
        router.add("GET", "/read", self._wait, cancel_on_disconnect=True)
        router.add("GET", "/large", self._large)
        proxies = more.pop("proxies", ())
        self.dispatcher = Dispatcher({"": router}, self.counts, proxies)
        self.listener = Listener(
            self.dispatcher, more.pop("host", "127.0.0.1"), 0, **more, intake=self.intake
        )

    async def _here(self, request: Request) -> Response:
        return Response(body=request.remote.encode())

    async def _wait(self, _: Request) -> Response:
        self.waiting += 1
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        return Response()

    async def _large(self, _: Request) -> Response:
        return Response(body=bytes(64 * 1024 * 1024))

    def measured(self) -> dict[str, float]:
        return {name: value for name, _, value in self.intake.measures()}


@asynccontextmanager
async def serving(limits: ConnectionLimits, **more: Any) -> AsyncIterator[Server]:
    server = Server(limits, **more)
    await server.listener.start()
    try:
        yield server
    finally:
        server.released.set()
        for client in server.clients:
            client.writer.close()
        await asyncio.gather(*(c.writer.wait_closed() for c in server.clients), return_exceptions=True)
        await server.listener.stop()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def get(self, target: str = "/here", *headers: str) -> bytes:
        self.send(target, *headers)
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n")
            rest = await self.reader.readuntil(b"\r\n\r\n")
            length = int(rest.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            return head + await self.reader.readexactly(length)

    def send(self, target: str, *headers: str) -> None:
        lines = "".join(f"{line}\r\n" for line in headers)
        self.writer.write(f"GET {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode())

    async def closed(self) -> bool:
        try:
            async with asyncio.timeout(10):
                return await self.reader.read() == b""
        except ConnectionError:
            return True


async def connected(server: Server, address: str = "127.0.0.1", **more: Any) -> Client:
    async with asyncio.timeout(10):
        streams = await asyncio.open_connection(
            "127.0.0.1", server.listener.port, local_addr=(address, 0), **more
        )
    server.clients.append(Client(*streams))
    return server.clients[-1]


@pytest.fixture
def certificate(tmp_path) -> TlsContexts:
    chain, key = PrivateCA(tmp_path / "ca").issue("h", "h")
    return TlsContexts(Certificate(certificate=chain, key=key), {})


SMALL = ConnectionLimits(total=64, per_address=16, per_group=32)


async def test_a_thousand_idle_connections_keep_nobody_out():
    """1,000 idle connections of one address kept everybody out."""
    async with serving(SMALL) as server:
        idle = [await connected(server) for _ in range(1000)]
        await until(lambda: server.counts.get("http_let_go") == 1000 - 16)
        found = server.measured()
        assert (found["http_connections"], found["http_connections_largest_group"]) == (16, 16)
        other = await connected(server, "127.9.0.1")
        assert await other.get() == b"HTTP/1.1 200 OK\r\n127.9.0.1"
        same = await connected(server)  # a client with a request gets in at the same address, too
        assert await same.get() == b"HTTP/1.1 200 OK\r\n127.0.0.1"
        assert await idle[0].closed()


async def test_a_neighbourhood_has_a_share_and_all_together_have_one():
    async with serving(SMALL) as server:
        for n in range(300):
            await connected(server, f"127.0.0.{n % 100 + 1}")
        await until(lambda: server.counts.get("http_let_go") == 300 - 32)
        assert server.measured()["http_connections_largest_group"] == 32
        for n in range(100):
            await connected(server, f"127.0.{n + 1}.1")
        await until(lambda: server.counts["http_let_go"] == 400 - 64)
        assert server.measured()["http_connections"] == 64
        # What was the largest group has no more than others now.
        assert server.measured()["http_connections_largest_group"] <= 2
        assert await (await connected(server, "127.200.0.1")).get() == b"HTTP/1.1 200 OK\r\n127.200.0.1"


async def test_who_has_asked_something_stays_longer_than_who_never_did():
    async with serving(SMALL) as server:
        asked = [await connected(server) for _ in range(4)]
        for client in asked:
            await client.get()
        for _ in range(50):
            await connected(server)
        await until(lambda: server.counts.get("http_let_go", 0) == 50 + 4 - 16)
        for client in asked:
            assert (await client.get()).startswith(b"HTTP/1.1 200")


async def test_where_all_are_busy_newcomers_of_the_same_address_are_turned_away():
    async with serving(SMALL) as server:
        busy = [await connected(server) for _ in range(16)]
        for client in busy:
            client.send("/wait")
        await until(lambda: server.waiting == 16)
        assert await (await connected(server)).closed()
        assert server.counts["http_turned_away address"] == 1
        assert (await (await connected(server, "127.9.0.1")).get()).startswith(b"HTTP/1.1 200")
        server.released.set()
        for client in busy:
            assert (await client.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")


async def test_the_command_line_has_connections_of_its_own(tmp_path):
    async with serving(ConnectionLimits(total=4, per_address=4, per_group=4)) as public:
        busy = [await connected(public) for _ in range(4)]
        for client in busy:
            client.send("/wait")
        await until(lambda: public.waiting == 4)
        async with serving(SMALL, host=str(tmp_path / "socket")) as local:
            assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o600
            local.clients.append(Client(*await asyncio.open_unix_connection(str(tmp_path / "socket"))))
            assert (await local.clients[0].get()).startswith(b"HTTP/1.1 200")
            assert local.measured()["http_connections"] == 1


async def test_who_sends_nothing_is_let_go(monkeypatch):
    monkeypatch.setattr(connection, "_HEAD_TIMEOUT_S", 0.05)
    async with serving(SMALL) as server:
        assert await (await connected(server)).closed()
        assert server.counts == {"http_slow": 1}
        await until(lambda: server.measured()["http_connections"] == 0)


async def test_who_never_ends_a_handshake_is_let_go(monkeypatch, certificate):
    monkeypatch.setattr(acceptor, "_HANDSHAKE_TIMEOUT_S", 0.05)
    async with serving(SMALL, tls=certificate) as server:
        silent = await connected(server)
        await until(lambda: server.measured()["http_connections"] == 1)  # counted before it has shaken hands
        assert await silent.closed()
        await until(lambda: server.measured()["http_connections"] == 0)
        assert server.counts == {"http_no_handshake": 1}


async def test_handshakes_that_never_end_keep_nobody_out(certificate):
    async with serving(SMALL, tls=certificate) as server:
        for _ in range(100):
            await connected(server)
        await until(lambda: server.counts.get("http_let_go", 0) == 84)
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        for address in ("127.9.0.1", "127.0.0.1"):
            client = await connected(server, address, ssl=trust, server_hostname="h")
            assert (await client.get()).startswith(b"HTTP/1.1 200")


async def test_who_takes_no_answer_is_let_go(monkeypatch):
    monkeypatch.setattr(connection, "_TAKEN_TIMEOUT_S", 0.05)
    async with serving(SMALL) as server:
        client = await connected(server)
        client.writer.transport.pause_reading()
        client.send("/large")
        await until(lambda: server.counts == {"http_not_taken": 1})
        await until(lambda: server.measured()["http_connections"] == 0)


async def test_answers_that_nobody_takes_have_a_share_of_the_memory():
    async with serving(SMALL) as server:
        server.intake.untaken = UnreadResponses(100 * 1024 * 1024, 150 * 1024 * 1024)
        greedy = [await connected(server, "127.0.0.1") for _ in range(2)]
        for client in greedy:
            client.writer.transport.pause_reading()
            client.send("/large")
        await until(lambda: server.counts == {"http_not_taken": 1})  # 64 MiB each
        held = server.measured()["http_untaken_bytes"]
        assert 50 * 1024 * 1024 < held <= 64 * 1024 * 1024
        other = await connected(server, "127.9.0.1")
        other.writer.transport.pause_reading()
        other.send("/large")
        await until(lambda: server.measured()["http_untaken_bytes"] > held)
        assert server.counts == {"http_not_taken": 1}
        third = await connected(server, "127.10.0.1")  # what all have together is full
        third.send("/large")
        async with asyncio.timeout(20):
            await third.reader.readuntil(b"\r\n\r\n")
            await third.reader.readexactly(64 * 1024 * 1024)
        assert server.counts == {"http_not_taken": 2}
        for client in (*greedy, other):
            client.writer.transport.abort()
        await until(lambda: server.measured()["http_untaken_bytes"] == 0)


class Body(bytearray):
    """Bytes of which one can see that they are gone."""


async def test_a_connection_that_waits_holds_no_answer():
    async with serving(SMALL) as server:
        body = Body(1024 * 1024)
        gone, bodies = weakref.ref(body), [body]
        del body

        async def once(_: Request) -> Response:
            return Response(body=bodies.pop())

        server.router.add("GET", "/once", once)
        client = await connected(server)
        client.send("/once")
        await client.reader.readuntil(b"\r\n\r\n")
        await client.reader.readexactly(1024 * 1024)
        await until(lambda: gone() is None)
        assert (await client.get()).startswith(b"HTTP/1.1 200")


def _unsent(server: Server) -> int:
    """Bytes that wait in the transports of the only connection."""
    (held,) = server.listener._server.connections
    below = held.transport.get_extra_info("ssl_object") and held.transport._ssl_protocol._transport
    return held.transport.get_write_buffer_size() + (below.get_write_buffer_size() if below else 0)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_large_answer_that_nobody_takes_is_held_once_and_its_time_runs(
    secure, certificate, monkeypatch
):
    """Over TLS no time ran: a peer with a small request each minute held 16 MiB for hours."""
    monkeypatch.setattr(connection, "_TAKEN_TIMEOUT_S", 1000)
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    more = {"ssl": trust, "server_hostname": "h"} if secure else {}
    async with serving(SMALL, tls=certificate if secure else None) as server:
        client = await connected(server, **more)
        client.writer.transport.pause_reading()
        client.send("/large")
        await until(lambda: server.listener._server.connections)
        (held,) = server.listener._server.connections
        await until(lambda: held._untaken is not None)
        assert _unsent(server) < 2 * 1024 * 1024
        assert server.measured()["http_untaken_bytes"] == 64 * 1024 * 1024
        first = held._untaken
        # A slow reader gets the full time again with each part.
        client.writer.transport.resume_reading()
        async with asyncio.timeout(10):
            await client.reader.readexactly(16 * 1024 * 1024)
        await until(lambda: held._untaken not in (None, first))
        assert first.cancelled()
        held._not_taken()
        await until(lambda: server.measured()["http_connections"] == 0)


async def test_a_large_answer_has_its_length_and_leaves_the_connection_open():
    async with serving(SMALL) as server:
        client = await connected(server)
        client.send("/large")
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 67108864\r\n" in head.lower()
        assert b"chunked" not in head.lower()
        assert await client.reader.readexactly(64 * 1024 * 1024) == bytes(64 * 1024 * 1024)
        assert (await client.get()).startswith(b"HTTP/1.1 200")


async def test_an_answer_under_way_is_not_idle():
    limits = ConnectionLimits(total=2, per_address=1, per_group=2)
    async with serving(limits) as server:
        client = await connected(server)
        client.send("/large")
        client.writer.transport.pause_reading()
        await until(lambda: next(iter(server.intake._members["127.0.0.0/24"])).held.writing_paused)
        assert await (await connected(server)).closed()
        client.writer.transport.resume_reading()
        async with asyncio.timeout(20):
            await client.reader.readuntil(b"\r\n\r\n")
            await client.reader.readexactly(64 * 1024 * 1024)


async def test_a_head_that_grows_and_grows_is_let_go():
    """One head could have 2 MiB, of each of many connections."""
    async with serving(SMALL) as server:
        client = await connected(server)
        client.writer.write(b"GET /here HTTP/1.1\r\nHost: h\r\n")
        for n in range(100):
            client.writer.write(b"X-%d: " % n + b"a" * 10_000 + b"\r\n")
            await asyncio.sleep(0.001)
        assert await client.closed()
        assert server.counts == {"http_large_heads": 1}


async def test_a_head_may_not_grow_behind_a_request_either():
    async with serving(SMALL) as server:
        client = await connected(server)
        client.send("/wait")
        await until(lambda: server.waiting == 1)
        client.writer.write(b"GET /here HTTP/1.1\r\nHost: h\r\n")
        for n in range(100):
            client.writer.write(b"X-%d: " % n + b"a" * 10_000 + b"\r\n")
            await asyncio.sleep(0.001)
        assert await client.closed()
        assert server.counts == {"http_large_heads": 1}


async def test_few_requests_wait_behind_one_that_is_answered():
    async with serving(SMALL) as server:
        client = await connected(server)
        client.send("/wait")
        await until(lambda: server.waiting == 1)
        for _ in range(200):
            client.send("/here", "X: " + "a" * 10_000)
            await asyncio.sleep(0)
        (held,) = server.listener._server.connections
        await until(lambda: held._buffer_paused)
        # What came in one piece of 256 KiB, and nothing after that.
        assert len(held._messages) <= 32
        await until(lambda: client.writer.transport.get_write_buffer_size() >= 0)
        server.released.set()
        async with asyncio.timeout(10):
            for expected in (b"{}", *[b"127.0.0.1"] * 200):
                assert (await client.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
                await client.reader.readuntil(b"\r\n\r\n" + expected)


# Proxies.


async def test_a_proxy_brings_as_many_as_it_likes_and_its_clients_have_shares():
    limits = ConnectionLimits(total=64, per_address=4, per_group=8)
    async with serving(limits, proxies=["127.0.0.1"]) as server:
        proxy = [await connected(server) for _ in range(30)]
        for client in proxy[:4]:
            client.send("/wait", "X-Forwarded-For: 192.0.2.1")
        await until(lambda: server.waiting == 4)
        assert (await proxy[4].get("/here", "X-Forwarded-For: 192.0.2.1")).startswith(b"HTTP/1.1 429 ")
        assert (await proxy[5].get("/here", "X-Forwarded-For: 192.0.2.2")).endswith(b"192.0.2.2")
        server.released.set()
        for client in proxy[:4]:
            await client.reader.readuntil(b"\r\n\r\n{}")
        assert (await proxy[4].get("/here", "X-Forwarded-For: 192.0.2.1")).endswith(b"192.0.2.1")
        assert server.counts["http_turned_away forwarded"] == 1


# Who hangs up.


async def test_what_is_only_read_ends_when_the_client_hangs_up():
    async with serving(SMALL) as server:
        reader, keeper = await connected(server), await connected(server)
        reader.send("/read")
        keeper.send("/wait")
        await until(lambda: server.waiting == 2)
        reader.writer.close()
        keeper.writer.close()
        await until(lambda: server.cancelled == 1)
        await until(lambda: server.measured()["http_connections"] == 0)
        assert server.waiting == 1 and server.counts == {"http_abandoned": 1}  # the other goes on
        server.released.set()
        await until(lambda: server.waiting == 0)
        assert server.cancelled == 1


# Descriptors.

_POOR = """
import asyncio, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from hansa import Response, Router
from hansa.http.connection_limits import ConnectionLimiter, ConnectionLimits
from hansa.http.listener import Dispatcher, Listener
import time

counts = {}
def count(name, **labels):
    counts[name] = counts.get(name, 0) + 1

async def main():
    router = Router()
    async def told(_):
        return Response(body=f"{counts.get('http_no_descriptors', 0)} {time.process_time()}".encode())
    router.add("GET", "/here", told)
    listener = Listener(Dispatcher({"": router}, count), "127.0.0.1", 0, intake=ConnectionLimiter(ConnectionLimits(), count))
    await listener.start()
    print(listener.port, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_without_descriptors_the_loop_does_not_turn_for_nothing():
    process = subprocess.Popen([sys.executable, "-c", _POOR], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        port = int(await asyncio.to_thread(process.stdout.readline))
        clients = [Client(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(100)]
        last = Client(*await asyncio.open_connection("127.0.0.1", port))
        failures, used = (await last.get()).split(b"\n")[1].split()  # idle ones made room
        assert 0 < int(failures) < 200, failures  # not thousands a second
        assert float(used) < 5
        for client in [*clients, last]:
            client.writer.close()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# The accounts themselves.


class Connected:
    def __init__(self, *, idle: bool = True, heard: bool = True) -> None:
        self._idle, self._heard, self.aborted = idle, heard, False

    def idle(self) -> bool:
        return self._idle

    def heard(self) -> bool:
        return self._heard

    def abort(self) -> None:
        self.aborted = True


def test_the_accounts_hold_whatever_comes_and_goes():
    chance = random.Random(14)
    counts = Counts()
    intake = ConnectionLimiter(ConnectionLimits(total=60, per_address=6, per_group=20), counts)
    inside: list[ConnectionEntry] = []
    for _ in range(20_000):
        if inside and chance.random() < 0.3:
            entry = inside.pop(chance.randrange(len(inside)))
            intake.leave(entry)
            intake.leave(entry)  # once more does nothing
        else:
            address = f"192.0.{chance.randrange(8)}.{chance.randrange(6)}"
            entry = intake.enter(address, trusted=chance.random() < 0.1)
            if entry is not None:
                entry.held = Connected(idle=chance.random() < 0.3, heard=chance.random() < 0.5)
                inside.append(entry)
        inside = [one for one in inside if not one.gone]
        groups: dict[str, int] = {}
        addresses: dict[str, int] = {}
        for one in inside:
            if not one.trusted:
                groups[one.group] = groups.get(one.group, 0) + 1
                addresses[one.address] = addresses.get(one.address, 0) + 1
        measured = {name: value for name, _, value in intake.measures()}
        assert measured["http_connections"] == len(inside) <= 60
        assert measured["http_connections_largest_group"] == max(groups.values(), default=0) <= 20
        assert max(addresses.values(), default=0) <= 6
    assert counts["http_let_go"] and counts["http_turned_away address"]
    for one in inside:
        intake.leave(one)
    assert intake._members == {} and intake._groups.largest() is None and intake._addresses._sizes == {}


@pytest.mark.parametrize("descriptors", [60, 100, 1000, 5000])
def test_no_group_has_more_than_half_however_few_there_are(descriptors):
    limits = ConnectionLimits().within(descriptors)
    assert limits.total <= max(16, descriptors)
    assert limits.per_address <= limits.per_group <= limits.total // 2


def test_requests_that_proxies_bring_are_counted_by_subnet_too():
    shares = RequestShares(ConnectionLimits(per_address=2, per_group=3), Counts())
    assert [shares.enter(f"192.0.2.{n}") for n in (1, 1, 1, 2, 2)] == [True, True, False, True, False]
    for n in (1, 1, 2):
        shares.leave(f"192.0.2.{n}")
    assert not shares._addresses and not shares._networks


def test_who_has_a_wide_ipv6_network_has_no_more_than_half():
    """A share for each /64 bounded nobody who has 65,536 or 4 billion of them."""
    counts = Counts()
    intake = ConnectionLimiter(ConnectionLimits(total=256, per_address=8, per_group=16), counts)

    def enter(address: str, **how: bool) -> ConnectionEntry | None:
        entry = intake.enter(address)
        if entry is not None:
            entry.held = Connected(**how)
        return entry

    one_48 = [enter(f"2a00:1:2:{n:x}::1", idle=False) for n in range(100)]
    assert sum(entry is not None for entry in one_48) == 32
    one_32 = [enter(f"2a00:1:{n:x}::1", idle=False) for n in range(100, 400)]
    assert sum(entry is not None for entry in one_32) == 64 - 32
    assert counts == {"http_turned_away network": 68 + 268}
    # Where all are idle and there is no room, the wide network makes it, not the one small one.
    for entry in one_48 + one_32:
        if entry is not None:
            entry.held = Connected()
    small = [enter(f"192.0.2.{n}") for n in range(8)]
    for n in range(216):
        enter(f"198.51.{n}.1", heard=True)
    assert [entry.gone for entry in small if entry] == [False] * 8
    assert sum(entry.gone for entry in one_48 + one_32 if entry) == 8 + 64 + 216 - 256


def test_requests_that_proxies_bring_are_counted_by_wide_ipv6_networks_too():
    shares = RequestShares(ConnectionLimits(total=64, per_address=2, per_group=3), Counts())
    assert sum(shares.enter(f"2a00:1:2:{n:x}::1") for n in range(50)) == 6
    assert sum(shares.enter(f"2a00:1:{n:x}::1") for n in range(100, 150)) == 12 - 6
