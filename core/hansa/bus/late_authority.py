"""Rooms that another service decides, and whose only answer is that it reflects an event, refuses it, or is
silent.

1. The rules of the view judge what other networks submit, as in a room that no network decides.
2. What they allow leaves the room's turn as a draft: a row outside the log.
3. Drafts are proposed, one of a sender at a time and 20 of a room. Each gets 20 s from its arrival.
4. A draft that is reflected queues again, and enters the log in the order of the reflections. A refusal is
   the outcome of the submission. Silence is ``UNREACHABLE``, and the row stays: a reflection that comes later
   enters the log as the event that was proposed.
5. The row of a draft that is in the log stays for a day without its words: the same reflection may be seen
   again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson

from hansa.api.contracts import DeliveryRejected, LateAuthority, Prepared, RetryLater, features_of
from hansa.bus.admission import PendingSubmission, Reflected
from hansa.bus.delivery import BusServices
from hansa.bus.outcomes import fail_items, mark_read
from hansa.bus.rooms import Room
from hansa.bus.schema import hashed_key
from hansa.bus.view_rules import ViewRulesTurn
from hansa.model.codec import event_from_bytes, event_to_bytes
from hansa.model.content import Member, Membership, Retraction
from hansa.model.errors import Busy, HansaError, InternalError
from hansa.model.events import Delivery, Event, Link, Refusal, RefusalCode, Submission, SubmitResult
from hansa.model.features import Level
from hansa.model.ref import NativeId
from hansa.model.verdict import ALLOW, Verdict
from hansa.store.base import Delete, Put, Row, Write
from hansa.store.paging import first_page

#: Seconds from a submission to its refusal as unreachable.
PROPOSE_TIMEOUT_S = 20.0
#: Drafts of a room, those of one network, those of one sender, and those that are proposed at a time.
MAX_DRAFTS, _MAX_OF_NETWORK, MAX_OF_SENDER, _MAX_UNDER_WAY = 1000, 500, 50, 20
#: How long the row of a draft is kept, in ms; seconds between two looks, and rows that are removed at a time.
_KEPT_MS, _SWEEP_EVERY_S, _SWEPT = 86_400_000, 3600.0, 500
#: Characters of a native id.
_MAX_NATIVE = 1024


class ProposalHost(Protocol):
    """The parts of the running application that proposals use."""

    def late_authority(self, network: str) -> LateAuthority | None:
        """The open network of an id, if it is one whose rooms decide by reflecting."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a task of the core's own."""
        ...

    async def drafted_deliveries(self, room: Room, link: Link, event: Event, key: str) -> Sequence[Delivery]:
        """What the network of a link is to propose for an event, at the rate of the network. Raises ``Busy``
        while it is not up.
        """
        ...

    def on_shown_in_part(self, room: Room, link: Link, event: Event) -> None:
        """The room of a link has taken the first parts of an event, and not the others."""
        ...


class LateTurn(ViewRulesTurn):
    """A ``Turn`` of a room that a late authority decides: what stands there is taken, and the rest is judged
    by the rules of the view before it is proposed.
    """

    async def prepare_event(self, inbound: Submission, verdict: Verdict) -> Prepared:
        """See ``Turn.prepare_event``, for what stands there."""
        natives = inbound.native.natives if isinstance(inbound.native, Reflected) else ()
        first = natives[0] if natives else ""
        return Prepared(visible=verdict.allowed, native_id=first, more_ids=natives[1:])

    async def judge_draft(self, inbound: Submission, verdict: Verdict) -> Refusal | None:
        """Returns why something may not be proposed, None if it may."""
        judged = await super().prepare_event(inbound, verdict)
        return judged if isinstance(judged, Refusal) else None

    @staticmethod
    def must_propose(item: PendingSubmission) -> bool:
        """True for what does not stand there yet."""
        return not item.link.authority and not isinstance(item.inbound.native, Reflected)


@dataclass(slots=True, eq=False)
class _Draft:
    """``natives`` are the names that it has in the room so far."""

    item: PendingSubmission
    key: str
    deadline: float
    natives: list[str] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


