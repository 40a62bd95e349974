"""Profiles of users. SPEC: client-server API, "Profiles"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import (
    LocalProtocolError,
    NetworkContext,
    RemoteProtocolError,
    Request,
)

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import (
    ClientHttp,
    Handler,
    PublicHandler,
    RateLimited,
    require_own_user,
)
from hansa_matrix.client_api.rooms.local_sender import LocalSender
from hansa_matrix.crossings import Crossings, require_allowed, texts_of_values
from hansa_matrix.errors import matrix_error
from hansa_matrix.federation.client import REQUEST_FAILURES, RemoteError
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.rooms.local_server import LocalServer

_SHOWN_IN_ROOMS = frozenset({"displayname", "avatar_url"})


class ProfileEndpoints:
    """Profiles of everybody, and the fields that a user sets in their own."""

    def __init__(self, own: LocalServer, http: ClientHttp, sender: LocalSender) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._http = http
        self._profiles = sender.profiles
        self._voice = sender
        self._crossings = Crossings(own.ctx)

    def public_routes(self) -> Mapping[tuple[str, str], PublicHandler]:
        """Returns the endpoints that need no token."""
        return {
            ("GET", "/v3/profile/{user}"): self.get_profile,
            ("GET", "/v3/profile/{user}/{field}"): self.get_field,
        }

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {
            ("PUT", "/v3/profile/{user}/{field}"): RateLimited(self.set_field),
            ("DELETE", "/v3/profile/{user}/{field}"): RateLimited(self.remove_field),
        }

    async def _get_profile(self, user: str, field: str = "") -> Mapping[str, Any]:
        if not ids.is_valid_user_id(user):
            raise matrix_error(400, "M_INVALID_PARAM", f"{user[:80]!r} is not a user ID")
        server = ids.domain_of(user)
        if server != self._own.server:
            await require_allowed(self._ctx, self._crossings.profile_query(server, user, outbound=True))
        try:
            found = await self._profiles.get_profile(user, field)
        except RemoteError as problem:
            raise matrix_error(404, "M_NOT_FOUND", f"there is no {user}") from problem
        except REQUEST_FAILURES as problem:
            raise matrix_error(502, "M_UNKNOWN", str(problem)) from problem
        if found is None:
            raise matrix_error(404, "M_NOT_FOUND", f"there is no {user}")
        return found

    async def get_profile(self, request: Request, _body: Any) -> Any:
        """``GET /profile/{userId}``."""
        await self._http.require_token_for_remote(request, ids.domain_of(request.path["user"]))
        return await self._get_profile(request.path["user"])

    async def get_field(self, request: Request, _body: Any) -> Any:
        """``GET /profile/{userId}/{keyName}``."""
        name = request.path["field"]
        await self._http.require_token_for_remote(request, ids.domain_of(request.path["user"]))
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
        if self._ctx.has_policies:
            await require_allowed(
                self._ctx, self._crossings.profile_change(user, texts_of_values(**{name: value}))
            )
        try:
            await self._profiles.set_field(user, name, value)
        except LocalProtocolError as problem:
            large = "at most" in str(problem)
            code = "M_PROFILE_TOO_LARGE" if large else "M_KEY_TOO_LARGE"
            raise matrix_error(400, code, str(problem)) from problem
        if name not in _SHOWN_IN_ROOMS:
            return
        for stay in list(self._own.memberships.memberships_of(user).values()):
            room = self._own.rooms.get(stay.room_id) if stay.membership == "join" else None
            member = await self._voice.state_event(room, MEMBER, user) if room is not None else None
            if room is None or member is None or member.content.get(name) == value:
                continue
            content = {k: v for k, v in member.content.items() if k not in {name, "membership", "reason"}}
            more = {**content, **({name: value} if value is not None else {})}
            try:
                await self._voice.send_membership(user, stay.room_id, user, "join", more, follows=True)
            except RemoteProtocolError as problem:
                self._ctx.log.info("%s keeps another %s in %s: %s", user, name, stay.room_id, problem)
