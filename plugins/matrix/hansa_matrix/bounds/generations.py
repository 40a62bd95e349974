"""A cache of what was read with an await, into which nothing gets that was taken back meanwhile."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

#: Owners whose last revocation is remembered one by one; of the others it counts as just now.
_MAX_OWNERS = 10_000


class Generations(Generic[K, V]):
    """At most ``most`` values, each with an owner. ``began`` is asked before the store is read, and ``put``
    takes its answer: a value whose owner was revoked since is not kept. So a read that was in progress while
    a token was revoked cannot put it into the cache afterwards.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._now = 0
        self._floor = 0
        self._revoked: OrderedDict[str, int] = OrderedDict()
        self._values: OrderedDict[K, tuple[str, V]] = OrderedDict()
        self._of: dict[str, set[K]] = {}

    def began(self) -> int:
        """The generation of a read that begins now."""
        return self._now

    def get(self, key: K) -> V | None:
        """Returns the value that is kept under a key."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[1]

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def put(self, key: K, owner: str, value: V, began: int) -> bool:
        """Keep what was read; False if its owner was revoked since ``began``."""
        if self.is_revoked_since(owner, began):
            return False
        self._remove_key(key)
        self._values[key] = owner, value
        self._of.setdefault(owner, set()).add(key)
        if len(self._values) > self._most:
            self._remove_key(next(iter(self._values)))
        return True

    def is_revoked_since(self, owner: str, began: int) -> bool:
        """True if something of an owner was taken back since ``began``."""
        return self._revoked.get(owner, self._floor) > began

    def revoke_owner(self, owner: str) -> None:
        """Invalidates all values of an owner: they are read again."""
        self._now += 1
        self._revoked.pop(owner, None)
        self._revoked[owner] = self._now
        if len(self._revoked) > _MAX_OWNERS:
            _, self._floor = self._revoked.popitem(last=False)
        for key in list(self._of.get(owner, ())):
            self._remove_key(key)

    def drop(self, key: K) -> None:
        """Forget one value."""
        self._remove_key(key)

    def _remove_key(self, key: K) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            keys = self._of[found[0]]
            keys.discard(key)
            if not keys:
                del self._of[found[0]]
