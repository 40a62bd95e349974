"""Short-lived things that strangers may ask for: bounded in all and for each address, the newest of one
address in the place of its own oldest.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from hansa import Busy, Clock
from hansa.model.addresses import neighbourhood, networks

T = TypeVar("T")


def address_group(address: str) -> str:
    """Returns the group that an address counts as: its /24 (IPv4) or /64 (IPv6), since one person may control
    all of it.
    """
    return neighbourhood(address)


class AddressShares(Generic[T]):
    """Values by name that end after ``seconds``: ``each`` for a group of addresses, ``most`` in all. Where
    all are taken the group with the most loses its oldest, an IPv6 /32 as one, since it has thousands of /64;
    where no group has two, newcomers wait.
    """

    def __init__(self, clock: Clock, *, most: int, each: int, seconds: float) -> None:
        self._clock = clock
        self._most, self._each, self._seconds = most, each, seconds
        self._values: OrderedDict[str, tuple[float, tuple[str, ...], T]] = OrderedDict()
        #: By the group, and by the widest network, of the address that has them.
        self._of: dict[str, OrderedDict[str, None]] = {}
        self._wide: dict[str, OrderedDict[str, None]] = {}

    def get(self, name: str) -> T | None:
        """A value that has not ended."""
        found = self._values.get(name)
        return found[2] if found is not None and found[0] >= self._clock.monotonic() else None

    def pop(self, name: str) -> T | None:
        """A value that has not ended, which is gone afterwards."""
        found = self.get(name)
        self._drop_value(name)
        return found

    def put(self, name: str, address: str, value: T) -> None:
        """One more, or the same for longer. Raises ``Busy`` where there is no place for it."""
        around = self._values[name][1] if name in self._values else networks(address)
        self._drop_value(name)
        self._drop_expired()
        mine = self._of.get(around[0], ())
        if len(mine) >= self._each:
            self._drop_value(next(iter(mine)))
        elif len(self._values) >= self._most:
            fullest = max(self._wide.values(), key=len)
            if len(fullest) < 2:
                raise Busy("too many begin at this moment", after=self._seconds / 10)
            self._drop_value(next(iter(fullest)))
        self._values[name] = self._clock.monotonic() + self._seconds, around, value
        self._of.setdefault(around[0], OrderedDict())[name] = None
        self._wide.setdefault(around[-1], OrderedDict())[name] = None

    def __len__(self) -> int:
        return len(self._values)

    def _drop_expired(self) -> None:
        now = self._clock.monotonic()
        while self._values and next(iter(self._values.values()))[0] < now:
            self._drop_value(next(iter(self._values)))

    def _drop_value(self, name: str) -> None:
        found = self._values.pop(name, None)
        if found is not None:
            for index, network in ((self._of, found[1][0]), (self._wide, found[1][-1])):
                names = index[network]
                names.pop(name, None)
                if not names:
                    del index[network]
