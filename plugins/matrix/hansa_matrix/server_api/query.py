"""The endpoints about aliases, profiles and devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hansa import NetworkContext, Request, Response, Router

from hansa_matrix.crossings import Crossings, require_allowed
from hansa_matrix.errors import json_response, matrix_error
from hansa_matrix.proto import ids
from hansa_matrix.proto.devices import UserDevices
from hansa_matrix.rooms.access.server_access import ServerAccess
from hansa_matrix.rooms.directory.aliases import room_id_of
from hansa_matrix.server_api.auth import FederationHandler
from hansa_matrix.users.openid import OpenId
from hansa_matrix.users.user_services import Users


class QueryEndpoints:
    """Questions about rooms' names and people."""

    def __init__(self, entitled: ServerAccess, known: Users) -> None:
        self._entitled = entitled
        self._known = known
        self._own = entitled.own
        self._ctx: NetworkContext = entitled.own.ctx
        self._crossings = Crossings(entitled.own.ctx)

    def routes(self) -> Mapping[tuple[str, str], FederationHandler]:
        """See ``auth.FederationEndpoints.routes``."""
        return {
            ("GET", "/v1/query/directory"): self.directory,
            ("GET", "/v1/query/profile"): self.profile,
            ("GET", "/v1/user/devices/{user}"): self.devices,
            ("POST", "/v1/user/keys/query"): self.keys_query,
            ("POST", "/v1/user/keys/claim"): self.keys_claim,
        }

    async def directory(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /query/directory``."""
        alias = request.first("room_alias")
        await require_allowed(self._ctx, self._crossings.directory_query(origin, alias[:255], outbound=False))
        room_id = await room_id_of(self._ctx.store, alias) if ids.is_valid_alias(alias) else None
        if room_id is None:
            raise matrix_error(404, "M_NOT_FOUND", "no room of this server has that alias")
        view = self._ctx.get_view(room_id)
        servers = {s for n, s in view.joined_servers if n == self._ctx.id} if view else set()
        return {"room_id": room_id, "servers": [self._own.server, *sorted(servers - {self._own.server})]}

    async def profile(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /query/profile``."""
        user = request.first("user_id")
        mine = ids.is_valid_user_id(user) and ids.domain_of(user) == self._own.server
        if mine:
            await require_allowed(self._ctx, self._crossings.profile_query(origin, user, outbound=False))
        profile = await self._known.profiles.get_profile(user, request.first("field")) if mine else None
        if profile is None:
            raise matrix_error(404, "M_NOT_FOUND", "no such user here")
        return profile

    async def devices(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /user/devices``: a ghost has none."""
        user = request.path["user"]
        if not ids.is_valid_user_id(user) or ids.domain_of(user) != self._own.server:
            raise matrix_error(404, "M_NOT_FOUND", "no such user here")
        await require_allowed(self._ctx, self._crossings.keys_query(origin, [user], outbound=False))
        if not await self._known.company.is_local_user(user):
            return UserDevices(user=user, stream_id=0).query_response()
        return (await self._known.devices.get_public(user)).query_response()

    async def keys_query(self, origin: str, _request: Request, body: Any) -> Any:
        """``POST /user/keys/query``."""
        wanted = body.get("device_keys")
        if not isinstance(wanted, dict) or not all(_is_list_of_strings(named) for named in wanted.values()):
            raise matrix_error(400, "M_BAD_JSON", "device_keys must be an object of lists")
        await require_allowed(
            self._ctx, self._crossings.keys_query(origin, self._local_users(wanted), outbound=False)
        )
        return await self._known.keys.query_local(wanted, outside=True)

    async def keys_claim(self, origin: str, _request: Request, body: Any) -> Any:
        """``POST /user/keys/claim``."""
        wanted = body.get("one_time_keys")
        if not isinstance(wanted, dict) or not all(
            isinstance(devices, dict) and _is_list_of_strings(list(devices.values()))
            for devices in wanted.values()
        ):
            raise matrix_error(
                400, "M_BAD_JSON", "one_time_keys must be an object keyed by device ID and algorithm"
            )
        await require_allowed(
            self._ctx, self._crossings.keys_query(origin, self._local_users(wanted), outbound=False)
        )
        return {"one_time_keys": await self._known.keys.claim_local(wanted)}

    def _local_users(self, users: Iterable[str]) -> list[str]:
        return [u for u in users if ids.is_valid_user_id(u) and ids.domain_of(u) == self._own.server]


def add_openid_userinfo(router: Router, openid: OpenId) -> None:
    """``GET /openid/userinfo``, which no server signs: the token is all there is."""

    async def userinfo(request: Request) -> Response:
        user = await openid.user_of_token(request.first("access_token"))
        if user is None:
            raise matrix_error(401, "M_UNKNOWN_TOKEN", "unknown token")
        return json_response({"sub": user})

    router.add("GET", "/_matrix/federation/v1/openid/userinfo", userinfo)


def _is_list_of_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
