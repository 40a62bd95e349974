"""The order in which events of one room are judged."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from hansa_matrix.proto.event import Pdu


def sort_topologically(pdus: Iterable[Pdu]) -> list[Pdu]:
    """Each after those that it follows. Events without an order between them go by the depth that they claim.
    A ring, which no hash allows where ids are hashes, is left out.
    """
    by_id = {p.event_id: p for p in pdus}
    waits = {e: len({b for b in p.prev_events if b in by_id}) for e, p in by_id.items()}
    followed: dict[str, list[str]] = {}
    for event_id, pdu in by_id.items():
        for before in set(pdu.prev_events):
            followed.setdefault(before, []).append(event_id)
    ready = [(by_id[e].depth, e) for e, count in waits.items() if not count]
    heapify(ready)
    done: list[Pdu] = []
    while ready:
        event_id = heappop(ready)[1]
        done.append(by_id[event_id])
        for after in followed.get(event_id, ()):
            waits[after] -= 1
            if not waits[after]:
                heappush(ready, (by_id[after].depth, after))
    return done
