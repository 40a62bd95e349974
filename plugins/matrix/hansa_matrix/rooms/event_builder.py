"""Builds the events of local users on the current state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

from hansa import (
    Call,
    Content,
    Countersign,
    Edit,
    HistoryVisibility,
    JoinRule,
    LocalProtocolError,
    Location,
    Member,
    Membership,
    Message,
    Missing,
    PollEnd,
    PollStart,
    PollVote,
    Prepared,
    Reaction,
    Refusal,
    RefusalCode,
    Retraction,
    Standing,
    Submission,
    ViewDelta,
    Write,
)

from hansa_matrix.conversion.to_matrix import EventDraft
from hansa_matrix.local.transaction_ids import ClientTransaction
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.rules import auth_event_keys
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import hash_and_sign, reference_to
from hansa_matrix.proto.servers.policy_server import is_exempt
from hansa_matrix.rooms.event_store import Status
from hansa_matrix.rooms.inbound.policy_server import PolicyServerClient
from hansa_matrix.rooms.native_events import ClientEvent, DerivedState, JoinThenSend, refusal_of
from hansa_matrix.rooms.outbound_content import OutboundContent
from hansa_matrix.rooms.redactions import REDACTION
from hansa_matrix.rooms.room_draft import RoomDraft
from hansa_matrix.rooms.state_changes import KEYS, StateChanges

_MAX_PREV = 20
#: What people say: who is not in the room yet joins with it.
_SPOKEN = (Message, Edit, Reaction, Retraction, Location, PollStart, PollVote, PollEnd, Call)


class EventBuilder:
    """Makes local events, signs them and puts them into the DAG. Without ``policing`` it does not ask a
    policy server, as for the first events of a room.
    """

    def __init__(self, draft: RoomDraft, policing: PolicyServerClient | None = None) -> None:
        self._draft = draft
        self._policing = policing
        self._outbound = OutboundContent(draft.ctx, draft.own.views.ids, draft.room.room_id)

    async def local_event(
        self, sender: str, type_: str, state_key: str | None, content: dict[str, Any]
    ) -> list[Write]:
        """The writes of an event that we send for ourselves. Raises ``LocalProtocolError`` if the rules
        forbid it.
        """
        made = await self._build_and_append(sender, type_, state_key, content)
        if isinstance(made, Refusal):
            raise LocalProtocolError(f"{type_}: {made.text}")
        return made[1]

    async def build_event(self, inbound: Submission) -> Prepared | Missing | Countersign | Refusal:
        """An event of one of our people, native or ghost, drafted on the current state. Raises
        ``RemoteProtocolError`` for one that is too large.
        """
        content = inbound.content
        sender = await self._draft.ctx.get_ghost_id(inbound.sender)
        target = await self._draft.ctx.get_ghost_id(content.user) if isinstance(content, Member) else ""
        spoken = isinstance(inbound.native, ClientEvent)
        files: list[EventDraft | None] = []
        handle = inbound.native.handle if isinstance(inbound.native, ClientEvent) else None
        if isinstance(inbound.native, ClientEvent):
            draft: EventDraft | None = inbound.native.draft
        elif isinstance(inbound.native, tuple):
            draft = inbound.native
        elif isinstance(inbound.native, DerivedState):
            draft = inbound.native.draft
            if await self._is_outdated(inbound.native):
                return Refusal(code=RefusalCode.CONFLICT, text=f"the room's {draft[0]} changed meanwhile")
        else:
            if isinstance(content, Retraction) and not await self._outbound.is_known(content.target):
                return self._draft.to_prepared([])  # nobody on Matrix has seen it
            changed = await self._change_of_state(content)
            if isinstance(changed, Refusal):
                return changed
            draft = changed
            if changed is None:
                draft, *files = await self._drafts_of(content)
        if draft is None:
            return Refusal(code=RefusalCode.UNSUPPORTED, text="this cannot be sent to a Matrix room")
        invite = isinstance(content, Member) and content.membership is Membership.INVITE
        abroad = invite and ids.domain_of(target) != self._draft.own.server
        if abroad or await self._needs_policy_server(*draft[:2]):
            if not spoken and isinstance(content, _SPOKEN) and await self._needs_join(sender):
                return Countersign(draft=JoinThenSend(inbound.sender, draft))
            signed = await self._build_signed(sender, *draft)
            if isinstance(signed, Refusal):
                return signed
            self._remember_txn(signed, handle)
            return Countersign(draft=signed)
        writes: list[Write] = []
        view, undo = ViewDelta(), None
        if not spoken and isinstance(content, _SPOKEN) and await self._needs_join(sender):
            joined = Member(user=inbound.sender, membership=Membership.JOIN)
            entry = await self._outbound.draft_of(joined)
            assert entry is not None
            undo = self._draft.savepoint()
            made = await self._build_and_append(sender, *entry)
            if isinstance(made, Refusal):
                return made
            writes, view = made[1], made[2]
        made = await self._build_and_append(sender, *draft)
        if isinstance(made, Refusal):
            if undo is not None:  # neither the entry nor the word happened
                undo()
            return made
        pdu, more, change = made
        further = list[str]()
        for file in filter(None, files):
            also = await self._build_and_append(sender, *file)
            if not isinstance(also, Refusal):
                more += also[1]
                further.append(also[0].event_id)
        if isinstance(content, Retraction | Edit) and inbound.native is None:
            for redaction in await self._outbound.further_redactions(content):
                if await self._is_redacted(redaction[2]["redacts"]):
                    continue
                also = await self._build_and_append(sender, *redaction)
                more += [] if isinstance(also, Refusal) else also[1]
        self._remember_txn(pdu, handle)
        both = ViewDelta(upserts=view.upserts + change.upserts, removed=change.removed, info=change.info)
        prepared = self._draft.to_prepared(
            [*writes, *more], native_id=pdu.event_id, more_ids=further, view=both
        )
        # The message stands, without some of its files.
        return replace(prepared, redacted=()) if isinstance(content, Edit) else prepared

    async def redact_other_parts(self, prepared: Prepared) -> Prepared:
        """The same, with the redactions of what is left of each message of several events that lost one. It
        is one event for other networks, which have retracted it whole.
        """
        writes = list[Write]()
        for native in prepared.redacted:
            for sender, other in await self._outbound.other_parts(native):
                if other in prepared.redacted or await self._is_redacted(other):
                    continue
                made = await self._build_and_append(sender, REDACTION, None, {"redacts": other})
                if isinstance(made, Refusal):  # the ghost has left, or was banned
                    self._draft.counted("matrix_redactions", status="part_stays")
                else:
                    writes += made[1]
        more = self._draft.to_prepared(writes)
        return replace(
            prepared,
            writes=[*prepared.writes, *more.writes],
            redacted=(*prepared.redacted, *more.redacted),
        )

    async def _is_redacted(self, event_id: str) -> bool:
        """True if another event redacted it, in this turn or before, and if it is not here."""
        known = (await self._draft.load([event_id])).get(event_id)
        return known is None or known.redacted

    async def _drafts_of(self, content: Content) -> list[EventDraft | None]:
        """The event that a content is, and one for each further file of a message. In a room with a policy
        server, which signs one event at a time, a message names them.
        """
        parts = self._outbound.parts_of(content)
        if len(parts) > 1 and await self._needs_policy_server("m.room.message", None):
            parts = [content]
        return [await self._outbound.draft_of(part) for part in parts]

    async def _is_outdated(self, derived: DerivedState) -> bool:
        type_, state_key, _ = derived.draft
        state = await self._draft.room.groups.load(self._draft.head.group)
        return state.get((type_, state_key or ""), "") != derived.made_of

    async def _change_of_state(self, content: Content) -> EventDraft | Refusal | None:
        """The draft of a change of state, on the state before it; None for other content."""
        if not isinstance(content, Standing | JoinRule | HistoryVisibility):
            return None
        user = await self._draft.ctx.get_ghost_id(content.user) if isinstance(content, Standing) else ""
        followed = await self._prev_events()
        _, state = await self._draft.room.resolve_state(followed.values(), self._draft.get_draft)
        changes = StateChanges(await self._draft.state_events(state, KEYS), self._draft.room.version)
        return changes.draft_of(content, user)

    def _remember_txn(self, pdu: Pdu, handle: ClientTransaction | None) -> None:
        if handle is not None:
            self._draft.own.memberships.sent.record_event(pdu.event_id, handle)

    async def _needs_policy_server(self, type_: str, state_key: str | None) -> bool:
        """True if the room's policy server must sign such a local event before any server gets it."""
        if self._policing is None or is_exempt(type_, state_key):
            return False
        return await self._policing.policy_server_of(self._draft.room) is not None

    async def _needs_join(self, user: str) -> bool:
        state = await self._draft.room.groups.load(self._draft.head.group)
        key = (MEMBER, user)
        member = (await self._draft.state_events(state, [key])).get(key)
        return member is None or member.membership not in {"join", "ban"}

    async def _build_and_append(
        self, sender: str, type_: str, state_key: str | None, content: dict[str, Any]
    ) -> tuple[Pdu, list[Write], ViewDelta] | Refusal:
        pdu = await self._build_signed(sender, type_, state_key, content)
        if isinstance(pdu, Refusal):
            return pdu
        servers, groups = self._draft.servers(), (await self._prev_events()).values()
        group, state = await self._draft.room.joined(groups, next(iter(groups)), self._draft.get_draft)
        writes, view = await self._draft.append(pdu, Status.ACCEPTED, group, state)
        return pdu, [*writes, *self._draft.out(pdu, servers)], view

    async def _prev_events(self) -> dict[str, int]:
        """Returns the forward extremities that a local event follows, 20 at most, with the groups after them;
        the head may have one resolved group for several.
        """
        ends = dict(islice(self._draft.head.extremities.items(), _MAX_PREV))
        if len(ends) == 1:
            return ends
        return {e: one.after for e, one in (await self._draft.load(ends)).items()}

    async def _build_signed(
        self, sender: str, type_: str, state_key: str | None, content: dict[str, Any]
    ) -> Pdu | Refusal:
        """Returns a local event on the current state, which allows it; it is not in the DAG yet."""
        room, head = self._draft.room, self._draft.head
        version = room.version
        followed = await self._prev_events()
        _, state = await room.resolve_state(followed.values(), self._draft.get_draft)
        keys = auth_event_keys(type_, sender, state_key, content, version)
        cited = await self._draft.state_events(state, keys)
        before = await self._draft.load(followed)
        auth = sorted((cited[key] for key in keys if key in cited), key=lambda one: one.event_id)
        event = {
            "type": type_,
            "room_id": room.room_id,
            "sender": sender,
            "content": content,
            "prev_events": [reference_to(before[e].pdu, version) for e in followed],
            "auth_events": [reference_to(one, version) for one in auth],
            "depth": head.next_depth,
            "origin_server_ts": self._draft.ctx.clock.now(),
        }
        if state_key is not None:
            event["state_key"] = state_key
        if type_ == REDACTION and not version.redacts_in_content:
            event["content"] = {k: v for k, v in content.items() if k != "redacts"}
            event["redacts"] = content.get("redacts")
        if version.server_made_event_ids:
            event["event_id"] = self._draft.own.event_id()
        signer: tuple[str, Callable[[bytes], str]] = (self._draft.own.key.key_id, self._draft.own.key.sign)
        pdu = hash_and_sign(event, version, self._draft.own.server, signer)
        reject = self._draft.check(pdu, cited)
        if reject is not None:
            return refusal_of(reject)
        if type_ == REDACTION and (why := await self._draft.no_redaction(pdu, state)):
            return Refusal(code=RefusalCode.FORBIDDEN, text=f"the redaction does not apply: {why}")
        return pdu
