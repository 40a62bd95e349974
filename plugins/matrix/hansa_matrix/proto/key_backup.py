"""Keys in a backup. SPEC: client-server API, "Server-side key backups"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa_matrix.proto import ids

_MAX_INDEX = 2**53 - 1


def is_valid_key(data: object) -> bool:
    """True if a value is a key as it is backed up."""
    if not isinstance(data, dict):
        return False
    numbers = (data.get("first_message_index"), data.get("forwarded_count"))
    return (
        all(type(one) is int and 0 <= one <= _MAX_INDEX for one in numbers)
        and isinstance(data.get("is_verified"), bool)
        and isinstance(data.get("session_data"), dict)
    )


def is_valid_key_place(room_id: object, session_id: object) -> bool:
    """True if a key may belong to a room and a session."""
    return (
        ids.is_valid_room_id(room_id) and isinstance(session_id, str) and 0 < len(session_id.encode()) <= 255
    )


def is_better_key(data: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """True if a key replaces another of the same session."""
    return _key_rank(data) < _key_rank(known)


def _key_rank(data: Mapping[str, Any]) -> tuple[bool, int, int]:
    """Less for the better."""
    return not data["is_verified"], data["first_message_index"], data["forwarded_count"]
