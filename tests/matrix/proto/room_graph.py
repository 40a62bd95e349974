"""Rooms as tests write them down: events with symbolic ids, states as lists of ids.

An event of a vector file is an object with ``id``, ``type``, ``sender``, ``ts``, ``auth`` and, where they
matter, ``state_key`` (default ""), ``content``, ``prev``. The create event is ``$C``; events of rooms up to
version 11 cite it without saying so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion

VECTORS = Path(__file__).parents[2] / "vectors"
V10, V11, V12 = (VERSIONS[name] for name in ("10", "11", "12"))
ALL_VERSIONS = tuple(VERSIONS.values())
#: Those in which an event id is a hash.
HASHED = tuple(version for version in ALL_VERSIONS if not version.server_made_event_ids)

_UNSET: Any = object()


def load_vectors(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def room_id_of(version: RoomVersion) -> str:
    return "!C" if version.room_id_is_create_hash else "!room:x"


def make(
    version: RoomVersion,
    event_id: str,
    type: str,  # noqa: A002 - the field's own name
    sender: str,
    content: Mapping[str, Any] | None = None,
    *,
    state_key: str | None = "",
    auth: Iterable[str] = (),
    prev: Iterable[str] = ("$prev",),
    ts: int = 0,
    room_id: str = _UNSET,
    **more: Any,
) -> Pdu:
    """A PDU with a symbolic id. ``auth`` is taken as it is; ``more`` are further top-level fields."""
    room = room_id_of(version) if room_id is _UNSET else room_id
    raw = {"type": type, "sender": sender, "content": dict(content or {}), "origin_server_ts": ts, **more}
    if state_key is not None:
        raw["state_key"] = state_key
    if not (version.room_id_is_create_hash and type == "m.room.create"):
        raw["room_id"] = room
    return Pdu(
        event_id=event_id,
        room_id=room,
        type=type,
        sender=sender,
        state_key=state_key,
        content=raw["content"],
        prev_events=tuple(prev),
        auth_events=tuple(auth),
        depth=1,
        origin_server_ts=ts,
        raw=raw,
        wire=b"",
    )


def create_event(version: RoomVersion, sender: str = "@a:x", ts: int = 1, **content: Any) -> Pdu:
    if version.creator_in_content:
        content.setdefault("creator", sender)
    content.setdefault("room_version", version.id)
    return make(version, "$C", "m.room.create", sender, content, prev=(), ts=ts)


def from_vector(version: RoomVersion, event: Mapping[str, Any]) -> Pdu:
    if event["type"] == "m.room.create":
        return create_event(version, event["sender"], event["ts"], **event.get("content", {}))
    auth = list(event["auth"])
    if not version.room_id_is_create_hash:
        auth.insert(0, "$C")
    return make(
        version,
        event["id"],
        event["type"],
        event["sender"],
        event.get("content"),
        state_key=event.get("state_key", ""),
        auth=auth,
        prev=event.get("prev", ("$prev",)),
        ts=event["ts"],
    )


def state_of(events: Iterable[Pdu]) -> dict[StateKey, Pdu]:
    return {event.key: event for event in events}


def ids_of(events: Iterable[Pdu]) -> dict[StateKey, str]:
    return {event.key: event.event_id for event in events}
