"""The relations of an event, and the threads of a room. SPEC: client-server API, "Relationships API",
"Querying threads in a room".

Relations are paged by their place among those of the same event. A token of this endpoint lies before the
relation that it names, or with a ``~`` behind it; one of ``/sync`` or ``/messages`` lies where it lies in the
room.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hansa import Request, Row

from hansa_matrix.bounds.key_locks import KeyLocks
from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.client_services import RoomReading
from hansa_matrix.client_api.http import Handler, RateLimited, get_int
from hansa_matrix.client_api.rooms.pagination import PaginationToken, parse_token
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto.pdu import redact_pdu
from hansa_matrix.rooms.access.user_visibility import drop_ignored
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.relations import THREAD, event_ids_of, relation_target
from hansa_matrix.rooms.room import MatrixRoom

_TOKEN = re.compile(r"[0-9]{16}_[0-9]{16}_[0-9a-f]{16}~?", re.ASCII)
#: The end of all places in a token.
_AFTER_ALL = "~"
_DEFAULT_LIMIT, _MAX_LIMIT, _PAGE_SIZE = 20, 100, 500
#: Pages that are looked through for what is wanted before one is answered that has little.
_MAX_PAGES = 20
#: Relations of relations that are followed with ``recurse``, and how many are gathered in all.
MAX_RECURSION, MAX_GATHERED = 3, 5000
#: Answers of a thread that are looked at together for the newest that a reader may read.
_THREAD_PAGE_SIZE = 50

#: Rows behind a place in the direction of reading, as many as said.
_Source = Callable[[str | None, int], Awaitable[list[Row]]]


@dataclass(frozen=True, slots=True)
class _Edge:
    """Where a page begins or ends: among relations, or in the room."""

    place: str = ""
    room: PaginationToken | None = None

    def cursor(self, *, newest_first: bool) -> str | None:
        """Behind what the rows of a page are, as the store compares."""
        if not self.place:
            return None
        if newest_first:
            return self.place
        return self.place[:-1] if self.place.endswith(_AFTER_ALL) else _predecessor_of(self.place)


class RelationEndpoints:
    """The endpoints of relations and threads."""

    def __init__(self, reading: RoomReading) -> None:
        self._readable = reading.rooms
        self._visibility = reading.visibility
        self._shapes = reading.formatter
        self._timeline = reading.timeline
        self._data = reading.data
        #: By user: relations of relations take thousands of reads, so a user has one such request at a time.
        self._gathering = KeyLocks()

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        relations = "/v1/rooms/{room}/relations/{event}"
        return {
            ("GET", relations): self.get_relations,
            ("GET", f"{relations}/{{kind}}"): self.get_relations,
            ("GET", f"{relations}/{{kind}}/{{type}}"): self.get_relations,
            ("GET", "/v1/rooms/{room}/threads"): self.get_threads,
        }

    async def get_relations(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /relations/{eventId}/{relType}/{eventType}``."""
        room, found = await self._readable.require_event(caller, request.path["room"], request.path["event"])
        most, recurse = (
            max(1, get_int(request, "limit", _DEFAULT_LIMIT, _MAX_LIMIT)),
            request.first("recurse", "false"),
        )
        way, type_ = request.first("dir", "b"), request.path.get("type")
        if way not in {"b", "f"} or recurse not in {"true", "false"}:
            raise matrix_error(400, "M_INVALID_PARAM", "dir is b or f, and recurse true or false")
        newest_first = way == "b"
        start, end = (
            _parse_edge(request.first("from") or request.first("since")),
            _parse_edge(request.first("to")),
        )
        event_id, kind = found.pdu.event_id, request.path.get("kind")
        if recurse == "true":
            async with self._gathering.hold_key(caller.user):
                source = await self._recursive_source(room, event_id, kind, newest_first=newest_first)
        else:
            source = self._direct_source(room, event_id, kind, newest_first=newest_first)
        rows, more = list[Row](), True
        cursor, before = start.cursor(newest_first=newest_first), start.room
        for _ in range(_MAX_PAGES):
            page = await source(cursor, _PAGE_SIZE)
            more, cursor = len(page) == _PAGE_SIZE, str(page[-1].fields["place"]) if page else cursor
            if before is not None:
                page = await self._clip_start(room, page, before, newest_first=newest_first)
                before = None if page else before
            rows += [row for row in page if type_ in {None, row.fields["type"]}]
            if not more or len(rows) > most:
                break
        if len(rows) > most:
            rows, more, cursor = rows[:most], True, str(rows[most - 1].fields["place"])
        inside = await self._clip_end(room, rows, end, newest_first=newest_first)
        seen = await self._visibility.filter_bundled(caller.user, room, event_ids_of(inside))
        visible = [seen[event_id] for event_id in event_ids_of(inside) if event_id in seen]
        answer: dict[str, Any] = {"chunk": await self._shapes.format_events(caller, room, visible)}
        if more and cursor is not None and len(inside) == len(rows):
            answer["next_batch"] = cursor if newest_first else cursor + _AFTER_ALL
        if inside and request.first("from"):
            first = str(inside[0].fields["place"])
            answer["prev_batch"] = first + _AFTER_ALL if newest_first else first
        if request.first("recurse"):
            answer["recursion_depth"] = MAX_RECURSION if recurse == "true" else 0
        return answer

    def _direct_source(
        self, room: MatrixRoom, event_id: str, kind: str | None, *, newest_first: bool
    ) -> _Source:
        async def read_page(after: str | None, most: int) -> list[Row]:
            return await self._shapes.related.page(
                room.room_id, event_id, most, kind=kind, after=after, newest_first=newest_first
            )

        return read_page

    async def _recursive_source(
        self, room: MatrixRoom, event_id: str, kind: str | None, *, newest_first: bool
    ) -> _Source:
        """Collects the relations of an event, and theirs in turn, in one order. Of very many only the newest
        are read.
        """
        rows: dict[str, Row] = {}
        level = [event_id]
        for _ in range(MAX_RECURSION + 1):
            new: dict[str, Row] = {}
            for target in await self._shapes.related.targets(level):
                after: str | None = None
                while len(rows) + len(new) < MAX_GATHERED:
                    page = await self._shapes.related.page(
                        room.room_id, target, _PAGE_SIZE, after=after, newest_first=True
                    )
                    new |= {str(row.key[1]): row for row in page if row.key[1] not in rows}
                    if len(page) < _PAGE_SIZE:
                        break
                    after = str(page[-1].fields["place"])
            rows |= new
            level = list(new)
        rows.pop(event_id, None)
        wanted = [row for row in rows.values() if kind in {None, row.fields["kind"]}]
        wanted.sort(key=lambda row: str(row.fields["place"]), reverse=newest_first)

        async def read_page(after: str | None, most: int) -> list[Row]:
            def is_after(row: Row) -> bool:
                place = str(row.fields["place"])
                return after is None or (place < after if newest_first else place > after)

            return [row for row in wanted if is_after(row)][:most]

        return read_page

    async def _clip_start(
        self, room: MatrixRoom, page: Sequence[Row], start: PaginationToken, *, newest_first: bool
    ) -> list[Row]:
        """Returns the part of a page behind a place in the room. The relations of an event are in the order
        of their arrival, as the room is.
        """
        low, high = 0, len(page)
        while low < high:
            middle = (low + high) // 2
            if await self._lies_behind(room, page[middle], start, newest_first=newest_first):
                high = middle
            else:
                low = middle + 1
        return list(page[low:])

    async def _clip_end(
        self, room: MatrixRoom, rows: Sequence[Row], end: _Edge, *, newest_first: bool
    ) -> Sequence[Row]:
        """Rows up to the end of what is wanted."""
        at = end.cursor(newest_first=newest_first)
        for count, row in enumerate(rows):
            place = str(row.fields["place"])
            beyond = at is not None and (place < at if newest_first else place > at)
            if end.room is not None:
                beyond = await self._lies_behind(room, row, end.room, newest_first=newest_first)
            if beyond:
                return rows[:count]
        return rows

    async def _lies_behind(
        self, room: MatrixRoom, row: Row, place: PaginationToken, *, newest_first: bool
    ) -> bool:
        """True if the event of a row lies behind a place in the room, in the direction of reading."""
        event_id = str(row.key[1])
        stored = (await room.events.load([event_id], room.version)).get(event_id)
        if stored is None:
            return True
        before, after = await self._timeline.tokens_around(room, stored)
        return after.order <= place.order if newest_first else before.order >= place.order

    async def get_threads(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /threads``: the roots, those with the newest answer first. A root stands where its newest
        answer does that the reader may read, and nowhere else.
        """
        room = await self._readable.require_room(caller, request.path["room"])
        most = max(1, get_int(request, "limit", _DEFAULT_LIMIT, _MAX_LIMIT))
        include = request.first("include", "all")
        if include not in {"all", "participated"}:
            raise matrix_error(400, "M_INVALID_PARAM", "include is all or participated")
        ignored = await self._data.ignored_users(caller.user)
        token = request.first("from")
        place: PaginationToken | None = parse_token(token) if token else PaginationToken(position=2**53)
        found: list[StoredEvent] = []
        for _ in range(_MAX_PAGES):
            if place is None or len(found) >= most:
                break
            page, place = await self._timeline.page_back(room, place, _PAGE_SIZE)
            answers = [one for one in page if _thread_root_of(one)]
            for one in drop_ignored(
                await self._visibility.filter_visible(caller.user, room, answers), ignored
            ):
                root = await self._root_shown_at(caller.user, room, one, ignored)
                if root is None:
                    continue
                if include == "all" or await self._shapes.has_participated(caller.user, room, root.pdu):
                    found.append(root)
                if len(found) == most:
                    place = (await self._timeline.tokens_around(room, one))[0]
                    break
        answer: dict[str, Any] = {"chunk": await self._shapes.format_events(caller, room, found)}
        if place is not None:
            answer["next_batch"] = str(place)
        return answer

    async def _root_shown_at(
        self, user: str, room: MatrixRoom, answer: StoredEvent, ignored: frozenset[str]
    ) -> StoredEvent | None:
        """The root of the thread of an answer, if that is the newest that the reader may read. The root's
        content is not shown if they ignore its sender.
        """
        name, after = _thread_root_of(answer), None
        for _ in range(_MAX_PAGES):
            rows = await self._shapes.related.page(
                room.room_id, name, _THREAD_PAGE_SIZE, kind=THREAD, after=after, newest_first=True
            )
            ids = event_ids_of(rows)
            seen = await self._visibility.filter_bundled(user, room, ids) if ids else {}
            newest = next((e for e in ids if e in seen), None)
            if newest is not None or len(rows) < _THREAD_PAGE_SIZE:
                break
            after = str(rows[-1].fields["place"])
        if newest != answer.pdu.event_id:
            return None
        loaded = (await room.events.load([name], room.version)).values()
        for root in await self._visibility.filter_visible(user, room, list(loaded)):
            if root.pdu.sender in ignored:
                return replace(root, pdu=redact_pdu(root.pdu, room.version))
            return root
        return None


def _thread_root_of(one: StoredEvent) -> str:
    """The root of the thread that an event is an answer in."""
    related = relation_target(one.pdu)
    return related[0] if related is not None and related[1] == THREAD else ""


def _parse_edge(token: str) -> _Edge:
    """Parses a token. Raises the error answer if it is not one."""
    if not token:
        return _Edge()
    return _Edge(token) if _TOKEN.fullmatch(token) else _Edge(room=parse_token(token))


def _predecessor_of(name: str) -> str:
    """The greatest text that is less than a name which ends with a hexadecimal digit."""
    last = int(name[-1], 16)
    return name[:-1] + (f"{last - 1:x}{_AFTER_ALL}" if last else "")
