"""How a local user finds, joins and leaves a room. SPEC: client-server API, "Room membership"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hansa import (
    Busy,
    CannotOpenRoom,
    LocalProtocolError,
    NetworkContext,
    RemoteProtocolError,
)

from hansa_matrix.client_api.account.upgraded_rooms import UpgradedRooms
from hansa_matrix.client_api.http import error_from_refusal
from hansa_matrix.client_api.remote_refusals import room_entry_error
from hansa_matrix.client_api.rooms.local_sender import LocalSender
from hansa_matrix.errors import matrix_error
from hansa_matrix.local.client_stream import stream_write
from hansa_matrix.local.memberships import LocalMembership, membership_from_event
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.access.join_policy import require_join_allowed
from hansa_matrix.rooms.access.restricted_joins import UNABLE, RestrictedJoins
from hansa_matrix.rooms.directory.aliases import room_id_of
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.join_rooms import parse_address
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.room_services import RoomServices


class RoomEntry:
    """Joins and leaves here where this server is in the room, and by another server where it is not."""

    def __init__(
        self, own: LocalServer, services: RoomServices, sender: LocalSender, upgraded: UpgradedRooms
    ) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._sender = sender
        self._upgraded = upgraded
        self._joiner = services.joiner
        self._remote = services.remote_membership
        self._resident_joins = services.resident_joins
        self._invites = services.invites
        self._restricted = RestrictedJoins(services.access)

    async def find_room(self, address: str, via: Sequence[str]) -> tuple[str, list[str]]:
        """The room behind an id or alias, and servers to ask."""
        try:
            if address.startswith("!"):
                room_id, more = parse_address(address)
                servers = [s for s in via if ids.is_valid_server_name(s)]
                return room_id, list(dict.fromkeys([*servers, *more]))[:20]
            if not ids.is_valid_alias(address):
                raise matrix_error(400, "M_INVALID_PARAM", f"{address[:80]!r} is not a room ID or alias")
            if ids.domain_of(address) != self._own.server:
                return await self._remote.resolve(address)
        except CannotOpenRoom as problem:
            raise error_from_refusal(problem.refusal) from problem
        known = await room_id_of(self._ctx.store, address)
        if known is None:
            raise matrix_error(404, "M_NOT_FOUND", f"no room is called {address}")
        return known, []

    async def join_room(self, user: str, address: str, via: Sequence[str], more: Mapping[str, Any]) -> str:
        """Joins a user to a room; returns its id."""
        room_id, servers = await self.find_room(address, via)
        if self._own.rooms.is_blocked(room_id):
            raise matrix_error(403, "M_FORBIDDEN", "this server is not in that room")
        stay = self._own.memberships.membership_of(user, room_id)
        if stay is not None and stay.membership == "join":
            return room_id
        waiting = await self._invites.get(room_id, user)
        if waiting is not None:
            servers = list(dict.fromkeys([waiting.origin, *servers]))
        room = self._own.rooms.get(room_id)
        if room is None or not room.resident or self._ctx.get_link(room_id) is None:
            try:
                room = await self._joiner.join(room_id, servers, user, more)
            except CannotOpenRoom as problem:
                raise room_entry_error(problem) from problem
            if await self._record_remote_join(user, room):
                await self._upgraded.copy_account_data(user, room_id)
                return room_id
        await self._join_local(user, room, servers, more)
        await self._invites.drop(room_id, user)
        await self._upgraded.copy_account_data(user, room_id)
        return room_id

    async def _record_remote_join(self, user: str, room: MatrixRoom) -> bool:
        """True if the user is joined already, by an event that came through another server. The membership is
        then stored and announced like any other, once the room is open.
        """
        key = (MEMBER, user)
        member = (await room.events_of(await room.state(), [key])).get(key)
        if member is None or member.membership != "join":
            return False
        attendance, stay = self._own.memberships, membership_from_event(room.room_id, user, member)
        if attendance.membership_of(user, room.room_id) == stay:
            return True
        news = stream_write(room.room_id, member.event_id, room.head.group)
        await self._ctx.store.commit([*attendance.membership_writes(user, stay), news])
        attendance.on_committed(user, stay)
        return True

    async def _join_local(
        self, user: str, room: MatrixRoom, via: Sequence[str], more: Mapping[str, Any]
    ) -> None:
        await require_join_allowed(self._ctx, room.room_id, user)
        try:
            authoriser = await self._restricted.find_authoriser(room, user)
        except RemoteProtocolError as problem:
            if problem.code not in UNABLE:
                raise
            await self._join_remote(user, room, via)
            return
        by = {"join_authorised_via_users_server": authoriser} if authoriser is not None else {}
        await self._sender.send_membership(
            user,
            room.room_id,
            user,
            "join",
            {**await self._sender.profiles.member_content(user), **more, **by},
        )

    async def _join_remote(self, user: str, room: MatrixRoom, via: Sequence[str]) -> None:
        """Joins a restricted room that needs another resident to authorise the user."""
        try:
            outcome = await self._resident_joins.join(room, user, via)
        except CannotOpenRoom as problem:
            raise room_entry_error(problem) from problem
        if outcome.refusal is not None:
            raise error_from_refusal(outcome.refusal)

    async def leave_room(self, user: str, stay: LocalMembership, more: Mapping[str, Any]) -> None:
        """Makes a user leave a room, or decline an invite. Raises the error answer of one who may not."""
        room_id = stay.room_id
        if stay.membership == "ban":  # no event could say so, and a client would take the room for left
            raise matrix_error(403, "M_FORBIDDEN", f"{user} is banned from that room")
        if stay.membership == "leave":
            return
        room = self._own.rooms.get(room_id)
        if room is not None and room.resident:
            await self._sender.send_membership(user, room_id, user, "leave", more)
            await self._invites.drop(room_id, user)
            return
        waiting = await self._invites.get(room_id, user)
        left: Pdu | None = None
        if waiting is not None:
            left = await self._remote.leave_remote(room_id, user, [waiting.origin], more)
        await self._invites.drop(room_id, user, left)
        if self._own.memberships.membership_of(user, room_id) == stay:
            gone = membership_from_event(room_id, user, None)
            await self._own.memberships.store_membership(user, gone, over={stay.membership})

    async def leave_all(self, user: str) -> None:
        """Makes a user whose account is closed leave every room."""
        for stay in list(self._own.memberships.memberships_of(user).values()):
            if stay.membership == "ban":
                continue
            try:
                await self.leave_room(user, stay, {})
            except (RemoteProtocolError, LocalProtocolError, Busy) as problem:
                self._ctx.log.warning("%s stays in %s: %s", user, stay.room_id, problem)
