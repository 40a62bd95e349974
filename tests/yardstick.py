"""What "no time" means on this machine: limits on CPU time are multiples of a fixed piece of work."""

from __future__ import annotations

import re
import time


def yardstick() -> float:
    """CPU seconds that compiling one certain pattern takes now."""
    re.purge()
    before = time.process_time()
    re.compile("|".join(f"a{number}.*" for number in range(6_000)))
    return time.process_time() - before
