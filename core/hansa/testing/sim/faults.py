"""Bad luck, drawn from the seed: storms, partitions and power cuts for a while, then peace."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hansa.testing.sim.machine import Crashed, Machine
from hansa.testing.sim.network import STORM, NetworkConditions
from hansa.testing.sim.seeded import SeededRandom
from hansa.testing.sim.simulation import Simulation


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """How bad it gets. Every ``every`` seconds (a range) one of the troubles that are switched on begins; a
    crashed machine boots again after ``down`` seconds, a partition lasts ``parted`` seconds.
    """

    weather: NetworkConditions = STORM
    crashes: bool = True
    partitions: bool = True
    slow: bool = True
    every: tuple[float, float] = (1.0, 12.0)
    down: tuple[float, float] = (0.1, 20.0)
    parted: tuple[float, float] = (1.0, 90.0)


async def inject_faults(sim: Simulation, seconds: float, how: FaultPlan | None = None) -> None:
    """Trouble for so many virtual seconds; then the network is healed and every machine is up."""
    how = how or FaultPlan()
    chance = SeededRandom(sim.seed, "havoc")
    kinds = [k for k, on in (("crash", how.crashes), ("part", how.partitions), ("slow", how.slow)) if on]
    sim.network.weather = how.weather
    rebooting: list[asyncio.Task[None]] = []
    end = sim.now + seconds
    while sim.now < end:
        await asyncio.sleep(chance.between(*how.every))
        if not kinds:
            continue
        kind = kinds[chance.below(len(kinds))]
        names = list(sim.machines)
        victim = names[chance.below(len(names))]
        if kind == "crash":
            work = _power_cut(sim.machines[victim], chance, how)
            rebooting.append(asyncio.get_running_loop().create_task(work))
        elif kind == "part":
            sim.network.partition([victim], [name for name in names if name != victim])
            await asyncio.sleep(chance.between(*how.parted))
            sim.network.partition()
        else:
            sim.network.slow[victim] = chance.between(1.0, 40.0)
    for task in rebooting:
        await task
    sim.network.heal()
    await sim.everybody_up()


async def _power_cut(machine: Machine, chance: SeededRandom, how: FaultPlan) -> None:
    """At once, or at one of the next commits; the reboot may meet the next cut already."""
    if not machine.alive:
        return
    lose = chance.below(4)
    down, wait = chance.between(*how.down), chance.between(0.0, 5.0)
    if chance.happens(0.3):
        machine.crash(lose)
    else:
        machine.fail_at(1 + chance.below(30), after=chance.happens(0.5), lose=lose)
        await asyncio.sleep(wait)
        machine.crash(lose)
    await machine.gone()
    await asyncio.sleep(down)
    if machine.alive:
        return
    try:
        await machine.start()
    except Crashed:
        await machine.gone()
