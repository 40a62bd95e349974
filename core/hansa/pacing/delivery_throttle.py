"""How fast deliveries to one network may be."""

from __future__ import annotations

import asyncio

from hansa.environment import Clock
from hansa.pacing.token_buckets import TokenBucket


class DeliveryThrottle:
    """At most ``rate`` a second with bursts of ``burst``; a rate of 0 lets everything pass."""

    def __init__(self, clock: Clock, rate: float = 0.0, burst: int = 50) -> None:
        self._clock = clock
        self._bucket = TokenBucket(rate, float(burst), clock.monotonic())

    async def pass_one(self) -> None:
        """Wait for a token."""
        if self._bucket.rate <= 0:
            return
        while True:
            self._bucket.refill(self._clock.monotonic())
            if not (wait := self._bucket.wait()):
                self._bucket.take()
                return
            await asyncio.sleep(wait)
