"""The levels of a room that takes another's place. SPEC: client-server API, "Room Upgrades"."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from hansa_matrix.proto.auth_rules.levels import PowerLevels, level_of
from hansa_matrix.proto.auth_rules.state_keys import MEMBER, POWER_LEVELS
from hansa_matrix.proto.room_versions import RoomVersion

#: The level of an owner where a version has no creators above all others.
_OWNER = 100
#: The least level to send in a room that is replaced.
_CLOSED = 50
_TABLES = ("users", "events", "notifications")


def inherit_power_levels(
    said: Mapping[str, Any],
    levels: PowerLevels,
    before: RoomVersion,
    after: RoomVersion,
    creators: Collection[str],
) -> dict[str, Any]:
    """Returns the power levels of the new room: numbers in the form of its version, and no user above or
    below their old level. ``creators`` are those of the new room.
    """
    found: dict[str, Any] = {}
    for key, value in said.items():
        if key in _TABLES:
            listed = value.items() if isinstance(value, Mapping) else ()
            read = {name: level_of(level, before) for name, level in listed}
            found[key] = {name: level for name, level in read.items() if level is not None}
        elif (level := level_of(value, before)) is not None:
            found[key] = level
    users: dict[str, int] = found.setdefault("users", {})
    if after.privileged_creators:
        # A former creator who does not create the new room is no longer above all others, and below no other
        # user.
        former = dict.fromkeys(sorted(levels.creators), max([_OWNER, *users.values()]))
        found["users"] = {u: level for u, level in {**users, **former}.items() if u not in creators}
    elif levels.creators:  # they were above everybody, and here only a number can say so
        highest = max([_OWNER, *users.values(), *found.get("events", {}).values()])
        found["users"] = {**users, **dict.fromkeys(sorted(levels.creators), highest)}
    return found


def raise_power_levels(
    said: Mapping[str, Any], user: str, levels: PowerLevels, steps: Iterable[tuple[str, str, Any]]
) -> dict[str, Any]:
    """Levels by which ``user`` can send the first state events of a room, ``said`` itself among them."""
    users: Mapping[str, int] = said["users"]
    usual = said.get("users_default", 0)
    needed = [levels.required_level(POWER_LEVELS, True)]  # a state event, as all of them
    for type_, key, _ in steps:
        needed.append(levels.required_level(type_, True))
        if type_ == MEMBER:
            needed += [levels.ban, users.get(key, usual) + 1]
    if users.get(user, usual) >= max(needed):
        return dict(said)
    return {**said, "users": {**users, user: max(needed)}}


def closed_power_levels(said: Mapping[str, Any], version: RoomVersion) -> dict[str, Any] | None:
    """Levels by which nobody of the usual level speaks in a room, or invites into it; None if they are so."""
    usual = level_of(said.get("users_default", 0), version) or 0
    least = max(_CLOSED, usual + 1)
    raised_: dict[str, int] = {}
    for name, unsaid in (("events_default", 0), ("invite", 0)):
        level = level_of(said.get(name, unsaid), version)
        if level is None or level < least:
            raised_[name] = least
    return {**said, **raised_} if raised_ else None
