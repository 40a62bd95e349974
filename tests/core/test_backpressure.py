"""Senders that are too fast must wait, and throttled deliveries take their time: nothing grows meanwhile."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from hansa import Busy, Request, Router
from hansa.http.listener import Dispatcher, Listener
from hansa.pacing.delivery_throttle import DeliveryThrottle
from hansa.setup import NetworkSetup
from hansa.testing.actor import Actor, Config, module
from hansa.testing.sim import Simulation, VirtualClock, simulate


@pytest.mark.parametrize(("after", "seconds"), [(0.2, "1"), (2.4, "2"), (30.0, "30")])
async def test_a_busy_endpoint_answers_429_and_says_when_to_come_back(after, seconds):
    router, counted = Router(), list[str]()

    async def busy(_: Request):
        raise Busy("the room is full", after=after)

    router.add("PUT", "/x", busy)
    counter = lambda name, **labels: counted.append(name)  # noqa: E731
    listener = Listener(Dispatcher({"": router}, counter), "127.0.0.1", 0)
    await listener.start()
    async with (
        aiohttp.ClientSession() as http,
        http.put(f"http://127.0.0.1:{listener.port}/x", data=b"{}") as answer,
    ):
        assert answer.status == 429 and answer.headers["Retry-After"] == seconds
        body = await answer.json()
    assert body["errcode"] == "M_LIMIT_EXCEEDED" and body["retry_after_ms"] == int(after * 1000)
    assert "http_busy" in counted
    await listener.stop()


def test_a_throttle_lets_a_burst_pass_and_then_its_rate():
    async def scenario(sim: Simulation) -> None:
        throttle = DeliveryThrottle(VirtualClock(asyncio.get_running_loop(), 0), rate=2.0, burst=5)
        times = list[float]()
        for _ in range(9):
            await throttle.pass_one()
            times.append(round(sim.now, 3))
        assert times == [0, 0, 0, 0, 0, 0.5, 1.0, 1.5, 2.0]

    simulate(scenario, 1)


def test_deliveries_of_one_network_obey_its_throttle_alone():
    async def scenario(sim: Simulation) -> None:
        made: dict[str, Actor] = {}
        plugin = module(made)
        networks = [
            NetworkSetup(id="left", module=plugin, options=Config()),
            NetworkSetup(id="slow", module=plugin, options=Config(), rate=1.0, burst=1),
            NetworkSetup(id="fast", module=plugin, options=Config()),
        ]
        machine = sim.machine("one", networks)
        await machine.start()
        await machine.do(machine.running.link_room(["left:a", "slow:b", "fast:c"], create=True))
        began = sim.now
        for number in range(10):
            await machine.do(made["left"].say("a", "ann@x", f"m{number}"))
        await sim.until(lambda: len(made["fast"].texts("c")) == 10, "the fast one has everything")
        assert sim.now - began < 2
        await sim.until(lambda: len(made["slow"].texts("b")) == 10, "the slow one has everything")
        assert 8.9 < sim.now - began < 11
        assert made["slow"].texts("b") == [f"m{n}" for n in range(10)]

    simulate(scenario, 1)
