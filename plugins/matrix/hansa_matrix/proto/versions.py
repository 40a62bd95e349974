"""What differs between room versions, as data. Nothing else in the plugin compares version strings.

SPEC: Matrix v1.19, "Room Versions" 10, 11 and 12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomVersion:
    """One room version as flags; ``id`` is the string that rooms carry in ``m.room.create``."""

    id: str
    #: The room id is the reference hash of the create event, which carries no ``room_id`` (v12).
    hashed_room_id: bool = False
    #: Creators outrank every power level, and ``additional_creators`` is read (v12).
    privileged_creators: bool = False
    #: The creator is ``content.creator`` (v10), not the sender of the create event (v11+).
    creator_in_content: bool = False
    #: ``redacts`` is a key of the content (v11+), not of the event (v10).
    redacts_in_content: bool = False
    #: The redaction algorithm of v11+; else the one of v9 and v10.
    redaction_v11: bool = False
    #: State resolution v2.1 (v12); else v2.
    state_res_v2_1: bool = False
    #: 255 bytes are the limit of identifiers (v11+), else 255 code points are what a PDU is dropped for.
    strict_byte_limits: bool = False


_V10 = RoomVersion(id="10", creator_in_content=True)
_V11 = RoomVersion(id="11", redacts_in_content=True, redaction_v11=True, strict_byte_limits=True)
_V12 = RoomVersion(
    id="12",
    hashed_room_id=True,
    privileged_creators=True,
    redacts_in_content=True,
    redaction_v11=True,
    state_res_v2_1=True,
    strict_byte_limits=True,
)

#: Every version Hansa takes part in, by its id.
VERSIONS: Mapping[str, RoomVersion] = MappingProxyType({v.id: v for v in (_V10, _V11, _V12)})


def version_of(value: object) -> RoomVersion | None:
    """The room version that a peer names; None for any value that names none of ours."""
    return VERSIONS.get(value) if isinstance(value, str) else None


#: The version of rooms that Hansa creates when nobody says otherwise (SPEC: SHOULD be 12).
DEFAULT_VERSION = _V12
