"""The simulated world itself: time, network, disk, replay."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hansa.environment import Failure, HttpError, HttpRequest, Response
from hansa.store.base import Collection, Put, Schema
from hansa.testing.sim import CALM, Crashed, Deadlock, Fault, NetworkConditions, Simulation, seeds, simulate
from sim.scripted import Stage, said

pytestmark = pytest.mark.sim


def test_time_jumps_to_the_next_timer():
    async def scenario(sim: Simulation) -> None:
        woken: list[tuple[str, float]] = []

        async def sleeper(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append((name, round(sim.now, 6)))

        await asyncio.gather(sleeper("long", 86_400.0), sleeper("short", 0.25), sleeper("day", 43_200.0))
        assert woken == [("short", 0.25), ("day", 43_200.0), ("long", 86_400.0)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600.0):
                await asyncio.get_running_loop().create_future()
        assert round(sim.now, 6) == 90_000.0

    simulate(scenario, 1)


def test_a_world_in_which_nothing_can_happen_is_stuck():
    async def scenario(_: Simulation) -> None:
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop()._scheduled.clear)
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock):
        simulate(scenario, 1)


class _Server:
    """A machine with one route and no Hansa, to look at the network alone."""

    name = "server"
    names = frozenset({"server.test"})
    listening = True

    def __init__(self) -> None:
        self.served: list[str] = []
        self.takes = 0.0

    def accept(self, request: HttpRequest, source: str):
        return asyncio.get_running_loop().create_task(self._serve(request, source))

    async def _serve(self, request: HttpRequest, source: str):
        await asyncio.sleep(self.takes)
        self.served.append(request.target)
        return Response(status=200, body=source.encode())


def _request(target: str, **more) -> HttpRequest:
    return HttpRequest(method="GET", host="server.test", port=443, target=target, timeout=10.0, **more)


def _weather(**more) -> NetworkConditions:
    return NetworkConditions(latency=(0.01, 0.02), **more)


@pytest.mark.parametrize(
    ("weather", "answered", "served"),
    [
        (_weather(), 100, 100),
        (_weather(lose_request=1.0), 0, 0),
        (_weather(lose_answer=1.0), 0, 100),
        (_weather(duplicate=1.0), 100, 200),
    ],
)
def test_weather(weather: NetworkConditions, answered: int, served: int):
    async def scenario(sim: Simulation) -> None:
        server = _Server()
        sim.network.peers["server.test", 443] = server
        sim.network.weather = weather
        got = 0
        for number in range(100):
            try:
                await sim.network.exchange("client", _request(f"/{number}"))
            except HttpError:
                continue
            got += 1
        await asyncio.sleep(60.0)
        assert (got, len(server.served)) == (answered, served)

    simulate(scenario, 1)


def test_a_stalled_request_is_overtaken_and_a_partition_lets_nothing_pass():
    async def scenario(sim: Simulation) -> None:
        server = _Server()
        sim.network.peers["server.test", 443] = server
        sim.network.weather = _weather(stall=0.5)
        asked = [sim.network.exchange("client", _request(f"/{n:02}")) for n in range(40)]
        await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.sleep(60.0)
        assert sorted(server.served) == [f"/{n:02}" for n in range(40)]
        assert server.served != sorted(server.served)
        sim.network.weather = CALM
        sim.network.partition(["client"], ["server"])
        for _ in range(10):
            with pytest.raises(HttpError):
                await sim.network.exchange("client", _request("/parted"))
        sim.network.partition(["client", "server"], ["other"])
        await sim.network.exchange("client", _request("/whole"))
        sim.network.heal()
        await sim.network.exchange("other", _request("/healed"))
        assert server.served[-2:] == ["/whole", "/healed"]

    simulate(scenario, 5)


def test_slow_peers_time_outs_refused_connections_and_wrong_certificates():
    async def scenario(sim: Simulation) -> None:
        server = _Server()
        sim.network.peers["server.test", 443] = server
        began = sim.now
        sim.network.slow["server"] = 50.0
        await sim.network.exchange("client", _request("/slow"))
        assert sim.now - began > 0.5
        server.takes = 60.0
        with pytest.raises(HttpError) as raised:
            await sim.network.exchange("client", _request("/late"))
        assert raised.value.kind is Failure.TIMED_OUT and "no answer from" in raised.value.detail
        await asyncio.sleep(120.0)
        assert server.served[-1] == "/late"  # a server does not see that its client has gone
        server.takes = 0.0
        with pytest.raises(HttpError) as raised:
            await sim.network.exchange("client", _request("/", tls_name="other.test"))
        assert raised.value.kind is Failure.CERTIFICATE and "certificate" in raised.value.detail
        with pytest.raises(HttpError) as raised:
            await sim.network.exchange("client", _request("/", max_body=3))
        assert raised.value.kind is Failure.TOO_LARGE and "over 3 bytes" in raised.value.detail
        server.listening = False
        with pytest.raises(HttpError) as raised:
            await sim.network.exchange("client", _request("/"))
        assert raised.value.kind is Failure.UNREACHABLE and "refused" in raised.value.detail

    simulate(scenario, 1)


_THING = Schema(owner="test", version=1, collections=(Collection(name="thing", key={"id": str}),))


@pytest.mark.parametrize(("after", "kept"), [(False, ["a"]), (True, ["a", "b"])])
def test_a_power_cut_before_or_after_a_commit(after: bool, kept: list[str]):
    async def scenario(sim: Simulation) -> None:
        machine = sim.machine("one", [])
        await machine.start()
        store = machine.running.store
        await store.declare("s", _THING)

        async def write(name: str) -> str:
            await store.commit("s", [Put("thing", (name,))])
            return name

        assert await machine.do(write("a")) == "a"
        machine.fail_at(1, after=after)
        with pytest.raises(Crashed):
            await machine.do(write("b"))
        with pytest.raises(Crashed):
            await machine.do(write("c"))
        await machine.restart()
        await machine.running.store.declare("s", _THING)
        found = await machine.running.store.scan("s", "thing")
        assert [row.key[0] for row in found] == kept

    simulate(scenario, 1)


@pytest.mark.parametrize(("lose", "kept"), [(0, "abc"), (1, "ab"), (2, "a"), (9, "a")])
def test_a_power_cut_loses_the_last_lazy_batches_that_were_not_synced(lose: int, kept: str):
    async def scenario(sim: Simulation) -> None:
        machine = sim.machine("one", [])
        await machine.start()
        store = machine.running.store
        await store.declare("s", _THING)
        await store.commit("s", [Put("thing", ("a",))])
        for name in "bc":
            await store.commit("s", [Put("thing", (name,))], durability="lazy")
        machine.crash(lose)
        await machine.restart()
        await machine.running.store.declare("s", _THING)
        found = await machine.running.store.scan("s", "thing")
        assert "".join(str(row.key[0]) for row in found) == kept

    simulate(scenario, 1)


def test_nothing_of_a_crashed_machine_runs_on():
    async def scenario(sim: Simulation) -> None:
        stage, ticks = Stage(), []
        machine = sim.machine("one", [stage.setup("a")])
        await machine.start()

        async def tick() -> None:
            while True:
                ticks.append(sim.now)
                await asyncio.sleep(1.0)

        async def begin() -> None:
            stage.actors["a"].ctx.spawn(tick(), "tick")

        await machine.do(begin())
        await asyncio.sleep(10.5)
        machine.crash()
        await machine.gone()
        count = len(ticks)
        await asyncio.sleep(10.0)
        assert count == len(ticks) == 11

    simulate(scenario, 1)


def test_an_error_that_nobody_took_fails_the_run_and_names_the_seed():
    async def scenario(sim: Simulation) -> None:
        stage = Stage()
        machine = sim.machine("one", [stage.setup("a")])
        await machine.start()

        async def breaks() -> None:
            raise ValueError("broken")

        stage.actors["a"].ctx.spawn(breaks(), "breaks")
        await asyncio.sleep(1.0)

    with pytest.raises(Fault, match="breaks crashed") as caught:
        simulate(scenario, 77)
    assert any("HANSA_SIM_SEED=77" in note for note in caught.value.__notes__)


async def _busy(sim: Simulation) -> None:
    """Two networks of one Hansa that talk while the power fails."""
    stage = Stage()
    machine = sim.machine("one", [stage.setup("a"), stage.setup("b")], rooms=[["a:r", "b:r"]])
    await machine.start()
    await sim.until(lambda: any(len(r.links) == 2 for r in machine.running.rooms), "the room is there")
    for number in range(20):
        if number == 10:
            machine.fail_at(2, after=sim.chance.happens(0.5))
        try:
            await machine.do(
                machine.running.pipeline.submit("a", [said(sim, "a", "r", "ann@x", f"m{number}")])
            )
        except Crashed:
            await machine.restart()
    await asyncio.sleep(5.0)


def test_one_seed_is_one_history_in_every_process():
    assert simulate(_busy, 3) == simulate(_busy, 3) != simulate(_busy, 4)
    script = (
        "from sim.test_world import _busy; from hansa.testing.sim import simulate; print(simulate(_busy, 3))"
    )
    found = set()
    for hash_seed in ("1", "2", "77"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        found.add(
            subprocess.run(
                [sys.executable, "-c", script], env=env, check=True, capture_output=True
            ).stdout.strip()
        )
    assert found == {simulate(_busy, 3).encode()}


def test_seeds_by_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HANSA_SIM_SEED", raising=False)
    monkeypatch.delenv("HANSA_SIM_SEEDS", raising=False)
    assert seeds(3) == [1, 2, 3]
    monkeypatch.setenv("HANSA_SIM_SEEDS", "5")
    assert seeds(3) == [1, 2, 3, 4, 5]
    assert seeds(7) == [1, 2, 3, 4, 5, 6, 7]
    monkeypatch.setenv("HANSA_SIM_SEED", "42")
    assert seeds(3) == [42]
