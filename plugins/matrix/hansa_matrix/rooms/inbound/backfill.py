"""Backfill: fetches events from before this server's join from servers that were in the room. SPEC:
server-server API, "Backfilling and retrieving missing events".

Each event gets its place in the DAG behind the stored ones and is checked against the state of its time. It
serves other servers and readers of the past; the current state and the core's log stay as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from hansa import LocalProtocolError, LruCache, NetworkContext, Submission

from hansa_matrix.federation.client import REQUEST_FAILURES, ServerUnreachable, build_path
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.streaming.packed_pdus import unpack_pdu
from hansa_matrix.rooms.inbound.bounded_fetch import BoundedFetch
from hansa_matrix.rooms.inbound.fetched_events import FetchNotes
from hansa_matrix.rooms.inbound.missing_events import MissingEvents
from hansa_matrix.rooms.inbound.ordering import sort_topologically
from hansa_matrix.rooms.native_events import BackfilledPdu
from hansa_matrix.rooms.room import MAX_COUNT, MatrixRoom, RoomHead
from hansa_matrix.rooms.room_registry import RoomRegistry
from hansa_matrix.rooms.state.holes import Why

_LIMIT = 1000
_MAX_EVENTS = 100_000
_PAGE_SIZE = 100
#: Bytes of events that are judged at a time: parsed they take up to 30 times that.
_TAKEN_BYTES = 256 * 1024
#: Events named in one request.
_MAX_NAMED = 20
#: Events that cannot be verified and are passed over in one run.
_MAX_PASSED = 10_000
#: Servers that kept a reader waiting, which are asked last for so many seconds.
_MAX_SLOW, _SLOW_TTL_S = 1000, 600.0


class Backfill:
    """``hansa matrix rooms backfill``."""

    def __init__(self, ctx: NetworkContext, gaps: MissingEvents, rooms: RoomRegistry) -> None:
        self._ctx = ctx
        self._gaps = gaps
        self._rooms = rooms
        self._running: set[str] = set()
        self._slow = LruCache[str, float](_MAX_SLOW)

    async def backfill(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Fetch up to ``limit`` events, newest first; ``failed`` says which servers gave none, and why.
        ``within``: only behind events that we lack between two depths by our count. ``seconds``: a reader
        waits so long, and no server but the last one that is asked may take more than half of it.
        """
        room_id = str(arguments["room"])
        room = self._rooms.require_resident(room_id)
        given = arguments.get("limit")
        limit = _LIMIT if given is None else int(given)
        if not 0 < limit <= _MAX_EVENTS:
            raise LocalProtocolError(f"the limit is a number from 1 to {_MAX_EVENTS}")
        if room_id in self._running:
            raise LocalProtocolError(f"the past of {room_id} is being fetched already")
        self._running.add(room_id)
        work = f"fetching the past of {room_id}"
        failed: dict[str, str] = {}
        beyond: dict[str, tuple[str, ...]] = {}
        first, taken, within = str(arguments.get("server") or ""), 0, arguments.get("within")
        seconds = arguments.get("seconds")
        try:
            while taken < limit:
                passed = len(beyond)
                ends = await self._fetchable_ends(room, beyond, within)
                came = await self._fetch_page(
                    room, first, limit - taken, failed, beyond, ends=ends, patience=seconds and seconds / 2
                )
                if not came and not passed < len(beyond) < _MAX_PASSED:
                    break
                taken += came
                self._ctx.report_progress(work, taken, limit)
        finally:
            self._ctx.report_progress(work, 1, 1)
            self._running.discard(room_id)
        ends = await self._fetchable_ends(room, beyond, within)
        return {"room": room_id, "events": taken, "complete": not ends, "failed": failed}

    async def _fetchable_ends(
        self, room: MatrixRoom, beyond: Mapping[str, tuple[str, ...]], within: tuple[int, int] | None
    ) -> list[str]:
        """Returns the next missing events: behind events that cannot be verified, their ``prev_events``."""
        ends: dict[str, None] = {}
        edge, seen = list(room.head.behind), set[str]()
        if within is not None:
            edge = [e for e in edge if within[0] < room.head.below.get(e, 0) <= within[1]]
        while edge:
            event_id = edge.pop(0)
            if event_id not in seen:
                seen.add(event_id)
                ends |= {} if event_id in beyond else {event_id: None}
                edge += beyond.get(event_id, ())
        placed = await self._events_with_state(room, ends)
        return [e for e in ends if e not in placed]

    async def _fetch_page(  # what a run has come to
        self,
        room: MatrixRoom,
        first: str,
        most: int,
        failed: dict[str, str],
        beyond: dict[str, tuple[str, ...]],
        *,
        ends: Sequence[str],
        patience: float | None,
    ) -> int:
        """One page from the first server that has one; how many events came."""
        passed = len(beyond)
        for at in range(0, len(ends), _MAX_NAMED):
            servers = sorted(self._gaps.candidate_servers(room, first), key=self._is_slow)
            for number, server in enumerate(servers, 1):
                try:
                    seconds = patience if number < len(servers) else None
                    async with asyncio.timeout(seconds), self._gaps.errands.acquire(server) as errand:
                        named = ends[at : at + _MAX_NAMED]
                        came = await self._fetch_from(room, errand, named, min(most, _PAGE_SIZE), beyond)
                except TimeoutError:
                    self._slow.put(server, self._ctx.clock.monotonic())
                    failed[server] = f"has not answered within {patience:.0f} s"
                    self._ctx.log.info("the past of %s by %s: no answer in time", room.room_id, server)
                    continue
                except REQUEST_FAILURES as error:
                    failed[server] = getattr(error, "detail", str(error))[:200]
                    self._ctx.log.info("the past of %s by %s: %s", room.room_id, server, error)
                    continue
                if came or len(beyond) > passed:
                    return came
        return 0

    def _is_slow(self, server: str) -> bool:
        since = self._slow.get(server)
        return since is not None and self._ctx.clock.monotonic() - since < _SLOW_TTL_S

    async def _fetch_from(  # what a run has come to
        self,
        room: MatrixRoom,
        errand: BoundedFetch,
        ends: Sequence[str],
        limit: int,
        beyond: dict[str, tuple[str, ...]],
    ) -> int:
        target = build_path("_matrix", "federation", "v1", "backfill", room.room_id)
        named = "&".join(f"v={quote(event_id, safe='')}" for event_id in ends)
        target, notes = f"{target}?{named}&limit={limit}", FetchNotes(errand.server)
        came = await self._gaps.fetched.request_pdus(room, errand, target, ["pdus"], notes)
        found = {p.event_id: p for p in came[:limit]}
        wanted = _connecting_events(found | self._unverifiable_events(room, notes), ends)
        beyond |= {p.event_id: p.prev_events for p in wanted if p.event_id not in found}
        wanted = [p for p in wanted if p.event_id in found]
        placed = await self._events_with_state(
            room, (e for p in wanted for e in (p.event_id, *p.prev_events))
        )
        ordered = sort_topologically(p for p in wanted if p.event_id not in placed)
        inside = {p.event_id for p in ordered}
        depths = _local_depths(room.head, ordered, beyond)
        for pdu in ordered:
            if not placed.issuperset(e for e in pdu.prev_events if e not in inside):
                await self._gaps.set_state_from_remote(room, pdu.event_id, errand, depth=depths[pdu.event_id])
        return await self._submit_events(room, errand, ordered, depths)

    def _unverifiable_events(self, room: MatrixRoom, notes: FetchNotes) -> dict[str, Pdu]:
        """Returns the events that cannot be verified: they get no place, and where ids are hashes they prove
        which events stand behind them. Raises ``ServerUnreachable`` while their keys may still arrive.
        """
        for event_id, why in notes.why.items():
            if why is Why.KEYLESS and not self._gaps.can_pass_over(room, event_id, notes):
                raise ServerUnreachable(f"the keys for {event_id} cannot be fetched now")
        return {} if room.version.server_made_event_ids else notes.doubtful

    async def _submit_events(
        self, room: MatrixRoom, errand: BoundedFetch, ordered: Sequence[Pdu], depths: Mapping[str, int]
    ) -> int:
        """Judge them in their order; how many have a place now."""
        inside = {p.event_id for p in ordered}
        items: list[Submission] = []
        size = 0
        for pdu in ordered:
            if not inside.issuperset(pdu.auth_events):
                await self._gaps.fetched.fetch_auth_events(room, pdu, errand)
            whole = unpack_pdu(pdu, room.version)
            inbound = await self._gaps.submitter.build_submission(whole, errand.server)
            items.append(replace(inbound, native=BackfilledPdu(whole, depths[pdu.event_id])))
            size += len(whole.wire)
            if size > _TAKEN_BYTES:
                await self._gaps.submitter.submit(items)
                items, size = [], 0
        if items:
            await self._gaps.submitter.submit(items)
        return len(await self._events_with_state(room, inside))

    async def _events_with_state(self, room: MatrixRoom, ids: Iterable[str]) -> set[str]:
        found = await room.events.load(set(ids), room.version)
        return {event_id for event_id, one in found.items() if one.after}


