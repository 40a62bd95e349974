"""The nouns of the bus: who, where and what happened. Frozen, and the same for every network."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hansa.model.content import Content
from hansa.model.fast_dataclass import quick
from hansa.model.ref import NativeId
from hansa.model.verdict import Verdict


class Placement(StrEnum):
    """Where an event stands in time. Only ``LIVE`` and ``GAP`` enter the log."""

    LIVE = "live"
    #: Missed while we were away; appended and delivered like a live one.
    GAP = "gap"


class Direction(StrEnum):
    """The direction in which events may pass a link, seen from the core."""

    IN = "in"
    OUT = "out"
    BOTH = "both"

    @property
    def inward(self) -> bool:
        """True where the native room may speak into the core room."""
        return self is not Direction.OUT

    @property
    def outward(self) -> bool:
        """True where the core room may speak into the native room."""
        return self is not Direction.IN


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The tie between a core room and one native room.

    ``hosted``: the native room is ours to reflect into (our MUC). ``authority``: the native rules of this
    network decide what happens in the room; one link of a room at most has it. ``judged_from`` is the seq of
    the first event whose way out over this link was judged when the event was committed.
    """

    room: str
    native: NativeId
    direction: Direction = Direction.BOTH
    hosted: bool = False
    authority: bool = False
    judged_from: int = 0

    @property
    def id(self) -> str:
        """Stable name, also the name of the link's consumer: ``NETWORK:NATIVE``."""
        return str(self.native)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """An event that a network submits. ``room`` is the native room; ``ts`` is the sender's claim in ms.

    ``native`` is opaque to the core (a received PDU, a client's JSON) and reaches only the authority. An
    authority's own event with ``native`` already stands in the native history, and policies can only keep it
    from being shown. ``local`` says that it does not stand there: a local user wants to send it, and it may
    be refused. ``origin`` identifies duplicates: two submissions with the same origin are one event.

    ``aliases`` are more ids of the event on the network. ``chosen_ids`` are ids that the sender chose: the
    latest event of a sender in a room has it. ``payload``, of 64 KiB at most, is given back to this
    network alone. ``native_targets``: the ids of events in ``content`` are native ids of the network, in
    the place of which the room's turn puts the core's own; empty for an event that is not known.
    ``reflects`` is the ``Delivery.key`` of a draft that the network's room reflected late: see
    ``LateAuthority.propose``. ``confined``: no other network gets the event, now or later,
    nor what is said about it: an edit, a reaction, a retraction.
    """

    origin: NativeId
    room: NativeId
    sender: NativeId
    content: Content
    ts: int
    placement: Placement = Placement.LIVE
    native: Any = None
    local: bool = False
    aliases: tuple[str, ...] = ()
    chosen_ids: tuple[str, ...] = ()
    payload: bytes = b""
    native_targets: bool = False
    reflects: str = ""
    confined: bool = False


