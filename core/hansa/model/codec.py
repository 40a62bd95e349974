"""Events and their parts as bytes for the log, and back. The inverse of each other for every content.

A content of a kind that this version does not know is read as ``Custom`` with the fallback that stands beside
its fields, so that a log can be read by an older version.
"""

from __future__ import annotations

from base64 import b85decode, b85encode
from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import Enum
from types import MappingProxyType
from typing import Any

import orjson

from hansa.model.content import (
    Attachment,
    Avatar,
    Call,
    Content,
    Custom,
    Edit,
    Encrypted,
    HistoryVisibility,
    JoinRule,
    Kind,
    Location,
    Member,
    Membership,
    Message,
    Name,
    PollAnswer,
    PollEnd,
    PollStart,
    PollVote,
    Reaction,
    Report,
    Retraction,
    Standing,
    Style,
    Topic,
    Upgrade,
)
from hansa.model.events import Event, Placement
from hansa.model.fallback_text import fallback_text
from hansa.model.ref import NativeId
from hansa.model.role import Role
from hansa.model.spans import Span, SpanKind


def content_to_json(content: Content) -> dict[str, Any]:
    """A content as a JSON object with its kind under ``kind``."""
    match content:
        case Message():
            return _message_to_json(content)
        case Member():
            member = {
                "kind": "member",
                "user": [content.user.network, content.user.id],
                "membership": content.membership.value,
                "name": content.name,
                "reason": content.reason,
            }
            return member | _given(content, ("avatar", "former_membership", "former_name"))
        case Name(text=text) | Topic(text=text):
            return {"kind": content.kind.value, "text": text}
        case Encrypted():
            return {"kind": "encrypted"}
        case Custom(type=type_, text=text):
            return {"kind": "custom", "type": type_, "text": text}
        case _:
            data = {"kind": content.kind.value, "fallback": fallback_text(content)}
            return data | {one.name: _to_json(getattr(content, one.name)) for one in fields(content)}


def content_from_json(data: dict[str, Any]) -> Content:
    """The inverse of ``content_to_json``."""
    read = _READERS.get(data["kind"])
    if read is None:
        return Custom(type=str(data["kind"]), text=str(data.get("fallback", data.get("text", ""))))
    return read(data)


def _message_to_json(message: Message) -> dict[str, Any]:
    data: dict[str, Any] = {"kind": "message", "text": message.text, "style": message.style.value}
    if message.spans:
        data["spans"] = [_span_to_json(span) for span in message.spans]
    if message.attachments:
        data["attachments"] = [{"name": one.name} | _given(one, _FILE_FIELDS) for one in message.attachments]
    if message.mentions or message.reply_to or message.thread or message.language:
        data |= _given(message, ("language", "mentions", "reply_to", "thread"))
    return data


def _to_json(value: Any) -> Any:
    match value:
        case NativeId():
            return [value.network, value.id]
        case Message():
            return _message_to_json(value)
        case Enum():
            return value.value
        case tuple():
            return [_to_json(one) for one in value]
        case PollAnswer():
            return [value.id, value.text]
        case _:
            return value


