"""Stored events on their way to other servers."""

from __future__ import annotations

from collections.abc import Sequence

from hansa import NetworkContext, Row

from hansa_matrix.rooms.access.visible_events import for_servers
from hansa_matrix.rooms.event_store import EventStore, StoredEvent, is_withheld
from hansa_matrix.rooms.room_registry import RoomRegistry


class StoredPdus:
    """See ``federation.outbound_pdus.OutboundPdus``."""

    def __init__(self, ctx: NetworkContext, events: EventStore, rooms: RoomRegistry) -> None:
        self._ctx = ctx
        self._events = events
        self._rooms = rooms

    def cached(self, event_id: str) -> bytes | None:
        """See ``OutboundPdus.cached``."""
        stored = self._events.at_hand(event_id)
        if stored is None or stored.by_policy or self._needs_recheck(stored):
            return None
        return stored.pdu.wire

    def _needs_recheck(self, stored: StoredEvent) -> bool:
        return self._ctx.has_policies and stored.generation != self._ctx.policy_generation

    def is_withheld(self, row: Row) -> bool:
        """See ``OutboundPdus.is_withheld``."""
        return is_withheld(row)

    async def load(self, room_id: str, event_ids: Sequence[str]) -> dict[str, bytes]:
        """See ``OutboundPdus.load``."""
        room = self._rooms.get(room_id)
        if room is None:
            return {}
        stored = await room.readable(event_ids)
        return {e: for_servers(one, room.version).pdu.wire for e, one in stored.items()}
