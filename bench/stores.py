"""The same writes on every store, and the same events on a Hansa with each, in turn.

Every database keeps what it acknowledges through a loss of power, and is on this machine. The CPU is that of
Hansa's own process: what the database's processes take is theirs, and none of it is SQLite's. A Synapse's is
counted in the same way.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hansa.store import open_store
from hansa.store.base import Collection, Put, Schema, Store
from peers.ca import PrivateCA
from peers.mongo import Mongo
from peers.postgres import Postgres

from bench.comparison import Pairs, fakes, say
from bench.load import Load
from bench.measure import Row
from bench.servers_under_test import HansaSubject, SynapseSubject

#: Bytes of a body, rows that are written over and over, and seconds of one measurement.
_BODY, _ROWS, _SECONDS = 600, 6000, 2.0
_SCHEMA = Schema(
    owner="bench",
    version=1,
    collections=(
        Collection(name="thing", key={"room": str, "at": int}, fields={"size": int}, indexes=(("size",),)),
    ),
)
#: Writes in a commit, and commits at a time.
_KINDS = ((1, 1), (50, 1), (1, 64))
_EVENTS = 500


@contextmanager
def _databases(folder: Path) -> Iterator[dict[str, Callable[[], str]]]:
    """URLs of empty databases, by store."""
    (folder / "mongo").mkdir()
    postgres = Postgres("fsync=on", "full_page_writes=on")
    mongo = Mongo(folder / "mongo", "--sync-on-commit")
    made = 0

    def sqlite() -> str:
        nonlocal made
        made += 1
        return f"sqlite:{folder}/{made}.db"

    try:
        yield {
            "SQLite": sqlite,
            "PostgreSQL": postgres.start().database,
            "MongoDB-wire": mongo.start().database,
        }
    finally:
        postgres.stop()
        mongo.stop()


class _Writing:
    """Commits on one store. ``cpu`` is in seconds for each."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._count = 0
        self.cpu: dict[tuple[int, int], list[float]] = {}
        self.rate: dict[tuple[int, int], list[float]] = {}

    async def _one(self, writes: int) -> None:
        first, self._count = self._count, self._count + writes
        await self._store.commit(
            "bench",
            [
                Put("thing", ("!room:example.org", n % _ROWS), b"x" * _BODY, {"size": n % 100})
                for n in range(first, first + writes)
            ],
        )

    async def run(self, writes: int, at_a_time: int) -> None:
        began, before, done = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < _SECONDS:
            if at_a_time == 1:
                await self._one(writes)
            else:
                await asyncio.gather(*(self._one(writes) for _ in range(at_a_time)))
            done += at_a_time
        cpu, seconds = time.process_time() - before, time.perf_counter() - began
        self.cpu.setdefault((writes, at_a_time), []).append(cpu / done)
        self.rate.setdefault((writes, at_a_time), []).append(done / seconds)

    async def read(self, keys: int) -> tuple[float, float]:
        """Reads a second, and seconds of CPU for each, of so many rows by key or of so many in order."""
        began, before, done = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < _SECONDS / 2:
            if keys == 1:
                await self._store.get("bench", "thing", ("!room:example.org", done % 1000))
            else:
                await self._store.scan("bench", "thing", equal=("!room:example.org",), after=9, limit=keys)
            done += 1
        return done / (time.perf_counter() - began), (time.process_time() - before) / done


async def _writes(urls: dict[str, Callable[[], str]], runs: int) -> Pairs:
    writing: dict[str, _Writing] = {}
    open_: list[Store] = []
    pairs: Pairs = []
    try:
        for name, url in urls.items():
            store = open_store(url(), Path())
            await store.open()
            open_.append(store)
            await store.declare("bench", _SCHEMA)
            writing[name] = _Writing(store)
        for kind in _KINDS:
            for _ in range(runs):
                for name, one in writing.items():
                    say(f"{name}: commits of {kind[0]}, {kind[1]} at a time")
                    await one.run(*kind)
        for kind in _KINDS:
            for name, one in writing.items():
                rate, cpu = statistics.median(one.rate[kind]), statistics.median(one.cpu[kind])
                label = f"{name}, commits of {kind[0]}, {kind[1]} at a time"
                pairs.append((label, f"{rate:.0f} commits/s, {1e6 * cpu:.0f} us of CPU each"))
        for keys, what in ((1, "one row by key"), (100, "100 rows in order")):
            for name, one in writing.items():
                rate, cpu = await one.read(keys)
                pairs.append((f"{name}, {what}", f"{rate:.0f} reads/s, {1e6 * cpu:.0f} us of CPU each"))
    finally:
        for store in open_:
            await store.close()
    return pairs


async def _inbound(
    folder: Path, ca: PrivateCA, urls: dict[str, Callable[[], str]], runs: int, *, synapse: bool
) -> Pairs:
    pairs: Pairs = []
    subjects: dict[str, HansaSubject | SynapseSubject] = {}
    stop: list[Callable[[], Awaitable[None]]] = []
    try:
        for name, url in urls.items():
            subjects[name] = HansaSubject(folder / f"hansa-{name}", ca, store=url())
        if synapse:
            subjects["Synapse's SQLite"] = SynapseSubject(folder / "synapse", ca)
            postgres = urls["PostgreSQL"]()
            subjects["Synapse's PostgreSQL"] = SynapseSubject(folder / "synapse-postgres", ca, postgres)
        for subject in subjects.values():
            stop.append(subject.stop)
            await subject.start()
        async with fakes(ca, 1) as origins:
            for size in (1, 50):
                row = Row(origins=1, per_transaction=size, members=10)
                loads = {name: Load(row, origins, subject) for name, subject in subjects.items()}
                cpu: dict[str, list[float]] = {name: [] for name in loads}
                rate: dict[str, list[float]] = {name: [] for name in loads}
                for load in loads.values():
                    await load.join()
                for _ in range(runs):
                    for name, load in loads.items():
                        say(f"inbound on {name}, {size} per transaction")
                        found = await load.run(_EVENTS * (4 if size > 1 else 1))
                        cpu[name].append(found.cpu / found.events)
                        rate[name].append(found.events / found.seconds)
                least = statistics.median(cpu["SQLite"])
                for name in loads:
                    each = statistics.median(cpu[name])
                    took = f"{1e6 * each:.0f} us of CPU an event, {each / least:.2f} times SQLite's"
                    speed = f"{statistics.median(rate[name]):.0f} events/s"
                    pairs.append((f"inbound on {name}, {size} per transaction", f"{took}, {speed}"))
    finally:
        for one in stop:
            await one()
    return pairs


async def stores(folder: Path, ca: PrivateCA, runs: int, *, synapse: bool) -> Pairs:
    """Commits and reads of each store, and inbound events on each, with a Synapse on SQLite and on PostgreSQL
    beside.
    """
    with _databases(folder) as urls:
        return [*await _writes(urls, runs), *await _inbound(folder, ca, urls, runs, synapse=synapse)]
