"""Power levels: what a user has and what an act needs.

SPEC: Matrix v1.19, Client-Server API, "m.room.power_levels" (the defaults); room version 12 (creators).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import inf, isfinite
from typing import Any, Final

from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.state_content import additional_creators, room_creator

#: An integer as in the power levels event, or ``INFINITE``.
Level = int | float

#: The level of a version 12 creator: above every integer, equal to itself. Canonical JSON has no floats,
#: so it can never be serialised as a level by mistake.
INFINITE: Final = inf

#: The level of the creator while the room has no power levels event (up to version 11).
_CREATOR_WITHOUT_POWER_LEVELS: Final = 100

_EMPTY: Final[Mapping[str, Any]] = {}

#: An integer in a string, as Python reads one but for underscores and digits of other scripts.
_DIGITS: Final = re.compile(r"\s*[+-]?[0-9]{1,40}\s*", re.ASCII)


def level_of(value: object, version: RoomVersion) -> int | None:
    """A level as its event writes it; None for what is none. Up to version 9 a string of digits is one, and
    a float where JSON may have them.
    """
    if type(value) is int:
        return value
    if not version.string_power_levels:
        return None
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    if type(value) is float and isfinite(value):
        return int(value)
    return None


def creators_of(create: Pdu, version: RoomVersion) -> frozenset[str]:
    """The user ids of the room's creators: one up to version 11, any number from version 12 on."""
    if version.creator_in_content:
        made_by = room_creator(create.content)
        return frozenset((made_by,)) if made_by is not None else frozenset()
    if not version.privileged_creators:
        return frozenset((create.sender,))
    return frozenset((create.sender, *additional_creators(create.content)))


def changed_users(before: Mapping[str, Any], after: Mapping[str, Any]) -> frozenset[str] | None:
    """Returns the users whose level differs between two power levels events; None if anything else differs
    too.
    """
    if {**before, "users": None} != {**after, "users": None}:
        return None
    old, new = level_table(before, "users"), level_table(after, "users")
    return frozenset(user for user in old.keys() | new.keys() if old.get(user) != new.get(user))


class PowerLevels:
    """The levels of a room, from its create event and its power levels event (None: the room has none).

    Nothing is copied: building one costs the same for one user and for ten thousand. A value that is not a
    level (``level_of``) counts as absent.
    """

    __slots__ = ("_content", "_creators", "_event_levels", "_users", "_users_default", "_version")

    def __init__(self, create: Pdu, power_levels: Pdu | None, version: RoomVersion) -> None:
        self._version = version
        self._creators: frozenset[str] = frozenset()
        if power_levels is None:
            self._content = self._event_levels = _EMPTY
            owners = creators_of(create, version)
            self._users: Mapping[str, Any] = dict.fromkeys(owners, _CREATOR_WITHOUT_POWER_LEVELS)
        else:
            self._content = power_levels.content
            self._users = level_table(self._content, "users")
            self._event_levels = level_table(self._content, "events")
        if version.privileged_creators:
            self._creators = creators_of(create, version)
        self._users_default = self._scalar_level("users_default", 0)

    def user_level(self, user_id: str) -> Level:
        """The level of a user, in the room or not."""
        if user_id in self._creators:
            return INFINITE
        level = self._users.get(user_id)
        if type(level) is int:
            return level
        read = None if level is None else level_of(level, self._version)
        return self._users_default if read is None else read

    def required_level(self, event_type: str, is_state: bool) -> int:
        """The level that sending an event of this type takes."""
        level = level_of(self._event_levels.get(event_type), self._version)
        if level is not None:
            return level
        return (
            self._scalar_level("state_default", 50) if is_state else self._scalar_level("events_default", 0)
        )

    def notification_level(self, key: str) -> int:
        """Returns the level that a notification such as ``room`` requires; 50 if the event does not set
        one.
        """
        level = level_of(level_table(self._content, "notifications").get(key), self._version)
        return 50 if level is None else level

    @property
    def default_level(self) -> int:
        """The level of a user who has none of their own."""
        return self._users_default

    @property
    def ban(self) -> int:
        """The level to ban, and to lift a ban."""
        return self._scalar_level("ban", 50)

    @property
    def kick(self) -> int:
        """The level that a kick requires."""
        return self._scalar_level("kick", 50)

    @property
    def redact(self) -> int:
        """The level to redact what others sent."""
        return self._scalar_level("redact", 50)

    @property
    def invite(self) -> int:
        """The level to invite."""
        return self._scalar_level("invite", 0)

    @property
    def creators(self) -> frozenset[str]:
        """Those whose level is infinite; empty up to version 11."""
        return self._creators

    def _scalar_level(self, name: str, default: int) -> int:
        value = level_of(self._content.get(name), self._version)
        return default if value is None else value


def level_table(content: Mapping[str, Any], table: str) -> Mapping[str, Any]:
    """One of ``users``, ``events`` and ``notifications`` as a power levels event has it, empty where that is
    no object; what stands in it is whatever JSON it is (``level_of``).
    """
    value = content.get(table)
    return value if isinstance(value, Mapping) else _EMPTY


#: Gives the levels of a room; ``PowerLevels`` itself is one, ``PowerLevelCache`` a faster one.
LevelsSource = Callable[[Pdu, Pdu | None, RoomVersion], PowerLevels]


class PowerLevelCache:
    """Remembers up to ``size`` rooms' levels. A caller that judges many events holds one and passes it on.

    Keyed by event id but compared by object: a redacted copy of an event has its id and other levels.
    """

    __slots__ = ("_known", "_size")

    def __init__(self, size: int = 256) -> None:
        self._size = size
        self._known: dict[str, tuple[Pdu, Pdu | None, PowerLevels]] = {}

    def __call__(self, create: Pdu, power_levels: Pdu | None, version: RoomVersion) -> PowerLevels:
        key = create.event_id if power_levels is None else power_levels.event_id
        known = self._known.get(key)
        if known is not None and known[0] is create and known[1] is power_levels:
            return known[2]
        levels = PowerLevels(create, power_levels, version)
        if len(self._known) >= self._size:
            del self._known[next(iter(self._known))]
        self._known[key] = (create, power_levels, levels)
        return levels
