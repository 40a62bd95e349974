"""The network: one component of one XMPP server, as the core sees it."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from hansa import (
    CannotOpenRoom,
    Delivery,
    EphemeralEvent,
    Features,
    Kind,
    Level,
    Link,
    NativeFacts,
    NativeId,
    NetworkCommand,
    NetworkContext,
    NetworkStatus,
    OpenedRoom,
    PersonMatch,
    PersonPresence,
    ProfileQuery,
    Refusal,
    RefusalCode,
    RoomMatch,
    RoomView,
    Submission,
    Typing,
)
from slixmpp.jid import JID, InvalidJID

from hansa_xmpp.direct_chats import chat_id
from hansa_xmpp.occupant_store import SCHEMA
from hansa_xmpp.proto import convert, jid
from hansa_xmpp.proto.render import stanza, xml_element, xml_text
from hansa_xmpp.stanza_handler import StanzaHandler
from hansa_xmpp.transport import Transport

_FEATURES = Features(
    levels=MappingProxyType(
        {
            Kind.MESSAGE: Level.FULL,
            Kind.MEMBER: Level.FULL,
            Kind.NAME: Level.FULL,
            Kind.TOPIC: Level.FULL,
            Kind.STANDING: Level.FULL,
            Kind.JOIN_RULE: Level.FULL,
            Kind.EDIT: Level.FULL,
            Kind.REACTION: Level.FULL,
            Kind.RETRACTION: Level.FULL,
            Kind.UPGRADE: Level.FALLBACK,
            Kind.LOCATION: Level.FALLBACK,
            Kind.POLL_START: Level.FALLBACK,
            Kind.POLL_VOTE: Level.FALLBACK,
            Kind.POLL_END: Level.FALLBACK,
            Kind.CALL: Level.FALLBACK,
            Kind.ENCRYPTED: Level.FALLBACK,
            Kind.CUSTOM: Level.PARTIAL,
        }
    ),
    max_text=convert.MAX_TEXT,
    formatting=True,
    replies=True,
    attachments=True,
)


#: The longest text that is searched for (characters).
_MAX_SEARCH = 1023


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


class XmppNetwork:
    """Implements ``Network``, ``HasFeatures``, ``KnowsServers``, ``MakesGhosts``, ``LinksRooms``,
    ``NamesRooms``, ``KnowsPeople``, ``ShowsPresent``, ``OpensDirectChats``, ``AnswersCommands``, ``LooksUp``,
    ``ProvesPeople``, ``FollowsLinks``, ``HasChatCommands`` and, for rooms elsewhere, ``LateAuthority``.

    People are bare JIDs, or occupants of rooms elsewhere. Rooms are bare JIDs; in those of our component, an
    event's id is the room's stanza-id.
    """

    features = _FEATURES

    def __init__(self, ctx: NetworkContext, transport: Transport) -> None:
        self._ctx = ctx
        self._transport = transport
        self._tasks: set[asyncio.Task[None]] = set()
        self._ingress = StanzaHandler(ctx, transport, self._spawn_task)
        ctx.declare(SCHEMA)

    def _spawn_task(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        task = self._ctx.spawn(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def start(self) -> None:
        """See ``Network.start``."""
        config = self._ctx.config
        where = ", ".join(config.listen + config.listen_tls) or f"{config.host}:{config.port}"
        self._ctx.report_status(NetworkStatus.CONNECTING, where)
        await self._ingress.service.start()
        await self._ingress.foreign.start()
        self._spawn_task(partial(self._transport.run, self._ingress), "connections")
        self._spawn_task(self._ingress.leave_idle_members, "members who are away")
        self._spawn_task(self._ingress.service.link_ping.run, "pings of the link")

    async def stop(self) -> None:
        """See ``Network.stop``. The occupants stay: they are asked at the next start."""
        await self._transport.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def send(self, delivery: Delivery) -> str:
        """See ``Network.send``."""
        service, chats = self._ingress.service, self._ingress.chats
        connection = service.link_ping.connection
        if self._ingress.foreign.is_foreign(delivery.link):
            sent = await self._ingress.foreign.deliver(delivery)
        else:
            sent = await (service.deliver(delivery) if delivery.link.hosted else chats.deliver(delivery))
        service.link_ping.on_sent(delivery.link.native.id, delivery.event.seq, connection)
        return sent

    async def propose(self, delivery: Delivery) -> str:
        """See ``LateAuthority.propose``: a room elsewhere reflects it, or answers with an error."""
        return await self._ingress.foreign.deliver(delivery)

    def chat_commands(self) -> Mapping[str, NetworkCommand]:
        """See ``HasChatCommands``: who was removed from a room elsewhere asks to be there again."""
        text = "enter a room elsewhere again that removed you, when you next speak"
        return {"return": NetworkCommand(usage="ROOM", help=text, run=self._ask_back)}

    async def _ask_back(self, person: NativeId, words: Sequence[str]) -> str:
        if len(words) != 1:
            return "name the room, such as garden@muc.example.org"
        return await self._ingress.foreign.ask_back(words[0].removeprefix("xmpp:"), person)

    async def on_link_added(self, own: Link, added: Link, view: RoomView) -> None:
        """See ``FollowsLinks``: the occupants of a room elsewhere become members."""
        del view
        if added.id == own.id and self._ingress.foreign.is_foreign(own):
            await self._ingress.foreign.on_linked(own.native.id)

    async def on_link_removed(self, own: Link, removed: Link, view: RoomView) -> None:
        """See ``FollowsLinks``: a room elsewhere is left."""
        del view
        if removed.id == own.id and self._ingress.foreign.is_foreign(own):
            await self._ingress.foreign.on_unlinked(own.native.id)

    async def show_ephemeral(self, link: Link, signal: EphemeralEvent) -> None:
        """See ``CarriesEphemeral.show_ephemeral``. A direct chat shows none."""
        if link.hosted:
            await self._ingress.signals.show_signal(link.native.id, signal)
        elif isinstance(signal, Typing) and self._ingress.foreign.is_foreign(link):
            self._ingress.foreign.show_typing(link.native.id, signal)

    async def show_presence(self, link: Link, presence: PersonPresence) -> None:
        """See ``CarriesPresence.show_presence``."""
        self._ingress.subscriptions.note_presence(link.native.id, presence)
        if link.hosted:
            await self._ingress.service.show_person(link.native.id, presence)

    def request_confirmation(self, link: Link) -> None:
        """See ``Confirms.request_confirmation``: a ping that comes back through the server."""
        self._ingress.service.link_ping.request(link.native.id)

    async def show_present(self, link: Link) -> None:
        """See ``ShowsPresent.show_present``."""
        if link.hosted:
            await self._ingress.service.show_present(link.native.id)

    async def tell_person(self, link: Link, user: str, text: str) -> None:
        """See ``TellsPeople.tell_person``: a message of the room itself (XEP-0045 section 7.9)."""
        room = self._ingress.service.room(link.native.id)
        occupant = room.muc.roster.by_user(NativeId(self._ctx.id, user)) if room is not None else None
        if occupant is not None:
            body = xml_element("body", "", xml_text(text))
            notice = stanza("message", link.native.id, tuple(occupant.sessions), body, type_="groupchat")
            self._ingress.service.send_stanzas([notice])

    async def answer_command(self, link: Link, user: str, text: str) -> None:
        """See ``AnswersCommands.answer_command``: shown as ``tell_person`` shows a notice."""
        await self.tell_person(link, user, text)

    def is_proven_person(self, user: str) -> bool:
        """See ``hansa.ProvesPeople.is_proven_person``: an occupant of a room elsewhere is only a nick,
        and all of them write to the bridge as the room.
        """
        return "/" not in user and self._ctx.get_link(user) is None

    def has_private_chat(self, user: str) -> bool:  # noqa: ARG002
        """See ``hansa.ProvesPeople.has_private_chat``: a component (XEP-0114) has no encryption, so the XMPP
        server has to be on this machine.
        """
        return _is_this_machine(self._ctx.config.host)

    def server_of(self, user: str) -> str:
        """See ``KnowsServers.server_of``: the domain of a JID."""
        return jid.domain_of(user)

    def policy_facts(self, inbound: Submission) -> NativeFacts:
        """See ``KnowsServers.policy_facts``."""
        heard = inbound.native if isinstance(inbound.native, convert.ParsedMessage) else None
        return convert.policy_facts(inbound.content, self.server_of(inbound.sender.id), heard)

    def ghost_id(self, user: NativeId) -> str:
        """See ``MakesGhosts.ghost_id``: the person's puppet (``proto/jid.py``)."""
        return jid.puppet(user, self._ctx.config.component)

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        """See ``LinksRooms.open_room``. ``address`` is ``lobby`` or ``lobby@component``: a MUC of this
        component; or the address of a MUC of another service, which is entered.
        """
        domain = self._ctx.config.component
        try:
            room = JID(address if "@" in address else f"{address}@{domain}")
        except InvalidJID as error:
            refusal = Refusal(
                code=RefusalCode.INVALID, text=f"{address!r} is not the address of a room: {error}"
            )
            raise CannotOpenRoom(refusal) from None
        if not room.local or room.resource or "%" in room.local:
            refusal = Refusal(code=RefusalCode.INVALID, text=f"{address!r} is not the address of a room")
            raise CannotOpenRoom(refusal)
        if room.domain != domain:
            return await self._ingress.foreign.open_room(room.bare)
        if room.local == self._ctx.config.muc_listener and self._ctx.get_link(room.bare) is None:
            text = f"{room.bare} is the listener in rooms of other services (muc_listener)"
            raise CannotOpenRoom(Refusal(code=RefusalCode.CONFLICT, text=text))
        if not create and self._ctx.get_link(room.bare) is None:
            raise CannotOpenRoom(Refusal(code=RefusalCode.NOT_FOUND, text=f"there is no room {room.bare}"))
        return OpenedRoom(native=NativeId(self._ctx.id, room.bare), hosted=True)

    async def find_people(self, text: str, *, limit: int) -> Sequence[PersonMatch]:  # noqa: ARG002
        """See ``LooksUp.find_people``: the user whose bare JID the text is, whether or not they exist."""
        try:
            found = JID(text.strip().removeprefix("xmpp:"))
        except InvalidJID:
            return ()
        domain = found.domain
        ours = domain == self._ctx.config.component
        if not found.local or found.resource or "." not in domain or ours or len(text) > _MAX_SEARCH:
            return ()
        return [PersonMatch(user=NativeId(self._ctx.id, found.bare), name=found.bare)]

    async def find_rooms(self, text: str, *, limit: int) -> Sequence[RoomMatch]:
        """See ``LooksUpRooms.find_rooms``: the rooms of this component that everybody may enter, as its
        service discovery lists them (XEP-0045 section 6.3).
        """
        wanted, found = text.casefold(), list[RoomMatch]()
        for link in self._ctx.list_links():
            view = self._ctx.get_view(link.native.id)
            if not link.hosted or view is None or view.facts.join_rule != "public":
                continue
            facts, address = view.facts, link.native.id
            if wanted in f"{address}\n{facts.name}\n{facts.topic}".casefold():
                members = sum(view.joined_servers.values())
                match = RoomMatch(
                    network=self._ctx.id, address=address, name=facts.name, topic=facts.topic, members=members
                )
                found.append(match)
        return sorted(found, key=lambda one: (-one.members, one.address))[:limit]

    async def require_direct_chat(self, user: str, other: NativeId) -> None:  # noqa: ARG002
        """See ``OpensDirectChats.require_direct_chat``: the user's own server is asked whether they exist."""
        if await self.is_nonexistent_user(user):
            raise CannotOpenRoom(Refusal(code=RefusalCode.NOT_FOUND, text=f"there is no {user} on XMPP"))

    async def open_direct_chat(self, user: str, other: NativeId) -> OpenedRoom:
        """See ``OpensDirectChats.open_direct_chat``: a link of its own, and nothing on the wire."""
        await self.require_direct_chat(user, other)
        puppet = await self._ctx.get_ghost_id(other)
        return OpenedRoom(native=NativeId(self._ctx.id, chat_id(puppet, user)))

    async def room_at(self, address: str) -> str | None:
        """See ``NamesRooms.room_at``: a room's id is its address, whose domain may be left out."""
        try:
            found = JID(address if "@" in address else f"{address}@{self._ctx.config.component}").bare
        except InvalidJID:
            return None
        return found if self._ctx.get_link(found) is not None else None

    async def addresses_of(self, natives: Collection[str]) -> Mapping[str, Sequence[str]]:  # noqa: ARG002
        """See ``NamesRooms.addresses_of``: there are no others."""
        return {}

    async def is_nonexistent_user(self, user: str) -> bool:
        """See ``KnowsPeople.is_nonexistent_user``: their own server is asked, if the policies allow it."""
        domain = self.server_of(user)
        try:
            found = JID(user)
        except InvalidJID:
            return True
        if not found.local or found.bare != user or domain == self._ctx.config.component:
            return True
        if not self._ingress.service.up:
            return False
        person = NativeId(self._ctx.id, user)
        asked = ProfileQuery(network=self._ctx.id, server=domain, user=person, outbound=True)
        if not (await self._ctx.check(asked)).allowed:
            return False
        return await self._ingress.service.existence_queries.is_absent(user)
