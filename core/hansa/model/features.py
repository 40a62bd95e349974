"""The content that a network can show, and the readable form of content that it cannot show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import MappingProxyType

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
from hansa.model.spans import Formatted, arrange_spans, plain_text


class Level(IntEnum):
    """How well a network carries a kind."""

    #: The sender is told that it cannot cross.
    REJECTED = 0
    #: Nobody is told; counted.
    DROPPED = 1
    #: Carried as a readable message.
    FALLBACK = 2
    #: Carried with losses.
    PARTIAL = 3
    FULL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Per kind a level; a kind not named is DROPPED. ``max_text`` bounds a message in UTF-8 bytes. Without
    ``formatting`` a message comes without spans, and its text marks quotes and says where links lead.
    """

    levels: Mapping[Kind, Level] = field(default_factory=lambda: MappingProxyType({}))
    max_text: int = 32_768
    formatting: bool = False

    def level(self, kind: Kind) -> Level:
        """The level of one kind."""
        return self.levels.get(kind, Level.DROPPED)


#: The features of a network without ``features``: text.
PLAIN = Features(levels=MappingProxyType({Kind.MESSAGE: Level.FULL, Kind.ENCRYPTED: Level.FALLBACK}))


def truncate_utf8(text: str, limit: int) -> str:
    """``text`` within ``limit`` UTF-8 bytes, marked where it was cut."""
    raw = text.encode()
    if len(raw) <= limit:
        return text
    return raw[: max(0, limit - 3)].decode(errors="ignore") + "…"


def degrade(content: Content, features: Features) -> Content | None:
    """``content`` as the network can carry it; None where it is dropped or rejected."""
    level = features.level(content.kind)
    if level >= Level.PARTIAL:
        if isinstance(content, Message):
            return _fit_message(content, features)
        return content
    if level is not Level.FALLBACK:
        return None
    text = _fallback_text(content)
    return Message(text=truncate_utf8(text, features.max_text), style=Style.NOTICE) if text else None


def _fit_message(message: Message, features: Features) -> Message:
    if not message.spans:
        return replace(message, text=truncate_utf8(message.text, features.max_text))
    formatted = Formatted(text=message.text, spans=message.spans)
    if not features.formatting:
        return replace(message, text=truncate_utf8(plain_text(formatted), features.max_text), spans=())
    if len(message.text.encode()) <= features.max_text:
        return message
    short = arrange_spans(truncate_utf8(message.text, features.max_text), message.spans)
    return replace(message, text=short.text, spans=short.spans)


#: The phrase for a change of membership, after the person's name.
_BECAME = {
    Membership.JOIN: "is here",
    Membership.LEAVE: "is gone",
    Membership.INVITE: "is invited",
    Membership.KNOCK: "asks to be let in",
    Membership.BAN: "is banned",
}


def _fallback_text(content: Content) -> str:
    """``content`` in words; empty where there are none."""
    match content:
        case Message(text=text, spans=spans):
            return plain_text(Formatted(text=text, spans=spans))
        case Custom():
            return content.text
        case Encrypted():
            return "[encrypted message, not readable here]"
        case Name():
            return f"[the room is called: {content.text}]" if content.text else "[the room has no name]"
        case Topic():
            return f"[the topic is: {content.text}]" if content.text else "[the room has no topic]"
        case Member():
            why = f": {content.reason}" if content.reason else ""
            return f"[{content.name or content.user.id} {_BECAME[content.membership]}{why}]"
