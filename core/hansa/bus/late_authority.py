"""Rooms that another service decides, and whose only answer is that it reflects an event, refuses it, or is
silent.

1. What other networks submit leaves the room's turn as a draft: a row outside the log.
2. The drafts of a room are proposed in order of arrival, 20 at a time. Each gets 20 s from its arrival.
3. A draft that is reflected queues again, and enters the log in the order of the reflections. A refusal is
   the outcome of the submission. Silence is ``UNREACHABLE``, and the row stays: a reflection that comes later
   enters the log as the event that was proposed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Protocol

import orjson

from hansa.api.contracts import DeliveryRejected, LateAuthority, Prepared, RetryLater, features_of
from hansa.bus.admission import PendingSubmission, Reflected
from hansa.bus.delivery import BusServices
from hansa.bus.rooms import Room
from hansa.model.codec import event_from_bytes, event_to_bytes
from hansa.model.content import Member, Membership
from hansa.model.errors import Busy
from hansa.model.events import Delivery, Event, Link, Refusal, RefusalCode, Submission, SubmitResult
from hansa.model.features import Level
from hansa.model.ref import NativeId
from hansa.model.verdict import Verdict
from hansa.store.base import Delete, Put, Row, Write
from hansa.store.faults import StoreFault

#: Seconds from a submission to its refusal as unreachable.
PROPOSE_TIMEOUT_S = 20.0
#: Drafts of a room, those of one sender, and those that are proposed at a time.
_MAX_DRAFTS, MAX_OF_SENDER, _MAX_UNDER_WAY = 1000, 50, 20
#: How long the row of a draft waits for a late reflection, in ms; seconds between two looks, and rows of one.
_KEPT_MS, _SWEEP_EVERY_S, _SWEPT = 86_400_000, 3600.0, 500


class ProposalHost(Protocol):
    """The parts of the running application that proposals use."""

    def late_authority(self, network: str) -> LateAuthority | None:
        """The open network of an id, if it is one whose rooms decide by reflecting."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> object:
        """Run a task of the core's own."""
        ...

    async def deliveries_of(self, room: Room, link: Link, event: Event, key: str) -> Sequence[Delivery]:
        """What the network of a link gets of an event."""
        ...


class LateTurn:
    """A ``Turn`` of a room whose authority has decided before: all that comes here stands there."""

    async def prepare_event(self, inbound: Submission, verdict: Verdict) -> Prepared:
        """See ``Turn.prepare_event``."""
        natives = inbound.native.natives if isinstance(inbound.native, Reflected) else ()
        return Prepared(
            visible=verdict.allowed, native_id=natives[0] if natives else "", more_ids=natives[1:]
        )

    def final_writes(self) -> Sequence[Write]:
        """See ``Turn.final_writes``."""
        return ()

    def on_committed(self) -> None:
        """See ``Turn.on_committed``."""

    def on_rolled_back(self) -> None:
        """See ``Turn.on_rolled_back``."""


@dataclass(slots=True, eq=False)
class _Draft:
    item: PendingSubmission
    key: str
    deadline: float


@dataclass(slots=True)
class _RoomDrafts:
    """``drafts`` has all of a room by key, ``waiting`` those that are not proposed yet."""

    drafts: dict[str, _Draft] = field(default_factory=dict)
    waiting: deque[_Draft] = field(default_factory=deque)
    of_sender: Counter[NativeId] = field(default_factory=Counter)
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MAX_UNDER_WAY))
    running: bool = False


