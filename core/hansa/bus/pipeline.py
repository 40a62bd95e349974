"""One event from a network into the log: stages 3 to 7.

1. A submission whose origin is already an alias is answered as before (``bus/pipeline.py``).
2. Outside the room's turn, every policy is asked about the way in and each way out
   (``bus/policy_engine.py``), and the room's authority prepares what must exist (``bus/admission.py``).
3. In the room's turn, up to 50 waiting submissions are prepared in order of arrival. The room's authority
   judges them (``api/contracts.py``), or without one the rules of the view (``bus/view_rules.py``).
4. One commit has the events, aliases, decisions, the authority's own writes and the view (``bus/schema.py``).
   A turn that loses a race against another process reads the room again and is repeated (``bus/rooms.py``).
5. The consumers of the room's links are woken (``bus/delivery.py``).

Each room has one worker. A turn is never held over network I/O: a submission that misses something leaves the
turn and queues again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from hansa.api.contracts import Countersign, Missing, Turn
from hansa.bus import schema
from hansa.bus.admission import Admission, NetworkLookup, PendingSubmission, Reflected
from hansa.bus.delivery import BusServices
from hansa.bus.event_making import EventMaker
from hansa.bus.event_names import relation_put
from hansa.bus.late_authority import LateProposals, LateTurn, draft_end
from hansa.bus.membership_log import membership_writes, since_position, visibility_writes
from hansa.bus.outcomes import answer_as_duplicate, fail_items, find_receipted, mark_read
from hansa.bus.rooms import Room, Rooms
from hansa.bus.target_rules import (
    without_target,
)
from hansa.bus.turn_draft import TargetFinder, TurnDraft
from hansa.bus.view_rules import ViewRulesTurn
from hansa.model.content import (
    Content,
    Edit,
    Member,
    Retraction,
    Targeted,
    target_of,
)
from hansa.model.errors import Busy, InternalError, LocalProtocolError
from hansa.model.events import Delivery, Event, Link, Refusal, Submission, SubmitResult, refusal_by
from hansa.model.history_visibility import position_of
from hansa.model.verdict import ALLOW, Action
from hansa.model.view import RoomView, ViewDelta, as_resolved, unread, view_delta_of
from hansa.store.base import Conflict, Insert, TooLarge, Write
from hansa.store.bounds import Whole
from hansa.store.conflict_retry import again_on_conflict
from hansa.store.faults import StoreFault

_BATCH = 50
_WAITING = 1000
_MAX_RACES = 5
#: Bytes that a network keeps with an event; further names of one, and characters of a name.
_MAX_PAYLOAD, _MAX_NAMES, _MAX_NAME = 65_536, 8, 1024


class BusHost(NetworkLookup, Protocol):
    """The parts of the running application that the pipeline uses."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a task of the core's own."""
        ...

    def on_shown_in_part(self, room: Room, link: Link, event: Event) -> None:
        """The room of a link has taken the first parts of an event, and not the others."""
        ...

    def on_committed(self, room: Room, events: Sequence[Event]) -> None:
        """Events were committed."""
        ...

    async def drafted_deliveries(self, room: Room, link: Link, event: Event, key: str) -> Sequence[Delivery]:
        """What the network of a link is to propose for an event."""
        ...

    def corrected(self, room: Room) -> None:
        """The present of a room changed, and no event says so."""
        ...

    def marks_of_correction(self, room: Room) -> Sequence[Write]:
        """Writes for the commit of such a change: the links where it is to be shown, also after a crash."""
        ...

    def on_taken_back(self, room: Room, events: Sequence[Event]) -> None:
        """These events, as they were, left the log."""
        ...

    def on_command(self, room: Room, inbound: Submission) -> None:
        """A person wrote a command to the bridge, which has no place in the log."""
        ...


@dataclass(slots=True, eq=False)
class _Reconcile:
    change: ViewDelta | Callable[[], Awaitable[ViewDelta]]
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Queue:
    waiting: deque[PendingSubmission | _Reconcile] = field(default_factory=deque)
    running: bool = False


