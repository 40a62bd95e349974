"""State resolution: one state of a room out of several.

Version 1 (room 1, in ``v1.py``), version 2 (rooms 2 to 11) and version 2.1 (room 12). The result
depends on the given states and the events alone: on no clock, no order of arrival, no order of the states.

SPEC: Matrix v1.19, room versions 2 and 12, "State resolution"; the numbers below are its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from hansa_matrix.proto.auth_rules.levels import Level, PowerLevelCache
from hansa_matrix.proto.auth_rules.membership import ThirdPartyOk
from hansa_matrix.proto.auth_rules.rules import check_event_auth
from hansa_matrix.proto.auth_rules.state_keys import CREATE, CREATE_KEY, POWER_LEVELS_KEY
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.state_res.auth_graph import AuthGraph, MissingAuthEvents, run_steps
from hansa_matrix.proto.state_res.conflicts import StateIds, full_conflicted_set, split_conflicted
from hansa_matrix.proto.state_res.ordering import (
    is_power_event,
    mainline_order,
    power_order,
    with_auth_chain,
)
from hansa_matrix.proto.state_res.v1 import resolve_v1

__all__ = ["MissingAuthEvents", "resolve_state", "resolve_steps"]

#: Events that are judged in one step.
_STEP = 500


def _reject_third_party(_signed: Mapping[str, Any], _keys: Sequence[str]) -> bool:
    return False


def resolve_state(
    version: RoomVersion,
    state_sets: Sequence[StateIds],
    fetch: Callable[[str], Pdu | None],
    *,
    rejected: Container[str] = (),
    admit_rejected: bool = True,
    third_party_ok: ThirdPartyOk = _reject_third_party,
) -> dict[StateKey, str]:
    """The resolution of ``state_sets``, each a map from state key to event id, as one such map.

    ``fetch(event_id)`` gives the event or None if it is not at hand: MissingAuthEvents then names all that
    can be told to be missing, and the call is to be repeated. ``rejected`` are ids of rejected events: never
    used to authorise what cites them, yet judged again if a state holds them. ``admit_rejected=False``
    keeps them out of the result, as Synapse does. ``third_party_ok`` is that of ``check_event_auth``.
    """
    steps = resolve_steps(
        version,
        state_sets,
        fetch,
        rejected=rejected,
        admit_rejected=admit_rejected,
        third_party_ok=third_party_ok,
    )
    return run_steps(steps)


def resolve_steps(
    version: RoomVersion,
    state_sets: Sequence[StateIds],
    fetch: Callable[[str], Pdu | None],
    *,
    rejected: Container[str] = (),
    admit_rejected: bool = True,
    third_party_ok: ThirdPartyOk = _reject_third_party,
) -> Generator[None, None, dict[StateKey, str]]:
    """``resolve_state`` in steps of some milliseconds each, for who has other things to do in between. The
    same result, however long the pauses: what ``fetch`` gives must not change.
    """
    if not state_sets:
        return {}
    first = state_sets[0]
    if all(other == first for other in state_sets):
        return dict(first)
    if version.state_resolution == "1":
        return resolve_v1(version, state_sets, fetch, rejected, third_party_ok)
    subgraph = version.state_resolution == "2.1"
    unconflicted, conflicted = split_conflicted(state_sets)
    yield
    graph = AuthGraph(fetch)
    full = yield from full_conflicted_set(
        graph, conflicted, unconflicted, sets=len(state_sets), subgraph=subgraph
    )
    yield
    replay = _IterativeAuthCheck(version, graph, {} if subgraph else unconflicted, rejected, third_party_ok)
    power = (index for index in full if is_power_event(graph.pdus[index]))
    chosen = with_auth_chain(graph, power, full)
    yield
    skip: Container[str] = () if admit_rejected else rejected
    yield from replay.run_checks(power_order(graph, chosen, replay.sender_level), skip)
    order = mainline_order(graph, full - chosen, replay.power_levels())
    yield
    yield from replay.run_checks(order, skip)
    # In an order of its own: that in which the rules read is not the same in every process.
    result = {key: replay.state[key].event_id for key in sorted(replay.state)}
    result.update(unconflicted)
    return result


class _IterativeAuthCheck:
    """The iterative auth checks: a state that grows, and how one event sees it.

    As the ``state`` that the rules read it shows the state built so far and, for a key that it lacks, the
    event's own auth event if that was not rejected. The rules read selected keys only.
    """

    __slots__ = ("_base", "_cited", "_create", "_graph", "_levels", "_ok", "_rejected", "_version", "state")

    def __init__(
        self,
        version: RoomVersion,
        graph: AuthGraph,
        base: Mapping[StateKey, str],
        rejected: Container[str],
        third_party_ok: ThirdPartyOk,
    ) -> None:
        self._version = version
        self._graph = graph
        self._base = base
        self._rejected = rejected
        self._ok = third_party_ok
        self._levels = PowerLevelCache()
        self._cited: list[int] = []
        self._create = self._create_by_room_id() if version.room_id_is_create_hash else None
        #: Step 2 starts with ``base``, whose events come in here when they are first read.
        self.state: dict[StateKey, Pdu] = {}

    def _create_by_room_id(self) -> Pdu | None:
        # Nothing cites the create event of such a room; its id is the room id.
        room_id = self._graph.pdus[0].room_id
        create = self._graph.fetch_event("$" + room_id[1:])
        self._graph.raise_missing()
        return create

    def run_checks(self, order: Sequence[int], skip: Container[str]) -> Iterator[None]:
        """Steps 2 and 4: put each event that the rules allow into the state."""
        for at in range(0, len(order), _STEP):
            self._check_events(order[at : at + _STEP], skip)
            yield

    def _check_events(self, order: Iterable[int], skip: Container[str]) -> None:
        graph, state, version, levels, ok = self._graph, self.state, self._version, self._levels, self._ok
        for index in order:
            pdu = graph.pdus[index]
            if pdu.state_key is None or pdu.event_id in skip:
                continue
            self._cited = graph.auth[index] or []
            if check_event_auth(pdu, self, version, third_party_ok=ok, levels=levels) is None:
                state[(pdu.type, pdu.state_key)] = pdu
        graph.raise_missing()

    def get(self, key: StateKey, /) -> Pdu | None:
        """Returns the event under ``key`` that the judged event sees."""
        pdu = self.state.get(key)
        if pdu is not None:
            return pdu
        event_id = self._base.get(key)
        if event_id is not None:
            pdu = self._graph.fetch_event(event_id)
            if pdu is not None:
                self.state[key] = pdu
            return pdu
        if self._create is not None and key == CREATE_KEY:
            return self._create
        return self._own_auth_event(key)

    def _own_auth_event(self, key: StateKey) -> Pdu | None:
        kind, state_key = key
        pdus = self._graph.pdus
        for cited in self._cited:
            pdu = pdus[cited]
            if pdu.type == kind and pdu.state_key == state_key and pdu.event_id not in self._rejected:
                return pdu
        return None

    def sender_level(self, index: int) -> Level:
        """The level of the event's sender by the event's own auth events, rejected or not."""
        graph = self._graph
        create = self._create
        for cited in graph.auth[index] or ():
            if graph.pdus[cited].type == CREATE:
                create = graph.pdus[cited]
        if create is None:
            return 0
        power_levels = graph.power_levels_of(index)
        levels = self._levels(create, graph.pdus[power_levels] if power_levels >= 0 else None, self._version)
        return levels.user_level(graph.pdus[index].sender)

    def power_levels(self) -> int:
        """The index of the power levels event of the state so far, its mainline loaded; -1 if none."""
        pdu = self.state.get(POWER_LEVELS_KEY)
        event_id = self._base.get(POWER_LEVELS_KEY) if pdu is None else pdu.event_id
        if event_id is None:
            return -1
        index = self._graph.index_of(event_id)
        self._graph.load_chain((index,))
        return index
