"""Rows that were written before their collection had all its fields: what they lack is added when the network
starts, and what they take is counted, so that every bound holds for them too.

Such a row is found by an index whose field is None in it. A row and its count are one commit, and a row that
is complete is not found again: a start that is cut off goes on at the next one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from hansa import CompareAndSwap, Conflict, Insert, NetworkContext, Row, Value, Whole, Write, pages

from hansa_matrix.media.quotas import COPIES
from hansa_matrix.proto import ids
from hansa_matrix.proto.state_content import membership_of

_PAGE_SIZE = 500
#: Lists of devices are large.
_LISTS = 40
_TRIES = 8

#: The counters that a row adds to: ``(collection, key) -> [number, bytes]``.
_Counts = dict[tuple[str, tuple[str, ...]], list[int]]
_Completed = Callable[[Row, _Counts], CompareAndSwap]


class OldRows:
    """The rows of one network."""

    def __init__(self, ctx: NetworkContext, server: str) -> None:
        self._ctx = ctx
        self._server = server

    async def complete(self) -> int:
        """Complete all of them; how many there were. Raises StoreError."""
        steps: Sequence[tuple[str, tuple[str, ...], _Completed]] = (
            ("media", ("remote", "used"), self._complete_file),
            ("to_device", ("ts",), self._complete_message),
            ("invite", ("at",), self._complete_invite),
            ("report", ("ts",), self._complete_report),
            ("left", ("at",), self._complete_ended_invite),
        )
        completed = 0
        for collection, index, step in steps:
            while rows := await self._ctx.store.scan(
                collection, index=index, equal=(None,), limit=_PAGE_SIZE
            ):
                await self._commit_completed(rows, step)
                completed += len(rows)
        completed += await self._count_device_lists()
        if completed:
            self._ctx.log.info("%d rows of an earlier version were completed", completed)
        return completed

    async def _commit_completed(self, rows: Sequence[Row], step: _Completed) -> None:
        counts: _Counts = defaultdict(lambda: [0, 0])
        writes: list[Write] = [step(row, counts) for row in rows]
        for attempt in range(_TRIES):
            usage = [await self._usage_write(*where, more) for where, more in sorted(counts.items())]
            try:
                await self._ctx.store.commit([*writes, *usage])
            except Conflict:
                if attempt == _TRIES - 1:
                    raise
                continue
            return

    async def _usage_write(
        self, collection: str, key: tuple[str, ...], more: Sequence[int]
    ) -> CompareAndSwap:
        row = await self._ctx.store.get(collection, key)
        known = orjson.loads(row.body) if row is not None else [0, 0]
        body = orjson.dumps([known[0] + more[0], known[1] + more[1]])
        return CompareAndSwap(collection, key, row.body if row is not None else None, body)

    def _complete_file(self, row: Row, counts: _Counts) -> CompareAndSwap:
        """Converts a file, which counts for its server's copies; the user who uploaded a local one is not
        known.
        """
        kept, server = orjson.loads(row.body), str(row.key[0])
        remote = server != self._server
        owner = server if remote else ""
        for name in (owner, COPIES) if remote else (owner,):
            count = counts["media_usage", (name,)]
            count[0], count[1] = count[0] + int(kept["size"]), count[1] + 1
        fields: Mapping[str, Value] = {**row.fields, "remote": int(remote)}
        return CompareAndSwap("media", row.key, row.body, orjson.dumps({**kept, "owner": owner}), fields)

    def _complete_message(self, row: Row, counts: _Counts) -> CompareAndSwap:
        """A message that waits for a device, from now on for as long as a new one."""
        sender = str(orjson.loads(row.body)["sender"])
        server = ids.domain_of(sender)
        peer = sender if server == self._server else server
        key = str(row.fields["user_id"]), str(row.fields["device_id"]), peer
        count = counts["to_device_usage", key]
        count[0], count[1] = count[0] + 1, count[1] + len(row.body)
        fields: Mapping[str, Value] = {**row.fields, "peer": peer, "ts": self._ctx.clock.now()}
        return CompareAndSwap("to_device", row.key, row.body, row.body, fields)

    def _complete_invite(self, row: Row, _counts: _Counts) -> CompareAndSwap:
        """An invite or a knock, from now on for as long as a new one."""
        body: dict[str, Any] = orjson.loads(row.body)
        event = body["event"]
        invited = (membership_of(event["content"]) or "invite") == "invite"
        origin = body.get("origin") or ids.domain_of(event["sender"])
        fields: Mapping[str, Value] = {"peer": origin if invited else "", "at": self._ctx.clock.now()}
        return CompareAndSwap("invite", row.key, row.body, row.body, fields)

    @staticmethod
    def _complete_report(row: Row, _counts: _Counts) -> CompareAndSwap:
        told = orjson.loads(row.body)
        return CompareAndSwap("report", row.key, row.body, row.body, {"by": told["by"], "ts": told["at"]})

    def _complete_ended_invite(self, row: Row, _counts: _Counts) -> CompareAndSwap:
        """The end of an invite, from now on for as long as a new one."""
        return CompareAndSwap("left", row.key, row.body, row.body, {"at": self._ctx.clock.now()})

    async def _count_device_lists(self) -> int:
        """Count the lists of devices of others where no list was ever counted."""
        if await self._ctx.store.scan("remote_devices_usage", limit=1):
            return 0
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        async for rows in pages(self._ctx.store, "remote_devices", size=_LISTS):
            for row in rows:
                count = counts[ids.domain_of(str(row.key[0]))]
                count[0], count[1] = count[0] + 1, count[1] + len(row.body)
        if counts:  # whether there is one says whether all of them are there
            usage = [Insert("remote_devices_usage", (s,), orjson.dumps(c)) for s, c in sorted(counts.items())]
            await self._ctx.store.commit(Whole(usage))
        return sum(lists for lists, _ in counts.values())
