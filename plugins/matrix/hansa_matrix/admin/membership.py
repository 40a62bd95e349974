"""Joining, inviting and creating as an operator: ``commands.py`` declares the commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import AdminCommand, CannotOpenRoom, LocalProtocolError, NetworkContext, RoomWish

from hansa_matrix.proto import ids
from hansa_matrix.proto.room_versions import VERSIONS, version_of
from hansa_matrix.rooms.directory.aliases import room_id_of
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.join_rooms import parse_address
from hansa_matrix.rooms.membership.pending_invites import PendingInvite
from hansa_matrix.rooms.room_services import RoomServices


class MembershipCommands:
    """``hansa matrix rooms ls|create|knock`` and ``hansa matrix invites``."""

    def __init__(self, own: LocalServer, rooms: RoomServices) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._user = own.bridge_user
        self._rooms = rooms.registry
        self._staging = rooms.inbound.staging
        self._joiner = rooms.joiner
        self._opener = rooms.opener
        self._remote = rooms.remote_membership
        self._invites = rooms.invites

    def admin_commands(self) -> Mapping[str, AdminCommand]:
        """See ``hansa.HasAdminCommands.admin_commands``."""
        return {
            "rooms ls": self._list_rooms,
            "rooms create": self._create_room,
            "rooms knock": self._knock,
            "invites ls": self._list_invites,
            "invites accept": self._accept_invite,
            "invites decline": self._decline_invite,
        }

    async def _list_rooms(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "room": room.room_id,
                "version": room.version.id,
                "resident": room.resident,
                "extremities": len(room.head.extremities),
                "waiting": self._staging.waiting_count(room.room_id),
            }
            for room in self._rooms.values()
        ]

    async def _create_room(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        alias, version = f"{arguments['alias']}:{self._own.server}", str(arguments.get("version") or "")
        if not ids.is_valid_alias(alias) or alias.count(":") != self._own.server.count(":") + 1:
            raise LocalProtocolError(f"{arguments['alias']!r} is not a room alias: use #name")
        if version_of(version or self._ctx.config.room_version) is None:
            raise LocalProtocolError(f"there is no room version {version!r}: {', '.join(VERSIONS)}")
        if await room_id_of(self._ctx.store, alias) is not None:
            raise LocalProtocolError(f"{alias} exists already")
        try:
            wish = RoomWish(name=str(arguments.get("name") or ""), published=bool(arguments.get("published")))
            opened = await self._opener.create_named(alias, version or self._ctx.config.room_version, wish)
        except CannotOpenRoom as error:
            raise LocalProtocolError(error.refusal.text) from error
        await self._ctx.open_link(opened.native.id, authority=True, view=opened.view_delta)
        return {"room": opened.native.id, "alias": alias}

    async def _knock(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        address = str(arguments["room"])
        try:
            room_id, via = (
                parse_address(address) if address.startswith("!") else await self._remote.resolve(address)
            )
            generation = self._ctx.policy_generation
            event, server, version, shown = await self._remote.knock(room_id, self._user, via)
        except CannotOpenRoom as error:
            raise LocalProtocolError(error.refusal.text) from error
        await self._invites.keep(event, server, shown, version, generation=generation)
        return {"room": room_id, "knocked": self._user}

    async def _list_invites(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {"room": w.room_id, "user": w.user, "is": w.membership, "by": w.sender, "server": w.origin}
            for w in await self._invites.every()
        ]

    async def _invite_of(self, arguments: Mapping[str, Any]) -> PendingInvite:
        user = str(arguments.get("user") or self._user)
        waiting = await self._invites.get(str(arguments["room"]), user)
        if waiting is None or waiting.membership != "invite":
            raise LocalProtocolError(f"{user} is not invited there: `hansa matrix invites ls` lists invites")
        return waiting

    async def _accept_invite(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        waiting = await self._invite_of(arguments)
        try:
            await self._joiner.join(waiting.room_id, [waiting.origin], waiting.user)
        except CannotOpenRoom as error:
            raise LocalProtocolError(error.refusal.text) from error
        return {"room": waiting.room_id, "joined": waiting.user}

    async def _decline_invite(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """An invite that nobody can be told of any more is declined all the same."""
        waiting = await self._invite_of(arguments)
        told = await self._remote.leave_remote(waiting.room_id, waiting.user, [waiting.origin])
        await self._invites.drop(waiting.room_id, waiting.user, told)
        return {"room": waiting.room_id, "declined": waiting.user, "told": told is not None}
