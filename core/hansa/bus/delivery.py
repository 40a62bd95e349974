"""From the log to each link: a durable cursor, in order, with backoff and dead letters (stage 8).

A consumer reads what lies behind its cursor, sends it, and moves the cursor. It holds no backlog in memory.
Cursors are written lazily: a repeat after a crash carries the same ``Delivery.key``, which makes it a no-op.
A cursor is stored as far as the peer has confirmed (``bus/confirmation.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import orjson

from hansa.api.contracts import DeliveryRejected, Network, RetryLater, features_of
from hansa.bus import schema
from hansa.bus.confirmation import ConfirmingGate, SentAhead
from hansa.bus.event_names import EventNames
from hansa.bus.policy_engine import PolicyEngine
from hansa.bus.rejudging import PolicyRecheck
from hansa.bus.rooms import Room
from hansa.environment import Environment
from hansa.model.content import BLANK, Attachment, Edit, Targeted, target_of
from hansa.model.events import Delivery, Event, Link
from hansa.model.fallback_text import NOTHING_AROUND, Surroundings
from hansa.model.features import degrade, needs_surroundings, split_content
from hansa.model.ref import NativeId
from hansa.pacing.backoff import Backoff
from hansa.pacing.delivery_throttle import DeliveryThrottle
from hansa.store.base import Put, ScopedStore, Write
from hansa.store.faults import StoreFault

_PAGE_SIZE = 100
#: A network that fails in a way its contract does not know is asked this often before the event is buried.
_MAX_UNKNOWN_FAILURES = 10
#: Seconds that a send under way is given when its consumer ends.
_END_TIMEOUT_S = 2.0
#: Seconds that it has to end once it is cancelled.
_CANCEL_TIMEOUT_S = 1.0
_LAZY = 1.0
#: Seconds of sending after which the cursor is stored within a page.
_SAVE_AFTER_S = 0.05
#: The longest wait, in seconds, before a database that fails is tried again.
_FAULT_MOST = 5.0
_FAULT = "the database fails"


class _ConnectionEndedError(Exception):
    """What was sent and not confirmed has to be sent again first."""


class DeliveryTarget(ConfirmingGate, Protocol):
    """A network as delivery sees it."""

    id: str
    throttle: DeliveryThrottle

    @property
    def network(self) -> Network | None:
        """The open network, None while it is restarting."""
        ...

    async def up(self) -> None:
        """Wait until the network is up."""
        ...

    async def wait_reconnected(self) -> None:
        """Wait until the network next changes to up."""
        ...

    async def failed(self, delivery: Delivery, error: str) -> None:
        """A delivery went to the dead letters."""
        ...

    def on_unsupported(self, link: Link, event: Event) -> None:
        """The network cannot show an event, and nothing is sent in its place."""
        ...


#: Where the people of a link can read a file of an event: an address, empty if nowhere.
FileLink = Callable[[Attachment, Link, Event], str]


def no_file_link(_attachment: Attachment, _link: Link, _event: Event) -> str:
    """For where files have no address."""
    return ""


@dataclass(frozen=True, slots=True)
class BusServices:
    """The services that all consumers share: the log, the policies, the clock."""

    store: ScopedStore
    decisions: PolicyEngine
    seams: Environment
    rejudging: PolicyRecheck
    names: EventNames
    link_of: FileLink = no_file_link


class Consumer:
    """One link's cursor. ``position`` is the seq of the last event that needs no more sending, unless the
    connection ends before the peer has confirmed it.
    """

    def __init__(self, room: Room, link: Link, gate: DeliveryTarget, judged: BusServices) -> None:
        self.room = room
        self.link = link
        self.position = 0
        #: Since when the event behind the cursor waits (ms), 0 if none does, and why.
        self.waiting_since = 0
        self.reason = ""
        self._gate = gate
        self._store = judged.store
        self._rejudging = judged.rejudging
        self._decisions = judged.decisions
        self._names = judged.names
        self._link_of = judged.link_of
        self._clock = judged.seams.clock
        self._random = judged.seams.random
        self._backoff = Backoff()
        self._ahead = SentAhead(link, gate, self._clock)
        self._newly_confirmed = False
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ending = False
        #: Events that said something when the page that is being sent was read.
        self._retracted = set[int]()
        self._stored = 0
        self._saved = 0.0
        self._log = logging.getLogger("hansa.bus.delivery")

    async def load(self, start: int | None = None) -> None:
        """Take the stored position; a new link starts at ``start`` (default: the log's end)."""
        row = await self._store.get("cursor", (self.link.id,))
        if row is not None:
            self.position = self._stored = int(row.fields["seq"] or 0)
            self._ahead.reset(self.position)
            return
        self.position = self.room.head if start is None else start
        self._ahead.reset(self.position)
        await self._save_position("full")

    def on_retracted(self, seqs: Iterable[int]) -> None:
        """These events leave the log: what was read of them before is not sent any more."""
        self._retracted.update(seqs)

    @property
    def confirmed(self) -> int:
        """The seq of the last event that the peer has, with all before it."""
        return self._ahead.confirmed

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def confirm_sent(self, seq: int) -> None:
        """See ``NetworkContext.confirm_sent``."""
        self._ahead.confirm(seq, self.position)
        self._newly_confirmed = True
        self._wake.set()

    async def run(self) -> None:
        """Send for ever. Ended by ``end``. A failed read or write of the database is tried again: the cursor
        stands, and nothing is wrong with the event.
        """
        faults = 0
        while not self._ending:
            try:
                await self._send_page()
            except StoreFault:
                faults += 1
                await self._on_store_fault(faults)
            except _ConnectionEndedError:
                faults = 0
            else:
                faults = 0

    async def _send_page(self) -> None:
        """Wait for something to send, or send a page of it."""
        self._wake.clear()
        if self._ahead.is_broken():
            self._log.info("%s: sends again after #%d", self.link.id, self.confirmed)
            self.position = self.confirmed
            self._ahead.reset(self.position)
        if self._newly_confirmed:
            self._newly_confirmed = False
            await self._save_position("lazy")
        if self.position >= self.room.head or self._ahead.is_full(self.position):
            await self._wait_for_events()
            return
        await self._gate.up()
        sent, began = False, self._clock.monotonic()
        self._retracted.clear()
        for event in await self._next_events():
            if self._ending or self._ahead.is_broken() or self._ahead.is_full(self.position):
                break
            sent |= await self._deliver_event(event)
            if sent and self._clock.monotonic() - max(began, self._saved) > _SAVE_AFTER_S:
                await self._save_position("lazy")
        self._ahead.request_due(self.position)
        if sent or self._clock.monotonic() - self._saved > _LAZY:
            await self._save_position("lazy")

    async def _on_store_fault(self, faults: int) -> None:
        self.waiting_since, self.reason = self.waiting_since or self._clock.now(), _FAULT
        await self._wait_retry(min(_FAULT_MOST, self._backoff.delay(faults, self._random.uniform())))

    async def _keep_result(self, keep: Callable[[], Awaitable[None]]) -> None:
        """Keep what became of a send, which is not done again because the database fails."""
        faults = 0
        while True:
            try:
                await keep()
            except StoreFault:
                faults += 1
                await self._on_store_fault(faults)
            else:
                return

    async def _wait_for_events(self) -> None:
        """Wait for the next event. The position after skipped events is stored after a second: skipping them
        again costs nothing, but a commit for each event of a link that gets none does.
        """
        due = self._ahead.request_due(self.position)
        if due is None and self._stored != self.confirmed:
            due = _LAZY
        try:
            async with asyncio.timeout(due):
                await self._wake.wait()
        except TimeoutError:
            await self._save_position("lazy")

    async def end(self, running: asyncio.Task[None]) -> None:
        """End ``run`` and store the position. A send in progress, and the confirmation of earlier ones, are
        waited for, 2 s at most: they would be repeated.
        """
        self._ending = True
        try:
            async with asyncio.timeout(_END_TIMEOUT_S):
                await self._idle.wait()
                await self._ahead.wait_all(self.position)
        except TimeoutError:
            self._log.warning("%s: a send was cut off, or not confirmed", self.link.id)
        running.cancel()
        if (await asyncio.wait({running}, timeout=_CANCEL_TIMEOUT_S))[1]:
            self._log.error(
                "%s: a send does not end when it is cancelled: a fault of the plugin", self.link.id
            )
        if self._stored != self.confirmed:
            with contextlib.suppress(StoreFault):  # what is repeated then carries the same keys
                await self._save_position("full")

    async def _save_position(self, durability: str) -> None:
        position = self.confirmed
        if position == self._stored and durability == "lazy":
            return
        await self._store.commit(
            [schema.cursor_put(self.link, position)],
            durability="full" if durability == "full" else "lazy",
        )
        self._stored, self._saved = position, self._clock.monotonic()

    async def _next_events(self) -> Sequence[Event]:
        tail = self.room.tail
        if tail and tail[0].seq <= self.position + 1:
            return [e for e in tail if e.seq > self.position][:_PAGE_SIZE]
        rows = await self._store.scan(
            "event", equal=(self.room.id,), after=self.position, upto=self.room.head, limit=_PAGE_SIZE
        )
        return [schema.event_of(row) for row in rows]

    async def _deliver_event(self, event: Event) -> bool:
        """Send an event and move on; False if this link does not get it."""
        passes = await self._may_deliver(event)
        while passes and not await self._send_event(event):
            pass
        self.position = event.seq
        self._ahead.on_position(event.seq)
        self.waiting_since, self.reason = 0, ""
        return passes

    async def _send_event(self, event: Event) -> bool:
        """Send what the network gets of an event; False if its words, or those that it quotes, were retracted
        meanwhile.
        """
        if event.seq in self._retracted or event.content == BLANK:
            return True  # it was never shown here
        deliveries = await self.deliveries_of(event, self._key_of(event))
        if not deliveries:
            self._gate.on_unsupported(self.link, event)
        for delivery in deliveries:
            if not await self._send_delivery(delivery):
                return False
        return True

    def _is_stale(self, delivery: Delivery) -> bool:
        event, target = delivery.event, delivery.target
        return any(
            one is not None and one.seq in self._retracted and one.content != BLANK for one in (event, target)
        )

    async def retry_dead_letter(self, event: Event) -> bool:
        """One more attempt at a dead letter; False if it fails as before."""
        network = self._gate.network
        if network is None or not await self._may_deliver(event):
            return False
        deliveries = await self.deliveries_of(event, self._key_of(event))
        try:
            for delivery in deliveries:
                await self._store_alias(delivery, await network.send(delivery))
        except Exception as error:  # noqa: BLE001  # it stays a dead letter, whatever broke
            self._log.warning("%s#%d failed again: %s", self.link.id, event.seq, error)
            return False
        return bool(deliveries)

    async def deliveries_of(self, event: Event, key: str) -> list[Delivery]:
        """What the network gets of an event: one delivery, more where a text is too long for one, or none.
        ``key`` is that of the first.
        """
        features = features_of(self._gate.network)
        around, content = NOTHING_AROUND, event.content
        if needs_surroundings(content, features):
            around = await self._surroundings(event)
            if isinstance(content, Targeted) and not isinstance(content, Edit) and around.target is None:
                return []  # it is about what this link did not get
        made = degrade(content, features, around)
        if made is None:
            return []
        if event.payload and not self._may_have_payload(event):
            event = replace(event, payload=b"")
        return [
            Delivery(
                key=f"{key}.{number}" if number else key,
                link=self.link,
                event=event,
                content=part,
                target=around.target,
            )
            for number, part in enumerate(split_content(made, features))
        ]

    def _key_of(self, event: Event) -> str:
        return f"{self.link.id}#{event.seq}"

    def _may_have_payload(self, event: Event) -> bool:
        """True for the network whose payload it is, if the policies of now have read it."""
        return (
            event.origin.network == self.link.native.network
            and event.generation == self._decisions.generation
        )

    async def _surroundings(self, event: Event) -> Surroundings:
        """What the words about an event need, as far as this link may know it."""

        def link_of(attachment: Attachment) -> str:
            return self._link_of(attachment, self.link, event)

        wanted, target = target_of(event.content), None
        if wanted:
            target = await self._names.find_in_room(self.room, wanted)
        if target is None or not await self._may_see(target):
            return Surroundings(link_of=link_of)
        if target.payload and not self._may_have_payload(target):
            target = replace(target, payload=b"")
        name = self.room.view.name_of(target.sender)
        return Surroundings(target=target, target_name=name, link_of=link_of)

    async def _may_see(self, event: Event) -> bool:
        """True if the people of this link may know an event: they got it, or it came from them."""
        return event.origin.network == self.link.native.network or await self._rejudging.passes(
            self.room, self.link, event
        )

    async def _may_deliver(self, event: Event) -> bool:
        if not self.link.direction.outward:
            return False
        if not self.link.hosted and event.origin.network == self.link.native.network:
            return False
        return await self._rejudging.passes(self.room, self.link, event)

    async def _send_delivery(self, delivery: Delivery) -> bool:
        """Send until it is sent or buried; False if it says what was retracted."""
        failures = broken = 0
        while True:
            await self._gate.throttle.pass_one()
            if self._retracted and self._is_stale(delivery):
                return False
            if self._ahead.is_broken():
                raise _ConnectionEndedError
            network = self._gate.network
            try:
                if network is None:
                    raise RetryLater("the network is restarting")  # one place decides what follows
                self._idle.clear()
                self._ahead.begin_send()
                native = await network.send(delivery)
                self._ahead.on_sent(delivery.event.seq)
            except RetryLater as error:
                after, self.reason = error.after, error.reason
            except DeliveryRejected as error:
                await self._bury_delivery(delivery, error.reason)
                return True
            except StoreFault:
                after, self.reason = _FAULT_MOST, _FAULT
            except Exception as error:  # noqa: BLE001  # a broken network must not lose the event
                broken += 1
                after, self.reason = 0.0, f"{type(error).__name__}: {error}"
                self._log.warning("%s failed to send %s: %s", self.link.id, delivery.key, self.reason)
                if broken >= _MAX_UNKNOWN_FAILURES:
                    await self._bury_delivery(delivery, self.reason)
                    return True
            else:
                await self._keep_result(partial(self._store_alias, delivery, native))
                return True
            finally:
                self._idle.set()
            failures += 1
            self.waiting_since = self.waiting_since or self._clock.now()
            wait = after or self._backoff.delay(failures, self._random.uniform())
            delivery = replace(delivery, attempt=failures + 1)
            await self._wait_retry(wait)

    async def _wait_retry(self, seconds: float) -> None:
        """Wait, but no longer than until the network comes up again."""
        up = asyncio.ensure_future(self._gate.wait_reconnected())
        try:
            await asyncio.wait({up}, timeout=seconds)
        finally:
            up.cancel()

    async def _store_alias(self, delivery: Delivery, native: str) -> None:
        if not native or self.link.hosted:
            return
        ref = NativeId(self.link.native.network, native)
        part = int(delivery.key.removeprefix(self._key_of(delivery.event)).removeprefix(".") or 0)
        write: Write = schema.alias_put(ref, self.room.id, delivery.event.seq, part)
        await self._store.commit([write], durability="lazy")

    async def _bury_delivery(self, delivery: Delivery, reason: str) -> None:
        await self._keep_result(partial(self._dead_letter, delivery, reason))
        await self._gate.failed(delivery, reason)

    async def _dead_letter(self, delivery: Delivery, reason: str) -> None:
        body = {
            "key": delivery.key,
            "event": delivery.event.id,
            "reason": reason,
            "attempt": delivery.attempt,
        }
        write = Put(
            "dead",
            (self.link.id, delivery.event.seq),
            orjson.dumps(body),
            {"room": self.room.id, "ts": self._clock.now()},
        )
        await self._store.commit([write])
        self._log.warning("%s went to the dead letters: %s", delivery.key, reason)
