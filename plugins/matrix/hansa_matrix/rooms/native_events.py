"""The inputs of a room's turn: a received event, and one whose past is not available."""

from __future__ import annotations

from dataclasses import dataclass

from hansa import NativeId, Refusal, RefusalCode
from hansa.model.fast_dataclass import quick

from hansa_matrix.conversion.to_matrix import EventDraft
from hansa_matrix.local.transaction_ids import ClientTransaction
from hansa_matrix.proto.auth_rules.reject import AuthRejection
from hansa_matrix.proto.event import Pdu, StateKey


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedPdu:
    """``Submission.native`` of a PDU from elsewhere. ``staged_row`` is its row to remove. ``via_handshake``:
    it came by send_join or the like, or is ours with another's signature: a failed check is an
    answer, and we send it on to the other servers of the room.
    """

    pdu: Pdu
    origin: str
    staged_row: tuple[str, int] | None = None
    via_handshake: bool = False
    #: Why the room's policy server does not recommend it; empty if it does, or there is none.
    policy_server_refusal: str = ""
    #: True if it was rejected because of a missing event that is here now.
    again: bool = False

    @property
    def at_once(self) -> bool:
        """True if it arrived just now, in a transaction that is judged before its answer."""
        return self.staged_row is None and not self.via_handshake and not self.again


@dataclass(frozen=True, slots=True, kw_only=True)
class PduWithRemoteState:
    """``Submission.native`` of an event whose past is not available: ``state`` is the state before it that
    another server gives. It becomes a base for other events, and is not shown. ``depth`` is its depth by this
    server's count if it is of the past, 0 for a new one, which is checked against the current state too.
    """

    pdu: Pdu
    state: dict[StateKey, str]
    depth: int = 0


@dataclass(frozen=True, slots=True)
class BackfilledPdu:
    """``Submission.native`` of an event of the past that what we have follows. It is not shown. ``depth`` is
    by our count.
    """

    pdu: Pdu
    depth: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientEvent:
    """An event of a user's own client: the user must have joined before, or may not send. ``follows``: it is
    a part of an act elsewhere, such as a display name for every room, and not an act of its own.
    """

    draft: EventDraft
    handle: ClientTransaction | None = None
    follows: bool = False


@dataclass(frozen=True, slots=True)
class DerivedState:
    """A state event that is made of the one that it follows, whose id ``made_of`` is; empty where there was
    none. At its turn it is refused with ``CONFLICT`` if another stands there, which it would take back.
    """

    draft: EventDraft
    made_of: str


@dataclass(frozen=True, slots=True)
class JoinThenSend:
    """An event of a user who must join first, where a policy server has to see both."""

    sender: NativeId
    draft: EventDraft


_CODES = {
    "5.join.banned": RefusalCode.BANNED,
    "5.join.invite": RefusalCode.INVITE_ONLY,
    "5.join.rule": RefusalCode.INVITE_ONLY,
    "5.join.restricted": RefusalCode.INVITE_ONLY,
    "6.not_joined": RefusalCode.NOT_JOINED,
}


def refusal_of(reject: AuthRejection) -> Refusal:
    """A failed rule, as the person concerned is told."""
    return Refusal(code=_CODES.get(reject.rule, RefusalCode.FORBIDDEN), text=reject.reason)
