"""Keeps only the last of rows that one user or peer could add without end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from hansa import Delete, NetworkContext, Value, Write

_PAGE_SIZE = 1000


async def oldest_over(
    ctx: NetworkContext, collection: str, order: str, most: int, equal: Mapping[str, Value]
) -> list[Write]:
    """The writes that leave at most ``most`` rows of those with some fields, without the first by ``order``;
    a thousand at a time. The collection has an index of these fields and the order.
    """
    over = await ctx.store.count(collection, equal=equal) - most
    if over <= 0:
        return []
    rows = await ctx.store.scan(
        collection, index=(*equal, order), equal=list(equal.values()), limit=min(over, _PAGE_SIZE)
    )
    ctx.count("matrix_rows_trimmed", collection=collection)
    return [Delete(collection, row.key) for row in rows]


class TrimmedRows:
    """Rows by which repeats of a server are known: counted now and then, as counting is not for nothing."""

    def __init__(self, ctx: NetworkContext, collection: str, most: int, every: int) -> None:
        self._ctx = ctx
        self._collection = collection
        self.most = most
        self.every = every
        self._more: Counter[str] = Counter()

    async def added(self, origin: str, count: int) -> None:
        """So many rows of a server are more."""
        self._more[origin] += count
        if self._more[origin] < self.every:
            return
        del self._more[origin]
        while gone := await oldest_over(self._ctx, self._collection, "ts", self.most, {"origin": origin}):
            await self._ctx.store.commit(gone)
