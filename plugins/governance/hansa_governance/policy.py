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
    EventIn,
    EventOut,
    Invite,
    Join,
    Knock,
    Member,
    Membership,
    PeerConnect,
    Reason,
    Ref,
    SignalIn,
    SignalOut,
    Verdict,
    hookimpl,
    peers_of,
    people_of,
    strictest,
    texts_of,
)

from hansa_governance.config import Config
from hansa_governance.lists import Globs, host_of
from hansa_governance.rate import Rates
from hansa_governance.words import Words

#: What the person concerned is told of a server that is not allowed.
_WHERE: dict[type, str] = {
    PeerConnect: "this server",
    EventIn: "the sender's server",
    SignalIn: "the sender's server",
    EventOut: "a server in the room",
    SignalOut: "a server in the room",
    Join: "a server in the room",
    Knock: "a server in the room",
    Invite: "the inviting server",
}


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
        """Every kind by one rule: the servers, the people and the texts that it concerns."""
        if isinstance(crossing, EventIn | EventOut) and _never_stopped(crossing.content, crossing.sender):
            return
        yield from self._servers(peers_of(crossing), _WHERE.get(type(crossing), "a server concerned"))
        yield from self._users(people_of(crossing))
        yield from self._said(texts_of(crossing))
        if isinstance(crossing, EventIn):
            yield from self._paced(crossing)

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

    def _said(self, texts: Iterable[str]) -> Iterator[Verdict]:
        phrase = self._words.hit(texts)
        if phrase:
            yield self._deny("GOV_CONTENT", f"words: {phrase}", "it holds a word that may not cross", "")

    def _paced(self, crossing: EventIn) -> Iterator[Verdict]:
        if self._rates is None or isinstance(crossing.content, Member) or crossing.facts.automatic:
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


def _never_stopped(content: Content, sender: Ref) -> bool:
    """Leaving, and putting somebody out, can never be denied: nobody may be locked in."""
    if not isinstance(content, Member):
        return False
    own_leave = content.user == sender and content.membership is Membership.LEAVE
    removal = content.user != sender and content.membership in {Membership.LEAVE, Membership.BAN}
    return own_leave or removal
