"""Words that a room's state says, or the specification's default where it says something else or nothing.

SPEC: client-server API, "Room History Visibility", "m.room.join_rules".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: SPEC: client-server API, "Room History Visibility".
_VISIBILITIES = ("joined", "invited", "shared", "world_readable")


def history_visibility(content: Mapping[str, Any] | None) -> str:
    """Who may read the past; ``shared`` where nothing known is said."""
    given = content.get("history_visibility") if content is not None else None
    return given if isinstance(given, str) and given in _VISIBILITIES else "shared"


def join_rule(content: Mapping[str, Any] | None) -> str:
    """How a room is joined; ``invite`` where no word is said."""
    given = content.get("join_rule") if content is not None else None
    return given if isinstance(given, str) else "invite"