class _RoomDrafts:
    """The drafts of a room. One of a sender is proposed at a time, and senders take turns."""

    def __init__(self) -> None:
        self.drafts: dict[str, _Draft] = {}
        self.of_sender: Counter[NativeId] = Counter()
        self.of_network: Counter[str] = Counter()
        self._waiting: OrderedDict[NativeId, deque[_Draft]] = OrderedDict()
        self._speaking: set[NativeId] = set()
        self._changed = asyncio.Event()
        self.running = False

    def add(self, draft: _Draft) -> None:
        sender = draft.item.inbound.sender
        self.drafts[draft.key] = draft
        self.of_sender[sender] += 1
        self.of_network[sender.network] += 1
        self._waiting.setdefault(sender, deque()).append(draft)
        self._changed.set()

    def forget(self, draft: _Draft) -> None:
        """A draft has an outcome."""
        if self.drafts.pop(draft.key, None) is None:
            return
        sender = draft.item.inbound.sender
        self.of_sender[sender] -= 1
        self.of_network[sender.network] -= 1
        if not self.of_sender[sender]:
            del self.of_sender[sender]
        if not self.of_network[sender.network]:
            del self.of_network[sender.network]
        queue = self._waiting.get(sender, ())
        if draft in queue:
            self._waiting[sender].remove(draft)

    def end_turn(self, draft: _Draft) -> None:
        """A call has ended: the next one of its sender may begin."""
        self._speaking.discard(draft.item.inbound.sender)
        self._changed.set()

    async def next_draft(self) -> _Draft | None:
        """The next draft whose call may begin, None once none waits."""
        while self._waiting:
            for sender in list(self._waiting) if len(self._speaking) < _MAX_UNDER_WAY else ():
                if sender in self._speaking:
                    continue
                queue = self._waiting[sender]
                if not queue:  # what waited was cancelled
                    del self._waiting[sender]
                    break
                draft = queue.popleft()
                self._waiting.move_to_end(sender)
                if not queue:
                    del self._waiting[sender]
                self._speaking.add(sender)
                return draft
            else:
                self._changed.clear()
                await self._changed.wait()
        return None


