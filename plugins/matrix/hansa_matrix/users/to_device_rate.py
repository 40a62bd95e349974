"""How fast messages to devices may come: a bucket of messages and one of bytes for each person and server."""

from __future__ import annotations

from dataclasses import dataclass

from hansa import Clock

from hansa_matrix.ratelimit import RateLimiter


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRate:
    """Messages and bytes at once, and a second after that. A message counts for each device that gets it."""

    messages: int
    messages_a_second: float
    size: int
    size_a_second: float


#: Of one person: what is over it is refused to people here, and dropped of people elsewhere.
USER_RATE = BucketRate(
    messages=5000, messages_a_second=20.0, size=16 * 1024 * 1024, size_a_second=256.0 * 1024
)
#: Of all people of one server together, which is told to send it again later.
SERVER_RATE = BucketRate(
    messages=20_000, messages_a_second=200.0, size=64 * 1024 * 1024, size_a_second=2.0 * 1024 * 1024
)


class ToDeviceRate:
    """Of each name, at a rate."""

    def __init__(self, clock: Clock, rate: BucketRate) -> None:
        self._rate = rate
        self._messages = RateLimiter(clock, rate.messages_a_second, rate.messages)
        self._bytes = RateLimiter(clock, rate.size_a_second, rate.size)

    def take(self, name: str, messages: int, size: int) -> float:
        """Seconds until so much may come, 0.0 if it may now. More than may come at once has to wait until
        nothing came for long enough.
        """
        wait = self._messages.take(name, min(messages, self._rate.messages))
        wait = wait or self._bytes.take(name, min(size, self._rate.size))
        return max(1.0, wait) if wait else 0.0
