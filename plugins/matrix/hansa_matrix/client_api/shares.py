"""Short-lived things that strangers may ask for: bounded in all and for each address, the newest of one
address in the place of its own oldest.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Generic, TypeVar

from hansa import Busy, Clock

T = TypeVar("T")


def address_group(address: str) -> str:
    """Whom an address counts as: its /24 (IPv4) or /64 (IPv6), which one person may have whole."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    bits = 24 if parsed.version == 4 else 64
    return str(ipaddress.ip_network((parsed, bits), strict=False))


class Shares(Generic[T]):
    """Values by name that end after ``seconds``: ``each`` for a group of addresses, ``most`` in all. Where
    all are taken the group with the most loses its oldest, and where nobody has two, newcomers wait.
    """

    def __init__(self, clock: Clock, *, most: int, each: int, seconds: float) -> None:
        self._clock = clock
        self._most, self._each, self._seconds = most, each, seconds
        self._values: OrderedDict[str, tuple[float, str, T]] = OrderedDict()
        self._of: dict[str, OrderedDict[str, None]] = {}

    def get(self, name: str) -> T | None:
        """A value that has not ended."""
        found = self._values.get(name)
        return found[2] if found is not None and found[0] >= self._clock.monotonic() else None

    def take(self, name: str) -> T | None:
        """A value that has not ended, which is gone afterwards."""
        found = self.get(name)
        self._drop(name)
        return found

    def put(self, name: str, address: str, value: T) -> None:
        """One more, or the same for longer. Raises ``Busy`` where there is no place for it."""
        group = self._values[name][1] if name in self._values else address_group(address)
        self._drop(name)
        self._expire()
        mine = self._of.get(group, ())
        if len(mine) >= self._each:
            self._drop(next(iter(mine)))
        elif len(self._values) >= self._most:
            fullest = max(self._of.values(), key=len)
            if len(fullest) < 2:
                raise Busy("too many begin at this moment", after=self._seconds / 10)
            self._drop(next(iter(fullest)))
        self._values[name] = self._clock.monotonic() + self._seconds, group, value
        self._of.setdefault(group, OrderedDict())[name] = None

    def __len__(self) -> int:
        return len(self._values)

    def _expire(self) -> None:
        now = self._clock.monotonic()
        while self._values and next(iter(self._values.values()))[0] < now:
            self._drop(next(iter(self._values)))

    def _drop(self, name: str) -> None:
        found = self._values.pop(name, None)
        if found is not None:
            names = self._of[found[1]]
            names.pop(name, None)
            if not names:
                del self._of[found[1]]
