"""The commands of a hosted MUC to its caller, and the results that the caller reports back.

SPEC: XEP-0045 section 7.2.15 (the history that is asked for).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hansa import Content, Event, Message, NativeId

from hansa_xmpp.proto.convert import StanzaIds, parse_timestamp
from hansa_xmpp.proto.presence_xml import OccupantPresence
from hansa_xmpp.proto.render import OutboundStanza
from hansa_xmpp.proto.stanza import NS_MUC, Stanza
from hansa_xmpp.proto.targeted import Targeted


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRequest:
    """The history a client wants (XEP-0045 section 7.2.15); None where it did not say. ``since`` in ms,
    ``seconds`` before now. ``chars`` counts the characters of the stanzas.
    """

    stanzas: int | None = None
    chars: int | None = None
    seconds: int | None = None
    since: int | None = None


def parse_history_request(stanza: Stanza) -> HistoryRequest:
    """The history that a join asks for."""
    x = stanza.child("x", NS_MUC)
    history = None if x is None else x.find(f"{{{NS_MUC}}}history")
    if history is None:
        return HistoryRequest()
    stanzas, chars, seconds = (_parse_number(history.get(n)) for n in ("maxstanzas", "maxchars", "seconds"))
    since = parse_timestamp(history.get("since", ""))
    return HistoryRequest(stanzas=stanzas, chars=chars, seconds=seconds, since=since)


def _parse_number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None


@dataclass(frozen=True, slots=True)
class SendStanzas:
    """Stanzas to be sent."""

    stanzas: tuple[OutboundStanza, ...]


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """``user`` wants to come in on one more connection, under ``nick``."""

    stanza: Stanza
    user: NativeId
    nick: str
    history: HistoryRequest
    presence: OccupantPresence = OccupantPresence()  # noqa: RUF009  # frozen


@dataclass(frozen=True, slots=True)
class NickChange:
    """``user``, who is here, wants ``nick``."""

    stanza: Stanza
    user: NativeId
    nick: str


@dataclass(frozen=True, slots=True)
class PresenceUpdate:
    """A connection of ``user``, who is here, says another show, status or extension."""

    stanza: Stanza
    user: NativeId
    presence: OccupantPresence


@dataclass(frozen=True, slots=True)
class GroupchatMessage:
    """``user`` wants ``content`` to happen, ``about`` an earlier message. ``content`` is None where that says
    it all. ``answer`` is the content of a reply without the quote of what it answers.
    """

    stanza: Stanza
    user: NativeId
    content: Content | None
    ids: StanzaIds = StanzaIds()  # noqa: RUF009  # frozen
    about: Targeted | None = None
    answer: Message | None = None

    @property
    def names_events(self) -> bool:
        """True if the message is about an earlier one, or says which thread it is in."""
        return self.about is not None or bool(self.stanza.text_of("thread"))


@dataclass(frozen=True, slots=True)
class RoomChanges:
    """``user`` wants ``contents`` to happen, in this order: what one IQ asks for."""

    stanza: Stanza
    user: NativeId
    contents: tuple[Content, ...]


@dataclass(frozen=True, slots=True)
class InviteDecline:
    """``user``, who is not in the room, does not accept their invite."""

    stanza: Stanza
    user: NativeId
    reason: str


@dataclass(frozen=True, slots=True)
class VoiceRequest:
    """``user``, who may not speak, asks the moderators for voice."""

    stanza: Stanza
    user: NativeId


@dataclass(frozen=True, slots=True)
class PrivateMessage:
    """``user`` writes to ``target`` alone; both are occupants."""

    stanza: Stanza
    user: NativeId
    target: NativeId


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """A connection is out. ``last``: it was the person's last one here. ``lost``: it was found dead, and
    nobody left.
    """

    user: NativeId
    full: str
    last: bool
    lost: bool = False


@dataclass(frozen=True, slots=True)
class ChatState:
    """``user`` is in a state of XEP-0085, ``composing`` for example."""

    stanza: Stanza
    user: NativeId
    state: str


@dataclass(frozen=True, slots=True)
class DisplayedMarker:
    """``user`` has read up to the message with the room's ``id``."""

    stanza: Stanza
    user: NativeId
    id: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing is done about a stanza; ``why`` is one of a few words, to be counted."""

    why: str


@dataclass(frozen=True, slots=True)
class NickForced:
    """One of our own network's people has another nick, which they did not ask for."""

    user: NativeId
    nick: str


Command = (
    SendStanzas
    | JoinRequest
    | NickChange
    | PresenceUpdate
    | GroupchatMessage
    | RoomChanges
    | InviteDecline
    | VoiceRequest
    | PrivateMessage
    | ChatState
    | DisplayedMarker
    | SessionClosed
    | NickForced
    | Ignored
)


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """An event of the log, and the message that shows it, without an address and a delay."""

    event: Event
    stanza: OutboundStanza

    @classmethod
    def of(cls, event: Event, stanza: OutboundStanza | None) -> HistoryEntry | None:
        """None where there is nothing to show."""
        return None if stanza is None else cls(event, stanza)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinGrant:
    """The data for a new occupant: the log up to ``upto`` in ``history``, the subject."""

    upto: int
    history: Sequence[HistoryEntry] = ()
    subject: str = ""
