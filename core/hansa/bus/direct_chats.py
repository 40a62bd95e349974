"""Direct chats: a core room of two people of different networks, made when the first of them writes or
invites.

1. A local user invites a person of another network into a room that this network has no link in
   (``refusal_of``, outside the room's turn). The policies and the person's network are asked; a refusal is
   the inviter's answer.
2. Once the invite is committed, the chat on the person's network becomes a link of the room, the person joins
   and a notice says that the chat is not encrypted (``on_committed``). A stop in between is made up for at
   the next start (``resume``).
3. A person of a network without invites writes first (``open``): the other network makes the room.

A chat has one room at a time. Its link moves only away from a room that one of the two has left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol
from weakref import WeakValueDictionary

from hansa.api.contracts import CannotOpenRoom, Network, OpenedRoom, OpensDirectChats
from hansa.bus.delivery import BusServices
from hansa.bus.pipeline import Pipeline
from hansa.bus.rooms import Room, Rooms
from hansa.model.content import Content, Member, Membership, Message, Style
from hansa.model.crossing import Invite
from hansa.model.errors import Busy, HansaError, LocalProtocolError
from hansa.model.events import Event, Link, Refusal, RefusalCode, Submission, refusal_by
from hansa.model.ref import NativeId
from hansa.model.view import ViewDelta
from hansa.pacing.backoff import Backoff
from hansa.store.faults import StoreFault

#: Members of a room that is looked at as a direct chat at the start: rooms with more are none.
_MAX_PEOPLE = 8
#: Attempts to open the chat of an invite, and the seconds between them.
_MAX_TRIES, _BACKOFF = 8, Backoff(first=0.2, most=30.0)
#: Refusals that another attempt may not meet.
_PASSING = frozenset({RefusalCode.BUSY, RefusalCode.RATE, RefusalCode.UNREACHABLE})
_IN = frozenset({Membership.JOIN, Membership.INVITE})


class DirectChatHost(Protocol):
    """The parts of the running application that direct chats use."""

    def network(self, network: str) -> Network | None:
        """The open network of an id."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> object:
        """Run a task of the core's own."""
        ...

    def count(self, name: str, **labels: str) -> None:
        """Add one to a counter."""
        ...

    async def link_opened(self, opened: OpenedRoom, room: str | None) -> Link:
        """Link a native room that is open."""
        ...

    async def start_consumer(self, link: Link) -> None:
        """Begin delivering to a link."""
        ...

    async def stop_consuming(self, native: NativeId) -> None:
        """End the deliveries to a link."""
        ...


