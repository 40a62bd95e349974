"""The rules of a room that no network's own rules decide: judged from the room's view."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hansa.api.contracts import Missing, Prepared
from hansa.model.content import (
    Avatar,
    HistoryVisibility,
    JoinRule,
    Member,
    Membership,
    Name,
    Standing,
    Topic,
    Upgrade,
)
from hansa.model.events import Refusal, RefusalCode, Submission
from hansa.model.ref import NativeId
from hansa.model.role import Role
from hansa.model.verdict import Verdict
from hansa.model.view import RoomView
from hansa.store.base import Write

#: What changes a room for everybody in it, and of that what only moderators may change.
_RANKED = (Standing, JoinRule, HistoryVisibility, Upgrade, Avatar)
_CHANGES = (Name, Topic, *_RANKED)


class ViewRulesTurn:
    """A ``Turn`` without a native room. A ban holds; a user with a membership must be joined to speak; users
    of a network without memberships (no user of it ever joined) may speak as they are. Nobody removes a
    person of the same rank or a higher one, or gives a rank above their own; owners may remove
    each other. The last owner in the room keeps the rank.

    ``hosted`` are the networks whose native room is ours. What the server of another native room did to the
    membership of its own people has happened.
    """

    def __init__(self, view: RoomView, hosted: Collection[str] = ()) -> None:
        self._view = view
        self._hosted = hosted
        self._drafts: dict[object, Membership] = {}

    async def prepare_event(self, inbound: Submission, verdict: Verdict) -> Prepared | Missing | Refusal:
        """See ``Turn.prepare_event``."""
        content, sender = inbound.content, inbound.sender
        standing = self._drafts.get(sender) or self._view.membership(sender)
        if standing is Membership.BAN:
            return Refusal(code=RefusalCode.BANNED, text="you are banned from this room")
        if isinstance(content, Member):
            if content.user != sender and standing is not Membership.JOIN:
                return Refusal(code=RefusalCode.NOT_JOINED, text="join the room first")
            refusal = self._refuse_member(content, sender, standing)
            if refusal is not None:
                return refusal
            self._drafts[content.user] = content.membership
        elif standing is not Membership.JOIN and self._keeps_members(sender.network):
            if isinstance(content, _CHANGES):
                return Refusal(
                    code=RefusalCode.FORBIDDEN, text="only those who are in the room may change it"
                )
            return Refusal(code=RefusalCode.NOT_JOINED, text="join the room before you speak")
        elif isinstance(content, _RANKED) and not self._has_rank(sender):
            return Refusal(code=RefusalCode.FORBIDDEN, text="only a moderator may change this")
        elif isinstance(content, Standing) and (refusal := self._refuse_standing(content, sender)):
            return refusal
        elif not isinstance(content, _CHANGES) and self._is_mute(sender):
            return Refusal(code=RefusalCode.FORBIDDEN, text="you have no voice in this room")
        return Prepared(visible=verdict.allowed)

    def _refuse_member(
        self, content: Member, sender: NativeId, standing: Membership | None
    ) -> Refusal | None:
        if content.user.network == sender.network and sender.network not in self._hosted:
            return None
        if content.user == sender:
            enters = content.membership is Membership.JOIN and standing is not Membership.JOIN
            if enters and self._view.facts.join_rule != "public" and standing is not Membership.INVITE:
                return Refusal(code=RefusalCode.INVITE_ONLY, text="only people who are invited may enter")
            return None
        if content.membership is Membership.INVITE:
            before = self._drafts.get(content.user) or self._view.membership(content.user)
            if before is Membership.BAN:
                return Refusal(code=RefusalCode.FORBIDDEN, text="this person is banned from the room")
            return None
        if self._view.facts.direct:  # in a chat of two nobody has a rank
            return None
        if not self._has_rank(sender):
            return Refusal(code=RefusalCode.FORBIDDEN, text="only a moderator may do this to others")
        return self._refuse_above(content.user, sender)

    def _refuse_standing(self, content: Standing, sender: NativeId) -> Refusal | None:
        if self._view.person(content.user) is None:
            return Refusal(code=RefusalCode.NOT_FOUND, text="this person was never in the room")
        own = self._rank_of(sender)
        if content.role > own:
            return Refusal(code=RefusalCode.FORBIDDEN, text="you can give no rank above your own")
        happened = content.user.network == sender.network and sender.network not in self._hosted
        if happened:
            return None
        if content.user == sender:
            return self._refuse_last_owner(content, sender)
        return self._refuse_above(content.user, sender)

    def _refuse_last_owner(self, content: Standing, sender: NativeId) -> Refusal | None:
        if self._rank_of(sender) is not Role.OWNER or content.role is Role.OWNER:
            return None
        if any(one.role is Role.OWNER and one.user != sender for one in self._view.joined()):
            return None
        return Refusal(code=RefusalCode.CONFLICT, text="you are the only owner of this room")

    def _refuse_above(self, user: NativeId, sender: NativeId) -> Refusal | None:
        own = self._rank_of(sender)
        if own is not Role.OWNER and self._rank_of(user) >= own:
            return Refusal(code=RefusalCode.FORBIDDEN, text="this person has your rank or a higher one")
        return None

    def _rank_of(self, user: NativeId) -> Role:
        person = self._view.person(user)
        return person.role if person is not None else Role.MEMBER

    def _has_rank(self, user: NativeId) -> bool:
        return self._rank_of(user) >= Role.MODERATOR

    def _is_mute(self, user: NativeId) -> bool:
        person = self._view.person(user)
        return person is not None and not person.voice

    def _keeps_members(self, network: str) -> bool:
        return any(user.network == network for user in self._view.people)

    def final_writes(self) -> Sequence[Write]:
        """See ``Turn.final_writes``."""
        return ()

    def on_committed(self) -> None:
        """See ``Turn.on_committed``."""

    def on_rolled_back(self) -> None:
        """See ``Turn.on_rolled_back``."""
