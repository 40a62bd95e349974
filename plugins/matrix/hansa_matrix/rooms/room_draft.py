"""A room as it stands within a turn, before anything of that is committed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from hansa import Prepared, ViewDelta, Whole, Write

from hansa_matrix.conversion.room_views import view_state_keys
from hansa_matrix.local.client_stream import stream_write
from hansa_matrix.local.memberships import LocalMembership, membership_from_event
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.reject import AuthRejection
from hansa_matrix.proto.auth_rules.rules import auth_event_keys_of, check_event_auth
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY, MEMBER, POWER_LEVELS_KEY
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.state_res.conflicts import state_delta
from hansa_matrix.rooms.access.visible_events import shown_of
from hansa_matrix.rooms.event_store import Status, StoredEvent
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.redactions import (
    REDACTION,
    PendingRedaction,
    apply_redaction,
    original_write,
    redaction_problem,
    target_of,
    withheld_redaction,
)
from hansa_matrix.rooms.relations import relation_writes, remove_relation_writes
from hansa_matrix.rooms.room import MAX_GAPS, MatrixRoom, RoomHead, advance_head, bound_extremities
from hansa_matrix.rooms.state.hole_states import HoleStates
from hansa_matrix.rooms.state.state_groups import StateIds
from hansa_matrix.rooms.state.state_propagation import StatePropagation
from hansa_matrix.rooms.third_party_check import THIRD_PARTY_OK

#: The change of the view by an event that is neither state nor a redaction.
_SAME = ViewDelta()
#: Events of a room that are looked for after one was taken for new and was not: to find that out at the
#: commit costs far more, and a peer could do it with every transaction.
_DOUBTED = 1000


class RoomDraft:
    """Events are put into the DAG here one after the other; the room itself changes with ``committed``."""

    def __init__(self, room: MatrixRoom, own: LocalServer, servers: frozenset[str] = frozenset()) -> None:
        self.room = room
        self.own = own
        self.ctx = own.ctx
        #: Where the room will stand.
        self.head: RoomHead = room.head
        #: The policies that judge: who makes this judges afterwards, or has judged by no others (the core
        #: sends what was judged by others back). They may change before the turn ends.
        self.generation = self.ctx.policy_generation
        #: The events of this turn.
        self.stored: dict[str, StoredEvent] = {}
        #: True if a local user is still joined.
        self._resident = room.resident
        self._attended = room.attended
        #: The changed memberships of local users, and whether there is news for those in the room.
        self._stays: list[tuple[str, LocalMembership]] = []
        self._news = False
        #: Servers of which nobody was in the room before.
        self._came: set[str] = set()
        self._recipients: list[frozenset[str]] = []
        self._awaited = dict(room.awaited.by_target)
        #: The members of a room that the core does not know yet.
        self._given = servers
        self._new: frozenset[str] = frozenset()
        #: Those of them for which nobody has looked.
        self._assumed: frozenset[str] = frozenset()
        #: The room's row and state groups, once they are asked for.
        self._keeping: list[Write] = []
        self.passing = HoleStates(room, self.load, self.get_draft)
        #: Counters and log lines for after the commit.
        self._results: list[Callable[[], None]] = []
        #: Events redacted by the one that is being prepared.
        self._blanked: list[str] = []
        #: Events that were redacted before they had a place.
        self._taken_back: set[str] = set()

    async def expect(self, pdus: Sequence[Pdu], fresh: Collection[str] = ()) -> None:
        """Read in one go what events that arrived need, and learn which are new. Those that are ``fresh`` are
        not looked for: hardly any is known, and one that is meets itself at the commit.
        """
        wanted = {e for pdu in pdus for e in (pdu.event_id, *pdu.auth_events, *pdu.prev_events)}
        if not self.room.doubted:
            self._assumed = frozenset(fresh)
        self.room.doubted = max(0, self.room.doubted - len(pdus))
        wanted -= self._assumed
        found = await self.room.events.load(wanted, self.room.version)
        self._new = frozenset(wanted - found.keys()) | self._assumed

    def head_writes(self) -> list[Write]:
        """The writes of where the room stands afterwards."""
        if self.head is self.room.head and not self.stored and self._resident == self.room.resident:
            return []
        self._keeping = self.room.room_writes(self.head, resident=self._resident, attended=self._attended)
        return [self.ctx.store.with_scope(write) for write in (*self._keeping, *self.passing.closing())]

    async def commit(self, writes: Sequence[Write]) -> None:
        """Commit events outside a turn of the core: of a room that nobody else writes to yet. It is one
        moment, however many events it holds.
        """
        try:
            await self.room.groups.ahead()
            await self.ctx.store.commit(Whole([*writes, *self.head_writes()]))
        except BaseException:
            self.abandoned()
            raise
        self.committed()

    def counted(self, name: str, line: str = "", *values: object, **labels: str) -> None:
        """Count something, and say it in the log, once this is committed: a turn may be taken again, or end
        with what was known already.
        """
        self._results.append(partial(self._count_and_log, name, line, values, labels))

    def _count_and_log(
        self, name: str, line: str, values: Sequence[object], labels: Mapping[str, str]
    ) -> None:
        self.ctx.count(name, **labels)
        if line:
            self.ctx.log.info(line, *values)

    def mark_gap(self) -> None:
        """Marks the next event as one that follows missing events."""
        if self._attended:
            self.head = replace(self.head, gap=True)

    def leave(self) -> None:
        """Marks the room as one without local users."""
        self._resident = False

    def committed(self) -> None:
        """The room stands at ``head`` now."""
        self.room.head = self.head
        self.room.resident = self._resident
        self.room.attended = self._attended
        for user, stay in self._stays:
            self.own.memberships.on_committed(user, stay)
        if self._news:
            self.own.memberships.notify_room(self.room.room_id)
        if self._came:
            self.own.memberships.listeners.notify_servers_joined(self.room.room_id, frozenset(self._came))
        if self._keeping:
            self.room.committed(self._keeping)
        else:
            self.room.forget()
        self.room.events.keep(self.stored.values())
        self.passing.committed()
        for servers in self._recipients:
            self.own.sender.on_committed(servers)
        for result in self._results:
            result()

    def abandoned(self) -> None:
        """Nothing of this happened, or it is not known whether it did: the room is read again before anything
        else happens in it.
        """
        if self._assumed:  # one of them may be known
            self.room.doubted = _DOUBTED
        self.room.forget()
        self.room.awaited.by_target = self._awaited
        self.room.stale = True
        self.own.rooms.refresh_soon(self.room)

    def savepoint(self) -> Callable[[], None]:
        """Returns a function that undoes everything that is put into the DAG after this call."""
        head, resident, attended = self.head, self._resident, self._attended
        stored, recipients, stays = dict(self.stored), list(self._recipients), list(self._stays)
        holes, results = dict(self.passing.drafted), list(self._results)

        def undo() -> None:
            self._results = results
            self.head, self._resident, self._attended = head, resident, attended
            self.stored, self._recipients, self._stays = stored, recipients, stays
            self.passing.drafted = holes

        return undo

    def get_draft(self, event_id: str) -> StoredEvent | None:
        """An event of this turn."""
        return self.stored.get(event_id)

    async def load(self, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
        """Those of some events that are here, in this turn or stored."""
        found: dict[str, StoredEvent] = {}
        others: list[str] = []
        at_hand = self.room.events.at_hand
        for event_id in event_ids:
            one = self.stored.get(event_id)
            if one is None and event_id not in self._new:
                one = at_hand(event_id)
                if one is None:
                    others.append(event_id)
            if one is not None:
                found[event_id] = one
        if others:
            found.update(await self.room.events.load(others, self.room.version))
        return found

    async def _readable_events(self, event_ids: Iterable[str]) -> Mapping[str, StoredEvent]:
        """As ``load``, for who reads them: also what was judged by other policies."""
        return await self.room.events.recheck_policies(await self.load(event_ids))

    async def state_events(self, state: StateIds, keys: Iterable[StateKey]) -> dict[StateKey, Pdu]:
        """The events of some keys of a state; the create event always."""
        wanted = {key: state[key] for key in {*keys, CREATE_KEY} if key in state}
        stored = await self.load(wanted.values())
        return {key: stored[e].pdu for key, e in wanted.items() if e in stored}

    def check(self, pdu: Pdu, state: Mapping[StateKey, Pdu]) -> AuthRejection | None:
        """The authorisation rules on an event and a state."""
        return check_event_auth(
            pdu, state, self.room.version, third_party_ok=THIRD_PARTY_OK, levels=self.room.levels
        )

    async def check_auth_selected(self, pdu: Pdu, state: StateIds) -> AuthRejection | None:
        """The authorisation rules on an event and what they select of a state."""
        return self.check(pdu, await self.state_events(state, auth_event_keys_of(pdu, self.room.version)))

    async def before(
        self, pdu: Pdu, cited: Mapping[str, StoredEvent]
    ) -> tuple[int, dict[StateKey, str], list[Write]]:
        """The state before an event: its group, itself, and the writes of the holes that it passes over:
        events that it follows and that are not ``cited`` with a place.
        """
        groups = [cited[e].after for e in pdu.prev_events if e in cited and cited[e].after]
        if len(groups) == len(pdu.prev_events):
            parent = groups[0] if groups else 0
            return *await self.room.joined(groups or [0], parent, self.get_draft), []
        lacking = [e for e in pdu.prev_events if e not in cited or not cited[e].after]
        passed, kept, self.head = await self.passing.follow(pdu, lacking, groups, self.head)
        groups += passed
        return *await self.room.joined(groups, groups[0], self.get_draft), kept

    def after(self, pdu: Pdu, group: int, before: StateIds) -> int:
        """The group of the state after an event, also a soft-failed one: what follows it counts it in."""
        if pdu.state_key is None:
            return group
        return self.room.groups.after(group, before, pdu.key, pdu.event_id)

    async def append(
        self,
        pdu: Pdu,
        status: Status,
        before_group: int,
        before: dict[StateKey, str],
        reason: str = "",
        *,
        passed: int = 0,
        since: int = 0,
    ) -> tuple[list[Write], ViewDelta]:
        """Put an event into the DAG and make the current state of what follows. Where others were put behind
        it before, ``passed`` is the group that they took for the state there, and ``since`` the depth by our
        count of the first of them; where they are too many to change it is a branch of its own.
        """
        room, writes = self.room, list[Write]()
        old_group = self.head.group
        after = self.after(pdu, before_group, before)
        depth = self.next_depth() if passed else self.head.last + 1
        stored = StoredEvent(
            pdu, status, before_group, after, reason, generation=self.generation, depth=depth
        )
        stored = await self.as_stored(stored, before)
        self.stored[pdu.event_id] = stored
        followed = False
        if passed:
            more = await self.propagation_writes(pdu, passed, after, since)
            followed = more is not None
            writes += more or ()
        behind = self.passing.behind(pdu.prev_events)
        head = advance_head(self.head, pdu, after, after, depth, behind_holes=behind, followed=followed)
        group, current = await room.joined(head.extremities.values(), after, self.get_draft)
        self.head = bound_extremities(head if head.group == group else replace(head, group=group))
        if pdu.type == MEMBER and pdu.membership != "join" and self._of_ours(pdu.state_key):
            self._resident = await self._any_local_joined(current)
        if pdu.type == MEMBER and pdu.membership == "join" and stored.shown:
            self._add_server(ids.domain_of(pdu.state_key or ""))
        linear = old_group == before_group and len(head.extremities) == 1
        hidden = await self.redacted(pdu, before)
        keys = await self._changed_keys(pdu, old_group, current, linear=linear)
        if keys:
            writes += await self._update_local_memberships(keys, current)
        if self._attended and (stored.shown or (stored.by_policy and pdu.state_key is not None)):
            # A user who may not see the event still learns its effect on the room, such as a membership.
            self._news = True
            self.stored[pdu.event_id] = self.stored[pdu.event_id].as_live()
            writes.append(stream_write(pdu.room_id, pdu.event_id, self.head.group))
            if self.head.gap:
                gaps = (*self.head.gaps, pdu.event_id)[-MAX_GAPS:]
                self.head = replace(self.head, gaps=gaps, gap=False)
        writes += self.relation_writes(stored)
        writes += [*hidden, self.store_write(self.stored[pdu.event_id])]
        return writes, await self._view_delta(keys, current) if keys else _SAME

    def _add_server(self, server: str) -> None:
        """Notes that a user of a server joins."""
        view = self.ctx.get_view(self.room.room_id)
        known = view is None or (self.ctx.id, server) in view.joined_servers
        if not known and server != self.own.server:
            self._came.add(server)

    def store_write(self, stored: StoredEvent) -> Write:
        """The write that keeps an event. It is a ``Conflict`` if the event was taken for a new one."""
        return stored.insert() if stored.pdu.event_id in self._assumed else stored.put()

    def relation_writes(self, stored: StoredEvent, *, live: bool = True) -> list[Write]:
        """The writes by which an event that is shown is found from the one that it relates to."""
        return relation_writes(stored.pdu, self.ctx.clock.now(), live=live) if stored.shown else []

    def judged_now(self, stored: StoredEvent) -> StoredEvent:
        """An event that the policies of this turn were asked about."""
        return replace(stored, generation=self.generation)

    def next_depth(self, beyond: int = 1) -> int:
        """The depth by our count of an event that comes now."""
        self.head = replace(self.head, last=self.head.last + beyond)
        return self.head.last

    async def propagation_writes(self, pdu: Pdu, passed: int, after: int, since: int) -> list[Write] | None:
        """The writes that count an event in for what was put behind it before; None where it is too much."""
        was, now = await self.room.groups.load(passed), await self.room.groups.load(after)
        spread = StatePropagation(self.room, self.ctx.store, self.stored, self.passing.every(), since)
        self.head = await spread.go(pdu, was, now, self.head)
        if not spread.complete:
            self.counted("matrix_late_state_branches")
            return None
        self.stored |= spread.events
        self.passing.drafted |= spread.holes
        return spread.writes

    def late(self, stored: StoredEvent, *, live: bool = True) -> list[Write]:
        """The writes of an event that has its place already, and is shown only now if it is accepted. It is
        news for clients if it is ``live``.
        """
        writes: list[Write] = []
        if stored.shown:
            writes += self.relation_writes(stored, live=live)
            if self._attended and live:
                self._news, stored = True, replace(stored, live=True)
                writes.append(stream_write(stored.pdu.room_id, stored.pdu.event_id, self.head.group))
        self.stored[stored.pdu.event_id] = stored
        return [*writes, stored.put()]

    async def _update_local_memberships(self, keys: Iterable[StateKey], current: StateIds) -> list[Write]:
        """Returns the writes for the memberships of local users that changed."""
        writes: list[Write] = []
        concerned = await self.own.memberships.affected_users(keys)
        members = (
            await self.state_events(current, [(MEMBER, user) for user in concerned]) if concerned else {}
        )
        for user in concerned:
            stay = membership_from_event(self.room.room_id, user, members.get((MEMBER, user)))
            self._attended = self._attended or stay.membership == "join"
            self._stays.append((user, stay))
            writes += self.own.memberships.membership_writes(user, stay)
        return writes

    def comes_again(self, known: StoredEvent | None) -> None:
        """An event that is stored is about to get its place, or to be shown: its redaction still holds."""
        if known is not None and known.redacted:
            self._taken_back.add(known.pdu.event_id)

    async def as_stored(self, stored: StoredEvent, before: StateIds) -> StoredEvent:
        """An event as it is to be stored: a redaction that does not apply, or not yet, is withheld, and what
        was taken back before it had a place says nothing.
        """
        if stored.pdu.event_id in self._taken_back:
            self._blanked.append(stored.pdu.event_id)
            stored = apply_redaction(stored, self.room.version) or replace(stored, redacted=True)
        if stored.pdu.type != REDACTION:
            return stored
        return withheld_redaction(stored, await self.no_redaction(stored.pdu, before))

    async def no_redaction(self, pdu: Pdu, before: StateIds) -> str:
        """Why a redaction does not apply, empty if it does."""
        named = target_of(pdu, self.room.version)
        target = await self._redaction_target(named) if named is not None else None
        powers = await self.state_events(before, [POWER_LEVELS_KEY])
        return redaction_problem(pdu, target, powers, self.room.version)

    async def _redaction_target(self, named: str) -> StoredEvent | None:
        """Returns the target of a redaction, even if it is an event of another room, on which it has no
        effect.
        """
        found = await self.load([named]) or await self.room.events.load_foreign([named], self.room.version)
        return found.get(named)

    async def redacted(self, pdu: Pdu, before: StateIds, *, live: bool = True) -> list[Write]:
        """Returns the writes of redactions for a new event: its effect on others if it is a redaction, and
        the effect of others on it. ``live``: it arrived as it happened.
        """
        room, writes = self.room, list[Write]()
        if pdu.type == REDACTION:
            writes += await self._redaction_writes(pdu, before, live=live)
        if pdu.event_id not in room.awaited.by_target:
            return writes
        waited, ended = room.awaited.pop_for(pdu.event_id)
        writes += ended
        known = await self.load([one.event_id for one in waited])
        for one in waited:
            redaction = known.get(one.event_id)
            if redaction is None:
                continue
            state = await room.groups.load(redaction.before)
            now = withheld_redaction(redaction, await self.no_redaction(redaction.pdu, state))
            if now != redaction:
                writes += self.late(now, live=one.live)
            if now.shown or now.by_policy:
                writes += await self._redaction_writes(now.pdu, state, live=one.live)
        return writes

    async def _redaction_writes(self, redaction: Pdu, before: StateIds, *, live: bool) -> list[Write]:
        """The writes of what a redaction does to its target, or of its waiting for it."""
        named = target_of(redaction, self.room.version)
        if named is None:
            return []
        target, writes = await self._redaction_target(named), list[Write]()
        if target is None:
            waiting = PendingRedaction(redaction.event_id, ids.domain_of(redaction.sender), live)
            writes += self.room.awaited.wait(named, waiting)
            if not writes:
                self.counted("matrix_redactions", status="not_awaited")
            return writes
        if await self.no_redaction(redaction, before):
            self.counted("matrix_redactions", status="withheld")
            return writes
        after = apply_redaction(target, self.room.version)
        if after is None:
            return writes
        self.stored[named] = after
        self._blanked.append(named)
        writes += [*remove_relation_writes(target.pdu, redaction.event_id), after.put()]
        keep = self.ctx.config.redacted_event_ttl
        if keep:
            writes.append(original_write(target, self.ctx.clock.now() + keep * 1000))
        return writes

    def _of_ours(self, user: str | None) -> bool:
        return user is not None and ids.domain_of(user) == self.own.server

    async def _any_local_joined(self, state: StateIds) -> bool:
        """True if a local user is joined in a state; a server outside of the room takes no part in it
        (J-9).
        """
        ours = [key for key in state if key[0] == MEMBER and self._of_ours(key[1])]
        for at in range(0, len(ours), 50):
            members = await self.state_events(state, ours[at : at + 50])
            if any(pdu.membership == "join" for key, pdu in members.items() if key[0] == MEMBER):
                return True
        return False

    async def _changed_keys(
        self, pdu: Pdu, old_group: int, current: StateIds, *, linear: bool
    ) -> set[StateKey]:
        """The keys whose event in the current state is another one now, or says something else."""
        keys = {one.pdu.key for one in await self._blank_state(current)} if self._blanked else set()
        if linear:
            return keys | ({pdu.key} if pdu.state_key is not None else set())
        old = await self.room.groups.load(old_group)
        return keys if old is current else keys | set(state_delta(old, current))

    async def _view_delta(self, keys: set[StateKey], current: StateIds) -> ViewDelta:
        powers = await self.state_events(current, [POWER_LEVELS_KEY])
        levels = self.room.levels(powers[CREATE_KEY], powers.get(POWER_LEVELS_KEY), self.room.version)
        wanted = {*keys, *view_state_keys(), POWER_LEVELS_KEY}
        around = await shown_of(current, wanted, self._readable_events, self.room.groups, self.room.version)
        changed = {key: around.get(key) for key in sorted(keys)}
        return await self.own.views.changed(self.room.room_id, changed, around, self.room.version.id, levels)

    async def _blank_state(self, current: StateIds) -> list[StoredEvent]:
        """Of what was redacted just now that which is state: a name or topic that says nothing any more."""
        found = (await self.load(self._blanked)).values()
        return [s for s in found if s.pdu.state_key is not None and current.get(s.pdu.key) == s.pdu.event_id]

    def servers(self) -> frozenset[str]:
        """The other servers with a joined person before this event."""
        view = self.ctx.get_view(self.room.room_id)
        if view is None:
            return self._given
        return frozenset(s for n, s in view.joined_servers if n == self.ctx.id) - {self.own.server}

    def out(self, pdu: Pdu, servers: frozenset[str]) -> list[Write]:
        """The writes that send an event to servers."""
        if pdu.type == MEMBER and pdu.state_key and pdu.membership in {"leave", "ban"}:
            servers |= {ids.domain_of(pdu.state_key)} - {self.own.server}
        self._recipients.append(servers)
        return self.own.sender.event_writes(pdu.event_id, pdu.room_id, servers)

    def deliver_concurrent(self, join: Pdu, server: str) -> list[Write]:
        """Sends the events beside a join to its server. An event made while the handshake was in progress is
        not in the state before the join that the server gets, and was not sent to it: two users who join at
        once would not know of each other.
        """
        beside = [e for e in self.head.extremities if e != join.event_id]
        if beside:
            self._recipients.append(frozenset({server}))
        return [w for e in beside for w in self.own.sender.event_writes(e, join.room_id, {server})]

    def to_prepared(
        self,
        writes: list[Write],
        *,
        native_id: str = "",
        more_ids: Sequence[str] = (),
        shown: bool = True,
        view: ViewDelta | None = None,
    ) -> Prepared:
        """Returns the prepared event of the turn, with everything that it redacted."""
        owned = [self.ctx.store.with_scope(write) for write in writes]
        blanked, self._blanked = tuple(self._blanked), []
        return Prepared(
            writes=owned,
            native_id=native_id,
            more_ids=more_ids,
            visible=shown,
            view_delta=view or ViewDelta(),
            redacted=blanked,
        )
