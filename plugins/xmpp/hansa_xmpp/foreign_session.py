"""One room of another service: its listener, which enters, stays and reads what it missed.

SPEC: XEP-0045 section 7.2 (entering) and 7.14 (leaving); XEP-0410 section 3 (self-ping); XEP-0313 section 4
(the archive), queried as XEP-0059 pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from hansa import Backoff, NativeId, NetworkContext

from hansa_xmpp.foreign_queries import ForeignQueries, QueryFailed, error_text
from hansa_xmpp.foreign_store import ReadPosition
from hansa_xmpp.proto import render
from hansa_xmpp.proto.broadcast import SELF
from hansa_xmpp.proto.convert import format_timestamp
from hansa_xmpp.proto.foreign_archive import archive_query_xml, parse_archived, parse_end
from hansa_xmpp.proto.foreign_room import ForeignRoom, MucPresence, RoomTraits, parse_traits
from hansa_xmpp.proto.render import OutboundStanza, xml_element
from hansa_xmpp.proto.stanza import NS_DISCO_INFO, NS_MUC, NS_PING, Stanza

#: Seconds that an entry may take, and between two looks whether the listener is still there.
ENTER_TIMEOUT_S, SELF_PING_EVERY_S = 30.0, 120.0
#: Nicks that are tried, and pages of an archive that are read after an absence.
_MAX_NICKS, _MAX_PAGES = 8, 200
#: Seconds between two entries that fail.
BACKOFF = Backoff(first=2.0, most=300.0)
#: Errors to a self-ping that say that the occupant is still there (XEP-0410 section 3.2).
_STILL_THERE = frozenset({"service-unavailable", "feature-not-implemented", "item-not-found"})
#: Nothing says whether it is there: the other server does not answer.
_UNKNOWN = frozenset({"remote-server-not-found", "remote-server-timeout"})


class EntryRefused(Exception):
    """The room does not let an occupant in. ``condition`` is that of its error."""

    def __init__(self, condition: str, text: str) -> None:
        super().__init__(text)
        self.condition = condition


@dataclass(slots=True, eq=False)
class Occupancy:
    """One of our occupants of a room: ``address`` is the full JID that it has from us."""

    address: str
    person: NativeId | None
    nick: str = ""
    inside: bool = False
    entering: asyncio.Future[MucPresence] | None = None

    def on_refused(self, condition: str, text: str) -> None:
        """The room does not let it in."""
        if self.entering is not None and not self.entering.done():
            self.entering.set_exception(EntryRefused(condition, text))


async def enter_room(
    room: str, occupancy: Occupancy, nick: str, say: Callable[[Iterable[OutboundStanza]], None], history: str
) -> MucPresence:
    """Enters under ``nick``; the room's own presence of the occupant. Raises ``EntryRefused``."""
    occupancy.nick, occupancy.inside = nick, False
    occupancy.entering = asyncio.get_running_loop().create_future()
    inner = xml_element("x", NS_MUC, history)
    say([render.stanza("presence", occupancy.address, [f"{room}/{nick}"], inner)])
    try:
        async with asyncio.timeout(ENTER_TIMEOUT_S):
            presence = await occupancy.entering
    except TimeoutError:
        raise EntryRefused("remote-server-timeout", "the room does not answer") from None
    finally:
        occupancy.entering = None
    occupancy.nick, occupancy.inside = presence.nick, True
    return presence


NO_HISTORY = xml_element("history", "", maxstanzas="0")

#: Takes a message of the archive, with the JID that it names as the sender's, and the time (ms).
TakeArchived = Callable[[Stanza, str, int], Awaitable[None]]


