"""The endpoints that read rooms. SPEC: client-server API, "Getting events for a room", "Event context"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hansa import Membership, Request

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.client_services import RoomReading
from hansa_matrix.client_api.http import Handler, RateLimited, get_int
from hansa_matrix.client_api.rooms.pagination import FetchBudget, PaginationToken, parse_token
from hansa_matrix.client_api.sync.filters import EventFilter
from hansa_matrix.errors import matrix_error
from hansa_matrix.local.memberships import LocalMembership
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.state_content import avatar_url, display_name
from hansa_matrix.rooms.access.user_visibility import drop_ignored
from hansa_matrix.rooms.directory.public_rooms import PublicRoomList
from hansa_matrix.rooms.directory.room_summaries import event_nearest
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom

_MAX_LIMIT, _DEFAULT_LIMIT = 500, 10
_MEMBERSHIPS = frozenset({"", "join", "invite", "knock", "leave", "ban"})
#: Withheld events before a place that say nothing of who may know of it.
_MAX_WITHHELD = 20
#: Pages that are looked through for events that a reader may see before one is answered that has few.
_MAX_PAGES = 20


class ReadEndpoints:
    """The past and the present of rooms that a user is in, was in, or may look into."""

    def __init__(self, own: LocalServer, reading: RoomReading, directory: PublicRoomList) -> None:
        self._attendance = own.memberships
        self._rooms = own.rooms
        self._readable = reading.rooms
        self._visibility = reading.visibility
        self._shapes = reading.formatter
        self._timeline = reading.timeline
        self._data = reading.data
        self._directory = directory

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        room = "/v3/rooms/{room}"
        return {
            ("GET", f"{room}/initialSync"): self.initial_sync,
            ("GET", f"{room}/messages"): self.get_messages,
            ("GET", f"{room}/event/{{event}}"): self.get_event,
            ("GET", f"{room}/context/{{event}}"): self.get_context,
            ("GET", f"{room}/state"): self.get_state,
            ("GET", f"{room}/state/{{type}}"): self.get_state_event,
            ("GET", f"{room}/state/{{type}}/{{key}}"): self.get_state_event,
            ("GET", f"{room}/members"): self.get_members,
            ("GET", f"{room}/joined_members"): self.get_joined_members,
            ("GET", "/v1/rooms/{room}/timestamp_to_event"): self.timestamp_to_event,
        }

    async def _visible_state(self, caller: Requester, room: MatrixRoom) -> Mapping[StateKey, str]:
        """Returns the state that a user may know: the current one, or the one when they left."""
        stay = self._attendance.membership_of(caller.user, room.room_id)
        if stay is not None and stay.membership in {"leave", "ban"}:
            left = (await room.events.load([stay.event_id], room.version)).get(stay.event_id)
            if left is None or not await self._visibility.was_in(room, left):
                if await self._visibility.is_world_readable(room):
                    return await room.state()
                raise matrix_error(403, "M_FORBIDDEN", f"{caller.user} was never in that room")
            return await room.groups.load(left.after)
        return await room.state()

    async def _require_unignored_event(
        self, caller: Requester, request: Request
    ) -> tuple[MatrixRoom, StoredEvent]:
        """Returns the event of a path, if the user may see it and does not ignore its sender. Raises the
        error answer for any other.
        """
        room, found = await self._readable.require_event(caller, request.path["room"], request.path["event"])
        if not drop_ignored([found], await self._data.ignored_users(caller.user)):
            raise matrix_error(404, "M_NOT_FOUND", "you ignore the sender of this event")
        return room, found

    async def initial_sync(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /rooms/{roomId}/initialSync``. SPEC: client-server API, "Room previews"."""
        room = await self._readable.require_room(caller, request.path["room"])
        state = (await room.places_of(await self._visible_state(caller, room))).values()
        stay = self._attendance.membership_of(caller.user, room.room_id)
        end = PaginationToken(position=await self._stream_end(room, stay))
        start: PaginationToken | None = end
        most, ignored = (
            get_int(request, "limit", _DEFAULT_LIMIT, 100),
            await self._data.ignored_users(caller.user),
        )
        events: list[StoredEvent] = []
        for _ in range(_MAX_PAGES):
            if start is None or len(events) >= most:
                break
            page, before = await self._timeline.page_back(room, start, most - len(events))
            if not page and before == start:  # others have more, and do not give it now
                break
            start = before
            seen = drop_ignored(await self._visibility.filter_visible(caller.user, room, page), ignored)
            events = seen[::-1] + events
        published = room.room_id in await self._directory.list_rooms()
        own = await self._data.for_room(caller.user, room.room_id)
        answer: dict[str, Any] = {
            "room_id": room.room_id,
            "state": await self._shapes.format_state(caller, room, state),
            "messages": {
                "chunk": await self._shapes.format_events(caller, room, events),
                "start": str(start or PaginationToken(depth=0)),
                "end": str(end),
            },
            "visibility": "public" if published else "private",
            "account_data": [{"type": type_, "content": content} for type_, content in own.items()],
        }
        if stay is not None:
            answer["membership"] = stay.membership
        return answer

    async def _stream_end(self, room: MatrixRoom, stay: LocalMembership | None) -> int:
        """Returns the end of a room's stream for a user: now, or when they left."""
        news = self._attendance.news
        if (
            stay is not None
            and stay.membership in {"leave", "ban"}
            and not await self._visibility.is_world_readable(room)
        ):
            return await news.position_of(room.room_id, stay.event_id)
        newest = await news.last_items(room.room_id, 2**53, 1)
        return newest[0].position if newest else 0

    async def get_messages(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /messages``."""
        room = await self._readable.require_room(caller, request.path["room"])
        direction = request.first("dir", "b")
        if direction not in {"b", "f"}:
            raise matrix_error(400, "M_INVALID_PARAM", "dir is b or f")
        most = get_int(request, "limit", _DEFAULT_LIMIT, _MAX_LIMIT)
        wanted = EventFilter.from_query(request.first("filter"))
        if request.first("from"):
            start = parse_token(request.first("from"))
        else:
            start = PaginationToken(position=2**53) if direction == "b" else PaginationToken(depth=0)
        limit = parse_token(request.first("to")) if request.first("to") else None
        # Where the page ends if nothing lies behind it.
        last = limit or (PaginationToken(depth=0) if direction == "b" else start)
        ignored = await self._data.ignored_users(caller.user)
        chunk: list[StoredEvent] = []
        place: PaginationToken | None = start
        asks = FetchBudget()
        for _ in range(_MAX_PAGES):
            if place is None or len(chunk) >= most:
                break
            if direction == "b":
                page, before = await self._timeline.page_back(room, place, most - len(chunk), asks)
                if not page and before == place:  # others have more, and do not give it now
                    break
                place = before
            else:
                page, after = await self._timeline.page_forward(room, place, most - len(chunk))
                last = limit or after
                place = None if after == place else after
            if limit is not None and (place is None or _is_beyond(place, limit, direction)):
                page, place = await self._clip_at_token(room, page, limit, direction), None
            seen = drop_ignored(await self._visibility.filter_visible(caller.user, room, page), ignored)
            chunk += [one for one in seen if wanted.matches_event(one.pdu)]
            if direction == "f" and not page:
                break
        answer: dict[str, Any] = {
            "start": str(start),
            "chunk": await self._shapes.format_events(caller, room, chunk),
        }
        # COMPAT: clients, nheko for one, drop a page without ``end``, so that only an empty one is the last.
        if place is not None or chunk:
            answer["end"] = str(place or last)
        if wanted.lazy:
            answer["state"] = await self._lazy_members(caller, room, chunk)
        return answer

    async def _clip_at_token(
        self, room: MatrixRoom, page: Sequence[StoredEvent], limit: PaginationToken, direction: str
    ) -> list[StoredEvent]:
        """Of a page what lies before a place, seen in its direction."""
        found: list[StoredEvent] = []
        for one in page:
            before, after = await self._timeline.tokens_around(room, one)
            if _is_beyond(before if direction == "b" else after, limit, direction):
                break
            found.append(one)
        return found

    async def _lazy_members(
        self, caller: Requester, room: MatrixRoom, events: Sequence[StoredEvent]
    ) -> list[Mapping[str, Any]]:
        """The member events of who says something, as they are now."""
        keys = {(MEMBER, one.pdu.sender) for one in events}
        members = await room.places_of(await room.state(), keys)
        return await self._shapes.format_state(caller, room, members.values())

    async def get_event(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /event/{eventId}``."""
        room, found = await self._require_unignored_event(caller, request)
        (shown,) = await self._shapes.format_events(caller, room, [found])
        return shown

    async def get_context(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /context/{eventId}``."""
        room, found = await self._require_unignored_event(caller, request)
        most = get_int(request, "limit", _DEFAULT_LIMIT, 100)
        wanted = EventFilter.from_query(request.first("filter"))
        before, after = await self._timeline.tokens_around(room, found)
        earlier, start = await self._timeline.page_back(room, before, most // 2)
        later, end = await self._timeline.page_forward(room, after, most - most // 2)
        ignored = await self._data.ignored_users(caller.user)
        seen = [
            drop_ignored(await self._visibility.filter_visible(caller.user, room, e), ignored)
            for e in (earlier, later)
        ]
        earlier, later = ([one for one in part if wanted.matches_event(one.pdu)] for part in seen)
        last = later[-1] if later else found
        state = await room.groups.load(last.after or last.before)
        if wanted.lazy:
            named = {(MEMBER, s.pdu.sender) for s in (*earlier, found, *later)}
            state = {k: v for k, v in state.items() if k[0] != MEMBER or k in named}
        (shown,) = await self._shapes.format_events(caller, room, [found])
        return {
            "event": shown,
            "events_before": await self._shapes.format_events(caller, room, earlier),
            "events_after": await self._shapes.format_events(caller, room, later),
            "state": await self._shapes.format_state(caller, room, (await room.places_of(state)).values()),
            "start": str(start or before),
            "end": str(end),
        }

    async def get_state(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /state``."""
        room = await self._readable.require_room(caller, request.path["room"])
        events = await room.places_of(await self._visible_state(caller, room))
        return await self._shapes.format_state(caller, room, events.values())

    async def get_state_event(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /state/{eventType}/{stateKey}``: what it says, or with ``format=event`` all of it."""
        room = await self._readable.require_room(caller, request.path["room"])
        key = (request.path["type"], request.path.get("key", ""))
        event = (await room.shown_of(await self._visible_state(caller, room), [key])).get(key)
        if event is None:
            raise matrix_error(404, "M_NOT_FOUND", "there is no such state")
        if request.first("format", "content") != "event":
            return event.content
        stored = (await room.events.load([event.event_id], room.version))[event.event_id]
        (shown,) = await self._shapes.format_events(caller, room, [replace(stored, pdu=event)])
        return shown

    async def get_members(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /members``, now or at a token."""
        room = await self._readable.require_room(caller, request.path["room"])
        state = await self._visible_state(caller, room)
        kept, left = request.first("membership"), request.first("not_membership")
        if not {kept, left} <= _MEMBERSHIPS:
            raise matrix_error(400, "M_INVALID_PARAM", "a membership is join, invite, knock, leave or ban")
        if request.first("at"):
            state = await self._state_at_token(caller, room, parse_token(request.first("at")), state)
        members = await room.places_of(state, [key for key in state if key[0] == MEMBER])
        events = [
            one
            for one in members.values()
            if not (kept or left)
            or (kept and one.pdu.membership == kept)
            or (left and one.pdu.membership != left)
        ]
        return {"chunk": await self._shapes.format_state(caller, room, events)}

    async def _state_at_token(
        self, caller: Requester, room: MatrixRoom, place: PaginationToken, present: Mapping[StateKey, str]
    ) -> Mapping[StateKey, str]:
        """Returns the state at a place: nothing before the first event. Raises the error answer for a place
        that the user may not know; for a user who left the room the present is the time of their leave.
        """
        earlier, _ = await self._timeline.page_back(room, place, _MAX_WITHHELD)
        told = [one for one in await room.judged(earlier) if one.shown]
        if not earlier:
            return {}
        if not told or await self._visibility.filter_visible(caller.user, room, told[:1]):
            return await room.groups.load(earlier[0].after)
        stay = self._attendance.membership_of(caller.user, room.room_id)
        if stay is not None and stay.membership != "join":
            return present
        raise matrix_error(403, "M_FORBIDDEN", "who was in the room then is not for you to know")

    async def get_joined_members(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /joined_members``."""
        room, stay = (
            self._rooms.get(request.path["room"]),
            self._attendance.membership_of(caller.user, request.path["room"]),
        )
        if room is None or stay is None or stay.membership != "join":
            raise matrix_error(403, "M_FORBIDDEN", f"{caller.user} is not in that room")
        state = await room.state()
        members = await room.shown_of(state, [key for key in state if key[0] == MEMBER])
        return {
            "joined": {
                str(pdu.state_key): _profile_of(pdu)
                for pdu in members.values()
                if pdu.membership == Membership.JOIN.value
            }
        }

    async def timestamp_to_event(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /timestamp_to_event``."""
        room = await self._readable.require_room(caller, request.path["room"])
        found = await event_nearest(self._directory, room, request)
        await self._readable.require_event(caller, room.room_id, found.event_id)
        return {"event_id": found.event_id, "origin_server_ts": found.origin_server_ts}


def _profile_of(pdu: Pdu) -> dict[str, Any]:
    # COMPAT: matrix-nio refuses an answer in which one of the two is missing; Synapse gives null.
    return {"display_name": display_name(pdu.content), "avatar_url": avatar_url(pdu.content)}


def _is_beyond(place: PaginationToken, limit: PaginationToken, direction: str) -> bool:
    """True if a page that ends at ``place`` goes beyond ``limit``."""
    return place.order < limit.order if direction == "b" else place.order > limit.order
