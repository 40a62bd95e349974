"""Streams between two transports over real TCP and TLS, and what strangers, cuts and holes do to them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, SimpleNamespace
from typing import Any
from xml.etree.ElementTree import Element

from hansa import ALLOW, Action, PeerConnect, Verdict
from hansa.environment import SystemClock, SystemRandom
from hansa.http.client import HttpClient
from hansa.testing import until
from hansa_xmpp import Config
from hansa_xmpp.proto.render import stanza
from hansa_xmpp.s2s import destination, outbound
from hansa_xmpp.s2s.connections import ServerConnections
from peers.ca import PrivateCA
from peers.process import free_port
from peers.tcp_cutter import TcpCutter

A, B = "a.example", "b.example"
SOON = 20.0
DENIED = Verdict(action=Action.DENY)


@dataclass
class Side:
    """One server: its transport, and what it was handed."""

    domain: str
    port: int
    transport: ServerConnections
    http: HttpClient
    counted: Counter[str]
    got: list[Element] = field(default_factory=list)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    is_up: bool = False

    def on_stanza(self, element: Element) -> None:
        self.got.append(element)
        ping = element.find("{urn:xmpp:ping}ping")
        if ping is not None and element.get("from") != self.domain:
            to = element.get("from", "")
            self.transport.send([stanza("iq", self.domain, [to], type_="result", id_=element.get("id", ""))])

    def on_unknown(self, element: Element) -> None:
        raise AssertionError(element)

    def on_oversized(self, excess: Any) -> None:
        self.got.append(excess.element)

    def on_state(self, up: bool, text: str) -> None:
        del text
        self.is_up = up

    def say(self, to: str, *names: str) -> None:
        self.transport.send(stanza("message", f"x@{self.domain}", [to], id_=name) for name in names)

    def barrier(self) -> None:
        """Ask what the fence asks."""
        inner = "<ping xmlns='urn:xmpp:ping'/>"
        self.transport.send([stanza("iq", self.domain, [self.domain], inner, type_="get", id_="link-1")])

    @property
    def is_fenced(self) -> bool:
        return any(e.get("id") == "link-1" for e in self.got)

    def ids(self, kind: str = "") -> list[str]:
        found = [e for e in self.got if e.tag.endswith("message") and e.get("type", "") == kind]
        return [e.get("id", "") for e in found]

    def errors(self) -> list[str]:
        return [e[0][0].tag.rpartition("}")[2] for e in self.got if e.get("type") == "error"]


def make_side(
    ca: PrivateCA,
    domain: str,
    port: int,
    routes: dict[str, int],
    *,
    issued_to: str = "",
    addresses: Mapping[str, str] = MappingProxyType({}),
    deny: Callable[[PeerConnect], bool] = lambda _: False,
    **settings: Any,
) -> Side:
    chain, key = ca.issue(f"{domain}-{port}", issued_to or domain)
    http = HttpClient(ca_file=ca.certificate, private_networks=["127.0.0.0/8"])
    counted: Counter[str] = Counter()
    tasks: set[asyncio.Task[Any]] = set()

    async def check(crossing: PeerConnect) -> Verdict:
        return DENIED if deny(crossing) else ALLOW

    def spawn(work: Any, name: str) -> asyncio.Task[Any]:
        del name
        task = asyncio.ensure_future(work())
        tasks.add(task)
        return task

    ctx: Any = SimpleNamespace(
        id="xmpp",
        config=Config(
            component=domain,
            listen=[f"127.0.0.1:{port}"],
            certificate=chain,
            ca_file=ca.certificate,
            key=key,
            routes={name: f"127.0.0.1:{to}" for name, to in routes.items()} | dict(addresses),
            **settings,
        ),
        log=logging.getLogger(f"test.{domain}"),
        clock=SystemClock(),
        random=SystemRandom(),
        http=http,
        check=check,
        policy_generation=1,
        spawn=spawn,
        count=lambda name, **labels: counted.update([":".join([name, *labels.values()])]),
    )
    return Side(domain, port, ServerConnections(ctx), http, counted, tasks=tasks)


@contextlib.asynccontextmanager
async def running(*sides: Side) -> AsyncIterator[None]:
    runs = [asyncio.ensure_future(side.transport.run(side)) for side in sides]
    try:
        await until(lambda: all(side.is_up for side in sides), SOON)
        yield
    finally:
        for side in sides:
            await side.transport.stop()
        for run in [*runs, *(task for side in sides for task in side.tasks)]:
            run.cancel()
        await asyncio.gather(*runs, *(task for side in sides for task in side.tasks), return_exceptions=True)
        for side in sides:
            await side.http.close()


@contextlib.asynccontextmanager
async def two_sides(
    ca: PrivateCA, cable: TcpCutter | None = None, **options: Any
) -> AsyncIterator[tuple[Side, Side]]:
    """A and B, who find each other; B behind the cable if there is one."""
    a_port, b_port = free_port(), free_port()
    if cable is not None:
        await cable.lay(b_port)
    a = make_side(ca, A, a_port, {B: cable.port if cable is not None else b_port}, **options)
    b = make_side(ca, B, b_port, {A: a_port})
    async with running(a, b):
        yield a, b
    if cable is not None:
        await cable.cut()


async def test_two_servers_speak_in_order_and_the_fence_comes_after(ca):
    async with two_sides(ca) as (a, b):
        a.say(f"y@{B}", *(f"m{n}" for n in range(50)))
        a.barrier()
        b.say(f"x@{A}", "back")
        await until(lambda: a.is_fenced and a.ids() == ["back"], SOON)
        assert b.ids() == [f"m{n}" for n in range(50)]
        assert not a.errors()


async def test_the_fence_is_immediate_where_nothing_waits(ca):
    async with two_sides(ca) as (a, _):
        a.barrier()
        await until(lambda: a.is_fenced, SOON)


async def test_what_a_cut_took_is_sent_again_under_the_same_ids(ca):
    cable = TcpCutter()
    async with two_sides(ca, cable) as (a, b):
        a.say(f"y@{B}", "before")
        await until(lambda: b.ids() == ["before"], SOON)
        await cable.cut()
        a.say(f"y@{B}", *(f"m{n}" for n in range(30)))
        a.barrier()
        await until(lambda: a.counted["xmpp_s2s_retried"] > 3, SOON)  # as while the other server restarts
        assert not a.is_fenced
        await cable.mend()
        await until(lambda: a.is_fenced, SOON)
        assert list(dict.fromkeys(b.ids())) == ["before", *(f"m{n}" for n in range(30))]
        assert not a.errors()


async def test_two_servers_fall_silent_once_everything_is_confirmed(ca):
    cable = TcpCutter()
    async with two_sides(ca, cable) as (a, b):
        a.say(f"y@{B}", "m")
        b.say(f"x@{A}", "n")
        for side in (a, b, a, b):
            side.got.clear()
            side.barrier()
            await until(lambda side=side: side.is_fenced, SOON)
        carried = cable.carried
        for side in (a, b, a, b):
            side.got.clear()
            side.barrier()
            await until(lambda side=side: side.is_fenced, SOON)
        assert cable.carried == carried


class _Hole(TcpCutter):
    """A cable that swallows what goes to the target while it is a hole."""

    is_hole = False

    async def _carries(self, answers: bool) -> bool:
        if self.is_hole and not answers:
            await asyncio.Event().wait()
        return True


async def test_what_a_black_hole_took_is_sent_again(ca, monkeypatch):
    monkeypatch.setattr(destination, "PING_S", 0.5)
    cable = _Hole()
    async with two_sides(ca, cable) as (a, b):
        a.say(f"y@{B}", "before")
        await until(lambda: b.ids() == ["before"], SOON)
        a.barrier()
        await until(lambda: a.is_fenced, SOON)
        a.got.clear()
        cable.is_hole = True
        a.say(f"y@{B}", "lost", "too")
        a.barrier()
        await until(lambda: a.counted["xmpp_s2s_retried"] > 0, SOON)
        assert b.ids() == ["before"]
        assert not a.is_fenced
        cable.is_hole = False
        await until(lambda: a.is_fenced, SOON)
        assert list(dict.fromkeys(b.ids())) == ["before", "lost", "too"]


async def test_what_cannot_be_sent_comes_back_once_it_is_late(ca, monkeypatch):
    monkeypatch.setattr(outbound, "GIVE_UP_S", 0.0)
    a = make_side(ca, A, free_port(), {B: free_port()})
    async with running(a):
        a.say(f"y@{B}", "m")
        a.barrier()
        await until(lambda: a.is_fenced and a.errors() == ["remote-server-timeout"], SOON)
        assert a.ids("error") == ["m"]


async def test_a_certificate_of_another_name_stops_both_directions(ca, monkeypatch):
    monkeypatch.setattr(outbound, "GIVE_UP_S", 0.0)
    a_port, b_port = free_port(), free_port()
    a = make_side(ca, A, a_port, {B: b_port})
    b = make_side(ca, B, b_port, {A: a_port}, issued_to="c.example")
    async with running(a, b):
        a.say(f"y@{B}", "m")
        await until(lambda: a.ids("error") == ["m"], SOON)
        b.say(f"x@{A}", "n")  # A confirms B's key at a server without B's name
        await until(lambda: b.ids("error") == ["n"], SOON)
        assert not a.ids()
        assert not b.ids()
