"""The authorisation rules of all room versions: may this event be in this room?

Two parts. ``check_auth_events`` reads the event and the events it cites and runs once per event (rules 1 to
3). ``check_event_auth`` reads a state and runs against each that matters: the event's own auth events, the
state before it, the current state, and the states that state resolution builds (rules 4 to 11).

SPEC: Matrix v1.19, "Authorization rules" of the room versions, numbered as in version 12. Two rules that
version 12 lacks have the numbers of older versions: 4 for aliases (versions 1 to 5), 11 for redactions (1 and
2).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

from hansa.model.errors import LocalProtocolError

from hansa_matrix.proto.auth_rules.levels import LevelsSource, PowerLevelCache, PowerLevels
from hansa_matrix.proto.auth_rules.membership import SignedBy, ThirdPartyOk, check_member
from hansa_matrix.proto.auth_rules.power_levels import check_power_levels
from hansa_matrix.proto.auth_rules.reject import AuthRejection
from hansa_matrix.proto.auth_rules.state_keys import (
    CREATE,
    CREATE_KEY,
    MEMBER,
    POWER_LEVELS,
    POWER_LEVELS_KEY,
    THIRD_PARTY_INVITE,
    StateLookup,
    auth_event_keys,
    auth_event_keys_of,
)
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.ids import domain_of, fits_255_bytes, is_valid_user_id
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion
from hansa_matrix.proto.state_content import is_federated, membership_of

__all__ = [
    "AuthRejection",
    "PowerLevelCache",
    "PowerLevels",
    "auth_event_keys",
    "auth_event_keys_of",
    "check_auth_events",
    "check_event_auth",
    "redaction_allowed",
]


def check_auth_events(
    pdu: Pdu,
    auth_events: Sequence[Pdu],
    version: RoomVersion,
    *,
    create: Pdu | None = None,
    rejected: Container[str] = (),
) -> AuthRejection | None:
    """Rules 1 to 3, which no state changes, and a rule 0: identifiers have 255 bytes at most.

    ``auth_events`` holds the events that ``pdu.auth_events`` names, in any order; ``create`` is the accepted
    create event of the room (only version 12 reads it); ``rejected`` the ids of rejected events.
    Raises LocalProtocolError if a named event is not given.
    """
    if not all(map(fits_255_bytes, (pdu.type, pdu.sender, pdu.state_key or ""))):
        # COMPAT: receipt check 1 lets 255 characters through up to version 10, as Synapse does, which then
        # keeps the event as rejected: others may stand on it.
        return AuthRejection("0.size", "type, sender or state_key has more than 255 bytes")
    if pdu.type == CREATE:
        return _check_create(pdu, version)
    if version.room_id_is_create_hash and not _room_id_matches_create(pdu.room_id, create, rejected):
        return AuthRejection("2.room_id", f"{pdu.room_id} is not the id of an accepted create event")
    return _check_cited_events(pdu, auth_events, version, rejected)


def _check_create(pdu: Pdu, version: RoomVersion) -> AuthRejection | None:
    content = pdu.content
    if pdu.prev_events:
        return AuthRejection("1.prev_events", "a create event has no prev_events")
    if version.room_id_is_create_hash:
        if "room_id" in pdu.raw:
            return AuthRejection("1.room_id", "a create event of this version has no room_id")
    elif domain_of(pdu.room_id) != domain_of(pdu.sender):
        return AuthRejection("1.room_id", "the room id is not of the sender's server")
    if "room_version" in content and not _is_known_version(content["room_version"]):
        return AuthRejection("1.room_version", f"unknown room version {content['room_version']!r}")
    if version.creator_in_content and "creator" not in content:
        return AuthRejection("1.creator", "a create event of this version needs a creator")
    if version.privileged_creators and not _valid_creators(content.get("additional_creators", [])):
        return AuthRejection("1.additional_creators", "additional_creators is not a list of user ids")
    return None


def _is_known_version(value: object) -> bool:
    return isinstance(value, str) and value in VERSIONS


def _valid_creators(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(user, str) and is_valid_user_id(user) for user in value)


def _room_id_matches_create(room_id: str, create: Pdu | None, rejected: Container[str]) -> bool:
    return (
        create is not None
        and create.type == CREATE
        and room_id[1:] == create.event_id[1:]
        and room_id[:1] == "!"
        and create.event_id not in rejected
    )


def _check_cited_events(
    pdu: Pdu, auth_events: Sequence[Pdu], version: RoomVersion, rejected: Container[str]
) -> AuthRejection | None:
    given = {event.event_id: event for event in auth_events}
    missing = [event_id for event_id in pdu.auth_events if event_id not in given]
    if missing:
        raise LocalProtocolError(f"auth events {missing} of {pdu.event_id} were not given")
    named = [given[event_id] for event_id in pdu.auth_events]
    keys = [(event.type, event.state_key) for event in named]
    if len(set(keys)) != len(keys):
        return AuthRejection("3.duplicate", "auth_events names two events of one type and state key")
    allowed = auth_event_keys_of(pdu, version)
    for event, key in zip(named, keys, strict=True):
        if key not in allowed:
            return AuthRejection(
                "3.unselected", f"auth_events names {event.event_id}, a {event.type}, for no reason"
            )
        if event.event_id in rejected:
            return AuthRejection("3.rejected", f"auth_events names {event.event_id}, which was rejected")
        if event.room_id != pdu.room_id:
            return AuthRejection("3.room", f"auth_events names {event.event_id}, which is of another room")
    if not version.room_id_is_create_hash and CREATE_KEY not in keys:
        return AuthRejection("3.create", "auth_events names no create event")
    return None


def _assume_signed(_domain: str) -> bool:
    return True


def _reject_third_party(_signed: Mapping[str, Any], _keys: Sequence[str]) -> bool:
    return False


def check_event_auth(
    pdu: Pdu,
    state: StateLookup,
    version: RoomVersion,
    *,
    signed_by: SignedBy = _assume_signed,
    third_party_ok: ThirdPartyOk = _reject_third_party,
    levels: LevelsSource = PowerLevels,
) -> AuthRejection | None:
    """Rules 4 to 11 against ``state``, of which only the create event and the selected keys are read.

    In version 12 too the create event is expected in ``state``. ``signed_by(server)`` says whether the event
    carries a valid signature of that server (by default it was checked before); ``third_party_ok(signed,
    keys)`` verifies a third-party invite (by default none does). A ``PowerLevelCache`` as ``levels`` saves
    time.
    """
    kind = pdu.type
    if kind == CREATE:
        return None
    create = state.get(CREATE_KEY)
    if create is None:
        return AuthRejection("4.create", "the room has no create event")
    sender = pdu.sender
    if not is_federated(create.content) and domain_of(sender) != domain_of(create.sender):
        return AuthRejection("4.federate", f"the room is closed to {domain_of(sender)}")
    if version.special_aliases_auth and kind == "m.room.aliases":
        return _check_aliases(pdu)
    if kind == MEMBER:
        return check_member(
            pdu,
            create,
            state,
            version=version,
            signed_by=signed_by,
            third_party_ok=third_party_ok,
            levels=levels,
        )
    member = state.get((MEMBER, sender))
    if member is None or membership_of(member.content) != "join":
        return AuthRejection("6.not_joined", f"{sender} is not in the room")
    power_levels = state.get(POWER_LEVELS_KEY)
    room_levels = levels(create, power_levels, version)
    level = room_levels.user_level(sender)
    if kind == THIRD_PARTY_INVITE:
        return None if level >= room_levels.invite else AuthRejection("7.invite", f"{sender} may not invite")
    state_key = pdu.state_key
    if level < room_levels.required_level(kind, state_key is not None):
        return AuthRejection("8.level", f"{sender} may not send {kind}")
    if state_key is not None:
        if state_key[:1] == "@" and state_key != sender:
            return AuthRejection("9.state_key", f"{sender} may not set the state of {state_key}")
        if kind == POWER_LEVELS:
            return check_power_levels(pdu, power_levels, room_levels, version)
    if version.redaction_rule and kind == "m.room.redaction" and level < room_levels.redact:
        redacts = pdu.raw.get("redacts")
        if not isinstance(redacts, str) or domain_of(redacts) != domain_of(pdu.event_id):
            return AuthRejection("11.redaction", f"{sender} may not redact what others sent")
    return None


def _check_aliases(pdu: Pdu) -> AuthRejection | None:
    """Rule 4 of versions 1 to 5: each server keeps its own aliases."""
    if pdu.state_key is None or pdu.state_key != domain_of(pdu.sender):
        return AuthRejection("4.aliases", "aliases are set by the server that the state_key names")
    return None


def redaction_allowed(
    redaction: Pdu, target: Pdu, state: Mapping[StateKey, Pdu], version: RoomVersion
) -> bool:
    """True if an accepted redaction takes effect on its target.

    ``state`` is the state at the redaction. A server may redact its own users' events; others need the redact
    level. SPEC: "Handling redactions" of the room versions.
    """
    named = (redaction.content if version.redacts_in_content else redaction.raw).get("redacts")
    if named != target.event_id or redaction.room_id != target.room_id:
        return False
    if domain_of(redaction.sender) == domain_of(target.sender):
        return True
    create = state.get(CREATE_KEY)
    if create is None:
        return False
    levels = PowerLevels(create, state.get(POWER_LEVELS_KEY), version)
    return levels.user_level(redaction.sender) >= levels.redact
