"""From events of Matrix to the core's content. The ids of events in it are those of Matrix: see
``hansa.Submission.native_targets``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from hansa import (
    Avatar,
    Call,
    Content,
    Custom,
    Edit,
    Encrypted,
    Formatted,
    HistoryVisibility,
    JoinRule,
    Location,
    Member,
    Membership,
    Message,
    Name,
    PollEnd,
    PollVote,
    Reaction,
    Retraction,
    SpanKind,
    Style,
    Topic,
    Upgrade,
    truncate_utf8,
)

from hansa_matrix.conversion.native_ids import NativeIds
from hansa_matrix.proto import message_content as said
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.html import parse_html
from hansa_matrix.proto.state_content import (
    avatar_url,
    display_name,
    history_visibility,
    membership_of,
    reason_of,
    replacement_room,
    room_avatar,
    room_name,
    room_topic,
    shared_join_rule,
    string_field,
)

#: Type, state key and content of an event.
Draft = tuple[str, str | None, Mapping[str, Any]]

_STYLES = {"m.text": Style.TEXT, "m.emote": Style.EMOTE, "m.notice": Style.NOTICE}
#: Fields without which a message is its body alone.
_RICH = frozenset({"m.relates_to", "format", "m.mentions"})
_MEMBERSHIPS = {m.value: m for m in Membership}
_REDACTION = "m.room.redaction"
_NAMING = (Edit, Reaction, Retraction, PollVote, PollEnd)
_MAX_NAME, _MAX_REASON = 255, 1024


def truncated_text(text: str | None, limit: int = 65_536) -> str:
    """A text within ``limit`` bytes, empty where there is none."""
    return truncate_utf8(text, limit) if text is not None else ""


def names_events(content: Content) -> bool:
    """True if a content names other events, by their ids on Matrix."""
    if type(content) is Message:
        return bool(content.reply_to or content.thread)
    return isinstance(content, _NAMING)


async def content_from_pdu(pdu: Pdu, ids: NativeIds, redacts: str = "") -> Content:
    """Converts a PDU into the core's content. ``redacts`` is the event that a redaction names by the rules of
    the room's version.
    """
    if pdu.type == _REDACTION and pdu.state_key is None:
        return Retraction(target=redacts, reason=truncated_text(reason_of(pdu.content), _MAX_REASON))
    return await content_from_event((pdu.type, pdu.state_key, pdu.content), ids)


async def content_from_event(draft: Draft, ids: NativeIds) -> Content:
    """Converts an event, given as type, state key and content, into the core's content."""
    type_, state_key, content = draft
    if state_key is not None:
        return await _state_content(type_, state_key, content, ids)
    if type_ == "m.room.message":
        if (plain := _plain_message(content)) is not None:
            return plain
        if "m.relates_to" in content:
            return await _related_message(content, ids)
        return await _message(content, ids)
    if type_ == "m.room.encrypted":
        return Encrypted()
    return await _timeline_content(type_, content, ids)


def plain_message(pdu: Pdu) -> Message | None:
    """A message that is its body alone, as most are; None for every other PDU."""
    if pdu.type != "m.room.message" or pdu.state_key is not None:
        return None
    return _plain_message(pdu.content)


def _plain_message(content: Mapping[str, Any]) -> Message | None:
    if not _RICH.isdisjoint(content):
        return None
    style = _STYLES.get(string_field(content, "msgtype") or "")
    if style is None:
        return None
    return Message(text=truncated_text(string_field(content, "body")), style=style)


async def _timeline_content(type_: str, content: Mapping[str, Any], ids: NativeIds) -> Content:
    if type_ == "m.sticker":
        about = said.relation(content)
        return replace(_file_message(content, ids), reply_to=about.reply_to, thread=_thread(about))
    if type_ == _REDACTION:
        target = string_field(content, "redacts") or ""
        return Retraction(target=target, reason=truncated_text(reason_of(content), _MAX_REASON))
    about = said.relation(content)
    if type_ == "m.reaction" and about.kind == said.ANNOTATION:
        if about.key and len(about.key.encode(errors="replace")) <= said.MAX_KEY:
            return Reaction(target=about.target, key=about.key)
    elif type_ in said.POLL_STARTS:
        return said.poll_start(content) or Custom(type=type_)
    elif type_ in said.POLL_VOTES and about.kind == said.REFERENCE:
        return PollVote(target=about.target, answers=said.poll_selections(content))
    elif type_ in said.POLL_ENDS and about.kind == said.REFERENCE:
        return PollEnd(target=about.target, text=said.poll_end_text(content))
    elif said.starts_call(type_, content):
        return Call(text="with video" if said.is_video_call(content) else "")
    return Custom(type=type_)


