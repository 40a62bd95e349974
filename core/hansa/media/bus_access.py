"""What the media service asks the bus: events, the links they may pass, networks that keep files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hansa.api.contracts import Network
from hansa.bus.event_names import EventNames
from hansa.bus.policy_engine import PolicyEngine
from hansa.bus.rejudging import PolicyRecheck
from hansa.bus.rooms import Room, Rooms
from hansa.model.events import Link


@dataclass(frozen=True, slots=True, kw_only=True)
class BusAccess:
    """Parts of the bus. ``network`` gives the open network of an id; ``server_of`` the server of a native id
    of a network; ``count`` adds one to a counter.
    """

    names: EventNames
    rooms: Rooms
    decisions: PolicyEngine
    rejudging: PolicyRecheck
    network: Callable[[str], Network | None]
    server_of: Callable[[str, str], str]
    count: Callable[..., None]

    def find_room(self, room_id: str) -> Room | None:
        """The core room with an id."""
        return self.rooms.get(room_id)

    def servers_of(self, link: Link) -> list[str]:
        """The servers of the people of a link, or the id of the network if none is known."""
        network = link.native.network
        view = self.rooms.room_of(link.native).view
        return sorted(server for of, server in view.joined_servers if of == network) or [network]
