"""Authorisation rule 10: who may change the power levels, and to what.

SPEC: Matrix v1.19, room version 12, rule 10 (the last but one of every version). A level that is absent is
absent here; it does not stand for its default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from hansa_matrix.proto.auth_rules.levels import Level, PowerLevels, level_of
from hansa_matrix.proto.auth_rules.reject import AuthRejection
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.ids import is_valid_user_id
from hansa_matrix.proto.room_versions import RoomVersion

SCALARS: Final = ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")

_EMPTY: Final[Mapping[str, Any]] = {}


def check_power_levels(
    pdu: Pdu, current: Pdu | None, levels: PowerLevels, version: RoomVersion
) -> AuthRejection | None:
    """Judge ``pdu`` against the room's power levels event (None: it has none) and its levels."""
    shape = _check_shape(pdu.content, levels.creators, version)
    if shape is not None or current is None:
        return shape
    level = levels.user_level(pdu.sender)
    old, new = current.content, pdu.content
    if not all(
        _can_change(change, level)
        for change in _changed_levels(_scalar_levels(old), _scalar_levels(new), version)
    ):
        return AuthRejection("10.scalar", f"{pdu.sender} changes a level above the own one")
    for name in ("events", "notifications") if version.checks_notification_levels else ("events",):
        changes = _changed_levels(_level_entries(old, name), _level_entries(new, name), version)
        if not all(_can_change(change, level) for change in changes):
            return AuthRejection(
                f"10.{name}", f"{pdu.sender} changes an entry of '{name}' above the own level"
            )
    for user, before, after in _changed_levels(
        _level_entries(old, "users"), _level_entries(new, "users"), version
    ):
        if user != pdu.sender and before is not None and before >= level:
            return AuthRejection(
                "10.users.old", f"{pdu.sender} changes {user}, whose level is not below the own one"
            )
        if after is not None and after > level:
            return AuthRejection("10.users.new", f"{pdu.sender} raises {user} above the own level")
    return None


def _check_shape(
    content: Mapping[str, Any], creators: frozenset[str], version: RoomVersion
) -> AuthRejection | None:
    if version.string_power_levels:  # of what they hold only the levels of users are asked for
        users = content.get("users", _EMPTY)
        if not isinstance(users, Mapping) or any(level_of(v, version) is None for v in users.values()):
            return AuthRejection("10.integer", "'users' is not an object of integers")
    else:
        for name in SCALARS:
            if name in content and type(content[name]) is not int:
                return AuthRejection("10.integer", f"'{name}' is not an integer")
        for name in ("events", "notifications", "users"):
            if name in content and not _all_integers(content[name]):
                return AuthRejection("10.integer", f"'{name}' is not an object of integers")
    users = _level_entries(content, "users")
    if not all(is_valid_user_id(user) for user in users):
        return AuthRejection("10.user_id", "'users' has a key that is not a user id")
    if not creators.isdisjoint(users):
        return AuthRejection("10.creator", "'users' names a creator of the room")
    return None


def _all_integers(value: object) -> bool:
    # bool is a subclass of int, and is not an integer of JSON.
    return isinstance(value, Mapping) and all(type(level) is int for level in value.values())


def _scalar_levels(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: content[name] for name in SCALARS if name in content}


def _level_entries(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = content.get(name)
    return value if isinstance(value, Mapping) else _EMPTY


_Change = tuple[str, int | None, int | None]


def _changed_levels(
    old: Mapping[str, Any], new: Mapping[str, Any], version: RoomVersion
) -> Iterator[_Change]:
    """``(name, before, after)`` of each entry that differs; None where it is absent."""
    for name, value in old.items():
        before, after = level_of(value, version), level_of(new.get(name), version)
        if after != before:
            yield name, before, after
    for name, value in new.items():
        if name not in old:
            yield name, None, level_of(value, version)


def _can_change(change: _Change, level: Level) -> bool:
    _, before, after = change
    return (before is None or before <= level) and (after is None or after <= level)
