"""The events that are sent to other servers, as the queues of the destinations see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from hansa import Row


class OutboundPdus(Protocol):
    """Stored events, in the form in which other servers may have them."""

    def cached(self, event_id: str) -> bytes | None:
        """The event on the wire, if it is in memory and may be sent as it is."""
        ...

    def is_withheld(self, row: Row) -> bool:
        """True if a policy withholds the event of a stored row."""
        ...

    async def load(self, room_id: str, event_ids: Sequence[str]) -> Mapping[str, bytes]:
        """Events of one room on the wire, by their ids."""
        ...