class LateProposals:
    """Proposes drafts. ``enqueue`` puts a submission back into the queue of its room."""

    def __init__(
        self, judged: BusServices, around: ProposalHost, enqueue: Callable[[str, PendingSubmission], None]
    ) -> None:
        self._store = judged.store
        self._clock = judged.seams.clock
        self._around = around
        self._enqueue = enqueue
        self._rooms: dict[str, _RoomDrafts] = {}
        self._swept: float | None = None
        self._log = logging.getLogger("hansa.pipeline")
        self.counts: Counter[str] = Counter()

    def authority(self, room: Room) -> LateAuthority | None:
        """The network that decides in a room by reflecting, None where none does."""
        link = room.authority
        return self._around.late_authority(link.native.network) if link is not None else None

    def waiting(self, room: str) -> int:
        """How many drafts of a room there are."""
        return len(self._rooms[room].drafts) if room in self._rooms else 0

    def must_propose(self, room: Room, item: PendingSubmission) -> bool:
        """True if a submission is to be proposed before it may enter the log."""
        reflected = item.link.authority or isinstance(item.inbound.native, Reflected)
        return not reflected and self.authority(room) is not None

    def add(self, room: Room, item: PendingSubmission) -> None:
        """Propose a submission. It fails with ``Busy`` where too many wait, or where it waits already."""
        assert room.authority is not None
        of_room = self._rooms.setdefault(room.id, _RoomDrafts())
        key, sender = draft_key(room.authority, item.inbound.origin), item.inbound.sender
        full = len(of_room.drafts) >= _MAX_DRAFTS or of_room.of_sender[sender] >= MAX_OF_SENDER
        if full or key in of_room.drafts:
            self.counts["busy"] += 1
            if not item.done.done():
                item.done.set_exception(Busy("the room has not answered to earlier messages", after=1.0))
            return
        deadline = asyncio.get_running_loop().time() + PROPOSE_TIMEOUT_S
        draft = of_room.drafts[key] = _Draft(item, key, deadline)
        of_room.of_sender[sender] += 1
        of_room.waiting.append(draft)
        if not of_room.running:
            of_room.running = True
            self._around.spawn(self._run_room(room, of_room), f"drafts of {room.id}")

    async def _run_room(self, room: Room, of_room: _RoomDrafts) -> None:
        try:
            while of_room.waiting:
                size = min(len(of_room.waiting), _MAX_UNDER_WAY)
                batch = [of_room.waiting.popleft() for _ in range(size)]
                try:
                    await self._sweep()
                    await self._store.commit([_draft_put(one, self._clock.now()) for one in batch])
                except StoreFault as fault:
                    for draft in batch:
                        self._fail(room, draft, fault)
                    continue
                for draft in batch:
                    await of_room.slots.acquire()
                    await self._begin(room, of_room, draft)
        finally:
            of_room.running = False
            if not of_room.drafts and self._rooms.get(room.id) is of_room:
                del self._rooms[room.id]
            for draft in [*of_room.waiting]:
                draft.item.done.cancel()
                self._forget(room, draft)
            of_room.waiting.clear()

    async def _begin(self, room: Room, of_room: _RoomDrafts, draft: _Draft) -> None:
        """Begin to propose a draft. The order of the calls is that of the drafts."""
        if draft.item.done.done():  # nobody waits for it any more
            of_room.slots.release()
            self._forget(room, draft)
            return
        network, link = self.authority(room), room.authority
        deliveries: Sequence[Delivery] = ()
        try:
            if network is None or link is None:
                raise Busy("the room's network is not running", after=1.0)
            deliveries = await self._around.deliveries_of(
                room, link, _event_of(room.id, draft.item), draft.key
            )
        except (Busy, StoreFault) as fault:
            of_room.slots.release()
            self._fail(room, draft, fault)
            return
        name = f"draft {draft.key}"
        self._around.spawn(self._propose(room, of_room, draft, (network, deliveries)), name)

    async def _propose(
        self,
        room: Room,
        of_room: _RoomDrafts,
        draft: _Draft,
        proposed: tuple[LateAuthority, Sequence[Delivery]],
    ) -> None:
        network, deliveries = proposed
        item, natives = draft.item, list[str]()
        refusal, silent = _unsupported(network, item, deliveries), False
        try:
            if refusal is None:
                async with asyncio.timeout_at(draft.deadline):
                    for delivery in deliveries:
                        natives.append(await network.propose(delivery))
        except TimeoutError:
            refusal, silent = _NO_ANSWER, True
        except DeliveryRejected as error:
            refusal = Refusal(code=RefusalCode.FORBIDDEN, text=error.reason or "the room refused it")
        except RetryLater as error:
            if not _is_own_leave(item):
                self._fail(room, draft, Busy(error.reason, after=error.after or 1.0))
                return
        except StoreFault as fault:
            self._fail(room, draft, fault)
            return
        except Exception:  # noqa: BLE001  # a network's bug must be an answer to who submitted
            self._log.exception("%s could not be proposed", item.inbound.origin)
            refusal = Refusal(code=RefusalCode.UNREACHABLE, text="the room's network failed", retry_after=5.0)
        except BaseException:
            item.done.cancel()
            raise
        finally:
            of_room.slots.release()
            if refusal is None or _is_own_leave(item) or item.done.done():
                self._forget(room, draft)
        if item.done.done():
            return
        if refusal is not None and not _is_own_leave(item):
            await self._refuse(room, draft, refusal, keep=silent)
            return
        reflected = Reflected(draft.key, tuple(filter(None, natives)))
        item.inbound = replace(item.inbound, native=reflected)
        self._enqueue(room.id, item)

    async def _refuse(self, room: Room, draft: _Draft, refusal: Refusal, *, keep: bool) -> None:
        """The outcome is a refusal, with the decisions of the policies. The row is kept for a late answer."""
        item = draft.item
        self.counts[f"refused_{refusal.code.value}"] += 1
        gone: list[Write] = [] if keep else [Delete("draft", (draft.key,))]
        try:
            if writes := [*item.writes, *gone]:
                await self._store.commit(writes)
        except StoreFault as fault:
            self._fail(room, draft, fault)
            return
        self._forget(room, draft)
        if not item.done.done():
            item.done.set_result(SubmitResult(verdict=item.verdict, refusal=refusal))

    def _fail(self, room: Room, draft: _Draft, error: Exception) -> None:
        self._forget(room, draft)
        if not draft.item.done.done():
            draft.item.done.set_exception(error)

    def _forget(self, room: Room, draft: _Draft) -> None:
        of_room = self._rooms.get(room.id)
        if of_room is None or of_room.drafts.pop(draft.key, None) is None:
            return
        sender = draft.item.inbound.sender
        of_room.of_sender[sender] -= 1
        if not of_room.of_sender[sender]:
            del of_room.of_sender[sender]
        if not of_room.drafts and not of_room.running:
            del self._rooms[room.id]

    async def find_draft(
        self, room: Room, inbound: Submission, link_of: Callable[[NativeId], Link | None]
    ) -> PendingSubmission | None:
        """The submission that a late reflection, ``inbound``, is of; None where it is not known any more.
        Raises ``Busy`` while the draft is being proposed: its reflection is what ``propose`` returns.
        """
        of_room = self._rooms.get(room.id)
        if of_room is not None and inbound.reflects in of_room.drafts:
            raise Busy("this is being proposed", after=1.0)
        row = await self._store.get("draft", (inbound.reflects,))
        drafted = _submission_of(room, row) if row is not None else None
        link = link_of(drafted.room) if drafted is not None else None
        if drafted is None or link is None or link.room != room.id:
            return None
        native = Reflected(inbound.reflects, (inbound.origin.id,))
        done: asyncio.Future[SubmitResult] = asyncio.get_running_loop().create_future()
        return PendingSubmission(replace(drafted, native=native), link, done)

    async def _sweep(self) -> None:
        """Remove rows of drafts to which no answer came for a day."""
        now = asyncio.get_running_loop().time()
        if self._swept is not None and now - self._swept < _SWEEP_EVERY_S:
            return
        self._swept = now
        before = self._clock.now() - _KEPT_MS
        rows = await self._store.scan("draft", index=("ts",), upto=before, limit=_SWEPT)
        if rows:
            await self._store.commit([Delete("draft", row.key) for row in rows])


