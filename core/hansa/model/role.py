"""The rank of a person in a room."""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """Rank in a room, from what all networks share."""

    NONE = 0
    VISITOR = 1
    MEMBER = 2
    MODERATOR = 3
    OWNER = 4
