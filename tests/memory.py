"""The peak of memory that a piece of work takes of this process: only pages that are its own and in use."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """Bytes over what there was before."""

    bytes = 0


def _kib(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Peak resident memory within the block."""
    gc.collect()
    _CLEAR.write_text("5")
    before, peak = _kib("VmRSS"), Peak()
    yield peak
    peak.bytes = (_kib("VmHWM") - before) * 1024
