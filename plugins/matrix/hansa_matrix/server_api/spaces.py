"""The public list, spaces and events by their time, for other servers.

SPEC: server-server API, "Public Room Directory", "Spaces", "Retrieving the event at a time".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import NetworkContext, Request

from hansa_matrix.crossings import Crossings, require_allowed
from hansa_matrix.rooms.access.server_access import ServerAccess
from hansa_matrix.rooms.directory.public_rooms import PublicRoomList
from hansa_matrix.rooms.directory.room_summaries import MAX_PUBLIC_ROOMS, RoomSummaries, event_nearest
from hansa_matrix.server_api.auth import FederationHandler


class SpaceEndpoints:
    """The endpoints that describe rooms to servers outside of them."""

    def __init__(self, entitled: ServerAccess, directory: PublicRoomList) -> None:
        self._entitled = entitled
        self._ctx: NetworkContext = entitled.own.ctx
        self._directory = directory
        self._spaces = RoomSummaries(entitled, directory)
        self._crossings = Crossings(entitled.own.ctx)

    def routes(self) -> Mapping[tuple[str, str], FederationHandler]:
        """See ``auth.FederationEndpoints.routes``."""
        return {
            ("GET", "/v1/publicRooms"): self.public,
            ("POST", "/v1/publicRooms"): self.search_public_rooms,
            ("GET", "/v1/hierarchy/{room}"): self.hierarchy,
            ("GET", "/v1/timestamp_to_event/{room}"): self.at,
        }

    async def public(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /publicRooms``."""
        await require_allowed(self._ctx, self._crossings.directory_query(origin, "", outbound=False))
        limit = request.first("limit")
        most = int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 6 else MAX_PUBLIC_ROOMS
        return await self._spaces.public_rooms_page(most, request.first("since"), {})

    async def search_public_rooms(self, origin: str, _request: Request, body: Any) -> Any:
        """``POST /publicRooms``."""
        await require_allowed(self._ctx, self._crossings.directory_query(origin, "", outbound=False))
        return await self._spaces.search_public_rooms(body)

    async def hierarchy(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /hierarchy``."""
        room = request.path["room"]
        await require_allowed(self._ctx, self._crossings.directory_query(origin, room[:255], outbound=False))
        suggested = request.first("suggested_only") == "true"
        return await self._spaces.hierarchy(room, origin, suggested=suggested)

    async def at(self, origin: str, request: Request, _body: Any) -> Any:
        """``GET /timestamp_to_event``."""
        room = await self._entitled.require_acl_allowed(request.path["room"], origin)
        await require_allowed(
            self._ctx, self._crossings.directory_query(origin, room.room_id, outbound=False)
        )
        found = await event_nearest(self._directory, room, request)
        return {"event_id": found.event_id, "origin_server_ts": found.origin_server_ts}
