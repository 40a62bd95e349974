"""The vCards of hosted rooms and of people of other networks: their names and pictures.

SPEC: XEP-0054 section 3.2 and 3.3 (vcard-temp); XEP-0486 section 3.4 (the avatar of a room).
"""

from __future__ import annotations

import base64
from contextlib import aclosing

from hansa import (
    Attachment,
    MediaUnavailable,
    Membership,
    NativeId,
    NetworkContext,
    ProfileQuery,
    RoomView,
    TokenBuckets,
)

from hansa_xmpp.direct_chats import chat_id
from hansa_xmpp.proto import errors, iq, jid
from hansa_xmpp.proto.errors import Condition
from hansa_xmpp.proto.render import xml_element, xml_text
from hansa_xmpp.proto.stanza import MAX_ID, NS_VCARD, Stanza
from hansa_xmpp.service import HostedRoom, MucService
from hansa_xmpp.submissions import find_person

#: The largest picture of a vCard (bytes), and the media types that clients show.
MAX_PHOTO = 96 * 1024
_PHOTO_TYPES = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})
#: Queries of one user and of all users of one domain: per second, and at once.
_USER_RATE, _MAX_OF_USER, _DOMAIN_RATE, _MAX_OF_DOMAIN = 0.5, 50.0, 5.0, 500.0


def is_vcard_request(stanza: Stanza) -> bool:
    """True for a query for the vCard of a room or a person."""
    children = list(stanza.element)
    is_query = stanza.kind == "iq" and stanza.type == "get" and 0 < len(stanza.id.encode()) <= MAX_ID
    return (
        is_query
        and bool(stanza.to.local)
        and len(children) == 1
        and children[0].tag == f"{{{NS_VCARD}}}vCard"
    )


class VCards:
    """Answers queries for vCards. A picture is read for each of them, and the policies judge each reading."""

    def __init__(self, ctx: NetworkContext, service: MucService) -> None:
        self._ctx = ctx
        self._service = service
        self._of_user = TokenBuckets(ctx.clock, _USER_RATE, _MAX_OF_USER)
        self._of_domain = TokenBuckets(ctx.clock, _DOMAIN_RATE, _MAX_OF_DOMAIN)

    async def answer(self, stanza: Stanza, room: HostedRoom | None) -> None:
        """Answers for a hosted room or an occupant of it; without a room, for a puppet with which the user
        has a direct chat.
        """
        try:
            card = await self._make_card(stanza, room)
        except _CardRefused as refused:
            self._service.refuse_stanza(stanza, refused.condition, str(refused))
            return
        self._service.send_stanzas(iq.result(stanza, xml_element("vCard", NS_VCARD, card)).stanzas)

    async def _make_card(self, stanza: Stanza, room: HostedRoom | None) -> str:
        asker = NativeId(self._ctx.id, stanza.sender.bare)
        if self._of_user.take(asker.id) or self._of_domain.take(jid.domain_of(asker.id)):
            raise _CardRefused(errors.RESOURCE_CONSTRAINT, "too many queries; try again later")
        native = room.muc.room if room is not None else chat_id(stanza.to.bare, asker.id)
        view = await self._ctx.get_judged_view(native)
        if view is None or (room is None and view.membership(asker) is not Membership.JOIN):
            raise _CardRefused(errors.NOT_FOUND, "nobody that you chat with has this address")
        if room is None:
            puppet = stanza.to.bare
            user = await find_person(self._ctx, puppet)
            return await self._person_card(view, user, asker)
        if not stanza.to.resource:
            return await self._room_card(view, asker)
        occupant = room.muc.roster.by_nick(stanza.to.resource)
        if room.muc.roster.by_session(stanza.sender.full) is None:
            raise _CardRefused(errors.NOT_ACCEPTABLE, "you are not in this room")
        if occupant is None:
            raise _CardRefused(errors.NOT_FOUND, "no occupant has this nick")
        if occupant.user.network == self._ctx.id:
            raise _CardRefused(errors.UNAVAILABLE, "ask the address of this person instead of the room's")
        return await self._person_card(view, occupant.user, asker)

    async def _room_card(self, view: RoomView, asker: NativeId) -> str:
        inside = view.membership(asker) in {Membership.JOIN, Membership.INVITE}
        if not inside and view.facts.join_rule != "public":
            raise _CardRefused(errors.FORBIDDEN, "only members read the vCard of this room")
        return _element("FN", view.facts.name) + await self._photo(view.facts.avatar)

    async def _person_card(self, view: RoomView, user: NativeId, asker: NativeId) -> str:
        person, server = view.person(user), jid.domain_of(asker.id)
        if person is None:
            raise _CardRefused(errors.NOT_FOUND, "nobody that you chat with has this address")
        asked = ProfileQuery(network=self._ctx.id, server=server, user=user, outbound=False)
        verdict = await self._ctx.check(asked)
        if not verdict.allowed:
            raise _CardRefused(errors.FORBIDDEN, verdict.text)
        return _element("FN", person.display) + await self._photo(person.avatar)

    async def _photo(self, source: NativeId | None) -> str:
        """The element of a picture; empty where there is none that can be sent."""
        if source is None:
            return ""
        content, size = list[bytes](), 0
        try:
            stream = await self._ctx.media.open(Attachment(name="", source=source))
            async with aclosing(stream.chunks) as chunks:
                if stream.media_type not in _PHOTO_TYPES or stream.size > MAX_PHOTO:
                    return ""
                async for chunk in chunks:
                    content.append(chunk)
                    size += len(chunk)
                    if size > MAX_PHOTO:
                        return ""
        except MediaUnavailable as error:
            self._ctx.count("xmpp_dropped", why="picture")
            self._ctx.log.info("a picture is not in a vCard: %s", error)
            return ""
        value = base64.b64encode(b"".join(content)).decode()
        inner = xml_element("TYPE", "", stream.media_type) + xml_element("BINVAL", "", value)
        return xml_element("PHOTO", "", inner)


class _CardRefused(Exception):
    def __init__(self, condition: Condition, text: str) -> None:
        super().__init__(text)
        self.condition = condition


def _element(name: str, text: str) -> str:
    return xml_element(name, "", xml_text(text)) if text else ""
