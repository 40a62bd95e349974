"""What is kept for a time only, removed when it is over."""

from __future__ import annotations

import asyncio

from hansa import Delete, NetworkContext

_EVERY = 3600.0
#: A transaction may come again for a day (ms).
_TXN_FOR = 86_400_000
_PAGE = 500


async def sweep(ctx: NetworkContext) -> None:
    """Runs with the network."""
    while True:
        await swept(ctx)
        await asyncio.sleep(_EVERY)


async def swept(ctx: NetworkContext) -> None:
    """Once: the originals of redacted events, the answers to transactions of yesterday."""
    now = ctx.clock.now()
    for collection, index, upto in (("original", "until", now), ("txn", "ts", now - _TXN_FOR)):
        while rows := await ctx.store.scan(collection, index=(index,), upto=upto, limit=_PAGE):
            await ctx.store.commit([Delete(collection, row.key) for row in rows])
