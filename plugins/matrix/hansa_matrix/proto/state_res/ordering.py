"""The two orders in which conflicted events are judged again.

SPEC: Matrix v1.19, room versions 2 and 12, "State resolution": reverse topological power ordering, mainline
ordering.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from heapq import heapify, heappop, heappush

from hansa_matrix.proto.auth_rules.levels import Level
from hansa_matrix.proto.auth_rules.state_keys import JOIN_RULES, MEMBER, POWER_LEVELS
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.state_res.auth_graph import AuthGraph


def is_power_event(pdu: Pdu) -> bool:
    """True if the event may reduce the rights of a user: levels, join rules, a kick or a ban.

    COMPAT: power levels and join rules count with an empty state key only. The text names no state key, but
    an event with another is of no effect on anything, and other servers do not count it.
    """
    if pdu.type == MEMBER:
        return pdu.sender != pdu.state_key and pdu.membership in {"leave", "ban"}
    return pdu.state_key == "" and pdu.type in (POWER_LEVELS, JOIN_RULES)


def with_auth_chain(graph: AuthGraph, roots: Iterable[int], within: AbstractSet[int]) -> set[int]:
    """The roots and those events of ``within`` that they reach by auth events of ``within``.

    COMPAT: the text asks for every event of an auth chain that is in the full conflicted set, also where
    the way to it leads outside. In version 2.1 no such way exists; in version 2 servers do not follow it.
    """
    found = set(roots)
    stack = list(found)
    while stack:
        for cited in graph.auth[stack.pop()] or ():
            if cited in within and cited not in found:
                found.add(cited)
                stack.append(cited)
    return found


def power_order(graph: AuthGraph, events: AbstractSet[int], level: Callable[[int], Level]) -> list[int]:
    """Reverse topological power ordering: ``level(index)`` is the sender's by its own auth events."""
    waits_for = {}
    cited_by: dict[int, list[int]] = {index: [] for index in events}
    ready = []
    for index in events:
        cited = [other for other in graph.auth[index] or () if other in events]
        waits_for[index] = len(cited)
        for other in cited:
            cited_by[other].append(index)
        if not cited:
            ready.append(_power_key(graph, index, level))
    heapify(ready)
    order = []
    while ready:
        index = heappop(ready)[3]
        order.append(index)
        for other in cited_by[index]:
            waits_for[other] -= 1
            if not waits_for[other]:
                heappush(ready, _power_key(graph, other, level))
    return order


def _power_key(graph: AuthGraph, index: int, level: Callable[[int], Level]) -> tuple[Level, int, str, int]:
    pdu = graph.pdus[index]
    return -level(index), pdu.origin_server_ts, pdu.event_id, index


def mainline_order(graph: AuthGraph, events: Iterable[int], power_levels: int) -> list[int]:
    """Mainline ordering based on the power levels event of that index (-1: there is none)."""
    positions: dict[int, int] = {}
    index = power_levels
    while index >= 0 and index not in positions:
        positions[index] = len(positions)
        index = graph.power_levels_of(index)
    infinite = len(positions)
    keys = []
    for event in events:
        pdu = graph.pdus[event]
        position = _mainline_depth(graph, event, positions, infinite)
        keys.append((-position, pdu.origin_server_ts, pdu.event_id, event))
    keys.sort()
    return [key[3] for key in keys]


def _mainline_depth(graph: AuthGraph, event: int, positions: dict[int, int], infinite: int) -> int:
    # Every power levels event on the way is remembered: the next search ends at the first of them.
    index = graph.power_levels_of(event)
    position = positions.get(index)
    if position is not None:
        return position
    way = []
    while index >= 0 and index not in positions:
        positions[index] = infinite
        way.append(index)
        index = graph.power_levels_of(index)
    position = positions.get(index, infinite)
    for passed in way:
        positions[passed] = position
    return position
