"""Who is who here: aliases, profiles, devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import Membership as Standing
from hansa import NetworkContext, Person, Ref, Request

from hansa_matrix.federation.answers.entitled import Entitled
from hansa_matrix.federation.server import Answerer, error
from hansa_matrix.proto import ids


class People:
    """Questions about rooms' names and people."""

    def __init__(self, entitled: Entitled) -> None:
        self._entitled = entitled
        self._own = entitled.own
        self._ctx: NetworkContext = entitled.own.ctx

    def table(self) -> Mapping[tuple[str, str], Answerer]:
        """See ``server.Answers.table``."""
        return {
            ("GET", "/v1/query/directory"): self.directory,
            ("GET", "/v1/query/profile"): self.profile,
            ("GET", "/v1/user/devices/{user}"): self.devices,
            ("POST", "/v1/user/keys/query"): self.keys_query,
            ("POST", "/v1/user/keys/claim"): self.keys_claim,
        }

    async def directory(self, _origin: str, request: Request, _body: Any) -> Any:
        """``GET /query/directory``."""
        alias = request.first("room_alias")
        room_id = await self._entitled.rooms.alias(alias) if ids.valid_alias(alias) else None
        if room_id is None:
            raise error(404, "M_NOT_FOUND", "no room of this server has that alias")
        view = self._ctx.view(room_id)
        servers = {s for n, s in view.joined_servers if n == self._ctx.id} if view else set()
        return {"room_id": room_id, "servers": [self._own.server, *sorted(servers - {self._own.server})]}

    async def profile(self, _origin: str, request: Request, _body: Any) -> Any:
        """``GET /query/profile``: the name by which a person is known in a room."""
        user = request.first("user_id")
        if not ids.valid_user_id(user) or ids.domain_of(user) != self._own.server:
            raise error(404, "M_NOT_FOUND", "no such user here")
        person = await self._person(await self._ctx.home_of(user))
        if person is None:
            raise error(404, "M_NOT_FOUND", "no such user here")
        wanted = request.first("field")
        profile = {"displayname": person.name} if person.name else {}
        return profile if not wanted else {k: v for k, v in profile.items() if k == wanted}

    async def devices(self, _origin: str, request: Request, _body: Any) -> Any:
        """``GET /user/devices``: nobody here has any."""
        user = request.path["user"]
        if not ids.valid_user_id(user) or ids.domain_of(user) != self._own.server:
            raise error(404, "M_NOT_FOUND", "no such user here")
        return {"user_id": user, "stream_id": 0, "devices": []}

    async def keys_query(self, _origin: str, _request: Request, body: Any) -> Any:
        """``POST /user/keys/query``: nobody here has any."""
        if not isinstance(body.get("device_keys"), dict):
            raise error(400, "M_BAD_JSON", "device_keys is no object")
        return {"device_keys": {}, "master_keys": {}, "self_signing_keys": {}}

    async def _person(self, home: Ref) -> Person | None:
        for link in self._ctx.links():
            view = self._ctx.view(link.native.id)
            person = view.person(home) if view else None
            if person is not None and person.membership is Standing.JOIN:
                return person
        return None

    async def keys_claim(self, _origin: str, _request: Request, body: Any) -> Any:
        """``POST /user/keys/claim``: nobody here has any."""
        if not isinstance(body.get("one_time_keys"), dict):
            raise error(400, "M_BAD_JSON", "one_time_keys is no object")
        return {"one_time_keys": {}}
