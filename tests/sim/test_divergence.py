"""Servers change power levels and membership where the others cannot see it; then everybody agrees again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hansa import StoreFault
from hansa.testing.sim import Crashed, FaultPlan, Simulation, inject_faults, seeds, simulate
from sim.federation import ALIAS, Server, same_everywhere, tie_together

pytestmark = pytest.mark.sim

_PEOPLE = ("ann", "bob", "cat")


async def _town(
    sim: Simulation,
    keys: Path,
    count: int,
    version: str = "",
    made: Callable[[Server], object] = lambda _: None,
) -> list[Server]:
    """``count`` servers with three native people each, all joined, of different power; ``made`` is told of
    each before it starts.
    """
    version = version or ("10", "11", "12")[sim.seed % 3]
    servers: list[Server] = []
    for name in "abcde"[:count]:
        room = ALIAS if not servers else f"{ALIAS}:{servers[0].server_name}"
        servers.append(Server(sim, name, keys, room=room, version=version))
        made(servers[-1])
        await servers[-1].machine.start()
        await sim.until(lambda: servers[-1].linked, "in the room", within=900.0)
    for server in servers:
        for person in _PEOPLE:
            await _done(server.act(person, "m.room.member", server.user(person), {"membership": "join"}))
    content = await _levels(servers[0])
    for server in servers:
        content["users"] |= {server.user("ann"): 100, server.user("bob"): 50}
    await _done(servers[0].act("hansa", "m.room.power_levels", "", content))
    await tie_together(sim, servers, _speak)
    await same_everywhere(servers)
    return servers


async def _done(work: Any) -> None:
    outcome = await work
    assert outcome.refusal is None, outcome.refusal


async def _speak(server: Server, text: str) -> None:
    """The bridge users are never a target, so they can always speak."""
    await _done(server.act("hansa", "m.room.message", None, {"msgtype": "m.text", "body": text}))


async def _levels(server: Server) -> dict[str, Any]:
    while True:
        try:
            room = server.room
            found = await room.events_of(await room.state(), [("m.room.power_levels", "")])
            content = dict(found["m.room.power_levels", ""].content)
        except (Crashed, KeyError, StoreFault):
            await asyncio.sleep(0.1)
            continue
        return {**content, "users": dict(content["users"])}


async def _mischief(sim: Simulation, server: Server, servers: list[Server], count: int) -> None:
    """Random acts of this server's people; what the rules refuse does not happen."""
    chance = sim.chance
    everybody = [s.user(p) for s in servers for p in _PEOPLE]
    for number in range(count):
        actor = _PEOPLE[chance.below(3)]
        target = everybody[chance.below(len(everybody))]
        kind = chance.below(10)
        if kind <= 2:
            content = await _levels(server)
            users = content["users"]
            users[target] = (0, 25, 50, 75, 100)[chance.below(5)]
            if chance.happens(0.2):
                content["state_default"] = (0, 50, 100)[chance.below(3)]
            await server.act(actor, "m.room.power_levels", "", content)
        elif kind <= 5:
            membership = ("leave", "ban", "leave")[chance.below(3)]
            await server.act(actor, "m.room.member", target, {"membership": membership})
        elif kind == 6:
            await server.act(actor, "m.room.member", server.user(actor), {"membership": "join"})
        elif kind == 7:
            rule = ("public", "invite")[chance.below(2)]
            await server.act(actor, "m.room.join_rules", "", {"join_rule": rule})
        elif kind == 8:
            await server.act(actor, "m.room.topic", "", {"topic": f"{server.name} {number}"})
        else:
            body = {"msgtype": "m.text", "body": f"{server.name} {actor} {number}"}
            await server.act(actor, "m.room.message", None, body)
        await asyncio.sleep(chance.between(0.0, 3.0))


@pytest.mark.parametrize("seed", seeds(60))
def test_after_a_partition_both_sides_have_one_state(seed: int, tmp_path: Path):
    async def scenario(sim: Simulation) -> None:
        servers = await _town(sim, tmp_path, 2 + sim.seed % 2)
        sim.network.partition(*([server.name] for server in servers))
        await asyncio.gather(*(_mischief(sim, server, servers, 14) for server in servers))
        sim.network.heal()
        await tie_together(sim, servers, _speak)
        await same_everywhere(servers)

    simulate(scenario, seed)


def _storm(seed: int, keys: Path) -> str:
    async def scenario(sim: Simulation) -> None:
        servers = await _town(sim, keys, 2 + sim.seed % 2)
        trouble = asyncio.ensure_future(inject_faults(sim, 60.0, FaultPlan(parted=(1.0, 40.0))))
        await asyncio.gather(*(_mischief(sim, server, servers, 14) for server in servers))
        await trouble
        await tie_together(sim, servers, _speak)
        await same_everywhere(servers)

    return simulate(scenario, seed)


@pytest.mark.parametrize("seed", seeds(40))
def test_after_storms_and_power_cuts_everybody_has_one_state(seed: int, tmp_path: Path):
    _storm(seed, tmp_path)


def test_a_federation_has_one_history_per_seed_in_every_process(tmp_path: Path):
    """The order of sets is another in each process; nothing that is sent or stored may follow it."""
    script = (
        "import sys, pathlib; from sim.test_divergence import _storm\n"
        "print([_storm(seed, pathlib.Path(sys.argv[1])) for seed in (3, 5)])"
    )
    found = set()
    for hash_seed in ("1", "2", "77"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", script, str(tmp_path)]
        found.add(subprocess.run(command, env=env, check=True, capture_output=True).stdout)
    assert len(found) == 1
