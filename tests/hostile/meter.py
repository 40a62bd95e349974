"""The cost of a hostile input for a real Hansa: additional memory, and the time in which no other client is
served.
"""

from __future__ import annotations

import asyncio
import mmap
import re
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from peers.hansa import Hansa
from peers.waiting import until

_FORM = struct.Struct("dddd")
_HERE = Path(__file__).parent
#: A process that has spent less CPU time than this (clock ticks) since the last look has no work left.
_IDLE = 2


@dataclass(slots=True)
class Cost:
    """``mib`` of memory at the peak over what there was, child processes included; ``held`` in ms."""

    mib: float = 0.0
    held: float = 0.0


def _kib(pid: int, what: str) -> int:
    with suppress(OSError):
        found = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) if found else 0
    return 0


def _children(pid: int) -> list[int]:
    """Child processes and theirs."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_children(int(child))]
    return found


def _ticks(pid: int) -> int:
    total = 0
    for one in (pid, *_children(pid)):
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total


class Meter:
    """Beside one Hansa; made before that is started."""

    def __init__(self, hansa: Hansa) -> None:
        self._hansa = hansa
        file = hansa.folder / "meter"
        file.write_bytes(bytes(_FORM.size))
        hansa.python = (sys.executable, str(_HERE / "watched.py"), str(file))
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), _FORM.size)

    def _read(self) -> tuple[float, float, float, float]:
        return _FORM.unpack_from(self._map)  # type: ignore[return-value]

    async def idle(self) -> None:
        """Wait until there is nothing left to do."""
        before = -100

        async def quiet() -> bool:
            nonlocal before
            last, before = before, _ticks(self._hansa.pid)
            return before - last < _IDLE

        await until("Hansa has nothing left to do", quiet, 120)

    async def _begin(self) -> None:
        asked = self._read()[0] + 1
        struct.pack_into("d", self._map, 0, asked)

        async def begun() -> bool:
            return self._read()[1] == asked

        await until("the meter begins anew", begun)

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[Cost]:
        """Measures the block, and the work that is left after it."""
        pid, cost = self._hansa.pid, Cost()
        await self.idle()
        await self._begin()
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        before, beside = _kib(pid, "VmRSS"), 0
        running = True

        async def watch_children() -> None:
            nonlocal beside
            while running:
                beside = max(beside, sum(_kib(child, "VmHWM") for child in _children(pid)))
                await asyncio.sleep(0.05)

        first = sum(_kib(child, "VmRSS") for child in _children(pid))
        watching = asyncio.ensure_future(watch_children())
        try:
            yield cost
            await self.idle()
        finally:
            running = False
            await watching
        cost.mib = (_kib(pid, "VmHWM") - before + max(0, beside - first)) / 1024
        cost.held = self._read()[2] * 1000
