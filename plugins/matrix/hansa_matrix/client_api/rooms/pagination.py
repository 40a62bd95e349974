"""A room's past, page by page, with tokens whose meaning never changes.

Events since a local user joined are paged by their position in the client stream. Earlier events, including
those still to be fetched from other servers, are paged by their depth as this server counts it, and so are
the events of times when no local user was in the room. ``s5`` lies behind position 5, ``d5`` before depth 5,
``d5s7`` before depth 5 in the absence behind position 7.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hansa import LocalProtocolError, LruCache, NetworkContext, RemoteProtocolError, Row, first_page

from hansa_matrix.bounds.key_locks import KeyLocks
from hansa_matrix.client_api.rooms.stream_gaps import StreamGap, StreamGaps, items_since_return
from hansa_matrix.errors import matrix_error
from hansa_matrix.local.client_stream import ClientStream
from hansa_matrix.rooms.event_store import StoredEvent, is_live, is_shown
from hansa_matrix.rooms.room import MAX_COUNT, MatrixRoom

_TOKEN = re.compile(
    r"(?:(?P<s>s)(?P<position>[0-9]{1,18})(?:_[0-9]{1,18}){0,2}(?:_[0-9a-f]{8})?"
    r"|d(?P<depth>[0-9]{1,19})(?:s(?P<since>[0-9]{1,18}))?)",
    re.ASCII,
)
_PAGE_SIZE = 200
#: Seconds that a reader waits for other servers' past, and events that are fetched at once.
_FETCH_TIMEOUT_S, _FETCH_LIMIT = 10.0, 100
#: Seconds for which no server is asked again for unavailable events of an absence, and the absences of
#: which that is remembered, of all rooms.
REFETCH_AFTER_S, _MAX_FAILED_GAPS = 60.0, 1000


@dataclass(frozen=True, slots=True)
class PaginationToken:
    """A point in a room's past. ``depth`` is -1 for one in the stream; one with both is in an absence."""

    position: int = -1
    depth: int = -1

    def __str__(self) -> str:
        if self.depth < 0:
            return f"s{self.position}"
        return f"d{self.depth}" if self.position < 0 else f"d{self.depth}s{self.position}"

    @property
    def order(self) -> tuple[bool, int, int]:
        """Less for what lies before."""
        if self.position < 0:
            return False, self.depth, 0
        return True, self.position, self.depth


