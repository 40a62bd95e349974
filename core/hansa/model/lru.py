"""Caches of bounded size, of which what was used least recently is forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """At most ``max_entries`` entries. May be read from a thread."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def items(self) -> list[tuple[K, V]]:
        """All entries, from the one that is forgotten first."""
        return list(self._entries.items())

    def get(self, key: K) -> V | None:
        """An entry, which is the last to be forgotten now."""
        try:
            self._entries.move_to_end(key)
            return self._entries[key]
        except KeyError:
            return None

    def put(self, key: K, value: V) -> None:
        """A new entry, or another value of one. It is the last to be forgotten now."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def pop(self, key: K) -> V | None:
        """Take an entry out."""
        return self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()


class WeightedLruCache(LruCache[K, V]):
    """At most ``max_entries`` entries, and of their weights together at most ``max_weight``; the last entry
    stays whatever its weight. ``weigh`` says the weight of a value, and is asked once.
    """

    def __init__(self, max_entries: int, max_weight: int, weigh: Callable[[V], int]) -> None:
        super().__init__(max_entries)
        self._max_weight = max_weight
        self._weigh = weigh
        self._weights: dict[K, int] = {}
        #: The weight of all entries together.
        self.weight = 0

    def put(self, key: K, value: V) -> None:
        """A new entry, or another value of one. It is the last to be forgotten now."""
        self.pop(key)
        entries = self._entries
        entries[key] = value
        self._weights[key] = weight = self._weigh(value)
        self.weight += weight
        while len(entries) > 1 and (self.weight > self._max_weight or len(entries) > self._max_entries):
            self.weight -= self._weights.pop(entries.popitem(last=False)[0])

    def pop(self, key: K) -> V | None:
        """Take an entry out."""
        self.weight -= self._weights.pop(key, 0)
        return super().pop(key)

    def clear(self) -> None:
        """Forget all entries."""
        super().clear()
        self._weights.clear()
        self.weight = 0
