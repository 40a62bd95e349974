"""A bounded mapping of what many peers say, in which the oldest entry of the peer with the most gives way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class FairShares(Generic[K, V]):
    """At most ``most`` entries in all. ``peer_of`` says by a key whose entry it is."""

    def __init__(self, most: int, peer_of: Callable[[K], str]) -> None:
        self._most = most
        self._peer_of = peer_of
        self._by_peer: dict[str, OrderedDict[K, V]] = {}
        self._count = 0
        #: Peers by how many entries they have: the one with the most is found without a look at all of them.
        self._by_size: dict[int, dict[str, None]] = {}
        self._largest = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[K]:
        for entries in list(self._by_peer.values()):
            yield from list(entries)

    def items(self) -> list[tuple[K, V]]:
        """All entries; those of one peer stand together, its oldest first."""
        return [pair for entries in self._by_peer.values() for pair in entries.items()]

    def get(self, key: K) -> V | None:
        """An entry."""
        entries = self._by_peer.get(self._peer_of(key))
        return entries.get(key) if entries is not None else None

    def pop(self, key: K) -> V | None:
        """Take an entry out."""
        peer = self._peer_of(key)
        entries = self._by_peer.get(peer)
        if entries is None or key not in entries:
            return None
        self._count -= 1
        found = entries.pop(key)
        self._on_share_changed(peer, len(entries) + 1, len(entries))
        if not entries:
            del self._by_peer[peer]
        return found

    def put(self, key: K, value: V) -> K | None:
        """An entry, the newest of its peer now; the key of the one that gave way for it."""
        self.pop(key)
        peer = self._peer_of(key)
        entries = self._by_peer.setdefault(peer, OrderedDict())
        entries[key] = value
        self._count += 1
        self._on_share_changed(peer, len(entries) - 1, len(entries))
        if self._count <= self._most:
            return None
        gone = next(iter(self._by_peer[next(iter(self._by_size[self._largest]))]))
        self.pop(gone)
        return gone

    def _on_share_changed(self, peer: str, before: int, now: int) -> None:
        if before:
            alike = self._by_size[before]
            del alike[peer]
            if not alike:
                del self._by_size[before]
        if now:
            self._by_size.setdefault(now, {})[peer] = None
        if now > self._largest or self._largest not in self._by_size:
            self._largest = now
