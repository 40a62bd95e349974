"""Authorisation rule 5: who may change whose membership.

SPEC: Matrix v1.19, room version 12, rule 5 (versions 10 and 11: rule 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.ids import domain_of
from hansa_matrix.proto.levels import Levels, LevelsSource
from hansa_matrix.proto.reject import Reject
from hansa_matrix.proto.state_keys import (
    AUTHORISING_USER,
    JOIN_RULES_KEY,
    MEMBER,
    POWER_LEVELS_KEY,
    THIRD_PARTY_INVITE,
    StateReader,
)
from hansa_matrix.proto.versions import RoomVersion

#: Whether the event carries a valid signature of the server of that name.
SignedBy = Callable[[str], bool]

#: Whether any signature in ``third_party_invite.signed`` verifies with any of these keys (unpadded base64).
ThirdPartyOk = Callable[[Mapping[str, Any], Sequence[str]], bool]


class MemberRules:
    """The rules of one member event against one state. ``levels`` is called only where a rule needs it."""

    __slots__ = ("_create", "_levels", "_pdu", "_state", "_target", "_third_party_ok", "_version")

    def __init__(
        self,
        pdu: Pdu,
        target: str,
        create: Pdu,
        state: StateReader,
        *,
        version: RoomVersion,
        third_party_ok: ThirdPartyOk,
        levels: LevelsSource,
    ) -> None:
        self._pdu = pdu
        self._target = target
        self._create = create
        self._state = state
        self._version = version
        self._third_party_ok = third_party_ok
        self._levels = levels

    def join(self) -> Reject | None:
        """Rule 5.3."""
        pdu, target = self._pdu, self._target
        if pdu.prev_events == (self._create.event_id,) and target == self._first_member():
            return None
        if pdu.sender != target:
            return Reject("5.join.sender", f"{pdu.sender} cannot join for {target}")
        own = self._membership(target)
        if own == "ban":
            return Reject("5.join.banned", f"{target} is banned")
        rule = self._join_rule()
        if rule == "public":
            return None
        if own in ("join", "invite") and rule in ("invite", "knock", "restricted", "knock_restricted"):
            return None
        if rule in ("restricted", "knock_restricted"):
            return self._authorised_join()
        if rule in ("invite", "knock"):
            return Reject("5.join.invite", f"{target} is not invited")
        return Reject("5.join.rule", f"the join rule {rule!r} lets nobody in")

    def _first_member(self) -> object:
        # The one creator who may join an empty room; a version 12 room's additional creators may not.
        if self._version.creator_in_content:
            return self._create.content.get("creator")
        return self._create.sender

    def _authorised_join(self) -> Reject | None:
        user = self._pdu.content.get(AUTHORISING_USER)
        if not isinstance(user, str):
            return Reject("5.join.restricted", "nobody authorised the join")
        if self._membership(user) != "join":
            return Reject("5.join.restricted", f"{user}, who authorised the join, is not in the room")
        levels = self._room_levels()
        if levels.user(user) < levels.invite:
            return Reject("5.join.restricted", f"{user}, who authorised the join, may not invite")
        return None

    def invite(self) -> Reject | None:
        """Rule 5.4."""
        pdu = self._pdu
        if "third_party_invite" in pdu.content:
            return self._third_party_invite()
        if self._membership(pdu.sender) != "join":
            return Reject("5.invite.not_joined", f"{pdu.sender} is not in the room")
        target = self._membership(self._target)
        if target in ("join", "ban"):
            return Reject("5.invite.target", f"{self._target} has membership {target}")
        levels = self._room_levels()
        if levels.user(pdu.sender) < levels.invite:
            return Reject("5.invite.level", f"{pdu.sender} may not invite")
        return None

    def _third_party_invite(self) -> Reject | None:
        if self._membership(self._target) == "ban":
            return Reject("5.invite.3pid.banned", f"{self._target} is banned")
        outer = self._pdu.content["third_party_invite"]
        signed = outer.get("signed") if isinstance(outer, Mapping) else None
        if not isinstance(signed, Mapping):
            return Reject("5.invite.3pid.signed", "the third-party invite has no 'signed' object")
        token = signed.get("token")
        if "mxid" not in signed or not isinstance(token, str):
            return Reject("5.invite.3pid.signed", "the third-party invite lacks 'mxid' or 'token'")
        if signed["mxid"] != self._target:
            return Reject("5.invite.3pid.mxid", "the third-party invite is for another user")
        invite = self._state.get((THIRD_PARTY_INVITE, token))
        if invite is None:
            return Reject("5.invite.3pid.token", "the room has no third-party invite with this token")
        if invite.sender != self._pdu.sender:
            return Reject("5.invite.3pid.sender", f"the third-party invite is by {invite.sender}")
        if not self._third_party_ok(signed, _public_keys(invite.content)):
            return Reject("5.invite.3pid.signature", "no signature of the third-party invite verifies")
        return None

    def leave(self) -> Reject | None:
        """Rule 5.5: leaving, refusing an invite, taking back a knock; kicking; lifting a ban."""
        sender, target = self._pdu.sender, self._target
        own = self._membership(sender)
        if sender == target:
            if own in ("invite", "join", "knock"):
                return None
            return Reject("5.leave.self", f"{sender} has membership {own}")
        if own != "join":
            return Reject("5.leave.not_joined", f"{sender} is not in the room")
        levels = self._room_levels()
        level = levels.user(sender)
        if self._membership(target) == "ban" and level < levels.ban:
            return Reject("5.leave.ban", f"{sender} may not lift bans")
        if level < levels.kick or levels.user(target) >= level:
            return Reject("5.leave.kick", f"{sender} may not kick {target}")
        return None

    def ban(self) -> Reject | None:
        """Rule 5.6."""
        sender, target = self._pdu.sender, self._target
        if self._membership(sender) != "join":
            return Reject("5.ban.not_joined", f"{sender} is not in the room")
        levels = self._room_levels()
        level = levels.user(sender)
        if level < levels.ban or levels.user(target) >= level:
            return Reject("5.ban.level", f"{sender} may not ban {target}")
        return None

    def knock(self) -> Reject | None:
        """Rule 5.7."""
        sender, target = self._pdu.sender, self._target
        if self._join_rule() not in ("knock", "knock_restricted"):
            return Reject("5.knock.rule", "the join rule allows no knocking")
        if sender != target:
            return Reject("5.knock.sender", f"{sender} cannot knock for {target}")
        own = self._membership(sender)
        if own in ("ban", "invite", "join"):
            return Reject("5.knock.membership", f"{sender} has membership {own}")
        return None

    def _membership(self, user: str) -> object:
        member = self._state.get((MEMBER, user))
        return None if member is None else member.content.get("membership")

    def _join_rule(self) -> object:
        rules = self._state.get(JOIN_RULES_KEY)
        return "invite" if rules is None else rules.content.get("join_rule", "invite")

    def _room_levels(self) -> Levels:
        return self._levels(self._create, self._state.get(POWER_LEVELS_KEY), self._version)


_RULES: Mapping[str, Callable[[MemberRules], Reject | None]] = {
    "join": MemberRules.join,
    "invite": MemberRules.invite,
    "leave": MemberRules.leave,
    "ban": MemberRules.ban,
    "knock": MemberRules.knock,
}


def check_member(
    pdu: Pdu,
    create: Pdu,
    state: StateReader,
    *,
    version: RoomVersion,
    signed_by: SignedBy,
    third_party_ok: ThirdPartyOk,
    levels: LevelsSource,
) -> Reject | None:
    """Rule 5 as a whole."""
    target = pdu.state_key
    if target is None:
        return Reject("5.state_key", "a member event needs a state_key")
    membership = pdu.content.get("membership")
    rule = _RULES.get(membership) if isinstance(membership, str) else None
    if rule is None:
        return Reject("5.membership", f"unknown membership {membership!r}")
    if AUTHORISING_USER in pdu.content:
        user = pdu.content[AUTHORISING_USER]
        if not isinstance(user, str) or ":" not in user or not signed_by(domain_of(user)):
            return Reject("5.authorised", "not signed by the server of the authorising user")
    rules = MemberRules(
        pdu, target, create, state, version=version, third_party_ok=third_party_ok, levels=levels
    )
    return rule(rules)


def _public_keys(content: Mapping[str, Any]) -> list[str]:
    listed = content.get("public_keys")
    entries = listed if isinstance(listed, list) else []
    keys = [content.get("public_key"), *(e.get("public_key") for e in entries if isinstance(e, Mapping))]
    return [key for key in keys if isinstance(key, str)]
