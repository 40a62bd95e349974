"""The cost of a process, from /proc."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def peak_mib(pid: int) -> float:
    """The most resident memory since ``forget_peak``, or since the start where that is not allowed."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def resident_mib(pid: int) -> float:
    """Resident memory now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def forget_peak(pid: int) -> None:
    """Begins to measure the peak again."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def percentile(values: Sequence[float], part: float) -> float:
    """The value that ``part`` (0 to 1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A kind of load. ``history`` is how many events the room has had before."""

    origins: int
    per_transaction: int
    members: int
    history: int = 0

    def __str__(self) -> str:
        origins = f"{self.origins} origin{'s' * (self.origins > 1)}"
        after = f", after {self.history} events" if self.history else ""
        return f"{origins}, {self.per_transaction} per transaction, {self.members} members{after}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One load on one subject. ``acknowledged`` are event ids; times in seconds, memory in MiB."""

    events: int
    cpu: float
    seconds: float
    latencies: Sequence[float]
    peak: float
    acknowledged: Sequence[str]


@dataclass(slots=True)
class Result:
    """All runs of one subject in one row. ``lost`` is, for each run, how many acknowledged events are not
    there afterwards.
    """

    subject: str
    row: Row
    runs: list[Run] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    @property
    def missing(self) -> int:
        return sum(self.lost)

    @property
    def cpu_per_1000(self) -> float:
        """For 1,000 events that are there: an event that was lost was not paid for."""
        lost = self.lost or [0] * len(self.runs)
        there = [max(1, run.events - gone) for run, gone in zip(self.runs, lost, strict=True)]
        return statistics.median(1000 * run.cpu / n for run, n in zip(self.runs, there, strict=True))

    @property
    def per_second(self) -> float:
        return statistics.median(run.events / run.seconds for run in self.runs)

    @property
    def peak(self) -> float:
        return max(run.peak for run in self.runs)

    def latency(self, part: float) -> float:
        """A percentile of a transaction's time, in ms."""
        return 1000 * percentile([one for run in self.runs for one in run.latencies], part)
