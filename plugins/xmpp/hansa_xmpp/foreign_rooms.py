"""Rooms elsewhere: MUCs of other services that are linked to rooms of the core.

One occupant, the listener, takes each room's stanzas; those that puppets get are dropped. The room decides
what is said in it: see ``hansa.LateAuthority``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial

from hansa import (
    CannotOpenRoom,
    Delivery,
    DeliveryRejected,
    Link,
    LogLimit,
    Member,
    Membership,
    Message,
    NativeId,
    NetworkContext,
    OpenedRoom,
    Refusal,
    RefusalCode,
    RetryLater,
    StoreFault,
    Style,
    Typing,
)

from hansa_xmpp.direct_chats import is_chat_id
from hansa_xmpp.foreign_inbound import ForeignInbound, HeardItem, HeardMessage, MembersChanged
from hansa_xmpp.foreign_puppets import RESOURCE, ForeignPuppets
from hansa_xmpp.foreign_queries import ForeignQueries, error_text
from hansa_xmpp.foreign_session import ForeignSession, Occupancy, SessionKeeper
from hansa_xmpp.foreign_speech import ForeignSpeech
from hansa_xmpp.foreign_store import ForeignStore, ReadPosition
from hansa_xmpp.proto import errors, render
from hansa_xmpp.proto.broadcast import BANNED
from hansa_xmpp.proto.convert import parse_timestamp
from hansa_xmpp.proto.foreign_archive import PAGE_SIZE, result_of
from hansa_xmpp.proto.foreign_room import (
    ForeignOccupant,
    ForeignRoom,
    Happening,
    MucPresence,
    parse_muc_presence,
)
from hansa_xmpp.proto.render import OutboundStanza
from hansa_xmpp.proto.signal_xml import chat_state
from hansa_xmpp.proto.stanza import NS_DELAY, NS_PING, Stanza
from hansa_xmpp.service import MucService
from hansa_xmpp.user_queues import KeyedQueues, TaskSpawner

#: Rooms elsewhere of one component, and what waits of one room.
MAX_ROOMS, MAX_WAITING = 200, 1000
#: The memory of something that happened to an occupant (bytes).
_HAPPENING = 1024
_OPEN_TIMEOUT_S = 25.0


class ForeignRooms:
    """The rooms elsewhere of one component."""

    def __init__(self, ctx: NetworkContext, service: MucService, spawn: TaskSpawner) -> None:
        self._ctx = ctx
        self._service = service
        self._spawn = spawn
        self._told = LogLimit(ctx.log)
        self._store = ForeignStore(ctx)
        self._queries = ForeignQueries(ctx.random, self._say)
        self._puppets = ForeignPuppets(ctx, self._store, self._say)
        self._heard = ForeignInbound(ctx, self._store, service.targets)
        self._speech = ForeignSpeech(ctx, self._puppets, self._heard, self._queries)
        self._sessions: dict[str, ForeignSession] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._up = asyncio.Event()
        self._queues: KeyedQueues[HeardItem] = KeyedQueues(
            self._run_queue, spawn, most=MAX_WAITING, most_bytes=ctx.config.queue_bytes
        )

    @property
    def listener(self) -> str:
        """The full JID of the listener in all rooms."""
        return f"{self._ctx.config.muc_listener}@{self._ctx.config.component}/{RESOURCE}"

    def _say(self, stanzas: Iterable[OutboundStanza]) -> None:
        self._service.send_stanzas(stanzas)

    async def start(self) -> None:
        """Begins with the rooms that are linked."""
        for link in self._ctx.list_links():
            if self.is_foreign(link):
                await self._begin(link.native.id)

    @staticmethod
    def is_foreign(link: Link) -> bool:
        """True for the link of a room elsewhere."""
        return not link.hosted and not is_chat_id(link.native.id)

    def on_link_state(self, up: bool) -> None:
        """The component's link came up or went down."""
        if up:
            self._up.set()
            return
        self._up.clear()
        for session in self._sessions.values():
            session.on_link_down()

    async def _begin(self, room: str) -> ForeignSession:
        session = self._sessions.get(room)
        if session is None:
            state = ForeignRoom(room, self._ctx.id, self._ctx.config.component)
            listener = Occupancy(self.listener, None)
            session = ForeignSession(state, listener)
            session.add_occupancy(listener)
            session.position = await self._store.position(room)
            await self._puppets.load(session)
            self._sessions[room] = session
        if room not in self._keepers:
            keeper = SessionKeeper(self._ctx, session, self._queries, partial(self._take_archived, session))
            work = partial(keeper.run, self._up, self._on_entered)
            task = self._ctx.spawn(work, f"room {room}")
            self._keepers[room] = task
            task.add_done_callback(partial(self._on_keeper_ended, room))
        return session

    def _on_keeper_ended(self, room: str, task: asyncio.Task[None]) -> None:
        if self._keepers.get(room) is task:
            del self._keepers[room]

    async def open_room(self, room: str) -> OpenedRoom:
        """Enters a room. Raises ``CannotOpenRoom``."""
        native = NativeId(self._ctx.id, room)
        if self._ctx.get_link(room) is not None and room in self._sessions:
            return OpenedRoom(native=native, authority=True)
        if len(self._sessions) >= MAX_ROOMS:
            raise _cannot(RefusalCode.TOO_LARGE, f"there are {MAX_ROOMS} rooms of other services already")
        session = await self._begin(room)
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                while not session.ready.is_set() and (
                    session.reason == "the room is not entered yet" or not self._up.is_set()
                ):
                    await self._wait_change(session)
        except TimeoutError:
            pass
        if not session.ready.is_set():
            reason = session.reason
            if self._ctx.get_link(room) is None:
                self._end(room)
            raise _cannot(RefusalCode.UNREACHABLE, f"{room} cannot be entered: {reason}")
        return OpenedRoom(native=native, authority=True)

    @staticmethod
    async def _wait_change(session: ForeignSession) -> None:
        session.changed.clear()
        await session.changed.wait()

    def _end(self, room: str) -> None:
        session, task = self._sessions.pop(room, None), self._keepers.pop(room, None)
        if task is not None:
            task.cancel()
        if session is not None:
            self._puppets.leave_all(session)

    async def on_linked(self, room: str) -> None:
        """The room is linked: who is in it is told."""
        session = await self._begin(room)
        if session.ready.is_set():
            await self._on_entered(session)

    async def on_unlinked(self, room: str) -> None:
        """The room is not linked any more: everybody leaves it."""
        self._end(room)
        await self._store.forget_room(room)

    async def _on_entered(self, session: ForeignSession) -> None:
        """The listener is inside: those who came and went meanwhile did so."""
        if session.position is None:
            session.position = ReadPosition(at=self._ctx.clock.now())
            await self._store.put_position(session.room, session.position)
        session.overflowed = False
        session.state.own.former_nicks &= set(session.state.occupants)
        session.set_ready()
        if self._ctx.get_link(session.room) is not None:
            self._on_members_changed(session)

    def _on_members_changed(self, session: ForeignSession) -> None:
        if session.members_queued:
            return
        self._enqueue(session, MembersChanged(), _HAPPENING)
        session.members_queued = not session.overflowed

    async def deliver(self, delivery: Delivery) -> str:
        """See ``Network.send`` and ``LateAuthority.propose``."""
        session = self._sessions.get(delivery.link.native.id)
        if session is None or not self._up.is_set():
            raise RetryLater(f"the bridge is not in {delivery.link.native.id}")
        return await self._speech.deliver(session, delivery)

    def show_typing(self, room: str, signal: Typing) -> None:
        """A person of another network writes: shown by their puppet, if they have one."""
        session = self._sessions.get(room)
        puppet = session.puppets.get(signal.user) if session is not None else None
        if puppet is not None and puppet.inside:
            inner = chat_state("composing" if signal.typing else "paused")
            self._say([render.stanza("message", puppet.address, [room], inner, type_="groupchat")])

    async def ask_back(self, room: str, person: NativeId) -> str:
        """A person asks for an occupant of their own after the room removed it; the answer in words."""
        if room not in self._sessions:
            return f"{room} is not linked"
        if await self._puppets.ask_back(room, person):
            return f"you enter {room} again when you next speak"
        return f"nothing keeps you out of {room}"

    def is_from_room(self, stanza: Stanza) -> bool:
        """True for a stanza of a room elsewhere to one of our occupants in it."""
        session = self._sessions.get(stanza.sender.bare)
        return session is not None and stanza.to.full in session.addresses

    def take_stanza(self, stanza: Stanza, size: int) -> None:
        """Takes a stanza of ``size`` bytes for which ``is_from_room``."""
        session = self._sessions[stanza.sender.bare]
        occupancy = session.addresses[stanza.to.full]
        if stanza.kind == "iq":
            self._take_iq(stanza)
        elif stanza.kind == "presence":
            self._take_presence(session, occupancy, stanza)
        elif stanza.type == "error":
            self._heard.refuse(session.room, stanza.id, self._error_of(session, occupancy, stanza))
        elif occupancy is not session.listener:
            if stanza.type in {"chat", "normal", ""} and stanza.text_of("body"):
                text = "private messages are not passed on"
                self._say(errors.error_reply(stanza, errors.UNAVAILABLE, text))
        else:
            self._take_message(session, stanza, size)

    def _take_iq(self, stanza: Stanza) -> None:
        if stanza.type in {"result", "error"}:
            if not self._queries.answered(stanza):
                self._ctx.count("xmpp_ignored", why="unasked")
        elif stanza.type == "get" and stanza.child("ping", NS_PING) is not None:
            pong = render.stanza("iq", stanza.to.full, [stanza.sender.full], type_="result", id_=stanza.id)
            self._say([pong])
        else:
            self._say(errors.error_reply(stanza, errors.UNAVAILABLE))

    def _error_of(self, session: ForeignSession, occupancy: Occupancy, stanza: Stanza) -> Exception:
        """An error for a message. One that says that the occupant is not inside does not answer the words."""
        if stanza.condition == "not-acceptable":
            if occupancy is session.listener:
                session.on_listener_out(error_text(stanza))
            occupancy.inside = False
            return RetryLater(f"{session.room}: {error_text(stanza)}")
        if stanza.condition in {"remote-server-timeout", "remote-server-not-found", "resource-constraint"}:
            return RetryLater(f"{session.room}: {error_text(stanza)}")
        return DeliveryRejected(f"{session.room} refused it: {error_text(stanza)}")

    def _take_presence(self, session: ForeignSession, occupancy: Occupancy, stanza: Stanza) -> None:
        presence = parse_muc_presence(stanza)
        was_inside = occupancy.inside
        session.read_presence(stanza, occupancy, presence)
        if presence is None:
            return
        if was_inside and not occupancy.inside and not presence.available:
            if occupancy is session.listener:
                session.on_listener_out(presence.reason or "the room removed the listener")
            elif occupancy.person is not None:
                work = partial(self._on_puppet_removed, session, occupancy.person, presence)
                self._spawn(work, f"removal of {occupancy.person} in {session.room}")
        if occupancy is session.listener:
            happenings = session.state.apply_presence(presence)
            if not presence.available:
                session.on_departed(presence.nick)
            for item in happenings:
                if not session.ready.is_set():
                    continue
                if self._heard.is_plain(session, item):
                    self._on_members_changed(session)
                else:
                    self._enqueue(session, item, _HAPPENING)

    def _take_message(self, session: ForeignSession, stanza: Stanza, size: int) -> None:
        result = result_of(stanza) if not stanza.sender.resource else None
        if result is not None:
            wanted = session.archived is not None and result.get("queryid") == session.archive_query
            if wanted and session.archived is not None and len(session.archived) < PAGE_SIZE:
                session.archived.append(result)
            else:
                self._ctx.count("xmpp_ignored", why="unasked")
        elif self._is_first_subject(session, stanza):
            session.subject = stanza.text_of("subject")
        elif stanza.type == "groupchat" and self._ctx.get_link(session.room) is not None:
            sender = self._sender_of(session, stanza)
            self._enqueue(session, HeardMessage(stanza, sender, _stamp_of(stanza)), size)

    @staticmethod
    def _is_first_subject(session: ForeignSession, stanza: Stanza) -> bool:
        """True for the subject with which an entry ends. If it changed meanwhile, the archive has it."""
        if session.ready.is_set() or stanza.text_of("subject") is None or stanza.text_of("body"):
            return False
        return session.subject is None or session.state.traits.archive

    @staticmethod
    def _sender_of(session: ForeignSession, stanza: Stanza) -> ForeignOccupant:
        if not stanza.sender.resource:
            return ForeignOccupant("", session.room)
        return session.state.occupant_of(stanza)

    def _enqueue(self, session: ForeignSession, item: HeardItem, size: int) -> None:
        """Queues what happened. What does not fit is read from the archive, once the rest is done."""
        session.members_queued = False
        if not session.overflowed and self._queues.put(session.room, session.room, item, size):
            return
        self._ctx.count("xmpp_dropped", why="foreign room")
        if not session.overflowed:
            session.overflowed = True
            self._told.warning(session.room, "%s says more than can be taken; it is read later", session.room)
            session.on_listener_out("too much waits")

    async def _run_queue(self, room: str, items: Sequence[HeardItem]) -> None:
        session = self._sessions.get(room)
        if session is not None:
            try:
                async with session.order:
                    wait = await self._heard.take(session, items)
            except StoreFault as fault:  # what was not stored is read again
                self._told.warning(f"{room} store", "%s is read again: %s", room, fault)
                session.on_listener_out("the database fails")
                return
            if wait and not session.members_queued:
                session.members_queued = True
                self._spawn(partial(self._show_members_later, session, wait), f"members of {room}")

    async def _show_members_later(self, session: ForeignSession, seconds: float) -> None:
        await asyncio.sleep(seconds)
        session.members_queued = False
        self._on_members_changed(session)

    async def _take_archived(self, session: ForeignSession, stanza: Stanza, person: str, at: int) -> None:
        if not stanza.sender.resource:
            sender = ForeignOccupant("", session.room)
        else:
            sender = session.state.occupant_of(stanza, person)
        await self._heard.take(session, [HeardMessage(stanza, sender, at)])

    async def _on_puppet_removed(
        self, session: ForeignSession, person: NativeId, presence: MucPresence
    ) -> None:
        """The room removed a puppet: the other networks judge a removal by who did it, and are told."""
        self._ctx.count("xmpp_foreign_puppets_removed")
        await self._puppets.on_removed(session, person, banned=BANNED in presence.codes)
        actor = session.state.occupants.get(presence.actor)
        by = actor.user if actor is not None and not actor.ours else session.room
        banned = BANNED in presence.codes
        content = Member(
            user=person,
            membership=Membership.BAN if banned else Membership.LEAVE,
            reason=presence.reason,
        )
        happening = Happening(sender=by, content=content, name=presence.actor)
        if actor is not None and not await self._heard.is_refused(session, happening):
            return
        what = "banned" if banned else "removed"
        why = f": {presence.reason}" if presence.reason else ""
        name = self._heard.name_of(session, person)
        text = f"{name} was {what} in {session.room}{why}"
        await self._heard.tell(session, by, presence.actor, Message(text=text, style=Style.NOTICE))


def _stamp_of(stanza: Stanza) -> int | None:
    delay = stanza.child("delay", NS_DELAY)
    return parse_timestamp(delay.get("stamp", "")) if delay is not None else None


def _cannot(code: RefusalCode, text: str) -> CannotOpenRoom:
    return CannotOpenRoom(Refusal(code=code, text=text))
