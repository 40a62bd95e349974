"""The fields that survive a redaction. SPEC: room versions 1 to 12, "Redactions"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa_matrix.proto.room_versions import RoomVersion

_TOP = frozenset(
    [
        "event_id",
        "type",
        "room_id",
        "sender",
        "state_key",
        "content",
        "hashes",
        "signatures",
        "depth",
        "prev_events",
        "auth_events",
        "origin_server_ts",
    ]
)
_TOP_V9 = _TOP | {"origin", "membership", "prev_state"}
_LEVELS = frozenset(
    ["ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"]
)
_V9: Mapping[str, frozenset[str]] = {
    "m.room.member": frozenset({"membership", "join_authorised_via_users_server"}),
    "m.room.create": frozenset({"creator"}),
    "m.room.join_rules": frozenset({"join_rule", "allow"}),
    "m.room.power_levels": _LEVELS,
    "m.room.history_visibility": frozenset({"history_visibility"}),
}
_V11: Mapping[str, frozenset[str]] = {
    **_V9,
    "m.room.power_levels": _LEVELS | {"invite"},
    "m.room.redaction": frozenset({"redacts"}),
}


def redact_event(event: Mapping[str, Any], version: RoomVersion) -> dict[str, Any]:
    """The redacted copy of an event; ``unsigned`` is dropped. Nothing of the original is changed."""
    top = _TOP if version.redaction_v11 else _TOP_V9
    kept = {key: value for key, value in event.items() if key in top}
    content = event.get("content")
    kept["content"] = _redact_content(
        event.get("type"), content if isinstance(content, dict) else {}, version
    )
    return kept


def _redact_content(type_: object, content: Mapping[str, Any], version: RoomVersion) -> dict[str, Any]:
    if not isinstance(type_, str):
        return {}
    if not version.redaction_v11:
        keep = _V9.get(type_, frozenset())
        if type_ in _LATER:
            keep = _before_v9(type_, keep, version)
        return {key: value for key, value in content.items() if key in keep}
    if type_ == "m.room.create":
        return dict(content)
    keep = _V11.get(type_, frozenset())
    kept = {key: value for key, value in content.items() if key in keep}
    if type_ == "m.room.member":
        invite = content.get("third_party_invite")
        if isinstance(invite, dict):
            kept["third_party_invite"] = {"signed": invite["signed"]} if "signed" in invite else {}
    return kept


#: Types of which earlier versions kept something else than version 9.
_LATER = frozenset({"m.room.aliases", "m.room.join_rules", "m.room.member"})


def _before_v9(type_: str, keep: frozenset[str], version: RoomVersion) -> frozenset[str]:
    if type_ == "m.room.aliases":
        return frozenset({"aliases"}) if version.special_aliases_auth else keep
    if type_ == "m.room.join_rules":
        return keep if version.restricted else keep - {"allow"}
    return keep if version.redaction_keeps_authoriser else keep - {"join_authorised_via_users_server"}
