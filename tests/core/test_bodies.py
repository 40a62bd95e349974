"""Bodies of requests: whose share they take, how fast they arrive, and what is held before the sender is
known.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hansa import Admitted, Request, Response, Router
from hansa.http import request_bodies
from hansa.http.listener import Dispatcher, Listener
from hansa.http.request_bodies import MIB, BodyBudget, BodyLimits, charges
from hansa.model.addresses import networks
from hansa.model.errors import Busy, RemoteProtocolError
from hansa.testing import until

CALM = {("http_body_bytes", pool): 0 for pool in ("all", "unproven", "strangers", "ahead")}


class Counts(dict[str, int]):
    def __call__(self, name: str, **labels: str) -> None:
        key = " ".join([name, *labels.values()])
        self[key] = self.get(key, 0) + 1


class Server:
    """``/open`` is for strangers, ``/closed`` for who names a share, ``/slow`` decides when it is told to."""

    def __init__(self, limits: BodyLimits, proxies: Sequence[str] = ()) -> None:
        self.counts = Counts()
        self.budget = BodyBudget(limits, self.counts)
        self.decide, self.answer = asyncio.Event(), asyncio.Event()
        self.deciding = self.answering = 0
        router = Router()
        router.add("PUT", "/open", self._take, max_body=4 * MIB)
        router.add("PUT", "/closed", self._take, max_body=4 * MIB, admit=self._known)
        router.add("PUT", "/slow", self._take, max_body=4 * MIB, admit=self._slowly)
        router.add("PUT", "/file", self._file, max_body=64 * MIB, streamed=True, admit=self._known)
        self.listener = Listener(
            Dispatcher({"": router}, self.counts, proxies), "127.0.0.1", 0, budget=self.budget
        )

    async def _known(self, request: Request) -> Admitted:
        if "x-share" not in request.headers:
            raise RemoteProtocolError("who?", hint=401)
        return Admitted(share=request.headers["x-share"], proven="x-proven" in request.headers)

    async def _slowly(self, request: Request) -> Admitted:
        self.deciding += 1
        await self.decide.wait()
        return await self._known(request)

    async def _take(self, request: Request) -> Response:
        self.answering += 1
        await self.answer.wait()
        return Response(body=b"%d" % len(request.body))

    async def _file(self, request: Request) -> Response:
        assert request.chunks is not None
        size = 0
        async for part in request.chunks:
            size += len(part)
            assert self.held()["http_body_bytes", "all"] < MIB
        return Response(body=b"%d" % size)

    def held(self) -> dict[tuple[str, str], float]:
        return {(name, labels["pool"]): value for name, labels, value in self.budget.measures()}


@asynccontextmanager
async def serving(proxies: Sequence[str] = (), **limits: int) -> AsyncIterator[tuple[Server, Any]]:
    """A server, and ``put(path, length, *headers, address=...)`` that sends a head."""
    server = Server(BodyLimits(**limits), proxies)
    await server.listener.start()
    writers: list[asyncio.StreamWriter] = []

    async def put(path: str, length: int, *headers: str, address: str = "127.0.0.1", sent: int = -1) -> Any:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.listener.port, local_addr=(address, 0)
        )
        writers.append(writer)
        lines = "".join(f"{line}\r\n" for line in headers)
        writer.write(f"PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n{lines}\r\n".encode())
        writer.write(b" " * (length if sent < 0 else sent))
        return reader

    put.writers = writers  # type: ignore[attr-defined]
    try:
        yield server, put
    finally:
        server.decide.set()
        server.answer.set()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(w.wait_closed() for w in writers), return_exceptions=True)
        await server.listener.stop()


async def status(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(10):
        return int((await reader.readuntil(b"\r\n")).split()[1])


KNOWN = ("X-Share: peer.example",)
PROVEN = ("X-Share: @romeo:h", "X-Proven: 1")


async def test_bodies_of_strangers_are_held_within_a_small_share():
    """64 MiB of bodies that nobody had signed were held for 15 s."""
    async with serving() as (server, put):
        crowd = [await put("/open", 4 * MIB - 1) for _ in range(16)]
        await until(lambda: server.counts.get("http_bodies_refused stranger_group", 0) == 15)
        await until(lambda: server.answering == 1)
        assert server.held()["http_body_bytes", "strangers"] <= 4 * MIB
        # Neither those who are known, of the same address, nor strangers elsewhere are kept out.
        others = [
            await put("/closed", MIB, *KNOWN),
            await put("/closed", MIB, *PROVEN),
            await put("/open", MIB, address="127.9.0.1"),
        ]
        await until(lambda: server.answering == 4)
        server.answer.set()
        assert sorted([await status(one) for one in crowd]) == [200] + [429] * 15
        assert [await status(one) for one in others] == [200, 200, 200]
        await until(lambda: server.held() == CALM)


async def test_strangers_of_everywhere_share_a_pool_and_one_who_is_known_has_a_share():
    async with serving() as (server, put):
        for n in range(8):
            await put("/open", 4 * MIB - 1, address=f"127.{n + 1}.0.1")
        await until(lambda: server.counts.get("http_bodies_refused strangers", 0) == 4)
        assert server.held()["http_body_bytes", "strangers"] <= 16 * MIB
        for _ in range(8):
            await put("/closed", 4 * MIB - 1, *PROVEN)
        await until(lambda: server.counts.get("http_bodies_refused share", 0) == 4)
        other = await put("/closed", 4 * MIB - 1, "X-Share: @juliet:h", "X-Proven: 1")
        await until(lambda: server.answering == 4 + 4 + 1)
        server.answer.set()
        assert await status(other) == 200
        await until(lambda: server.held() == CALM)


async def test_who_claims_to_be_somebody_uses_up_nothing_of_theirs():
    async with serving() as (server, put):
        for _ in range(8):
            await put("/closed", 4 * MIB - 1, *KNOWN)
        await until(lambda: server.counts.get("http_bodies_refused group", 0) == 4)
        peer = await put("/closed", 4 * MIB - 1, *KNOWN, address="127.9.0.1")  # the true one
        await until(lambda: server.answering == 5)
        server.answer.set()
        assert await status(peer) == 200


async def test_what_comes_ahead_of_the_decision_is_charged_and_little():
    async with serving() as (server, put):
        for _ in range(100):
            await put("/slow", 4 * MIB - 1, *KNOWN)
        await until(lambda: server.deciding + server.counts.get("http_bodies_refused ahead_group", 0) == 100)
        assert server.deciding <= 64
        assert 0 < server.held()["http_body_bytes", "ahead"] <= 4 * MIB
        assert server.listener._server is not None
        for connection in server.listener._server.connections:
            request = connection._current_request
            if request is not None:
                assert request.content.total_bytes <= 64 * 1024 + 256 * 1024


async def test_a_refusal_before_the_body_costs_nothing():
    async with serving() as (server, put):
        readers = [await put("/closed", 4 * MIB - 1, sent=0) for _ in range(100)]
        for reader in readers:
            assert await status(reader) in {401, 429}
        await until(lambda: server.held() == CALM)
        assert server.answering == 0


async def test_a_file_is_not_held():
    async with serving() as (server, put):
        reader = await put("/file", 32 * MIB, *PROVEN)
        assert await status(reader) == 200
        assert (await reader.readuntil(b"\r\n\r\n" + b"%d" % (32 * MIB))).endswith(b"%d" % (32 * MIB))
        await until(lambda: server.held() == CALM)


@pytest.mark.parametrize(("name", "value"), [("_GRACE", 0.05), ("_BODY_TIMEOUT_S", 0.05)])
async def test_a_body_has_a_least_speed_and_an_end(monkeypatch, name, value):
    monkeypatch.setattr(request_bodies, name, value)
    async with serving() as (server, put):
        reader = await put("/open", 1000, sent=10)
        assert await status(reader) == 408
        await until(lambda: server.held() == CALM)
        assert server.answering == 0


async def test_who_hangs_up_gives_everything_back():
    async with serving() as (server, put):
        for _ in range(3):
            await put("/open", MIB, sent=500_000)
        await until(lambda: server.held()["http_body_bytes", "all"] >= 1_000_000)
        connections = list(server.listener._server.connections)
        for connection in connections:
            connection.abort()
        await until(lambda: server.held() == CALM)


EXPECTS = "Expect: 100-continue"


async def test_who_waits_for_leave_to_send_a_body_gets_it_once_known():
    """Such a client got no answer, sent nothing, and was told after 10 s that nothing had arrived."""
    async with serving() as (server, put):
        server.answer.set()
        stranger = await put("/closed", MIB, EXPECTS, sent=0)
        assert await status(stranger) == 401
        for path in ("/closed", "/file"):
            reader = await put(path, 2, EXPECTS, *KNOWN, sent=0)
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            put.writers[-1].write(b"{}")
            assert await status(reader) == 200
        assert await status(await put("/closed", 2, *KNOWN)) == 200


def test_whose_share_it_is():
    proven = Admitted(share="@romeo:h", proven=True)
    claimed = Admitted(share="peer.example")
    assert charges(proven, ("192.0.2.0/24",)) == (("all", ""), ("share", "@romeo:h"))
    assert charges(claimed, ("192.0.2.0/24",)) == (("all", ""), ("unproven", ""), ("group", "192.0.2.0/24"))
    for stranger in (None, Admitted(), Admitted(proven=True)):
        assert charges(stranger, ("192.0.2.0/24",))[2:] == (
            ("group", "192.0.2.0/24"),
            ("strangers", ""),
            ("stranger group", "192.0.2.0/24"),
        )


KINDS = [
    (None, BodyLimits().strangers, 4 * MIB),
    (Admitted(share="peer.example"), BodyLimits().unproven, 16 * MIB),
]


@pytest.mark.parametrize(("admitted", "pool", "share"), KINDS, ids=["strangers", "unproven"])
@pytest.mark.parametrize("subnet", ["2001:db8:7:{:x}::1", "2001:db8:{:x}::1"], ids=["/48", "/32"])
def test_a_network_of_many_subnets_has_half_of_a_pool_at_most(subnet, admitted, pool, share):
    """Four /64 of one /48 took all that strangers may send."""
    budget = BodyBudget(BodyLimits(), Counts())
    taken = 0
    for number in range(64):
        with contextlib.suppress(Busy):
            budget.take(charges(admitted, networks(subnet.format(number))), share)
            taken += share
    assert taken == pool // 2
    elsewhere = charges(admitted, networks("2001:db9::1"))
    budget.take(elsewhere, share)
    budget.take(charges(admitted, networks("192.0.2.1")), share)


async def test_bodies_that_a_proxy_brings_from_subnets_of_one_site_leave_room_for_others():
    """Ahead of a decision as well as after it; the proxy itself counts for nothing."""
    size = 65536
    limits = {
        "strangers": 4 * size,
        "per_stranger_group": size,
        "ahead": 4 * size,
        "ahead_per_group": size,
    }
    for path, counted in (("/open", "stranger_group_site"), ("/slow", "ahead_group_site")):
        async with serving(proxies=["127.0.0.1"], **limits) as (server, put):
            for number in range(8):
                await put(path, size, f"X-Forwarded-For: 2001:db8:7:{number:x}::1")
            refused = f"http_bodies_refused {counted}"
            await until(lambda server=server, refused=refused: server.counts.get(refused) == 6)
            other = await put(path, 1024, "X-Forwarded-For: 2001:db9::1")
            await until(lambda server=server: server.answering + server.deciding == 3)
            server.decide.set()
            server.answer.set()
            assert await status(other) in (200, 401)


def test_what_does_not_fit_changes_nothing():
    counts = Counts()
    budget = BodyBudget(BodyLimits(total=12, per_share=8), counts)
    budget.take((("all", ""), ("share", "a")), 8)
    for mine, size in ((("all", ""), ("share", "a")), 3), ((("all", ""), ("share", "b")), 5):
        with pytest.raises(Busy):
            budget.take(mine, size)
    budget.give_back((("all", ""), ("share", "a")), 8)
    assert not budget._held
    assert counts == {"http_bodies_refused share": 1, "http_bodies_refused all": 1}


@pytest.mark.parametrize("mib", [64, 128, 4096])
def test_shares_follow_the_whole(mib):
    limits = BodyLimits.of(mib * MIB)
    assert limits.per_group == limits.per_share == limits.strangers == mib * MIB // 8
    assert limits.strangers >= limits.per_stranger_group >= 4 * MIB  # a whole transaction
