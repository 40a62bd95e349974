"""The cases of tests/vectors/state_resolution.json as events and states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.room_versions import RoomVersion
from matrix.proto.room_graph import from_vector, ids_of, load_vectors

VECTORS = load_vectors("state_resolution.json")


def base_events(version: RoomVersion, case: Mapping[str, Any]) -> list[Pdu]:
    named = case.get("base", version.id)
    base = VECTORS["bases"].get(named, VECTORS["bases"]["10"])  # the rooms of versions before are as that
    return [from_vector(version, event) for event in base]


def all_events(version: RoomVersion, case: Mapping[str, Any]) -> list[Pdu]:
    """The base and what the case adds, each event after those that it cites."""
    return [*base_events(version, case), *(from_vector(version, event) for event in case["events"])]


def load(version: RoomVersion, case: Mapping[str, Any]) -> tuple[dict[str, Pdu], list[dict[StateKey, str]]]:
    """The events by id, and the states to resolve."""
    pdus = {event.event_id: event for event in all_events(version, case)}
    base = base_events(version, case)
    return pdus, [ids_of((*base, *(pdus[event_id] for event_id in ids))) for ids in case["sets"]]


def expected(version: RoomVersion, case: Mapping[str, Any]) -> dict[StateKey, str]:
    """The state that the case expects."""
    state = ids_of(base_events(version, case))
    for name, event_id in case["expect"].items():
        kind, _, state_key = name.partition("|")
        state.pop((kind, state_key), None)
        if event_id is not None:
            state[(kind, state_key)] = event_id
    return state
