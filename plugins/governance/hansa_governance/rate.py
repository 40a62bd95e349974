"""How much one sender may do: a token bucket each, by the sender's own clock, in bounded memory.

What arrives late was done over a longer time than it takes to arrive, and is counted by the times that its
sender claims. These never run backwards, never ahead of our clock, and reach back a day at most; what they
let through beyond our own clock is bounded by a second bucket, ten times as large, that runs by our clock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from hansa import Clock

from hansa_governance.config import Rate

_SENDERS = 10_000
#: The most that a claimed time is believed to lie back, in seconds.
_LATEST = 86_400.0
#: The size of the bucket by our clock, in those of the sender's own.
_LARGER = 10


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float
    real_left: float
    real_at: float


class Rates:
    """``take`` one token of a sender's bucket."""

    def __init__(self, rate: Rate, clock: Clock, *, times: int = 1) -> None:
        self._most = float(rate.events * times)
        self._per_second = rate.events * times / rate.seconds
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, sender: str, ts: int = 0, *, always: bool = False) -> float:
        """0 if the sender may do one thing more, else the seconds until they may. ``ts`` is when they say
        that they did it (ms), 0 for now. ``always``: it cannot be refused, and counts.
        """
        real = self._clock.monotonic()
        late = max(0.0, (self._clock.now() - ts) / 1000) if ts else 0.0
        claimed = real - min(late, _LATEST)
        bucket = self._buckets.pop(sender, None)
        if bucket is None:
            bucket = _Bucket(self._most, claimed, self._most * _LARGER, real)
        self._buckets[sender] = bucket
        if len(self._buckets) > _SENDERS:
            self._buckets.popitem(last=False)
        spaced = max(0.0, claimed - bucket.at)
        bucket.left = min(self._most, bucket.left + spaced * self._per_second)
        bucket.at += spaced
        gained = (real - bucket.real_at) * self._per_second
        bucket.real_left = min(self._most * _LARGER, bucket.real_left + gained)
        bucket.real_at = real
        short = 1 - min(bucket.left, bucket.real_left)
        if short > 0 and not always:
            return short / self._per_second
        bucket.left -= 1
        bucket.real_left -= 1
        if always:
            bucket.left, bucket.real_left = max(0.0, bucket.left), max(0.0, bucket.real_left)
        return 0.0