@dataclass(slots=True, eq=False)
class ForeignSession:
    """The present of one room. ``ready`` is set while the listener is inside and has read what it missed."""

    state: ForeignRoom
    listener: Occupancy
    puppets: dict[NativeId, Occupancy] = field(default_factory=dict)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    #: Why the listener is not inside.
    reason: str = "the room is not entered yet"
    position: ReadPosition | None = None
    subject: str | None = None
    #: Set when ``ready`` or ``reason`` is another one.
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    #: What the room says is taken in order: what was missed, then what comes now.
    order: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: True while what the room sends is dropped: it is read from the archive later.
    overflowed: bool = False
    #: True if the last that waits is that members changed.
    members_queued: bool = False
    archived: list[Element] | None = None
    archive_query: str = ""
    #: The nicks, and places in the room, of our own occupants by their address.
    addresses: dict[str, Occupancy] = field(default_factory=dict)

    @property
    def room(self) -> str:
        """The bare JID."""
        return self.state.room

    def add_occupancy(self, occupancy: Occupancy) -> None:
        """One of our occupants may come in."""
        self.addresses[occupancy.address] = occupancy
        if occupancy.person is not None:
            self.puppets[occupancy.person] = occupancy

    def drop_occupancy(self, person: NativeId) -> None:
        """A person's occupant was not let in."""
        occupancy = self.puppets.pop(person, None)
        if occupancy is not None:
            self.addresses.pop(occupancy.address, None)

    def on_departed(self, nick: str) -> None:
        """An occupant has left: unless it is inside, the nick no longer counts as our own."""
        if not any(one.nick == nick and (one.inside or one.entering) for one in self.addresses.values()):
            self.state.own.nicks.discard(nick)
            self.state.own.former_nicks.discard(nick)

    def set_ready(self) -> None:
        """The listener is inside, and what was missed is read."""
        self.ready.set()
        self.changed.set()

    def set_reason(self, reason: str) -> None:
        """The listener is not inside, for a reason."""
        self.ready.clear()
        self.reason = reason
        self.changed.set()

    def on_link_down(self) -> None:
        """The component lost its connection: who is inside is not known any more."""
        self.set_reason("the component is not connected")
        for occupancy in self.addresses.values():
            occupancy.inside = False
            occupancy.on_refused("remote-server-timeout", self.reason)
        self.lost.set()

    def on_listener_out(self, reason: str) -> None:
        """The listener is not inside any more."""
        self.listener.inside = False
        self.set_reason(reason)
        self.lost.set()

    def read_presence(self, stanza: Stanza, occupancy: Occupancy, presence: MucPresence | None) -> None:
        """What a presence says of the occupant that got it."""
        if stanza.type == "error":
            occupancy.on_refused(stanza.condition, error_text(stanza))
            return
        if presence is None or (SELF not in presence.codes and presence.nick != occupancy.nick):
            return
        if presence.available:
            if SELF in presence.codes and occupancy.entering is not None and not occupancy.entering.done():
                occupancy.entering.set_result(presence)
            elif SELF in presence.codes:
                occupancy.nick = presence.nick
        elif presence.new_nick:
            occupancy.nick = presence.new_nick
        elif occupancy.inside or occupancy.entering is not None:
            occupancy.inside = False
            text = presence.reason or "the room removed the occupant"
            occupancy.on_refused("not-allowed", text)


