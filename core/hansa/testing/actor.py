"""A network whose people do what a test says, through the public contract alone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType, ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from hansa.api.context import NetworkContext
from hansa.api.contracts import OpenedRoom
from hansa.api.hookspecs import hookimpl
from hansa.model.content import Content, Kind, Member, Membership, Message, Name, Style, Topic
from hansa.model.ephemeral import EphemeralEvent, PersonPresence, PresenceState, Receipt, Typing
from hansa.model.events import Delivery, Event, Link, NativeFacts, Submission, SubmitResult
from hansa.model.features import Features, Level
from hansa.model.ref import NativeId

_FULL: Mapping[Kind, Level] = MappingProxyType(dict.fromkeys(Kind, Level.FULL))


class Config(BaseModel):
    """A scripted network has no settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Actor:
    """A network in memory. ``got`` holds every delivery that was shown, by native room.

    People are ``name@server``. ``hosted`` rooms get their own people's events back, as a MUC does.
    ``before_send`` may raise ``RetryLater`` or ``DeliveryRejected``, or anything, to play a broken network.
    """

    def __init__(self, ctx: NetworkContext, *, hosted: bool = False) -> None:
        self.ctx = ctx
        self.hosted = hosted
        self.got: dict[str, list[Delivery]] = {}
        self.signals: dict[str, list[EphemeralEvent]] = {}
        self.presences: dict[str, list[PersonPresence]] = {}
        self.told: list[tuple[str, str]] = []
        self.attempts = 0
        self.before_send: Callable[[Delivery], None] = lambda _: None
        self._keys: dict[str, str] = {}
        self._made = 0
        self._more = asyncio.Condition()

    @property
    def features(self) -> Features:
        """See ``hansa.HasFeatures``."""
        return Features(levels=_FULL, formatting=True, replies=True, attachments=True)

    async def start(self) -> None:
        """See ``hansa.Network.start``."""

    async def stop(self) -> None:
        """See ``hansa.Network.stop``."""

    async def send(self, delivery: Delivery) -> str:
        """See ``hansa.Network.send``."""
        self.attempts += 1
        self.before_send(delivery)
        if delivery.key not in self._keys:
            self._keys[delivery.key] = f"{self.ctx.id}-sent-{len(self._keys)}"
            self.got.setdefault(delivery.link.native.id, []).append(delivery)
            async with self._more:
                self._more.notify_all()
        return self._keys[delivery.key]

    async def show_ephemeral(self, link: Link, signal: EphemeralEvent) -> None:
        """See ``hansa.CarriesEphemeral``: kept in ``signals``, by native room."""
        self.signals.setdefault(link.native.id, []).append(signal)

    async def show_presence(self, link: Link, presence: PersonPresence) -> None:
        """See ``hansa.CarriesPresence``: kept in ``presences``, by native room."""
        self.presences.setdefault(link.native.id, []).append(presence)
        async with self._more:
            self._more.notify_all()

    async def tell_person(self, link: Link, user: str, text: str) -> None:
        """See ``hansa.TellsPeople``: kept in ``told``."""
        del link
        self.told.append((user, text))

    async def answer_command(self, link: Link, user: str, text: str) -> None:
        """See ``hansa.AnswersCommands``: kept in ``told``."""
        await self.tell_person(link, user, text)

    async def typing(self, room: str, person: str, *, on: bool = True) -> None:
        """Begin or cease to type."""
        await self.ctx.send_ephemeral(room, Typing(user=NativeId(self.ctx.id, person), typing=on))

    async def read(self, room: str, person: str, event: Event) -> None:
        """Have read up to an event."""
        now = self.ctx.clock.now()
        await self.ctx.send_ephemeral(room, Receipt(user=NativeId(self.ctx.id, person), event=event, ts=now))

    async def set_presence(
        self, person: str, state: PresenceState, text: str = "", *, room: str = ""
    ) -> bool:
        """Be here, away, busy or offline: in one room, or in all."""
        now = self.ctx.clock.now()
        user = NativeId(self.ctx.id, person)
        presence = PersonPresence(user=user, state=state, text=text, since=now)
        return await self.ctx.send_presence(presence, room)

    def server_of(self, user: str) -> str:
        """See ``hansa.KnowsServers``."""
        return user.partition("@")[2] or self.ctx.id

    def policy_facts(self, inbound: Submission) -> NativeFacts:
        """See ``hansa.KnowsServers``."""
        return NativeFacts(sender_server=self.server_of(inbound.sender.id))

    def ghost_id(self, user: NativeId) -> str:
        """See ``hansa.MakesGhosts``."""
        return f"ghost.{user.network}.{user.id}"

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        """See ``hansa.LinksRooms``: every address is a room."""
        del create
        return OpenedRoom(native=NativeId(self.ctx.id, address), hosted=self.hosted)

    async def do(self, room: str, person: str, content: Content, *, origin: str = "") -> SubmitResult:
        """One event of one person."""
        self._made += 1
        inbound = Submission(
            origin=NativeId(self.ctx.id, origin or f"{self.ctx.id}-said-{self._made}"),
            room=NativeId(self.ctx.id, room),
            sender=NativeId(self.ctx.id, person),
            content=content,
            ts=self.ctx.clock.now(),
        )
        return (await self.ctx.submit([inbound]))[0]

    async def say(self, room: str, person: str, text: str, *, origin: str = "") -> SubmitResult:
        """Speak."""
        return await self.do(room, person, Message(text=text), origin=origin)

    async def emote(self, room: str, person: str, text: str) -> SubmitResult:
        """Speak of oneself."""
        return await self.do(room, person, Message(text=text, style=Style.EMOTE))

    async def join(self, room: str, person: str, name: str | None = None) -> SubmitResult:
        """Enter a room, or change one's name in it."""
        content = Member(user=NativeId(self.ctx.id, person), membership=Membership.JOIN, name=name)
        return await self.do(room, person, content)

    async def leave(self, room: str, person: str) -> SubmitResult:
        """Leave a room."""
        content = Member(user=NativeId(self.ctx.id, person), membership=Membership.LEAVE)
        return await self.do(room, person, content)

    async def knock(self, room: str, person: str, reason: str = "") -> SubmitResult:
        """Ask to be let in."""
        user = NativeId(self.ctx.id, person)
        return await self.do(room, person, Member(user=user, membership=Membership.KNOCK, reason=reason))

    async def invite(self, room: str, person: str, whom: NativeId) -> SubmitResult:
        """Invites a user, of any network."""
        return await self.do(room, person, Member(user=whom, membership=Membership.INVITE))

    async def kick(self, room: str, person: str, whom: NativeId, reason: str = "") -> SubmitResult:
        """Kicks a user."""
        content = Member(user=whom, membership=Membership.LEAVE, reason=reason)
        return await self.do(room, person, content)

    async def ban(self, room: str, person: str, whom: NativeId, reason: str = "") -> SubmitResult:
        """Bans a user."""
        return await self.do(room, person, Member(user=whom, membership=Membership.BAN, reason=reason))

    async def set_topic(self, room: str, person: str, text: str) -> SubmitResult:
        """Change the topic."""
        return await self.do(room, person, Topic(text=text))

    async def set_name(self, room: str, person: str, text: str) -> SubmitResult:
        """Change the room's name."""
        return await self.do(room, person, Name(text=text))

    def contents(self, room: str) -> list[Content]:
        """Everything that was shown in a room, in order."""
        return [d.content for d in self.got.get(room, [])]

    def texts(self, room: str) -> list[str]:
        """The messages that were shown in a room, in order."""
        return [c.text for c in self.contents(room) if isinstance(c, Message)]

    async def until_shown(
        self, room: str, holds: Callable[[list[Content]], bool], seconds: float = 10.0
    ) -> list[Content]:
        """Wait until what was shown in a room is as ``holds`` wants it. Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._more:
            await self._more.wait_for(lambda: holds(self.contents(room)))
        return self.contents(room)

    async def until(self, room: str, count: int, seconds: float = 10.0) -> list[str]:
        """Wait until a room was shown this many messages. Raises TimeoutError."""
        await self.until_shown(room, lambda _: len(self.texts(room)) >= count, seconds)
        return self.texts(room)


def module(made: dict[str, Any], kind: type[Actor] = Actor, *, hosted: bool = False) -> ModuleType:
    """A plugin module whose networks are actors of a ``kind``; each is put into ``made`` under its id."""

    def open_network(ctx: NetworkContext) -> Actor:
        made[ctx.id] = actor = kind(ctx, hosted=hosted)
        return actor

    found: Any = ModuleType(f"hansa_actor_{id(made)}_{kind.__name__}_{hosted}")
    found.api = 1
    found.Config = Config
    found.open_network = hookimpl(open_network)
    sys.modules.setdefault(found.__name__, found)
    module_: ModuleType = found
    return module_
