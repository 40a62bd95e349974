"""People and rooms that one looks for. SPEC: client-server API, "Profiles", "User Directory", "Public rooms",
"Spaces", "Presence".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from hansa import (
    DirectoryPublish,
    LocalProtocolError,
    NativeId,
    NetworkContext,
    RemoteProtocolError,
    Request,
)

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import Handler, PublicHandler, RateLimited, get_int, require_own_user
from hansa_matrix.client_api.rooms.local_sender import LocalSender
from hansa_matrix.client_api.rooms.membership import RoomEndpoints
from hansa_matrix.client_api.rooms.remote_rooms import RemoteRooms
from hansa_matrix.client_api.rooms.room_summary import AccessibleSummaries
from hansa_matrix.crossings import Crossings, require, said
from hansa_matrix.errors import matrix_error
from hansa_matrix.federation.client import REQUEST_FAILURES, FederationClient, RemoteError
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.proto.edus import PresenceEdu
from hansa_matrix.proto.state_content import space_child
from hansa_matrix.rooms.access.user_visibility import UserVisibility
from hansa_matrix.rooms.directory.public_rooms import PublicRoomList
from hansa_matrix.rooms.directory.room_summaries import SPACE, RoomSummaries
from hansa_matrix.rooms.native_events import LocalServer
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.users.user_services import Users

_SHOWN_IN_ROOMS = frozenset({"displayname", "avatar_url"})
_STATES = ("online", "unavailable", "offline")
#: How many rooms of a space were given, down to which depth, and whether the suggested ones alone.
_TOKEN = re.compile(r"([0-9]{1,6})_([0-9]{1,2})_([01])", re.ASCII)
#: Rooms of a space that are looked at for one answer, and seconds in which other servers are asked.
_MAX_HIERARCHY_ROOMS, _HIERARCHY_TIMEOUT_S = 1000, 20.0
_VISIBILITIES = ("public", "private")


class DirectoryEndpoints:
    """Profiles, directories, spaces, presence."""

    def __init__(  # noqa: PLR0917  # what looking around takes
        self,
        own: LocalServer,
        known: Users,
        client: FederationClient,
        voice: LocalSender,
        spaces: RoomSummaries,
        directory: PublicRoomList,
        visibility: UserVisibility,
        entering: RoomEndpoints,
        caller: Callable[[Request], Awaitable[Requester]],
        rooms: Mapping[str, MatrixRoom],
    ) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._known = known
        self._client = client
        self._voice = voice
        self._spaces = spaces
        self._directory = directory
        self._summaries = AccessibleSummaries(own, client, voice, spaces, visibility, rooms)
        self._entering = entering
        self._caller = caller
        self._rooms = rooms
        self._crossings = Crossings(own.ctx)
        self._told = RemoteRooms(own.ctx)

    def open(self) -> Mapping[tuple[str, str], PublicHandler]:
        """Returns the endpoints that need no token."""
        return {
            ("GET", "/v3/profile/{user}"): self.profile,
            ("GET", "/v3/profile/{user}/{field}"): self.field,
            ("GET", "/v3/directory/list/room/{room}"): self.listed,
            ("GET", "/v3/publicRooms"): self.public,
        }

    def table(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.table``."""
        return {
            ("PUT", "/v3/profile/{user}/{field}"): RateLimited(self.set_field),
            ("DELETE", "/v3/profile/{user}/{field}"): RateLimited(self.remove_field),
            ("PUT", "/v3/directory/list/room/{room}"): self.list,
            ("POST", "/v3/publicRooms"): self.search_public,
            ("GET", "/v1/rooms/{room}/hierarchy"): self.hierarchy,
            ("GET", "/v1/room_summary/{room}"): self.summary,
            ("GET", "/v3/presence/{user}/status"): self.presence,
            ("PUT", "/v3/presence/{user}/status"): self.set_presence,
            ("POST", "/v3/user/{user}/openid/request_token"): self.openid,
        }

    async def _get_profile(self, user: str, field: str = "") -> Mapping[str, Any]:
        if not ids.is_valid_user_id(user):
            raise matrix_error(400, "M_INVALID_PARAM", f"{user[:80]!r} is not a user ID")
        server = ids.domain_of(user)
        if server != self._own.server:
            await require(self._ctx, self._crossings.profile_query(server, user, outbound=True))
        try:
            found = await self._known.profiles.of(user, field)
        except RemoteError as problem:
            raise matrix_error(404, "M_NOT_FOUND", f"there is no {user}") from problem
        except REQUEST_FAILURES as problem:
            raise matrix_error(502, "M_UNKNOWN", str(problem)) from problem
        if found is None:
            raise matrix_error(404, "M_NOT_FOUND", f"there is no {user}")
        return found

    async def _require_token_for_remote(self, request: Request, server: str) -> None:
        """Strangers may ask about this server, if no policy could say no to their server; others are asked
        only for people with an account here.
        """
        told = self._ctx.config.public_reading or not self._ctx.governed
        if not told or (server and server != self._own.server):
            await self._caller(request)

    async def profile(self, request: Request, _body: Any) -> Any:
        """``GET /profile/{userId}``."""
        await self._require_token_for_remote(request, ids.domain_of(request.path["user"]))
        return await self._get_profile(request.path["user"])

    async def field(self, request: Request, _body: Any) -> Any:
        """``GET /profile/{userId}/{keyName}``."""
        name = request.path["field"]
        await self._require_token_for_remote(request, ids.domain_of(request.path["user"]))
        found = await self._get_profile(request.path["user"], name)
        if name not in found and name not in _SHOWN_IN_ROOMS:
            raise matrix_error(404, "M_NOT_FOUND", f"there is no {name[:80]!r} in that profile")
        return {name: found[name]} if name in found else {}

    async def set_field(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /profile/{userId}/{keyName}``: also in every room that the person is in."""
        user, name = require_own_user(caller, request), request.path["field"]
        if name not in body:
            raise matrix_error(400, "M_MISSING_PARAM", f"{name[:80]!r} is missing")
        value = body[name]
        if name in _SHOWN_IN_ROOMS and not isinstance(value, str | None):
            raise matrix_error(400, "M_BAD_JSON", f"{name} must be a string")
        await self._set_profile_field(user, name, value or None if name in _SHOWN_IN_ROOMS else value)
        return {}

    async def remove_field(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``DELETE /profile/{userId}/{keyName}``."""
        await self._set_profile_field(require_own_user(caller, request), request.path["field"], None)
        return {}

    async def _set_profile_field(self, user: str, name: str, value: Any) -> None:
        if self._ctx.governed:
            await require(self._ctx, self._crossings.profile_change(user, said(**{name: value})))
        try:
            await self._known.profiles.set(user, name, value)
        except LocalProtocolError as problem:
            large = "at most" in str(problem)
            code = "M_PROFILE_TOO_LARGE" if large else "M_KEY_TOO_LARGE"
            raise matrix_error(400, code, str(problem)) from problem
        if name not in _SHOWN_IN_ROOMS:
            return
        for stay in list(self._own.attendance.stays(user).values()):
            room = self._rooms.get(stay.room_id) if stay.membership == "join" else None
            member = await self._voice.state_event(room, MEMBER, user) if room is not None else None
            if room is None or member is None or member.content.get(name) == value:
                continue
            content = {k: v for k, v in member.content.items() if k not in {name, "membership", "reason"}}
            more = {**content, **({name: value} if value is not None else {})}
            try:
                await self._voice.send_membership(user, stay.room_id, user, "join", more, follows=True)
            except RemoteProtocolError as problem:
                self._ctx.log.info("%s keeps another %s in %s: %s", user, name, stay.room_id, problem)

    async def listed(self, request: Request, _body: Any) -> Any:
        """``GET /directory/list/room/{roomId}``: of a room that is not published, who is not in it learns no
        more than of one that is not there.
        """
        room_id = request.path["room"]
        if room_id in await self._directory.published():
            return {"visibility": _VISIBILITIES[0]}
        with contextlib.suppress(RemoteProtocolError):  # a token is not needed, so a bad one is none
            stay = self._own.attendance.stay((await self._caller(request)).user, room_id)
            if stay is not None and stay.membership == "join":
                return {"visibility": _VISIBILITIES[1]}
        raise matrix_error(404, "M_NOT_FOUND", "there is no such room in the public list")

    async def list(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /directory/list/room/{roomId}``, by who may say what a room is called."""
        wanted = body.get("visibility", "public")
        if wanted not in _VISIBILITIES:
            raise matrix_error(400, "M_INVALID_PARAM", "visibility must be public or private")
        room = self._voice.joined(caller.user, request.path["room"])
        if not caller.admin and not await self._voice.can_send_state(
            caller.user, room, "m.room.canonical_alias"
        ):
            raise matrix_error(403, "M_FORBIDDEN", "you need permission to send m.room.canonical_alias")
        if wanted == "public":
            await self._require_may_publish(caller.user, room.room_id)
        await self._directory.publish(room.room_id, listed=wanted == "public", by=caller.user)
        return {}

    async def _require_may_publish(self, user: str, room_id: str) -> None:
        """Raises the error answer where a policy denies that a room is put into the public list."""
        view = self._ctx.view(room_id)
        await require(
            self._ctx,
            DirectoryPublish(
                network=self._ctx.id,
                user=NativeId(self._ctx.id, user),
                user_server=self._own.server,
                room=room_id,
                texts=(view.facts.name, view.facts.topic) if view is not None else (),
            ),
        )

    async def public(self, request: Request, _body: Any) -> Any:
        """``GET /publicRooms``."""
        if not self._ctx.config.public_reading:
            await self._caller(request)
        await self._require_token_for_remote(request, request.first("server"))
        limit = get_int(request, "limit", 100, 1000)
        body: dict[str, Any] = {"limit": limit or 100}
        if request.first("since"):
            body["since"] = request.first("since")
        return await self._public_page(request.first("server"), body)

    async def search_public(self, _caller: Requester, request: Request, body: Any) -> Any:
        """``POST /publicRooms``."""
        return await self._public_page(request.first("server"), body)

    async def _public_page(self, server: str, body: Mapping[str, Any]) -> Any:
        if not server or server == self._own.server:
            return await self._spaces.listed(body)
        if not ids.is_valid_server_name(server):
            raise matrix_error(400, "M_INVALID_PARAM", f"{server[:80]!r} is not a server name")
        await require(self._ctx, self._crossings.directory_query(server, "", outbound=True))
        try:
            answer = await self._client.request(
                "POST", server, "/_matrix/federation/v1/publicRooms", dict(body), seconds=10.0
            )
            return await self._told.listed(server, answer)
        except REQUEST_FAILURES as problem:
            raise matrix_error(502, "M_UNKNOWN", str(problem)) from problem

    async def hierarchy(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /hierarchy``: a space, what is in it, and in that, depth first."""
        root, most = request.path["room"], max(1, get_int(request, "limit", 50, 50))
        deep, suggested = get_int(request, "max_depth", 10, 10), request.first("suggested_only") == "true"
        start = _parse_hierarchy_token(request.first("from"), deep, suggested=suggested)
        found: list[dict[str, Any]] = []
        seen: set[str] = set()
        edge: list[tuple[str, int, list[str]]] = [(root, 0, [])]
        until = self._ctx.clock.monotonic() + _HIERARCHY_TIMEOUT_S
        while edge and len(found) < start + most + 1 and len(seen) < _MAX_HIERARCHY_ROOMS:
            room_id, depth, via = edge.pop(0)
            if room_id in seen:
                continue
            seen.add(room_id)
            late = self._ctx.clock.monotonic() > until
            one = await self._summaries.of(caller.user, room_id, [] if late else via, suggested=suggested)
            if one is None:
                if room_id == root:
                    raise matrix_error(403, "M_FORBIDDEN", "the space does not exist, or you may not see it")
                continue
            found.append(one)
            if one.get("room_type") == SPACE and depth < deep:
                edge[:0] = [
                    (child["state_key"], depth + 1, _via_servers(child))
                    for child in sorted(one["children_state"], key=_child_order)
                    if isinstance(child.get("state_key"), str)
                ]
        answer: dict[str, Any] = {"rooms": found[start : start + most]}
        if len(found) > start + most:
            answer["next_batch"] = f"{start + most}_{deep}_{int(suggested)}"
        return answer

    async def summary(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /room_summary/{roomIdOrAlias}``."""
        address = request.path["room"]
        via = [v for k, v in request.query if k == "via"]
        room_id, servers = await self._entering.found(address, via)
        one = await self._summaries.of(caller.user, room_id, servers, suggested=False)
        if one is None:
            raise matrix_error(404, "M_NOT_FOUND", "the room does not exist, or you may not see it")
        stay = self._own.attendance.stay(caller.user, room_id)
        one.pop("children_state", None)
        return {**one, "membership": stay.membership if stay is not None else "leave"}

    async def presence(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /presence/{userId}/status``."""
        user = request.path["user"]
        if user != caller.user and not self._own.attendance.share_a_room(caller.user, user):
            raise matrix_error(
                403, "M_FORBIDDEN", "you can only see the presence of users who share a room with you"
            )
        known = self._known.presences.of(user)
        if known is None:
            return {"presence": "offline"}
        message = {"status_msg": known.status} if known.status else {}
        return {"presence": known.presence, "currently_active": known.active, **message}

    async def set_presence(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /presence/{userId}/status``."""
        require_own_user(caller, request)
        state, message = body.get("presence"), body.get("status_msg")
        if state not in _STATES or not isinstance(message, str | None) or len(message or "") > 1000:
            raise matrix_error(
                400, "M_BAD_JSON", f"presence is {', '.join(_STATES)}, and status_msg short text"
            )
        one = PresenceEdu(user=caller.user, presence=state, active=state == "online", status=message or "")
        await self._known.presences.permit(one)
        await self._known.presences.tell(one)
        return {}

    async def openid(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``POST /openid/request_token``."""
        token = await self._known.openid.issue(require_own_user(caller, request), 3600)
        return {
            "access_token": token,
            "expires_in": 3600,
            "matrix_server_name": self._own.server,
            "token_type": "Bearer",
        }


def _child_order(child: Mapping[str, Any]) -> tuple[tuple[bool, str], int, str]:
    """The place of a room in a space, by what any server says of it."""
    content, ts, room_id = child.get("content"), child.get("origin_server_ts"), child.get("state_key")
    place = space_child(content if isinstance(content, dict) else None).place
    return place, ts if type(ts) is int else 0, room_id if isinstance(room_id, str) else ""


def _parse_hierarchy_token(token: str, deep: int, *, suggested: bool) -> int:
    """How many rooms of a space were given before. Raises the error answer of a token that is none, or one of
    other questions.
    """
    if not token:
        return 0
    match = _TOKEN.fullmatch(token)
    if match is None or match.groups()[1:] != (str(deep), str(int(suggested))):
        raise matrix_error(
            400, "M_INVALID_PARAM", "this token is not valid for these values of max_depth and suggested_only"
        )
    return min(int(match[1]), _MAX_HIERARCHY_ROOMS)


def _via_servers(child: Mapping[str, Any]) -> list[str]:
    content = child.get("content")
    return list(space_child(content).via) if isinstance(content, dict) else []
