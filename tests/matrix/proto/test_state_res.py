"""State resolution on rooms written down by hand (tests/vectors/state_resolution.json) and its calling rules."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import pytest
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.state_res import MissingEvents, resolve
from hansa_matrix.proto.versions import VERSIONS, RoomVersion
from matrix.proto.room_graph import ALL_VERSIONS, from_vector, ids_of, load_vectors

VECTORS = load_vectors("state_resolution.json")


CASES = [
    pytest.param(VERSIONS[number], case, id=f"v{number}: {case['name']}")
    for case in VECTORS["cases"]
    for number in case["versions"]
]


def load(version: RoomVersion, case: Mapping[str, Any]) -> tuple[dict[str, Pdu], list[dict[StateKey, str]]]:
    base = [from_vector(version, event) for event in VECTORS["bases"][case.get("base", version.id)]]
    more = [from_vector(version, event) for event in case["events"]]
    pdus = {event.event_id: event for event in (*base, *more)}
    return pdus, [ids_of((*base, *(pdus[event_id] for event_id in ids))) for ids in case["sets"]]


def expected(pdus: Mapping[str, Pdu], version: RoomVersion, case: Mapping[str, Any]) -> dict[StateKey, str]:
    state = ids_of(from_vector(version, event) for event in VECTORS["bases"][case.get("base", version.id)])
    for name, event_id in case["expect"].items():
        kind, _, state_key = name.partition("|")
        state.pop((kind, state_key), None)
        if event_id is not None:
            state[(kind, state_key)] = event_id
    return state


@pytest.mark.parametrize(("version", "case"), CASES)
def test_vector(version: RoomVersion, case: dict[str, Any]) -> None:
    pdus, sets = load(version, case)
    for order in permutations(sets):
        result = resolve(version, order, pdus.get, rejected=case.get("rejected", ()))
        assert result == expected(pdus, version, case)


@pytest.mark.parametrize(("version", "case"), CASES)
def test_the_same_state_twice_changes_nothing(version: RoomVersion, case: dict[str, Any]) -> None:
    pdus, sets = load(version, case)
    result = resolve(version, [*sets, sets[0]], pdus.get, rejected=case.get("rejected", ()))
    assert result == expected(pdus, version, case)


@pytest.mark.parametrize(("version", "case"), CASES)
def test_missing_events_are_asked_for_until_all_are_there(version: RoomVersion, case: dict[str, Any]) -> None:
    pdus, sets = load(version, case)
    known: dict[str, Pdu] = {}
    for _ in pdus:
        try:
            result = resolve(version, sets, known.get, rejected=case.get("rejected", ()))
        except MissingEvents as missing:
            asked = {event_id: pdus[event_id] for event_id in missing.ids}
            assert asked
            assert not asked.keys() & known.keys(), "an event that is at hand was asked for again"
            known.update(asked)
        else:
            break
    else:
        pytest.fail("never satisfied")
    assert result == expected(pdus, version, case)


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda v: f"v{v.id}")
def test_states_that_agree_need_no_events(version: RoomVersion) -> None:
    def nothing(event_id: str) -> Pdu | None:
        raise AssertionError(event_id)

    state = {("m.room.create", ""): "$C", ("m.room.topic", ""): "$T"}
    assert resolve(version, [], nothing) == {}
    assert resolve(version, [state], nothing) == state
    assert resolve(version, [state, dict(reversed(state.items()))], nothing) == state
    assert resolve(version, [state], nothing) is not state


def test_events_rejected_by_state_can_be_kept_out() -> None:
    case = next(c for c in VECTORS["cases"] if "rejected by its state" in c["name"])
    for version in ALL_VERSIONS:
        pdus, sets = load(version, case)
        result = resolve(version, sets, pdus.get, rejected=case["rejected"], admit_rejected=False)
        assert result[("m.room.topic", "")] == case["oracle_expect"]["m.room.topic|"]


def test_mistake_19_a_raising_fetch_is_the_callers_own() -> None:
    # The resolver swallows nothing: only a rule's refusal means that an event is left out.
    case = VECTORS["cases"][0]
    version = VERSIONS[case["versions"][0]]
    _, sets = load(version, case)

    def broken(event_id: str) -> Pdu | None:
        raise OSError(event_id)

    with pytest.raises(OSError, match=r"\$"):
        resolve(version, sets, broken)
