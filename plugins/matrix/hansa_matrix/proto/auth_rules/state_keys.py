"""Event types and state keys that the rules of rooms read, and which of them an event must cite.

SPEC: Matrix v1.19, Server-Server API, "Auth events selection".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.state_content import authorising_user, membership_of, third_party_token

CREATE: Final = "m.room.create"
MEMBER: Final = "m.room.member"
POWER_LEVELS: Final = "m.room.power_levels"
JOIN_RULES: Final = "m.room.join_rules"
THIRD_PARTY_INVITE: Final = "m.room.third_party_invite"
HISTORY_VISIBILITY: Final = "m.room.history_visibility"

ACL_KEY: Final[StateKey] = ("m.room.server_acl", "")
CREATE_KEY: Final[StateKey] = (CREATE, "")
POWER_LEVELS_KEY: Final[StateKey] = (POWER_LEVELS, "")
JOIN_RULES_KEY: Final[StateKey] = (JOIN_RULES, "")
HISTORY_VISIBILITY_KEY: Final[StateKey] = (HISTORY_VISIBILITY, "")


class StateLookup(Protocol):
    """The part of a room's state that the rules read: any ``Mapping[StateKey, Pdu]`` has it."""

    def get(self, key: StateKey, /) -> Pdu | None:
        """The event of one piece of state, None where there is none."""
        ...


def auth_event_keys(
    type: str,  # noqa: A002 - the field's own name
    sender: str,
    state_key: str | None,
    content: Mapping[str, Any],
    version: RoomVersion,
) -> frozenset[StateKey]:
    """The state keys whose events such an event cites in ``auth_events``: these and no others.

    Fields of the wrong type select nothing. The create event selects nothing; nor is it selected in
    rooms whose id is its hash (version 12).
    """
    if type == CREATE:
        return frozenset()
    keys = {POWER_LEVELS_KEY, (MEMBER, sender)}
    if not version.room_id_is_create_hash:
        keys.add(CREATE_KEY)
    if type == MEMBER:
        _add_member_keys(keys, state_key, content, version)
    return frozenset(keys)


def auth_event_keys_of(pdu: Pdu, version: RoomVersion) -> frozenset[StateKey]:
    """``auth_event_keys`` of an event that exists."""
    return auth_event_keys(pdu.type, pdu.sender, pdu.state_key, pdu.content, version)


def _add_member_keys(
    keys: set[StateKey], state_key: str | None, content: Mapping[str, Any], version: RoomVersion
) -> None:
    said = membership_of(content)
    if state_key is not None:
        keys.add((MEMBER, state_key))
    if said in {"join", "invite", "knock"}:
        keys.add(JOIN_RULES_KEY)
    if said == "invite":
        token = third_party_token(content)
        if token is not None:
            keys.add((THIRD_PARTY_INVITE, token))
    elif said == "join" and version.restricted:
        authoriser = authorising_user(content)
        if authoriser is not None:
            keys.add((MEMBER, authoriser))
