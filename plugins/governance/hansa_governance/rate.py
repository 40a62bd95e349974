"""A token bucket per sender, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict

from hansa import Clock

from hansa_governance.config import Rate

_SENDERS = 10_000


class Rates:
    """``take`` one token of a sender's bucket."""

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._most = float(rate.events)
        self._per_second = rate.events / rate.seconds
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, sender: str) -> float:
        """0 if the sender may speak, else the seconds until they may."""
        now = self._clock.monotonic()
        left, at = self._buckets.pop(sender, (self._most, now))
        left = min(self._most, left + (now - at) * self._per_second)
        wait = 0.0 if left >= 1 else (1 - left) / self._per_second
        self._buckets[sender] = (left if wait else left - 1, now)
        if len(self._buckets) > _SENDERS:
            self._buckets.popitem(last=False)
        return wait
