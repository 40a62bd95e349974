"""The public list of rooms. SPEC: client-server API, "Listed room directory"."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from hansa import (
    DirectoryPublish,
    NativeId,
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
    get_int,
)
from hansa_matrix.client_api.rooms.local_sender import LocalSender
from hansa_matrix.client_api.rooms.remote_rooms import RemoteRooms
from hansa_matrix.crossings import require_allowed
from hansa_matrix.errors import MatrixError, matrix_error
from hansa_matrix.federation.client import REQUEST_FAILURES
from hansa_matrix.proto import ids
from hansa_matrix.rooms.directory.public_rooms import PublicRoomList
from hansa_matrix.rooms.directory.room_summaries import RoomSummaries
from hansa_matrix.rooms.local_server import LocalServer

_VISIBILITIES = ("public", "private")


class RoomVisibilityEndpoints:
    """Says whether a room is in the public list of this server, and changes that."""

    def __init__(
        self, own: LocalServer, http: ClientHttp, sender: LocalSender, directory: PublicRoomList
    ) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._http = http
        self._voice = sender
        self._directory = directory

    def public_routes(self) -> Mapping[tuple[str, str], PublicHandler]:
        """Returns the endpoints that need no token."""
        return {("GET", "/v3/directory/list/room/{room}"): self.get_visibility}

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {("PUT", "/v3/directory/list/room/{room}"): self.set_visibility}

    async def get_visibility(self, request: Request, _body: Any) -> Any:
        """``GET /directory/list/room/{roomId}``: of a room that is not published, who is not in it learns no
        more than of one that is not there.
        """
        room_id = request.path["room"]
        if room_id in await self._directory.list_rooms():
            return {"visibility": _VISIBILITIES[0]}
        with contextlib.suppress(RemoteProtocolError):  # a token is not needed, so a bad one is none
            stay = self._own.memberships.membership_of((await self._http.authenticate(request)).user, room_id)
            if stay is not None and stay.membership == "join":
                return {"visibility": _VISIBILITIES[1]}
        raise matrix_error(404, "M_NOT_FOUND", "there is no such room in the public list")

    async def set_visibility(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /directory/list/room/{roomId}``, by who may say what a room is called."""
        wanted = body.get("visibility", "public")
        if wanted not in _VISIBILITIES:
            raise matrix_error(400, "M_INVALID_PARAM", "visibility must be public or private")
        room = self._voice.require_joined(caller.user, request.path["room"])
        if not caller.admin and not await self._voice.can_send_state(
            caller.user, room, "m.room.canonical_alias"
        ):
            raise matrix_error(403, "M_FORBIDDEN", "you need permission to send m.room.canonical_alias")
        if wanted == "public":
            await self._require_may_publish(caller.user, room.room_id)
        await self._directory.set_published(room.room_id, listed=wanted == "public", by=caller.user)
        return {}

    async def _require_may_publish(self, user: str, room_id: str) -> None:
        """Raises the error answer where a policy denies that a room is put into the public list."""
        view = self._ctx.get_view(room_id)
        await require_allowed(
            self._ctx,
            DirectoryPublish(
                network=self._ctx.id,
                user=NativeId(self._ctx.id, user),
                user_server=self._own.server,
                room=room_id,
                texts=(view.facts.name, view.facts.topic) if view is not None else (),
            ),
        )


class PublicRoomsEndpoints:
    """The public list of this server and of others."""

    def __init__(
        self, own: LocalServer, http: ClientHttp, summaries: RoomSummaries, remote: RemoteRooms
    ) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._http = http
        self._summaries = summaries
        self._remote = remote

    def public_routes(self) -> Mapping[tuple[str, str], PublicHandler]:
        """Returns the endpoints that need no token."""
        return {("GET", "/v3/publicRooms"): self.get_public_rooms}

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {("POST", "/v3/publicRooms"): self.search_public_rooms}

    async def get_public_rooms(self, request: Request, _body: Any) -> Any:
        """``GET /publicRooms``."""
        if not self._ctx.config.public_reading:
            await self._http.authenticate(request)
        await self._http.require_token_for_remote(request, request.first("server"))
        limit = get_int(request, "limit", 100, 1000)
        body: dict[str, Any] = {"limit": limit or 100}
        if request.first("since"):
            body["since"] = request.first("since")
        return await self._public_page(request.first("server"), body)

    async def search_public_rooms(self, _caller: Requester, request: Request, body: Any) -> Any:
        """``POST /publicRooms``."""
        return await self._public_page(request.first("server"), body)

    async def _public_page(self, server: str, body: Mapping[str, Any]) -> Any:
        if not server or server == self._own.server:
            return await self._summaries.search_public_rooms(body)
        if not ids.is_valid_server_name(server):
            raise matrix_error(400, "M_INVALID_PARAM", f"{server[:80]!r} is not a server name")
        try:
            return await self._remote.fetch_public_rooms(server, body)
        except MatrixError:  # a policy denies it
            raise
        except REQUEST_FAILURES as problem:
            raise matrix_error(502, "M_UNKNOWN", str(problem)) from problem
