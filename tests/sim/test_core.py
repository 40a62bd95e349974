"""The bus under power cuts, broken networks and bad luck: nothing acknowledged is lost, order holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hansa import Busy, Delivery, RetryLater, StoreFault, Submission, SubmitResult
from hansa.store.base import Store
from hansa.testing.faulty_store import FaultyStore, InjectedFault
from hansa.testing.sim import Crashed, FaultPlan, Machine, Simulation, inject_faults, seeds, simulate
from sim.scripted import Stage, said

pytestmark = pytest.mark.sim

_LINKS = ("a:r", "b:r", "c:r")
_EACH = 25


async def _insist(sim: Simulation, machine: Machine, inbound: Submission) -> SubmitResult:
    """Submit until it is acknowledged, as a network does with what it may not lose."""
    while True:
        try:
            app = machine.running
            outcomes = await machine.do(app.contexts[inbound.origin.network].submit([inbound]))
        except (Crashed, Busy, StoreFault):
            await asyncio.sleep(sim.chance.between(0.05, 0.5))
            continue
        return outcomes[0]


def _linked(machine: Machine) -> bool:
    return machine.listening and any(len(room.links) == len(_LINKS) for room in machine.running.rooms)


class _Town:
    """One Hansa with three scripted networks in one room; ``c`` hosts its side, as a MUC does."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.plain, self.hosting = Stage(), Stage(hosted=True)
        setups = [self.plain.setup("a"), self.plain.setup("b"), self.hosting.setup("c")]
        self.machine = sim.machine("one", setups, rooms=[_LINKS])
        self.acknowledged: dict[str, int] = {}

    def screens(self):
        return {"a": self.plain.screen("a"), "b": self.plain.screen("b"), "c": self.hosting.screen("c")}

    async def talk(self, network: str, first: int = 0, count: int = _EACH) -> None:
        while not _linked(self.machine):  # to be there in the very moment
            await asyncio.sleep(0.001 if self.machine.listening else 0.05)
        for number in range(first, first + count):
            text = f"{network}{number}"
            outcome = await _insist(
                self.sim, self.machine, said(self.sim, network, "r", f"ann@{network}", text)
            )
            assert outcome.event is not None
            self.acknowledged[text] = outcome.event.seq
            if self.sim.chance.happens(0.7):
                await asyncio.sleep(self.sim.chance.between(0.0, 1.0))

    async def settled(self) -> None:
        total = len(self.acknowledged)
        await self.sim.until(
            lambda: all(
                len(screen.texts("r")) >= (total if name == "c" else total * 2 // 3)
                for name, screen in self.screens().items()
            ),
            "everything acknowledged is on every screen",
            within=600.0,
        )

    async def check(self) -> None:
        app = self.machine.running
        room = next(iter(app.rooms))
        rows = await app.core.scan("event", equal=(room.id,), limit=10_000)
        log = {int(row.key[1]) for row in rows}
        assert log == set(range(1, room.head + 1))
        texts = dict(self.acknowledged)
        assert len(set(texts.values())) == len(texts) == room.head
        for name, screen in self.screens().items():
            expected = sorted(seq for text, seq in texts.items() if name == "c" or not text.startswith(name))
            assert screen.seqs("r") == expected, f"screen {name}: not everything, once, in log order"
        assert await app.core.count("dead") == 0


@pytest.mark.parametrize("seed", seeds(20))
def test_every_link_gets_everything_once_and_in_log_order(seed: int):
    """No crash: each delivery key is sent once, whatever the networks raise meanwhile."""

    async def scenario(sim: Simulation) -> None:
        town = _Town(sim)
        worst: dict[str, int] = {}

        def stumble(delivery: Delivery) -> None:
            worst[delivery.key] = worst.get(delivery.key, 0) + 1
            if worst[delivery.key] < 8 and sim.chance.happens(0.3):
                raise (
                    RetryLater("not now", after=sim.chance.between(0.0, 3.0))
                    if sim.chance.happens(0.5)
                    else OSError("gone")
                )

        for screen in town.screens().values():
            screen.before_send = stumble
        await town.machine.start()
        await asyncio.gather(*(town.talk(name) for name in "abc"))
        await town.settled()
        await asyncio.sleep(60.0)
        await town.check()
        for screen in town.screens().values():
            assert set(screen.sends.values()) == {1}

    simulate(scenario, seed)


@pytest.mark.parametrize("seed", seeds(60))
def test_power_cuts_lose_nothing_and_reorder_nothing(seed: int):
    async def scenario(sim: Simulation) -> None:
        town = _Town(sim)

        def stumble(_: Delivery) -> None:
            if sim.chance.happens(0.1):
                raise RetryLater("not now")

        for screen in town.screens().values():
            screen.before_send = stumble
        if sim.chance.happens(0.5):
            first = asyncio.get_running_loop().create_task(_first_boot(town.machine, sim))
        else:
            await town.machine.start()
            first = None
        trouble = asyncio.ensure_future(
            inject_faults(sim, 60.0, FaultPlan(partitions=False, slow=False, every=(0.1, 6.0)))
        )
        await asyncio.gather(*(town.talk(name) for name in "abc"))
        await trouble
        if first:
            await first
        await town.settled()
        await town.check()

    simulate(scenario, seed)


async def _first_boot(machine: Machine, sim: Simulation) -> None:
    """A power cut while the room is being made, at every commit in turn over the seeds."""
    booting = asyncio.get_running_loop().create_task(machine.start())
    await asyncio.sleep(0)
    machine.fail_at(1 + sim.seed % 12, after=sim.chance.happens(0.5))
    try:
        await booting
    except Crashed:
        await machine.restart()


@pytest.mark.parametrize("seed", seeds(10))
def test_a_graceful_stop_repeats_nothing(seed: int):
    """SIGTERM in the middle of the talk: the cursors are stored, so no key is sent a second time."""

    async def scenario(sim: Simulation) -> None:
        town = _Town(sim)

        def stumble(_: Delivery) -> None:
            if sim.chance.happens(0.3):
                raise RetryLater("not now")

        for screen in town.screens().values():
            screen.before_send = stumble
        await town.machine.start()
        for part in range(3):
            await asyncio.gather(*(town.talk(name, part * 10, 10) for name in "abc"))
            await town.machine.stop()
            await town.machine.start()
        await town.settled()
        await town.check()
        for screen in town.screens().values():
            assert set(screen.sends.values()) == {1}

    simulate(scenario, seed)


@pytest.mark.parametrize("seed", seeds(60))
def test_a_database_that_does_not_say_what_it_kept_loses_nothing_and_doubles_nothing(seed: int):
    """Results that stay unknown, whether the batch was kept or not, end the process, which starts from the
    store. Besides, the database goes away, tells late, and reads a row as it was before.
    """

    async def scenario(sim: Simulation) -> None:
        town = _Town(sim)
        machine, chance = town.machine, sim.chance
        faults = [
            InjectedFault.UNKNOWN_KEPT,
            InjectedFault.UNKNOWN_NOT_KEPT,
            InjectedFault.AWAY,
            InjectedFault.AWAY,
            InjectedFault.LATE,
        ]
        trouble = True
        met: list[InjectedFault] = []

        def choose(_: object) -> InjectedFault | None:
            if not trouble or not chance.happens(0.04):
                return None
            met.append(faults[int(chance.between(0.0, len(faults) - 0.001))])
            return met[-1]

        def between(inner: Store) -> Store:
            store = FaultyStore(inner, choose, lambda: trouble and chance.happens(0.03))

            async def late() -> None:
                while True:
                    store.back.clear()
                    await asyncio.sleep(chance.between(0.0, 3.0))
                    store.back.set()
                    await asyncio.sleep(chance.between(0.0, 1.0))

            machine.spawn(late())
            return store

        machine.between = between

        async def begun(start: Callable[[], Awaitable[None]]) -> None:
            try:
                await start()
            except Crashed:
                pass
            except StoreFault:  # it cannot start, and ends
                machine.crash()

        async def supervised() -> None:
            while trouble or not machine.alive:
                if not machine.alive:
                    await begun(machine.restart)
                await asyncio.sleep(0.05)

        await begun(machine.start)
        supervisor = asyncio.ensure_future(supervised())
        await asyncio.gather(*(town.talk(name) for name in "abc"))
        trouble = False
        await supervisor
        await town.settled()
        await town.check()
        assert met
        told = [fault for fault in sim.faults if fault.startswith("hansa.store: the database is ")]
        assert told
        sim.faults[:] = [fault for fault in sim.faults if fault not in told]

    simulate(scenario, seed)
