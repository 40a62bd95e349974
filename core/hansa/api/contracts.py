"""The interfaces that a plugin implements: ``Network`` and its optional parts, ``Authority``, ``Policy``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol, runtime_checkable

from hansa.model.content import Kind
from hansa.model.crossing import Crossing
from hansa.model.ephemeral import EphemeralEvent, PersonPresence
from hansa.model.errors import HansaError
from hansa.model.events import Delivery, Event, Link, NativeFacts, Refusal, Submission
from hansa.model.fast_dataclass import quick
from hansa.model.features import PLAIN, Features
from hansa.model.ref import NativeId
from hansa.model.verdict import Verdict
from hansa.model.view import RoomView, ViewDelta
from hansa.store.base import Write

# Required: what every network or policy implements.


class RetryLater(HansaError):  # it is an answer, not a fault
    """``Network.send`` could not send now. ``after`` is in seconds, 0 leaves it to the core's backoff."""

    def __init__(self, reason: str, *, after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


class DeliveryRejected(HansaError):  # likewise
    """``Network.send`` will never succeed with this delivery: it becomes a dead letter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NetworkStatus(StrEnum):
    """The state that a network reports of itself. Deliveries wait while it is not ``UP``."""

    UP = "up"
    CONNECTING = "connecting"
    DOWN = "down"


@runtime_checkable
class Network(Protocol):
    """One instance per ``[networks.<id>]`` table."""

    async def start(self) -> None:
        """Connect. A peer that is away is reported by ``ctx.report_status``, not raised; an exception here,
        or in a task of ``ctx.spawn``, restarts the network with backoff.
        """
        ...

    async def stop(self) -> None:
        """Disconnect within 5 s; leave no task. Called also after a ``start`` that failed."""
        ...

    async def send(self, delivery: Delivery) -> str:
        """Sends one event; returns the native id of the sent event (``""`` if it has none). The same
        ``delivery.key`` may come again and must not be shown twice. Raises ``RetryLater`` or
        ``DeliveryRejected``.
        """
        ...


@runtime_checkable
class Policy(Protocol):
    """One instance per ``[policies.<name>]`` table."""

    async def check(self, crossing: Crossing) -> Verdict | None:
        """See the hook ``check``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One event for a durable observer. ``key`` is the same at every attempt, also after a restart, so that
    an observer can tell a repeat. ``attempt`` counts from 1, and from 1 again after a restart.
    """

    key: str
    event: Event
    attempt: int = 1


@runtime_checkable
class Observer(Protocol):
    """One instance per ``[observers.<name>]`` table. It is told of every event that is committed after it was
    first configured: in order within a room, at least once, also over a kill.
    """

    async def observe(self, observation: Observation) -> None:
        """Takes one event within 60 s; it is told again unless this returns. Up to four rooms are told at a
        time. ``RetryLater`` asks for another attempt (100 at most, 300 s apart at most, or ``after``),
        ``DeliveryRejected`` for none. Any other exception counts as a fault of the observer: 10 attempts.
        An event that is given up is counted (``hansa_observer_given_up_total``), and logged with the reason.
        """
        ...


# Optional: each protocol is one thing more that a network can do, and what it needs for it.


@runtime_checkable
class HasFeatures(Protocol):
    """A network that carries more than text."""

    @property
    def features(self) -> Features:
        """The content that the network can carry; constant."""
        ...


def features_of(network: Network | None) -> Features:
    """The content that a network can carry: text, where it does not say."""
    return network.features if isinstance(network, HasFeatures) else PLAIN


@runtime_checkable
class Confirms(Protocol):
    """A network whose ``send`` returns before the peer has the event. ``ctx.confirm_sent`` says later up to
    where the peer has everything. The core sends at most 500 events ahead, stores the position that is
    confirmed, and sends what lies behind it again, with the same ``Delivery.key``, once the network has
    reported another state than ``up``, or was started again. Report the end of every connection.
    """

    def request_confirmation(self, link: Link) -> None:
        """Ask the peer whether it has what was sent over a link, without waiting: for instance by a ping,
        whose answer comes after what went before it. Called after a batch, and each second until everything
        is confirmed.
        """
        ...


@runtime_checkable
class KnowsServers(Protocol):
    """A network whose people live on servers. Without it, the network's id stands for the server."""

    def server_of(self, user: str) -> str:
        """The server of a user id of this network. Pure."""
        ...

    def policy_facts(self, inbound: Submission) -> NativeFacts:
        """Returns the facts that policies may know of an event that this network submits. Pure."""
        ...


@runtime_checkable
class MakesGhosts(Protocol):
    """A network on which people of other networks appear under accounts of this server."""

    def ghost_id(self, user: NativeId) -> str:
        """The id the person would have here: pure, injective, the same for ever."""
        ...


@runtime_checkable
class LinksRooms(Protocol):
    """A network whose rooms can be opened, joined or made by address."""

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        """Join the room at ``address``, or make it (``create``) where it is ours and absent. The same
        address again gives the same room. Raises ``CannotOpenRoom``.
        """
        ...


@runtime_checkable
class RemovesRooms(Protocol):
    """A network that can remove a room which it made a moment ago, because the rest of it failed."""

    async def remove_room(self, native: str) -> None:
        """Removes a room that nobody else is in, and its address. Its link may be closed."""
        ...


@runtime_checkable
class FollowsLinks(Protocol):
    """A network that is told which native rooms are tied to its own. An exception is logged and changes
    nothing, an answer is waited for 10 s. After a start, ``NetworkContext.list_links`` has all links.
    """

    async def on_link_added(self, own: Link, added: Link, view: RoomView) -> None:
        """The core room of ``own`` has a further link: ``own`` itself, or that of another network. ``view``
        has the members from every network at this time; those who enter because of the link follow as events.
        """
        ...

    async def on_link_removed(self, own: Link, removed: Link, view: RoomView) -> None:
        """``removed`` is unlinked: ``own`` itself, or another one. If it is ``own``, everybody in ``view`` of
        another network has to leave the native room. If the network has a further link of the core room, the
        people of the network are not taken out: the network submits that those left who are in none of these
        native rooms any more.
        """
        ...


@runtime_checkable
class KnowsPeople(Protocol):
    """A network that can tell of some ids that nobody has them: people there are not invited."""

    async def is_nonexistent_user(self, user: str) -> bool:
        """True if it is known that this user does not exist, or that the id is not the id of a person; False
        where it cannot be known. Answers within seconds.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomWish:
    """How an operator wants a room to be: what it is called (empty: as its address says), and whether it is
    listed in the public directory.
    """

    name: str = ""
    published: bool = False


@runtime_checkable
class FoundsRooms(Protocol):
    """A network whose rooms can be made with a name, and be published."""

    async def found_room(self, address: str, wish: RoomWish) -> OpenedRoom:
        """Like ``LinksRooms.open_room``, and may create the room. An existing room of this server is
        published if that is wished, and gets a wished name if it has none. Raises ``CannotOpenRoom``.
        """
        ...


@runtime_checkable
class NamesRooms(Protocol):
    """A network whose rooms have addresses besides their ids: operators may say either."""

    async def room_at(self, address: str) -> str | None:
        """The id of the room that an address leads to; None if it leads nowhere."""
        ...

    async def addresses_of(self, natives: Collection[str]) -> Mapping[str, Sequence[str]]:
        """The addresses of rooms, by the rooms' ids; a room without any may be left out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRoom:
    """A native room we are in. ``view_delta`` is its whole present, taken when a link to it is made."""

    native: NativeId
    hosted: bool = False
    authority: bool = False
    view_delta: ViewDelta = ViewDelta()  # noqa: RUF009  # frozen


class CannotOpenRoom(HansaError):  # an answer
    """``open_room`` cannot: ``refusal`` says why, in every network's terms."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonMatch:
    """A person that a search of ``LooksUp`` finds. ``name`` is what they are called, empty if unknown."""

    user: NativeId
    name: str = ""


@runtime_checkable
class LooksUp(Protocol):
    """A network whose people can be searched for from other networks."""

    async def find_people(self, text: str, *, limit: int) -> Sequence[PersonMatch]:
        """People of this network whose address or name a user of another network typed, which may be a part
        of it; at most ``limit``. Asks no other server: this is called while the user types.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomMatch:
    """A room that a search of ``LooksUpRooms`` finds. ``address`` opens it (``LinksRooms.open_room``);
    ``members`` is how many are in it, 0 if unknown.
    """

    network: str
    address: str
    name: str = ""
    topic: str = ""
    members: int = 0


@runtime_checkable
class LooksUpRooms(Protocol):
    """A network whose rooms can be searched for by words."""

    async def find_rooms(self, text: str, *, limit: int) -> Sequence[RoomMatch]:
        """Rooms that everybody on this network may find and enter, with ``text`` in their address, name or
        topic; at most ``limit``. Answers within 15 s. An exception hides the network's rooms and no others.
        """
        ...


@runtime_checkable
class OpensDirectChats(Protocol):
    """A network on which one person can write to another alone. The chat is a native room of two people:
    ``user`` is of this network, ``other`` of another one, who is written to and by under their ghost.
    """

    async def require_direct_chat(self, user: str, other: NativeId) -> None:
        """Raises ``CannotOpenRoom`` if it is known that there is no such chat: NOT_FOUND where ``user`` does
        not exist, FORBIDDEN where the network cannot, each with a text for the inviter. Changes nothing.
        """
        ...

    async def open_direct_chat(self, user: str, other: NativeId) -> OpenedRoom:
        """The chat of ``user`` with ``other``, which is made where it is missing; ``user`` is invited there
        by ``other``'s ghost if the network has invites. The same two people give the same chat. Raises
        ``CannotOpenRoom`` as ``require_direct_chat`` does.
        """
        ...


@runtime_checkable
class CarriesEphemeral(Protocol):
    """A network that shows who types and who has read."""

    async def show_ephemeral(self, link: Link, show_ephemeral: EphemeralEvent) -> None:
        """Shows a signal of a user of another network. An exception is logged and changes nothing."""
        ...


@runtime_checkable
class CarriesPresence(Protocol):
    """A network that shows who is here, away, busy or offline."""

    async def show_presence(self, link: Link, presence: PersonPresence) -> None:
        """Shows the presence of a user of another network in a room. It is called for one room after the
        other, also where the network has one presence for a user in all rooms. An exception is logged and
        changes nothing.
        """
        ...


@runtime_checkable
class TellsPeople(Protocol):
    """A network that can show a notice to one person alone."""

    async def tell_person(self, link: Link, user: str, text: str) -> None:
        """Show ``text`` to a person of this network, in the room of ``link``. An exception is logged."""
        ...


@runtime_checkable
class AnswersCommands(Protocol):
    """A network whose people can write commands to the bridge, such as ``!hansa help``. Without it, such a
    text is a message like any other.
    """

    async def answer_command(self, link: Link, user: str, text: str) -> None:
        """Shows ``text``, of several lines, to a person of this network who wrote a command in the room of
        ``link``: to them alone, or where the network cannot do that as a notice in the room that is
        ``Submission.confined``. An exception is logged.
        """
        ...


@runtime_checkable
class ShowsPresent(Protocol):
    """A network whose people see what a room is called, its topic and who is in it at all times."""

    async def show_present(self, link: Link) -> None:
        """Shows the present state of a room, which changed without an event: other policies took a name back,
        a withheld event removed a user, a state was found to differ. An exception is logged and changes
        nothing.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationStatus:
    """Where one event, or all there is, stands with one server. ``state`` is ``delivered``, ``waiting`` or
    ``failed``; ``since`` is in ms, 0 where nothing waits; ``reason`` says why it waits, ``failures`` how many
    attempts in a row have failed, ``waiting`` how many events wait (counted up to 1,000).
    """

    name: str
    state: Literal["delivered", "waiting", "failed"]
    since: int = 0
    reason: str = ""
    failures: int = 0
    waiting: int = 0


@runtime_checkable
class TracksDelivery(Protocol):
    """A network that sends to servers of its own accord and knows how far each is."""

    async def delivery_status(self, native_id: str) -> Sequence[DestinationStatus]:
        """Where one of this network's events stands with each server it was meant for."""
        ...

    async def list_destinations(self) -> Sequence[DestinationStatus]:
        """Every server that this network sends to, with what waits for it."""
        ...


#: Answers a command: its arguments by name, the answer as JSON values. Raises ``HansaError`` to refuse.
AdminCommand = Callable[[Mapping[str, Any]], Awaitable[Any]]


@runtime_checkable
class HasAdminCommands(Protocol):
    """A network with commands of its own (``register_commands``)."""

    def admin_commands(self) -> Mapping[str, AdminCommand]:
        """Returns the admin commands, each under the words that call it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCommand:
    """A command of a network's own that people write in a chat. ``usage`` names its arguments, ``help`` tells
    its effect. ``run`` gets the person, of any network, and at most 20 words after the command. It returns
    the answer, of several lines, or raises ``HansaError`` with a text for the person.
    """

    usage: str
    help: str
    run: Callable[[NativeId, Sequence[str]], Awaitable[str]]


@runtime_checkable
class HasChatCommands(Protocol):
    """A network with commands of its own, which people of all networks write in a chat: ``!hansa NETWORK NAME
    ...``. Everybody may, as the policies judge the message: a command changes nothing for others.
    """

    def chat_commands(self) -> Mapping[str, NetworkCommand]:
        """Returns the commands, each under its name in lower case; constant."""
        ...


# Authority: for a network whose native rules decide in its rooms.


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The authority takes the event. ``writes`` (already naming their scope) go into the turn's commit.

    ``native_id`` becomes an alias of the event, and ``more_ids`` too. ``visible`` False: it has no place in
    the log (a rejected, soft-failed or policy-withheld PDU), only ``writes`` and ``view_delta`` are
    committed. ``view_delta`` is what it does to the room's present; None lets the core derive that from the
    content. ``redacted`` are native ids of events that were redacted, of earlier ones or of this one: what
    they said leaves the log, or does not enter it; their place in it stays.
    """

    writes: Sequence[Write] = ()
    native_id: str = ""
    visible: bool = True
    view_delta: ViewDelta | None = None
    redacted: Sequence[str] = ()
    more_ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """The turn cannot go on without I/O: the core leaves the turn, awaits ``Authority.fetch_missing`` and
    queues the event again. ``refs`` are opaque to the core.
    """

    refs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Countersign:
    """The event needs the signature of another server first: the core leaves the turn, awaits
    ``Authority.countersign`` and queues the event again. ``draft`` is opaque to the core.
    """

    draft: Any


class Turn(Protocol):
    """One batch of one room, prepared in order. Later drafts see the effect of earlier ones."""

    async def prepare_event(
        self, inbound: Submission, verdict: Verdict
    ) -> Prepared | Missing | Countersign | Refusal:
        """Judge by native rules and draft the writes: store reads and CPU only. ``verdict`` that is not
        ALLOW comes only with an event that stands in native history: it is accepted but not shown.
        """
        ...

    def final_writes(self) -> Sequence[Write]:
        """The writes of the batch as a whole, naming their scope. Asked once, after the last
        ``prepare_event``.
        """
        ...

    def on_committed(self) -> None:
        """The batch is durable: make the drafts the present. Nothing may be raised here."""
        ...

    def on_rolled_back(self) -> None:
        """The batch was not written: forget the drafts."""
        ...


@runtime_checkable
class RestrictsKinds(Protocol):
    """An authority that knows what only some members of a room may do. An operator sees it."""

    async def restricted_kinds(self, native: str) -> Collection[Kind]:
        """The kinds that a member of the room without any rank may not send now."""
        ...


@runtime_checkable
class LateAuthority(Network, Protocol):
    """A network whose rooms elsewhere decide only by reflecting what is sent to them, such as a channel or a
    room of another service. Its links have ``authority``. An event of another network is proposed first, and
    enters the log when it is reflected. The network gets no ``send`` for such a link.
    """

    async def propose(self, delivery: Delivery) -> str:
        """Send a draft, and return its native id there once the room has reflected it. Calls of one sender
        come one after the other, in order, and up to 20 of a room are under way; 20 s after its submission a
        call is cancelled. ``delivery.event`` has no place in the log yet. Raises ``DeliveryRejected`` where
        the room refuses it, ``RetryLater`` where it was certainly not sent. A second call with the same key
        sends nothing that the room reflected before. A reflection for which no call waits any more, as after
        a restart, is submitted with the key as ``Submission.reflects``: it may be submitted twice. A key that
        comes back from the room counts only on a message that this network sent: other people know how keys
        are made.
        """
        ...


@runtime_checkable
class Authority(Protocol):
    """A network whose native rules decide in a room."""

    async def before_turn(self, link: Link, inbound: Submission) -> Refusal | None:
        """Outside the turn, may do I/O: what must exist before the event can be prepared."""
        ...

    async def fetch_missing(self, link: Link, refs: Sequence[str]) -> bool:
        """Get what a ``Missing`` named; False if it cannot be had, and the event is refused."""
        ...

    async def countersign(self, link: Link, draft: Any) -> Any | Refusal:
        """Have a ``Countersign``'s draft signed. The result becomes the ``native`` of the event, which is
        then prepared again; its place in the native history stays that of the draft.
        """
        ...

    async def begin_turn(self, link: Link, batch: Sequence[Submission]) -> Turn:
        """Begin a batch: reads in one go what preparing it will need. There is at most one open turn per
        link.
        """
        ...
