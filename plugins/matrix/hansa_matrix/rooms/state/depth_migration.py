"""Rooms of a database that counted depths as their senders do (versions up to d365809): their events get the
depths of this server's own count once, before any reader.

The order is that of the DAG. Among events without an order in it, those that were streamed as they happened
come last, and the older by its own clock first. A crash in between leaves a room that is counted from the
beginning again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush

from hansa import NetworkContext, Row, StoreError, Write, pages

from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.room import FIRST, MatrixRoom

#: Events that are read, and written, at a time.
_PAGE_SIZE = 200


@dataclass(frozen=True, slots=True)
class _Known:
    """The remembered parts of one event."""

    prev: tuple[str, ...]
    live: bool
    ts: int
    entrance: bool


async def count_anew(ctx: NetworkContext, room: MatrixRoom, server: str) -> bool:
    """Give the events of a room our depths if they have those of others; whether they had. Raises
    StoreError.
    """
    if room.counted:
        return False
    known: dict[str, _Known] = {}
    async for page in _event_pages(ctx, room):
        for event_id, one in page.items():
            if one.after:
                pdu = one.pdu
                known[event_id] = _Known(
                    pdu.prev_events, one.live, pdu.origin_server_ts, _is_local_join(pdu, server)
                )
    order = sort_by_parents(known)
    start = 1
    if room.head.join_depth:  # we came into it: what was before is less deep than that
        start = FIRST - next((at for at, e in enumerate(order) if known[e].entrance), 0)
    depths = {event_id: start + at for at, event_id in enumerate(order)}
    async for events in _pages_of(room, order):
        await _write_depths(ctx, room, events, depths)
    behind = frozenset(room.head.behind)
    below: dict[str, int] = {}
    for event_id in order:
        for cited in behind.intersection(known[event_id].prev):
            below.setdefault(cited, depths[event_id])
    head = replace(
        room.head,
        last=start + len(order) - 1 if order else room.head.last,
        join_depth=FIRST if room.head.join_depth else 0,
        below=below,
    )
    writes = room.room_writes(head, resident=room.resident)
    await ctx.store.commit(writes)
    room.head = head
    room.committed(writes)
    room.counted = True
    return True


def sort_by_parents(known: Mapping[str, _Known]) -> list[str]:
    """Events, each behind those that it follows."""
    left: dict[str, int] = {}
    following: dict[str, list[str]] = {}
    for event_id, one in known.items():
        before = {e for e in one.prev if e in known and e != event_id}
        left[event_id] = len(before)
        for e in before:
            following.setdefault(e, []).append(event_id)
    ready = [(one.live, one.ts, e) for e, one in known.items() if not left[e]]
    heapify(ready)
    found: list[str] = []
    while ready:
        event_id = heappop(ready)[2]
        found.append(event_id)
        for e in following.get(event_id, ()):
            left[e] -= 1
            if not left[e]:
                heappush(ready, (known[e].live, known[e].ts, e))
    # Where servers make ids events may follow each other in a circle.
    return found + sorted(known.keys() - set(found)) if len(found) < len(known) else found


def _is_local_join(pdu: Pdu, server: str) -> bool:
    """True if a local user joins by an event."""
    return pdu.type == MEMBER and pdu.membership == "join" and ids.domain_of(pdu.state_key or "") == server


async def _event_pages(ctx: NetworkContext, room: MatrixRoom) -> AsyncIterator[Mapping[str, StoredEvent]]:
    """All stored events of a room; those without a place get the depth 0 here."""
    async for rows in _row_pages(ctx, room):
        loaded = await room.events.load([str(row.key[0]) for row in rows], room.version)
        await _write_depths(ctx, room, [one for one in loaded.values() if not one.after], {})
        yield loaded


async def _row_pages(ctx: NetworkContext, room: MatrixRoom) -> AsyncIterator[Sequence[Row]]:
    """Their rows. Of servers that do not count all may have one depth, by which no index tells them apart."""
    index, ahead = ("room_id", "depth"), list[Sequence[Row]]()
    try:
        async for rows in pages(ctx.store, "pdu", index=index, equal=(room.room_id,), size=_PAGE_SIZE):
            ahead += [[_key_only(row) for row in rows]]
    except StoreError:
        ahead = []
        async for rows in pages(ctx.store, "pdu", size=_PAGE_SIZE):
            ahead += [[_key_only(row) for row in rows if row.fields["room_id"] == room.room_id]]
    for some in ahead:
        for at in range(0, len(some), _PAGE_SIZE):
            yield some[at : at + _PAGE_SIZE]


def _key_only(row: Row) -> Row:
    return Row(key=row.key, fields={}, body=b"")


async def _pages_of(room: MatrixRoom, order: Sequence[str]) -> AsyncIterator[Sequence[StoredEvent]]:
    for at in range(0, len(order), _PAGE_SIZE):
        yield list((await room.events.load(order[at : at + _PAGE_SIZE], room.version)).values())


async def _write_depths(
    ctx: NetworkContext, room: MatrixRoom, events: Sequence[StoredEvent], depths: Mapping[str, int]
) -> None:
    """Keep events with their depths, 0 where they have none."""
    changed = [replace(one, depth=depths.get(one.pdu.event_id, 0)) for one in events]
    writes: list[Write] = [new.put() for new, old in zip(changed, events, strict=True) if new != old]
    if writes:
        await ctx.store.commit(writes)
        room.events.keep(changed)
