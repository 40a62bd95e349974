"""Every control is asked about every crossing; all reasons are kept, the strictest counts.

Server lists are judged by the peer and by room membership: into a room with a denied server nothing of ours
goes, since any server in it gets what is said there. What is not known is never taken for allowed: with an
allow list, a server or a user without a name is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hansa import (
    Action,
    Clock,
    Content,
    Crossing,
    Custom,
    EventIn,
    EventOut,
    Invite,
    Join,
    MediaTransfer,
    Member,
    Membership,
    Message,
    Name,
    PeerConnect,
    Reason,
    Ref,
    SignalIn,
    SignalOut,
    Topic,
    Verdict,
    hookimpl,
    strictest,
)

from hansa_governance.config import Config
from hansa_governance.lists import Globs, host_of
from hansa_governance.rate import Rates
from hansa_governance.words import Words


class GovernancePolicy:
    """See ``hansa.Policy``."""

    def __init__(self, config: Config, name: str, clock: Clock) -> None:
        self._name = name
        self._deny_servers = Globs(config.deny_servers)
        self._allow_servers = Globs(config.allow_servers)
        self._deny_users = Globs(config.deny_users)
        self._allow_users = Globs(config.allow_users)
        self._words = Words(config.words)
        self._rates = Rates(config.rate, clock) if config.rate else None

    @hookimpl
    async def check(self, crossing: Crossing) -> Verdict | None:
        """See ``hansa.Policy.check``."""
        found = list(self._verdicts(crossing))
        return strictest(found) if found else None

    def _verdicts(self, crossing: Crossing) -> Iterator[Verdict]:
        match crossing:
            case PeerConnect():
                yield from self._servers([crossing.server], "this server")
            case EventIn():
                if _never_stopped(crossing.content, crossing.sender):
                    return
                yield from self._servers([crossing.facts.sender_server], "the sender's server")
                yield from self._users(_concerned(crossing))
                yield from self._said(crossing.content, crossing.facts.texts)
                yield from self._paced(crossing)
            case EventOut():
                if not _never_stopped(crossing.content, crossing.sender):
                    there = crossing.view.servers() | crossing.facts.room_servers
                    yield from self._servers(there, "a server in the room")
            case SignalIn():
                yield from self._servers([crossing.sender_server], "the sender's server")
                yield from self._users([crossing.sender])
            case SignalOut():
                yield from self._servers(crossing.view.servers(), "a server in the room")
            case MediaTransfer():
                yield from self._servers([crossing.server], "this server")
            case Join():
                yield from self._servers([crossing.user_server, *crossing.servers], "a server in the room")
                yield from self._users([crossing.user])
            case Invite():
                yield from self._servers([crossing.sender_server, *crossing.servers], "the inviting server")
                yield from self._users([crossing.sender, crossing.user])

    def _servers(self, servers: Iterable[str], what: str) -> Iterator[Verdict]:
        for server in sorted(set(servers)):
            forms = (server, host_of(server))
            glob = self._deny_servers.denies(*forms)
            if glob:
                yield self._deny(
                    "GOV_SERVER_DENIED", f"deny_servers: {glob}", f"{what} is not allowed here", server
                )
            elif self._allow_servers and not self._allow_servers.allows(*forms):
                yield self._deny(
                    "GOV_SERVER_NOT_ALLOWED", "allow_servers", f"{what} is not allowed here", server
                )

    def _users(self, users: Iterable[Ref]) -> Iterator[Verdict]:
        for user in users:
            glob = self._deny_users.denies(user.id)
            if glob:
                yield self._deny(
                    "GOV_USER_DENIED", f"deny_users: {glob}", "you are not allowed here", user.id
                )
            elif self._allow_users and not self._allow_users.allows(user.id):
                yield self._deny("GOV_USER_NOT_ALLOWED", "allow_users", "you are not allowed here", user.id)

    def _said(self, content: Content, native: Iterable[str]) -> Iterator[Verdict]:
        texts = list(native)
        if isinstance(content, Message | Name | Topic | Custom):
            texts.append(content.text)
        elif isinstance(content, Member):
            texts += [content.name or "", content.reason]
        phrase = self._words.hit(texts)
        if phrase:
            yield self._deny(
                "GOV_CONTENT", f"words: {phrase}", "the message holds a word that may not cross", ""
            )

    def _paced(self, crossing: EventIn) -> Iterator[Verdict]:
        if self._rates is None or isinstance(crossing.content, Member):
            return
        wait = self._rates.take(str(crossing.sender))
        if wait:
            reason = Reason(
                code="GOV_RATE",
                policy=self._name,
                rule="rate",
                text="you are speaking too fast",
                admin_text=str(crossing.sender),
            )
            yield Verdict(Action.DENY, (reason,), retry_after=wait)

    def _deny(self, code: str, rule: str, text: str, fact: str) -> Verdict:
        reason = Reason(code=code, policy=self._name, rule=rule, text=text, admin_text=fact)
        return Verdict(Action.DENY, (reason,))


def _concerned(crossing: EventIn) -> list[Ref]:
    """Who an event is by, and whom it lets in."""
    if isinstance(crossing.content, Member) and crossing.content.user != crossing.sender:
        return [crossing.sender, crossing.content.user]
    return [crossing.sender]


def _never_stopped(content: Content, sender: Ref) -> bool:
    """Leaving, and putting somebody out, can never be denied: nobody may be locked in."""
    if not isinstance(content, Member):
        return False
    own_leave = content.user == sender and content.membership is Membership.LEAVE
    removal = content.user != sender and content.membership in {Membership.LEAVE, Membership.BAN}
    return own_leave or removal
