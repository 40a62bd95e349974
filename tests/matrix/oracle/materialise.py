"""Rooms with symbolic ids made into events that any server takes: complete, with ids that are their hashes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.ids import domain_of
from hansa_matrix.proto.room_versions import RoomVersion
from matrix.oracle.graphs import cited


def materialise(version: RoomVersion, pdus: Iterable[Pdu]) -> dict[str, Pdu]:
    """Symbolic id -> event. An event stands after those that it names; other names stay as they are."""
    made: dict[str, Pdu] = {}

    def real(name: str) -> str:
        return made[name].event_id if name in made else name

    for pdu in pdus:
        room_id = pdu.room_id
        if version.room_id_is_create_hash and "$" + room_id[1:] in made:
            room_id = "!" + real("$" + room_id[1:])[1:]
        raw: dict[str, Any] = {
            **pdu.raw,
            "prev_events": cited([real(name) for name in pdu.prev_events], version),
            "auth_events": cited([real(name) for name in pdu.auth_events], version),
            "depth": pdu.depth,
            "hashes": {"sha256": pdu.event_id},
            "signatures": {},
        }
        if version.server_made_event_ids:
            raw["event_id"] = f"{pdu.event_id}:{domain_of(pdu.sender)}"
        if "room_id" in raw:
            raw["room_id"] = room_id
        made[pdu.event_id] = replace(
            pdu,
            event_id=event_id(raw, version),
            room_id=room_id,
            prev_events=tuple(real(name) for name in pdu.prev_events),
            auth_events=tuple(real(name) for name in pdu.auth_events),
            raw=raw,
        )
        if version.room_id_is_create_hash and pdu.type == "m.room.create":
            made[pdu.event_id] = replace(made[pdu.event_id], room_id="!" + made[pdu.event_id].event_id[1:])
    return made
