"""Notifications between the parts of the room engine, so that no part holds one that is built after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.room import MatrixRoom

#: Takes an event that was accepted and is shown.
OnAccepted = Callable[[Pdu], None]
#: Takes a room in whose queue no event waits any more.
OnIdle = Callable[[MatrixRoom], Awaitable[None]]
#: Takes the id of a room that is being removed from the store.
OnPurged = Callable[[str], Awaitable[None]]


class RoomListeners:
    """Listeners are added while the server is built, and called in that order."""

    def __init__(self) -> None:
        self._accepted: tuple[OnAccepted, ...] = ()
        self._idle: tuple[OnIdle, ...] = ()
        self._purged: tuple[OnPurged, ...] = ()

    def on_accepted(self, listener: OnAccepted) -> None:
        """Call ``listener`` with every event that was accepted and is shown."""
        self._accepted += (listener,)

    def on_idle(self, listener: OnIdle) -> None:
        """Await ``listener`` with every room whose queue has become empty."""
        self._idle += (listener,)

    def on_purged(self, listener: OnPurged) -> None:
        """Await ``listener`` with the id of every room that is being purged."""
        self._purged += (listener,)

    def notify_accepted(self, pdu: Pdu) -> None:
        """An event was accepted and is shown."""
        for listener in self._accepted:
            listener(pdu)

    async def notify_idle(self, room: MatrixRoom) -> None:
        """No event of a room waits any more."""
        for listener in self._idle:
            await listener(room)

    async def notify_purged(self, room_id: str) -> None:
        """A room is being purged, and its own row is still there."""
        for listener in self._purged:
            await listener(room_id)
