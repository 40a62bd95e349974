"""Authorisation rule 5: who may change whose membership.

SPEC: Matrix v1.19, room version 12, rule 5 (rule 4 in versions 6 to 11, 5 before).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hansa_matrix.proto.auth_rules.levels import LevelsSource, PowerLevels
from hansa_matrix.proto.auth_rules.reject import AuthRejection
from hansa_matrix.proto.auth_rules.state_keys import (
    JOIN_RULES_KEY,
    MEMBER,
    POWER_LEVELS_KEY,
    THIRD_PARTY_INVITE,
    StateLookup,
)
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.ids import domain_of
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.state_content import (
    AUTHORISING_USER,
    auth_join_rule,
    authorising_user,
    membership_of,
    public_keys,
    room_creator,
    third_party_signed,
    third_party_token,
)

#: True if the event carries a valid signature of the server of that name.
SignedBy = Callable[[str], bool]

#: True if any signature in ``third_party_invite.signed`` verifies with any of these keys (unpadded base64).
ThirdPartyOk = Callable[[Mapping[str, Any], Sequence[str]], bool]


def check_member(
    pdu: Pdu,
    create: Pdu,
    state: StateLookup,
    *,
    version: RoomVersion,
    signed_by: SignedBy,
    third_party_ok: ThirdPartyOk,
    levels: LevelsSource,
) -> AuthRejection | None:
    """Rule 5 as a whole. ``levels`` is asked only where a rule needs it: not to join a public room."""
    target = pdu.state_key
    if target is None:
        return AuthRejection("5.state_key", "a member event needs a state_key")
    content = pdu.content
    becomes = membership_of(content)
    if version.restricted and AUTHORISING_USER in content:
        user = authorising_user(content)
        if user is None or ":" not in user or not signed_by(domain_of(user)):
            return AuthRejection("5.authorised", "not signed by the server of the authorising user")
    if becomes == "join":
        return _check_join(pdu, target, create, state, version=version, levels=levels)
    if becomes == "invite" and "third_party_invite" in content:
        return _check_third_party_invite(pdu, target, state, third_party_ok)
    if becomes == "knock" and version.knock:
        return _check_knock(pdu, target, state, version)
    if becomes not in ("invite", "leave", "ban"):
        return AuthRejection("5.membership", f"unknown membership {content.get('membership')!r}")
    room_levels = levels(create, state.get(POWER_LEVELS_KEY), version)
    if becomes == "invite":
        return _check_invite(pdu, target, state, room_levels)
    if becomes == "leave":
        return _check_leave(pdu, target, state, room_levels, version)
    return _check_ban(pdu, target, state, room_levels)


def _check_join(
    pdu: Pdu, target: str, create: Pdu, state: StateLookup, *, version: RoomVersion, levels: LevelsSource
) -> AuthRejection | None:
    if pdu.prev_events == (create.event_id,) and target == _first_joiner(create, version):
        return None
    if pdu.sender != target:
        return AuthRejection("5.join.sender", f"{pdu.sender} cannot join for {target}")
    own = _membership_in(state, target)
    if own == "ban":
        return AuthRejection("5.join.banned", f"{target} is banned")
    rule = _join_rule(state)
    if rule == "public":
        return None
    restricted = _is_restricted_rule(rule, version)
    closed = rule == "invite" or (rule == "knock" and version.knock)
    if own in ("join", "invite") and (closed or restricted):
        return None
    if restricted:
        return _check_authorised_join(pdu, state, levels(create, state.get(POWER_LEVELS_KEY), version))
    if closed:
        return AuthRejection("5.join.invite", f"{target} is not invited")
    return AuthRejection("5.join.rule", "the join rule allows no joins")


def _is_restricted_rule(rule: str, version: RoomVersion) -> bool:
    """True if a join rule lets members of other rooms in, in that version."""
    return (rule == "restricted" and version.restricted) or (
        rule == "knock_restricted" and version.knock_restricted
    )


def _first_joiner(create: Pdu, version: RoomVersion) -> str | None:
    # The one creator who may join an empty room; a version 12 room's additional creators may not.
    return room_creator(create.content) if version.creator_in_content else create.sender


def _check_authorised_join(pdu: Pdu, state: StateLookup, levels: PowerLevels) -> AuthRejection | None:
    user = authorising_user(pdu.content)
    if user is None:
        return AuthRejection("5.join.restricted", "no user has authorised the join")
    if _membership_in(state, user) != "join":
        return AuthRejection("5.join.restricted", f"{user}, who authorised the join, is not in the room")
    if levels.user_level(user) < levels.invite:
        return AuthRejection("5.join.restricted", f"{user}, who authorised the join, may not invite")
    return None


def _check_third_party_invite(
    pdu: Pdu, target: str, state: StateLookup, third_party_ok: ThirdPartyOk
) -> AuthRejection | None:
    if _membership_in(state, target) == "ban":
        return AuthRejection("5.invite.3pid.banned", f"{target} is banned")
    signed = third_party_signed(pdu.content)
    if signed is None:
        return AuthRejection("5.invite.3pid.signed", "the third-party invite has no 'signed' object")
    token = third_party_token(pdu.content)
    if "mxid" not in signed or token is None:
        return AuthRejection("5.invite.3pid.signed", "the third-party invite lacks 'mxid' or 'token'")
    if signed["mxid"] != target:
        return AuthRejection("5.invite.3pid.mxid", "the third-party invite is for another user")
    invite = state.get((THIRD_PARTY_INVITE, token))
    if invite is None:
        return AuthRejection("5.invite.3pid.token", "the room has no third-party invite with this token")
    if invite.sender != pdu.sender:
        return AuthRejection("5.invite.3pid.sender", f"the third-party invite is by {invite.sender}")
    if not third_party_ok(signed, public_keys(invite.content)):
        return AuthRejection("5.invite.3pid.signature", "no signature of the third-party invite verifies")
    return None


def _check_invite(pdu: Pdu, target: str, state: StateLookup, levels: PowerLevels) -> AuthRejection | None:
    if _membership_in(state, pdu.sender) != "join":
        return AuthRejection("5.invite.not_joined", f"{pdu.sender} is not in the room")
    present = _membership_in(state, target)
    if present in ("join", "ban"):
        return AuthRejection("5.invite.target", f"{target} has membership {present}")
    if levels.user_level(pdu.sender) < levels.invite:
        return AuthRejection("5.invite.level", f"{pdu.sender} may not invite")
    return None


def _check_leave(
    pdu: Pdu, target: str, state: StateLookup, levels: PowerLevels, version: RoomVersion
) -> AuthRejection | None:
    # Leaving, refusing an invite, taking back a knock; kicking; lifting a ban.
    sender = pdu.sender
    own = _membership_in(state, sender)
    if sender == target:
        if own in ("invite", "join") or (own == "knock" and version.knock):
            return None
        return AuthRejection("5.leave.self", f"{sender} has membership {own}")
    if own != "join":
        return AuthRejection("5.leave.not_joined", f"{sender} is not in the room")
    level = levels.user_level(sender)
    if _membership_in(state, target) == "ban" and level < levels.ban:
        return AuthRejection("5.leave.ban", f"{sender} may not lift bans")
    if level < levels.kick or levels.user_level(target) >= level:
        return AuthRejection("5.leave.kick", f"{sender} may not kick {target}")
    return None


def _check_ban(pdu: Pdu, target: str, state: StateLookup, levels: PowerLevels) -> AuthRejection | None:
    sender = pdu.sender
    if _membership_in(state, sender) != "join":
        return AuthRejection("5.ban.not_joined", f"{sender} is not in the room")
    level = levels.user_level(sender)
    if level < levels.ban or levels.user_level(target) >= level:
        return AuthRejection("5.ban.level", f"{sender} may not ban {target}")
    return None


def _check_knock(pdu: Pdu, target: str, state: StateLookup, version: RoomVersion) -> AuthRejection | None:
    rule = _join_rule(state)
    if rule != "knock" and not (rule == "knock_restricted" and version.knock_restricted):
        return AuthRejection("5.knock.rule", "the join rule allows no knocking")
    if pdu.sender != target:
        return AuthRejection("5.knock.sender", f"{pdu.sender} cannot knock for {target}")
    own = _membership_in(state, target)
    if own in ("ban", "invite", "join"):
        return AuthRejection("5.knock.membership", f"{target} has membership {own}")
    return None


def _membership_in(state: StateLookup, user: str) -> str | None:
    member = state.get((MEMBER, user))
    return None if member is None else membership_of(member.content)


def _join_rule(state: StateLookup) -> str:
    rules = state.get(JOIN_RULES_KEY)
    return auth_join_rule(rules.content if rules is not None else None)
