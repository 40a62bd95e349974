"""Whole Hansas in one process, on virtual time, with bad luck drawn from a seed.

A simulation tests what real peers cannot: every order in which things can happen, every moment at which the
power can fail. A few hundred virtual hours take a few real seconds, nothing sleeps, and a seed that failed
fails again in exactly the same way.

What is simulated stands under the seams that every plugin is given anyway, so a network runs here unchanged
if it keeps to them: time from ``ctx.clock`` and ``asyncio.sleep``, randomness from ``ctx.random``, requests
through ``ctx.http``, tasks by ``ctx.spawn``, everything that must last in ``ctx.store``. ::

    from hansa.setup import NetworkSetup
    from hansa.testing.sim import Simulation, inject_faults, seeds, simulate

    def network(name: str) -> NetworkSetup:
        return NetworkSetup(id="mine", module=my_plugin, options=my_plugin.Config(server=name))

    async def two_servers_agree(sim: Simulation) -> None:
        left = sim.machine("left", [network("left")], listens=[("left.test", 443)])
        right = sim.machine("right", [network("right")], listens=[("right.test", 443)])
        await left.start()
        await right.start()
        trouble = asyncio.create_task(inject_faults(sim, 120.0))     # two virtual minutes of bad luck
        ...                                                  # speak, with left.do(...), and remember
        await trouble                                        # healed, and everybody is up again
        await sim.until(lambda: ..., "both have everything") # virtual time, so waiting costs nothing

    @pytest.mark.parametrize("seed", seeds(40))
    def test_two_servers_agree(seed: int) -> None:
        simulate(two_servers_agree, seed)

The rules of this world:

- **Time** is the loop's. It stands still while anything is ready and jumps to the next timer when nothing
  is. ``Deadlock`` is raised where no timer is left, or where no time passes any more.
- **Randomness** is ``Environment.random``, one stream per machine and boot, one per way between two machines.
- **Network**: ``sim.network`` carries ``ctx.http`` to the routes of other machines, by the addresses they
  listen on. ``weather`` says how often a request or its answer is lost, comes twice or stalls and is
  overtaken; ``partition``, ``slow`` and ``heal`` do what they say. Nobody resolves names: add SRV records
  to ``sim.network.srv``.
- **Disk**: every machine has one, which outlives its process. A commit is on it or not. ``machine.crash``
  is a power cut now, ``machine.fail_at(n, after=...)`` one before or after the n-th commit from now; either
  can lose the last lazy batches that no full commit had synced. What a dead process was awaiting never
  returns, and its tasks are gone before ``machine.restart`` boots it again.
- **Machines**: call into a Hansa through ``machine.do`` only: what a scenario starts by itself belongs to no
  machine and survives its crash.
- **What was acknowledged** is what ``machine.do`` returned; ``Crashed`` means that nobody knows.
- **Faults**: an error in the log of ``hansa`` or an exception that nobody took fails the run, whatever the
  scenario asserts.

A failure carries its seed, the virtual time and the end of the trace. ``HANSA_SIM_SEED=N`` runs that seed
alone, ``HANSA_SIM_SEEDS=K`` runs K seeds of each test. ``simulate`` gives the hash of all that happened: the
same seed must give the same hash in every process. If it does not, something takes time, chance or the order
of a set from outside the seams.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "CALM",
    "STORM",
    "Crashed",
    "Deadlock",
    "Fault",
    "FaultPlan",
    "Machine",
    "NetworkConditions",
    "SeededRandom",
    "Simulation",
    "VirtualClock",
    "VirtualLoop",
    "inject_faults",
    "seeds",
    "simulate",
]

_HOMES = {
    "CALM": "network",
    "STORM": "network",
    "NetworkConditions": "network",
    "Crashed": "machine",
    "Machine": "machine",
    "Fault": "simulation",
    "Simulation": "simulation",
    "simulate": "simulation",
    "FaultPlan": "faults",
    "inject_faults": "faults",
    "SeededRandom": "seeded",
    "VirtualClock": "seeded",
    "seeds": "seeded",
    "Deadlock": "loop",
    "VirtualLoop": "loop",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(name)
    from importlib import import_module  # noqa: PLC0415  # lazy on purpose

    return getattr(import_module(f"{__name__}.{home}"), name)
