"""Spaces and summaries of rooms. SPEC: client-server API, "Spaces", "Room summary"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hansa import (
    NetworkContext,
    Request,
)

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import (
    Handler,
    RateLimited,
    get_int,
)
from hansa_matrix.client_api.rooms.room_entry import RoomEntry
from hansa_matrix.client_api.rooms.room_summary import AccessibleSummaries
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto.state_content import space_child
from hansa_matrix.rooms.directory.room_summaries import SPACE
from hansa_matrix.rooms.local_server import LocalServer

#: How many rooms of a space were given, down to which depth, and whether the suggested ones alone.
_TOKEN = re.compile(r"([0-9]{1,6})_([0-9]{1,2})_([01])", re.ASCII)
#: Rooms of a space that are looked at for one answer, and seconds in which other servers are asked.
_MAX_HIERARCHY_ROOMS, _HIERARCHY_TIMEOUT_S = 1000, 20.0


class HierarchyEndpoints:
    """The endpoints of summaries of rooms that a user is not in, alone and below a space."""

    def __init__(self, own: LocalServer, entry: RoomEntry, summaries: AccessibleSummaries) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._entry = entry
        self._summaries = summaries

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {
            ("GET", "/v1/rooms/{room}/hierarchy"): self.get_hierarchy,
            ("GET", "/v1/room_summary/{room}"): self.get_summary,
        }

    async def get_hierarchy(self, caller: Requester, request: Request, _body: Any) -> Any:
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
            one = await self._summaries.get_summary(
                caller.user, room_id, [] if late else via, suggested=suggested
            )
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

    async def get_summary(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /room_summary/{roomIdOrAlias}``."""
        address = request.path["room"]
        via = [v for k, v in request.query if k == "via"]
        room_id, servers = await self._entry.find_room(address, via)
        one = await self._summaries.get_summary(caller.user, room_id, servers, suggested=False)
        if one is None:
            raise matrix_error(404, "M_NOT_FOUND", "the room does not exist, or you may not see it")
        stay = self._own.memberships.membership_of(caller.user, room_id)
        one.pop("children_state", None)
        return {**one, "membership": stay.membership if stay is not None else "leave"}


def _child_order(child: Mapping[str, Any]) -> tuple[tuple[bool, str], int, str]:
    """The place of a room in a space, by what any server says of it."""
    content, ts, room_id = child.get("content"), child.get("origin_server_ts"), child.get("state_key")
    place = space_child(content if isinstance(content, dict) else None).sort_key
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
