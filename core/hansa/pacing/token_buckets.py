"""Token buckets: how much of something may be done at once, and how much a second after that."""

from __future__ import annotations

from collections import OrderedDict

from hansa.environment import Clock

#: Names that have at least half left, and names that have less, which are remembered apart.
MAX_NAMES = 10_000
#: Sums of fractions fall short by less than this, and no sleep is as short.
_CLOSE = 1e-6


class TokenBucket:
    """``burst`` tokens at most, of which ``rate`` come a second; full at the time ``now`` (seconds)."""

    __slots__ = ("at", "burst", "left", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.left = burst
        self.at = now

    def refill(self, now: float) -> None:
        """Add what came until a time. A time before the last one adds nothing."""
        if now > self.at:
            left = self.left + (now - self.at) * self.rate
            self.left = min(self.burst, left)
            self.at = now

    def wait(self, count: float = 1.0) -> float:
        """0.0 if ``count`` tokens are there, else the seconds from the last ``refill`` until they will be."""
        short = count - self.left
        return short / self.rate if short > _CLOSE else 0.0

    def take(self, count: float = 1.0) -> None:
        """Take ``count`` tokens, or all where there are fewer."""
        left = self.left - count
        self.left = max(0.0, left)


class TokenBuckets:
    """A bucket for each name; a rate of 0 allows everything.

    Of more than 10,000 names the one that asked least recently is forgotten, and starts again with a full
    bucket. Names that have used up half are remembered apart: invented names do not make the store forget
    used ones.
    """

    def __init__(self, clock: Clock, rate: float, burst: float) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._left: OrderedDict[str, TokenBucket] = OrderedDict()
        self._spent: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left) + len(self._spent)

    def take(self, name: str, count: float = 1.0) -> float:
        """Take ``count`` tokens: 0.0 if they are there, else the seconds until they will be."""
        if self._rate <= 0:
            return 0.0
        now = self._clock.monotonic()
        bucket = self._spent.pop(name, None) or self._left.pop(name, None)
        if bucket is None:
            bucket = TokenBucket(self._rate, self._burst, now)
        else:
            bucket.refill(now)
        wait = bucket.wait(count)
        if not wait:
            bucket.take(count)
        remembered = self._spent if bucket.left < self._burst / 2 else self._left
        remembered[name] = bucket
        if len(remembered) > MAX_NAMES:
            remembered.popitem(last=False)
        return wait

    def wait(self, name: str, count: float = 1.0) -> float:
        """As ``take``, without taking anything."""
        if self._rate <= 0:
            return 0.0
        bucket = self._left.get(name) or self._spent.get(name)
        if bucket is None:
            return 0.0 if count <= self._burst else (count - self._burst) / self._rate
        bucket.refill(self._clock.monotonic())
        return bucket.wait(count)