def _given(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields that say something."""
    return {name: _to_json(said) for name in names if (said := getattr(value, name))}


_FILE_FIELDS = tuple(one.name for one in fields(Attachment))


def _native(value: Any) -> NativeId | None:
    return NativeId(*value) if value is not None else None


def _attachment(data: dict[str, Any]) -> Attachment:
    known = {name: value for name, value in data.items() if name in _FILE_FIELDS}
    for name in ("source", "thumbnail"):
        if name in known:
            known[name] = _native(known[name])
    return Attachment(**known)


def _message(data: dict[str, Any]) -> Message:
    if len(data) == 3:  # as nearly all are
        return Message(text=data["text"], style=Style(data["style"]))
    return Message(
        text=data["text"],
        style=Style(data["style"]),
        spans=tuple(_span_from_json(span) for span in data.get("spans", ()) if span[2] in _KINDS),
        language=data.get("language", ""),
        mentions=tuple(NativeId(*user) for user in data.get("mentions", ())),
        reply_to=data.get("reply_to", ""),
        thread=data.get("thread", ""),
        attachments=tuple(_attachment(one) for one in data.get("attachments", ())),
    )


def _member(data: dict[str, Any]) -> Member:
    former = data.get("former_membership")
    return Member(
        user=NativeId(*data["user"]),
        membership=Membership(data["membership"]),
        name=data["name"],
        reason=data["reason"],
        avatar=_native(data.get("avatar")),
        former_membership=Membership(former) if former else None,
        former_name=data.get("former_name"),
    )


def _retraction(data: dict[str, Any]) -> Retraction:
    of = Kind(data["of"]) if data["of"] in set(Kind) else Kind.CUSTOM
    return Retraction(target=data["target"], reason=data["reason"], of=of, of_target=data["of_target"])


def _poll(data: dict[str, Any]) -> PollStart:
    return PollStart(
        question=data["question"],
        answers=tuple(PollAnswer(id=id_, text=text) for id_, text in data["answers"]),
        max_selections=data["max_selections"],
        disclosed=data["disclosed"],
    )


_READERS: Mapping[str, Callable[[dict[str, Any]], Content]] = MappingProxyType(
    {
        "message": _message,
        "edit": lambda data: Edit(target=data["target"], message=_message(data["message"])),
        "reaction": lambda data: Reaction(target=data["target"], key=data["key"]),
        "retraction": _retraction,
        "member": _member,
        "standing": lambda data: Standing(
            user=NativeId(*data["user"]), role=Role(data["role"]), voice=data["voice"]
        ),
        "name": lambda data: Name(text=data["text"]),
        "topic": lambda data: Topic(text=data["text"]),
        "avatar": lambda data: Avatar(source=_native(data["source"])),
        "join-rule": lambda data: JoinRule(rule=data["rule"]),
        "history-visibility": lambda data: HistoryVisibility(visibility=data["visibility"]),
        "upgrade": lambda data: Upgrade(successor=_native(data["successor"]), text=data["text"]),
        "report": lambda data: Report(target=data["target"], reason=data["reason"]),
        "location": lambda data: Location(text=data["text"], uri=data["uri"]),
        "poll-start": _poll,
        "poll-vote": lambda data: PollVote(target=data["target"], answers=tuple(data["answers"])),
        "poll-end": lambda data: PollEnd(target=data["target"], text=data["text"]),
        "call": lambda data: Call(text=data["text"]),
        "encrypted": lambda _: Encrypted(),
        "custom": lambda data: Custom(type=data["type"], text=data["text"]),
    }
)

#: A kind of a newer Hansa is text without formatting.
_KINDS = frozenset(SpanKind)


def _span_to_json(span: Span) -> list[Any]:
    parts: list[Any] = [span.start, span.end, span.kind.value, span.value]
    return parts if span.user is None else [*parts, span.user.network, span.user.id]


def _span_from_json(parts: list[Any]) -> Span:
    start, end, kind, value, *user = parts
    return Span(
        start=start, end=end, kind=SpanKind(kind), value=value, user=NativeId(*user) if user else None
    )


def event_to_bytes(event: Event) -> bytes:
    """One event as its log row's body."""
    data = {
        "id": event.id,
        "origin": [event.origin.network, event.origin.id],
        "sender": [event.sender.network, event.sender.id],
        "content": content_to_json(event.content),
        "ts": event.ts,
        "received": event.received,
        "placement": event.placement.value,
        "withheld_from": event.withheld_from,
    }
    if event.generation:
        data["generation"] = event.generation
    if event.payload:
        data["payload"] = b85encode(event.payload).decode()
    return orjson.dumps(data)


def event_from_bytes(room: str, seq: int, body: bytes) -> Event:
    """The inverse of ``event_to_bytes``; room and seq are the row's key."""
    data = orjson.loads(body)
    payload = data.get("payload")
    return Event(
        id=data["id"],
        room=room,
        seq=seq,
        origin=NativeId(*data["origin"]),
        sender=NativeId(*data["sender"]),
        content=content_from_json(data["content"]),
        ts=data["ts"],
        received=data["received"],
        placement=Placement(data["placement"]),
        withheld_from=tuple((link, decision) for link, decision in data["withheld_from"]),
        generation=data.get("generation", 0),
        payload=b85decode(payload) if payload else b"",
    )
