"""Events and their parts as bytes for the log, and back. The inverse of each other for every content."""

from __future__ import annotations

from typing import Any

import orjson

from hansa.model.content import (
    Content,
    Custom,
    Encrypted,
    Kind,
    Member,
    Membership,
    Message,
    Name,
    Style,
    Topic,
)
from hansa.model.errors import LocalProtocolError
from hansa.model.events import Event, Placement
from hansa.model.ref import NativeId
from hansa.model.spans import Span, SpanKind


def content_to_json(content: Content) -> dict[str, Any]:
    """A content as a JSON object with its kind under ``kind``."""
    match content:
        case Message(text=text, style=style, spans=spans):
            message: dict[str, Any] = {"kind": "message", "text": text, "style": style.value}
            return message | {"spans": [_span_to_json(span) for span in spans]} if spans else message
        case Member():
            return {
                "kind": "member",
                "user": [content.user.network, content.user.id],
                "membership": content.membership.value,
                "name": content.name,
                "reason": content.reason,
            }
        case Name(text=text) | Topic(text=text):
            return {"kind": content.kind.value, "text": text}
        case Encrypted():
            return {"kind": "encrypted"}
        case Custom(type=type_, text=text):
            return {"kind": "custom", "type": type_, "text": text}


def content_from_json(data: dict[str, Any]) -> Content:
    """The inverse of ``content_to_json``; a kind of a newer Hansa raises LocalProtocolError."""
    match data["kind"]:
        case Kind.MESSAGE:
            spans = tuple(_span_from_json(span) for span in data.get("spans", ()) if span[2] in _KINDS)
            return Message(text=data["text"], style=Style(data["style"]), spans=spans)
        case Kind.MEMBER:
            return Member(
                user=NativeId(*data["user"]),
                membership=Membership(data["membership"]),
                name=data["name"],
                reason=data["reason"],
            )
        case Kind.NAME:
            return Name(text=data["text"])
        case Kind.TOPIC:
            return Topic(text=data["text"])
        case Kind.ENCRYPTED:
            return Encrypted()
        case Kind.CUSTOM:
            return Custom(type=data["type"], text=data["text"])
        case other:
            raise LocalProtocolError(f"the log holds a content of unknown kind {other!r}")


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
    return orjson.dumps(
        {
            "id": event.id,
            "origin": [event.origin.network, event.origin.id],
            "sender": [event.sender.network, event.sender.id],
            "content": content_to_json(event.content),
            "ts": event.ts,
            "received": event.received,
            "placement": event.placement.value,
            "withheld_from": event.withheld_from,
            **({"generation": event.generation} if event.generation else {}),
        }
    )


def event_from_bytes(room: str, seq: int, body: bytes) -> Event:
    """The inverse of ``event_to_bytes``; room and seq are the row's key."""
    data = orjson.loads(body)
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
    )
