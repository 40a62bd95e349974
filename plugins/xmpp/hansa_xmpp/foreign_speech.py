"""What people of other networks do in rooms elsewhere: sent by their puppet or by the listener, and taken as
done once the room has reflected it.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from hansa import (
    Avatar,
    Content,
    Delivery,
    DeliveryRejected,
    Edit,
    Event,
    HistoryVisibility,
    JoinRule,
    Member,
    Membership,
    Message,
    Name,
    NativeId,
    NetworkContext,
    Reaction,
    Retraction,
    RetryLater,
    Standing,
    Style,
    Topic,
    Upgrade,
    fallback_text,
)

from hansa_xmpp.foreign_inbound import DRAFT, ForeignInbound
from hansa_xmpp.foreign_puppets import ForeignPuppets, name_of
from hansa_xmpp.foreign_queries import ForeignQueries, QueryFailed
from hansa_xmpp.foreign_session import ForeignSession, Occupancy
from hansa_xmpp.proto import render
from hansa_xmpp.proto.foreign_room import message_native_id
from hansa_xmpp.proto.message_xml import message_xml
from hansa_xmpp.proto.render import OutboundStanza, xml_element, xml_text
from hansa_xmpp.proto.stanza import NS_MODERATE, NS_MUC_ADMIN, NS_RETRACT, NS_SID
from hansa_xmpp.proto.targeted import ReactionSet, reactions_xml, retraction_xml
from hansa_xmpp.service import get_delivered_part

#: Seconds that the room has to reflect a message, and attempts at one.
REFLECT_TIMEOUT_S, _MAX_ATTEMPTS = 20.0, 3
#: Changes of a room elsewhere that only its own people make.
_DECIDED_THERE = Name | JoinRule | HistoryVisibility | Avatar | Standing | Upgrade
#: Characters of the name before the text of who has no puppet.
_MAX_NAME = 64


class ForeignSpeech:
    """Speaks in the rooms of one component."""

    def __init__(
        self,
        ctx: NetworkContext,
        puppets: ForeignPuppets,
        heard: ForeignInbound,
        queries: ForeignQueries,
    ) -> None:
        self._ctx = ctx
        self._store = heard.store
        self._puppets = puppets
        self._heard = heard
        self._targets = heard.targets
        self._queries = queries

    async def deliver(self, session: ForeignSession, delivery: Delivery) -> str:
        """Shows one event in the room; its native id, empty if it has none there. Raises ``RetryLater`` and
        ``DeliveryRejected``.
        """
        content, person = delivery.content, delivery.event.sender
        message = message_id_of(delivery)
        known = await self._store.reflected(session.room, message)
        if known is not None:
            return known
        if not session.ready.is_set():
            raise RetryLater(f"{session.room}: {session.reason}")
        if isinstance(content, Member):
            return await self._change_member(session, delivery, content)
        shown, target = await self._targets.shown_content(delivery)
        if shown is None:
            return ""
        if isinstance(shown, Retraction) and target is not None and target.sender.network == self._ctx.id:
            return await self._moderate(session, delivery, shown, target)
        if isinstance(shown, _DECIDED_THERE):
            if delivery.link.authority:
                raise DeliveryRejected(
                    f"only the people of {session.room} may change this, in the room itself"
                )
            return ""
        if isinstance(shown, Message) and self._is_echo(session, person, shown):
            self._ctx.count("xmpp_ignored", why="echo")
            return ""
        speaker = await self._puppets.speaker(session, person)
        if not session.ready.is_set():
            raise RetryLater(f"{session.room}: {session.reason}")
        inner = await self._inner(session, delivery, shown, target, speaker)
        if inner is None:
            return ""
        inner += xml_element("origin-id", NS_SID, id=message)
        stanza = render.stanza(
            "message", speaker.address, [session.room], inner, type_="groupchat", id_=message
        )
        return await self._say_and_wait(session, delivery, stanza, message)

    def _is_echo(self, session: ForeignSession, person: NativeId, message: Message) -> bool:
        """True if another gateway brings back what an occupant said. Any other message is noted."""
        now, echoes = self._ctx.clock.monotonic(), self._heard.echoes
        name = self._heard.name_of(session, person)
        if not message.text or echoes.is_echo_of_heard(session.room, name, message.text, now):
            return bool(message.text)
        echoes.note_sent(session.room, name, message.text, now)
        return False

    async def _say_and_wait(
        self, session: ForeignSession, delivery: Delivery, stanza: OutboundStanza, message: str
    ) -> str:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._heard.waiting[session.room, message] = future
        lost: asyncio.Future[bool] = asyncio.ensure_future(session.lost.wait())
        try:
            self._queries.say([stanza])
            both: list[asyncio.Future[Any]] = [future, lost]
            await asyncio.wait(both, timeout=REFLECT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return future.result()
        finally:
            lost.cancel()
            future.cancel()
            del self._heard.waiting[session.room, message]
        if delivery.attempt >= _MAX_ATTEMPTS and not session.lost.is_set():
            raise DeliveryRejected(f"{session.room} does not reflect the message")
        raise RetryLater(f"{session.room} has not reflected the message")

    async def _inner(
        self,
        session: ForeignSession,
        delivery: Delivery,
        content: Content | ReactionSet,
        target: Event | None,
        speaker: Occupancy,
    ) -> str | None:
        """The children of the message, None where there is nothing to show."""
        event = get_delivered_part(delivery)
        relayed = speaker.person is None
        name = _prefix_name(self._heard.name_of(session, event.sender))
        named = await self._room_id(session.room, target) if target is not None else ""
        if isinstance(content, Topic):
            return render.xml_element("subject", "", xml_text(content.text)) if content.text else "<subject/>"
        if isinstance(content, ReactionSet):
            if relayed or not named:
                return self._words(delivery.content, name) if isinstance(delivery.content, Reaction) else None
            return reactions_xml(replace(_with_draft(content, delivery), id=named))
        if isinstance(content, Retraction):
            return retraction_xml(named, content.reason) if named else None
        message = content.message if isinstance(content, Edit) else content
        if relayed and isinstance(message, Message):
            message = _said_by(message, name)
            content = replace(content, message=message) if isinstance(content, Edit) else message
        if target is not None and isinstance(content, Edit):
            sent = await self._sent_id(session.room, target)
            target = replace(target, id=sent or target.id, origin=NativeId("", ""))
        elif target is not None and named:
            target = replace(target, id=named)
        elif isinstance(content, Message):
            content = replace(content, reply_to="")
        return message_xml(
            event,
            content,
            target,
            room=session.room,
            network=self._ctx.id,
            nick_of=lambda user: self._nick_of(session, user),
            link_of=lambda file: self._ctx.media.link(file, session.room, event.id.partition(".")[0]),
        )

    def _words(self, content: Content, name: str) -> str:
        text = f"<{name}> {fallback_text(content)}"
        return render.xml_element("body", "", xml_text(text))

    def _nick_of(self, session: ForeignSession, user: NativeId) -> str:
        occupancy = session.puppets.get(user)
        if occupancy is not None and occupancy.nick:
            return occupancy.nick
        occupant = session.state.find_user(user.id) if user.network == self._ctx.id else None
        if occupant is not None:
            return occupant.nick
        return self._heard.name_of(session, user)

    async def _room_id(self, room: str, event: Event) -> str:
        """The id that a room gave to the message of an event, empty if it gave none."""
        for native in await self._ctx.native_ids(event):
            if native.startswith(message_native_id(room, "")):
                return room_id_of(native)
        return ""

    async def _sent_id(self, room: str, event: Event) -> str | None:
        """The id with which we sent the message of an event."""
        for native in await self._ctx.native_ids(event):
            if native.startswith(message_native_id(room, "")):
                found = await self._store.message_of(native)
                if found is not None:
                    return found
        return None

    async def _change_member(self, session: ForeignSession, delivery: Delivery, content: Member) -> str:
        if content.user.network == self._ctx.id:
            if content.user != delivery.event.sender:
                await self._remove(session, delivery, content)
            return ""
        if content.membership in {Membership.LEAVE, Membership.BAN}:
            self._puppets.leave(session, content.user, content.reason)
        return ""

    async def _remove(self, session: ForeignSession, delivery: Delivery, content: Member) -> None:
        """Removes an occupant: XEP-0045 section 8.2, for a ban section 9.1."""
        occupant = session.state.find_user(content.user.id)
        reason = xml_element("reason", "", xml_text(content.reason)) if content.reason else ""
        if content.membership is Membership.BAN and "/" not in content.user.id:
            item = xml_element("item", "", reason, affiliation="outcast", jid=content.user.id)
        elif content.membership in {Membership.LEAVE, Membership.BAN} and occupant is not None:
            item = xml_element("item", "", reason, role="none", nick=occupant.nick)
        else:
            return
        query = xml_element("query", NS_MUC_ADMIN, item)
        try:
            await self._queries.ask(session.listener.address, session.room, query, type_="set")
        except QueryFailed as failed:
            who = name_of(self._ctx.get_view(session.room), content.user) or content.user.id
            await self._tell_refused(session, delivery, f"{session.room} did not remove {who}: {failed}")

    async def _moderate(
        self, session: ForeignSession, delivery: Delivery, content: Retraction, target: Event
    ) -> str:
        """Retracts the message of an occupant, as a moderator: XEP-0425 section 3."""
        named = await self._room_id(session.room, target)
        if not named:
            return ""
        inner = xml_element("retract", NS_RETRACT)
        if content.reason:
            inner += xml_element("reason", "", xml_text(content.reason))
        query = xml_element("moderate", NS_MODERATE, inner, id=named)
        try:
            await self._queries.ask(session.listener.address, session.room, query, type_="set")
        except QueryFailed as failed:
            await self._tell_refused(
                session, delivery, f"{session.room} did not retract the message: {failed}"
            )
        return ""

    async def _tell_refused(self, session: ForeignSession, delivery: Delivery, text: str) -> None:
        """The room refuses what a moderator elsewhere did: people there are told. Where the room decides, it
        does not happen.
        """
        self._ctx.count("xmpp_foreign_acts_refused")
        if delivery.link.authority:
            raise DeliveryRejected(text)
        await self._heard.tell(session, session.room, "", Message(text=text, style=Style.NOTICE))


def message_id_of(delivery: Delivery) -> str:
    """The id of the message that shows a delivery: the same for the same key."""
    if delivery.key.startswith(DRAFT):
        return delivery.key
    digest = hashlib.sha256(delivery.key.encode(errors="surrogatepass")).hexdigest()[:32]
    return f"h-{digest}"


def room_id_of(native: str) -> str:
    """The room's id in a native id of ``message_native_id``; empty for one that the room did not give."""
    found = unquote(native.partition(" ")[2].partition(" ")[0])
    return "" if found.startswith(("made ", "ours ")) else found


def _prefix_name(name: str) -> str:
    words = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return words[:_MAX_NAME] or "unnamed"


def _said_by(message: Message, name: str) -> Message:
    """The message with the name of who said it before its text."""
    before = f"* {name} " if message.style is Style.EMOTE else f"<{name}> "
    spans = tuple(
        replace(span, start=span.start + len(before), end=span.end + len(before)) for span in message.spans
    )
    style = Style.TEXT if message.style is Style.EMOTE else message.style
    return replace(message, text=before + message.text, spans=spans, style=style)


def _with_draft(shown: ReactionSet, delivery: Delivery) -> ReactionSet:
    """With a reaction that is not in the log yet."""
    content = delivery.content
    if isinstance(content, Reaction) and content.key not in shown.keys:
        return replace(shown, keys=(*shown.keys, content.key))
    return shown
