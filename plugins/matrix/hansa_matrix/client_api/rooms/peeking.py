"""News of one room, also for who only looks into it. SPEC: client-server API, "Room previews"
(``GET /events``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hansa import NetworkContext, Request

from hansa_matrix.client_api.account.accounts import Accounts, Requester
from hansa_matrix.client_api.client_services import RoomReading
from hansa_matrix.client_api.http import Handler, RateLimited, get_int
from hansa_matrix.client_api.rooms.pagination import PaginationToken, parse_token
from hansa_matrix.errors import matrix_error
from hansa_matrix.rooms.access.user_visibility import drop_ignored
from hansa_matrix.rooms.local_server import LocalServer

#: Seconds that a request waits at most, and events of one answer.
_MAX_TIMEOUT_S, _MAX_EVENTS = 120.0, 100


class PeekEndpoints:
    """The endpoints for reading without joining."""

    def __init__(self, own: LocalServer, accounts: Accounts, reading: RoomReading) -> None:
        self._ctx: NetworkContext = own.ctx
        self._accounts = accounts
        self._news = own.memberships.news
        self._readable = reading.rooms
        self._visibility = reading.visibility
        self._shapes = reading.formatter
        self._timeline = reading.timeline
        self._data = reading.data

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {("GET", "/v3/events"): self.get_events}

    async def get_events(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /events`` of one room: at once where there is news, else when there is some or time is up."""
        room_id = request.first("room_id")
        if not room_id:
            raise matrix_error(
                400, "M_MISSING_PARAM", "room_id is missing: the news of all rooms are those of /sync"
            )
        token = request.first("from")
        start = parse_token(token) if token else PaginationToken(position=await self._news.now())
        seconds = min(get_int(request, "timeout", 0, 10**9) / 1000, _MAX_TIMEOUT_S)
        until = self._ctx.clock.monotonic() + seconds
        while True:
            room = await self._readable.require_room(caller, room_id)
            with self._news.subscribe_to([room_id]) as happened:
                page, end = await self._timeline.page_forward(room, start, _MAX_EVENTS)
                ignored = await self._data.ignored_users(caller.user)
                seen = drop_ignored(await self._visibility.filter_visible(caller.user, room, page), ignored)
                left = until - self._ctx.clock.monotonic()
                if seen or left <= 0:
                    chunk = await self._shapes.format_events(caller, room, seen)
                    return {"start": str(start), "end": str(end), "chunk": chunk}
                try:
                    async with asyncio.timeout(left):
                        await happened.wait()
                except TimeoutError:
                    continue
            if not await self._accounts.is_token_valid(caller):
                raise matrix_error(401, "M_UNKNOWN_TOKEN", "the device was logged out", soft_logout=False)
