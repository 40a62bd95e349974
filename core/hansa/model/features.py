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
    """Per kind a level; a kind not named is DROPPED. ``max_text`` bounds a message in UTF-8 bytes."""

    levels: Mapping[Kind, Level] = field(default_factory=lambda: MappingProxyType({}))
    max_text: int = 32_768

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
            return replace(content, text=truncate_utf8(content.text, features.max_text))
        return content
    if level is not Level.FALLBACK:
        return None
    text = _fallback_text(content)
    return Message(text=truncate_utf8(text, features.max_text), style=Style.NOTICE) if text else None


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
        case Message() | Custom():
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
