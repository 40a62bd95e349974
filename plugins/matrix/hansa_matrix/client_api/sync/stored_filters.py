"""Filters that clients keep here. SPEC: client-server API, "Filtering".

A filter that a client syncs with is noted once an hour, so that it is never the one that goes for a new one.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any

import orjson
from hansa import Busy, CompareAndSwap, Conflict, Delete, NetworkContext, Put, Row, Write

from hansa_matrix.errors import matrix_error

#: Filters of one person, and bytes of one.
MAX_FILTERS_OF_USER, MAX_FILTER_BYTES = 200, 16 * 1024
_LAST_USED_STEP_MS, _IN_USE_MS = 3_600_000, 2 * 3_600_000


class StoredFilters:
    """By person and name; ``at`` is when one was made or used last (ms)."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx

    async def add_filter(self, user: str, filter_: Any) -> str:
        """The name of a filter; the same filter has the same. The one that nobody used for longest gives way
        where there are too many. Raises ``Busy`` where all of them are in use, and the error answer of one
        that is too large.
        """
        body = orjson.dumps(filter_, option=orjson.OPT_SORT_KEYS)
        if len(body) > MAX_FILTER_BYTES:
            raise matrix_error(413, "M_TOO_LARGE", f"a filter has at most {MAX_FILTER_BYTES} bytes")
        name, now = hashlib.sha256(body).hexdigest()[:16], self._ctx.clock.now()
        rows = await self._ctx.store.scan("filter", equal=(user,), limit=2 * MAX_FILTERS_OF_USER)
        others = sorted((row for row in rows if row.key[1] != name), key=_last_used)
        gone = others[: max(0, len(others) - MAX_FILTERS_OF_USER + 1)]
        if gone and _last_used(gone[-1]) > now - _IN_USE_MS:
            self._ctx.count("matrix_client_limited", what="filters")
            raise Busy(f"{MAX_FILTERS_OF_USER} of your filters are in use", after=600.0)
        writes: list[Write] = [Delete("filter", row.key) for row in gone]
        writes.append(Put("filter", (user, name), body, {"at": now}))
        await self._ctx.store.commit(writes)
        return name

    async def get(self, user: str, name: str) -> bytes | None:
        """A filter as JSON; None if there is none."""
        row = await self._ctx.store.get("filter", (user, name))
        if row is None:
            return None
        now = self._ctx.clock.now()
        if now - _last_used(row) > _LAST_USED_STEP_MS:
            noted = CompareAndSwap("filter", row.key, row.body, row.body, {"at": now})
            with suppress(Conflict):  # it is gone, which the next request is told
                await self._ctx.store.commit([noted], durability="lazy")
        return row.body


def _last_used(row: Row) -> int:
    return int(row.fields["at"] or 0)
