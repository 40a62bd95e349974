"""The content of an event: a small closed set of frozen kinds, not the JSON of a protocol."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hansa.model.ref import NativeId
    from hansa.model.spans import Span


class Kind(StrEnum):
    """The kinds of content; a network's features are declared per kind."""

    MESSAGE = "message"
    MEMBER = "member"
    NAME = "name"
    TOPIC = "topic"
    ENCRYPTED = "encrypted"
    CUSTOM = "custom"


class Style(StrEnum):
    """How a message wants to be read."""

    TEXT = "text"
    EMOTE = "emote"
    NOTICE = "notice"


class Membership(StrEnum):
    """Where a person stands with a room."""

    JOIN = "join"
    LEAVE = "leave"
    INVITE = "invite"
    KNOCK = "knock"
    BAN = "ban"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A person's words. ``text`` is whole and readable alone; ``spans`` format it, in the order of
    ``arrange_spans``. An emote's text does not repeat the person's name.
    """

    text: str
    style: Style = Style.TEXT
    spans: tuple[Span, ...] = ()
    kind = Kind.MESSAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A change of one person's membership, or of their name while joined.

    ``user`` is the person at home, not a ghost. A leave by another sender is a kick. ``name`` is the display
    name or nick, None if it is not set.
    """

    user: NativeId
    membership: Membership
    name: str | None = None
    reason: str = ""
    kind = Kind.MEMBER


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """The room's name; empty to remove it."""

    text: str
    kind = Kind.NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """The room's topic (XMPP: subject); empty to remove it."""

    text: str
    kind = Kind.TOPIC


@dataclass(frozen=True, slots=True, kw_only=True)
class Encrypted:
    """A message only its network's clients can read."""

    kind = Kind.ENCRYPTED


#: The ``type`` of the ``Custom`` content that stands in the log for what was redacted.
REDACTED: Final = "redacted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """Anything else. ``type`` is the native type; ``text`` a readable fallback, empty if there is none."""

    type: str
    text: str = ""
    kind = Kind.CUSTOM


Content = Message | Member | Name | Topic | Encrypted | Custom
