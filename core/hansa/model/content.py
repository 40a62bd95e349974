"""The content of an event: a small closed set of frozen kinds, not the JSON of a protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from hansa.model.fast_dataclass import quick
from hansa.model.role import Role

if TYPE_CHECKING:
    from hansa.model.ref import NativeId
    from hansa.model.spans import Span


class Kind(StrEnum):
    """The kinds of content; a network's features are declared per kind."""

    MESSAGE = "message"
    EDIT = "edit"
    REACTION = "reaction"
    RETRACTION = "retraction"
    MEMBER = "member"
    STANDING = "standing"
    NAME = "name"
    TOPIC = "topic"
    AVATAR = "avatar"
    JOIN_RULE = "join-rule"
    HISTORY_VISIBILITY = "history-visibility"
    UPGRADE = "upgrade"
    REPORT = "report"
    LOCATION = "location"
    POLL_START = "poll-start"
    POLL_VOTE = "poll-vote"
    POLL_END = "poll-end"
    CALL = "call"
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
class Attachment:
    """A file of a message. ``source`` names its bytes: a file that a network keeps, or one of the core's
    media service (network ``media``). It is None where they cannot be had.

    ``size`` is in bytes, ``width`` and ``height`` in pixels, ``duration`` in ms, and each is 0 where it is
    not known. ``sha256`` is in hex. ``thumbnail`` names a smaller picture. ``voice`` marks a voice message.
    """

    name: str
    media_type: str = "application/octet-stream"
    size: int = 0
    width: int = 0
    height: int = 0
    duration: int = 0
    source: NativeId | None = None
    sha256: str = ""
    thumbnail: NativeId | None = None
    voice: bool = False


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A person's words. ``text`` is whole and readable alone; ``spans`` format it, in the order of
    ``arrange_spans``. An emote's text does not repeat the person's name.

    ``language`` is a tag of BCP 47. ``mentions`` are those who are to be told. ``reply_to`` is the event that
    it answers and ``thread`` the first event of its thread, both ids of the core. The text of a message with
    ``attachments`` is their caption.
    """

    text: str
    style: Style = Style.TEXT
    spans: tuple[Span, ...] = ()
    language: str = ""
    mentions: tuple[NativeId, ...] = ()
    reply_to: str = ""
    thread: str = ""
    attachments: tuple[Attachment, ...] = ()
    kind = Kind.MESSAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A person puts another message in the place of one of their own: ``target`` is its event."""

    target: str
    message: Message
    kind = Kind.EDIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """A person marks an event with a key, an emoji as a rule. A ``Retraction`` of it removes it."""

    target: str
    key: str
    kind = Kind.REACTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraction:
    """The sender retracts an event, their own or as a moderator: what it said leaves the log.

    The core fills ``of``, the kind of the target, and ``of_target``, the event that a retracted
    reaction or edit concerned.
    """

    target: str
    reason: str = ""
    of: Kind = Kind.MESSAGE
    of_target: str = ""
    kind = Kind.RETRACTION


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A change of one person's membership, or of their name or picture while joined.

    ``user`` is the person at home, not a ghost. A leave by another sender is a kick. ``name`` is the display
    name or nick, None if it is not set. The core fills ``former_membership`` and ``former_name``, which
    two values are not compared by.
    """

    user: NativeId
    membership: Membership
    name: str | None = None
    reason: str = ""
    avatar: NativeId | None = None
    former_membership: Membership | None = field(default=None, compare=False)
    former_name: str | None = field(default=None, compare=False)
    kind = Kind.MEMBER


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A person gets another rank in the room. ``voice`` is False where they may not speak."""

    user: NativeId
    role: Role
    voice: bool = True
    kind = Kind.STANDING


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
class Avatar:
    """The room's picture, None to remove it."""

    source: NativeId | None
    kind = Kind.AVATAR


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRule:
    """The rule by which people enter: ``public``, ``invite``, ``knock`` or ``restricted``."""

    rule: str
    kind = Kind.JOIN_RULE


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryVisibility:
    """The rule by which people read the history: ``world_readable``, ``shared``, ``invited``, ``joined``."""

    visibility: str
    kind = Kind.HISTORY_VISIBILITY


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """The room continues in another one, None where that is not known."""

    successor: NativeId | None
    text: str = ""
    kind = Kind.UPGRADE


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A person reports an event to the moderators."""

    target: str
    reason: str = ""
    kind = Kind.REPORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A place: ``uri`` is a geo URI (RFC 5870), ``text`` says it in words."""

    text: str
    uri: str
    kind = Kind.LOCATION


@dataclass(frozen=True, slots=True, kw_only=True)
class PollAnswer:
    """One answer that a poll offers. ``id`` is unique in the poll."""

    id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PollStart:
    """A question with answers. ``disclosed``: the votes are shown before the end."""

    question: str
    answers: tuple[PollAnswer, ...]
    max_selections: int = 1
    disclosed: bool = True
    kind = Kind.POLL_START


@dataclass(frozen=True, slots=True, kw_only=True)
class PollVote:
    """A person's answers, by id, in the poll that ``target`` began. The last vote of a person counts."""

    target: str
    answers: tuple[str, ...]
    kind = Kind.POLL_VOTE


@dataclass(frozen=True, slots=True, kw_only=True)
class PollEnd:
    """The end of the poll that ``target`` began. ``text`` says the result, as its sender counts."""

    target: str
    text: str = ""
    kind = Kind.POLL_END


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A person calls the room. ``text`` says how."""

    text: str = ""
    kind = Kind.CALL


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


#: The content that stands in the log for what was redacted or retracted.
BLANK: Final = Custom(type=REDACTED)

Content = (
    Message
    | Edit
    | Reaction
    | Retraction
    | Member
    | Standing
    | Name
    | Topic
    | Avatar
    | JoinRule
    | HistoryVisibility
    | Upgrade
    | Report
    | Location
    | PollStart
    | PollVote
    | PollEnd
    | Call
    | Encrypted
    | Custom
)

#: Contents without a meaning where their target is not known.
Targeted = Edit | Reaction | Retraction | Report | PollVote | PollEnd


def target_of(content: Content) -> str:
    """The id of the event that a content concerns, for a message that of the one it answers; empty if there
    is none.
    """
    if isinstance(content, Message):
        return content.reply_to
    return content.target if isinstance(content, Targeted) else ""


def attachments_of(content: Content) -> tuple[Attachment, ...]:
    """The files that a content brings."""
    match content:
        case Message():
            return content.attachments
        case Edit():
            return content.message.attachments
        case _:
            return ()
