"""From the core's content to events of Matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import orjson
from hansa import (
    Attachment,
    Avatar,
    Call,
    Content,
    Edit,
    Formatted,
    Location,
    Member,
    Membership,
    Message,
    Name,
    NativeId,
    PollEnd,
    PollStart,
    PollVote,
    Reaction,
    Retraction,
    Span,
    SpanKind,
    Style,
    Topic,
    fallback_text,
    truncate_utf8,
)

from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.proto.html import render_html
from hansa_matrix.proto.message_content import ANNOTATION, MAX_MENTIONS, REFERENCE, REPLACE, THREAD

#: Type, state key and content of a local event.
EventDraft = tuple[str, str | None, dict[str, Any]]

_MSGTYPES = {Style.TEXT: "m.text", Style.EMOTE: "m.emote", Style.NOTICE: "m.notice"}
_FILE_TYPES = {"image": "m.image", "video": "m.video", "audio": "m.audio"}
_NAME = 255
#: Bytes of a text and its HTML together, as JSON: a PDU has 65,536 for all.
_MAX_FORMATTED = 56_000
#: Bytes of a message that an edit repeats for clients that know no edits.
_MAX_REPEATED = 20_000
_POLL = "org.matrix.msc3381.poll"
_TEXT = "org.matrix.msc1767.text"


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixNames:
    """The names on Matrix of what a content is about. ``events`` are the ids of events by those of the core,
    ``users`` the user ids of people, ``files`` the ``mxc:`` URIs of files. ``answered`` is the sender of the
    event that a message replies to, empty if that is a ghost.
    """

    events: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[NativeId, str] = field(default_factory=dict)
    files: Mapping[NativeId | None, str] = field(default_factory=dict)
    answered: str = ""


def event_from_content(content: Content, names: MatrixNames) -> EventDraft | None:
    """An event of a person of another network; None for what such a person cannot do in a Matrix room. The
    target of the content has a name.
    """
    match content:
        case Message():
            return "m.room.message", None, _related_message(content, names)
        case Edit():
            return "m.room.message", None, _edit(content, names)
        case Reaction(target=target, key=key):
            return "m.reaction", None, _relates(ANNOTATION, names.events[target], key=key)
        case Retraction(target=target, reason=reason):
            redaction = {"redacts": names.events[target]}
            return "m.room.redaction", None, redaction | ({"reason": reason} if reason else {})
        case Member():
            return MEMBER, names.users[content.user], _member(content, names)
        case Name(text=text):
            return "m.room.name", "", {"name": truncate_utf8(text, _NAME)}
        case Topic(text=text):
            return "m.room.topic", "", {"topic": text}
        case Avatar(source=None):
            return "m.room.avatar", "", {}
        case Avatar(source=source) if source in names.files:
            return "m.room.avatar", "", {"url": names.files[source]}
        case Location(text=text, uri=uri):
            place = {"msgtype": "m.location", "body": text or uri, "geo_uri": uri}
            return "m.room.message", None, place
        case PollStart():
            return f"{_POLL}.start", None, _poll(content)
        case PollVote(target=target, answers=answers):
            vote = {f"{_POLL}.response": {"answers": list(answers)}}
            return f"{_POLL}.response", None, _relates(REFERENCE, names.events[target]) | vote
        case PollEnd(target=target, text=text):
            end = {f"{_POLL}.end": {}, _TEXT: text or "the poll is over"}
            return f"{_POLL}.end", None, _relates(REFERENCE, names.events[target]) | end
        case Call():
            return "m.room.message", None, {"msgtype": "m.notice", "body": fallback_text(content)}
        case _:
            return None


def _relates(kind: str, event: str, **more: Any) -> dict[str, Any]:
    return {"m.relates_to": {"rel_type": kind, "event_id": event, **more}}


def _related_message(message: Message, names: MatrixNames) -> dict[str, Any]:
    made = _message(message, names)
    reply_to, thread = names.events.get(message.reply_to), names.events.get(message.thread)
    if thread:
        answer = {"m.in_reply_to": {"event_id": reply_to or thread}, "is_falling_back": not reply_to}
        made |= _relates(THREAD, thread, **answer)
    elif reply_to:
        made["m.relates_to"] = {"m.in_reply_to": {"event_id": reply_to}}
    return made


def _edit(edit: Edit, names: MatrixNames) -> dict[str, Any]:
    new = _message(edit.message, names)
    size = len(orjson.dumps(new))
    shown = {key: value for key, value in new.items() if size <= _MAX_REPEATED or key == "msgtype"}
    shown["body"] = f"* {truncate_utf8(new['body'], _MAX_REPEATED // 8 if size > _MAX_REPEATED else size)}"
    if "formatted_body" in shown:
        shown["formatted_body"] = f"* {new['formatted_body']}"
    return {**shown, "m.new_content": new, **_relates(REPLACE, names.events[edit.target])}


def _message(message: Message, names: MatrixNames) -> dict[str, Any]:
    file = next((one for one in message.attachments if one.source in names.files), None)
    rest = tuple(one for one in message.attachments if one is not file)
    if rest:  # an event of Matrix has one file: of the others it says the names
        told = fallback_text(Message(text="", attachments=rest))
        message = replace(message, text="\n".join(filter(None, [message.text, told])))
    made: dict[str, Any] = {"msgtype": _MSGTYPES[message.style], "body": message.text}
    if message.spans:
        spans = tuple(_with_link(span, names) for span in message.spans)
        html = render_html(Formatted(text=message.text, spans=spans))
        if len(orjson.dumps([message.text, html])) <= _MAX_FORMATTED:
            made |= {"format": "org.matrix.custom.html", "formatted_body": html}
    if file is not None:
        made = _file(file, names, made if message.text else {})
    if message.mentions or names.answered:
        users = (names.users[one] for one in message.mentions[:MAX_MENTIONS] if one in names.users)
        named = [*users, names.answered] if names.answered else [*users]
        made["m.mentions"] = {"user_ids": list(dict.fromkeys(named))}
    return made


def _with_link(span: Span, names: MatrixNames) -> Span:
    """A mention as clients of Matrix mark it."""
    if span.kind is not SpanKind.MENTION or span.user is None or span.user not in names.users:
        return span
    uri = f"https://matrix.to/#/{quote(names.users[span.user], safe='@:')}"
    return replace(span, kind=SpanKind.LINK, value=uri, user=None)


def _file(file: Attachment, names: MatrixNames, caption: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a message with a file; ``caption`` has the words that belong to it, if there are any."""
    assert file.source is not None
    info: dict[str, Any] = {"mimetype": file.media_type}
    given = {"size": file.size, "w": file.width, "h": file.height, "duration": file.duration}
    info |= {name: value for name, value in given.items() if value}
    if file.thumbnail in names.files:
        info["thumbnail_url"] = names.files[file.thumbnail]
    made: dict[str, Any] = {
        "body": file.name,
        **caption,
        "msgtype": _FILE_TYPES.get(file.media_type.partition("/")[0], "m.file"),
        "url": names.files[file.source],
        "filename": file.name,
        "info": info,
    }
    if file.voice and made["msgtype"] == "m.audio":
        made["org.matrix.msc3245.voice"] = {}
    return made


def _member(member: Member, names: MatrixNames) -> dict[str, Any]:
    made: dict[str, Any] = {"membership": member.membership.value}
    if member.membership in {Membership.JOIN, Membership.INVITE}:
        if member.name:
            made["displayname"] = truncate_utf8(member.name, _NAME)
        if member.avatar in names.files:
            made["avatar_url"] = names.files[member.avatar]
    if member.reason:
        made["reason"] = member.reason
    return made


def _poll(poll: PollStart) -> dict[str, Any]:
    start = {
        "question": {_TEXT: poll.question},
        "kind": f"{_POLL}.{'disclosed' if poll.disclosed else 'undisclosed'}",
        "max_selections": poll.max_selections,
        "answers": [{"id": one.id, _TEXT: one.text} for one in poll.answers],
    }
    return {f"{_POLL}.start": start, _TEXT: fallback_text(poll)}
