"""Matrix federation over a bad network: after it, everybody has the same events, state and view."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hansa.testing.sim import Crashed, FaultPlan, Simulation, inject_faults, seeds, simulate
from sim.federation import ALIAS, Server, same_everywhere, tie_together

pytestmark = pytest.mark.sim

_VERSIONS = ("10", "11", "12")


def _servers(sim: Simulation, keys: Path, count: int) -> list[Server]:
    """The first hosts the room, the others join it by its alias; the last is found by SRV."""
    version = _VERSIONS[sim.seed % 3]
    found: list[Server] = []
    for number in range(count):
        room = ALIAS if not found else f"{ALIAS}:{found[0].server_name}"
        srv = number == count - 1 and sim.seed % 2 == 0
        found.append(Server(sim, "abc"[number], keys, room=room, version=version, srv=srv))
    return found


async def _begin(sim: Simulation, servers: list[Server]) -> None:
    for server in servers:
        await server.machine.start()
    await sim.until(
        lambda: all(server.knows(servers) for server in servers), "everybody is in the room", within=900.0
    )


async def _chatter(sim: Simulation, server: Server, count: int) -> None:
    for number in range(count):
        await server.say(f"ann@{server.name}", f"{server.name}{number}")
        await asyncio.sleep(sim.chance.between(0.0, 4.0))


async def _all_shown(servers: list[Server]) -> bool:
    everything = {text for s in servers for text in s.acknowledged}
    try:
        return all([everything.issubset(await server.texts()) for server in servers])
    except Crashed:  # its rooms are not loaded yet
        return False


async def _end(sim: Simulation, servers: list[Server]) -> None:
    """Everything arrives by itself; a later event, which would make others fill their gaps, comes after."""
    await sim.until(lambda: _all_shown(servers), "everything acknowledged is on every server", within=900.0)
    await tie_together(sim, servers, lambda s, text: s.say(f"ann@{s.name}", text))
    await same_everywhere(servers)
    everything = {text for s in servers for text in s.acknowledged}
    for server in servers:
        log = await server.texts()
        assert len(log) == len(set(log)), f"{server.name} shows something twice"
        assert set(log) == everything, f"{server.name} lacks {sorted(everything - set(log))}"
        for other in servers:
            own = [t for t in log if t in other.acknowledged]
            assert own == list(other.acknowledged), f"{server.name} shows {other.name} out of order"
        shown = server.stage.screen("chat").texts("lobby")
        assert shown == [t for t in log if t not in server.acknowledged], f"the screen of {server.name}"


@pytest.mark.parametrize("seed", seeds(30))
def test_two_servers_in_a_storm(seed: int, tmp_path: Path):
    """Loss, duplicates and reordering, no crash."""

    async def scenario(sim: Simulation) -> None:
        servers = _servers(sim, tmp_path, 2)
        await _begin(sim, servers)
        trouble = asyncio.ensure_future(inject_faults(sim, 60.0, FaultPlan(crashes=False)))
        await asyncio.gather(*(_chatter(sim, server, 20) for server in servers))
        await trouble
        await _end(sim, servers)

    simulate(scenario, seed)


@pytest.mark.parametrize("seed", seeds(40))
def test_three_servers_storm_and_power_cuts(seed: int, tmp_path: Path):
    async def scenario(sim: Simulation) -> None:
        servers = _servers(sim, tmp_path, 2 + seed % 2)
        await _begin(sim, servers)
        trouble = asyncio.ensure_future(inject_faults(sim, 90.0))
        await asyncio.gather(*(_chatter(sim, server, 20) for server in servers))
        await trouble
        await _end(sim, servers)

    simulate(scenario, seed)


@pytest.mark.parametrize("seed", seeds(30))
def test_joining_in_a_storm(seed: int, tmp_path: Path):
    """The room is made, joined and spoken in while everything fails; who is in misses nothing."""

    async def scenario(sim: Simulation) -> None:
        servers = _servers(sim, tmp_path, 2)  # a third would join without those whose keys it cannot get
        await servers[0].machine.start()
        for server in servers[1:]:
            await server.machine.start()
        trouble = asyncio.ensure_future(inject_faults(sim, 120.0))
        await asyncio.sleep(sim.chance.between(0.0, 20.0))
        await trouble
        await sim.until(
            lambda: all(server.knows(servers) for server in servers), "everybody is in", within=900.0
        )
        await asyncio.gather(*(_chatter(sim, server, 5) for server in servers))
        await _end(sim, servers)

    simulate(scenario, seed)
