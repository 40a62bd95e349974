"""A token bucket per destination."""

from __future__ import annotations

import asyncio

from hansa.seams import Clock

#: Sums of fractions fall short of 1 by less than this, and no sleep is as short.
_CLOSE = 1e-6


class Throttle:
    """At most ``rate`` a second with bursts of ``burst``; a rate of 0 lets everything pass."""

    def __init__(self, clock: Clock, rate: float = 0.0, burst: int = 50) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = clock.monotonic()

    async def pass_one(self) -> None:
        """Wait for a token."""
        if self._rate <= 0:
            return
        while True:
            now = self._clock.monotonic()
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
            if self._tokens > 1 - _CLOSE:
                self._tokens -= 1
                return
            await asyncio.sleep((1 - self._tokens) / self._rate)
