"""A flood of handshakes: each network has a rate, one round of the loop makes one, and nobody is shut out."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Self

import pytest
from hansa import Request, Response, Router
from hansa.http import acceptor, tls_handshakes
from hansa.http.connection_limits import ConnectionLimiter, ConnectionLimits
from hansa.http.listener import Certificate, Dispatcher, Listener, TlsContexts
from hansa.http.tls_handshakes import HandshakeLimits, HandshakeRates, HandshakeTurns
from hansa.testing import until
from peers.ca import PrivateCA


class Counts(dict[str, int]):
    def __call__(self, name: str, **labels: str) -> None:
        key = " ".join([name, *labels.values()])
        self[key] = self.get(key, 0) + 1


class Secure:
    """A TLS listener that notes in which round of the loop it read each hello."""

    def __init__(self, folder: Any) -> None:
        self.counts = Counts()
        self.hellos: list[int] = []
        self.round = 0
        chain, key = PrivateCA(folder / "ca").issue("h", "h")
        self.contexts = TlsContexts(Certificate(certificate=chain, key=key), {})
        choose = self.contexts._select_by_sni

        def noted(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            self.hellos.append(self.round)
            choose(connection, name, context)

        self.contexts.front.sni_callback = noted
        router = Router()

        async def here(_: Request) -> Response:
            return Response()

        router.add("GET", "/here", here)
        dispatcher = Dispatcher({"": router}, self.counts, ["127.8.0.0/16"])
        intake = ConnectionLimiter(ConnectionLimits(), self.counts)
        self.listener = Listener(dispatcher, "127.0.0.1", 0, self.contexts, intake=intake)

    async def __aenter__(self) -> Self:
        await self.listener.start()
        self._loop = asyncio.get_running_loop()
        self._turning = self._loop.call_soon(self._turn)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._turning.cancel()
        await self.listener.stop()

    def _turn(self) -> None:
        self.round += 1
        self._turning = self._loop.call_soon(self._turn)

    async def connect(self, address: str = "127.0.0.1") -> asyncio.StreamWriter:
        _, writer = await asyncio.open_connection("127.0.0.1", self.listener.port, local_addr=(address, 0))
        return writer

    async def shaken(self, address: str) -> bytes:
        """The status line of an answer over TLS; empty where there was no connection."""
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.listener.port, local_addr=(address, 0), ssl=trusting(), server_hostname="h"
            )
        except (OSError, ssl.SSLError):
            return b""
        writer.write(b"GET /here HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        line = await reader.readline()
        writer.close()
        return line


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def hello() -> bytes:
    """Returns the first bytes of a client."""
    outgoing = ssl.MemoryBIO()
    client = trusting().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="h")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def test_hellos_that_come_together_are_read_one_a_round(tmp_path):
    """Sixty hellos in one round held the loop for sixty key exchanges and signatures."""
    async with Secure(tmp_path) as server:
        writers = [await server.connect(f"127.0.{n % 4}.1") for n in range(60)]
        first = hello()
        for writer in writers:
            writer.write(first)
        await until(lambda: len(server.hellos) == 60)
        assert max(server.hellos.count(one) for one in set(server.hellos)) == 1
        for writer in writers:
            writer.close()


async def test_nothing_is_made_for_who_only_connects_or_ends_no_hello(tmp_path, monkeypatch):
    begun: list[str] = []
    mine = HandshakeTurns.mine

    async def noted(self: HandshakeTurns, group: str) -> None:
        begun.append(group)
        await mine(self, group)

    monkeypatch.setattr(HandshakeTurns, "mine", noted)
    async with Secure(tmp_path) as server:
        silent, slow = await server.connect(), await server.connect()
        first = hello()
        for byte in range(len(first) - 1):
            slow.write(first[byte : byte + 1])
        assert (await server.shaken("127.9.0.1")).startswith(b"HTTP/1.1 200")
        assert begun == ["127.9.0.0/24"] and len(server.hellos) == 1
        slow.write(first[-1:])  # who is slow is served once the hello is whole
        await until(lambda: len(server.hellos) == 2)
        silent.close()
        slow.close()


async def test_what_is_no_tls_is_let_go_at_once(tmp_path):
    async with Secure(tmp_path) as server:
        writer = await server.connect()
        writer.write(b"GET /here HTTP/1.1\r\n")
        await until(lambda: server.counts.get("http_no_handshake") == 1)
        writer.close()


async def test_an_address_that_shakes_hands_too_often_is_turned_away_and_no_other(tmp_path, monkeypatch):
    limits = HandshakeLimits(rate=0.001, burst=3, group_rate=0.001, group_burst=5)
    monkeypatch.setattr(acceptor, "HandshakeLimits", lambda: limits)
    async with Secure(tmp_path) as server:
        asked = ["127.0.0.1"] * 4 + ["127.0.0.2"] * 3 + ["127.9.0.1"] + ["127.8.0.1"] * 4
        answers = [bool(await server.shaken(address)) for address in asked]
        #                               the address    its /24             another  a trusted proxy
        assert answers == [True] * 3 + [False] + [True, True, False] + [True] + [True] * 4
        assert server.counts == {"http_turned_away handshakes": 2}


async def test_networks_take_turns():
    """A thousand hellos of one network do not stand before the one of another."""
    turns, order = HandshakeTurns(), []

    async def take(group: str) -> None:
        await turns.mine(group)
        order.append(group)

    await asyncio.gather(*(take("many") for _ in range(50)), take("one"))
    assert order.index("one") <= 2 and len(order) == 51


async def test_who_gives_up_leaves_the_turn_to_the_next():
    turns = HandshakeTurns()
    tasks = [asyncio.get_running_loop().create_task(turns.mine(f"g{n % 3}")) for n in range(9)]
    await asyncio.sleep(0)
    for task in tasks[1:8]:
        task.cancel()
    async with asyncio.timeout(5):
        await tasks[8]
        await turns.mine("later")


def test_a_wide_ipv6_network_has_four_times_the_rate_of_a_64():
    now = [0.0]
    rates = HandshakeRates(HandshakeLimits(), lambda: now[0])
    assert sum(rates.begin("2a00::1") for _ in range(2000)) == 512
    assert sum(rates.begin(f"2a00:0:0:1::{n:x}") for n in range(2000)) == 1024
    assert sum(rates.begin(f"2a00:0:0:{n:x}::1") for n in range(2, 3000)) == 2048 - 512 - 1024
    assert sum(rates.begin(f"2a00:0:{n:x}::1") for n in range(1, 5000)) == 4096 - 2048
    now[0] += 1
    assert sum(rates.begin(f"2a00:0:{n:x}::1") for n in range(1, 5000)) == 256


def test_being_many_lets_nobody_in_again(monkeypatch):
    """A flood of addresses does not push out what is known of one that has used up its rate."""
    monkeypatch.setattr(tls_handshakes, "_REMEMBERED", 100)
    now = [0.0]
    rates = HandshakeRates(HandshakeLimits(), lambda: now[0])
    while rates.begin("192.0.2.1"):
        pass
    for n in range(1000):
        rates.begin(f"198.{n // 250}.{n % 250}.1")
    assert len(rates) <= 101 and not rates.begin("192.0.2.1")
    now[0] += 60  # all that is full is forgotten
    assert rates.begin("203.0.113.1") and rates.begin("192.0.2.1") and len(rates) <= 5


def test_one_network_of_many_addresses_takes_nobody_the_memory():
    """The entry of an address is kept until its bucket is full again, and no longer."""
    now = [0.0]
    rates = HandshakeRates(HandshakeLimits(), lambda: now[0])
    for n in range(30_000):  # of a /32, each of another /64 and /48
        now[0] += 1 / 200
        rates.begin(f"2a00:0:{n:x}:{n % 100:x}::1")
    strangers = [f"2a0{n % 10:x}:{n:x}::1" for n in range(1, 2000)]
    now[0] += 0.01
    assert all(rates.begin(address) for address in strangers)