class LateProposals:
    """Proposes drafts. ``requeue`` puts a submission back into the queue of its room; ``count`` counts."""

    def __init__(
        self,
        judged: BusServices,
        around: ProposalHost,
        requeue: Callable[[str, PendingSubmission], None],
        count: Callable[[str], None],
    ) -> None:
        self._store = judged.store
        self._clock = judged.seams.clock
        self._random = judged.seams.random
        self._around = around
        self._requeue = requeue
        self._count = count
        self._rooms: dict[str, _RoomDrafts] = {}
        self._swept: float | None = None
        self._log = logging.getLogger("hansa.pipeline")

    def authority(self, room: Room) -> LateAuthority | None:
        """The network that decides in a room by reflecting, None where none does, or where nothing may be
        sent to it.
        """
        link = room.authority
        if link is None or not link.direction.outward:
            return None
        return self._around.late_authority(link.native.network)

    def waiting(self, room: str) -> int:
        """How many drafts of a room there are."""
        return len(self._rooms[room].drafts) if room in self._rooms else 0

    def add(self, room: Room, item: PendingSubmission) -> None:
        """Propose a submission. It fails with ``Busy`` where too many wait, or where it waits already."""
        if room.authority is None:  # it was unlinked just now
            self._requeue(room.id, item)
            return
        of_room = self._rooms.setdefault(room.id, _RoomDrafts())
        key, sender = draft_key(room.authority, item.inbound.origin), item.inbound.sender
        full = (
            len(of_room.drafts) >= MAX_DRAFTS
            or of_room.of_network[sender.network] >= _MAX_OF_NETWORK
            or of_room.of_sender[sender] >= MAX_OF_SENDER
        )
        if key in of_room.drafts or (full and not _needs_no_consent(item)):
            self._count("draft_busy")
            fail_items([item], Busy("the room has not answered to earlier messages", after=1.0))
            return
        if not item.event_id:
            item.event_id = f"{self._clock.now():012x}{self._random.bytes(9).hex()}"
        draft = _Draft(item, key, asyncio.get_running_loop().time() + PROPOSE_TIMEOUT_S)
        of_room.add(draft)
        item.done.add_done_callback(lambda done: of_room.forget(draft) if done.cancelled() else None)
        if not of_room.running:
            of_room.running = True
            self._around.spawn(self._run_room(room, of_room), f"drafts of {room.id}")

    async def _run_room(self, room: Room, of_room: _RoomDrafts) -> None:
        try:
            while (draft := await of_room.next_draft()) is not None:
                work = self._propose(room, of_room, draft)
                draft.task = self._around.spawn(work, f"draft {draft.key}")
        except asyncio.CancelledError:
            for draft in list(of_room.drafts.values()):
                draft.item.done.cancel()
            raise
        finally:
            of_room.running = False
            if self._rooms.get(room.id) is of_room:
                del self._rooms[room.id]  # those under way keep it
                if of_room.drafts:
                    self._rooms[room.id] = of_room

    async def _propose(self, room: Room, of_room: _RoomDrafts, draft: _Draft) -> None:
        item = draft.item
        try:
            outcome = await self._outcome_of(room, draft)
        except asyncio.CancelledError:
            if not draft.natives:
                item.done.cancel()
                raise
            outcome = None  # its reflection came by another way
        except HansaError as error:
            fail_items([item], error)
            return
        except Exception as error:  # noqa: BLE001  # one draft's fault must not hold up the others
            self._log.exception("%s could not be proposed", item.inbound.origin)
            fail_items([item], InternalError(f"{type(error).__name__}: {error}"))
            return
        finally:
            of_room.end_turn(draft)
            of_room.forget(draft)
            if not of_room.drafts and not of_room.running and self._rooms.get(room.id) is of_room:
                del self._rooms[room.id]
        if outcome is not None and not _needs_no_consent(item):
            if not item.done.done():
                item.done.set_result(SubmitResult(verdict=item.verdict, refusal=outcome))
            return
        if item.done.done():  # who submitted it has gone, and the room shows it
            item.done = asyncio.get_running_loop().create_future()
            item.done.add_done_callback(mark_read)
        natives = await self._new_names(room, draft.natives)
        item.inbound = replace(item.inbound, native=Reflected(draft.key, natives))
        self._requeue(room.id, item)

    async def _outcome_of(self, room: Room, draft: _Draft) -> Refusal | None:
        """Propose a draft: the refusal, None if it is reflected. What was not sent fails with ``Busy``."""
        item, link = draft.item, room.authority
        network = self.authority(room)
        if network is None or link is None:
            raise Busy("the room's network is not running", after=1.0)
        await self._sweep()
        await self._store.commit([_draft_put(room, draft, self._clock.now())])
        event = _event_of(room.id, item)
        deliveries = await self._around.drafted_deliveries(room, link, event, draft.key)
        if not deliveries and features_of(network).level(event.content.kind) is Level.REJECTED:
            text = f"the room cannot show this ({event.content.kind.value})"
            return await self._refuse(room, draft, Refusal(code=RefusalCode.UNSUPPORTED, text=text))
        if asyncio.get_running_loop().time() >= draft.deadline:
            await self._store.commit([Delete("draft", (room.id, draft.key))])
            raise Busy("the room has not answered to earlier messages", after=1.0)
        try:
            async with asyncio.timeout_at(draft.deadline):
                for delivery in deliveries:
                    draft.natives.append(await network.propose(delivery))
        except TimeoutError:
            refusal, keep = _NO_ANSWER, True
        except DeliveryRejected as error:
            text = error.reason or "the room refused it"
            refusal, keep = Refusal(code=RefusalCode.FORBIDDEN, text=text), False
        except RetryLater as error:
            if draft.natives:
                self._around.on_shown_in_part(room, link, event)
            if draft.natives or _needs_no_consent(item):
                return None
            await self._store.commit([Delete("draft", (room.id, draft.key))])
            raise Busy(error.reason, after=error.after or 1.0) from error
        except Exception:  # noqa: BLE001  # a network's bug must be an answer to who submitted
            self._log.exception("%s could not be proposed", item.inbound.origin)
            refusal, keep = _FAILED, True
        else:
            return None
        if draft.natives:  # a part of it is shown there
            self._log.warning("%s is shown in part by %s: %s", draft.key, link.id, refusal.text)
            self._count("draft_in_part")
            self._around.on_shown_in_part(room, link, event)
            return None
        return await self._refuse(room, draft, refusal, keep=keep)

    async def _refuse(self, room: Room, draft: _Draft, refusal: Refusal, *, keep: bool = False) -> Refusal:
        """Commit the decisions of the policies. The row is kept for a late answer, if there may be one."""
        self._count(f"draft_{refusal.code.value}")
        gone: list[Write] = [] if keep else [Delete("draft", (room.id, draft.key))]
        if writes := [*draft.item.writes, *gone]:
            await self._store.commit(writes)
        return refusal

    async def _new_names(self, room: Room, natives: Iterable[str]) -> tuple[str, ...]:
        """Those of the native ids that nothing has yet: an echo may have come before."""
        assert room.authority is not None
        network = room.authority.native.network
        named = dict.fromkeys(name for name in natives if _is_name(name))
        known = await self._store.get_many("alias", [(network, name) for name in named]) if named else {}
        return tuple(name for name in named if (network, name) not in known)

    async def find_draft(
        self, room: Room, here: Link, inbound: Submission, link_of: Callable[[NativeId], Link | None]
    ) -> PendingSubmission | None:
        """The submission that a reflection, ``inbound`` by the link ``here``, is of; None where it is not
        known any more.
        """
        key, _, part = inbound.reflects.partition(".")
        of_room = self._rooms.get(room.id)
        pending = of_room.drafts.get(key) if of_room is not None else None
        if pending is not None and pending.task is not None and not part:
            pending.natives.append(inbound.origin.id)
            pending.task.cancel()
        done: asyncio.Future[SubmitResult] = asyncio.get_running_loop().create_future()
        if pending is not None:
            done.set_result(SubmitResult(verdict=ALLOW, duplicate=True))
            return PendingSubmission(inbound, here, done)
        row = await self._store.get("draft", (room.id, key))
        if row is None:
            return None
        drafted = _submission_of(room, row) if row.body else None
        link = link_of(drafted[0].room) if drafted is not None else None
        if drafted is None or link is None or link.room != room.id:  # it is in the log, or nobody's any more
            done.set_result(SubmitResult(verdict=ALLOW, duplicate=True))
            return PendingSubmission(inbound, here, done)
        native = Reflected(key, (inbound.origin.id, *inbound.aliases))
        item = PendingSubmission(replace(drafted[0], native=native), link, done)
        item.event_id = drafted[1]
        return item

    async def _sweep(self) -> None:
        """Remove rows that are older than a day."""
        now = asyncio.get_running_loop().time()
        if self._swept is not None and now - self._swept < _SWEEP_EVERY_S:
            return
        self._swept = now
        before = self._clock.now() - _KEPT_MS
        while rows := await first_page(self._store, "draft", index=("ts",), upto=before, size=_SWEPT):
            await self._store.commit([Delete("draft", row.key) for row in rows])


