"""The waiting messages to local devices, by sender: no sender's messages take the place of all others.

A peer is another server, or a local user. Messages beyond a peer's share are not kept. Where a device has too
many, the newest message of the peer with the most there gives way, if that is more than the new message's
peer has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import orjson
from hansa import (
    Append,
    CompareAndSwap,
    Delete,
    NetworkContext,
    Remove,
    Row,
    Value,
    Write,
    scan_all,
)

_MIB = 1024 * 1024
#: Messages and bytes that wait for one device: of one peer, which may be a server that most people are of,
#: and in all.
MAX_MESSAGES_OF_PEER, MAX_BYTES_OF_PEER = 5000, 16 * _MIB
MAX_MESSAGES_OF_DEVICE, MAX_BYTES_OF_DEVICE = 10_000, 48 * _MIB
#: Bytes of one peer for all devices, and in all: where that is reached a peer has no more than its part of
#: it, and at least the least.
MAX_TOTAL_BYTES_OF_PEER, MAX_TOTAL_BYTES, GUARANTEED_BYTES = 512 * _MIB, 2048 * _MIB, _MIB
_BY_PEER = ("user_id", "device_id", "peer", "position")


class ToDeviceShares:
    """The total of each peer, in memory: two processes may exceed the limit by a little."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx
        self._totals: Counter[str] | None = None
        #: Bytes of all.
        self.in_all = 0

    async def bytes_by_peer(self) -> Counter[str]:
        """Bytes by peer."""
        if self._totals is None:
            await self.recount()
        return self._totals if self._totals is not None else Counter()

    async def recount(self) -> None:
        """Counts the waiting messages from the store."""
        found: Counter[str] = Counter()
        async for row in scan_all(self._ctx.store, "to_device_usage"):
            found[str(row.key[2])] += orjson.loads(row.body)[1]
        self._totals = found
        self.in_all = found.total()
        self._ctx.set_gauge("matrix_to_device_waiting_bytes", self.in_all)

    def apply_changes(self, changes: Counter[str]) -> None:
        """Changes are durable."""
        if self._totals is not None:
            for peer, size in changes.items():
                self._totals[peer] += size
                if self._totals[peer] <= 0:
                    del self._totals[peer]
            self.in_all = max(0, self.in_all + changes.total())
            self._ctx.set_gauge("matrix_to_device_waiting_bytes", self.in_all)

    def start_batch(self) -> Batch:
        """Returns the changes of one commit."""
        return Batch(self._ctx, self)


class Batch:
    """Messages of one commit. Its ``all_writes`` fail where another commit changed the same counts: then the
    batch is made again.
    """

    def __init__(self, ctx: NetworkContext, shares: ToDeviceShares) -> None:
        self._ctx = ctx
        self._shares = shares
        self._used: dict[tuple[str, str], dict[str, list[int]]] = {}
        self._sums: dict[tuple[str, str], list[int]] = {}
        self._rows: dict[tuple[str, str, str], bytes] = {}
        self._changed: set[tuple[str, str, str]] = set()
        #: By device and peer the position of the oldest message that gave way.
        self._evicted: dict[tuple[str, str, str], int] = {}
        self._writes: list[Write] = []
        self.changes: Counter[str] = Counter()
        #: Bytes of the messages that were added.
        self.added = 0

    async def _usage_of_device(self, user: str, device_id: str) -> dict[str, list[int]]:
        """``[messages, bytes]`` by peer, of one device."""
        known = self._used.get((user, device_id))
        if known is None:
            known = self._used[user, device_id] = {}
            async for row in scan_all(self._ctx.store, "to_device_usage", equal=(user, device_id)):
                peer = str(row.key[2])
                known[peer] = list(orjson.loads(row.body))
                self._rows[user, device_id, peer] = row.body
            messages, size = (sum(one[at] for one in known.values()) for at in (0, 1))
            self._sums[user, device_id] = [messages, size]
        return known

    def _add_usage(self, user: str, device_id: str, peer: str, messages: int, size: int) -> None:
        usage = self._used[user, device_id].setdefault(peer, [0, 0])
        for counted in (usage, self._sums[user, device_id]):
            counted[0], counted[1] = max(0, counted[0] + messages), max(0, counted[1] + size)
        self._changed.add((user, device_id, peer))
        self.changes[peer] += size

    async def add_message(self, user: str, device_id: str, peer: str, body: bytes) -> bool:
        """A message for a device; False if its peer has too much waiting."""
        used = await self._usage_of_device(user, device_id)
        messages, size = used.get(peer, (0, 0))
        if messages >= MAX_MESSAGES_OF_PEER or size + len(body) > MAX_BYTES_OF_PEER:
            return False
        totals = await self._shares.bytes_by_peer()
        of_peer = totals[peer] + self.changes[peer] + len(body)
        part = max(GUARANTEED_BYTES, MAX_TOTAL_BYTES // max(1, len(totals)))
        full = self._shares.in_all + self.changes.total() + len(body) > MAX_TOTAL_BYTES
        if of_peer > MAX_TOTAL_BYTES_OF_PEER or (full and of_peer > part):
            return False
        whole = self._sums[user, device_id]
        while whole[0] >= MAX_MESSAGES_OF_DEVICE or whole[1] + len(body) > MAX_BYTES_OF_DEVICE:
            greediest = max(used, key=lambda one: used[one][1])
            if used[greediest][1] <= size + len(body) or not await self._evict_newest(
                user, device_id, greediest
            ):
                return False
        self._add_usage(user, device_id, peer, 1, len(body))
        fields: dict[str, Value] = {
            "user_id": user, "device_id": device_id, "peer": peer, "ts": self._ctx.clock.now()
        }  # fmt: skip
        self._writes.append(Append("to_device", body, fields))
        self.added += len(body)
        return True

    async def _evict_newest(self, user: str, device_id: str, peer: str) -> bool:
        """The newest message of a peer goes; whether there was one in the store."""
        key = (user, device_id, peer)
        rows = await self._ctx.store.scan(
            "to_device", index=_BY_PEER, equal=key, after=self._evicted.get(key), limit=1, reverse=True
        )
        if not rows:
            return False
        self._evicted[key] = rows[0].position
        self._ctx.count("matrix_to_device_discarded", reason="evicted")
        await self.remove_messages(rows)
        return True

    async def remove_messages(self, rows: Iterable[Row]) -> None:
        """Messages that are delivered, or gone."""
        for row in rows:
            user, device_id, peer = (str(row.fields[name] or "") for name in ("user_id", "device_id", "peer"))
            self._writes.append(Delete("to_device", row.key))
            if peer:
                await self._usage_of_device(user, device_id)
                self._add_usage(user, device_id, peer, -1, -len(row.body))

    def all_writes(self) -> list[Write]:
        """All of it, with what the peers have then."""
        return [*self._writes, *(self._usage_write(key) for key in sorted(self._changed))]

    def _usage_write(self, key: tuple[str, str, str]) -> Write:
        user, device_id, peer = key
        usage: Any = self._used[user, device_id][peer]
        if not usage[0] and key in self._rows:
            return Remove("to_device_usage", key, self._rows[key])
        return CompareAndSwap("to_device_usage", key, self._rows.get(key), orjson.dumps(usage))
