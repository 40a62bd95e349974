"""One batch of one room: receipt checks 4 to 6 on what arrived, drafts of what our own people say.

SPEC: server-server API, "Checks performed on receipt of a PDU". What a check makes of an event is stored
with it: rejected, soft-failed, withheld (by policy), accepted. None but the accepted are shown; all but the
rejected and the soft-failed are forward extremities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from hansa import (
    Countersign,
    Delete,
    Inbound,
    LocalProtocolError,
    Member,
    Membership,
    Message,
    Missing,
    Prepared,
    Refusal,
    RefusalCode,
    RemoteProtocolError,
    Verdict,
    ViewChange,
    Write,
)

from hansa_matrix.bridge import draft_of, fact_keys
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth import check_own, check_state, selected_for, selected_keys
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.pdu import finish, reference
from hansa_matrix.proto.reject import Reject
from hansa_matrix.proto.state_conflict import differing
from hansa_matrix.proto.state_keys import CREATE_KEY, MEMBER, POWER_LEVELS_KEY
from hansa_matrix.room.checks import THIRD_PARTY_OK
from hansa_matrix.room.events import Status, Stored
from hansa_matrix.room.native import Adopted, Arrived, Own, refusal_of
from hansa_matrix.room.redactions import REDACTION, applied, kept, target_of
from hansa_matrix.room.room import Head, MatrixRoom, advanced, without_past
from hansa_matrix.room.state import StateIds

_MAX_PREV = 20
_MAX_DEPTH = 2**53 - 1


@dataclass(slots=True)
class _Drafts:
    head: Head
    group_before: int
    #: Whether somebody of ours is still joined.
    resident: bool
    stored: dict[str, Stored] = field(default_factory=dict)
    recipients: list[frozenset[str]] = field(default_factory=list)


class RoomTurn:
    """See ``hansa.Turn``."""

    def __init__(self, room: MatrixRoom, own: Own, servers: frozenset[str] = frozenset()) -> None:
        #: Who is in a room that the core does not know yet.
        self._given = servers
        self._room = room
        self._own = own
        self._ctx = own.ctx
        self._drafts = _Drafts(room.head, room.groups.last, room.resident)
        self._new: frozenset[str] = frozenset()
        #: Events redacted by the one that is being prepared.
        self._blanked: list[str] = []
        self._awaited = dict(room.awaited.by_target)

    async def expect(self, batch: Iterable[Inbound]) -> None:
        """Read in one go what the arrived events of a batch need, and learn which are new."""
        pdus = [inbound.native.pdu for inbound in batch if isinstance(inbound.native, Arrived)]
        wanted = {e for pdu in pdus for e in (pdu.event_id, *pdu.auth_events, *pdu.prev_events)}
        found = await self._room.events.load(wanted, self._room.version)
        self._new = frozenset(wanted - found.keys())

    def closing(self) -> list[Write]:
        """See ``hansa.Turn.closing``: where the room stands afterwards."""
        if self._drafts.head is self._room.head and not self._drafts.stored:
            return []
        return [self._ctx.store.owned(self._room.put(self._drafts.head, resident=self._drafts.resident))]

    def committed(self) -> None:
        """See ``hansa.Turn.committed``."""
        self._room.head = self._drafts.head
        self._room.resident = self._drafts.resident
        self._room.events.keep(self._drafts.stored.values())
        for servers in self._drafts.recipients:
            self._own.sender.sent(servers)

    def abandoned(self) -> None:
        """See ``hansa.Turn.abandoned``."""
        self._room.forget(self._drafts.group_before)
        self._room.awaited.by_target = self._awaited

    async def prepare(self, inbound: Inbound, verdict: Verdict) -> Prepared | Missing | Countersign | Refusal:
        """See ``hansa.Turn.prepare``."""
        if isinstance(inbound.native, Arrived):
            return await self._arrived(inbound.native, verdict)
        if isinstance(inbound.native, Adopted):
            return await self._adopted(inbound.native)
        if not verdict.allowed:  # ours is no history that could be withheld yet
            return Refusal(code=RefusalCode.POLICY, text=verdict.text, decision=verdict.decision)
        try:
            return await self._local(inbound)
        except RemoteProtocolError as error:
            return Refusal(code=RefusalCode.TOO_LARGE, text=error.reason)

    @property
    def head(self) -> Head:
        """Where the room will stand once this turn is committed."""
        return self._drafts.head

    async def own_event(
        self, sender: str, type_: str, state_key: str | None, content: dict[str, Any]
    ) -> list[Write]:
        """The writes of an event that we send for ourselves. Raises LocalProtocolError if rules forbid it."""
        made = await self._draft(sender, type_, state_key, content)
        if isinstance(made, Refusal):
            raise LocalProtocolError(f"{type_}: {made.text}")
        return made[1]

    def _drafted(self, event_id: str) -> Stored | None:
        return self._drafts.stored.get(event_id)

    async def _load(self, event_ids: Iterable[str]) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        others: list[str] = []
        for event_id in event_ids:
            drafted = self._drafts.stored.get(event_id)
            if drafted is not None:
                found[event_id] = drafted
            elif event_id not in self._new:
                others.append(event_id)
        if others:
            found.update(await self._room.events.load(others, self._room.version))
        return found

    async def _view_of(self, state: StateIds, keys: Iterable[StateKey]) -> dict[StateKey, Pdu]:
        wanted = {key: state[key] for key in {*keys, CREATE_KEY} if key in state}
        stored = await self._load(wanted.values())
        return {key: stored[e].pdu for key, e in wanted.items() if e in stored}

    def _check(self, pdu: Pdu, state: Mapping[StateKey, Pdu]) -> Reject | None:
        return check_state(
            pdu, state, self._room.version, third_party_ok=THIRD_PARTY_OK, levels=self._room.levels
        )

    async def _arrived(self, arrived: Arrived, verdict: Verdict) -> Prepared | Missing | Refusal:
        pdu, room = arrived.pdu, self._room
        done: list[Write] = [Delete("staged", arrived.staged)] if arrived.staged else []
        known = (await self._load([pdu.event_id])).get(pdu.event_id)
        if known is not None and known.after:
            return self._prepared(done, shown=False)
        cited = await self._load({*pdu.auth_events, *pdu.prev_events})
        missing = [e for e in (*pdu.auth_events, *pdu.prev_events) if e not in cited]
        missing += [e for e in pdu.prev_events if e in cited and not cited[e].after]
        if missing:
            return Missing(refs=tuple(dict.fromkeys(missing)))
        foreign = [e for e in pdu.prev_events if cited[e].pdu.room_id != pdu.room_id]
        if foreign:  # its state is that of another room, whose groups are numbered as ours are
            text = f"prev_events names {foreign[0]}, which is of another room"
            return Refusal(code=RefusalCode.INVALID, text=text)
        before_group, before, made = await self._before(pdu, cited)
        reject = await self._own_auth(pdu, cited, before)
        if reject is None:
            reject = self._check(pdu, await self._view_of(before, selected_for(pdu, room.version)))
        status = Status.REJECTED if reject else Status.ACCEPTED
        if reject is None and before_group != self._drafts.head.group:
            current = await self._present(pdu, before_group)
            reject = self._check(pdu, await self._view_of(current, selected_for(pdu, room.version)))
            status = Status.SOFT_FAILED if reject else status
        if reject is not None:
            if arrived.handshake:
                return refusal_of(reject)
            self._ctx.count("matrix_pdus", status=status.value)
            self._ctx.log.info("%s %s: %s (%s)", status.value, pdu.event_id, reject.reason, reject.rule)
            after, puts = before_group, list[Write]()
            if status is Status.SOFT_FAILED:
                after, puts = self._after(pdu, before_group, before)
            why = f"{reject.rule}: {reject.reason}"
            stored = Stored(pdu, status, before_group, after, why)
            self._drafts.stored[pdu.event_id] = stored
            return self._prepared([*done, *made, *puts, stored.put()], shown=False)
        if not verdict.allowed:
            status = Status.WITHHELD
        writes, view = await self._accept(pdu, status, before_group, before)
        relay: list[Write] = []
        if arrived.handshake:
            relay = self._out(pdu, self._servers() - {arrived.origin})
            if pdu.membership == "join":
                relay += self._beside(pdu, arrived.origin)
        return self._prepared(
            [*done, *made, *writes, *relay],
            native_id=pdu.event_id,
            shown=status is Status.ACCEPTED,
            view=view,
        )

    async def _present(self, pdu: Pdu, before_group: int) -> StateIds:
        """What check 6 holds an event against: the current state. Where the event follows one whose past we
        do not have, our own present may be old, and what was before the event is resolved into it.
        """
        head = self._drafts.head
        cited = await self._load(pdu.prev_events)
        past = {e for one in cited.values() for e in one.pdu.prev_events}
        placed = await self._load(past)
        if all(e in placed and placed[e].after for e in past):
            return await self._room.groups.load(head.group)
        groups = {*head.extremities.values(), before_group}
        return (await self._room.resolved(groups, self._drafted))[1]

    async def _adopted(self, adopted: Adopted) -> Prepared:
        pdu, state, room = adopted.pdu, adopted.state, self._room
        known = (await self._load([pdu.event_id])).get(pdu.event_id)
        if known is not None and known.after:
            return self._prepared([], shown=False)
        parent = self._drafts.head.group
        before, puts = room.groups.grow(parent, await room.groups.load(parent), state)
        after, writes = before, list[Write](puts)
        if pdu.state_key is not None:
            after, puts = room.groups.grow(before, state, {**state, pdu.key: pdu.event_id})
            writes += puts
        stored = Stored(pdu, Status.ACCEPTED, before, after)
        self._drafts.stored[pdu.event_id] = stored
        placed = await self._load(pdu.prev_events)
        missing = [e for e in pdu.prev_events if e not in placed or not placed[e].after]
        self._drafts.head = without_past(self._drafts.head, pdu, missing)
        return self._prepared([*writes, stored.put()], shown=False)

    async def _before(
        self, pdu: Pdu, cited: Mapping[str, Stored]
    ) -> tuple[int, dict[StateKey, str], Sequence[Write]]:
        """The state before an event: its group, itself, and the writes that make the group."""
        groups = [cited[e].after for e in pdu.prev_events] or [0]
        return await self._room.joined(groups, groups[0], self._drafted)

    async def _own_auth(self, pdu: Pdu, cited: Mapping[str, Stored], before: StateIds) -> Reject | None:
        """Check 4: against the event's own auth events."""
        version = self._room.version
        rejected = {e for e, s in cited.items() if s.status is Status.REJECTED}
        auth = [cited[e].pdu for e in pdu.auth_events]
        create = (await self._view_of(before, ())).get(CREATE_KEY)
        reject = check_own(pdu, auth, version, create=create, rejected=rejected)
        if reject is not None:
            return reject
        state = {one.key: one for one in auth if one.state_key is not None}
        if create is not None:
            state.setdefault(CREATE_KEY, create)
        return self._check(pdu, state)

    async def _accept(
        self, pdu: Pdu, status: Status, before_group: int, before: dict[StateKey, str]
    ) -> tuple[list[Write], ViewChange]:
        """Put an event into the DAG and make the current state of what follows."""
        room, writes = self._room, list[Write]()
        old_group = self._drafts.head.group
        after, puts = self._after(pdu, before_group, before)
        writes += puts
        stored = Stored(pdu, status, before_group, after)
        self._drafts.stored[pdu.event_id] = stored
        writes.append(stored.put())
        head = advanced(self._drafts.head, pdu, after, after)
        group, current, made = await room.joined(head.extremities.values(), after, self._drafted)
        writes.extend(made)
        self._drafts.head = replace(head, group=group)
        if pdu.type == MEMBER and pdu.membership != "join" and self._of_ours(pdu.state_key):
            self._drafts.resident = await self._anybody(current)
        linear = old_group == before_group and len(head.extremities) == 1
        hidden = await self._redacted(pdu, before)
        writes += hidden
        view = await self._seen(pdu, old_group, current, linear=linear)
        return writes, view

    async def _redacted(self, pdu: Pdu, before: StateIds) -> list[Write]:
        """What an event that came now does to others if it is a redaction, and what others do to it."""
        room, writes = self._room, list[Write]()
        pairs: list[tuple[Pdu, str, StateIds]] = []
        if pdu.type == REDACTION:
            target = target_of(pdu, room.version)
            if target is not None and target in await self._load([target]):
                pairs.append((pdu, target, before))
            elif target is not None:
                writes += room.awaited.wait(target, pdu.event_id)
        if pdu.event_id in room.awaited.by_target:
            waited, writes = room.awaited.come(pdu.event_id)
            known = await self._load(waited)
            pairs += [(s.pdu, pdu.event_id, await room.groups.load(s.before)) for s in known.values()]
        for redaction, target, state in pairs:
            before_it = (await self._load([target]))[target]
            powers = await self._view_of(state, [POWER_LEVELS_KEY])
            after = applied(redaction, before_it, powers, room.version)
            if after is None:
                continue
            self._drafts.stored[target] = after
            self._blanked.append(target)
            writes.append(after.put())
            keep = self._ctx.config.keep_redacted_for
            if keep:
                writes.append(kept(before_it, self._ctx.clock.now() + keep * 1000))
        return writes

    def _of_ours(self, user: str | None) -> bool:
        return user is not None and ids.domain_of(user) == self._own.server

    async def _anybody(self, state: StateIds) -> bool:
        """Whether somebody of ours is joined in a state; who is not in the room takes no part in it (J-9)."""
        ours = [key for key in state if key[0] == MEMBER and self._of_ours(key[1])]
        for at in range(0, len(ours), 50):
            members = await self._view_of(state, ours[at : at + 50])
            if any(pdu.membership == "join" for key, pdu in members.items() if key[0] == MEMBER):
                return True
        return False

    def _after(self, pdu: Pdu, group: int, before: StateIds) -> tuple[int, list[Write]]:
        """The group of the state after an event, also a soft-failed one: what follows it counts it in."""
        if pdu.state_key is None:
            return group, []
        after, puts = self._room.groups.grow(group, before, {**before, pdu.key: pdu.event_id})
        return after, list(puts)

    async def _seen(self, pdu: Pdu, old_group: int, current: StateIds, *, linear: bool) -> ViewChange:
        keys = {one.pdu.key for one in await self._blank_state(current)}
        if linear:
            keys |= {pdu.key} if pdu.state_key is not None else set()
        else:
            old = await self._room.groups.load(old_group)
            if old is not current:
                keys |= set(differing(old, current))
        if not keys:
            return ViewChange()
        around = await self._view_of(current, {*keys, *fact_keys(), POWER_LEVELS_KEY})
        changed = {key: around.get(key) for key in sorted(keys)}
        levels = self._room.levels(around[CREATE_KEY], around.get(POWER_LEVELS_KEY), self._room.version)
        return await self._own.views.changed(
            self._room.room_id, changed, around, self._room.version.id, levels
        )

    async def _blank_state(self, current: StateIds) -> list[Stored]:
        """Of what was redacted just now that which is state: a name or topic that says nothing any more."""
        found = (await self._load(self._blanked)).values()
        return [s for s in found if s.pdu.state_key is not None and current.get(s.pdu.key) == s.pdu.event_id]

    def _servers(self) -> frozenset[str]:
        """The servers with a joined person before this event."""
        view = self._ctx.view(self._room.room_id)
        if view is None:
            return self._given
        return frozenset(s for n, s in view.joined_servers if n == self._ctx.id) - {self._own.server}

    def _out(self, pdu: Pdu, servers: frozenset[str]) -> list[Write]:
        if pdu.type == MEMBER and pdu.state_key and pdu.membership in {"leave", "ban"}:
            servers |= {ids.domain_of(pdu.state_key)} - {self._own.server}
        self._drafts.recipients.append(servers)
        return self._own.sender.writes(pdu.event_id, pdu.room_id, servers)

    def _beside(self, join: Pdu, server: str) -> list[Write]:
        """What stands beside a join, made while its handshake was under way, is not in the state before the
        join that its server gets, and was sent to nobody there: two who join at once would not know of each
        other. So it is sent after.
        """
        beside = [e for e in self._drafts.head.extremities if e != join.event_id]
        if beside:
            self._drafts.recipients.append(frozenset({server}))
        return [w for e in beside for w in self._own.sender.writes(e, join.room_id, {server})]

    def _prepared(
        self,
        writes: list[Write],
        *,
        native_id: str = "",
        shown: bool = True,
        view: ViewChange | None = None,
    ) -> Prepared:
        owned = [self._ctx.store.owned(write) for write in writes]
        blanked, self._blanked = tuple(self._blanked), []
        return Prepared(
            writes=owned, native_id=native_id, shown=shown, view=view or ViewChange(), blanked=blanked
        )

    async def _local(self, inbound: Inbound) -> Prepared | Missing | Countersign | Refusal:
        """An event of one of our people, native or ghost, drafted on the current state."""
        content = inbound.content
        sender = await self._ctx.ghost(inbound.sender)
        target = await self._ctx.ghost(content.user) if isinstance(content, Member) else ""
        draft = inbound.native if isinstance(inbound.native, tuple) else draft_of(content, target)
        if draft is None:
            return Refusal(code=RefusalCode.UNSUPPORTED, text="this cannot be said in a Matrix room")
        invite = isinstance(content, Member) and content.membership is Membership.INVITE
        if invite and ids.domain_of(target) != self._own.server:
            signed = await self._signed(sender, *draft)
            return signed if isinstance(signed, Refusal) else Countersign(draft=signed)
        writes: list[Write] = []
        view, drafts = ViewChange(), self._drafts
        if isinstance(content, Message) and await self._absent(sender):
            joined = Member(user=inbound.sender, membership=Membership.JOIN)
            entry = draft_of(joined, sender)
            assert entry is not None
            self._drafts = replace(drafts, stored={**drafts.stored}, recipients=[*drafts.recipients])
            made = await self._draft(sender, *entry)
            if isinstance(made, Refusal):
                return made
            writes, view = made[1], made[2]
        made = await self._draft(sender, *draft)
        if isinstance(made, Refusal):
            if writes:  # neither the entry nor the word happened
                self._drafts = drafts
            return made
        pdu, more, change = made
        both = ViewChange(people=view.people + change.people, gone=change.gone, facts=change.facts)
        return self._prepared([*writes, *more], native_id=pdu.event_id, view=both)

    async def _absent(self, user: str) -> bool:
        state = await self._room.groups.load(self._drafts.head.group)
        key = (MEMBER, user)
        member = (await self._view_of(state, [key])).get(key)
        return member is None or member.membership not in {"join", "ban"}

    async def _draft(
        self, sender: str, type_: str, state_key: str | None, content: dict[str, Any]
    ) -> tuple[Pdu, list[Write], ViewChange] | Refusal:
        pdu = await self._signed(sender, type_, state_key, content)
        if isinstance(pdu, Refusal):
            return pdu
        servers, groups = self._servers(), self._followed().values()
        group, state, made = await self._room.joined(groups, next(iter(groups)), self._drafted)
        writes, view = await self._accept(pdu, Status.ACCEPTED, group, state)
        return pdu, [*made, *writes, *self._out(pdu, servers)], view

    def _followed(self) -> dict[str, int]:
        """The forward extremities that an event of ours follows, 20 at most, with the groups after them."""
        return dict(islice(self._drafts.head.extremities.items(), _MAX_PREV))

    async def _signed(
        self, sender: str, type_: str, state_key: str | None, content: dict[str, Any]
    ) -> Pdu | Refusal:
        """An event of ours on the current state, which lets it pass; not a part of the DAG yet."""
        room, head = self._room, self._drafts.head
        version = room.version
        followed = self._followed()
        _, state = await room.resolved(followed.values(), self._drafted)
        keys = selected_keys(type_, sender, state_key, content, version)
        cited = await self._view_of(state, keys)
        before = await self._load(followed)
        auth = sorted((cited[key] for key in keys if key in cited), key=lambda one: one.event_id)
        event = {
            "type": type_,
            "room_id": room.room_id,
            "sender": sender,
            "content": content,
            "prev_events": [reference(before[e].pdu, version) for e in followed],
            "auth_events": [reference(one, version) for one in auth],
            "depth": min(head.depth + 1, _MAX_DEPTH),
            "origin_server_ts": self._ctx.clock.now(),
        }
        if state_key is not None:
            event["state_key"] = state_key
        if type_ == REDACTION and not version.redacts_in_content:
            event["content"] = {k: v for k, v in content.items() if k != "redacts"}
            event["redacts"] = content.get("redacts")
        if version.named_event_ids:
            event["event_id"] = self._own.event_id()
        signer: tuple[str, Callable[[bytes], str]] = (self._own.key.key_id, self._own.key.sign)
        pdu = finish(event, version, self._own.server, signer)
        reject = self._check(pdu, cited)
        return pdu if reject is None else refusal_of(reject)
