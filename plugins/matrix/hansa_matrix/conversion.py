"""Between PDUs and the core's nouns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from itertools import islice
from sys import intern
from typing import Any

import orjson
from hansa import (
    Content,
    Custom,
    Encrypted,
    Formatted,
    Member,
    Membership,
    Message,
    Name,
    NativeId,
    NetworkContext,
    Role,
    RoomInfo,
    RoomMember,
    SpanKind,
    Style,
    Topic,
    ViewDelta,
    truncate_utf8,
)

from hansa_matrix.proto.auth_rules.levels import PowerLevels
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY, JOIN_RULES_KEY, MEMBER, POWER_LEVELS_KEY
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.html import parse_html, render_html
from hansa_matrix.proto.ids import domain_of
from hansa_matrix.proto.state_content import (
    Content as Said,
)
from hansa_matrix.proto.state_content import (
    display_name,
    join_rule,
    membership_of,
    reason_of,
    room_name,
    room_topic,
    string_field,
)

_STYLES = {"m.text": Style.TEXT, "m.emote": Style.EMOTE, "m.notice": Style.NOTICE}
_MSGTYPES = {style: msgtype for msgtype, style in _STYLES.items()}
_MEMBERSHIPS = {m.value: m for m in Membership}
_FACT_KEYS = frozenset(
    {
        CREATE_KEY,
        JOIN_RULES_KEY,
        ("m.room.name", ""),
        ("m.room.topic", ""),
        ("m.room.encryption", ""),
    }
)
_NAME, _FACT = 255, 4096
#: The number of people that one message can mention.
_MAX_MENTIONS = 10
#: Bytes of a text and its HTML together, as JSON: a PDU has 65,536 for all.
_MAX_FORMATTED = 56_000

GhostResolver = Callable[[str], Awaitable[NativeId]]

#: Type, state key and content of a local event.
EventDraft = tuple[str, str | None, dict[str, Any]]


def _truncated_text(said: str | None, limit: int = 65_536) -> str:
    return truncate_utf8(said, limit) if said is not None else ""


async def _formatted(content: Mapping[str, Any], home_of: GhostResolver) -> Formatted | None:
    """The text and the spans of a message's HTML; None where it has none, or holds no text."""
    if string_field(content, "format") != "org.matrix.custom.html":
        return None
    html = string_field(content, "formatted_body") or ""
    if "<mx-reply" in html:
        return None  # the text has the words that are replied to, and the HTML of a reply may leave them out
    formatted = parse_html(html)
    if formatted is None or not formatted.text:
        return None
    mentioned = dict.fromkeys(span.value for span in formatted.spans if span.kind is SpanKind.MENTION)
    users = {user_id: await home_of(user_id) for user_id in islice(mentioned, _MAX_MENTIONS)}
    spans = tuple(
        replace(span, value="", user=users[span.value]) if span.kind is SpanKind.MENTION else span
        for span in formatted.spans
        if span.kind is not SpanKind.MENTION or span.value in users
    )
    return replace(formatted, spans=spans)


async def content_from_pdu(pdu: Pdu, home_of: GhostResolver) -> Content:
    """Converts a PDU into the core's content."""
    return await content_from_event((pdu.type, pdu.state_key, pdu.content), home_of)


async def content_from_event(
    draft: tuple[str, str | None, Mapping[str, Any]], home_of: GhostResolver
) -> Content:
    """Converts an event, given as type, state key and content, into the core's content."""
    type_, state_key, content = draft
    if state_key is None:
        if type_ == "m.room.message":
            style = _STYLES.get(string_field(content, "msgtype") or "", Style.TEXT)
            body = _truncated_text(string_field(content, "body"))
            formatted = await _formatted(content, home_of)
            if formatted is None:
                return Message(text=body, style=style)
            return Message(text=formatted.text, style=style, spans=formatted.spans)
        if type_ == "m.room.encrypted":
            return Encrypted()
        return Custom(type=type_)
    becomes = _MEMBERSHIPS.get(membership_of(content) or "")
    if type_ == MEMBER and becomes is not None:
        return Member(
            user=await home_of(state_key),
            membership=becomes,
            name=_truncated_text(display_name(content), _NAME) or None,
            reason=_truncated_text(reason_of(content), 1024),
        )
    if type_ == "m.room.name" and not state_key:
        return Name(text=_truncated_text(room_name(content), _NAME))
    if type_ == "m.room.topic" and not state_key:
        return Topic(text=_truncated_text(room_topic(content)))
    return Custom(type=type_)


def event_from_content(content: Content, target: str) -> EventDraft | None:
    """``(type, state_key, content)`` of an event of our own; None for what Matrix people get from no
    other network. ``target`` is the Matrix id of a ``Member``'s user.
    """
    match content:
        case Message(text=text, style=style, spans=spans):
            message = {"msgtype": _MSGTYPES[style], "body": text}
            if spans:
                made = render_html(Formatted(text=text, spans=spans))
                if len(orjson.dumps([text, made])) <= _MAX_FORMATTED:
                    message |= {"format": "org.matrix.custom.html", "formatted_body": made}
            return "m.room.message", None, message
        case Member():
            member: dict[str, Any] = {"membership": content.membership.value}
            if content.name and content.membership in {Membership.JOIN, Membership.INVITE}:
                member["displayname"] = truncate_utf8(content.name, _NAME)
            if content.reason:
                member["reason"] = content.reason
            return MEMBER, target, member
        case Name(text=text):
            return "m.room.name", "", {"name": truncate_utf8(text, _NAME)}
        case Topic(text=text):
            return "m.room.topic", "", {"topic": text}
        case _:
            return None