def parse_token(token: str) -> PaginationToken:
    """Parses a token of this server. Raises the error answer if it is not one."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise matrix_error(400, "M_INVALID_PARAM", "this token was not issued by this server")
    if match["s"]:
        return PaginationToken(position=int(match["position"]))
    depth = min(int(match["depth"]), MAX_COUNT)
    return PaginationToken(position=int(match["since"] or -1), depth=depth)


@dataclass(slots=True)
class FetchBudget:
    """How often others may still be asked for one answer: each time its reader may wait for ten seconds."""

    left: int = 1


class RoomPaginator:
    """Pages of any room that we are or were in."""

    def __init__(
        self,
        ctx: NetworkContext,
        news: ClientStream,
        fetch: Callable[[Mapping[str, Any]], Awaitable[Any]],
    ) -> None:
        self._ctx = ctx
        self._news = news
        self._fetch = fetch
        self._absences = StreamGaps(news)
        #: Readers of one room's past wait for each other: what one has fetched the next one reads.
        self._fetching = KeyLocks()
        #: When others were asked in vain for an absence, by its room and end.
        self._vain: LruCache[tuple[str, int], float] = LruCache(_MAX_FAILED_GAPS)

    async def page_back(
        self, room: MatrixRoom, place: PaginationToken, most: int, asks: FetchBudget | None = None
    ) -> tuple[list[StoredEvent], PaginationToken | None]:
        """Up to ``most`` events before a place, newest first, and the place before them; None where the room
        begins. Where others give nothing the page goes on, up to what they would have to be asked for again.
        """
        if most <= 0:
            return [], place
        found: list[StoredEvent] = []
        asks = asks or FetchBudget()
        absences = await self._absences.gaps_of(room)
        while place.position >= 0:
            absence = _gap_at(absences, place.position)
            if absence is not None:
                depth = place.depth if place.depth >= 0 else absence.top
                meanwhile, end = await self._page_gap(room, absence, depth, most - len(found), asks)
                found += meanwhile
                if end is not None:
                    return found, end
            left = most - len(found)
            since = absence.since if absence is not None else place.position
            items = await self._news.last_items(room.room_id, since + 1, left)
            told = items_since_return(room, items)
            loaded = await room.events.load([item.ref for item in told], room.version)
            found += [loaded[item.ref] for item in reversed(told) if item.ref in loaded]
            if len(told) == left or len(told) < len(items):
                place = PaginationToken(position=told[0].position - 1)
                if len(told) == left:
                    return found, place
                continue
            place = PaginationToken(depth=await self._stream_start_depth(room))
        older, end = await self._page_by_depth(room, place.depth, most - len(found))
        if end is not None and not older and room.head.behind and asks.left:
            asks.left -= 1
            if await self._backfill_once(room):
                older, end = await self._page_by_depth(room, place.depth, most - len(found))
        return [*found, *older], end

    async def _page_gap(
        self, room: MatrixRoom, absence: StreamGap, depth: int, most: int, asks: FetchBudget
    ) -> tuple[list[StoredEvent], PaginationToken | None]:
        """Returns the events of an absence below a depth, and the place before them; None for the place when
        there are no more. At the end of the stored events, other servers are asked for more.
        """
        waited, asked, at = False, False, depth
        found: list[StoredEvent] = []
        while len(found) < most:
            levels = await self._events_by_depth(room, after=at, upto=absence.floor, reverse=True)
            if not levels and found and absence.is_incomplete(room):
                break
            if not levels and not asked and self._can_fetch(room, absence):
                if not asks.left:
                    break
                at = depth
                if not waited and room.room_id in self._fetching:  # it may be what others ask for now
                    waited = True
                    await self._wait_for_fetch(room)
                    continue
                asked = True
                asks.left -= 1
                if not await self._backfill_once(room, (absence.floor, absence.top)):
                    self._vain.put((room.room_id, absence.upto), self._ctx.clock.monotonic())
                continue  # some of it may have come before the time was over
            if not levels:
                return found, None
            for at, ids in levels:
                loaded = await room.events.load(ids, room.version)
                found += sorted(loaded.values(), key=_sent_order, reverse=True)
                depth = at if loaded else depth  # what is fetched may be above those that are told
                if len(found) >= most:
                    break
        return found, PaginationToken(position=absence.since, depth=depth)

    def _can_fetch(self, room: MatrixRoom, absence: StreamGap) -> bool:
        """True if other servers are worth asking about an absence: a part of it is missing here, and may be
        available.
        """
        if not absence.is_incomplete(room):
            return False
        vain = self._vain.get((room.room_id, absence.upto))
        return vain is None or self._ctx.clock.monotonic() - vain >= REFETCH_AFTER_S

    async def _stream_start_depth(self, room: MatrixRoom) -> int:
        """Returns the depth below which events were in no client's stream."""
        first = await self._news.first_items(room.room_id, 0, 1)
        loaded = await room.events.load([item.ref for item in first], room.version)
        return next((one.depth + 1 for one in loaded.values()), room.head.last + 1)

    async def _page_by_depth(
        self, room: MatrixRoom, depth: int, most: int
    ) -> tuple[list[StoredEvent], PaginationToken | None]:
        """Events below a depth that were not told as they happened. All of one depth come together, so that
        the next page begins where this one ends.
        """
        found: list[StoredEvent] = []
        at = depth
        while len(found) < most:
            levels = await self._events_by_depth(room, after=at, upto=1, reverse=True)
            if not levels:
                return found, PaginationToken(depth=depth) if room.head.behind else None
            for at, ids in levels:
                loaded = await room.events.load(ids, room.version)
                found += sorted(loaded.values(), key=_sent_order, reverse=True)
                depth = at if loaded else depth  # what is fetched may be above those that are not told
                if len(found) >= most:
                    break
        return found, PaginationToken(depth=depth)

    async def _events_by_depth(
        self, room: MatrixRoom, *, after: int, upto: int | None = None, reverse: bool = False
    ) -> list[tuple[int, list[str]]]:
        """Depths after one, each whole, with the events there that are shown and were not told as they
        happened; nothing where there are no more.
        """
        rows = await first_page(
            self._ctx.store,
            "pdu",
            index=("room_id", "depth"),
            equal=(room.room_id,),
            after=after,
            upto=upto,
            reverse=reverse,
            size=_PAGE_SIZE,
        )
        levels: dict[int, list[str]] = {}
        for row in rows:
            level = levels.setdefault(_depth_of(row), [])
            if is_shown(row) and not is_live(row):
                level.append(str(row.key[0]))
        return list(levels.items())

    async def _backfill_once(self, room: MatrixRoom, within: tuple[int, int] | None = None) -> bool:
        """Fetches events of the past, or those between some depths, from other servers; True if there are
        any. Readers of one room ask in turn.
        """
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT_S), self._fetching.hold_key(room.room_id):
                asked = {"room": room.room_id, "limit": _FETCH_LIMIT, "within": within}
                answer = await self._fetch({**asked, "seconds": _FETCH_TIMEOUT_S})
        except (LocalProtocolError, RemoteProtocolError, TimeoutError) as problem:
            self._ctx.log.info("the past of %s: %s", room.room_id, problem)
            return False
        return bool(answer["events"])

    async def _wait_for_fetch(self, room: MatrixRoom) -> None:
        """Wait until nobody fetches a room's past, as long as if it were fetched."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FETCH_TIMEOUT_S), self._fetching.hold_key(room.room_id):
                return

    async def page_forward(
        self, room: MatrixRoom, place: PaginationToken, most: int
    ) -> tuple[list[StoredEvent], PaginationToken]:
        """Up to ``most`` events after a place, oldest first, and the place after them."""
        if most <= 0:
            return [], place
        found: list[StoredEvent] = []
        if place.position < 0:
            told = await self._stream_start_depth(room)
            end = await self._page_upwards(room, place.depth - 1, told, most, found)
            if end is not None:
                return found, PaginationToken(depth=end)
            place = PaginationToken(position=0)
        absences, back = await self._absences.gaps_of(room), 0
        while len(found) < most:
            absence = _gap_at(absences, place.position)
            if absence is not None and absence.upto != back:
                depth = max(place.depth, absence.floor)
                end = await self._page_upwards(room, depth - 1, absence.top - 1, most, found)
                if end is not None:
                    return found, PaginationToken(position=absence.since, depth=end)
                place, back = PaginationToken(position=absence.upto - 1), absence.upto
            items = await self._news.first_items(room.room_id, place.position, most - len(found))
            upto = next((one.upto for one in absences if one.since > place.position), None)
            items = [item for item in items if upto is None or item.position < upto]
            loaded = await room.events.load([item.ref for item in items], room.version)
            found += [loaded[item.ref] for item in items if item.ref in loaded]
            if not items:
                break
            place = PaginationToken(position=items[-1].position)
            if _gap_at(absences, place.position) is None:
                break
        return found, place

    async def _page_upwards(
        self, room: MatrixRoom, depth: int, upto: int, most: int, found: list[StoredEvent]
    ) -> int | None:
        """Put what comes after a depth, oldest first, into ``found`` until that has ``most``; then the depth
        to go on from, None where there is no more.
        """
        while len(found) < most:
            levels = await self._events_by_depth(room, after=depth, upto=upto)
            if not levels:
                return None
            for level, ids in levels:
                depth = level
                loaded = await room.events.load(ids, room.version)
                found += sorted(loaded.values(), key=_sent_order)
                if len(found) >= most:
                    break
        return depth + 1

    async def tokens_around(
        self, room: MatrixRoom, stored: StoredEvent
    ) -> tuple[PaginationToken, PaginationToken]:
        """The places before and after an event."""
        if stored.live:
            position = await self._news.position_of(room.room_id, stored.pdu.event_id)
            if position:
                return PaginationToken(position=position - 1), PaginationToken(position=position)
        depth, since = stored.depth, -1
        for absence in await self._absences.gaps_of(room):
            if absence.floor <= depth < absence.top:
                since = absence.since
        return PaginationToken(position=since, depth=depth), PaginationToken(position=since, depth=depth + 1)


def _gap_at(absences: Sequence[StreamGap], position: int) -> StreamGap | None:
    """The absence that a place in the stream lies before, if our return is what was told next."""
    return next((one for one in absences if one.since <= position < one.upto), None)


def _depth_of(row: Row) -> int:
    return int(row.fields["depth"] or 0)


def _sent_order(stored: StoredEvent) -> tuple[int, str]:
    return stored.pdu.origin_server_ts, stored.pdu.event_id
