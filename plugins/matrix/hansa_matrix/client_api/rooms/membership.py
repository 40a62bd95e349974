"""Making, entering and leaving rooms. SPEC: client-server API, "Creation", "Room membership", "Aliases"."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hansa import (
    Busy,
    CannotOpenRoom,
    Conflict,
    InternalError,
    LocalProtocolError,
    NetworkContext,
    RemoteProtocolError,
    Request,
)

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import Handler, RateLimited, error_from_refusal, get_reason, get_string
from hansa_matrix.client_api.remote_refusals import room_entry_error
from hansa_matrix.client_api.rooms.create_room import template_from_request, user_ids
from hansa_matrix.client_api.rooms.local_sender import LocalSender
from hansa_matrix.client_api.rooms.room_entry import RoomEntry
from hansa_matrix.client_api.rooms.state_rules import check_state
from hansa_matrix.client_api.rooms.third_party_invites import refuse_address, require_no_addresses
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.proto.canonical_json import check_values
from hansa_matrix.proto.room_versions import VERSIONS
from hansa_matrix.rooms.access.join_policy import require_knock_allowed
from hansa_matrix.rooms.directory.aliases import room_id_of
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room_services import RoomServices


class RoomEndpoints:
    """The endpoints about whole rooms: create, join, leave, forget."""

    def __init__(
        self, own: LocalServer, services: RoomServices, sender: LocalSender, entry: RoomEntry
    ) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._voice = sender
        self._entry = entry
        self._rooms = own.rooms
        self._creator = services.creator
        self._linker = services.linker
        self._membership = services.remote_membership
        self._pending = services.invites

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {
            ("POST", "/v3/createRoom"): RateLimited(self.create_room),
            ("POST", "/v3/join/{room}"): RateLimited(self.join_by_path),
            ("POST", "/v3/rooms/{room}/join"): RateLimited(self.join_by_path),
            ("POST", "/v3/knock/{room}"): RateLimited(self.knock_on_room),
            ("POST", "/v3/rooms/{room}/leave"): self.leave_room,
            ("POST", "/v3/rooms/{room}/forget"): self.forget_room,
            ("POST", "/v3/rooms/{room}/invite"): RateLimited(self.invite_user),
            ("POST", "/v3/rooms/{room}/kick"): self.kick_user,
            ("POST", "/v3/rooms/{room}/ban"): self.ban_user,
            ("POST", "/v3/rooms/{room}/unban"): self.unban_user,
            ("GET", "/v3/joined_rooms"): self.get_joined_rooms,
        }

    async def create_room(self, caller: Requester, _request: Request, body: Any) -> Any:
        """``POST /createRoom``."""
        wanted = body.get("room_version", self._ctx.config.room_version)
        if not isinstance(wanted, str):
            raise matrix_error(400, "M_BAD_JSON", "room_version must be a string")
        version = VERSIONS.get(wanted)
        if version is None:
            raise matrix_error(400, "M_UNSUPPORTED_ROOM_VERSION", "the room version is not supported")
        check_values(body)
        require_no_addresses(body)
        alias = self._alias_of(body)
        if alias and await room_id_of(self._ctx.store, alias) is not None:
            raise matrix_error(400, "M_ROOM_IN_USE", f"{alias} names another room")
        direct = {"is_direct": True} if body.get("is_direct") is True else {}
        wanted_in = user_ids(body, "invite")
        await asyncio.gather(*(self._voice.invitees.require_exists(user) for user in wanted_in))
        await self._voice.invitees.require_reachable(caller.user, wanted_in, body)
        invited = {user: {**direct, **await self._voice.profiles.member_content(user)} for user in wanted_in}
        begun = template_from_request(
            caller.user, version, body, invited, await self._voice.profiles.member_content(caller.user)
        )

        async def leads_here(name: str) -> bool:
            return name == alias

        for step in begun.then:
            await check_state(step, self._own.server, leads_here)
        try:
            room = await self._creator.create(caller.user, version.id, alias, begun)
        except CannotOpenRoom as problem:
            raise error_from_refusal(problem.refusal) from problem
        except InternalError:
            raise
        except LocalProtocolError as problem:
            raise matrix_error(400, "M_INVALID_ROOM_STATE", str(problem)) from problem
        except Conflict as conflict:
            raise matrix_error(400, "M_ROOM_IN_USE", f"{alias} names another room") from conflict
        await self._linker.link_room(room)
        missed = await self._invite_users(caller, room.room_id, invited)
        return {"room_id": room.room_id, **({"dev.hansa.not_invited": missed} if missed else {})}

    async def _invite_users(
        self, caller: Requester, room_id: str, invited: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, str]:
        """Invite people into a room that is there now; why some are not, by user id. Invites against the
        rules were refused before: here another server does not accept the invite, or does not answer.
        """
        missed: dict[str, str] = {}
        for user, more in invited.items():
            try:
                await self._voice.send_membership(caller.user, room_id, user, "invite", more)
            except (RemoteProtocolError, Busy) as problem:
                self._ctx.count("matrix_invites_missed")
                self._ctx.log.info("%s is not invited to %s: %s", user, room_id, problem)
                missed[user] = problem.reason
        return missed

    def _alias_of(self, body: Mapping[str, Any]) -> str:
        local = body.get("room_alias_name")
        if local is None:
            return ""
        alias = f"#{local}:{self._own.server}"
        if not isinstance(local, str) or ":" in local or not ids.is_valid_alias(alias):
            raise matrix_error(400, "M_INVALID_PARAM", "room_alias_name is not a valid localpart")
        return alias

    async def join_by_path(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /join/{roomIdOrAlias}``, ``POST /rooms/{roomId}/join``."""
        room_id = await self._entry.join_room(
            caller.user, request.path["room"], _via_servers(request), get_reason(body)
        )
        return {"room_id": room_id}

    async def knock_on_room(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /knock/{roomIdOrAlias}``."""
        room_id, servers = await self._entry.find_room(request.path["room"], _via_servers(request))
        more = get_reason(body)
        room = self._rooms.get(room_id)
        if room is not None and room.resident:
            await require_knock_allowed(self._ctx, room_id, caller.user)
            shown = {**await self._voice.profiles.member_content(caller.user), **more}
            await self._voice.send_membership(caller.user, room_id, caller.user, "knock", shown)
            return {"room_id": room_id}
        generation = self._ctx.policy_generation
        try:
            event, server, version, shown_state = await self._membership.knock(
                room_id, caller.user, servers, more
            )
        except CannotOpenRoom as problem:
            raise room_entry_error(problem) from problem
        await self._pending.keep(event, server, shown_state, version, generation=generation)
        return {"room_id": room_id}

    async def leave_room(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /rooms/{roomId}/leave``: out of it, or no to an invite."""
        more = get_reason(body)
        stay = self._own.memberships.membership_of(caller.user, request.path["room"])
        if stay is None:
            raise matrix_error(404, "M_NOT_FOUND", "unknown room")
        await self._entry.leave_room(caller.user, stay, more)
        return {}

    async def forget_room(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``POST /rooms/{roomId}/forget``."""
        stay = self._own.memberships.membership_of(caller.user, request.path["room"])
        if stay is not None and stay.membership not in {"leave", "ban"}:
            raise matrix_error(400, "M_UNKNOWN", "leave the room first")
        await self._own.memberships.forget_room(caller.user, request.path["room"])
        return {}

    async def invite_user(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /rooms/{roomId}/invite``."""
        if "user_id" not in body and "medium" in body:
            refuse_address(body)
        user = get_string(body, "user_id")
        self._voice.require_joined(caller.user, request.path["room"])
        more = get_reason(body)
        shown = {**await self._voice.profiles.member_content(user), **more}
        await self._voice.send_membership(caller.user, request.path["room"], user, "invite", shown)
        return {}

    async def kick_user(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /rooms/{roomId}/kick``."""
        user, room_id = get_string(body, "user_id"), request.path["room"]
        room = self._voice.require_joined(caller.user, room_id)
        member = await self._voice.state_event(room, MEMBER, user)
        if member is None or member.membership not in {"join", "invite", "knock"}:
            raise matrix_error(403, "M_FORBIDDEN", f"{user[:255]} is not in that room")
        return await self._remove_member(caller, room_id, user, "leave", body)

    async def ban_user(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /rooms/{roomId}/ban``."""
        self._voice.require_joined(caller.user, request.path["room"])
        return await self._remove_member(
            caller, request.path["room"], get_string(body, "user_id"), "ban", body
        )

    async def unban_user(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /rooms/{roomId}/unban``."""
        user, room_id = get_string(body, "user_id"), request.path["room"]
        room = self._voice.require_joined(caller.user, room_id)
        member = await self._voice.state_event(room, MEMBER, user)
        if member is None or member.membership != "ban":
            raise matrix_error(403, "M_FORBIDDEN", f"{user[:255]} is not banned from that room")
        return await self._remove_member(caller, room_id, user, "leave", body)

    async def _remove_member(
        self, caller: Requester, room_id: str, user: str, membership: str, body: Mapping[str, Any]
    ) -> Any:
        more = get_reason(body)
        await self._voice.send_membership(caller.user, room_id, user, membership, more)
        return {}

    async def get_joined_rooms(self, caller: Requester, _request: Request, _body: Any) -> Any:
        """``GET /joined_rooms``."""
        stays = self._own.memberships.memberships_of(caller.user).values()
        return {"joined_rooms": [stay.room_id for stay in stays if stay.membership == "join"]}


def _via_servers(request: Request) -> list[str]:
    return [v for k, v in request.query if k in {"via", "server_name"}]
