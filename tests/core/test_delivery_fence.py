"""A cursor is stored as far as the peer has confirmed (ADR 25): what a dead connection swallowed is sent again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hansa import Delivery, Link, NativeId, NetworkContext, NetworkStatus, hookimpl
from hansa.admin.metrics import exposition
from hansa.bus.confirmation import SentAhead
from hansa.setup import NetworkSetup
from hansa.testing.actor import Actor, Config, module
from hansa.testing.sim import Machine, Simulation, VirtualClock, simulate


class Peer:
    """The far end, which outlives connections and processes. ``hole``: the wire swallows what it is given."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.keys: Counter[str] = Counter()
        self.sent = self.requests = 0
        self.hole = False
        self.network: Stream | None = None

    def carry(self, delivery: Delivery) -> None:
        self.sent += 1
        if not self.hole:
            self.keys[delivery.key] += 1
            if self.keys[delivery.key] == 1:
                self.got.append(delivery.content.text)


class Stream(Actor):
    """A network that hands over, and whose peer confirms after a round trip of a tenth of a second."""

    def __init__(self, ctx: NetworkContext, peer: Peer) -> None:
        super().__init__(ctx)
        self.peer, self.reached = peer, 0
        peer.network = self

    async def send(self, delivery: Delivery) -> str:
        self.peer.carry(delivery)
        self.reached = delivery.event.seq
        return ""

    def request_confirmation(self, link: Link) -> None:
        self.peer.requests += 1
        if not self.peer.hole:
            asyncio.get_running_loop().call_later(0.1, self.ctx.confirm_sent, link.native.id, self.reached)

    def reconnect(self) -> None:
        self.ctx.report_status(NetworkStatus.DOWN, "reset")
        self.peer.hole = False
        self.ctx.report_status(NetworkStatus.UP)


def _stream(peer: Peer) -> ModuleType:
    def open_network(ctx: NetworkContext) -> Stream:
        return Stream(ctx, peer)

    made: Any = ModuleType("stream")
    made.api, made.Config, made.open_network = 1, Config, hookimpl(open_network)
    return made


async def _house(sim: Simulation, peer: Peer) -> tuple[Machine, dict[str, Actor]]:
    made: dict[str, Actor] = {}
    networks = [
        NetworkSetup(id="left", module=module(made), options=Config()),
        NetworkSetup(id="far", module=_stream(peer), options=Config()),
    ]
    machine = sim.machine("one", networks, rooms=[("left:a", "far:b")])
    await machine.start()
    await sim.until(lambda: any(len(room.links) == 2 for room in machine.running.rooms), "linked")
    return machine, made


async def _say(machine: Machine, made: dict[str, Actor], first: int, count: int) -> list[str]:
    texts = [f"m{number}" for number in range(first, first + count)]
    for text in texts:
        await machine.do(made["left"].say("a", "ann@x", text, origin=text))
    return texts


async def _cursor(machine: Machine) -> int:
    row = await machine.running.core.get("cursor", ("far:b",))
    assert row is not None
    return int(row.fields["seq"])


def test_what_a_black_hole_swallowed_is_sent_again_when_the_connection_is_reset() -> None:
    async def scenario(sim: Simulation) -> None:
        peer = Peer()
        machine, made = await _house(sim, peer)
        texts = await _say(machine, made, 0, 5)
        await sim.until(lambda: peer.got == texts, "the first have come")
        await asyncio.sleep(5)
        assert await _cursor(machine) == 5
        peer.hole = True
        texts += await _say(machine, made, 5, 30)
        await sim.until(lambda: peer.sent == 35, "all was handed over")
        await asyncio.sleep(17)
        assert await _cursor(machine) == 5, "nothing of it is confirmed"
        texts_exposed = exposition(machine.running).decode()
        assert 'hansa_deliveries_unconfirmed{link="far:b"} 30.0' in texts_exposed
        assert peer.network is not None
        machine.spawn(_run(peer.network.reconnect))
        texts += await _say(machine, made, 35, 2)
        await sim.until(lambda: peer.got == texts, "all have come, in order")
        await asyncio.sleep(5)
        assert await _cursor(machine) == 37
        assert set(peer.keys.values()) == {1}

    simulate(scenario, 1)


async def _run(act: Callable[[], None]) -> None:
    act()


def test_what_a_black_hole_swallowed_is_sent_again_after_a_crash() -> None:
    async def scenario(sim: Simulation) -> None:
        peer = Peer()
        machine, made = await _house(sim, peer)
        peer.hole = True
        texts = await _say(machine, made, 0, 30)
        await sim.until(lambda: peer.sent == 30, "all was handed over")
        await asyncio.sleep(17)
        machine.crash()
        peer.hole = False
        await machine.restart()
        await sim.until(lambda: peer.got == texts, "all have come")

    simulate(scenario, 2)