class SessionKeeper:
    """Keeps the listener of one room inside. ``take_archived`` gets what was missed."""

    def __init__(
        self,
        ctx: NetworkContext,
        session: ForeignSession,
        queries: ForeignQueries,
        take_archived: TakeArchived,
    ) -> None:
        self._ctx = ctx
        self._session = session
        self._queries = queries
        self._take_archived = take_archived

    async def run(self, up: asyncio.Event, on_entered: Callable[[ForeignSession], Awaitable[None]]) -> None:
        """Enters the room, again whenever the listener is out of it."""
        failures, session = 0, self._session
        while True:
            await up.wait()
            session.lost.clear()
            try:
                async with session.order:
                    await self.enter()
            except (EntryRefused, QueryFailed) as refused:
                failures += 1
                session.set_reason(str(refused))
                self._ctx.count("xmpp_foreign_entries_failed", why=refused.condition)
                self._ctx.log.warning("%s cannot be entered: %s", session.room, refused)
                await self._wait_lost(BACKOFF.delay(failures, self._ctx.random.uniform()))
                continue
            failures = 0
            await on_entered(session)
            await self._stay()

    async def enter(self) -> None:
        """Enters and reads what was missed. Raises ``EntryRefused`` and ``QueryFailed``."""
        session = self._session
        traits = await self.ask_traits()
        session.state.enter(traits)
        session.archived = None
        nick, history = self._ctx.config.muc_listener, self._history(traits)
        for number in range(_MAX_NICKS):
            tried = nick if not number else f"{nick}-{number + 1}"
            try:
                await enter_room(session.room, session.listener, tried, self._queries.say, history)
                break
            except EntryRefused as refused:
                if refused.condition != "conflict" or number + 1 == _MAX_NICKS:
                    raise
        if traits.archive and session.position is not None:
            await self.catch_up(session.position)

    async def ask_traits(self) -> RoomTraits:
        """Asks the room what it is. Raises ``QueryFailed``."""
        query = xml_element("query", NS_DISCO_INFO)
        answer = await self._queries.ask(self._session.listener.address, self._session.room, query)
        traits = parse_traits(answer)
        if traits is None:
            raise QueryFailed("not-acceptable", f"{self._session.room} is not a room")
        return traits

    def _history(self, traits: RoomTraits) -> str:
        position = self._session.position
        if position is None or traits.archive:
            return NO_HISTORY
        return xml_element("history", "", since=format_timestamp(position.at))

    async def _stay(self) -> None:
        session = self._session
        while not session.lost.is_set():
            await self._wait_lost(SELF_PING_EVERY_S)
            if not session.lost.is_set() and not await self.is_inside():
                session.on_listener_out("the room does not know the listener any more")

    async def _wait_lost(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._session.lost.wait()
        except TimeoutError:
            pass

    async def is_inside(self) -> bool:
        """Asks the room whether the listener is an occupant (XEP-0410)."""
        listener = self._session.listener
        to = f"{self._session.room}/{listener.nick}"
        try:
            await self._queries.ask(listener.address, to, xml_element("ping", NS_PING))
        except QueryFailed as failed:
            return failed.condition in _STILL_THERE | _UNKNOWN
        return True

    async def catch_up(self, since: ReadPosition) -> None:
        """Reads the archive after a position. Raises ``QueryFailed``."""
        session, after, start = self._session, since.last, "" if since.last else format_timestamp(since.at)
        for _ in range(_MAX_PAGES):
            session.archived, session.archive_query = [], "muc-" + self._ctx.random.bytes(6).hex()
            query = archive_query_xml(session.archive_query, after=after, start=start)
            try:
                answer = await self._queries.ask(session.listener.address, session.room, query, type_="set")
            except QueryFailed as failed:
                if failed.condition == "item-not-found" and after:  # the archive forgot the message
                    after, start = "", format_timestamp(since.at)
                    continue
                if failed.condition in {"forbidden", "feature-not-implemented", "service-unavailable"}:
                    self._ctx.count("xmpp_foreign_archive_refused", why=failed.condition)
                    self._ctx.log.warning("the archive of %s cannot be read: %s", session.room, failed)
                    return
                raise
            finally:
                results, session.archived = session.archived or [], None
            for element in results:
                archived = parse_archived(element, session.room, session.listener.address)
                if archived is None:
                    self._ctx.count("xmpp_dropped", why="archived message")
                else:
                    await self._take_archived(archived.stanza, archived.person, archived.at)
            end = parse_end(answer)
            if end.complete or not end.last or end.last == after:
                return
            after, start = end.last, ""
        self._ctx.log.warning("%s: not all that was missed is read", session.room)
