"""The rules of a room that no network's own rules decide: judged from the room's view."""

from __future__ import annotations

from collections.abc import Sequence

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
    of a network without memberships (no user of it ever joined) may speak as they are.
    """

    def __init__(self, view: RoomView) -> None:
        self._view = view
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
            self._drafts[content.user] = content.membership
        elif standing is not Membership.JOIN and self._keeps_members(sender.network):
            if isinstance(content, _CHANGES):
                return Refusal(
                    code=RefusalCode.FORBIDDEN, text="only those who are in the room may change it"
                )
            return Refusal(code=RefusalCode.NOT_JOINED, text="join the room before you speak")
        elif isinstance(content, _RANKED) and not self._has_rank(sender):
            return Refusal(code=RefusalCode.FORBIDDEN, text="only a moderator may change this")
        elif not isinstance(content, _CHANGES) and self._is_mute(sender):
            return Refusal(code=RefusalCode.FORBIDDEN, text="you have no voice in this room")
        return Prepared(visible=verdict.allowed)

    def _has_rank(self, user: NativeId) -> bool:
        person = self._view.person(user)
        return person is not None and person.role >= Role.MODERATOR

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
