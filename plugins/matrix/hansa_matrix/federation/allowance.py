"""How often somebody may do something: a bucket of tokens per name, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict

from hansa import Clock

_MOST = 10_000


class Allowance:
    """``burst`` at once and ``rate`` a second after that, for each name; a rate of 0 allows everything.

    Of more than 10,000 names the one that asked least recently is forgotten, and starts anew.
    """

    def __init__(self, clock: Clock, rate: float, burst: float) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, count: float = 1.0) -> float:
        """Take ``count`` tokens: 0.0 if they are there, else the seconds until they will be."""
        if self._rate <= 0:
            return 0.0
        now = self._clock.monotonic()
        left, at = self._left.pop(name, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        wait = 0.0 if left >= count else (count - left) / self._rate
        self._left[name] = (left if wait else left - count, now)
        if len(self._left) > _MOST:
            self._left.popitem(last=False)
        return wait
