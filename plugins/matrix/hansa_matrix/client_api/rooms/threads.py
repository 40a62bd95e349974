"""Finds the thread of an event. SPEC: client-server API, "Threaded read receipts", "Threading"."""

from __future__ import annotations

from collections.abc import Iterable

from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.relations import THREAD, relation_target
from hansa_matrix.rooms.room import MatrixRoom

#: The thread of events outside threads.
MAIN = "main"
#: Relations followed before an event counts as outside threads.
_MAX_HOPS = 3


async def find_thread_roots(room: MatrixRoom, events: Iterable[StoredEvent]) -> dict[str, str]:
    """By event id the root of the thread that each event is in, or ``MAIN``. A reaction to an answer in a
    thread, or an edit of it, is in that thread; other relations to its root are not.
    """
    roots: dict[str, str] = {}
    targets: dict[str, str] = {}
    for event in events:
        _follow_relation(event.pdu.event_id, event, roots, targets)
    for _ in range(_MAX_HOPS):
        if not targets:
            break
        loaded = await room.events.load(set(targets.values()), room.version)
        previous, targets = targets, {}
        for event_id, target in previous.items():
            _follow_relation(event_id, loaded.get(target), roots, targets)
    return roots | dict.fromkeys(targets, MAIN)


def _follow_relation(
    event_id: str, reached: StoredEvent | None, roots: dict[str, str], targets: dict[str, str]
) -> None:
    """Note the thread of an event by another that its relations lead to, or where they lead on."""
    relation = relation_target(reached.pdu) if reached is not None and reached.pdu.state_key is None else None
    if relation is None:
        roots[event_id] = MAIN
        return
    target, kind = relation
    if kind == THREAD:
        roots[event_id] = target
    else:
        targets[event_id] = target


async def is_in_thread(room: MatrixRoom, event: StoredEvent, thread: str) -> bool:
    """True if a receipt for a thread may name an event.

    COMPAT: Element Web marks a thread as read at its root, and at reactions to that, where it has no other
    event of the thread; Synapse takes it.
    """
    if (await find_thread_roots(room, [event]))[event.pdu.event_id] == thread:
        return True
    reached: StoredEvent | None = event
    for _ in range(_MAX_HOPS + 1):
        if reached is None or thread == MAIN:
            return False
        if reached.pdu.event_id == thread:
            return True
        relation = relation_target(reached.pdu)
        if relation is None:
            return False
        target, _kind = relation
        reached = (await room.events.load([target], room.version)).get(target)
    return False
