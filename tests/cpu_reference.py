"""The unit of time for this machine: limits on CPU time are multiples of a fixed piece of work."""

from __future__ import annotations

import re
import time
from collections.abc import Callable


def reference_cpu_s() -> float:
    """CPU seconds that compiling one certain pattern takes now."""
    re.purge()
    before = time.process_time()
    re.compile("|".join(f"a{number}.*" for number in range(6_000)))
    return time.process_time() - before


def relative_cost(run: Callable[[], object]) -> float:
    """The CPU time of a call as a multiple of ``reference_cpu_s``: the least of three by the least of three, as whatever
    else the machine does only ever adds to it.
    """

    def cost() -> float:
        before = time.process_time()
        run()
        return time.process_time() - before

    return min(cost() for _ in range(3)) / min(reference_cpu_s() for _ in range(3))
