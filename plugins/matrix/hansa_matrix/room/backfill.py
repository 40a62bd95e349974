"""What was said before we came, from those who were there. SPEC: server-server API, "Backfilling and
retrieving missing events".

It gets its place in the DAG behind what we have, is judged by the state of its time, and serves others and
readers of the past; the present and the core's log stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from hansa import Inbound, LocalProtocolError, NetworkContext, RemoteProtocolError

from hansa_matrix.federation.client import Unreachable, path
from hansa_matrix.proto.event import Pdu
from hansa_matrix.room.errand import Errand
from hansa_matrix.room.gaps import GapFiller
from hansa_matrix.room.native import Backfilled
from hansa_matrix.room.room import MatrixRoom

_LIMIT = 1000
_MOST = 100_000
_PAGE = 100
#: Events named in one request.
_NAMED = 20


class Backfill:
    """``hansa matrix rooms backfill``."""

    def __init__(
        self,
        ctx: NetworkContext,
        gaps: GapFiller,
        room_of: Callable[[str], MatrixRoom | None],
    ) -> None:
        self._ctx = ctx
        self._gaps = gaps
        self._room_of = room_of
        self._running: set[str] = set()

    async def backfill(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Fetch up to ``limit`` events, newest first; ``failed`` says which servers gave none, and why."""
        room_id = str(arguments["room"])
        room = self._room_of(room_id)
        if room is None or not room.resident:
            raise LocalProtocolError(f"we are not in {room_id}: `hansa matrix rooms ls` lists rooms")
        given = arguments.get("limit")
        limit = _LIMIT if given is None else int(given)
        if not 0 < limit <= _MOST:
            raise LocalProtocolError(f"the limit is a number from 1 to {_MOST}")
        if room_id in self._running:
            raise LocalProtocolError(f"the past of {room_id} is being fetched already")
        self._running.add(room_id)
        work = f"fetching the past of {room_id}"
        failed: dict[str, str] = {}
        taken = 0
        try:
            while taken < limit:
                came = await self._page(room, str(arguments.get("server") or ""), limit - taken, failed)
                if not came:
                    break
                taken += came
                self._ctx.progress(work, taken, limit)
        finally:
            self._ctx.progress(work, 1, 1)
            self._running.discard(room_id)
        return {"room": room_id, "events": taken, "complete": not room.head.behind, "failed": failed}

    async def _page(self, room: MatrixRoom, first: str, most: int, failed: dict[str, str]) -> int:
        """One page from the first server that has one; how many events came."""
        ends = room.head.behind
        for at in range(0, len(ends), _NAMED):
            for server in self._gaps.candidates(room, first):
                try:
                    async with self._gaps.errands.to(server) as errand:
                        came = await self._from(room, errand, ends[at : at + _NAMED], min(most, _PAGE))
                except (Unreachable, RemoteProtocolError) as error:
                    failed[server] = getattr(error, "detail", str(error))[:200]
                    self._ctx.log.info("the past of %s by %s: %s", room.room_id, server, error)
                    continue
                if came:
                    return came
        return 0

    async def _from(self, room: MatrixRoom, errand: Errand, ends: Sequence[str], limit: int) -> int:
        target = path("_matrix", "federation", "v1", "backfill", room.room_id)
        named = "&".join(f"v={quote(event_id, safe='')}" for event_id in ends)
        came = await self._gaps.fetched.members(room, errand, f"{target}?{named}&limit={limit}", ["pdus"])
        found = {p.event_id: p for p in came[:limit]}
        wanted = _reached(found, ends)
        placed = await self._placed(room, (e for p in wanted for e in (p.event_id, *p.prev_events)))
        ordered = _oldest_first(p for p in wanted if p.event_id not in placed)
        inside = {p.event_id for p in ordered}
        for pdu in ordered:
            if not placed.issuperset(e for e in pdu.prev_events if e not in inside):
                await self._gaps.adopt(room, pdu.event_id, errand)
        return await self._take(room, errand, ordered)

    async def _take(self, room: MatrixRoom, errand: Errand, ordered: Sequence[Pdu]) -> int:
        """Judge them in their order; how many have a place now."""
        assert self._gaps.ingest is not None
        inside = {p.event_id for p in ordered}
        items: list[Inbound] = []
        for pdu in ordered:
            if not inside.issuperset(pdu.auth_events):
                await self._gaps.fetched.auth(room, pdu, errand)
            inbound = await self._gaps.ingest.inbound(pdu, errand.server)
            items.append(replace(inbound, native=Backfilled(pdu)))
        if items:
            await self._gaps.ingest.submit(items)
        return len(await self._placed(room, inside))

    async def _placed(self, room: MatrixRoom, ids: Iterable[str]) -> set[str]:
        found = await room.events.load(set(ids), room.version)
        return {event_id for event_id, one in found.items() if one.after}


def _reached(found: Mapping[str, Pdu], ends: Iterable[str]) -> list[Pdu]:
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


def _oldest_first(pdus: Iterable[Pdu]) -> list[Pdu]:
    """Each after those that it follows."""
    left = {p.event_id: p for p in pdus}
    done: list[Pdu] = []
    while left:
        ready = [p for p in left.values() if left.keys().isdisjoint(p.prev_events)]
        if not ready:  # a ring, which no hash allows where ids are hashes
            break
        done += [left.pop(p.event_id) for p in sorted(ready, key=lambda one: (one.depth, one.event_id))]
    return done
