"""The rules of a room that no network's own rules decide: judged from the room's view."""

from __future__ import annotations

from collections.abc import Sequence

from hansa.api.contracts import Missing, Prepared
from hansa.model.content import Custom, Encrypted, Member, Membership, Message
from hansa.model.events import Refusal, RefusalCode, Submission
from hansa.model.verdict import Verdict
from hansa.model.view import RoomView
from hansa.store.base import Write


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
            if isinstance(content, Message | Encrypted | Custom):
                return Refusal(code=RefusalCode.NOT_JOINED, text="join the room before you speak")
            return Refusal(code=RefusalCode.FORBIDDEN, text="only those who are in the room may change it")
        return Prepared(visible=verdict.allowed)

    def _keeps_members(self, network: str) -> bool:
        return any(user.network == network for user in self._view.people)

    def final_writes(self) -> Sequence[Write]:
        """See ``Turn.final_writes``."""
        return ()

    def on_committed(self) -> None:
        """See ``Turn.on_committed``."""

    def on_rolled_back(self) -> None:
        """See ``Turn.on_rolled_back``."""
