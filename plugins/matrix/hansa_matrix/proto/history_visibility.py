"""The right to read an event, by the history visibility of its room.

An event that changes the visibility, or the reader's membership, is read by the more generous of the two
values on either side of it. SPEC: client-server API, "Room History Visibility".
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.state_content import history_visibility


def visibility_of(event: Pdu | None) -> str:
    """The value of an ``m.room.history_visibility`` event. ``shared`` without an event, and for a value that
    is not known.
    """
    return history_visibility(event.content if event is not None else None)


def user_can_read(visibilities: AbstractSet[str], memberships: AbstractSet[str], *, later: bool) -> bool:
    """True if a user may read an event.

    ``visibilities`` and ``memberships`` are those of the room and of the person on either side of the event.
    ``later``: the person was in the room at a time after it.
    """
    if "world_readable" in visibilities or "join" in memberships:
        return True
    return later and ("shared" in visibilities or ("invited" in visibilities and "invite" in memberships))


def memberships_that_read(visibility: str) -> frozenset[str] | None:
    """The memberships of which a server that is in the room needs one, held by one of its people on one side
    of an event, to get the event. None: being in the room is enough.
    """
    match visibility:
        case "joined":
            return frozenset({"join"})
        case "invited":
            return frozenset({"join", "invite"})
        case _:
            return None
