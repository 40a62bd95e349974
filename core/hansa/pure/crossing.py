"""Everything that can cross our border, one frozen value each: what a policy judges.

A new place where something crosses is a new member of the union here, never a new hook. Each class names
the actions it can do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hansa.pure.content import Content
from hansa.pure.model import Link, NativeFacts, Ref
from hansa.pure.verdict import Action
from hansa.pure.view import RoomView

_GATE = frozenset({Action.ALLOW, Action.DENY})
_IN = frozenset({Action.ALLOW, Action.WITHHOLD, Action.DENY})
_IN_HISTORY = frozenset({Action.ALLOW, Action.WITHHOLD})


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConnect:
    """A server talks to us, or we are about to talk to it. ``server`` is its name on ``network``."""

    network: str
    server: str
    outbound: bool = False
    possible: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class EventIn:
    """An event enters the core over ``link``. WITHHOLD: accepted by its network, not shown or relayed.

    ``immutable`` is set where the event stands already in its network's history (an arrived PDU), so that
    a denial can only withhold it.
    """

    link: Link
    sender: Ref
    content: Content
    view: RoomView
    facts: NativeFacts = field(default_factory=NativeFacts)
    immutable: bool = False

    @property
    def possible(self) -> frozenset[Action]:
        """What can be done with it."""
        return _IN_HISTORY if self.immutable else _IN


@dataclass(frozen=True, slots=True, kw_only=True)
class EventOut:
    """An event is about to leave the core over ``link``. On the authority's link it decides whether the
    event happens at all; on any other link it decides that link alone.
    """

    link: Link
    sender: Ref
    content: Content
    view: RoomView
    facts: NativeFacts = field(default_factory=NativeFacts)
    possible: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A person enters a room. ``outbound``: ours into a room elsewhere; else a remote person into ours.

    ``servers`` are the servers known to be in the room, as far as known at the time of asking.
    """

    network: str
    room: str
    user: Ref
    user_server: str
    outbound: bool
    servers: frozenset[str] = field(default_factory=frozenset)
    possible: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """A person is asked into a room: ``sender`` (at ``sender_server``) asks ``user``."""

    network: str
    room: str
    sender: Ref
    sender_server: str
    user: Ref
    outbound: bool
    servers: frozenset[str] = field(default_factory=frozenset)
    possible: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalIn:
    """Somebody types or has read, in the room of ``link``. ``kind`` is ``typing`` or ``receipt``."""

    link: Link
    sender: Ref
    sender_server: str
    kind: str
    view: RoomView
    possible: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalOut:
    """That is about to be told to the people of ``link``."""

    link: Link
    sender: Ref
    kind: str
    view: RoomView
    possible: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaTransfer:
    """A file is about to be fetched from another server, or (``outbound``) given to one. ``media`` is its id
    on ``network``, ``server`` the other one. ``size`` in bytes is 0 and ``type`` empty while not known.
    """

    network: str
    server: str
    media: str
    outbound: bool
    type: str = ""
    size: int = 0
    possible: ClassVar[frozenset[Action]] = _GATE


Crossing = PeerConnect | EventIn | EventOut | Join | Invite | SignalIn | SignalOut | MediaTransfer
