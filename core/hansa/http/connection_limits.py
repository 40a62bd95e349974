"""Limits on incoming connections per address, and the choice of the connection that is closed when there are
too many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from hansa.http.unread_responses import UnreadResponses
from hansa.model.addresses import network_share, networks


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Connections in all, from one address, and from one group of neighbours (IPv4 /24, IPv6 /64). An IPv6
    /48 may have twice as many as a /64, a /32 four times as many, and none more than half of all.
    """

    total: int = 4096
    per_address: int = 256
    per_group: int = 512

    def within(self, total: int) -> ConnectionLimits:
        """The same for fewer connections in all: no group has more than half of them."""
        total = max(16, min(self.total, total))
        group = max(8, min(self.per_group, total // 2))
        return ConnectionLimits(total=total, per_address=min(self.per_address, group), per_group=group)

    def of_network(self, wider: int) -> int:
        """Connections of the ``wider``-th of the ``networks`` of an address, from 0."""
        return network_share(self.per_group, wider, self.total)


class LimitedConnection(Protocol):
    """A connection, as far as it can be let go."""

    def idle(self) -> bool:
        """True if no request of it is in progress."""
        ...

    def heard(self) -> bool:
        """True if it ever sent a whole request."""
        ...

    def abort(self) -> None:
        """Close it now, whatever it waits for."""
        ...


@dataclass(slots=True, eq=False)
class ConnectionEntry:
    """One connection that was let in. ``held`` is what there is to close. ``trusted`` is a proxy's: it counts
    in all and against no share.
    """

    address: str
    networks: tuple[str, ...]
    trusted: bool = False
    held: LimitedConnection | None = None
    gone: bool = False

    def hold(self, connection: LimitedConnection) -> None:
        """Take what there is to close from now on: the handshake first, then the protocol."""
        self.held = connection

    @property
    def group(self) -> str:
        """The neighbourhood that the connection counts against."""
        return self.networks[0]


class _Ranking:
    """Groups by how many connections they have; the largest is known at once."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._by_size: dict[int, dict[str, None]] = {}
        self._top = 0

    def size(self, name: str) -> int:
        return self._sizes.get(name, 0)

    def change(self, name: str, by: int) -> None:
        """``by`` is 1 or -1."""
        before = self._sizes.get(name, 0)
        after = before + by
        if before:
            same = self._by_size[before]
            del same[name]
            if not same:
                del self._by_size[before]
        if after:
            self._sizes[name] = after
            self._by_size.setdefault(after, {})[name] = None
        else:
            del self._sizes[name]
        self._top = max(self._top, after)
        while self._top and self._top not in self._by_size:
            self._top -= 1

    def largest(self) -> str | None:
        return next(iter(self._by_size[self._top])) if self._top else None


class ConnectionLimiter:
    """Lets connections in. Where a share is used up, the one that has been idle longest in it makes room, and
    a newcomer is refused only where all are busy. So one address can use up what is its own, and no more.
    """

    def __init__(self, limits: ConnectionLimits, count: Callable[..., None]) -> None:
        self.limits = limits
        self._count = count
        self._all = 0
        self._trusted: dict[ConnectionEntry, None] = {}
        self._groups = _Ranking()
        self._wider = _Ranking()
        self._addresses = _Ranking()
        self._members: dict[str, dict[ConnectionEntry, None]] = {}
        #: The bytes of answers that are held for connections that do not read them.
        self.untaken = UnreadResponses()

    def measures(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Gauges: connections, and those of the largest group."""
        yield "http_connections", {}, self._all
        largest = self._groups.largest()
        yield "http_connections_largest_group", {}, self._groups.size(largest) if largest else 0
        yield "http_untaken_bytes", {}, self.untaken.total

    def enter(self, address: str, *, trusted: bool = False) -> ConnectionEntry | None:
        """A place for a connection from an address; None if it has to be refused."""
        entry = ConnectionEntry(address, networks(address), trusted)
        if not trusted:
            if self._addresses.size(address) >= self.limits.per_address and not self._relieve_group(
                entry.group, address
            ):
                self._count_refusal("address")
                return None
            for wider, network in enumerate(entry.networks):
                if self._network_size(network) >= self.limits.of_network(wider) and not self._relieve_group(
                    network
                ):
                    self._count_refusal("group" if not wider else "network")
                    return None
        if self._all >= self.limits.total and not self.relieve():
            self._count_refusal("all")
            return None
        self._all += 1
        if trusted:
            self._trusted[entry] = None
        else:
            self._count_entry(entry, 1)
            for network in entry.networks:
                self._members.setdefault(network, {})[entry] = None
        return entry

    def _network_size(self, network: str) -> int:
        return len(self._members.get(network, ()))

    def _count_entry(self, entry: ConnectionEntry, by: int) -> None:
        self._addresses.change(entry.address, by)
        self._groups.change(entry.group, by)
        for network in entry.networks[1:]:
            self._wider.change(network, by)

    def leave(self, entry: ConnectionEntry) -> None:
        """The connection is closed, or being closed."""
        if entry.gone:
            return
        entry.gone = True
        self._all -= 1
        if entry.trusted:
            del self._trusted[entry]
            return
        self._count_entry(entry, -1)
        for network in entry.networks:
            members = self._members[network]
            del members[entry]
            if not members:
                del self._members[network]

    def relieve(self) -> bool:
        """Let one connection of the largest group go, as places or descriptors have run out. A wide network
        counts as the largest where it has twice as many as any group.
        """
        largest, wide = self._groups.largest(), self._wider.largest()
        if largest is None:
            return False
        if wide is not None and self._wider.size(wide) >= 2 * self._groups.size(largest):
            return self._relieve_group(wide) or self._relieve_group(largest)
        return self._relieve_group(largest)

    def _relieve_group(self, group: str, address: str = "") -> bool:
        """Let one idle connection of a group go: one that never asked anything before others, the oldest
        first.
        """
        chosen = None
        for entry in self._members.get(group, ()):
            held = entry.held
            if held is None or (address and entry.address != address) or not held.idle():
                continue
            if not held.heard():
                chosen = entry
                break
            chosen = chosen or entry
        if chosen is None or chosen.held is None:
            return False
        self._count("http_let_go")
        self.leave(chosen)
        chosen.held.abort()
        return True

    def _count_refusal(self, share: str) -> None:
        self._count("http_turned_away", share=share)


class RequestShares:
    """Requests under way that proxies brought, by whose they are: a connection of a proxy is everybody's."""

    def __init__(self, limits: ConnectionLimits, count: Callable[..., None]) -> None:
        self._limits = limits
        self._count = count
        self._addresses: Counter[str] = Counter()
        self._networks: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """False where the address or a network of it has too many under way."""
        around = networks(address)
        if self._addresses[address] >= self._limits.per_address or any(
            self._networks[network] >= self._limits.of_network(wider) for wider, network in enumerate(around)
        ):
            self._count("http_turned_away", share="forwarded")
            return False
        self._addresses[address] += 1
        self._networks.update(around)
        return True

    def leave(self, address: str) -> None:
        """A request that entered is over."""
        charged = [(self._addresses, address), *((self._networks, one) for one in networks(address))]
        for counter, name in charged:
            counter[name] -= 1
            if not counter[name]:
                del counter[name]
