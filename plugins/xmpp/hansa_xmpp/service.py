"""The MUC service: the hosted rooms, what is shown in them, and the dialogue with the log.

A room's gate is open once its occupants were asked whether they are still there, after every connect; nothing
is sent to a room before. A room's lock makes what a joiner is given one whole: history up to a point of the
log, then live what comes after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from hansa import Delivery, Event, NativeId, NetworkContext, PersonPresence, RetryLater, RoomView, StoreFault

from hansa_xmpp.absences import Absences
from hansa_xmpp.link_ping import LinkPing
from hansa_xmpp.occupant_store import OccupantStore, SelfPing, StoredSession
from hansa_xmpp.presences import OccupantPresences
from hansa_xmpp.proto import errors
from hansa_xmpp.proto.commands import (
    Command,
    JoinGrant,
    JoinRequest,
    NickForced,
    SendStanzas,
    SessionClosed,
)
from hansa_xmpp.proto.errors import Condition
from hansa_xmpp.proto.muc import Muc
from hansa_xmpp.proto.render import OutboundStanza, batches
from hansa_xmpp.proto.stanza import Stanza, truncate_id
from hansa_xmpp.room_history import RoomHistory
from hansa_xmpp.targets import Targets
from hansa_xmpp.transport import NotConnected, Transport
from hansa_xmpp.user_existence import UserExistenceQueries
from hansa_xmpp.user_queues import TaskSpawner

#: Told that a person's last connection to a room, the full JID, has left it.
OnGone = Callable[[str, NativeId, str], None]


@dataclass(slots=True)
class HostedRoom:
    """One room. ``last_seq`` is the ``seq`` of the newest event shown over this connection of the component,
    ``last_ids`` the ids of its parts that were, ``room_id`` the core room it counts in. ``stale``: what its
    occupants were shown of it may not be what it is.
    """

    muc: Muc
    room_id: str
    occupants_verified: asyncio.Future[bool]
    last_seq: int = 0
    last_ids: set[str] = field(default_factory=set)
    stale: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class MucService:
    """All hosted rooms of one component."""

    def __init__(
        self, ctx: NetworkContext, transport: Transport, spawn: TaskSpawner, on_gone: OnGone
    ) -> None:
        self._ctx = ctx
        self._transport = transport
        self._spawn = spawn
        self._on_gone = on_gone
        self._table = OccupantStore(ctx.store)
        self.absences = Absences(ctx)
        self.presences = OccupantPresences(ctx)
        self._history = RoomHistory(ctx)
        self.targets = Targets(ctx)
        self._rooms: dict[str, HostedRoom] = {}
        self._salt = b""
        self.pings = SelfPing(ctx.random, ctx.config.ping_timeout)
        self.existence_queries = UserExistenceQueries(
            ctx.config.component, ctx.clock, ctx.random, self.send_stanzas
        )
        self.link_ping = LinkPing(ctx, self.send_stanzas, transport.end_connection)
        #: True while the link is up; ``epoch`` counts how often it came up.
        self.up = False
        self.epoch = 0

    async def start(self) -> None:
        """Read what is kept."""
        self._salt = await self._table.salt(self._ctx.random)
        for link in self._ctx.list_links():
            if link.hosted and (room := self.room(link.native.id)) is not None:
                for kept in await self._table.load(link.native.id):
                    user = NativeId(self._ctx.id, kept.jid.partition("/")[0])
                    room.muc.restore_session(user, kept.nick, kept.jid, kept.joined_seq)
                    room.stale = self._ctx.has_policies
                for _ in room.muc.sync_occupants(
                    self.view(link.native.id)
                ):  # nobody is told before they were asked
                    await asyncio.sleep(0)

    def room(self, native: str) -> HostedRoom | None:
        """The room of that address, None where we host none."""
        link = self._ctx.get_link(native)
        if link is None or not link.hosted:
            self._rooms.pop(native, None)
            return None
        room = self._rooms.get(native)
        if room is None:
            config = self._ctx.config
            muc = Muc(
                native,
                self._ctx.id,
                self._occupant_id(native),
                max_sessions=config.max_occupants,
                private_messages=config.private_messages,
                link_of=lambda file, event_id: self._ctx.media.link(file, native, event_id),
            )
            gate: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            if self.up:  # a room that is new has no occupants to ask
                gate.set_result(True)
            room = self._rooms[native] = HostedRoom(muc, link.room, gate)
        if room.room_id != link.room:  # linked to another core room: its log counts from the beginning
            room.room_id, room.last_seq = link.room, 0
            for occupant in room.muc.roster:
                occupant.sessions = dict.fromkeys(occupant.sessions, 0)
        return room

    def view(self, native: str) -> RoomView:
        """The present of a room that is linked."""
        view = self._ctx.get_view(native)
        assert view is not None
        return view

    @staticmethod
    def mark_rejoining(room: HostedRoom, full: str) -> None:
        """A connection asks to come in. If it is known from before and the room is not open again yet, what
        waits is history to it and not live, or it would see the backlog twice.
        """
        if not room.occupants_verified.done():
            room.muc.roster.suspend(full)

    def send_stanzas(self, stanzas: Iterable[OutboundStanza]) -> None:
        """Send answers and presences; nothing where the link is down, nobody would get them."""
        with contextlib.suppress(NotConnected):
            self._transport.send(stanzas)

    def refuse_stanza(self, stanza: Stanza, condition: Condition, text: str, *, why: str = "") -> None:
        """Answers a stanza with an error, and counts it: as ``why``, or by the condition."""
        self._ctx.count("xmpp_refused", why=why or condition.name)
        self.send_stanzas(errors.error_reply(truncate_id(stanza), condition, text))

    def on_link_state(self, up: bool) -> None:
        """The link came up or went down."""
        self.up = up
        self.link_ping.on_link_state(up)
        if up:
            self.epoch += 1
            for native in list(self._rooms):
                self._spawn(partial(self._ping_occupants, native), f"ask the occupants of {native}")
            return
        for room in self._rooms.values():
            room.last_seq = 0  # what the server did not confirm is sent again
            old, room.occupants_verified = room.occupants_verified, asyncio.get_running_loop().create_future()
            if not old.done():
                old.set_result(False)

    async def wait_verified(self, room: HostedRoom) -> None:
        """Wait until the room may be sent to."""
        while not await asyncio.shield(room.occupants_verified):
            pass

    async def _ping_occupants(self, native: str) -> None:
        """Ask every known connection of a room, forget those that are gone, open the gate."""
        room, epoch = self.room(native), self.epoch
        if room is None:
            return
        asked = room.muc.roster.session_jids()
        answers = await asyncio.gather(*(self.is_session_alive(native, full) for full in asked))
        if epoch != self.epoch or not self.up:
            return
        dead = [full for full, alive in zip(asked, answers, strict=True) if not alive]
        async with room.lock:
            await self.apply_commands(native, room.muc.close_sessions(dead))
            if not room.occupants_verified.done():
                room.occupants_verified.set_result(True)
        if room.stale:
            await self.show_present(native)
        without = [
            person.user
            for person in self.view(native).joined()
            if person.user.network == self._ctx.id and not room.muc.roster.is_present_or_joining(person.user)
        ]
        await self.absences.note_absent(native, without)

    async def is_session_alive(self, native: str, full: str) -> bool:
        """True if a connection answers a ping of the room."""
        ping, answer = self.pings.make(native, full)
        self.send_stanzas([ping])
        return await self.pings.alive(answer)

    async def apply_commands(self, native: str, commands: Iterable[Command]) -> None:
        """Carry out what needs no answer from the core."""
        gone, renamed = list[SessionClosed](), list[NickForced]()
        for command in commands:
            if isinstance(command, SendStanzas):
                self.send_stanzas(command.stanzas)
            elif isinstance(command, SessionClosed):
                gone.append(command)
            elif isinstance(command, NickForced):
                renamed.append(command)
        try:
            for one in renamed:
                await self._keep_nick(native, one.user, one.nick)
            await self._table.remove(native, [g.full for g in gone])
            await self.absences.note_absent(native, [g.user for g in gone if g.last])
        except StoreFault as fault:  # at the next start they are asked whether they are there
            self._ctx.log.warning("who left %s, or was renamed, is not stored yet: %s", native, fault)
        if (room := self.room(native)) is not None:
            for user in dict.fromkeys(left.user for left in gone):
                await self.presences.tell_closed(room.muc, user)
        for left in gone:
            if left.last and not left.lost:
                self._on_gone(native, left.user, left.full)

    async def deliver(self, delivery: Delivery) -> str:
        """One event of the log to everybody in the room; the room's stable id of it. Raises
        ``RetryLater``.
        """
        native = delivery.link.native.id
        room = self.room(native)
        if room is None or not self.up:
            raise RetryLater("the component is not connected")
        if not await asyncio.shield(room.occupants_verified):
            raise RetryLater("the component lost its connection")
        event = get_delivered_part(delivery)
        content, target = await self.targets.shown_content(delivery)
        await self._ctx.get_judged_view(native)
        async with room.lock:
            if not self.up:
                raise RetryLater("the component lost its connection")
            if event.seq > room.last_seq or (event.seq == room.last_seq and event.id not in room.last_ids):
                if event.seq > room.last_seq:
                    room.last_seq, room.last_ids = event.seq, set()
                room.last_ids.add(event.id)
                if content is not None:
                    commands = room.muc.broadcast_event(event, content, self.view(native), target)
                    await self.apply_commands(native, commands)
        await self._transport.wait_drained()
        return delivery.event.id

    async def show_person(self, native: str, presence: PersonPresence) -> None:
        """Shows occupants the presence of a person of another network."""
        room = self.room(native)
        if room is not None:
            stanzas = self.presences.take_puppet(room.muc, presence)
            if self.up and room.occupants_verified.done():
                self.send_stanzas(stanzas)

    async def complete_join(self, native: str, enter: JoinRequest) -> None:
        """Completes a join that the core has accepted: history, then live messages, without a gap."""
        room = self.room(native)
        if room is None:
            return
        async with room.lock:
            upto = max(self._ctx.delivered_seq(native), room.last_seq)
            history = await self._history.read_entries(
                room.muc, self.view(native), enter.user, enter.history, upto
            )
            await self._ctx.get_judged_view(native)
            full, view = enter.stanza.sender.full, self.view(native)
            await self._sync_occupants(native, room)
            # Stored before they are told: after a crash every stored session is asked whether it is still
            # there.
            await self._table.put([StoredSession(room=native, jid=full, nick=enter.nick, joined_seq=upto)])
            await self.absences.end(native, enter.user)
            admission = JoinGrant(upto=upto, history=history, subject=view.facts.topic)
            for some in batches(room.muc.complete_join(enter, admission, view)):
                self.send_stanzas(some)
                await self._transport.wait_drained()  # what comes next is not made before

    async def show_present(self, native: str) -> None:
        """A room is not what its occupants were shown, and no event will say so."""
        room = self.room(native)
        if room is None:
            return
        room.stale = True
        if not self.up or not await asyncio.shield(room.occupants_verified):
            return  # once they were asked whether they are there
        await self._ctx.get_judged_view(native)
        async with room.lock:
            if room.stale and self.up:
                room.stale = False
                await self._sync_occupants(native, room)
                self.send_stanzas(room.muc.renewed(self.view(native)))

    async def _sync_occupants(self, native: str, room: HostedRoom) -> None:
        for commands in room.muc.sync_occupants(self.view(native)):
            await self.apply_commands(native, commands)
            await self._transport.wait_drained()

    async def rename(self, native: str, user: NativeId, nick: str) -> None:
        """Gives an occupant another nick, which the core has accepted."""
        room = self.room(native)
        if room is not None:
            self.send_stanzas(room.muc.announce_nick(user, nick))
            await self._keep_nick(native, user, nick)

    async def _keep_nick(self, native: str, user: NativeId, nick: str) -> None:
        room = self.room(native)
        occupant = room.muc.roster.by_user(user) if room else None
        if occupant is not None:
            await self._table.put(
                StoredSession(room=native, jid=full, nick=nick, joined_seq=seq)
                for full, seq in occupant.sessions.items()
            )

    def _occupant_id(self, native: str) -> Callable[[NativeId], str]:
        def made(user: NativeId) -> str:
            text = f"{native}\0{user.network}\0{user.id}".encode(errors="surrogatepass")
            return hmac.new(self._salt, text, hashlib.sha256).hexdigest()[:32]

        return made


def get_delivered_part(delivery: Delivery) -> Event:
    """The event, or for a further part of a text that is too long for one message the event with an id of
    its own.
    """
    part = delivery.key.rpartition("#")[2].partition(".")[2]
    return replace(delivery.event, id=f"{delivery.event.id}.{part}") if part else delivery.event
