"""The local server, which every part is given: its identity, its stores, and the way out."""

from __future__ import annotations

from dataclasses import dataclass

from hansa import NetworkContext

from hansa_matrix.conversion.room_views import RoomViewBuilder
from hansa_matrix.crypto import SigningKey
from hansa_matrix.federation.sender import FederationSender
from hansa_matrix.federation.signing_keys import SigningKeys
from hansa_matrix.local.client_notifier import ClientNotifier
from hansa_matrix.local.ghost_people import GhostPeople
from hansa_matrix.local.memberships import LocalMemberships
from hansa_matrix.rooms.room_registry import RoomRegistry


@dataclass(frozen=True, slots=True)
class LocalServer:
    """The services that every turn uses: the identity of this server, its stores, and the way out."""

    ctx: NetworkContext
    server: str
    keys: SigningKeys
    sender: FederationSender
    views: RoomViewBuilder
    memberships: LocalMemberships
    rooms: RoomRegistry
    notifier: ClientNotifier

    @property
    def key(self) -> SigningKey:
        """The key that signs now."""
        return self.keys.current

    @property
    def bridge_user(self) -> str:
        """The user id of the account that makes and joins rooms."""
        return f"@{self.ctx.config.bridge_user}:{self.server}"

    @property
    def ghosts(self) -> GhostPeople:
        """The people behind the ghosts of this server."""
        return GhostPeople(self.ctx, self.server)

    async def is_unused_id(self, user: str) -> bool:
        """True if a user id of this server is unused: it is not an account, a ghost or the bridge user."""
        if not self.memberships.may_have(user):
            return False
        return not await self.memberships.has_account(user)

    def event_id(self) -> str:
        """Returns a new event id, for a room whose version has servers make them."""
        return f"${self.ctx.random.bytes(16).hex()}:{self.server}"
