"""The differences between room versions, as data. Nothing else in the plugin compares version strings.

SPEC: Matrix v1.19, "Room Versions" 1 to 12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomVersion:
    """One room version as flags; ``id`` is the string that rooms carry in ``m.room.create``. The defaults are
    those of versions that have nothing special, so that each version names what it brought or took away.
    """

    id: str
    #: An event carries its ``event_id``, of its server's making, and cites others with their hashes (v1, v2).
    server_made_event_ids: bool = False
    #: An event id is the reference hash in URL-safe base64 (v4+), not in that with ``/`` and ``+`` (v3).
    url_safe_event_ids: bool = True
    #: 1, 2 or 2.1.
    state_resolution: str = "2"
    #: A signature counts if its key was valid at ``origin_server_ts`` (v5+).
    key_validity: bool = True
    #: Floats and integers beyond 2^53 are refused (v6+).
    strict_json: bool = True
    #: ``m.room.aliases`` has an authorisation rule of its own and keeps its aliases when redacted (v1 to v5).
    special_aliases_auth: bool = False
    #: Redactions have an authorisation rule of their own (v1, v2).
    redaction_rule: bool = False
    #: Changes of ``notifications`` in power levels are judged as those of other levels (v6+).
    checks_notification_levels: bool = True
    #: A level may be a string or, where JSON is lax, a float (v1 to v9).
    string_power_levels: bool = False
    #: Membership and join rule ``knock`` (v7+).
    knock: bool = True
    #: Join rule ``restricted`` (v8+).
    restricted: bool = True
    #: A redacted member event keeps who authorised it (v9+).
    redaction_keeps_authoriser: bool = True
    #: Join rule ``knock_restricted`` (v10+).
    knock_restricted: bool = True
    #: The creator is ``content.creator`` (v1 to v10), not the sender of the create event (v11+).
    creator_in_content: bool = False
    #: ``redacts`` is a key of the content (v11+), not of the event.
    redacts_in_content: bool = True
    #: The redaction algorithm of v11+.
    redaction_v11: bool = True
    #: 255 bytes are the limit of identifiers (v11+), else 255 code points are what a PDU is dropped for.
    strict_byte_limits: bool = True
    #: The room id is the reference hash of the create event, which carries no ``room_id`` (v12).
    room_id_is_create_hash: bool = False
    #: Creators outrank every power level, and ``additional_creators`` is read (v12).
    privileged_creators: bool = False


_V11 = RoomVersion(id="11")
_V12 = replace(_V11, id="12", state_resolution="2.1", room_id_is_create_hash=True, privileged_creators=True)
# From here back, each is what the next one is without what that brought.
_V10 = replace(
    _V11,
    id="10",
    creator_in_content=True,
    redacts_in_content=False,
    redaction_v11=False,
    strict_byte_limits=False,
)
_V9 = replace(_V10, id="9", knock_restricted=False, string_power_levels=True)
_V8 = replace(_V9, id="8", redaction_keeps_authoriser=False)
_V7 = replace(_V8, id="7", restricted=False)
_V6 = replace(_V7, id="6", knock=False)
_V5 = replace(_V6, id="5", strict_json=False, special_aliases_auth=True, checks_notification_levels=False)
_V4 = replace(_V5, id="4", key_validity=False)
_V3 = replace(_V4, id="3", url_safe_event_ids=False)
_V2 = replace(_V3, id="2", server_made_event_ids=True, redaction_rule=True)
_V1 = replace(_V2, id="1", state_resolution="1")

#: Every version Hansa takes part in, by its id.
VERSIONS: Mapping[str, RoomVersion] = MappingProxyType(
    {v.id: v for v in (_V1, _V2, _V3, _V4, _V5, _V6, _V7, _V8, _V9, _V10, _V11, _V12)}
)


def version_of(value: object) -> RoomVersion | None:
    """Returns the room version that a peer names; None for a value that is not a supported version."""
    return VERSIONS.get(value) if isinstance(value, str) else None


#: The version of rooms that Hansa creates when nobody says otherwise (SPEC: SHOULD be 12).
DEFAULT_VERSION = _V12