def _connecting_events(found: Mapping[str, Pdu], ends: Iterable[str]) -> list[Pdu]:
    """Those of ``found`` that lie behind ``ends``: nobody gets a place for what nothing here follows."""
    seen: dict[str, Pdu] = {}
    edge = [e for e in ends if e in found]
    while edge:
        event_id = edge.pop()
        if event_id in seen:
            continue
        seen[event_id] = found[event_id]
        edge += [e for e in found[event_id].prev_events if e in found]
    return list(seen.values())


def _local_depths(
    head: RoomHead, ordered: Sequence[Pdu], beyond: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    """The depths by our count of events of the past: each less deep than what follows it. What their senders
    say is taken only for rooms that were joined when nothing else was kept.
    """
    limits, edge = dict(head.below), list(head.below)
    while edge:
        event_id = edge.pop()
        for before in beyond.get(event_id, ()):
            if limits[event_id] < limits.get(before, MAX_COUNT):
                limits[before] = limits[event_id]
                edge.append(before)
    depths, used = dict[str, int](), set[int]()
    for pdu in reversed(ordered):
        at = limits.get(pdu.event_id, min(pdu.depth + 1, head.join_depth)) - 1
        while at in used:  # all of one depth are read together
            at -= 1
        at = depths[pdu.event_id] = max(1, at)
        used.add(at)
        for event_id in pdu.prev_events:
            limits[event_id] = min(at, limits.get(event_id, at))
    return depths