#: In ``Event.withheld_from``: the links of all networks but that of the event's sender.
OTHER_NETWORKS = "*"


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of the log. ``seq`` rises by one per event of the room; ``received`` is our clock in ms at
    commit, never falling within a room; ``id`` is opaque and never reused. ``withheld_from`` names the
    links this event may not pass, each with its decision id; ``*`` stands for the links of all networks but
    that of its sender, and has none. ``generation`` is that of the policies which judged it: under another
    one it is judged again before it is shown or sent. ``payload`` is what its network keeps with it; only
    that network gets it.
    """

    id: str
    room: str
    seq: int
    origin: NativeId
    sender: NativeId
    content: Content
    ts: int
    received: int
    placement: Placement = Placement.LIVE
    withheld_from: tuple[tuple[str, str], ...] = ()
    generation: int = 0
    payload: bytes = b""

    @property
    def is_confined(self) -> bool:
        """True if no other network than that of its sender gets the event."""
        return bool(self.withheld_from) and any(name == OTHER_NETWORKS for name, _ in self.withheld_from)

    def is_withheld_from(self, link: Link) -> bool:
        """True if the event may not pass a link, as it was decided when the event was committed."""
        return any(
            name == link.id or (name == OTHER_NETWORKS and link.native.network != self.sender.network)
            for name, _ in self.withheld_from
        )


class RefusalCode(StrEnum):
    """Why the rules of the authority said no. Each network turns it into its own protocol's error."""

    FORBIDDEN = "forbidden"
    BANNED = "banned"
    INVITE_ONLY = "invite-only"
    NOT_JOINED = "not-joined"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    INVALID = "invalid"
    TOO_LARGE = "too-large"
    UNSUPPORTED = "unsupported"
    UNREACHABLE = "unreachable"
    POLICY = "policy"
    RATE = "rate"
    BUSY = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal by native rules, by policy or for load. ``decision`` is set where a policy refused.

    ``retry_after`` is in seconds, 0 where trying again will not help.
    """

    code: RefusalCode
    text: str
    decision: str = ""
    retry_after: float = 0.0


def refusal_by(verdict: Verdict) -> Refusal:
    """The refusal of what a policy denies: one that would be allowed later says when."""
    code = RefusalCode.RATE if verdict.retry_after else RefusalCode.POLICY
    return Refusal(code=code, text=verdict.text, decision=verdict.decision, retry_after=verdict.retry_after)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitResult:
    """The outcome of one ``Submission``.

    ``event`` is set if it stands in the log (also when it was known already: ``duplicate``). ``refusal`` is
    set if it was refused. Neither is set for an event that was accepted but has no place in the log (a
    withheld or rejected PDU), or was a ``command`` to the bridge, which the core carries out: only the sender
    should see it. ``native_id`` is the id that the room's authority gave it just now.
    """

    verdict: Verdict
    event: Event | None = None
    refusal: Refusal | None = None
    duplicate: bool = False
    native_id: str = ""
    command: bool = False

    @property
    def refused(self) -> Refusal | None:
        """Why it was refused, by native rules or by a policy; None where it happened."""
        return self.refusal or (None if self.verdict.allowed else refusal_by(self.verdict))


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """A part of a room's history, in the order of the log.

    ``next_seq`` is where to read on in the direction that was read: the ``after_seq`` of the next page, or
    its ``upto_seq``. It is None where nothing is left. A page may have no events and yet have a next one.
    """

    events: tuple[Event, ...] = ()
    next_seq: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierHistory:
    """A part of what was said in a native room before it was linked, in order. The events are not in the log:
    their ``seq`` is 0, ``received`` is the time that their sender claims, and their ids begin with ``~``.

    ``before`` is where to read on. It is None where the room begins, and what was given where the part before
    it cannot be read now.
    """

    events: tuple[Event, ...] = ()
    before: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one link. ``key`` is the same at every attempt: a second send with it is a no-op.

    ``content`` is what the network can show (degraded by its features); ``attempt`` counts from 1.
    ``target`` is the event that the content concerns, None where this link did not get it.
    """

    key: str
    link: Link
    event: Event
    content: Content
    attempt: int = 1
    target: Event | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeFacts:
    """The facts of a native event that a policy may know without knowing its protocol.

    ``size`` is in bytes on the wire. ``texts`` is every string of it that is not known to be an identifier.
    ``people`` are users it concerns besides its sender and its member (additional creators, for example).
    ``automatic``: it is a part of another act that was asked about as a whole (an initial event of a new
    room, for example), and no rate counts it. ``act`` is the id of the act, which a rate counts: empty where
    the event is looked at again, or where another user reports what its sender once did. ``ts`` is the time
    of the act that its sender claims (ms), 0 if there is no claim.
    """

    type: str = ""
    state_key: str | None = None
    size: int = 0
    encrypted: bool = False
    sender_server: str = ""
    room_servers: frozenset[str] = field(default_factory=frozenset)
    texts: tuple[str, ...] = ()
    people: tuple[NativeId, ...] = ()
    automatic: bool = False
    act: str = ""
    ts: int = 0
