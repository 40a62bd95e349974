"""What the media service asks the bus: events, the links they may pass, networks that keep files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hansa.api.contracts import Network
from hansa.bus.policy_engine import PolicyEngine
from hansa.bus.rejudging import PolicyRecheck
from hansa.bus.rooms import Room, Rooms
from hansa.bus.schema import event_of
from hansa.model.events import Event, Link
from hansa.store.base import ScopedStore


@dataclass(frozen=True, slots=True, kw_only=True)
class BusAccess:
    """Parts of the bus. ``network`` gives the open network of an id; ``server_of`` the server of a native id
    of a network; ``count`` adds one to a counter.
    """

    core: ScopedStore
    rooms: Rooms
    decisions: PolicyEngine
    rejudging: PolicyRecheck
    network: Callable[[str], Network | None]
    server_of: Callable[[str, str], str]
    count: Callable[..., None]

    async def find_event(self, event_id: str) -> Event | None:
        """The event of the log with an id."""
        rows = await self.core.scan("event", index=("id",), equal=(event_id,), limit=1)
        return event_of(rows[0]) if rows else None

    def find_room(self, room_id: str) -> Room | None:
        """The core room with an id."""
        return self.rooms.get(room_id)

    def servers_of(self, link: Link) -> list[str]:
        """The servers of the people of a link, or the id of the network if none is known."""
        network = link.native.network
        view = self.rooms.room_of(link.native).view
        return sorted(server for of, server in view.joined_servers if of == network) or [network]

    async def can_pass(self, room: Room, link: Link, event: Event) -> bool:
        """True if the event may be shown to the people of a link now."""
        return link.direction.outward and await self.rejudging.passes(room, link, event)
