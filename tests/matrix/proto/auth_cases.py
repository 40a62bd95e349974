"""The cases of tests/vectors/auth_rules.json as events and states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.room_versions import RoomVersion
from matrix.proto.room_graph import create_event, load_vectors, make, state_of

VECTORS = load_vectors("auth_rules.json")


@dataclass(frozen=True)
class StateCase:
    pdu: Pdu
    state: dict[StateKey, Pdu]


def build(version: RoomVersion, case: Mapping[str, Any]) -> StateCase:
    events = _state_events(version, case)
    event = case["event"]
    content = dict(event["content"])
    if case.get("keep_creator") and not version.privileged_creators:
        content["users"] = {"@a:x": 100, **content["users"]}
    pdu = make(
        version,
        "$EVENT",
        event["type"],
        event["sender"],
        content,
        state_key=event["state_key"],
        prev=event.get("prev", ("$M",)),
        ts=50,
    )
    return StateCase(pdu, state_of(events))


def _state_events(version: RoomVersion, case: Mapping[str, Any]) -> list[Pdu]:
    create = create_event(version, **case.get("create", {}))
    if case.get("only_create"):
        return [create]
    events = [] if case.get("no_create") else [create]
    members = {"@a:x": "join", "@b:y": "join", "@c:z": "join", **case.get("members", {})}
    for number, (user, membership) in enumerate(members.items()):
        content = {"membership": membership}
        events.append(make(version, f"$M{number}", "m.room.member", user, content, state_key=user))
    levels = case.get("levels", {})
    if levels is not None:
        levels = {**levels, "users": dict(levels.get("users", {"@b:y": 50}))}
        if not version.privileged_creators:
            levels["users"].setdefault("@a:x", 100)
        events.append(make(version, "$PL", "m.room.power_levels", "@a:x", levels))
    if (rule := case.get("join_rule", "invite")) is not None:
        events.append(make(version, "$JR", "m.room.join_rules", "@a:x", {"join_rule": rule}))
    for token, invite in case.get("third_party_invites", {}).items():
        kind = "m.room.third_party_invite"
        events.append(make(version, "$3P", kind, invite["sender"], invite["content"], state_key=token))
    return events
