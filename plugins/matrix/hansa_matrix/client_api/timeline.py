"""A room's past, page by page, with tokens that mean the same for ever.

What happened since somebody here came in is paged by its place in the stream, as it was told; what was
before, also what is still to be fetched from other servers, by depth. ``s5`` lies behind position 5, ``d5``
before depth 5.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hansa import LocalProtocolError, NetworkContext, RemoteProtocolError, Row

from hansa_matrix.federation.server import error
from hansa_matrix.room.events import Stored, is_live, is_shown
from hansa_matrix.room.news import News
from hansa_matrix.room.room import MatrixRoom

_TOKEN = re.compile(
    r"(?:(?P<s>s)(?P<position>[0-9]{1,18})(?:_[0-9]{1,18}){0,2}|d(?P<depth>[0-9]{1,16}))", re.ASCII
)
_PAGE = 200
#: Seconds that a reader waits for other servers' past, and events that are fetched at once.
_FETCH_WITHIN, _FETCHED = 10.0, 100
#: Rows of one depth.
_OF_ONE_DEPTH = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """A point in a room's past. ``depth`` is -1 for one in the stream."""

    position: int = 0
    depth: int = -1

    def __str__(self) -> str:
        return f"s{self.position}" if self.depth < 0 else f"d{self.depth}"


def place_of(token: str) -> Place:
    """A token of ours. Raises the error answer of what is none."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise error(400, "M_INVALID_PARAM", "that is no token of this server")
    return Place(position=int(match["position"])) if match["s"] else Place(depth=int(match["depth"]))


class Timeline:
    """Pages of any room that we are or were in."""

    def __init__(
        self,
        ctx: NetworkContext,
        news: News,
        fetch: Callable[[Mapping[str, Any]], Awaitable[Any]],
    ) -> None:
        self._ctx = ctx
        self._news = news
        self._fetch = fetch

    async def before(self, room: MatrixRoom, place: Place, most: int) -> tuple[list[Stored], Place | None]:
        """Up to ``most`` events before a place, newest first, and the place before them; None where the room
        begins.
        """
        if most <= 0:
            return [], place
        found: list[Stored] = []
        if place.depth < 0:
            items = await self._news.last(room.room_id, place.position + 1, most)
            loaded = await room.events.load([item.ref for item in items], room.version)
            found = [loaded[item.ref] for item in reversed(items) if item.ref in loaded]
            if len(items) == most:
                return found, Place(position=items[0].position - 1)
            place = Place(depth=await self._oldest_told(room))
        older, end = await self._deeper(room, place.depth, most - len(found))
        if end is not None and not older and room.head.behind and await self._fetched(room):
            older, end = await self._deeper(room, place.depth, most - len(found))
        return [*found, *older], end

    async def _oldest_told(self, room: MatrixRoom) -> int:
        """The depth below which lies what was before anybody here was told."""
        first = await self._news.first(room.room_id, 0, 1)
        loaded = await room.events.load([item.ref for item in first], room.version)
        return next((one.pdu.depth + 1 for one in loaded.values()), room.head.depth + 1)

    async def _deeper(self, room: MatrixRoom, depth: int, most: int) -> tuple[list[Stored], Place | None]:
        """Events below a depth that were not told as they happened. All of one depth come together, so that
        the next page begins where this one ends.
        """
        found: list[Stored] = []
        while len(found) < most:
            levels = await self._levels(room, after=depth, reverse=True)
            if not levels:
                return found, Place(depth=depth) if room.head.behind else None
            for level, ids in levels:
                depth = level
                loaded = await room.events.load(ids, room.version)
                found += sorted(loaded.values(), key=_when, reverse=True)
                if len(found) >= most:
                    break
        return found, Place(depth=depth)

    async def _levels(
        self, room: MatrixRoom, *, after: int, upto: int | None = None, reverse: bool = False
    ) -> list[tuple[int, list[str]]]:
        """Depths after one, each whole, with the events there that are shown and were not told as they
        happened; nothing where there are no more.
        """
        index = ("room_id", "depth")
        rows = await self._ctx.store.scan(
            "pdu",
            index=index,
            equal=(room.room_id,),
            after=after,
            upto=upto,
            limit=_PAGE,
            reverse=reverse,
        )
        if len(rows) == _PAGE:  # the last depth may go on behind the page
            last = _depth(rows[-1])
            if _depth(rows[0]) == last:
                rows = await self._ctx.store.scan(
                    "pdu", index=index, equal=(room.room_id, last), limit=_OF_ONE_DEPTH
                )
            else:
                rows = [row for row in rows if _depth(row) != last]
        levels: dict[int, list[str]] = {}
        for row in rows:
            level = levels.setdefault(_depth(row), [])
            if is_shown(row) and not is_live(row):
                level.append(str(row.key[0]))
        return list(levels.items())

    async def _fetched(self, room: MatrixRoom) -> bool:
        """Whether other servers gave something of the past."""
        try:
            async with asyncio.timeout(_FETCH_WITHIN):
                answer = await self._fetch({"room": room.room_id, "limit": _FETCHED})
        except (LocalProtocolError, RemoteProtocolError, TimeoutError) as problem:
            self._ctx.log.info("the past of %s: %s", room.room_id, problem)
            return False
        return bool(answer["events"])

    async def after(self, room: MatrixRoom, place: Place, most: int) -> tuple[list[Stored], Place]:
        """Up to ``most`` events after a place, oldest first, and the place after them."""
        if most <= 0:
            return [], place
        found: list[Stored] = []
        if place.depth >= 0:
            depth, told = place.depth - 1, await self._oldest_told(room)
            while len(found) < most:
                levels = await self._levels(room, after=depth, upto=told)
                if not levels:
                    break
                for depth, ids in levels:
                    loaded = await room.events.load(ids, room.version)
                    found += sorted(loaded.values(), key=_when)
                    if len(found) >= most:
                        return found, Place(depth=depth + 1)
            place = Place(position=0)
        items = await self._news.first(room.room_id, place.position, most - len(found))
        loaded = await room.events.load([item.ref for item in items], room.version)
        found += [loaded[item.ref] for item in items if item.ref in loaded]
        end = Place(position=items[-1].position) if items else place
        return found, end

    async def place(self, room: MatrixRoom, stored: Stored) -> tuple[Place, Place]:
        """The places before and after an event."""
        if stored.live:
            position = await self._news.of(room.room_id, stored.pdu.event_id)
            if position:
                return Place(position=position - 1), Place(position=position)
        return Place(depth=stored.pdu.depth), Place(depth=stored.pdu.depth + 1)


def _depth(row: Row) -> int:
    return int(row.fields["depth"] or 0)


def _when(stored: Stored) -> tuple[int, str]:
    return stored.pdu.origin_server_ts, stored.pdu.event_id
