"""Drives one load: every origin sends its transactions one after the other, all origins at once."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence

from bench.measure import Row, Run, cpu_seconds, forget_peak, peak_mib
from bench.origin import NotTaken, Origin
from bench.room import FakeRoom
from bench.servers_under_test import Subject

_BUSY = 1.0


class Load:
    """One kind of load on one subject; the room is joined once and the conversation goes on in every run."""

    def __init__(self, row: Row, origins: Sequence[Origin], subject: Subject) -> None:
        self.row = row
        self._origins = list(origins)[: row.origins]
        self._subject = subject
        self.room = FakeRoom(self._origins, row.members, f"bench-{secrets.token_hex(4)}")
        for origin in self._origins:
            origin.rooms.append(self.room)
        self.join_cpu = 0.0
        self.join_seconds = 0.0

    async def join(self) -> None:
        """Enter the room, and say something from every origin so that keys and connections are there."""
        before, began = cpu_seconds(self._subject.pid), time.perf_counter()
        await self._subject.join(self.room)
        self.join_cpu = cpu_seconds(self._subject.pid) - before
        self.join_seconds = time.perf_counter() - began
        await self._send(max(self.row.history, self.row.per_transaction * len(self._origins)))

    async def run(self, events: int) -> Run:
        """At least ``events`` events in whole transactions; from the first byte until all are visible."""
        pid = self._subject.pid
        forget_peak(pid)
        before, began = cpu_seconds(pid), time.perf_counter()
        latencies, sent = await self._send(events)
        seconds, cpu = time.perf_counter() - began, cpu_seconds(pid) - before
        return Run(
            events=len(sent),
            cpu=cpu,
            seconds=seconds,
            latencies=latencies,
            peak=peak_mib(pid),
            acknowledged=sent,
        )

    async def _send(self, events: int) -> tuple[list[float], list[str]]:
        size = self.row.per_transaction
        rounds = max(1, -(-events // (size * len(self._origins))))
        latencies: list[float] = []
        sent: list[str] = []

        async def talk(origin: Origin) -> str:
            last = ""
            for _ in range(rounds):
                pdus = self.room.talk(origin, size)
                while True:
                    try:
                        latencies.append(await origin.send(self._subject.name, pdus))
                        break
                    except NotTaken as problem:
                        if problem.status != 429:
                            raise
                        await asyncio.sleep(_BUSY)
                self.room.taken(*pdus)
                sent.extend(pdu.event_id for pdu in pdus)
                last = pdus[-1].event_id
            return last

        last = await asyncio.gather(*(talk(origin) for origin in self._origins))
        await self._subject.settled(self.room, last)
        return latencies, sent
