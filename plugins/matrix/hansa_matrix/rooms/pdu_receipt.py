"""The receipt of PDUs: one batch of a room, in the room's turn.

SPEC: server-server API, "Checks performed on receipt of a PDU". The first seven numbers are those of its
checks. The first is made by ``rooms/inbound/pdu_intake.py``,
the next two by ``rooms/inbound/pdu_staging.py``.

1. The PDU is a valid event of its room version, or it is dropped (``proto/pdu.py``).
2. Its signatures verify, by keys of ``federation/keyring.py``, or it is dropped (``proto/pdu.py``).
3. Its content hash matches, or its redacted copy takes its place (``proto/pdu.py``).
4. Its auth events allow it, or it is rejected (``proto/auth_rules/rules.py``).
5. The state before it, resolved over its ``prev_events``, allows it, or it is rejected
   (``rooms/room_draft.py``).
6. The current state of the room allows it, or it is soft-failed (``rooms/room_draft.py``).
7. The room's policy server has signed it, or it is soft-failed (``rooms/inbound/policy_server.py``).
8. The policies of this server allow it, or it is withheld. The core asked them before the turn
   (``bus/admission.py``).
9. It gets its state groups (``rooms/state/state_groups.py``) and its place among the forward extremities
   (``rooms/room.py``).
10. It is announced to local clients (``local/client_stream.py``). An event of a handshake is also sent to the
    other servers of the room (``federation/sender.py``).

An event whose auth events or ``prev_events`` are missing leaves the turn
(``rooms/inbound/missing_events.py``). The result is stored with the event (``rooms/event_store.py``). Only
accepted events are shown; rejected and soft-failed ones are not forward extremities.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from hansa import (
    Countersign,
    Delete,
    Missing,
    Prepared,
    Refusal,
    RefusalCode,
    RemoteProtocolError,
    Submission,
    Verdict,
    Write,
    refusal_by,
)

from hansa_matrix.proto.auth_rules.reject import AuthRejection
from hansa_matrix.proto.auth_rules.rules import check_auth_events
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY, POWER_LEVELS, POWER_LEVELS_KEY
from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.event_builder import EventBuilder
from hansa_matrix.rooms.event_store import DECISION, Status, StoredEvent
from hansa_matrix.rooms.inbound.policy_server import PolicyServerClient
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.native_events import BackfilledPdu, PduWithRemoteState, ReceivedPdu, refusal_of
from hansa_matrix.rooms.redactions import REDACTION
from hansa_matrix.rooms.room import GAP, MatrixRoom, advance_with_gap
from hansa_matrix.rooms.room_draft import RoomDraft
from hansa_matrix.rooms.state.state_groups import StateIds


class PduBatch:
    """See ``hansa.Turn``."""

    def __init__(
        self, room: MatrixRoom, own: LocalServer, policing: PolicyServerClient | None = None
    ) -> None:
        self._draft = RoomDraft(room, own)
        self._speech = EventBuilder(self._draft, policing)

    async def expect(self, batch: Iterable[Submission]) -> None:
        """Read in one go what the arrived events of a batch need."""
        arrived = [one.native for one in batch if isinstance(one.native, ReceivedPdu)]
        fresh = {one.pdu.event_id for one in arrived if one.at_once}
        await self._draft.expect([one.pdu for one in arrived], fresh)

    def final_writes(self) -> list[Write]:
        """See ``hansa.Turn.final_writes``: where the room stands afterwards."""
        return self._draft.head_writes()

    def on_committed(self) -> None:
        """See ``hansa.Turn.on_committed``."""
        self._draft.committed()

    def on_rolled_back(self) -> None:
        """See ``hansa.Turn.on_rolled_back``."""
        self._draft.abandoned()

    async def prepare_event(
        self, inbound: Submission, verdict: Verdict
    ) -> Prepared | Missing | Countersign | Refusal:
        """See ``hansa.Turn.prepare_event``."""
        prepared = await self._prepare_native(inbound, verdict)
        if isinstance(prepared, Prepared) and prepared.redacted:
            prepared = await self._speech.redact_other_parts(prepared)
        await self._draft.room.groups.ahead()
        return prepared

    async def _prepare_native(
        self, inbound: Submission, verdict: Verdict
    ) -> Prepared | Missing | Countersign | Refusal:
        if isinstance(inbound.native, ReceivedPdu):
            return await self._receive(inbound.native, verdict)
        if isinstance(inbound.native, PduWithRemoteState):
            return await self._accept_with_remote_state(inbound.native, verdict)
        if isinstance(inbound.native, BackfilledPdu):
            return await self._accept_backfilled(inbound.native, verdict)
        if not verdict.allowed:  # a local event is not yet history that could be withheld
            return refusal_by(verdict)
        try:
            return await self._speech.build_event(inbound)
        except RemoteProtocolError as error:
            return Refusal(code=RefusalCode.TOO_LARGE, text=error.reason)

    async def _receive(self, arrived: ReceivedPdu, verdict: Verdict) -> Prepared | Missing | Refusal:
        pdu, room = arrived.pdu, self._draft.room
        if room.version.server_made_event_ids and await room.events.taken_ids([pdu], room.version):
            return _duplicate_id_refusal(pdu)
        done: list[Write] = [Delete("staged", arrived.staged_row)] if arrived.staged_row else []
        known = (await self._draft.load([pdu.event_id])).get(pdu.event_id)
        self._draft.comes_again(known)
        if (
            known is not None
            and known.policy_server_refused
            and not arrived.policy_server_refusal
            and pdu.state_key is None
        ):
            return await self._late_policy_signature(arrived, verdict, known, done)
        passing = self._draft.passing
        again = arrived.again and known is not None and known.status is Status.REJECTED
        if known is not None and known.after and not again:
            return self._draft.to_prepared(done, shown=False)
        hole = passing.get(pdu.event_id)
        passed = known.after if again and known is not None else hole.group if hole is not None else 0
        since = known.depth if again and known is not None else 0
        if hole is not None:
            citing = (await self._draft.load([hole.cited_by])).get(hole.cited_by)
            since = citing.depth if citing is not None else 0
        cited = await self._draft.load({*pdu.auth_events, *pdu.prev_events})
        missing = [e for e in (*pdu.auth_events, *pdu.prev_events) if e not in cited]
        if missing:
            foreign = set(await room.events.load_foreign(missing, room.version))
            if not foreign.isdisjoint(pdu.prev_events):
                return _foreign_prev_refusal(pdu, foreign)
            missing = [e for e in missing if e not in foreign]
        missing += [e for e in pdu.prev_events if e in cited and not cited[e].after]
        holes = [e for e in missing if passing.get(e) is not None]
        if len(holes) < len(missing):
            return Missing(refs=tuple(dict.fromkeys(e for e in missing if e not in holes)))
        before_group, before, made = await self._draft.before(pdu, cited)
        made += passing.fill_writes(pdu.event_id)
        reject = await self._check_auth_events(pdu, cited, before)
        if reject is None:
            reject = await self._draft.check_auth_selected(pdu, before)
        status = Status.REJECTED if reject else Status.ACCEPTED
        if reject is None and before_group != self._draft.head.group:
            current = await self._state_for_soft_fail(pdu, before_group)
            reject = await self._draft.check_auth_selected(pdu, current)
            status = Status.SOFT_FAILED if reject else status
        if reject is None and arrived.policy_server_refusal:
            reject, status = AuthRejection("policy", arrived.policy_server_refusal), Status.SOFT_FAILED
        if reject is not None:
            if arrived.via_handshake:
                return refusal_of(reject)
            said = status.value, pdu.event_id, reject.reason, reject.rule
            self._draft.counted("matrix_pdus", "%s %s: %s (%s)", *said, status=status.value)
            after, puts = before_group, list[Write]()
            if status is Status.SOFT_FAILED:
                after = self._draft.after(pdu, before_group, before)
                if passed:
                    puts += await self._draft.propagation_writes(pdu, passed, after, since) or ()
            why = f"{reject.rule}: {reject.reason}"
            stored = StoredEvent(pdu, status, before_group, after, why, depth=self._draft.next_depth())
            self._draft.stored[pdu.event_id] = stored
            puts += passing.rejected(pdu, [e for e in pdu.auth_events if e in holes])
            return self._draft.to_prepared(
                [*done, *made, *puts, self._draft.store_write(stored)], shown=False
            )
        if arrived.via_handshake and not verdict.allowed and pdu.membership != "leave":
            # It stands in no history before we take it; but nobody is kept from leaving.
            return refusal_by(verdict)
        status, why = _status_by_verdict(verdict)
        if (
            arrived.via_handshake
            and pdu.type == REDACTION
            and (problem := await self._draft.no_redaction(pdu, before))
        ):  # ours, which had waited for another's signature
            return Refusal(code=RefusalCode.FORBIDDEN, text=problem)
        if arrived.via_handshake and pdu.type == POWER_LEVELS and await self._is_outdated(pdu):
            text = "the power levels changed while the room's policy server was asked: try again"
            return Refusal(code=RefusalCode.CONFLICT, text=text)
        writes, view = await self._draft.append(
            pdu, status, before_group, before, why, passed=passed, since=since
        )
        relay: list[Write] = []
        if arrived.via_handshake:
            relay = self._draft.out(pdu, self._draft.servers() - {arrived.origin})
            if pdu.membership == "join":
                relay += self._draft.deliver_concurrent(pdu, arrived.origin)
        return self._draft.to_prepared(
            [*done, *made, *writes, *relay],
            native_id=pdu.event_id,
            shown=self._draft.stored[pdu.event_id].shown,
            view=view,
        )

    async def _is_outdated(self, pdu: Pdu) -> bool:
        """True if power levels are made of others than those of now, and would take back what came between:
        an event cites those that it was made of.
        """
        current = (await self._draft.room.groups.load(self._draft.head.group)).get(POWER_LEVELS_KEY)
        return current is not None and current not in pdu.auth_events

    async def _late_policy_signature(
        self, arrived: ReceivedPdu, verdict: Verdict, known: StoredEvent, done: list[Write]
    ) -> Prepared:
        """An event that came again, with the signature that it lacked: it has its place already, and is shown
        now. One that is state stays as it is, as others have built on that.
        """
        status, why = _status_by_verdict(verdict)
        before = await self._draft.room.groups.load(known.before)
        again = self._draft.judged_now(
            StoredEvent(arrived.pdu, status, known.before, known.after, why, depth=known.depth)
        )
        again = await self._draft.as_stored(again, before)
        writes = [*done, *self._draft.late(again), *await self._draft.redacted(again.pdu, before)]
        return self._draft.to_prepared(writes, native_id=known.pdu.event_id, shown=again.shown)

    async def _state_for_soft_fail(self, pdu: Pdu, before_group: int) -> StateIds:
        """Returns the state for check 6: the current state. Where the event follows one whose past is not
        stored, the current state here may be old, and the state before the event is resolved into it.
        """
        head = self._draft.head
        cited = await self._draft.load(pdu.prev_events)
        if not all(e in cited and cited[e].after for e in pdu.prev_events):
            return await self._resolved_into_present(before_group)
        past = {e for one in cited.values() for e in one.pdu.prev_events}
        placed = await self._draft.load(past)
        if all(e in placed and placed[e].after for e in past):
            return await self._draft.room.groups.load(head.group)
        return await self._resolved_into_present(before_group)

    async def _resolved_into_present(self, group: int) -> StateIds:
        """The state of now, with that of ``group`` resolved into it."""
        groups = {*self._draft.head.extremities.values(), group}
        return (await self._draft.room.resolve_state(groups, self._draft.get_draft))[1]

    async def _accept_with_remote_state(
        self, adopted: PduWithRemoteState, verdict: Verdict
    ) -> Prepared | Refusal:
        """Judges an event by the state before it that other servers give, which is only their claim: a new
        event whose sender is not in the room by the state of this server is soft-failed.
        """
        pdu, state, room = adopted.pdu, adopted.state, self._draft.room
        known = (await self._draft.load([pdu.event_id])).get(pdu.event_id)
        self._draft.comes_again(known)
        if await room.events.taken_ids([pdu], room.version):
            return _duplicate_id_refusal(pdu)
        if known is not None and known.after:
            return self._draft.to_prepared([], shown=False)
        parent = self._draft.head.group
        before = room.groups.grow(parent, await room.groups.load(parent), state)
        after, writes = before, list[Write]()
        cited = await self._draft.load(pdu.auth_events)
        reject = await self._check_auth_events(pdu, cited, state)
        if reject is None:
            reject = await self._draft.check_auth_selected(pdu, state)
        status, why = _status_by_verdict(verdict)
        if reject is not None:
            status = Status.REJECTED
        elif not adopted.depth:
            reject = await self._draft.check_auth_selected(pdu, await self._resolved_into_present(before))
            status = Status.SOFT_FAILED if reject else status
        if reject is not None:
            why = f"{reject.rule}: {reject.reason}"
            said = status.value, pdu.event_id, why
            self._draft.counted("matrix_pdus", "%s %s: %s", *said, status=status.value)
        if status is not Status.REJECTED and pdu.state_key is not None:
            after = room.groups.after(before, state, pdu.key, pdu.event_id)
        depth = adopted.depth or self._draft.next_depth(GAP)
        stored = self._draft.judged_now(StoredEvent(pdu, status, before, after, why, depth=depth))
        if reject is None:
            stored = await self._draft.as_stored(stored, state)
        self._draft.stored[pdu.event_id] = stored
        placed = await self._draft.load(pdu.prev_events)
        missing = [e for e in pdu.prev_events if e not in placed or not placed[e].after]
        self._draft.head = advance_with_gap(self._draft.head, pdu, missing, depth)
        if not adopted.depth:  # it is told to nobody itself
            self._draft.mark_gap()
        writes.append(stored.put())
        if reject is None:
            writes += self._draft.relation_writes(stored, live=False)
            writes += await self._draft.redacted(pdu, state, live=False)
        return self._draft.to_prepared(writes, shown=False)

    async def _accept_backfilled(self, backfilled: BackfilledPdu, verdict: Verdict) -> Prepared | Refusal:
        """Judge an event by what was before it, and put it behind what follows it: the present stays."""
        pdu, depth = backfilled.pdu, backfilled.depth
        known = (await self._draft.load([pdu.event_id])).get(pdu.event_id)
        self._draft.comes_again(known)
        if known is not None and known.after:
            return self._draft.to_prepared([], shown=False)
        if await self._draft.room.events.taken_ids([pdu], self._draft.room.version):
            return _duplicate_id_refusal(pdu)
        cited = await self._draft.load({*pdu.auth_events, *pdu.prev_events})
        if len(cited) < len({*pdu.auth_events, *pdu.prev_events}):
            return Refusal(code=RefusalCode.UNREACHABLE, text="what was before it is not here")
        if not all(cited[e].after for e in pdu.prev_events):
            return Refusal(code=RefusalCode.UNREACHABLE, text="what was before it has no place here")
        group, before, made = await self._draft.before(pdu, cited)
        reject = await self._check_auth_events(pdu, cited, before)
        if reject is None:
            reject = await self._draft.check_auth_selected(pdu, before)
        writes = made
        if reject is not None:
            why = f"{reject.rule}: {reject.reason}"
            stored = StoredEvent(pdu, Status.REJECTED, group, group, why, depth=depth)
        else:
            after = self._draft.after(pdu, group, before)
            status, why = _status_by_verdict(verdict)
            stored = self._draft.judged_now(StoredEvent(pdu, status, group, after, why, depth=depth))
            stored = await self._draft.as_stored(stored, before)
        self._draft.stored[pdu.event_id] = stored
        self._draft.head = advance_with_gap(self._draft.head, pdu, ())
        writes.append(stored.put())
        if reject is None:
            writes += self._draft.relation_writes(stored, live=False)
            writes += await self._draft.redacted(pdu, before, live=False)
        return self._draft.to_prepared(writes, shown=False)

    async def _check_auth_events(
        self, pdu: Pdu, cited: Mapping[str, StoredEvent], before: StateIds
    ) -> AuthRejection | None:
        """Check 4: against the event's own auth events."""
        version = self._draft.room.version
        lacking = [e for e in pdu.auth_events if e not in cited]
        if lacking:
            return AuthRejection(
                "2.auth_events", f"{lacking[0]} belongs to another room, or cannot be fetched"
            )
        rejected = {e for e, s in cited.items() if s.status is Status.REJECTED}
        auth = [cited[e].pdu for e in pdu.auth_events]
        create = (await self._draft.state_events(before, ())).get(CREATE_KEY)
        reject = check_auth_events(pdu, auth, version, create=create, rejected=rejected)
        if reject is not None:
            return reject
        state = {one.key: one for one in auth if one.state_key is not None}
        if create is not None:
            state.setdefault(CREATE_KEY, create)
        return self._draft.check(pdu, state)


def _status_by_verdict(verdict: Verdict) -> tuple[Status, str]:
    """Returns the status of an event that passes the rules, and the reason."""
    if verdict.allowed:
        return Status.ACCEPTED, ""
    return Status.WITHHELD, f"{DECISION}{verdict.decision}"


def _duplicate_id_refusal(pdu: Pdu) -> Refusal:
    """Where servers make ids, one may give an event the id of another event."""
    return Refusal(code=RefusalCode.INVALID, text=f"{pdu.event_id} is another event's id")


def _foreign_prev_refusal(pdu: Pdu, foreign: Collection[str]) -> Refusal:
    """An event that follows one of another room has no state before it."""
    prev = next(e for e in pdu.prev_events if e in foreign)
    return Refusal(code=RefusalCode.INVALID, text=f"prev_events names {prev}, which is of another room")
