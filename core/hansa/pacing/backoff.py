"""When to try again: a pure schedule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Doubling from ``first`` to ``most`` seconds, each spread by up to ``jitter`` of itself."""

    first: float = 1.0
    most: float = 60.0
    jitter: float = 0.1

    def delay(self, failures: int, chance: float = 0.5) -> float:
        """Seconds to wait after the ``failures``-th failure in a row (from 1). ``chance`` is in [0, 1); 0.5
        spreads nothing.
        """
        base = min(self.most, self.first * float(1 << min(max(failures - 1, 0), 32)))
        return base * (1 + self.jitter * (2 * chance - 1))
