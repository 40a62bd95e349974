"""Introduces users to servers that share a room with them for the first time: their devices and presence.
SPEC: server-server API, "Device Management", "Presence".
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from hansa import NetworkContext

from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.room_linker import RoomLinker
from hansa_matrix.users.user_services import Users


class Introductions:
    """Follows the joins of local users, and of the first user of each server."""

    def __init__(self, own: LocalServer, linker: RoomLinker, users: Users) -> None:
        self._ctx: NetworkContext = own.ctx
        self._memberships = own.memberships
        self._linker = linker
        self._users = users
        own.memberships.listeners.on_joined(self._user_joined)
        own.memberships.listeners.on_servers_joined(self._servers_joined)

    def _user_joined(self, user: str, room_id: str) -> None:
        self._ctx.spawn(partial(self._introduce, user, room_id), f"{user} is met")

    async def _introduce(self, user: str, room_id: str) -> None:
        await self._linker.wait_until_joined(room_id)
        stays = self._memberships.memberships_of(user).values()
        await self._users.announce_user(user, room_id, [s.room_id for s in stays if s.membership == "join"])

    def _servers_joined(self, room_id: str, servers: Collection[str]) -> None:
        if self._ctx.config.presence_enabled:
            here = partial(self._memberships.joined_users, room_id)
            work = partial(self._users.presences.announce_to_room, room_id, servers, here)
            self._ctx.spawn(work, f"{room_id} is shown")
