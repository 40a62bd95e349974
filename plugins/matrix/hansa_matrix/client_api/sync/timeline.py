"""The timeline of a room since the last sync, and the state that the client lacks. SPEC: client-server API,
"Syncing", "Lazy-loading room members".

A changed state that is in no timeline, because of a filter, the history visibility or a gap, is in ``state``:
an event that a client does not want to see does not hide a change of state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hansa_matrix.client_api.rooms.client_events import ClientEventFormatter
from hansa_matrix.client_api.rooms.pagination import PaginationToken
from hansa_matrix.client_api.rooms.stream_gaps import items_since_return
from hansa_matrix.client_api.sync.request import SyncRequest
from hansa_matrix.local.client_stream import ClientStream
from hansa_matrix.proto.auth_rules.state_keys import CREATE, MEMBER
from hansa_matrix.proto.event import StateKey
from hansa_matrix.rooms.access.user_visibility import UserVisibility, drop_ignored
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.room import MatrixRoom

#: Pages of the stream that are looked through for events that a client wants, and items of the largest.
_MAX_PAGES, _MAX_PAGE_SIZE = 12, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineSpan:
    """The part of a room's stream that an answer is about: after ``since``, up to ``upto``. ``fresh``: the
    client knows nothing of the room. ``whole``: it wants all state. ``own`` is an event that its person is
    shown in any case, ``heroes`` are people whose member events are told though they say nothing.
    """

    since: int
    upto: int
    fresh: bool
    whole: bool
    own: str = ""
    heroes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Looked:
    """The end of a span: events that are wanted, whether there are more, and the place before them."""

    events: Sequence[StoredEvent]
    limited: bool
    start: int


class TimelineSync:
    """Of rooms that a person is in, or was."""

    def __init__(self, news: ClientStream, visibility: UserVisibility, shapes: ClientEventFormatter) -> None:
        self._news = news
        self._visibility = visibility
        self._shapes = shapes

    async def build_timeline(
        self, asked: SyncRequest, room: MatrixRoom, span: TimelineSpan
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The timeline, and the state before it or after it."""
        looked = await self._read_span(asked, room, span)
        wanted, raw = asked.filter, asked.filter.federation
        events = await self._shapes.format_events(
            asked.caller, room, looked.events, room_id=False, federation=raw
        )
        timeline: dict[str, Any] = {
            "events": wanted.select_fields(events),
            "limited": looked.limited,
            "prev_batch": str(PaginationToken(position=looked.start)),
        }
        state = await self._missing_state(asked, room, span, looked.events)
        if asked.filter.state.lazy or not asked.filter.state.is_unrestricted:
            state = await self._filter_state(asked, room, span, state, looked.events)
        present = await room.places_of(state) if state else {}
        chosen: Iterable[StoredEvent] = present.values()
        if not wanted.state.by_key:
            chosen = [one for one in chosen if wanted.state.matches_event(one.pdu)]
        states = await self._shapes.format_state(asked.caller, room, chosen, room_id=False, federation=raw)
        shown = wanted.select_fields(states)
        if asked.use_state_after:
            return timeline, states_after(shown)
        return timeline, {"state": {"events": shown}} if shown or span.whole else {}

    async def _read_span(self, asked: SyncRequest, room: MatrixRoom, span: TimelineSpan) -> _Looked:
        """The last events of a span that the client wants, as many as it wants: what it does not want, or may
        not read, is not counted.
        """
        wanted, most = asked.filter.timeline, asked.filter.timeline.limit
        found: list[tuple[int, StoredEvent]] = []
        before, size, created, ended = span.upto + 1, most + 1, False, False
        for _ in range(_MAX_PAGES):
            floor = 0 if span.fresh else span.since
            items = await self._news.last_items(room.room_id, before, size, since=floor)
            told = items_since_return(room, items)
            loaded = await room.readable([item.ref for item in told])
            events = [loaded[item.ref] for item in told if item.ref in loaded]
            visible = await self._visibility.filter_visible(asked.caller.user, room, events)
            seen = {one.pdu.event_id: one for one in drop_ignored(visible, asked.ignored)}
            if span.own in loaded and loaded[span.own].shown:
                seen.setdefault(span.own, loaded[span.own])
            page = [(item.position, seen[item.ref]) for item in told if item.ref in seen]
            found = [(at, one) for at, one in page if wanted.matches_event(one.pdu)] + found
            created = created or any(one.pdu.type == CREATE for one in events)
            before = told[0].position if told else before
            gap = bool(told) and told[0].ref in room.head.gaps
            ended = len(items) < size and len(told) == len(items) and not gap
            if ended or gap or len(found) > most or len(told) < len(items):
                break
            size = min(size * 2, _MAX_PAGE_SIZE)
        limited = not ended or len(found) > most or (span.fresh and not created)
        if len(found) > most:
            found = found[len(found) - most :]
            before = found[0][0] if found else span.upto + 1
        return _Looked([one for _, one in found], limited, before - 1)

    async def _missing_state(
        self, asked: SyncRequest, room: MatrixRoom, span: TimelineSpan, timeline: Sequence[StoredEvent]
    ) -> dict[StateKey, str]:
        """Returns the state that a client lacks: the one before the timeline, or with ``state_after`` the one
        behind it.
        """
        last = await self._news.last_items(room.room_id, span.upto + 1, 1)
        known: Mapping[StateKey, str] = {}
        if not span.whole:
            before = await self._news.last_items(room.room_id, span.since + 1, 1)
            if before and last and before[0].state == last[0].state:
                return {}
            known = (
                await room.groups.load(before[0].state) if before else await self._state_at_start(room, span)
            )
        now = await room.groups.load(last[0].state) if last else await room.state()
        told = (
            {one.pdu.key for one in timeline if one.pdu.state_key is not None}
            if not asked.use_state_after
            else set()
        )
        lacking = {key: e for key, e in now.items() if key not in told and known.get(key) != e}
        if told:
            start = await room.groups.load(timeline[0].before)
            lacking |= {k: start[k] for k in told if k in start and known.get(k) != start[k]}
        return lacking

    async def _state_at_start(self, room: MatrixRoom, span: TimelineSpan) -> Mapping[StateKey, str]:
        """The state before the first event of a span, where nothing was told before it."""
        items = await self._news.first_items(room.room_id, span.since, 1, upto=span.upto)
        events = (await room.events.load([item.ref for item in items], room.version)).values()
        return await room.groups.load(next(iter(events)).before) if events else {}

    async def _filter_state(
        self,
        asked: SyncRequest,
        room: MatrixRoom,
        span: TimelineSpan,
        state: Mapping[StateKey, str],
        timeline: Sequence[StoredEvent],
    ) -> dict[StateKey, str]:
        """Returns the part of a state that a client wants: with ``lazy_load_members`` the senders of the
        timeline, the members that name the room, and every membership that changed, since no client would ask
        for it.
        """
        wanted = asked.filter.state
        found = {k: e for k, e in state.items() if wanted.matches_type(k[0], room.room_id)}
        if not wanted.lazy:
            return found
        people = {one.pdu.sender for one in timeline} | {asked.caller.user} | set(span.heroes)
        kept = {k: e for k, e in found.items() if not span.whole or k[0] != MEMBER or k[1] in people}
        if wanted.matches_type(MEMBER, room.room_id):
            if asked.use_state_after or not timeline:
                last = await self._news.last_items(room.room_id, span.upto + 1, 1)
                then = await room.groups.load(last[0].state) if last else await room.state()
            else:
                then = await room.groups.load(timeline[0].before)
            named = {(MEMBER, user): then[MEMBER, user] for user in people if (MEMBER, user) in then}
            kept = named | kept
        if not span.whole and not asked.use_state_after:
            own = {one.pdu.event_id for one in timeline}
            kept = {k: e for k, e in kept.items() if e not in own}
        return kept


def states_after(shown: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The state behind a timeline, under its name and that of before it was in the specification."""
    return {"state_after": {"events": shown}, "org.matrix.msc4222.state_after": {"events": shown}}
