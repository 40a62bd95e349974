"""Plays remote homeservers against a real Hansa and prints what an event costs.

Every subject gets the same events over real TLS on loopback, in turn and several times over; the figures are
medians. The CPU is the process's own (user and system time). Compare ratios: an absolute figure says little
from one machine, or one hour, to the next.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import uvloop
from peers.ca import PrivateCA

from bench import report
from bench.client import client
from bench.comparison import Pairs
from bench.disk import disk
from bench.echo import Echo, echo
from bench.hostile import hostile
from bench.kinds import kinds
from bench.latency import latency
from bench.load import Load
from bench.measure import Result, Row
from bench.memory import memory
from bench.origin import Origin, origins
from bench.outbound import outbound
from bench.resolution import SIZES, resolution
from bench.results import record
from bench.send_join import serving
from bench.servers_under_test import FloorSubject, HansaSubject, Subject, SynapseSubject
from bench.stores import stores

#: Kinds of load that are measured by themselves, with the events of one run.
NAMED: Mapping[str, tuple[int, tuple[Row, ...]]] = {
    "burst": (5000, (Row(origins=4, per_transaction=50, members=10),)),
    "members": (2000, tuple(Row(origins=1, per_transaction=50, members=n) for n in (10, 2000, 10_000))),
    "history": (
        2000,
        tuple(Row(origins=1, per_transaction=50, members=10, history=n) for n in (100, 100_000)),
    ),
    "join": (50, tuple(Row(origins=1, per_transaction=50, members=n) for n in (2000, 20_000))),
}


class Other(Protocol):
    """A benchmark with a way of its own: it returns lines."""

    def __call__(self, folder: Path, ca: PrivateCA, runs: int, *, synapse: bool) -> Awaitable[Pairs]: ...


OTHERS: Mapping[str, Other] = {
    "client": client,
    "disk": disk,
    "hostile": hostile,
    "kinds": kinds,
    "latency": latency,
    "memory": memory,
    "outbound": outbound,
    "send-join": serving,
    "stores": stores,
}
#: Beyond this history, or so many members, Synapse is left out: it would take an hour.
_MOST_HISTORY, _MOST_MEMBERS = 1000, 2000
ROWS = tuple(
    Row(origins=origins_, per_transaction=size, members=members)
    for origins_ in (1, 4)
    for size in (1, 50)
    for members in (10, 2000)
)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "row",
        nargs="?",
        default="inbound",
        choices=["inbound", *NAMED, "state-res", *OTHERS],
        help="what to measure (default: inbound, and the echo)",
    )
    parser.add_argument("--vs", choices=["synapse"], help="the same on a real Synapse, side by side")
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer events, one run each")
    parser.add_argument("--record", action="store_true", help="put the tables into bench/RESULTS.md")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--events", type=int, default=0, help="events per run (default 2000)")
    parser.add_argument("--runs", type=int, default=0, help="runs of every row and subject (default 3)")
    parser.add_argument("--members", type=int, nargs="+", default=[], help="only rooms of these sizes")
    parser.add_argument("--origins", type=int, nargs="+", default=[], help="only these numbers of origins")
    parser.add_argument("--sizes", type=int, nargs="+", default=[], help="only these transaction sizes")
    parser.add_argument("--no-echo", action="store_true", help="leave the way through Prosody out")
    found = parser.parse_args(argv)
    usual = NAMED[found.row][0] if found.row in NAMED else 2000
    found.no_echo = found.no_echo or found.row != "inbound"
    found.events = found.events or (500 if found.quick else usual)
    found.runs = found.runs or (1 if found.quick else 3)
    return found


def rows_of(arguments: argparse.Namespace) -> list[Row]:
    """The rows that are asked for; sizes beyond the usual ones are rows too."""
    if arguments.row in NAMED:
        return list(NAMED[arguments.row][1])
    return [
        Row(origins=o, per_transaction=s, members=m)
        for o in arguments.origins or sorted({row.origins for row in ROWS})
        for s in arguments.sizes or sorted({row.per_transaction for row in ROWS})
        for m in arguments.members or sorted({row.members for row in ROWS})
    ]


class Bench:
    """All subjects and all rows, interleaved."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._arguments = arguments
        self._folder = folder
        self._ca = PrivateCA(folder / "ca")
        self.results: dict[Row, dict[str, Result]] = {}
        self.joins: dict[str, dict[str, Any]] = {}
        self.echo: Echo | None = None

    async def run(self) -> None:
        """Fill ``results``."""
        rows = rows_of(self._arguments)
        async with AsyncExitStack() as cleanup:
            fakes = await origins(self._ca, max(row.origins for row in rows))
            for fake in fakes:
                cleanup.push_async_callback(fake.stop)
            subjects = await self._subjects(fakes, cleanup)
            for row in rows:
                await self._row(row, fakes, subjects)
            for subject in subjects:
                await subject.stop()
                self._count(subject)
            if not self._arguments.no_echo:
                self.echo = await self._echo(fakes[0])

    async def _subjects(self, fakes: Sequence[Origin], cleanup: AsyncExitStack) -> list[Subject]:
        found: list[Subject] = [
            HansaSubject(self._folder / "hansa", self._ca),
            FloorSubject(self._folder / "floor", self._ca, fakes),
        ]
        if self._arguments.vs:
            found.append(SynapseSubject(self._folder / "synapse", self._ca))
        for subject in found:
            self._say(f"starting {subject.label}")
            cleanup.push_async_callback(subject.stop)
            await subject.start()
        return found

    async def _row(self, row: Row, fakes: Sequence[Origin], subjects: Sequence[Subject]) -> None:
        self._say(f"{row}")
        small = row.history <= _MOST_HISTORY and row.members <= _MOST_MEMBERS
        taking = [subject for subject in subjects if small or subject.label != "Synapse"]
        loads = {subject.label: Load(row, fakes, subject) for subject in taking}
        self.results[row] = {label: Result(label, row) for label in loads}
        for label, load in loads.items():
            await load.join()
            if label != "floor":
                join = {"cpu_seconds": load.join_cpu, "seconds": load.join_seconds}
                if not row.history:
                    self.joins.setdefault(f"join of {row.members} members", {}).setdefault(label, join)
        for _ in range(self._arguments.runs):
            for label, load in loads.items():
                events = self._arguments.events
                if label == "Synapse":
                    events = max(events // 8, row.origins)
                self.results[row][label].runs.append(await load.run(events))

    def _count(self, subject: Subject) -> None:
        for found in self.results.values():
            result = found.get(subject.label)
            if result is not None:
                result.lost = [subject.missing(run.acknowledged) for run in result.runs]

    async def _echo(self, origin: Origin) -> Echo | None:
        if shutil.which("prosody") is None:
            self._say("no Prosody: the echo is left out (scripts/bootstrap-peers installs it)")
            return None
        self._say("the echo through Prosody")
        return await echo(self._folder / "echo", self._ca, origin, min(200, self._arguments.events // 5))

    @staticmethod
    def _say(text: str) -> None:
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def lines(self) -> Iterator[str]:
        """The tables, or JSON."""
        if self._arguments.json:
            more = {"joins": self.joins, "echo": self.echo.as_json() if self.echo else None}
            yield json.dumps(report.as_json(self.results, more), indent=2)
            return
        yield from report.lines_of(self.results)
        yield ""
        yield from report.summary(self.results)
        pairs = [
            (f"{label}: {name}", f"{join['cpu_seconds']:.2f} s CPU, {join['seconds']:.2f} s")
            for name, found in self.joins.items()
            for label, join in found.items()
        ]
        yield from report.columns(pairs + (self.echo.pairs() if self.echo else []))

    @property
    def missing(self) -> int:
        """How many acknowledged events Hansa has lost."""
        return sum(found["Hansa"].missing for found in self.results.values())


def _show(arguments: argparse.Namespace, argv: Sequence[str], lines: Sequence[str]) -> None:
    print("\n".join(lines))
    if arguments.record:
        record(arguments.row, argv, lines)


async def _other(arguments: argparse.Namespace) -> Pairs:
    with tempfile.TemporaryDirectory(prefix="hansa-bench-") as name:
        folder = Path(name)
        measured = OTHERS[arguments.row](
            folder, PrivateCA(folder / "ca"), arguments.runs, synapse=bool(arguments.vs)
        )
        return await measured


def main(argv: Sequence[str]) -> int:
    """The exit code: 1 if an event that Hansa acknowledged is missing."""
    arguments = _arguments(argv)
    if arguments.row == "state-res":
        vs = bool(arguments.vs)
        sizes = (resolution(size, max(5, arguments.runs), synapse=vs) for size in SIZES)
        pairs = [pair for found in sizes for pair in found.pairs()]
        _show(arguments, argv, list(report.columns(pairs)))
        return 0
    if arguments.row in OTHERS:
        lines = report.columns(uvloop.run(_other(arguments)))
        _show(arguments, argv, list(lines))
        return 0
    with tempfile.TemporaryDirectory(prefix="hansa-bench-") as folder:
        bench = Bench(arguments, Path(folder))
        uvloop.run(bench.run())
        _show(arguments, argv, list(bench.lines()))
    return 1 if bench.missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
