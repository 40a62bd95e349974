"""The rooms that two people share. SPEC: client-server API, "Mutual Rooms"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import Membership, NativeId, NetworkContext, Request

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import Handler, RateLimited
from hansa_matrix.errors import matrix_error
from hansa_matrix.local.memberships import LocalMemberships
from hansa_matrix.proto import ids

#: Rooms of one answer.
_PAGE_SIZE = 200


class MutualRooms:
    """Of the rooms that who asks is in."""

    def __init__(self, ctx: NetworkContext, attendance: LocalMemberships) -> None:
        self._ctx = ctx
        self._attendance = attendance

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {("GET", "/v1/mutual_rooms"): RateLimited(self.get_mutual_rooms)}

    async def get_mutual_rooms(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /mutual_rooms``. A token is the last room of the page before."""
        user, after = request.first("user_id"), request.first("from")
        if not user:
            raise matrix_error(400, "M_MISSING_PARAM", "user_id is missing")
        if not ids.is_valid_user_id(user) or user == caller.user:
            raise matrix_error(400, "M_INVALID_PARAM", "user_id must be your own")
        if after and not ids.is_valid_room_id(after):
            raise matrix_error(400, "M_INVALID_PARAM", "this token was not issued by this server")
        who = NativeId(self._ctx.id, user)
        rooms = [
            r for r, stay in self._attendance.memberships_of(caller.user).items() if stay.membership == "join"
        ]
        views = ((room_id, self._ctx.get_view(room_id)) for room_id in sorted(rooms))
        shared = [r for r, view in views if view is not None and view.membership(who) is Membership.JOIN]
        page = [room_id for room_id in shared if room_id > after]
        answer: dict[str, Any] = {"joined": page[:_PAGE_SIZE], "count": len(shared)}
        if len(page) > _PAGE_SIZE:
            answer["next_batch"] = page[_PAGE_SIZE - 1]
        return answer
