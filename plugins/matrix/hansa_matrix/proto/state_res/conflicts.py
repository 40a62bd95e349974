"""The difference of the given states: the full conflicted set.

SPEC: Matrix v1.19, room versions 2 and 12, "State resolution", definitions.

COMPAT: the full auth chain of a state counts the events of that state themselves, so that the auth difference
never holds an unconflicted event. The text can be read otherwise (an auth chain does not hold its own event),
but Synapse and Dendrite read it this way, and rooms split where servers differ.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence

from hansa_matrix.proto.event import StateKey
from hansa_matrix.proto.state_res.auth_graph import AuthGraph

StateIds = Mapping[StateKey, str]


def state_delta(one: StateIds, other: StateIds) -> list[StateKey]:
    """The keys for which two states have different events, or only one of them has any. In rooms of thousands
    this is most of what a fork costs, hence no step of it per key that is not the interpreter's own.
    """
    pairs = zip(one, one.values(), map(other.get, one), strict=True)
    found = [key for key, mine, theirs in pairs if mine != theirs]
    shared = len(one) - sum(1 for key in found if key not in other)
    if len(other) > shared:
        found += [key for key in other if key not in one]
    return found


def split_conflicted(state_sets: Sequence[StateIds]) -> tuple[dict[StateKey, str], dict[str, int]]:
    """The unconflicted state map, and the conflicted events with the states they are in (bit i: state i).

    A key is conflicted if the states name different events for it or if one of them lacks it.
    """
    first, *others = state_sets
    disputed = dict.fromkeys(key for other in others for key in state_delta(first, other))
    unconflicted = dict(first)
    for key in disputed:
        unconflicted.pop(key, None)
    conflicted: dict[str, int] = {}
    for number, one in enumerate(state_sets):
        for key in disputed:
            event_id = one.get(key)
            if event_id is not None:
                conflicted[event_id] = conflicted.get(event_id, 0) | 1 << number
    return unconflicted, conflicted


def full_conflicted_set(
    graph: AuthGraph,
    conflicted: Mapping[str, int],
    unconflicted: StateIds,
    *,
    sets: int,
    subgraph: bool,
) -> Generator[None, None, set[int]]:
    """The conflicted events, the auth difference and (version 2.1) the conflicted state subgraph, as indices
    of ``graph``, with pauses.

    Only the auth chains of conflicted events are walked. The unconflicted events and their chains are in the
    chain of every state and matter to the auth difference alone, which they are taken out of: they are walked
    when there is something to take out, until nothing is left.
    """
    roots = {graph.index_of(event_id): states for event_id, states in conflicted.items()}
    yield
    order = yield from graph.load_chain_steps(roots)
    yield
    own = [0] * len(graph.ids)
    for index, states in roots.items():
        own[index] = states
    chain = _auth_chain_membership(graph, order, own)
    found = set(roots)
    if subgraph:
        found.update(_between_conflicted(graph, order, own))
    everywhere = (1 << sets) - 1
    partly = [i for i, states in enumerate(chain) if 0 < states < everywhere and i not in found]
    if partly:
        found |= graph.not_below(partly, unconflicted.values())
    return found


def _auth_chain_membership(graph: AuthGraph, order: Sequence[int], own: Sequence[int]) -> list[int]:
    """Per event the states in whose auth chains, by way of conflicted events, it is: those of every event
    that cites it, handed down.
    """
    chain, auth = [0] * len(own), graph.auth
    for index in reversed(order):
        states = chain[index] | own[index]
        for cited in auth[index] or ():
            chain[cited] |= states
    return chain


def _between_conflicted(graph: AuthGraph, order: Sequence[int], own: Sequence[int]) -> Iterator[int]:
    """Yields the events on a path between conflicted events: above one (or one itself) and below one (or one
    itself). Every event that was walked is below a conflicted event or is one.
    """
    auth = graph.auth
    above = [False] * len(own)
    for index in order:
        for cited in auth[index] or ():
            if above[cited] or own[cited]:
                above[index] = True
                yield index
                break
