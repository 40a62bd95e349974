"""Databases of simulated machines that fail as the seed has it, and what watches that no head goes down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
from hansa import StoreFault
from hansa.store.base import Durability, Store, Write
from hansa.testing.faulty_store import FaultyStore, InjectedFault
from hansa.testing.sim import Crashed, Machine, Simulation

#: What becomes of a commit that does not go well; ``AWAY`` twice, as it is the one that ends no process.
FAULTS = (
    InjectedFault.UNKNOWN_KEPT,
    InjectedFault.UNKNOWN_NOT_KEPT,
    InjectedFault.LOST,
    InjectedFault.AWAY,
    InjectedFault.AWAY,
    InjectedFault.LATE,
    InjectedFault.HELD,
)
#: What such a database says of itself in the log.
TOLD = "hansa.store: the database is "


class _Seen(FaultyStore):
    """Notes what was kept of the rows that must never go back."""

    def __init__(self, inner: Store, kept: Callable[[Write], None], *rest: Any) -> None:
        super().__init__(inner, *rest)
        self._kept = kept

    async def _commit_and_remember(
        self, scope: str, writes: Sequence[Write], durability: Durability
    ) -> list[int]:
        found = await super()._commit_and_remember(scope, writes, durability)
        for write in writes:
            self._kept(write)
        return found


class Database:
    """The database of one machine. While ``trouble`` holds, every commit may meet one of ``FAULTS``, and
    sometimes all that is asked fails for a while. The machine is started again whenever it ended.
    """

    def __init__(self, sim: Simulation, machine: Machine, *, often: float = 0.03) -> None:
        self.sim = sim
        self.machine = machine
        self.often = often
        self.trouble = False
        #: What befell its commits.
        self.met: list[InjectedFault] = []
        self.outages = 0
        self._heads: dict[tuple[str, str], int] = {}
        self._supervisor: asyncio.Task[None] | None = None
        self._store: FaultyStore | None = None
        machine.between = self._between

    def _choose(self, _: Sequence[Write]) -> InjectedFault | None:
        if not self.trouble or not self.sim.chance.happens(self.often):
            return None
        self.met.append(FAULTS[self.sim.chance.below(len(FAULTS))])
        return self.met[-1]

    def _between(self, inner: Store) -> Store:
        store = _Seen(inner, self._kept, self._choose)
        self._store = store
        self.machine.spawn(self._weather(store))
        return store

    async def _weather(self, store: FaultyStore) -> None:
        """Answers come late in bursts; every now and then nothing is answered at all."""
        chance = self.sim.chance
        while True:
            store.back.clear()
            await asyncio.sleep(chance.between(0.0, 3.0))
            store.back.set()
            await asyncio.sleep(chance.between(0.0, 1.0))
            if self.trouble and chance.happens(0.1):
                self.outages += 1
                store.away = True
                await asyncio.sleep(chance.between(0.0, 20.0))
                store.away = False

    def _kept(self, write: Write) -> None:
        """The heads of the core's and Matrix's rooms never go down, whichever boot writes them."""
        _, _, name = write.collection.rpartition("/")
        body = getattr(write, "body", b"")
        if name != "room" or not body:
            return
        row = orjson.loads(body)
        where = (write.collection, str(write.key[0]))
        head = row.get("head", row.get("last"))
        assert isinstance(head, int), row
        assert head >= self._heads.get(where, 0), f"the head of {where} went back to {head}"
        self._heads[where] = head

    async def start(self) -> None:
        """Boot the machine, and ``watch``."""
        await self._begun(self.machine.start)
        self.watch()

    def watch(self) -> None:
        """From now on boot the machine again whenever it has ended."""
        self._supervisor = asyncio.ensure_future(self._supervised())

    async def _begun(self, start: Callable[[], Awaitable[None]]) -> None:
        try:
            await start()
        except Crashed:
            pass
        except StoreFault:  # it cannot start, and ends
            self.machine.crash()

    async def _supervised(self) -> None:
        while True:
            if not self.machine.alive:
                await self._begun(self.machine.restart)
            await asyncio.sleep(0.05)

    async def peace(self) -> None:
        """No more faults; the machine is up, and nobody starts it again."""
        self.trouble = False
        if self._store is not None:
            self._store.away = False
        await self.sim.until(lambda: self.machine.listening, "it is up", within=60.0, every=0.1)
        if self._supervisor is not None:
            self._supervisor.cancel()

    def check(self) -> None:
        """At the end: status is true, and whatever delivers still does."""
        app = self.machine.running
        assert app.store.health.state == "up"
        assert {name: runner.state for name, runner in app.runners.items()} == dict.fromkeys(
            app.runners, "up"
        )
        assert not [name for name, task in app._consuming.items() if task.done()]


def forgive(sim: Simulation) -> list[str]:
    """Take what databases said of themselves from the run's faults, and return it."""
    told = [fault for fault in sim.faults if fault.startswith(TOLD)]
    sim.faults[:] = [fault for fault in sim.faults if fault not in told]
    return told