_NO_ANSWER = Refusal(
    code=RefusalCode.UNREACHABLE,
    text=f"the room has not answered within {PROPOSE_TIMEOUT_S:.0f} s: it may show the message nevertheless",
)
_FAILED = Refusal(
    code=RefusalCode.UNREACHABLE,
    text="the room's network failed: the room may show the message nevertheless",
)


def draft_key(link: Link, origin: NativeId) -> str:
    """The ``Delivery.key`` of a draft. The same submission has the same key whenever it is proposed."""
    mark = hashed_key(link.id, origin.network, origin.id)[:32]
    return f"draft-{mark}"


def draft_end(room: str, reflected: Reflected, now: int) -> Put:
    """The row of a draft that enters the log, without its words: its reflection may be seen again."""
    return Put("draft", (room, reflected.key), b"", {"ts": now})


def _is_name(native: object) -> bool:
    if not isinstance(native, str) or not 0 < len(native) <= _MAX_NATIVE:
        return False
    return native.encode(errors="ignore").decode() == native


def _needs_no_consent(item: PendingSubmission) -> bool:
    """A person may leave, and take back what they said, whatever the room answers."""
    content = item.inbound.content
    if isinstance(content, Member):
        return content.membership is Membership.LEAVE and content.user == item.inbound.sender
    return isinstance(content, Retraction)


def _event_of(room: str, item: PendingSubmission) -> Event:
    """A draft as the event that it may become, without a place in the log."""
    inbound = item.inbound
    return Event(
        id=item.event_id,
        room=room,
        seq=0,
        origin=inbound.origin,
        sender=inbound.sender,
        content=inbound.content,
        ts=inbound.ts,
        received=0,
        placement=inbound.placement,
        payload=inbound.payload,
    )


def _draft_put(room: Room, draft: _Draft, now: int) -> Put:
    item, inbound = draft.item, draft.item.inbound
    body = {
        "event": orjson.Fragment(event_to_bytes(_event_of(room.id, item))),
        "native": item.link.native.id,
        "aliases": inbound.aliases,
        "chosen_ids": inbound.chosen_ids,
    }
    return Put("draft", (room.id, draft.key), orjson.dumps(body), {"ts": now})


def _submission_of(room: Room, row: Row) -> tuple[Submission, str]:
    """The submission of a draft's row, and the id of its event."""
    data = orjson.loads(row.body)
    event = event_from_bytes(room.id, 0, orjson.dumps(data["event"]))
    submission = Submission(
        origin=event.origin,
        room=NativeId(event.sender.network, data["native"]),
        sender=event.sender,
        content=event.content,
        ts=event.ts,
        payload=event.payload,
        aliases=tuple(data["aliases"]),
        chosen_ids=tuple(data["chosen_ids"]),
    )
    return submission, event.id
