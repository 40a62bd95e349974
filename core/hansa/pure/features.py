"""What a network can show, and how content it cannot show is made readable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import MappingProxyType

from hansa.pure.content import Content, Custom, Encrypted, Kind, Message, Style


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


#: What a network without ``features`` is taken to carry: text.
PLAIN = Features(levels=MappingProxyType({Kind.MESSAGE: Level.FULL, Kind.ENCRYPTED: Level.FALLBACK}))


def cut(text: str, limit: int) -> str:
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
            return replace(content, text=cut(content.text, features.max_text))
        return content
    if level is not Level.FALLBACK:
        return None
    match content:
        case Encrypted():
            text = "[encrypted message, not readable here]"
        case Custom(text=text) if text:
            pass
        case Message(text=text):
            pass
        case _:
            return None
    return Message(text=cut(text, features.max_text), style=Style.NOTICE)