class DirectChats:
    """Opens direct chats. ``pipeline`` submits what people do in them."""

    def __init__(self, rooms: Rooms, services: BusServices, pipeline: Pipeline, host: DirectChatHost) -> None:
        self._rooms = rooms
        self._decisions = services.decisions
        self._pipeline = pipeline
        self._host = host
        self._clock = services.seams.clock
        self._random = services.seams.random
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._log = logging.getLogger("hansa.direct_chats")

    async def refusal_of(self, room: Room, inbound: Submission) -> Refusal | None:
        """Why a person of a network without a link in the room cannot be invited; None for everything else.
        Asks the policies and the person's network.
        """
        content = inbound.content
        if not isinstance(content, Member) or not self._is_unlinked_invite(room, content):
            return None
        try:
            self._require_chat_of_two(room, content.user, inbound.sender)
            await self.require(content.user, inbound.sender, room=inbound.room)
        except CannotOpenRoom as error:
            self._host.count("direct_chats", result="refused")
            return error.refusal
        return None

    async def require(self, user: NativeId, other: NativeId, *, room: NativeId) -> None:
        """Raises ``CannotOpenRoom`` where ``user``'s network cannot open a chat with ``other``, or a policy
        denies the invite into ``room``, a native room of ``other``'s network.
        """
        await self._require_allowed(user, other, room)
        await self._network_of(user).require_direct_chat(user.id, other)

    def on_committed(self, room: Room, events: Sequence[Event]) -> None:
        """Opens the chat of each invite for a person of a network that has no link in the room."""
        for event in events:
            content = event.content
            if isinstance(content, Member) and self._is_unlinked_invite(room, content):
                self._spawn_connect(room, content.user, event.sender, event.seq)

    def resume(self) -> None:
        """Opens the chats of invites that a stop left without one."""
        for room in self._rooms:
            if len(room.view.people) > _MAX_PEOPLE:
                continue
            invited = [p.user for p in room.view.people.values() if p.membership is Membership.INVITE]
            for user in invited:
                others = [p.user for p in room.view.joined() if p.user.network != user.network]
                if others and room.links and room.link_of(user.network) is None:
                    self._spawn_connect(room, user, others[0], None)

    async def connect(self, room: Room, user: NativeId, other: NativeId, *, start: int | None = None) -> Link:
        """Makes the chat of ``user`` with ``other`` a link of ``room``, in which ``user`` is invited or
        joined. The link gets the events after ``start``, by default later ones alone. Raises
        ``CannotOpenRoom``.
        """
        self._require_chat_of_two(room, user, other)
        await self._require_allowed(user, other, next(iter(room.links.values())).native, again=True)
        if room.view.membership(user) not in _IN:
            raise CannotOpenRoom(Refusal(code=RefusalCode.NOT_FOUND, text="the invite was withdrawn"))
        opened = await self._network_of(user).open_direct_chat(user.id, other)
        async with self._lock(opened.native):
            known = self._rooms.link(opened.native)
            if known is not None and known.room != room.id:
                await self._close_left_chat(known, user, other)
                known = None
            link = known or await self._rooms.open_link(opened.native, room=room.id, start=start)
            try:
                if room.view.membership(user) is not Membership.JOIN:
                    await self._submit(
                        room, user, Member(user=user, membership=Membership.JOIN, name=user.id)
                    )
            except HansaError:
                await self._close_link(link)
                raise
            await self._begin(room, link, user)
        self._host.count("direct_chats", result="opened")
        return link

    async def open(self, native: NativeId, user: NativeId, other: NativeId) -> Link:
        """The link of ``native``, the chat of ``user`` with ``other`` on ``user``'s network. ``other`` is
        invited, by their network, where they are not in the chat's room. Raises ``CannotOpenRoom``.
        """
        async with self._lock(native):
            link = self._rooms.link(native)
            if link is not None and await self._is_usable(link, user, other):
                return link
            await self._require_allowed(other, user, native)
            network = self._network_of(other)
            await network.require_direct_chat(other.id, user)
            if link is not None:
                await self._close_link(link)
            opened = await network.open_direct_chat(other.id, user)
            room = self._rooms.room_of((await self._host.link_opened(opened, None)).native)
            link = await self._rooms.open_link(native, room=room.id)
            for person, by in ((user, user), (other, other)):
                if room.view.membership(person) is None:
                    await self._submit(room, by, Member(user=person, membership=Membership.JOIN))
            await self._begin(room, link, user)
        self._host.count("direct_chats", result="opened")
        return link

    async def _is_usable(self, link: Link, user: NativeId, other: NativeId) -> bool:
        """False if ``user`` is out of the chat's room. Invites ``other`` again if they left it."""
        room = self._rooms.room_of(link.native)
        mine, theirs = room.view.membership(user), room.view.membership(other)
        if mine is Membership.BAN:
            raise CannotOpenRoom(Refusal(code=RefusalCode.BANNED, text="you are banned from this chat"))
        if mine not in _IN:
            return False
        if theirs not in _IN:
            await self._require_allowed(other, user, link.native)
            await self._submit(room, user, Member(user=other, membership=Membership.INVITE))
        return True

    def _is_unlinked_invite(self, room: Room, content: Member) -> bool:
        """True for an invite of a person whose network has no link in the room."""
        invited = content.membership is Membership.INVITE
        return invited and bool(room.links) and room.link_of(content.user.network) is None

    def _network_of(self, user: NativeId) -> OpensDirectChats:
        network = self._host.network(user.network)
        if network is None:
            text = f"the network {user.network} is not running; try again later"
            raise CannotOpenRoom(Refusal(code=RefusalCode.UNREACHABLE, text=text, retry_after=5.0))
        if not isinstance(network, OpensDirectChats):
            text = f"{user.id} cannot be reached alone: {user.network} has no direct chats"
            raise CannotOpenRoom(Refusal(code=RefusalCode.FORBIDDEN, text=text))
        return network

    def _require_chat_of_two(self, room: Room, user: NativeId, other: NativeId) -> None:
        """Raises ``CannotOpenRoom`` for a room that cannot become a direct chat."""
        text = ""
        if room.view.facts.encrypted:
            text = f"this room is encrypted, which {user.network} cannot read; write in an unencrypted one"
        elif any(link.hosted for link in room.links.values()):
            text = f"this room is not linked to {user.network}"
        elif any(p.membership in _IN and p.user not in {user, other} for p in room.view.people.values()):
            text = f"this room is not linked to {user.network}, and only a chat of two opens by an invite"
        if text:
            raise CannotOpenRoom(Refusal(code=RefusalCode.FORBIDDEN, text=text))

    async def _require_allowed(
        self, user: NativeId, other: NativeId, room: NativeId, *, again: bool = False
    ) -> None:
        """Raises ``CannotOpenRoom`` where a policy denies that ``other`` invites ``user``."""
        if not self._decisions.policies:
            return
        server_of = self._pipeline.server_of
        crossing = Invite(
            network=user.network,
            room=room.id,
            sender=other,
            sender_server=server_of(other.network, other.id),
            user=user,
            outbound=True,
            servers=frozenset({server_of(user.network, user.id)}),
            texts=(),
            again=again,
        )
        verdict = await self._decisions.judge_and_store(crossing)
        if not verdict.allowed:
            raise CannotOpenRoom(refusal_by(verdict))

    async def _close_left_chat(self, link: Link, user: NativeId, other: NativeId) -> None:
        """Takes the chat out of a room that one of the two has left. Raises ``CannotOpenRoom`` where both are
        in it.
        """
        view = self._rooms.room_of(link.native).view
        if view.membership(user) in _IN and view.membership(other) in _IN:
            text = f"you have a chat with {user.id} already: write there, or leave it first"
            raise CannotOpenRoom(Refusal(code=RefusalCode.CONFLICT, text=text))
        await self._close_link(link)

    async def _close_link(self, link: Link) -> None:
        await self._host.stop_consuming(link.native)
        await self._rooms.close_link(link.native)

    async def _begin(self, room: Room, link: Link, user: NativeId) -> None:
        """Begins to deliver in a chat, and says once in its room that it is one, and not encrypted."""
        facts = room.view.facts
        if not facts.direct:
            await self._pipeline.correct(room.id, ViewDelta(info=replace(facts, direct=True)))
        await self._host.start_consumer(link)
        text = f"This is a chat with {user.id} on another network ({user.network}). It is not encrypted."
        notice = Message(text=text, style=Style.NOTICE)
        try:
            await self._submit(room, user, notice, origin=f"direct-notice {room.id}")
        except HansaError as error:
            self._log.info("the chat in %s says nothing of encryption: %s", room.id, error)

    async def _submit(self, room: Room, user: NativeId, content: Content, *, origin: str = "") -> None:
        """Submits what ``user`` does. Raises ``CannotOpenRoom`` where it is refused."""
        link = room.authority or next(iter(room.links.values()))
        submission = Submission(
            origin=NativeId(user.network, origin or f"direct {self._random.bytes(12).hex()}"),
            room=link.native,
            sender=user,
            content=content,
            ts=self._clock.now(),
        )
        (outcome,) = await self._pipeline.submit(user.network, [submission])
        if (refusal := outcome.refused) is not None:
            raise CannotOpenRoom(refusal)

    def _spawn_connect(self, room: Room, user: NativeId, other: NativeId, start: int | None) -> None:
        async def connect() -> None:
            with suppress(CannotOpenRoom):  # it is logged, and said in the room
                await self.connect_or_decline(room, user, other, start=start)

        self._host.spawn(connect(), f"direct chat in {room.id}")

    async def connect_or_decline(
        self, room: Room, user: NativeId, other: NativeId, *, start: int | None = None
    ) -> Link:
        """As ``connect``, which is tried again where it may succeed later. Raises ``CannotOpenRoom`` in the
        end; ``user`` has left the room then, with the reason.
        """
        refusal = Refusal(code=RefusalCode.UNREACHABLE, text=f"{user.network} could not be reached")
        for tried in range(1, _MAX_TRIES + 1):
            try:
                return await self.connect(room, user, other, start=start)
            except CannotOpenRoom as error:
                refusal = error.refusal
                if refusal.code not in _PASSING:
                    break
            except (Busy, StoreFault) as error:
                refusal = Refusal(code=RefusalCode.BUSY, text=str(error))
            except LocalProtocolError as error:
                refusal = Refusal(code=RefusalCode.INVALID, text=str(error))
                break
            await asyncio.sleep(_BACKOFF.delay(tried, self._random.uniform()))
        self._host.count("direct_chats", result="declined")
        self._log.info("the invite of %s to %s is declined: %s", user, room.id, refusal.text)
        decline = Member(user=user, membership=Membership.LEAVE, reason=refusal.text)
        try:
            if room.view.membership(user) in _IN:
                await self._submit(room, user, decline)
        except HansaError as error:
            self._log.warning("%s could not decline the invite to %s: %s", user, room.id, error)
        raise CannotOpenRoom(refusal)

    def _lock(self, native: NativeId) -> asyncio.Lock:
        """One at a time opens a chat."""
        lock = self._locks.get(str(native))
        if lock is None:
            lock = self._locks[str(native)] = asyncio.Lock()
        return lock