async def _state_content(type_: str, state_key: str, content: Mapping[str, Any], ids: NativeIds) -> Content:
    if type_ == MEMBER:
        becomes = _MEMBERSHIPS.get(membership_of(content) or "")
        if becomes is None:
            return Custom(type=type_)
        return Member(
            user=await ids.home_of(state_key),
            membership=becomes,
            name=truncated_text(display_name(content), _MAX_NAME) or None,
            reason=truncated_text(reason_of(content), _MAX_REASON),
            avatar=ids.file_of(avatar_url(content)),
        )
    if said.starts_call(type_, content):
        return Call()
    return _room_content(type_, content, ids) if not state_key else Custom(type=type_)


def _room_content(type_: str, content: Mapping[str, Any], ids: NativeIds) -> Content:
    match type_:
        case "m.room.name":
            return Name(text=truncated_text(room_name(content), _MAX_NAME))
        case "m.room.topic":
            return Topic(text=truncated_text(room_topic(content)))
        case "m.room.avatar":
            return Avatar(source=ids.file_of(room_avatar(content)))
        case "m.room.join_rules":
            return JoinRule(rule=shared_join_rule(content))
        case "m.room.history_visibility":
            return HistoryVisibility(visibility=history_visibility(content))
        case "m.room.tombstone":
            text = truncated_text(string_field(content, "body"), _MAX_REASON)
            return Upgrade(successor=ids.room_of(replacement_room(content)), text=text)
        case _:
            return Custom(type=type_)


async def _related_message(content: Mapping[str, Any], ids: NativeIds) -> Content:
    about = said.relation(content)
    if about.kind == said.REPLACE:
        new = said.new_content(content)
        if new is None:
            return await _message(content, ids)
        edited = await _message(new, ids)
        # A place cannot be edited: an edit that would make one is words.
        message = edited if isinstance(edited, Message) else Message(text=edited.text)
        return Edit(target=about.target, message=message)
    answer = await _message(content, ids, is_reply=bool(about.reply_to))
    if not isinstance(answer, Message):
        return answer
    return replace(answer, reply_to=about.reply_to, thread=_thread(about))


def _thread(about: said.Relation) -> str:
    return about.target if about.kind == said.THREAD else ""


async def _message(
    content: Mapping[str, Any], ids: NativeIds, *, is_reply: bool = False
) -> Message | Location:
    msgtype = string_field(content, "msgtype") or ""
    style = _STYLES.get(msgtype)
    if style is None:
        if msgtype in said.FILES:
            file = _file_message(content, ids)
            if not said.has_caption(content):
                return file
            words = await _words(content, ids, Style.TEXT, is_reply=is_reply)
            return replace(words, attachments=file.attachments)
        if msgtype == "m.location" and (uri := said.geo_uri(content)):
            return Location(text=truncated_text(string_field(content, "body"), 4096), uri=uri)
        style = Style.TEXT
    return await _words(content, ids, style, is_reply=is_reply)


def _file_message(content: Mapping[str, Any], ids: NativeIds) -> Message:
    file = said.attachment(content, ids.network)
    source, thumbnail = ids.original_of(file.source), ids.original_of(file.thumbnail)
    return Message(text="", attachments=(replace(file, source=source, thumbnail=thumbnail),))


async def _words(content: Mapping[str, Any], ids: NativeIds, style: Style, *, is_reply: bool) -> Message:
    body = truncated_text(string_field(content, "body"))
    if is_reply:
        body = said.without_reply_fallback(body)
    formatted = await _formatted(content, ids, is_reply=is_reply) if "format" in content else None
    mentioned = said.mentioned_users(content) if "m.mentions" in content else ()
    if not mentioned:
        if formatted is None:
            return Message(text=body, style=style)
        return Message(text=formatted.text, style=style, spans=formatted.spans)
    mentions = tuple([await ids.home_of(user) for user in mentioned])
    if formatted is None:
        return Message(text=body, style=style, mentions=mentions)
    return Message(text=formatted.text, style=style, spans=formatted.spans, mentions=mentions)


async def _formatted(content: Mapping[str, Any], ids: NativeIds, *, is_reply: bool) -> Formatted | None:
    """The text and the spans of a message's HTML; None where it has none, or holds no text."""
    if string_field(content, "format") != "org.matrix.custom.html":
        return None
    html = string_field(content, "formatted_body") or ""
    if not is_reply and "<mx-reply" in html.lower():
        return None  # it quotes an event that it does not name, and the HTML alone leaves the quote out
    formatted = parse_html(html)
    if formatted is None or not formatted.text:
        return None
    mentioned = dict.fromkeys(span.value for span in formatted.spans if span.kind is SpanKind.MENTION)
    users = {user_id: await ids.home_of(user_id) for user_id in islice(mentioned, said.MAX_MENTIONS)}
    spans = tuple(
        replace(span, value="", user=users[span.value]) if span.kind is SpanKind.MENTION else span
        for span in formatted.spans
        if span.kind is not SpanKind.MENTION or span.value in users
    )
    return replace(formatted, spans=spans)
