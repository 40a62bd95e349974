"""How much one sender may do: a token bucket each, in bounded memory.

Late events were sent over a longer time than they take to arrive: they have a bucket of their own, which runs
by the times that their sender claims. These never run backwards and reach back a day at most. A third bucket,
ten times as large, limits them as well; it runs by this server's clock, and everything counts in it: claiming
old times gains ten bursts, once.
"""

from __future__ import annotations

from dataclasses import dataclass

from hansa import Clock, LruCache, TokenBucket

from hansa_governance.config import RateConfig

_SENDERS = 10_000
#: The most that a claimed time is believed to lie back, in seconds.
_LATEST = 86_400.0
#: The size of the bucket by our clock, in those of the sender's own.
_LARGER = 10


#: Events with a time older than this (seconds) are late; clocks differ, and events travel.
_LATE = 30.0


@dataclass(slots=True)
class _Sender:
    live: TokenBucket
    late: TokenBucket
    whole: TokenBucket


class SenderRates:
    """``take`` one token of a sender's bucket."""

    def __init__(self, rate: RateConfig, clock: Clock, *, times: int = 1) -> None:
        self._most = float(rate.events * times)
        self._per_second = rate.events * times / rate.seconds
        self._clock = clock
        self._senders: LruCache[str, _Sender] = LruCache(_SENDERS)

    def take(self, sender: str, ts: int = 0, *, always: bool = False) -> float:
        """0 if the sender may do one thing more, else the seconds until they may. ``ts`` is when they say
        that they did it (ms), 0 for now. ``always``: it cannot be refused, and counts.
        """
        now = self._clock.monotonic()
        behind = (self._clock.now() - ts) / 1000 if ts else 0.0
        then = now - min(behind, _LATEST) if behind > _LATE else now
        known = self._senders.get(sender)
        if known is None:
            known = self._new_sender(now, then)
            self._senders.put(sender, known)
        known.whole.refill(now)
        asked = [known.live]
        if then < now:
            asked = [known.late, known.whole]
        asked[0].refill(then)
        wait = max(bucket.wait() for bucket in asked)
        if wait and not always:
            return wait
        asked[0].take()
        known.whole.take()
        return 0.0

    def _new_sender(self, now: float, then: float) -> _Sender:
        rate, most = self._per_second, self._most
        return _Sender(
            TokenBucket(rate, most, now),
            TokenBucket(rate, most, min(then, now - _LATEST)),
            TokenBucket(rate, most * _LARGER, now),
        )
