"""By which device and under which transaction id our people sent their last events.

A client asks for that to know its own words again as they come. A repeat is the same event by the origin
under which it is in the core's log.
"""

from __future__ import annotations

from dataclasses import dataclass

from hansa import LruCache

_MAX_TRANSACTIONS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTransaction:
    """One send of one device."""

    user: str
    device: str
    txn: str


class TransactionIds:
    """In memory only."""

    def __init__(self) -> None:
        self._kept: LruCache[str, ClientTransaction] = LruCache(_MAX_TRANSACTIONS)

    def record_event(self, event_id: str, handle: ClientTransaction) -> None:
        """An event is about to be committed."""
        self._kept.put(event_id, handle)

    def txn_id_for(self, user: str, device: str, event_id: str) -> str:
        """The transaction id by which a device sent an event; empty if it did not."""
        handle = self._kept.get(event_id)
        if handle is None or (handle.user, handle.device) != (user, device):
            return ""
        return handle.txn
