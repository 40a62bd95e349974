"""Everything that can cross the border of this server, one frozen value each: a policy judges them.

A new place where something crosses is a new member of the union here, never a new hook. Each class names the
actions it allows. ``hansa.model.crossing_parts`` returns the people, servers and texts of each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hansa.model.content import Content, Member, Membership
from hansa.model.events import Link, NativeFacts
from hansa.model.ref import NativeId
from hansa.model.verdict import Action
from hansa.model.view import RoomView

_GATE = frozenset({Action.ALLOW, Action.DENY})
_IN = frozenset({Action.ALLOW, Action.WITHHOLD, Action.DENY})
_FREE = frozenset({Action.ALLOW})
_IN_HISTORY = frozenset({Action.ALLOW, Action.WITHHOLD})


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConnect:
    """A server talks to us, or we are about to talk to it. ``server`` is its name on ``network``."""

    network: str
    server: str
    outbound: bool = False
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class EventIn:
    """An event enters the core over ``link``. WITHHOLD: accepted by its network, not shown or relayed.

    ``immutable`` is set where the event stands already in its network's history (an arrived PDU), so that
    a denial can only withhold it.
    """

    link: Link
    sender: NativeId
    content: Content
    view: RoomView
    facts: NativeFacts = field(default_factory=NativeFacts)
    immutable: bool = False

    @property
    def allowed_actions(self) -> frozenset[Action]:
        """The actions that policies may choose."""
        if self.immutable:
            return _IN_HISTORY
        return _FREE if _never_stopped(self.sender, self.content, self.facts) else _IN


@dataclass(frozen=True, slots=True, kw_only=True)
class EventOut:
    """An event is about to leave the core over ``link``. On the authority's link it decides whether the
    event happens at all; on any other link it decides that link alone.
    """

    link: Link
    sender: NativeId
    content: Content
    view: RoomView
    facts: NativeFacts = field(default_factory=NativeFacts)

    @property
    def allowed_actions(self) -> frozenset[Action]:
        """The actions that policies may choose."""
        return _FREE if _never_stopped(self.sender, self.content, self.facts) else _GATE


def _never_stopped(sender: NativeId, content: Content, facts: NativeFacts) -> bool:
    """True if a user leaves or is removed without a text: no policy, not even a failing one, can keep a user
    in a room. With a text it can be denied, and be repeated without one.
    """
    if not isinstance(content, Member) or content.membership not in {Membership.LEAVE, Membership.BAN}:
        return False
    if content.membership is Membership.BAN and content.user == sender:
        return False
    ids = {sender.id, content.user.id, ""}
    return ids.issuperset(facts.texts) and not content.reason and not content.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A person enters a room. ``outbound``: ours into a room elsewhere; else a remote person into ours.

    ``servers`` are the servers known to be in the room, as far as known at the time of asking. ``texts`` are
    the person's name and reason. ``again``: the same join, of which more servers are known now.
    """

    network: str
    room: str
    user: NativeId
    user_server: str
    outbound: bool
    servers: frozenset[str] = field(default_factory=frozenset)
    texts: tuple[str, ...] = ()
    again: bool = False
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """A person asks to be let into a room. ``outbound``: ours, at a room elsewhere; else a remote person, at
    ours. ``servers`` are those known to be in the room; ``texts`` are the person's name and reason.
    """

    network: str
    room: str
    user: NativeId
    user_server: str
    outbound: bool
    servers: frozenset[str] = field(default_factory=frozenset)
    texts: tuple[str, ...] = ()
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """A person is asked into a room: ``sender`` (at ``sender_server``) asks ``user``. ``texts`` are the names
    and the reason that come with it, the room's own name and topic included. ``again``: it came before, is
    judged by other policies, and is nobody's act now; or it is to come, with the room that is made.
    """

    network: str
    room: str
    sender: NativeId
    sender_server: str
    user: NativeId
    outbound: bool
    servers: frozenset[str] = field(default_factory=frozenset)
    texts: tuple[str, ...] = ()
    again: bool = False
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomCreate:
    """A person makes a room. ``invited`` are the people it begins with, additional creators included, and
    ``servers`` their servers. ``federated`` is False where no other server may ever enter. ``texts`` are the
    strings of every event it begins with, and of its address.
    """

    network: str
    user: NativeId
    user_server: str
    version: str = ""
    invited: tuple[NativeId, ...] = ()
    servers: frozenset[str] = field(default_factory=frozenset)
    federated: bool = True
    texts: tuple[str, ...] = ()
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomUpgrade:
    """A person replaces ``room`` by a new one of ``version``. ``servers`` are those in the old one."""

    network: str
    room: str
    user: NativeId
    user_server: str
    version: str = ""
    servers: frozenset[str] = field(default_factory=frozenset)
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileQuery:
    """``server`` asks for the profile of ``user`` here, or (``outbound``) is to be asked for one there."""

    network: str
    server: str
    user: NativeId
    outbound: bool
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileChange:
    """A person changes what others see of them: display name, picture, status, the name of a device.
    ``again``: it is about to be shown, and is not an act now.
    """

    network: str
    user: NativeId
    user_server: str
    texts: tuple[str, ...] = ()
    again: bool = False
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryQuery:
    """``server`` looks something up here, or (``outbound``) is about to be asked: an alias, the published
    rooms, the rooms of a space, an event by its time. ``address`` is the requested address, empty for a list.
    ``texts`` are empty then. They are set if a local user is about to read the answer of ``server``: one
    question for each room of a list, and one for the text of an error.
    """

    network: str
    server: str
    address: str
    outbound: bool
    texts: tuple[str, ...] = ()
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryPublish:
    """A person gives ``room`` the public address ``address``, or (``address`` empty) puts it into the list of
    published rooms. ``texts`` are what the list will show of it. ``again``: it is a part of making the room,
    which was asked about as an act, or was given before and is about to be shown.
    """

    network: str
    user: NativeId
    user_server: str
    room: str
    address: str = ""
    texts: tuple[str, ...] = ()
    again: bool = False
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysQuery:
    """``server`` asks for the device keys of ``users`` here or claims one-time keys, or (``outbound``)
    is about to be asked for those of its own.
    """

    network: str
    server: str
    users: tuple[NativeId, ...]
    outbound: bool
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class ToDevice:
    """A message of ``type`` from device to device, outside of any room. ``users`` get it, and ``servers`` are
    theirs. ``outbound``: it leaves for another server; else it is for people here. ``again``: it came before,
    is judged by other policies, and is nobody's act now.
    """

    network: str
    sender: NativeId
    sender_server: str
    users: tuple[NativeId, ...] = ()
    servers: frozenset[str] = field(default_factory=frozenset)
    type: str = ""
    outbound: bool = False
    texts: tuple[str, ...] = ()
    again: bool = False
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """The presence of a person, with a status text in ``texts``. ``outbound``: it leaves for ``servers``."""

    network: str
    user: NativeId
    user_server: str
    servers: frozenset[str] = field(default_factory=frozenset)
    outbound: bool = False
    texts: tuple[str, ...] = ()
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class EphemeralIn:
    """A user types, has read, or is away or back, in the room of ``link``. ``kind`` is ``typing``,
    ``receipt`` or ``presence``. ``texts`` are the text of a presence, and the strings in it that should be
    identifiers and are not.
    """

    link: Link
    sender: NativeId
    sender_server: str
    kind: str
    view: RoomView
    texts: tuple[str, ...] = ()
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class EphemeralOut:
    """That is about to be told to the people of ``link``. ``texts`` are those of ``EphemeralIn``."""

    link: Link
    sender: NativeId
    kind: str
    view: RoomView
    texts: tuple[str, ...] = ()
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaTransfer:
    """A file is about to be fetched from another server, or (``outbound``) given to one. ``media`` is its id
    on ``network``, ``server`` the other one. ``size`` in bytes is 0, ``type`` and ``name`` are empty while
    not known.

    A file of another network crosses to the people of ``network``: ``media`` is then NETWORK:ID. ``server``
    is one of those people's where a link is opened, and else the one that the file comes from; it is the id
    of the network if none is known.
    """

    network: str
    server: str
    media: str
    outbound: bool
    type: str = ""
    size: int = 0
    name: str = ""
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaUpload:
    """A person stores a file here. ``media`` is its id to be, ``size`` is in bytes, 0 where unknown."""

    network: str
    user: NativeId
    user_server: str
    media: str = ""
    name: str = ""
    type: str = ""
    size: int = 0
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A person of another network is about to speak on ``network`` as ``account``, an account of their own at
    ``server``; it is empty while it is not known. ``again``: they logged in before, and the account is about
    to be used after a start.
    """

    network: str
    server: str
    user: NativeId
    user_server: str
    account: str = ""
    again: bool = False
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminChange:
    """An operator changes something by ``command``. ``arguments`` are names and values, never a secret.

    Reloading the configuration and looking are not asked about: a policy can lock nobody out of changing it.
    """

    command: str
    arguments: tuple[tuple[str, str], ...] = ()
    allowed_actions: ClassVar[frozenset[Action]] = _GATE


Crossing = (
    PeerConnect
    | EventIn
    | EventOut
    | Join
    | Knock
    | Invite
    | RoomCreate
    | RoomUpgrade
    | ProfileQuery
    | ProfileChange
    | DirectoryQuery
    | DirectoryPublish
    | KeysQuery
    | ToDevice
    | Presence
    | EphemeralIn
    | EphemeralOut
    | MediaTransfer
    | MediaUpload
    | Login
    | AdminChange
)
