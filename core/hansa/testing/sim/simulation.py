"""A run: one seed, its machines, its network, and what must hold at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hansa.setup import NetworkSetup, PolicySetup
from hansa.testing.sim.loop import VirtualLoop
from hansa.testing.sim.machine import Machine
from hansa.testing.sim.network import VirtualNetwork
from hansa.testing.sim.seeded import SeededRandom
from hansa.testing.sim.trace import Trace

#: A scenario that takes longer than this (virtual seconds) has failed.
_LONGEST = 7 * 86_400.0


class Fault(AssertionError):
    """Something broke inside a Hansa: a task crashed, an exception was nobody's."""


class Simulation:
    """One virtual world. Made by ``simulate``; a scenario is a function of it."""

    def __init__(self, seed: int) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.seed = seed
        self.trace = Trace(loop)
        self.network = VirtualNetwork(seed, self.trace)
        #: The scenario's own randomness.
        self.chance = SeededRandom(seed, "scenario")
        self.machines: dict[str, Machine] = {}
        #: Errors that were logged, or raised without a caller. Must be empty at the end.
        self.faults: list[str] = []
        self._loop = loop

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self._loop.time()

    def machine(
        self,
        name: str,
        networks: Sequence[NetworkSetup],
        *,
        rooms: Sequence[Sequence[str]] = (),
        policies: Sequence[PolicySetup] = (),
        listens: Sequence[tuple[str, int]] = (),
        skew: int = 0,
    ) -> Machine:
        """A machine that is not started yet. ``listens`` are the ``(host, port)`` by which others reach its
        routes; ``rooms`` are the links of each, ``policies`` as in ``hansa.setup.Setup``; ``skew`` is its
        clock's error (ms).
        """
        made = Machine(self.network, name, networks)
        made.rooms, made.policies, made.skew = rooms, policies, skew
        made.names = frozenset(host for host, _ in listens)
        self.machines[name] = made
        for address in listens:
            self.network.peers[address] = made
        return made

    async def until(
        self,
        condition: Callable[[], bool | Awaitable[bool]],
        what: str,
        *,
        within: float = 3600.0,
        every: float = 0.5,
    ) -> None:
        """Let time pass until ``condition()``. Raises AssertionError after ``within`` virtual seconds."""
        limit = self.now + within
        while True:
            holds = condition()
            if not isinstance(holds, bool):
                holds = await holds
            if holds:
                return
            if self.now > limit:
                raise AssertionError(f"not within {within:g} s: {what}")
            await asyncio.sleep(every)

    async def everybody_up(self) -> None:
        """Boot every machine that is down, as often as it takes."""
        for machine in self.machines.values():
            if not machine.alive:
                await machine.restart()

    async def end(self) -> None:
        """Crash whatever still runs, so that nothing of it is left."""
        for machine in self.machines.values():
            machine.crash()
            await machine.gone()

    def fault(self, text: str) -> None:
        """Something broke that must not."""
        self.faults.append(text)
        self.trace.note("fault", text.splitlines()[0] if text else "")


class _Faults(logging.Handler):
    """Errors in the logs are failures of the run."""

    def __init__(self, sim: Simulation) -> None:
        super().__init__(logging.ERROR)
        self._sim = sim
        self._format = logging.Formatter("%(name)s: %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler.emit``."""
        self._sim.fault(self._format.format(record))


Scenario = Callable[[Simulation], Awaitable[Any]]


def simulate(scenario: Scenario, seed: int) -> str:
    """Run ``await scenario(sim)`` in a world of this seed; the hash of everything that happened.

    What the scenario raises, and any error that a Hansa logged, comes out with the seed, the virtual time
    and the end of the trace, in the exception's notes.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_run_scenario(scenario, seed))


async def _run_scenario(scenario: Scenario, seed: int) -> str:
    sim = Simulation(seed)
    handler = _Faults(sim)
    logger = logging.getLogger("hansa")
    logger.addHandler(handler)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: sim.fault(_unhandled_text(context)))
    try:
        async with asyncio.timeout(_LONGEST):
            await scenario(sim)
        digest = sim.trace.digest()
        await sim.end()
        for text in sim.network.late:
            sim.fault(text)
        if sim.faults:
            raise Fault("\n".join(sim.faults[:5]))
        return digest
    except BaseException as error:
        error.add_note(f"seed {seed}, virtual second {sim.now:.3f}: HANSA_SIM_SEED={seed} replays it exactly")
        for text in sim.faults[:5]:
            error.add_note(f"fault: {text}")
        error.add_note(f"the end of the trace:\n{sim.trace.tail()}")
        raise
    finally:
        await sim.end()
        logger.removeHandler(handler)


def _unhandled_text(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"{context.get('message')}: {type(error).__name__}: {error}"
