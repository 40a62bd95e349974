"""State resolution on rooms written down by hand (tests/vectors/state_resolution.json) and its calling rules."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion
from hansa_matrix.proto.state_res.v2 import MissingAuthEvents, resolve_state
from matrix.proto.room_graph import ALL_VERSIONS
from matrix.proto.state_cases import VECTORS, expected, load

CASES = [
    pytest.param(VERSIONS[number], case, id=f"v{number}: {case['name']}")
    for case in VECTORS["cases"]
    for number in case["versions"]
]


@pytest.mark.parametrize(("version", "case"), CASES)
def test_vector(version: RoomVersion, case: dict[str, Any]) -> None:
    pdus, sets = load(version, case)
    for order in permutations(sets):
        result = resolve_state(version, order, pdus.get, rejected=case.get("rejected", ()))
        assert result == expected(version, case)


@pytest.mark.parametrize(("version", "case"), CASES)
def test_the_same_state_twice_changes_nothing(version: RoomVersion, case: dict[str, Any]) -> None:
    pdus, sets = load(version, case)
    result = resolve_state(version, [*sets, sets[0]], pdus.get, rejected=case.get("rejected", ()))
    assert result == expected(version, case)


@pytest.mark.parametrize(("version", "case"), CASES)
def test_missing_events_are_asked_for_until_all_are_there(version: RoomVersion, case: dict[str, Any]) -> None:
    pdus, sets = load(version, case)
    known: dict[str, Pdu] = {}
    for _ in pdus:
        try:
            result = resolve_state(version, sets, known.get, rejected=case.get("rejected", ()))
        except MissingAuthEvents as missing:
            asked = {event_id: pdus[event_id] for event_id in missing.ids}
            assert asked
            assert not asked.keys() & known.keys(), "an event that is at hand was asked for again"
            known.update(asked)
        else:
            break
    else:
        pytest.fail("never satisfied")
    assert result == expected(version, case)


@pytest.mark.parametrize("version", ALL_VERSIONS, ids=lambda v: f"v{v.id}")
def test_states_that_agree_need_no_events(version: RoomVersion) -> None:
    def nothing(event_id: str) -> Pdu | None:
        raise AssertionError(event_id)

    state = {("m.room.create", ""): "$C", ("m.room.topic", ""): "$T"}
    assert resolve_state(version, [], nothing) == {}
    assert resolve_state(version, [state], nothing) == state
    assert resolve_state(version, [state, dict(reversed(state.items()))], nothing) == state
    assert resolve_state(version, [state], nothing) is not state


def test_events_rejected_by_state_can_be_kept_out() -> None:
    case = next(c for c in VECTORS["cases"] if "rejected by its state" in c["name"])
    for version in ALL_VERSIONS[1:]:  # version 1 judges what the states hold
        pdus, sets = load(version, case)
        result = resolve_state(version, sets, pdus.get, rejected=case["rejected"], admit_rejected=False)
        assert result[("m.room.topic", "")] == case["oracle_expect"]["m.room.topic|"]


def test_mistake_19_a_raising_fetch_is_the_callers_own() -> None:
    # The resolver swallows nothing: only a rule's refusal means that an event is left out.
    case = VECTORS["cases"][0]
    version = VERSIONS[case["versions"][0]]
    _, sets = load(version, case)

    def broken(event_id: str) -> Pdu | None:
        raise OSError(event_id)

    with pytest.raises(OSError, match=r"\$"):
        resolve_state(version, sets, broken)
