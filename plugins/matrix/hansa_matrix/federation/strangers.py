"""Work that is done for who has proven nothing yet: a small share for all, and a smaller one for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hansa import Busy, Clock
from hansa.pure.addresses import neighbourhood

from hansa_matrix.federation.allowance import Allowance

#: Pieces of such work under way: in all, and for one /24 or /64.
MOST, MOST_EACH = 16, 2
#: Begun a second, and at once before that: in all, and for one /24 or /64.
_RATE, _BURST = 10.0, 400.0
_RATE_EACH, _BURST_EACH = 1.0, 105.0


class Strangers:
    """One pool for everything of the kind: keys of unknown servers that claim to ask us, and those that
    anybody asks us about.
    """

    def __init__(self, clock: Clock) -> None:
        self._in_all = Allowance(clock, _RATE, _BURST)
        self._each = Allowance(clock, _RATE_EACH, _BURST_EACH)
        self._under_way: dict[str, int] = {}

    @contextmanager
    def work(self, remote: str) -> Iterator[str]:
        """One piece of work for an address, whose neighbourhood this gives. Raises ``Busy`` where there is
        room for no more.
        """
        group = neighbourhood(remote) or "nowhere"
        mine = self._under_way.get(group, 0)
        if mine >= MOST_EACH or sum(self._under_way.values()) >= MOST:
            raise Busy("too many unknown servers ask at a time", after=5.0)
        wait = self._each.take(group) or self._in_all.take("")
        if wait:
            raise Busy("too many unknown servers ask", after=max(wait, 1.0))
        self._under_way[group] = mine + 1
        try:
            yield group
        finally:
            left = self._under_way.pop(group) - 1
            if left:
                self._under_way[group] = left
