"""Rows that expire, and the task that removes them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from hansa import Delete, NetworkContext, StoreFault

_EVERY = 3600.0
#: A transaction, or a message to a device, may come again for a day, or a week after an outage (ms).
_TXN_TTL_S, _SEEN_TTL_S = 86_400_000, 7 * 86_400_000
_REPORTS_TTL_S = 365 * 86_400_000
_PAGE_SIZE = 500
#: Collections that other servers, or local users, can fill: their rows are counted for the metrics.
COUNTED = (
    "access_token",
    "account",
    "account_data",
    "cross_signing_key",
    "destination",
    "device",
    "fallback_key",
    "filter",
    "invite",
    "key",
    "key_backup",
    "key_backup_key",
    "key_document",
    "last_seen",
    "left",
    "media",
    "media_going",
    "media_reserved",
    "media_usage",
    "one_time_key",
    "openid",
    "profile",
    "published",
    "receipt",
    "recipients",
    "redaction",
    "remote_devices",
    "report",
    "room_alias",
    "staged",
    "to_device",
    "to_device_seen",
    "txn",
    "vouched",
)


class ExpiringRows(Protocol):
    """A part that keeps something for a time only."""

    async def sweep(self) -> None:
        """Once: let go of what is over."""
        ...


async def run_retention(ctx: NetworkContext, parts: Sequence[ExpiringRows]) -> None:
    """Runs with the network."""
    while True:
        try:
            await purge_expired(ctx)
            for part in parts:
                await part.sweep()
        except StoreFault as fault:  # what is over stays until the next time
            ctx.log.warning("what is over was not removed: %s", fault)
        await asyncio.sleep(_EVERY)


async def purge_expired(ctx: NetworkContext) -> None:
    """Once: the originals of redacted events, and by what repeats are known."""
    now = ctx.clock.now()
    for collection, index, upto in (
        ("original", "until", now),
        ("openid", "until", now),
        ("media_reserved", "until", now),
        ("to_device_seen", "ts", now - _SEEN_TTL_S),
        ("report", "ts", now - _REPORTS_TTL_S),
    ):
        while rows := await ctx.store.scan(collection, index=(index,), upto=upto, limit=_PAGE_SIZE):
            await ctx.store.commit([Delete(collection, row.key) for row in rows])
    await _purge_transactions(ctx, now - _TXN_TTL_S)
    for collection in COUNTED:
        ctx.set_gauge("matrix_stored_rows", await ctx.store.count(collection), collection=collection)


async def _purge_transactions(ctx: NetworkContext, upto: int) -> None:
    """One server after the other: an index of their times alone would cost every transaction a page more."""
    index, origin = ("origin", "ts"), ""
    while rows := await ctx.store.scan("txn", index=index, after=origin, limit=1):
        origin = str(rows[0].key[0])
        while rows := await ctx.store.scan("txn", index=index, equal=(origin,), upto=upto, limit=_PAGE_SIZE):
            await ctx.store.commit([Delete("txn", row.key) for row in rows])
