"""All that a network knows of people, put together."""

from __future__ import annotations

from collections.abc import Iterable

from hansa import NetworkContext

from hansa_matrix.federation.federation_services import Federation
from hansa_matrix.local.local_services import Local
from hansa_matrix.proto.devices import DEVICE_LIST, SIGNING_KEYS, TO_DEVICE
from hansa_matrix.proto.edus import PRESENCE
from hansa_matrix.retention import ExpiringRows
from hansa_matrix.users.devices import Devices
from hansa_matrix.users.edu_handler import EduHandler
from hansa_matrix.users.key_queries import KeyQueries
from hansa_matrix.users.openid import OpenId
from hansa_matrix.users.presence import PresenceTracker
from hansa_matrix.users.profiles import Profiles
from hansa_matrix.users.remote_devices import RemoteDeviceLists
from hansa_matrix.users.shared_rooms import SharedRooms
from hansa_matrix.users.to_device import ToDeviceInbox


class Users:
    """The parts, which a client API and the federation endpoints use alike."""

    def __init__(self, ctx: NetworkContext, federation: Federation, local: Local) -> None:
        client, sender, notifier = federation.client, federation.sender, local.notifier
        self.company = SharedRooms(ctx, client.server)
        self.devices = Devices(ctx, self.company, sender, notifier)
        self.remote = RemoteDeviceLists(ctx, client, self.company, notifier)
        self.keys = KeyQueries(ctx, client, self.devices, self.remote)
        self.messages = ToDeviceInbox(ctx, self.devices, sender, notifier)
        self.profiles = Profiles(ctx, client, local.memberships)
        self.openid = OpenId(ctx, client)
        self.presences = PresenceTracker(ctx, self.company, sender, notifier)

    async def announce_user(self, user: str, room_id: str, others: Iterable[str]) -> None:
        """Announces a local user who joined a room: users who meet them there, and in none of their other
        rooms, learn of their devices and presence.
        """
        await self.presences.apply_early(room_id)
        await self.presences.announce_to_networks(user, room_id)
        servers = self.company.newly_met_servers(room_id, others)
        if servers:
            await self.devices.announce_devices(user, servers)
            await self.presences.announce_presence(user, servers)

    def edu_handlers(self) -> dict[str, EduHandler]:
        """Returns the handler of each type of EDU."""
        return {
            DEVICE_LIST: self.remote.handle_updates,
            SIGNING_KEYS: self.remote.handle_signing_keys,
            TO_DEVICE: self.messages.receive_edus,
            PRESENCE: self.presences.handle_edus,
        }

    def expiring_rows(self) -> tuple[ExpiringRows, ...]:
        """Returns the collections whose rows expire."""
        return self.messages, self.remote
