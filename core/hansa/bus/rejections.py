"""The sender of an event that a network rejects, or of which a delivery fails for good, is told so: once for
each kind of content and room.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from hansa.api.contracts import Network, TellsPeople
from hansa.bus.rooms import Rooms
from hansa.bus.schema import hashed_key
from hansa.model.events import Event, Link
from hansa.store.base import Conflict, Insert, ScopedStore
from hansa.store.faults import StoreFault


class RejectionNotices:
    """``network`` returns the open network of an id; ``store`` is the core's."""

    def __init__(self, store: ScopedStore, rooms: Rooms, network: Callable[[str], Network | None]) -> None:
        self._store = store
        self._rooms = rooms
        self._network = network
        self._log = logging.getLogger("hansa.bus.rejections")

    async def tell_sender(self, link: Link, event: Event, *, failed: bool = False) -> None:
        """Tell who sent an event that ``link`` does not carry it, or that its delivery ``failed``. A notice
        that fails is logged. The reason is for operators: it is in the words of the other network.
        """
        room, sender = self._rooms.get(link.room), event.sender
        own = room.link_of(sender.network) if room else None
        network = self._network(sender.network)
        if own is None or not isinstance(network, TellsPeople):
            return
        why = "failed" if failed else "rejected"
        name = hashed_key(why, link.id, event.content.kind.value, sender.network, sender.id)
        try:
            await self._store.commit([Insert("told", (link.room, name), b"")])
        except Conflict:
            return
        except StoreFault as fault:
            self._log.warning("%s is not told of a rejection: %s", sender, fault)
            return
        kind = event.content.kind.value.replace("-", " ")
        verb = "did not take" if failed else "cannot show"
        text = f"{link.native.network} {verb} this ({kind}). The people there do not see it."
        await self._tell(network, own, sender.id, text)

    async def tell_of_part(self, link: Link, event: Event) -> None:
        """Tell who sent a long text that the room of ``link`` shows only its beginning."""
        room, sender = self._rooms.get(link.room), event.sender
        own = room.link_of(sender.network) if room else None
        network = self._network(sender.network)
        if own is not None and isinstance(network, TellsPeople):
            text = (
                f"{link.native.network} shows only the beginning of your message: it did not take the rest."
            )
            await self._tell(network, own, sender.id, text)

    async def _tell(self, network: TellsPeople, own: Link, user: str, text: str) -> None:
        try:
            await network.tell_person(own, user, text)
        except Exception:  # noqa: BLE001  # a network's fault, and nothing is lost
            self._log.exception("%s could not be told of a rejection", user)