class Pipeline:
    """Takes what networks submit. ``rooms``, ``decisions`` and the store are the core's own."""

    def __init__(self, rooms: Rooms, judged: BusServices, around: BusHost) -> None:
        self._store = judged.store
        self._names = judged.names
        self._targets = TargetFinder(judged.names)
        self._rooms = rooms
        self._decisions = judged.decisions
        self._admission = Admission(judged.decisions, around)
        self._around = around
        self._late = LateProposals(judged, around, self._requeue_item, self._add_count)
        self._clock = judged.seams.clock
        self._events = EventMaker(judged.seams.clock, judged.seams.random)
        self._queues: dict[str, _Queue] = {}
        self._log = logging.getLogger("hansa.pipeline")
        self.counts: dict[str, int] = {}

    def waiting(self, room: str) -> int:
        """How many submissions of a room wait for its turn."""
        queue = self._queues.get(room)
        return len(queue.waiting) if queue else 0

    async def _find_draft(self, inbound: Submission, link: Link) -> PendingSubmission | None:
        """The draft of which a submission is the reflection that came late."""
        if not link.authority:
            return None
        room = self._rooms.room_of(inbound.room)
        return await self._late.find_draft(room, link, inbound, self._rooms.link)

    async def submit(
        self, network: str, items: Sequence[Submission], receipt: Insert | None = None
    ) -> list[SubmitResult]:
        """See ``NetworkContext.submit``; ``receipt`` names its scope."""
        made: list[PendingSubmission] = []
        loop = asyncio.get_running_loop()
        for inbound in items:
            if inbound.origin.network != network or inbound.sender.network != network:
                raise LocalProtocolError(f"{network} may not speak for {inbound.sender} ({inbound.origin})")
            link = self._rooms.link(inbound.room)
            if link is None:
                raise LocalProtocolError(f"{inbound.room} is not linked to a room")
            _require_bounds(inbound)
            drafted = await self._find_draft(inbound, link) if inbound.reflects else None
            made.append(drafted or PendingSubmission(inbound, link, loop.create_future()))
        for room in {item.link.room for item in made}:
            if self.waiting(room) + len(made) > _WAITING:
                self._add_count("busy")
                raise Busy("too many events of this room wait", after=1.0)
        if made and receipt is not None:
            made[-1].receipt, made[-1].before = receipt, tuple(made[:-1])
            for item in made:
                item.stays = True
        for item in made:
            if not item.done.done():
                self._enqueue_item(item.link.room, item)
        try:
            outcomes = [await item.done for item in made]
        except BaseException:  # of several that failed the first is told
            for item in made:
                item.done.add_done_callback(mark_read)
            raise
        if made and made[-1].receipt is not None:
            await self._store.commit([made[-1].receipt])
        return outcomes

    def server_of(self, network: str, user: str) -> str:
        """The server of a user, by the network's own rule."""
        return self._admission.server_of(network, user)

    def corrected(self, room: Room) -> None:
        """A room's present is another one in memory, and no event says so."""
        self._around.corrected(room)

    async def correct(self, room: str, change: ViewDelta | Callable[[], Awaitable[ViewDelta]]) -> None:
        """Apply a change to a room's view in the room's turn, in which it is made if it is a function."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._enqueue_item(room, _Reconcile(change, done))
        await done

    def _enqueue_item(self, room: str, item: PendingSubmission | _Reconcile) -> None:
        queue = self._queues.setdefault(room, _Queue())
        queue.waiting.append(item)
        if not queue.running:
            queue.running = True
            self._around.spawn(self._run_room(room, queue), f"room {room}")

    def _requeue_item(self, room: str, item: PendingSubmission) -> None:
        """Queue again what left the turn of its room."""
        if self._rooms.get(room) is None:
            fail_items([item], LocalProtocolError("the room is not there any more"))
        else:
            self._enqueue_item(room, item)

    async def _run_room(self, room_id: str, queue: _Queue) -> None:
        try:
            while queue.waiting:
                room = self._rooms.get(room_id)
                assert room is not None
                batch: list[PendingSubmission] = []
                while queue.waiting and len(batch) < _BATCH:
                    first = queue.waiting[0]
                    if isinstance(first, _Reconcile):
                        if batch:
                            break
                        queue.waiting.popleft()
                        await self._apply_correction(room, first)
                        continue
                    batch.append(first)
                    queue.waiting.popleft()
                if batch:
                    await self._run_batch(room, batch)
        except BaseException as error:
            for item in [*queue.waiting]:
                if not item.done.done():
                    item.done.cancel()
            queue.waiting.clear()
            if not isinstance(error, asyncio.CancelledError):
                self._log.exception("the worker of room %s failed", room_id)
            else:
                raise
        finally:
            queue.running = False

    async def _apply_correction(self, room: Room, correction: _Reconcile) -> None:
        change = ViewDelta()

        async def turn() -> None:
            nonlocal change
            if room.stale:
                await self._rooms.reload(room)
            change = await correction.change() if callable(correction.change) else correction.change
            await self._rooms.commit_change(room, change, *self._around.marks_of_correction(room))

        try:
            await again_on_conflict(turn)
            if change:
                self._around.corrected(room)
        except Exception as error:  # noqa: BLE001  # an answer to who waits, and no end of the room's worker
            if not correction.done.done():  # who waited may have gone
                correction.done.set_exception(error)
        else:
            if not correction.done.done():
                correction.done.set_result(None)

    async def _run_batch(self, room: Room, batch: list[PendingSubmission]) -> None:
        try:
            if room.stale:
                await self._rooms.reload(room)
            # A draft is hardly ever repeated, and the authority knows what it has already; one of either that
            # is repeated nevertheless meets its own alias at the commit.
            if not all(item.inbound.local or item.immutable for item in batch):
                batch = await self._drop_duplicates(batch)
            await self._admission.admit(room, [item for item in batch if not item.judged])
            for race in range(_MAX_RACES):
                try:
                    await self._run_turn(room, batch)
                    return
                except Conflict as lost:
                    if (again := find_receipted(batch, lost)) is not None:
                        again.done.set_exception(lost)
                    self._add_count("lost_race")
                    self._log.info("room %s lost a race (%d)", room.id, race + 1)
                    self._names.forget_all()
                    await self._rooms.reload(room)
                    batch = await self._drop_duplicates([i for i in batch if not i.done.done()])
            self._answer_contended(room, batch)
        except asyncio.CancelledError:
            for item in batch:
                item.done.cancel()
            raise
        except Busy as busy:
            self._add_count("busy")
            fail_items(batch, busy)
        except StoreFault as fault:  # nothing was written, and to try each alone would take as long for each
            self._add_count("store_fault", len(batch))
            fail_items(batch, fault)
            await self._reload_room(room)
        except Exception as error:  # noqa: BLE001  # one batch's fault must not end the room's worker
            cut = isinstance(error, TooLarge) and len(batch) > 1
            if cut:
                self._add_count("too_large")
                self._log.info("a turn of room %s is cut: %s", room.id, error)
            else:
                self._log.exception("a turn of room %s failed", room.id)
            await self._reload_room(room)
            left = [item for item in batch if not item.done.done()]
            if len(left) > 1 or cut:  # the others must not suffer for the one
                for item in left:
                    await self._run_batch(room, [item])
            elif left:
                left[0].done.set_exception(InternalError(f"{type(error).__name__}: {error}"))

    def _answer_contended(self, room: Room, batch: list[PendingSubmission]) -> None:
        """Others write where a room writes, again and again: who submitted something may try later."""
        self._log.warning("room %s lost %d races in a row", room.id, _MAX_RACES)
        for item in batch:
            if not item.done.done():
                item.done.set_exception(Busy("the room is busy", after=1.0))

    async def _reload_room(self, room: Room) -> None:
        """Make a room's memory what the store holds; at its next turn, where the store does not say it."""
        room.stale = True
        self._names.forget_all()
        try:
            await self._rooms.reload(room)
        except StoreFault:
            self._log.warning("room %s is read again at its next turn", room.id)

    async def _drop_duplicates(self, batch: list[PendingSubmission]) -> list[PendingSubmission]:
        """Those not in the log yet; the others are answered as before."""
        keys = [(i.inbound.origin.network, i.inbound.origin.id) for i in batch]
        known = await self._store.get_many("alias", keys)
        fresh: list[PendingSubmission] = []
        first: dict[tuple[str, str], PendingSubmission] = {}
        for item, key in zip(batch, keys, strict=True):
            row = known.get(key)
            if row is not None:
                stored = await self._store.get(
                    "event", (str(row.fields["room"]), int(row.fields["seq"] or 0))
                )
                event = schema.event_of(stored) if stored else None
                if not item.done.done():  # who submitted it may have gone meanwhile
                    item.done.set_result(SubmitResult(verdict=ALLOW, event=event, duplicate=True))
            elif key in first:
                twin, mine = first[key], item
                twin.done.add_done_callback(lambda done, mine=mine: answer_as_duplicate(done, mine))  # type: ignore[misc]
            else:
                first[key] = item
                fresh.append(item)
        return fresh

    async def _run_turn(self, room: Room, batch: list[PendingSubmission]) -> None:
        turn: Turn = ViewRulesTurn(room.view, room.hosted_networks())
        authority = room.authority
        if self._late.authority(room) is not None:
            turn = LateTurn(room.view)
        elif authority is not None:
            network = self._around.authority(authority.native.network)
            if (
                network is None and self._around.network(authority.native.network) is None
            ):  # it ended just now
                raise Busy("the room's network is not running", after=1.0)
            if network is not None:
                turn = await network.begin_turn(authority, [i.inbound for i in batch if not i.done.done()])
        draft = TurnDraft(head=room.head, received=room.received)
        facts_before = room.view.facts
        try:
            named = [i.inbound for i in batch if i.inbound.native_targets and not i.done.done()]
            if named:
                await self._targets.prepare(room, draft, named)
            for at, item in enumerate(batch):
                if item.done.done():
                    continue
                if authority and not item.link.authority and draft.is_about_this_turn(item.inbound):
                    draft.left = batch[at:]
                    break
                await self._prepare_item(room, turn, item, draft)
            if draft.corrects:
                draft.writes += self._around.marks_of_correction(room)
            if draft.writes or draft.people:
                draft.writes += turn.final_writes()
                change = await self._rooms.stage(draft.people, draft.logged)
                draft.writes += [*draft.people, *draft.logged] if change is None else ()
                facts = room.view.facts
                row = schema.room_cas(
                    room.id,
                    room.kept,
                    facts,
                    head=draft.head,
                    received=draft.received,
                    generation=room.generation,
                    change=change,
                    confined=draft.confined,
                )
                draft.writes.append(row)
                # Of several each is tried alone where they are too much; what one event does is one moment.
                await self._store.commit(draft.writes if len(batch) > 1 else Whole(draft.writes))
                room.kept = room.kept.by(row, change, draft.confined)
                if self._decisions.policies:
                    self._decisions.committed(draft.writes)
        except BaseException:
            turn.on_rolled_back()
            room.view.facts = facts_before
            raise
        turn.on_committed()
        for item in draft.proposed:
            self._late.add(room, item)
        for name in draft.counts:
            self._add_count(name)
        self._queues[room.id].waiting.extendleft(reversed(draft.left))
        for item in draft.receipted:
            item.receipt = None
        room.head, room.received = draft.head, draft.received
        room.tail.extend(draft.events)
        for at, event in enumerate(room.tail if draft.blanked else ()):
            room.tail[at] = draft.blanked.get(event.seq, event)
        for item, outcome in draft.outcomes:
            if outcome.command:
                self._around.on_command(room, item.inbound)
            if not item.done.done():
                item.done.set_result(outcome)
        if draft.corrects:
            self._around.corrected(room)
        self._names.count_edits(draft.edited)
        if draft.taken_back:
            self._names.forget(draft.taken_back)
            self._around.on_taken_back(room, draft.taken_back)
        if draft.events:
            self._add_count("committed", len(draft.events))
            self._around.on_committed(room, draft.events)
        await self._rooms.settle(room)

    async def _prepare_item(self, room: Room, turn: Turn, item: PendingSubmission, draft: TurnDraft) -> None:
        if item.generation != self._decisions.generation:  # the policies changed while it waited
            item.judged = False
            self._enqueue_item(room.id, item)
            return
        inbound, verdict = item.inbound, item.verdict
        if item.ready is not None:
            self._refuse_item(draft, item, item.ready)
            return
        if verdict.action is Action.DENY:
            self._refuse_item(draft, item, refusal_by(verdict))
            return
        if item.consumed:
            draft.writes += item.writes
            draft.add(item, SubmitResult(verdict=verdict, command=True))
            return
        content, target = inbound.content, None
        if inbound.native_targets or target_of(content):
            content, target = await self._targets.resolve(room, draft, inbound)
            if inbound.native_targets:
                inbound = replace(inbound, content=content)
        if isinstance(content, Targeted):
            decided = item.link.authority or isinstance(inbound.native, Reflected)
            if target is not None:
                item.confine_as(target)
            refusal = await self._targets.check(room, inbound, target, decided=decided)
            if refusal is not None and decided:  # its own rules allow it
                content = without_target(content)
            elif refusal is not None:
                self._refuse_item(draft, item, refusal)
                return
        if isinstance(turn, LateTurn) and turn.must_propose(item):
            refusal = await turn.judge_draft(inbound, verdict)
            if refusal is not None:
                self._refuse_item(draft, item, refusal)
                return
            item.inbound = replace(inbound, content=content, native_targets=False)
            draft.proposed.append(item)
            return
        prepared = await turn.prepare_event(inbound, verdict)
        if isinstance(prepared, Missing | Countersign) and item.stays:
            fail_items([item], Busy("what it stands on has to be asked for", after=1.0))
            return
        if isinstance(prepared, Missing | Countersign):
            self._around.spawn(self._leave_turn(room, item, prepared), "outside the turn")
            return
        if isinstance(prepared, Refusal):
            self._refuse_item(draft, item, prepared)
            return
        shown = prepared.visible and verdict.allowed
        change = prepared.view_delta
        if isinstance(content, Member):
            content = _with_former(content, room.view)
        if change is None:
            server = ""
            if isinstance(content, Member):
                server = self._admission.server_of(content.user.network, content.user.id)
            change = view_delta_of(content, room.view, server, inbound.sender)
        if not shown:
            change = unread(change, content)
        draft.writes += item.writes
        draft.writes += prepared.writes
        if isinstance(inbound.native, Reflected):
            draft.writes.append(draft_end(room.id, inbound.native, self._clock.now()))
        if change:
            draft.people += schema.people_writes(room.id, change)
            position = position_of(draft.head + shown, after=not shown)
            logged = membership_writes(room.view, change, position)
            seen = visibility_writes(room.view, change, position)
            if not shown:
                logged = await since_position(self._store, logged, draft.logged)
                seen = await since_position(self._store, seen, draft.writes)
            draft.logged += logged
            draft.writes += seen
        room.view.apply(change)
        if prepared.view_delta is not None:
            content = as_resolved(content, room.view)
        for native in prepared.redacted:
            await self._targets.blank_native(room, native, draft)
        if shown and target is not None and isinstance(content, Retraction):
            await self._targets.blank_event(room, target, draft)
        event = self._events.make_event(room, item, draft, prepared, content) if shown else None
        if event is not None and target is not None and isinstance(event.content, Targeted):
            draft.writes.append(relation_put(event, target))
            if isinstance(event.content, Edit):
                draft.edited.append(target.id)
        draft.corrects = draft.corrects or (_says_less(content, change) if shown else bool(change))
        if not shown:
            draft.counts.append("not_shown")
        draft.add(item, SubmitResult(verdict=verdict, event=event, native_id=prepared.native_id))

    def _refuse_item(self, draft: TurnDraft, item: PendingSubmission, refusal: Refusal) -> None:
        draft.counts.append(f"refused_{refusal.code.value}")
        draft.writes += item.writes
        draft.add(item, SubmitResult(verdict=item.verdict, refusal=refusal))

    async def _leave_turn(self, room: Room, item: PendingSubmission, needed: Missing | Countersign) -> None:
        try:
            await self._admission.fetch_or_countersign(room, item, needed)
        except (Busy, StoreFault) as fault:
            fail_items([item], fault)
            return
        self._enqueue_item(room.id, item)

    def _add_count(self, name: str, by: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + by


def _require_bounds(inbound: Submission) -> None:
    if not (inbound.payload or inbound.aliases or inbound.chosen_ids):  # as most are
        return
    names = (*inbound.aliases, *inbound.chosen_ids)
    if len(inbound.payload) > _MAX_PAYLOAD:
        raise LocalProtocolError(f"the payload of {inbound.origin} is over {_MAX_PAYLOAD} bytes")
    if len(names) > _MAX_NAMES or any(len(name) > _MAX_NAME for name in names):
        raise LocalProtocolError(f"{inbound.origin} has too many names, or too long ones")


def _says_less(content: Content, change: ViewDelta) -> bool:
    """True if an event changes people that it does not name, as new power levels do."""
    if not change:
        return False
    user = content.user if isinstance(content, Member) else None
    return bool(change.removed) or any(person.user != user for person in change.upserts)


def _with_former(content: Member, view: RoomView) -> Member:
    before = view.person(content.user)
    if before is None:
        return content
    return replace(content, former_membership=before.membership, former_name=before.name)
