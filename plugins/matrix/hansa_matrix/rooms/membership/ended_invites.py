"""The events that ended invites and knocks and that no local room has, as other servers see them.

A user who invites and rescinds makes one each time: they are bounded for each user and in all, and in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from hansa import Delete, NetworkContext, Put, Write

from hansa_matrix.bounds.bounded_rows import oldest_over
from hansa_matrix.proto.event import Pdu

#: Events of one person, and in all; a further one takes the place of the oldest.
MAX_OF_USER, MAX_IN_ALL = 500, 20_000
#: Bytes of an event that is kept whole; of a larger one only who ended what, where and when.
MAX_BYTES = 8 * 1024
#: How long one is kept (ms).
KEPT_FOR = 180 * 86_400_000
_LEFT, _PAGE_SIZE = "left", 500
_SHORT = ("type", "state_key", "sender", "room_id", "origin_server_ts")


class EndedInvites:
    """Rows by person and room."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx

    async def get(self, user: str, room_id: str) -> Mapping[str, Any] | None:
        """An event with its id."""
        row = await self._ctx.store.get(_LEFT, (user, room_id))
        event: Mapping[str, Any] | None = orjson.loads(row.body) if row is not None else None
        return event

    async def writes(self, user: str, room_id: str, pdu: Pdu) -> list[Write]:
        """Returns the writes that store an event and remove the oldest ones over the limit."""
        ctx, gone = self._ctx, list[Write]()
        if await ctx.store.get(_LEFT, (user, room_id)) is None:
            gone = await oldest_over(ctx, _LEFT, "at", MAX_OF_USER - 1, {"user_id": user})
            if not gone:
                gone = await oldest_over(ctx, _LEFT, "at", MAX_IN_ALL - 1, {})
        body = orjson.dumps({**pdu.raw, "event_id": pdu.event_id})
        if len(body) > MAX_BYTES:
            short = {key: pdu.raw[key] for key in _SHORT if key in pdu.raw}
            content = {"membership": pdu.membership}
            body = orjson.dumps({**short, "content": content, "event_id": pdu.event_id})
        return [*gone, Put(_LEFT, (user, room_id), body, {"at": ctx.clock.now()})]

    async def sweep(self) -> None:
        """Let go of the old."""
        until = self._ctx.clock.now() - KEPT_FOR
        while rows := await self._ctx.store.scan(_LEFT, index=("at",), upto=until, limit=_PAGE_SIZE):
            await self._ctx.store.commit([Delete(_LEFT, row.key) for row in rows])
