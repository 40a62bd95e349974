"""Properties of every state resolution, on random rooms; and its cost. ``HANSA_SEED`` picks the rooms."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from random import Random

import pytest
from hansa_matrix.proto.auth_rules.rules import check_event_auth
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.state_res.v2 import MissingAuthEvents, resolve_state
from matrix.oracle.graphs import Graph, State, random_graph
from matrix.proto.room_graph import HASHED, create_event, ids_of, make

SEED = os.environ.get("HANSA_SEED", "1")
ROOMS = 40

each_version = pytest.mark.parametrize("version", HASHED, ids=lambda v: f"v{v.id}")


def rooms(version: RoomVersion) -> list[Graph]:
    print(f"HANSA_SEED={SEED}")
    return [random_graph(version, f"{SEED}/properties/{version.id}/{number}") for number in range(ROOMS)]


def ask(graph: Graph, states: list[State]) -> State:
    return resolve_state(graph.version, states, graph.fetch, rejected=graph.rejected, admit_rejected=False)


@each_version
def test_the_order_of_states_and_of_their_keys_is_nothing(version: RoomVersion) -> None:
    random = Random(SEED)
    asked = 0
    for graph in rooms(version):
        for states, result in graph.resolve:
            shuffled = [dict(random.sample(list(state.items()), len(state))) for state in states]
            random.shuffle(shuffled)
            assert ask(graph, shuffled) == result
            assert ask(graph, [*states, random.choice(states)]) == result
            asked += 1
    assert asked > 5 * ROOMS


@each_version
def test_the_result_holds_what_is_agreed_and_nothing_from_elsewhere(version: RoomVersion) -> None:
    for graph in rooms(version):
        for states, result in graph.resolve:
            agreed = set.intersection(*(set(state.items()) for state in states))
            assert agreed <= set(result.items())
            for key, event_id in result.items():
                assert graph.events[graph.index[event_id]].key == key


@each_version
def test_events_that_come_late_change_nothing(version: RoomVersion) -> None:
    random = Random(SEED)
    for graph in rooms(version)[:10]:
        for states, result in graph.resolve[:5]:
            known = {pdu.event_id: pdu for pdu in graph.events if random.random() < 0.5}
            for _ in graph.events:
                try:
                    again = resolve_state(
                        version, states, known.get, rejected=graph.rejected, admit_rejected=False
                    )
                    break
                except MissingAuthEvents as missing:
                    known.update((event_id, graph.events[graph.index[event_id]]) for event_id in missing.ids)
            assert again == result


def big_room(
    version: RoomVersion, members: int, levels: int
) -> tuple[dict[str, Pdu], list[dict[StateKey, str]]]:
    """Half of the members joined in one state, half in the other, after a long row of power levels events."""
    create = () if version.room_id_is_create_hash else ("$C",)
    users: Mapping[str, int] = {} if version.room_id_is_create_hash else {"@a:x": 100}
    own = make(version, "$JA", "m.room.member", "@a:x", {"membership": "join"}, state_key="@a:x", auth=create)
    events = [create_event(version), own]
    last: tuple[str, ...] = ()
    for number in range(levels):
        content = {"users": {**users, "@other:x": number % 50}}
        auth = (*create, "$JA", *last)
        events.append(
            make(version, f"$P{number}", "m.room.power_levels", "@a:x", content, auth=auth, ts=number)
        )
        last = (f"$P{number}",)
    rules = {"join_rule": "public"}
    events.append(make(version, "$R", "m.room.join_rules", "@a:x", rules, auth=(*create, "$JA", *last)))
    common = [create_event(version), own, events[-2], events[-1]]
    halves: tuple[list[Pdu], list[Pdu]] = (list(common), list(common))
    for number in range(members):
        user, auth = f"@u{number}:y", (*create, *last, "$R")
        join = make(
            version, f"$M{number}", "m.room.member", user, {"membership": "join"}, state_key=user, auth=auth
        )
        events.append(join)
        halves[number % 2].append(join)
    return {event.event_id: event for event in events}, [ids_of(half) for half in halves]


@each_version
def test_no_event_is_asked_for_again_and_again(version: RoomVersion) -> None:
    pdus, states = big_room(version, members=200, levels=50)
    asked: Counter[str] = Counter()

    def fetch(event_id: str) -> Pdu | None:
        asked[event_id] += 1
        return pdus.get(event_id)

    result = resolve_state(version, states, fetch)
    assert len(result) == len(states[0]) + 100
    assert max(asked.values()) <= 2


@each_version
def test_long_auth_chains_need_no_recursion(version: RoomVersion) -> None:
    pdus, states = big_room(version, members=4, levels=5000)
    assert len(resolve_state(version, states, pdus.get)) == len(states[0]) + 2


@each_version
def test_a_kick_only_costs_the_kicked_ones_membership(version: RoomVersion) -> None:
    pdus, states = big_room(version, members=20, levels=2)
    auth = () if version.room_id_is_create_hash else ("$C",)
    kick = make(
        version,
        "$K",
        "m.room.member",
        "@a:x",
        {"membership": "leave"},
        state_key="@u0:y",
        auth=(*auth, "$JA", "$P1", "$M0"),
    )
    pdus["$K"] = kick
    assert check_event_auth(kick, {pdu.key: pdu for pdu in pdus.values()}, version) is None
    result = resolve_state(version, [{**states[0], kick.key: "$K"}, states[1]], pdus.get)
    assert result == {**states[0], **states[1], kick.key: "$K"}
