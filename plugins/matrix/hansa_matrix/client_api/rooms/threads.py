"""Finds the thread of an event. SPEC: client-server API, "Threaded read receipts", "Threading"."""

from __future__ import annotations

from collections.abc import Iterable

from hansa_matrix.rooms.event_store import StoredEvent
from hansa_matrix.rooms.relations import THREAD, relation_target
from hansa_matrix.rooms.room import MatrixRoom

#: The thread of events outside threads.
MAIN = "main"
#: Relations that are followed until an event counts as of no thread.
_MAX_HOPS = 3


async def threads_of(room: MatrixRoom, events: Iterable[StoredEvent]) -> dict[str, str]:
    """By event id the root of the thread that each event is in, or ``MAIN``. A reaction to an answer in a
    thread, or an edit of it, is in that thread; other relations to its root are not.
    """
    found: dict[str, str] = {}
    following: dict[str, str] = {}
    for one in events:
        _follow_relation(one.pdu.event_id, one, found, following)
    for _ in range(_MAX_HOPS):
        if not following:
            break
        loaded = await room.events.load(set(following.values()), room.version)
        before, following = following, {}
        for event_id, target in before.items():
            _follow_relation(event_id, loaded.get(target), found, following)
    return found | dict.fromkeys(following, MAIN)


def _follow_relation(
    event_id: str, reached: StoredEvent | None, found: dict[str, str], following: dict[str, str]
) -> None:
    """Note the thread of an event by another that its relations lead to, or where they lead on."""
    related = relation_target(reached.pdu) if reached is not None and reached.pdu.state_key is None else None
    if related is None:
        found[event_id] = MAIN
    elif related[1] == THREAD:
        found[event_id] = related[0]
    else:
        following[event_id] = related[0]


async def is_in_thread(room: MatrixRoom, event: StoredEvent, thread: str) -> bool:
    """True if a receipt for a thread may name an event.

    COMPAT: Element Web marks a thread as read at its root, and at reactions to that, where it has no other
    event of the thread; Synapse takes it.
    """
    if (await threads_of(room, [event]))[event.pdu.event_id] == thread:
        return True
    reached: StoredEvent | None = event
    for _ in range(_MAX_HOPS + 1):
        if reached is None or thread == MAIN:
            return False
        if reached.pdu.event_id == thread:
            return True
        related = relation_target(reached.pdu)
        if related is None:
            return False
        reached = (await room.events.load([related[0]], room.version)).get(related[0])
    return False