def role_of_level(levels: PowerLevels, user: str) -> Role:
    """A user's rank, from the room's own numbers."""
    level = levels.user_level(user)
    if level >= levels.required_level("m.room.power_levels", True):  # state event
        return Role.OWNER
    if level >= max(levels.ban, levels.kick, levels.redact):
        return Role.MODERATOR
    if level < levels.required_level("m.room.message", False):  # timeline event
        return Role.VISITOR
    return Role.MEMBER


def room_info(state: Mapping[StateKey, Pdu], version: str) -> RoomInfo:
    """The small part of a view, from the events that matter to it."""

    def said(key: StateKey) -> Said:
        event = state.get(key)
        return event.content if event is not None else None

    return RoomInfo(
        name=_truncated_text(room_name(said(("m.room.name", ""))), _FACT),
        topic=_truncated_text(room_topic(said(("m.room.topic", ""))), _FACT),
        join_rule=_truncated_text(join_rule(said(JOIN_RULES_KEY)), _FACT) or "invite",
        encrypted=("m.room.encryption", "") in state,
        version=version,
    )


async def member_from_pdu(pdu: Pdu, levels: PowerLevels, home_of: GhostResolver) -> RoomMember:
    """The row of a member event's target. A ghost is counted at its person's home, not at our server."""
    user_id = pdu.state_key or ""
    home = await home_of(user_id)
    server = domain_of(user_id)
    if home.id != user_id:
        server = home.id.partition("@")[2].partition("/")[0] if "@" in home.id else home.network
    is_ = _MEMBERSHIPS.get(pdu.membership or "", Membership.LEAVE)
    called = _truncated_text(display_name(pdu.content), _NAME) or None
    return RoomMember(
        user=home, membership=is_, server=intern(server), name=called, role=role_of_level(levels, user_id)
    )


class RoomViewBuilder:
    """Makes view changes out of state changes."""

    def __init__(self, ctx: NetworkContext, server: str) -> None:
        self._ctx = ctx
        self._server = server

    async def home_of(self, user: str) -> NativeId:
        """Returns the native id of a Matrix user. For a ghost this is the id of a person of another network;
        a ghost is also a user of this server.
        """
        if domain_of(user) != self._server:
            return NativeId(self._ctx.id, user)
        return await self._ctx.home_of(user)

    async def whole(
        self, state: AsyncIterator[Mapping[StateKey, Pdu]], version: str, levels: PowerLevels
    ) -> ViewDelta:
        """The view of a whole state, some keys of it at a time: people, and ``_FACT_KEYS``."""
        people: list[RoomMember] = []
        facts: dict[StateKey, Pdu] = {}
        async for some in state:
            for key, pdu in some.items():
                if key[0] == MEMBER:
                    people.append(await member_from_pdu(pdu, levels, self.home_of))
                elif key in _FACT_KEYS:
                    facts[key] = pdu
            await asyncio.sleep(0)
        return ViewDelta(upserts=tuple(people), info=await self._room_info(facts, version))

    async def _room_info(self, state: Mapping[StateKey, Pdu], version: str) -> RoomInfo:
        """The small part of a view, with who said what it says."""
        name, topic = state.get(("m.room.name", "")), state.get(("m.room.topic", ""))
        return replace(
            room_info(state, version),
            name_by=await self.home_of(name.sender) if name is not None else None,
            topic_by=await self.home_of(topic.sender) if topic is not None else None,
        )

    async def changed(
        self,
        room_id: str,
        changed: Mapping[StateKey, Pdu | None],
        around: Mapping[StateKey, Pdu],
        version: str,
        levels: PowerLevels,
    ) -> ViewDelta:
        """Returns the change of the view for a changed set of state keys. ``around`` holds the events of
        ``_FACT_KEYS``.
        """
        people: dict[NativeId, RoomMember] = {}
        gone: list[NativeId] = []
        view = self._ctx.get_view(room_id)
        if POWER_LEVELS_KEY in changed and view is not None:
            for person in view.people.values():
                user = person.user.id
                if person.user.network != self._ctx.id:
                    user = await self._ctx.get_ghost_id(person.user)
                role = role_of_level(levels, user)
                if role is not person.role:
                    people[person.user] = replace(person, role=role)
        for key, pdu in changed.items():
            if key[0] != MEMBER:
                continue
            if pdu is None:
                home = await self.home_of(key[1])
                people.pop(home, None)  # a change of power levels in the same step had counted them in
                gone.append(home)
            else:
                person = await member_from_pdu(pdu, levels, self.home_of)
                people[person.user] = person
        facts = await self._room_info(around, version) if any(key in _FACT_KEYS for key in changed) else None
        return ViewDelta(upserts=tuple(people.values()), removed=tuple(gone), info=facts)


def view_state_keys() -> frozenset[StateKey]:
    """The state keys behind the small part of a view."""
    return _FACT_KEYS
