"""The notifications of a user, newest first, from the stored events. SPEC: client-server API, "Listing
Notifications".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hansa import NetworkContext, Request

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.client_services import RoomReading
from hansa_matrix.client_api.http import Handler, RateLimited, get_int
from hansa_matrix.client_api.rooms.threads import find_thread_roots
from hansa_matrix.client_api.sync.unread_counts import Count, UnreadCounter
from hansa_matrix.errors import matrix_error
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom

_DEFAULT_LIMIT, _MAX_LIMIT = 20, 100
#: Pages of the stream that are looked through before one is answered that has few, and rows of each.
_MAX_PAGES, _PAGE_SIZE = 10, 300


class Notifications:
    """Judged by the rules of now: nothing is kept of who was told of what."""

    def __init__(self, own: LocalServer, reading: RoomReading, unread: UnreadCounter) -> None:
        self._ctx: NetworkContext = own.ctx
        self._attendance = own.memberships
        self._rooms = own.rooms
        self._visibility = reading.visibility
        self._shapes = reading.formatter
        self._unread = unread

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {("GET", "/v3/notifications"): RateLimited(self.get_notifications)}

    async def get_notifications(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /notifications``. A token is a position of the stream: the notifications come before it."""
        most = max(1, get_int(request, "limit", _DEFAULT_LIMIT, _MAX_LIMIT))
        loud, token = request.first("only") == "highlight", request.first("from")
        if token and (not token.isascii() or not token.isdigit() or len(token) > 18):
            raise matrix_error(400, "M_INVALID_PARAM", "this token was not issued by this server")
        now = await self._attendance.news.now()
        before = int(token) if token else now + 1
        found: list[dict[str, Any]] = []
        for _ in range(_MAX_PAGES):
            rows = await self._ctx.store.scan("news", after=before, limit=_PAGE_SIZE, reverse=True)
            here: dict[str, list[tuple[int, str]]] = {}
            for row in rows:
                stay = self._attendance.membership_of(caller.user, str(row.fields["topic"]))
                if stay is not None and stay.membership == "join":
                    here.setdefault(stay.room_id, []).append((row.position, str(row.fields["ref"])))
            page: list[tuple[int, dict[str, Any]]] = []
            for room_id, items in here.items():
                page += await self._notified_in_room(caller, self._rooms.get(room_id), items, now, loud=loud)
            page.sort(key=lambda one: -one[0])
            left = most - len(found)
            found += [one for _, one in page[:left]]
            if len(page) > left:
                before = page[left - 1][0]
            elif len(rows) < _PAGE_SIZE:
                return {"notifications": found}
            else:
                before = rows[-1].position
            if len(found) >= most:
                break
        return {"notifications": found, "next_token": str(before)}

    async def _notified_in_room(
        self,
        caller: Requester,
        room: MatrixRoom | None,
        items: Sequence[tuple[int, str]],
        now: int,
        *,
        loud: bool,
    ) -> list[tuple[int, dict[str, Any]]]:
        """Returns, by position, the notifications of a user among some events of a room."""
        if room is None:
            return []
        loaded = await room.readable([event_id for _, event_id in items])
        events = await self._visibility.filter_visible(caller.user, room, list(loaded.values()))
        verdicts = await self._unread.evaluate_events(caller.user, room, events)
        verdicts = {e: v for e, v in verdicts.items() if v.notify and (v.highlight or not loud)}
        wanted = [one for one in events if one.pdu.event_id in verdicts]
        if not wanted:
            return []
        counts = (await self._unread.get_counts(caller.user, room, now)).threads
        in_thread = await find_thread_roots(room, wanted)
        shown = await self._shapes.format_events(caller, room, wanted, room_id=False)
        by_id = {one.pdu.event_id: (one.pdu, event) for one, event in zip(wanted, shown, strict=True)}
        found: list[tuple[int, dict[str, Any]]] = []
        for position, event_id in items:
            if event_id not in by_id:
                continue
            pdu, event = by_id[event_id]
            if event["unsigned"]["membership"] != "join":  # they came in later
                continue
            first = counts.get(in_thread[event_id], Count()).first
            told = {
                "actions": verdicts[event_id].actions,
                "event": event,
                "read": not first or position < first,
                "room_id": room.room_id,
                "ts": pdu.origin_server_ts,
            }
            found.append((position, told))
        return found