_NO_ANSWER = Refusal(
    code=RefusalCode.UNREACHABLE,
    text=f"the room has not answered within {PROPOSE_TIMEOUT_S:.0f} s: it may show the message nevertheless",
)


def draft_key(link: Link, origin: NativeId) -> str:
    """The ``Delivery.key`` of a draft. The same submission has the same key whenever it is proposed."""
    mark = sha256(orjson.dumps([link.id, origin.network, origin.id])).hexdigest()[:32]
    return f"draft-{mark}"


def draft_delete(inbound: Submission) -> Sequence[Write]:
    """The end of the row of a draft that enters the log."""
    return [Delete("draft", (inbound.native.key,))] if isinstance(inbound.native, Reflected) else []


def _is_own_leave(item: PendingSubmission) -> bool:
    """A person may leave whatever the room answers."""
    content = item.inbound.content
    if not isinstance(content, Member) or content.membership is not Membership.LEAVE:
        return False
    return content.user == item.inbound.sender


def _unsupported(
    network: LateAuthority, item: PendingSubmission, deliveries: Sequence[Delivery]
) -> Refusal | None:
    kind = item.inbound.content.kind
    if deliveries or features_of(network).level(kind) is not Level.REJECTED:
        return None
    return Refusal(code=RefusalCode.UNSUPPORTED, text=f"the room cannot show this ({kind.value})")


def _event_of(room: str, item: PendingSubmission) -> Event:
    """A draft as the event that it may become: without a place in the log, and without an id."""
    inbound = item.inbound
    return Event(
        id="",
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


def _draft_put(draft: _Draft, now: int) -> Put:
    item, inbound = draft.item, draft.item.inbound
    body = {
        "event": event_to_bytes(_event_of("", item)).decode(),
        "native": item.link.native.id,
        "aliases": inbound.aliases,
        "chosen_ids": inbound.chosen_ids,
    }
    return Put("draft", (draft.key,), orjson.dumps(body), {"ts": now})


def _submission_of(room: Room, row: Row) -> Submission:
    data = orjson.loads(row.body)
    event = event_from_bytes(room.id, 0, data["event"].encode())
    return Submission(
        origin=event.origin,
        room=NativeId(event.sender.network, data["native"]),
        sender=event.sender,
        content=event.content,
        ts=event.ts,
        payload=event.payload,
        aliases=tuple(data["aliases"]),
        chosen_ids=tuple(data["chosen_ids"]),
    )