def test_no_more_than_500_events_are_sent_ahead() -> None:
    async def scenario(sim: Simulation) -> None:
        peer = Peer()
        machine, made = await _house(sim, peer)
        peer.hole = True
        texts = await _say(machine, made, 0, 600)
        await asyncio.sleep(60)
        assert peer.sent == 500
        assert peer.requests < 60 + 30, "ten a second while it sends, one a second then"
        assert peer.network is not None
        machine.spawn(_run(peer.network.reconnect))
        await sim.until(lambda: peer.got == texts, "all have come")

    simulate(scenario, 3)


def test_an_orderly_end_waits_for_the_confirmation_and_repeats_nothing() -> None:
    async def scenario(sim: Simulation) -> None:
        peer = Peer()
        machine, made = await _house(sim, peer)
        texts = await _say(machine, made, 0, 3)
        await sim.until(lambda: peer.sent == 3, "all was handed over")
        await machine.stop()
        await machine.start()
        texts += await _say(machine, made, 3, 1)
        await sim.until(lambda: peer.got == texts, "all have come")
        assert set(peer.keys.values()) == {1}

    simulate(scenario, 4)


@pytest.mark.parametrize("crash_after", [1, 7, 42])
def test_a_crash_repeats_one_slow_delivery_and_not_a_page(crash_after: int) -> None:
    async def scenario(sim: Simulation) -> None:
        made: dict[str, Actor] = {}
        sends: Counter[str] = Counter()
        plugin = module(made)

        class Slow(Actor):
            async def send(self, delivery: Delivery) -> str:
                sends[delivery.content.text] += 1
                await asyncio.sleep(0.2)
                return ""

        slow: Any = ModuleType("slow")
        slow.api, slow.Config = 1, Config
        slow.open_network = _opener(Slow)
        networks = [
            NetworkSetup(id="left", module=plugin, options=Config()),
            NetworkSetup(id="far", module=slow, options=Config()),
        ]
        machine = sim.machine("one", networks, rooms=[("left:a", "far:b")])
        await machine.start()
        await sim.until(lambda: any(len(room.links) == 2 for room in machine.running.rooms), "linked")
        texts = await _say(machine, made, 0, 60)
        await sim.until(lambda: len(sends) > crash_after, "the crash is due")
        machine.crash()
        await machine.restart()
        await sim.until(lambda: len(sends) == len(texts), "all were sent")
        assert sum(sends.values()) <= len(texts) + 2

    simulate(scenario, 5)


def _opener(kind: type[Actor]) -> Any:
    def open_network(ctx: NetworkContext) -> Actor:
        return kind(ctx)

    return hookimpl(open_network)


class _Gate:
    breaks = 0

    def __init__(self) -> None:
        self.confirms: Any = self
        self.requested = 0

    def request_confirmation(self, link: Link) -> None:
        self.requested += 1
        raise ValueError("a fault of the network")


async def _ahead() -> tuple[SentAhead, _Gate]:
    gate = _Gate()
    clock = VirtualClock(asyncio.get_running_loop(), 0)
    return SentAhead(Link(room="r", native=NativeId("far", "b")), gate, clock), gate


async def test_a_confirmation_covers_no_event_of_which_a_part_is_still_to_be_sent() -> None:
    ahead, _ = await _ahead()
    ahead.begin_send()
    ahead.on_sent(1)
    ahead.confirm(1, 0)
    assert ahead.confirmed == 0 and ahead.outstanding
    ahead.on_position(1)
    ahead.confirm(1, 1)
    assert ahead.confirmed == 1 and not ahead.outstanding


async def test_a_confirmation_for_an_ended_connection_covers_nothing_that_is_sent_again() -> None:
    ahead, gate = await _ahead()
    ahead.begin_send()
    ahead.on_sent(3)
    gate.breaks += 1
    assert ahead.is_broken()
    ahead.reset(0)
    ahead.confirm(3, 0)
    assert ahead.confirmed == 0


async def test_events_that_are_not_for_the_link_need_no_confirmation() -> None:
    ahead, _ = await _ahead()
    ahead.on_position(9)
    assert ahead.confirmed == 9
    ahead.begin_send()
    ahead.on_sent(10)
    ahead.on_position(12)
    assert ahead.confirmed == 9
    ahead.confirm(10, 12)
    assert ahead.confirmed == 12


async def test_a_network_that_cannot_be_asked_is_asked_again_later(caplog) -> None:
    ahead, gate = await _ahead()
    ahead.begin_send()
    ahead.on_sent(1)
    assert ahead.request_due(1) == 1.0 and gate.requested == 1
    assert "no confirmation could be requested" in caplog.text
    assert ahead.request_due(1) == pytest.approx(1.0, abs=0.1) and gate.requested == 1
    gate.confirms = None
    assert ahead.request_due(1) is None
