"""The reports of users to the operator. SPEC: client-server API, "Reporting Content"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from hansa import Append, Delete, NetworkContext, Request, Value

from hansa_matrix.bounds.bounded_rows import oldest_over
from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import Handler, RateLimited, get_string
from hansa_matrix.errors import matrix_error
from hansa_matrix.local.memberships import LocalMemberships
from hansa_matrix.proto import ids

_MAX_REASON, _PAGE_SIZE = 4000, 1000
#: Reports of one person, and of all: a further one takes the place of the first.
MAX_REPORTS_OF_USER, MAX_REPORTS = 500, 50_000


class Reports:
    """Kept for ``hansa matrix reports``, counted for an alarm."""

    def __init__(self, ctx: NetworkContext, attendance: LocalMemberships) -> None:
        self._ctx = ctx
        self._attendance = attendance

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {
            ("POST", "/v3/rooms/{room}/report"): RateLimited(self.report_room),
            ("POST", "/v3/rooms/{room}/report/{event}"): RateLimited(self.report_event),
            ("POST", "/v3/users/{user}/report"): RateLimited(self.report_user),
        }

    def admin_commands(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """See ``hansa.HasAdminCommands.admin_commands``."""
        return {"reports ls": self._list_reports}

    async def _list_reports(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows = await self._ctx.store.scan("report", limit=_PAGE_SIZE, reverse=True)
        return [orjson.loads(row.body) for row in reversed(rows)]

    async def _store_report(self, caller: Requester, body: Mapping[str, Any], **what: str) -> dict[str, Any]:
        reason = get_string(body, "reason", "")[:_MAX_REASON]
        now = self._ctx.clock.now()
        told = {"at": now, "by": caller.user, "reason": reason, **what}
        store, fields = self._ctx.store, dict[str, Value](by=caller.user, ts=now)
        gone = await oldest_over(
            self._ctx, "report", "position", MAX_REPORTS_OF_USER - 1, {"by": caller.user}
        )
        if not gone and await store.count("report") >= MAX_REPORTS:
            gone = [Delete("report", row.key) for row in await store.scan("report", limit=1)]
        await store.commit([*gone, Append("report", orjson.dumps(told), fields)])
        self._ctx.count("matrix_reports")
        return {}

    def _require_known_room(self, caller: Requester, room_id: str) -> None:
        if self._attendance.membership_of(caller.user, room_id) is None:
            raise matrix_error(404, "M_NOT_FOUND", "unknown room")

    async def report_room(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /rooms/{roomId}/report``."""
        self._require_known_room(caller, request.path["room"])
        return await self._store_report(caller, body, room=request.path["room"])

    async def report_event(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /rooms/{roomId}/report/{eventId}``."""
        self._require_known_room(caller, request.path["room"])
        if not ids.is_valid_event_id(request.path["event"]):
            raise matrix_error(400, "M_INVALID_PARAM", "this is not an event ID")
        return await self._store_report(caller, body, room=request.path["room"], event=request.path["event"])

    async def report_user(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /users/{userId}/report``."""
        if not ids.is_valid_user_id(request.path["user"]):
            raise matrix_error(400, "M_INVALID_PARAM", "this is not a user ID")
        return await self._store_report(caller, body, user=request.path["user"])
