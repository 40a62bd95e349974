"""The keys that links to files are signed with: in the store, replaced as links end, revoked at once."""

from __future__ import annotations

from collections.abc import Mapping

from hansa.environment import Clock, Random
from hansa.store.base import Conflict, Insert, Remove, Row, ScopedStore, Write
from hansa.store.conflict_retry import again_on_conflict

_KEY_BYTES = 32
_MAX_ATTEMPTS = 5
_NAMES = "files"
#: Numbers that a key can have; one that is replaced every day takes 179 years.
_MAX_NUMBER = 0xFFFF


class LinkKeys:
    """Keys by their number. The newest signs; an older one verifies until the last of its links has ended."""

    def __init__(self, store: ScopedStore, clock: Clock, random: Random, lifetime_s: int) -> None:
        """``lifetime_s`` is that of a link, and the time for which a key signs."""
        self._store = store
        self._clock = clock
        self._random = random
        self._lifetime_ms = lifetime_s * 1000
        self._keys: dict[int, bytes] = {}
        self.newest = 0
        #: The key of the names of files, which stand in the history of networks: it stays for ever.
        self.name_key = b""

    @property
    def keys(self) -> Mapping[int, bytes]:
        """Every key that still verifies."""
        return self._keys

    async def load(self) -> None:
        """Reads the keys, makes a new one where the newest is too old, removes those without living links."""
        await self._update_keys(revoke=False)
        if not self.name_key:
            await again_on_conflict(self._load_name_key)

    async def _load_name_key(self) -> None:
        row = await self._store.get("name_key", (_NAMES,))
        key = row.body if row is not None else self._random.bytes(_KEY_BYTES)
        if row is None:
            await self._store.commit([Insert("name_key", (_NAMES,), key)])
        self.name_key = key

    async def rotate(self) -> None:
        """Makes a new key and removes all others: every link that was given out ends."""
        await self._update_keys(revoke=True)

    async def _update_keys(self, *, revoke: bool) -> None:
        for attempt in range(_MAX_ATTEMPTS):
            rows = await self._store.scan("link_key", limit=100)
            made, writes = self._new_key(rows, revoke=revoke)
            ended = [row for row in rows if revoke or self._is_ended(row)]
            writes += [Remove("link_key", row.key) for row in ended]
            try:
                if writes:
                    await self._store.commit(writes)
            except Conflict:
                if attempt == _MAX_ATTEMPTS - 1:
                    raise
                continue
            kept = {int(row.key[0]): row.body for row in rows if row not in ended}
            self._keys = kept | made
            self.newest = max(self._keys)
            return

    def _new_key(self, rows: list[Row], *, revoke: bool) -> tuple[dict[int, bytes], list[Write]]:
        now, last = self._clock.now(), rows[-1] if rows else None
        if last is not None and not revoke and now - int(last.fields["made"] or 0) < self._lifetime_ms:
            return {}, []
        number = min(_MAX_NUMBER, int(last.key[0]) + 1) if last is not None else 1
        key = self._random.bytes(_KEY_BYTES)
        return {number: key}, [Insert("link_key", (number,), key, {"made": now})]

    def _is_ended(self, row: Row) -> bool:
        return self._clock.now() - int(row.fields["made"] or 0) > 2 * self._lifetime_ms
