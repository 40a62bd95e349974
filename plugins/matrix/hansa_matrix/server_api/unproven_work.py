"""Work that is done for who has proven nothing yet: a small share for all, and a smaller one for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from hansa import Busy, Clock
from hansa.model.addresses import networks

from hansa_matrix.ratelimit import RateLimiter

#: Pieces of such work under way: in all, and for one /24 or /64. A /48 has twice as many, a /32 four times.
MAX_IN_ALL, MAX_EACH = 16, 2
#: Begun a second, and at once before that: in all, and for one /24 or /64.
_RATE, _BURST = 10.0, 400.0
_RATE_EACH, _BURST_EACH = 1.0, 105.0


class UnprovenWork:
    """One pool for all work before a proof: keys of unknown servers that claim to send a request, and keys
    that any caller asks about.
    """

    def __init__(self, clock: Clock) -> None:
        self._in_all = RateLimiter(clock, _RATE, _BURST)
        self._each = RateLimiter(clock, _RATE_EACH, _BURST_EACH)
        self._under_way: Counter[str] = Counter()
        self._in_work = 0

    @contextmanager
    def work(self, remote: str) -> Iterator[str]:
        """One piece of work for an address, whose neighbourhood this gives. Raises ``Busy`` where there is
        room for no more.
        """
        remote = remote or "nowhere"
        around = networks(remote)
        full = any(
            self._under_way.get(network, 0) >= MAX_EACH << wider for wider, network in enumerate(around)
        )
        if full or self._in_work >= MAX_IN_ALL:
            raise Busy("too many unknown servers ask at a time", after=5.0)
        wait = self._each.take_from(remote) or self._in_all.take("")
        if wait:
            raise Busy("too many unknown servers ask", after=max(wait, 1.0))
        self._in_work += 1
        self._under_way.update(around)
        try:
            yield around[0]
        finally:
            self._in_work -= 1
            for network in around:
                self._under_way[network] -= 1
                if not self._under_way[network]:
                    del self._under_way[network]
