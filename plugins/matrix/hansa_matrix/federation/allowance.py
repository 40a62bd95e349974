"""How often somebody may do something: a bucket of tokens per name, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict

from hansa import Clock
from hansa.pure.addresses import networks

#: Names that have at least half left, and names that have less, which are remembered apart.
_MOST = 10_000


class Allowance:
    """``burst`` at once and ``rate`` a second after that, for each name; a rate of 0 allows everything.

    Of more than 10,000 names the one that asked least recently is forgotten, and starts anew. Names that have
    used up half are remembered apart: inventing names makes nobody's used one forgotten.
    """

    def __init__(self, clock: Clock, rate: float, burst: float) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left) + len(self._spent)

    def _now(self, name: str, now: float) -> float:
        """What a name has left."""
        left, at = self._left.get(name) or self._spent.get(name) or (self._burst, now)
        return min(self._burst, left + (now - at) * self._rate)

    def take(self, name: str, count: float = 1.0) -> float:
        """Take ``count`` tokens: 0.0 if they are there, else the seconds until they will be."""
        if self._rate <= 0:
            return 0.0
        now = self._clock.monotonic()
        left = self._now(name, now)
        wait = 0.0 if left >= count else (count - left) / self._rate
        left = left if wait else left - count
        self._left.pop(name, None)
        self._spent.pop(name, None)
        kept = self._spent if left < self._burst / 2 else self._left
        kept[name] = (left, now)
        if len(kept) > _MOST:
            kept.popitem(last=False)
        return wait

    def take_from(self, address: str) -> float:
        """Take one token of an address: of its /24, or with IPv6 of its /64, half a one of its /48 and a
        quarter of its /32. Takes nothing where one of them has too few.
        """
        if self._rate <= 0:
            return 0.0
        now = self._clock.monotonic()
        counts = [(network, 1.0 / (1 << wider)) for wider, network in enumerate(networks(address))]
        for network, count in counts:
            left = self._now(network, now)
            if left < count:
                return (count - left) / self._rate
        for network, count in counts:
            self.take(network, count)
        return 0.0
