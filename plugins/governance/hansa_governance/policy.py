"""Every control is asked about every crossing; all reasons are kept, the strictest counts.

Server lists are judged by the peer and by room membership: no local event goes into a room with a denied
server, since any server in it gets what is said there. An unknown value never counts as allowed: with an
allow list, a server or a user without a name is refused.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from hansa import (
    Action,
    Clock,
    Content,
    Crossing,
    Custom,
    DirectoryPublish,
    EphemeralIn,
    EphemeralOut,
    EventIn,
    EventOut,
    Invite,
    Join,
    Knock,
    LruCache,
    MediaUpload,
    Member,
    Membership,
    NativeId,
    PeerConnect,
    ProfileChange,
    Reason,
    RoomCreate,
    RoomUpgrade,
    ToDevice,
    Verdict,
    hookimpl,
    peers_of,
    people_of,
    strictest,
    texts_of,
    weight_of,
)

from hansa_governance.config import Config
from hansa_governance.folding import always
from hansa_governance.lists import Globs, user_forms
from hansa_governance.rate import SenderRates
from hansa_governance.servers import MAX_NAMED, Servers
from hansa_governance.words import PhraseList

#: The event type of a Matrix room's list of barred servers.
_SERVER_ACL = "m.room.server_acl"
#: Messages between devices carry keys, many for one message: they have a rate of their own, so much larger.
_DEVICE_TIMES = 10
#: Acts that are known to be counted: the same one may come in twice.
_COUNTED = 10_000
#: People who are judged without a pause.
_PEOPLE = 20
#: Texts that weigh more (``hansa.weight_of``) are read in a thread.
_SHORT = 2048
#: The words for the person concerned about a server that is not allowed.
_WHERE: dict[type, str] = {
    PeerConnect: "this server",
    EventIn: "the sender's server",
    EphemeralIn: "the sender's server",
    EventOut: "a server in the room",
    EphemeralOut: "a server in the room",
    Join: "a server in the room",
    Knock: "a server in the room",
    Invite: "a server concerned",
}


class _UnheardError(Exception):
    """Nobody waits for the answer any more."""


class GovernancePolicy:
    """See ``hansa.Policy``."""

    def __init__(self, config: Config, name: str, clock: Clock) -> None:
        self._name = name
        self._servers = Servers(config.deny_servers, config.allow_servers)
        self._deny_users = Globs(config.deny_users, user_forms)
        self._allow_users = Globs(config.allow_users, user_forms)
        self._words = PhraseList(config.words)
        self._rates = SenderRates(config.rate, clock) if config.rate else None
        self._device_rates = SenderRates(config.rate, clock, times=_DEVICE_TIMES) if config.rate else None
        self._reader = ThreadPoolExecutor(1, "governance")
        self._counted: LruCache[tuple[NativeId, str], None] = LruCache(_COUNTED)

    @hookimpl
    async def check(self, crossing: Crossing) -> Verdict | None:
        """See ``hansa.Policy.check``. Every kind by one rule: the servers, the people and the texts that it
        concerns.
        """
        free = isinstance(crossing, EventIn | EventOut) and _is_always_allowed(
            crossing.content, crossing.sender
        )
        found: list[Verdict] = []
        if not free and not _is_server_ban(crossing):
            found += await self._judge_servers(crossing)
        if not free:
            found += await self._judge_users(people_of(crossing))
        if self._words:
            found += self._check_words(await self._forbidden_phrase(crossing, free=free), free=free)
        found += self._check_rate(crossing, free=free)
        return strictest(found) if found else None

    async def _forbidden_phrase(self, crossing: Crossing, *, free: bool) -> str:
        """The word in it that may not cross, empty if there is none. Long texts are read in a thread, so that
        nobody else waits for them.
        """
        if weight_of(crossing) <= _SHORT:
            return self._read_texts(crossing, always, free=free)
        loop, unheard = asyncio.get_running_loop(), threading.Event()

        def going() -> None:
            if unheard.is_set():
                raise _UnheardError

        try:
            return await loop.run_in_executor(
                self._reader, partial(self._read_texts, crossing, going, free=free)
            )
        finally:
            unheard.set()  # who asked waits no longer: neither does the next one for this

    def _read_texts(self, crossing: Crossing, going: Callable[[], None], *, free: bool) -> str:
        texts = texts_of(crossing)
        if free:  # whose id holds a word is not locked in by it
            ids = {user.id for user in people_of(crossing)}
            texts = tuple(text for text in texts if text not in ids)
        return self._words.find(texts, going)

    async def _judge_servers(self, crossing: Crossing) -> list[Verdict]:
        if not self._servers:
            return []
        text = f"{_WHERE.get(type(crossing), 'a server concerned')} is not allowed here"
        return [
            self._deny("GOV_SERVER_DENIED", f"deny_servers: {one.glob}", text, one.server)
            if one.glob
            else self._deny("GOV_SERVER_NOT_ALLOWED", "allow_servers", text, one.server)
            for one in await self._servers.refused(peers_of(crossing))
        ]

    async def _judge_users(self, users: Sequence[NativeId]) -> list[Verdict]:
        """A question can name thousands of people; the first who are refused are named."""
        found = list[Verdict]()
        if not self._deny_users and not self._allow_users:
            return found
        for number, user in enumerate(users, 1):
            glob = self._deny_users.matching_glob(user.id)
            if glob:
                found.append(
                    self._deny("GOV_USER_DENIED", f"deny_users: {glob}", "you are not allowed here", user.id)
                )
            elif self._allow_users and not self._allow_users.covers(user.id):
                found.append(
                    self._deny("GOV_USER_NOT_ALLOWED", "allow_users", "you are not allowed here", user.id)
                )
            if len(found) >= MAX_NAMED:
                break
            if not number % _PEOPLE:
                await asyncio.sleep(0)
        return found

    def _check_words(self, phrase: str, *, free: bool) -> Iterator[Verdict]:
        """Yields the verdicts about forbidden words. An act that must not be stopped stays possible without
        its text.
        """
        if phrase:
            why = "it contains a forbidden word"
            text = f"{why}: do it without giving a reason" if free else why
            yield self._deny("GOV_CONTENT", f"words: {phrase}", text, "")

    def _check_rate(self, crossing: Crossing, *, free: bool) -> Iterator[Verdict]:
        actor = _acting_user(crossing)
        rates = self._device_rates if isinstance(crossing, ToDevice) else self._rates
        if rates is None or actor is None:
            return
        ts = 0
        if isinstance(crossing, EventIn):
            act = (actor, crossing.facts.act)
            if act in self._counted:
                return
            self._counted.put(act, None)
            ts = crossing.facts.ts if crossing.immutable else 0
        wait = rates.take(str(actor), ts, always=free)
        if wait:
            reason = Reason(
                code="GOV_RATE",
                policy=self._name,
                rule="rate",
                text="too many requests",
                admin_text=str(actor),
            )
            yield Verdict(Action.DENY, (reason,), retry_after=wait)

    def _deny(self, code: str, rule: str, text: str, fact: str) -> Verdict:
        reason = Reason(code=code, policy=self._name, rule=rule, text=text, admin_text=fact)
        return Verdict(Action.DENY, (reason,))


def _acting_user(crossing: Crossing) -> NativeId | None:
    """Returns the user whose act a crossing is. None where it is not an act of a user, or where an event
    follows that is counted.
    """
    asked_again = DirectoryPublish | Invite | Join | ProfileChange | ToDevice
    if isinstance(crossing, asked_again) and crossing.again:
        return None
    match crossing:
        case EventIn():
            counts = crossing.facts.act and not crossing.facts.automatic
            return crossing.sender if counts else None
        case Join() | Knock():
            return crossing.user if crossing.outbound else None
        case Invite():
            return None if crossing.outbound else crossing.sender
        case RoomCreate() | RoomUpgrade() | ProfileChange() | DirectoryPublish() | MediaUpload():
            return crossing.user
        case ToDevice():
            return crossing.sender
        case _:
            return None


def _is_server_ban(crossing: Crossing) -> bool:
    """True if the crossing is a room's list of barred servers, on its way to a server. A denied server is
    shut out by that list, where this server knows none of its users that it could deny.
    """
    return (
        isinstance(crossing, EventOut)
        and isinstance(crossing.content, Custom)
        and crossing.content.type == _SERVER_ACL
    )


def _is_always_allowed(content: Content, sender: NativeId) -> bool:
    """True for leaving, kicking and banning: they can never be denied, so that no user is locked in."""
    if not isinstance(content, Member):
        return False
    own_leave = content.user == sender and content.membership is Membership.LEAVE
    removal = content.user != sender and content.membership in {Membership.LEAVE, Membership.BAN}
    return own_leave or removal
