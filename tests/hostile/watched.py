"""Starts Hansa with a meter beside it: ``python watched.py METER -m hansa run ...``.

METER is a file of four doubles that a test maps as well: how often the meter was asked to begin again, how
often it has, the longest time that the event loop was held since (s), and a count that rises with each round
of the loop.

The loop is held for as long as both the clock and the CPU time of the process move on between two beats:
another process on the same machine moves only the clock, a thread that does not hold up the loop only the CPU
time.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import mmap
import struct
import sys
import time
from pathlib import Path
from typing import Any

_BEAT = 0.001
_FORM = struct.Struct("dddd")


def _beats(meter: mmap.mmap) -> None:
    loop = asyncio.get_running_loop()
    libc = ctypes.CDLL("libc.so.6")
    wall, cpu, count = time.perf_counter(), time.process_time(), 0.0

    def beat() -> None:
        nonlocal wall, cpu, count
        now, spent = time.perf_counter(), time.process_time()
        asked, begun, held, _ = _FORM.unpack_from(meter)
        if asked != begun:
            gc.collect()
            libc.malloc_trim(0)  # what was freed before is not to hide what comes
            begun, held = asked, 0.0
            now, spent = time.perf_counter(), time.process_time()
        else:
            held = max(held, min(now - wall, spent - cpu) - _BEAT)
        count += 1
        struct.pack_into("ddd", meter, 8, begun, held, count)
        wall, cpu = now, spent
        loop.call_later(_BEAT, beat)

    beat()


def main() -> None:
    """Run Hansa's command line under the meter."""
    with Path(sys.argv[1]).open("r+b") as file:
        meter = mmap.mmap(file.fileno(), _FORM.size)
    from hansa.serve import Process  # what it imports is measured too

    start = Process.start

    async def watched(self: Any) -> None:
        await start(self)
        _beats(meter)

    Process.start = watched  # type: ignore[method-assign]
    from hansa.cli.main import main as hansa

    sys.exit(hansa(sys.argv[4:]))


if __name__ == "__main__":
    main()
