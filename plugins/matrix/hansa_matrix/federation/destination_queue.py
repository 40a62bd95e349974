"""The queue of one destination and its transactions: one at a time, repeated until the server accepts it.

1. The commit that makes an event or a durable EDU also writes a row for its set of servers, and the queues of
   these servers are woken afterwards (``federation/sender.py``).
2. The queue reads the rows behind its two cursors, one for events and one for durable EDUs. Ephemeral EDUs
   are in memory, the last of each kind, room and user (``federation/destination_queue.py``).
3. Of a backlog of more than 1,000 events only the newest event of each room is sent: the peer fetches the
   others itself (``federation/destination_queue.py``).
4. An event that is withheld is sent as a redaction would leave it (``federation/outbound_pdus.py``). EDUs
   from before a change of the policies are judged again (``federation/durable_edus.py``).
5. The server's address is found (``federation/server_discovery.py``), and the request is signed and sent
   (``federation/client.py``).
6. After a 200 the cursors move. They are saved a moment later, with those of other servers
   (``federation/sender.py``).
7. A transaction that is refused for its content is cut in half until the refused item is alone, which is
   dropped and counted (``federation/destination_queue.py``).
8. After any other failure the queue waits, longer with each failure. A request from the server ends the wait
   (``server_api/auth.py``).

SPEC: server-server API, "Transactions"; T-10, T-13 to T-15 (docs/rules.md).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
from hansa import (
    Backoff,
    Delete,
    DestinationStatus,
    NetworkContext,
    Put,
    RemoteProtocolError,
    Row,
    StreamTail,
)

from hansa_matrix.federation.client import (
    REQUEST_FAILURES,
    FederationClient,
    RemoteError,
    ServerUnreachable,
    build_path,
)
from hansa_matrix.federation.durable_edus import edu_to_send
from hansa_matrix.federation.outbound_pdus import OutboundPdus
from hansa_matrix.proto.streaming.transactions import MAX_EDUS, MAX_PDUS

_EARLY = 3600.0
_EARLY_BACKOFF, _LATE_BACKOFF = Backoff(first=1.0, most=60.0), Backoff(first=1.0, most=3600.0)
#: Of a backlog longer than this in one room, only the newest event is sent: the peer pages back itself.
_CATCH_UP = 1000
#: EDUs that may not be lost, in one transaction: they may be of 64 KiB each.
_MAX_DURABLE_EDUS = 50
#: Seconds for a transaction, for one that may be lost, and for which a server that did not answer such a one
#: is told nothing more.
_TIMEOUT_S, _EPHEMERAL_TIMEOUT_S, _EPHEMERAL_PAUSE_S = 60.0, 10.0, 60.0


def destination_set(servers: Iterable[str]) -> tuple[int, tuple[str, ...]]:
    """``(id, servers)`` of a set of servers; the id is 0 for none."""
    return _set_of(frozenset(servers))


@lru_cache(maxsize=32)  # every event of a room goes to the same ones
def _set_of(servers: frozenset[str]) -> tuple[int, tuple[str, ...]]:
    names = tuple(sorted(servers))
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return int.from_bytes(digest[:6]) if names else 0, names


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueServices:
    """The services that all queues of this server share. ``boot`` makes transaction ids differ from those of
    earlier starts; ``probes`` limits the number of failing servers that are tried at a time; ``changed`` is
    called when a server begins or ceases to fail, ``moved`` when a cursor must be saved soon, along with
    those of other servers. ``recent`` has the end of each stream, ``pdus`` the events that are sent.
    """

    ctx: NetworkContext
    client: FederationClient
    boot: str
    probes: asyncio.Semaphore
    changed: Callable[[], None]
    moved: Callable[[DestinationQueue], None]
    recent: Mapping[str, StreamTail[Row]]
    pdus: OutboundPdus


@dataclass(frozen=True, slots=True)
class _TransactionContents:
    """The durable part of one transaction."""

    events: Sequence[Row]
    lasting: Sequence[Row]

    def __bool__(self) -> bool:
        return bool(self.events or self.lasting)

    def split(self) -> tuple[_TransactionContents, ...]:
        """Two smaller ones, none if it is a single thing."""
        if self.events and self.lasting:
            return _TransactionContents(self.events, ()), _TransactionContents((), self.lasting)
        half = len(self.events or self.lasting) // 2
        if not half:
            return ()
        first = _TransactionContents(self.events[:half], self.lasting[:half])
        return first, _TransactionContents(self.events[half:], self.lasting[half:])

    def named(self) -> str:
        """For a transaction's id: it says what is in it."""
        spans = ((mark, rows) for mark, rows in (("", self.events), ("d", self.lasting)) if rows)
        return "".join(f"{mark}{rows[0].position}-{rows[-1].position}" for mark, rows in spans)


class DestinationQueue:
    """One server: a cursor in the stream of our events, one in that of EDUs that may not be lost, and in
    memory the EDUs that may.
    """

    def __init__(self, server: str, post: QueueServices) -> None:
        self.server = server
        self._post = post
        self._ctx = post.ctx
        self.position = 0
        self.lasting = 0
        self.sets: set[int] = set()
        self._returns = 0
        self.failures = 0
        #: Wall clock in ms, 0 if it does not fail.
        self.failing_since = 0
        self.waiting_since = 0
        self.reason = ""
        self.task: asyncio.Task[None] | None = None
        #: Ephemeral EDUs, the last of each kind, room and user.
        self.edus: OrderedDict[tuple[str, ...], dict[str, Any]] = OrderedDict()
        self._generation = post.ctx.policy_generation
        self._told = 0
        self._deaf_until = 0.0
        self._wake = asyncio.Event()
        self._heard = asyncio.Event()

    async def load(self) -> None:
        """Where it stood."""
        kept = await self._ctx.store.get("destination", (self.server,))
        if kept is not None:
            self.position = int(kept.fields["position"] or 0)
            self.lasting = int(kept.fields["lasting"] or 0)
            self.failures = int(kept.fields["failures"] or 0)
            self.failing_since = int(kept.fields["failing_since"] or 0)
            self._told = 0

    def return_to(self, *, event: int | None, edu: int | None) -> None:
        """Send from these positions on, if the cursors are further: the first event and the first durable EDU
        of a set of servers that was not known when the cursors passed them. A server ignores what it has.
        """
        self.position = min(self.position, self.position if event is None else event - 1)
        self.lasting = min(self.lasting, self.lasting if edu is None else edu - 1)
        self._returns += 1

    def run(self) -> None:
        """Something waits, or may wait."""
        self._wake.set()
        if self.task is None or self.task.done():
            self.task = self._ctx.spawn(self._send_all, f"send to {self.server}")

    def heard_from(self) -> None:
        """The server is alive: what waits is tried at once."""
        self._deaf_until = 0.0
        if self.failures:
            self.failures, self.failing_since = 0, 0
            self._post.changed()
            self._heard.set()
            self.run()

    def queue_ephemeral(self, name: tuple[str, ...], edu: dict[str, Any]) -> None:
        """Queues an ephemeral EDU: only the last one of a ``name`` is kept, and none is for a server that
        cannot be reached.
        """
        if self.failures or self._ctx.clock.monotonic() < self._deaf_until:
            return
        self._drop_outdated_ephemeral(self._ctx.policy_generation)
        self.edus.pop(name, None)
        self.edus[name] = edu
        if len(self.edus) > MAX_EDUS:
            self.edus.popitem(last=False)
            self._ctx.count("matrix_edus_dropped")
        self.run()

    def _drop_outdated_ephemeral(self, generation: int) -> None:
        if generation != self._generation:
            self._generation = generation
            if self.edus:
                self._ctx.count("matrix_edus_dropped")
                self.edus.clear()

    async def pending_rows(self) -> list[Row]:
        """The events behind the cursor, in order; at least the first 1,001 of them."""
        return await self._rows_after("out", self.position, _CATCH_UP + 1)

    async def _rows_after(self, stream: str, after: int, limit: int) -> list[Row]:
        """Reads up to one point of the stream: otherwise a row that is committed while one set is read could
        be skipped behind the rows of another set.
        """
        recent = await self._post.recent[stream].after(after)
        if recent is not None:
            return [row for row in recent if row.fields["recipients"] in self.sets]
        upto = await self._ctx.store.position()
        found: list[Row] = []
        for set_id in list(self.sets):
            found += await self._ctx.store.scan(
                stream,
                index=("recipients", "position"),
                equal=(set_id,),
                after=after,
                upto=upto,
                limit=limit,
            )
        found.sort(key=lambda row: row.position)
        return found

    async def _send_all(self) -> None:
        if self.failures:  # as it was before a restart
            await self._wait_backoff(0.0)
        while True:
            self._wake.clear()
            returns = self._returns
            waiting = await self.pending_rows()
            rows = waiting if len(waiting) > _CATCH_UP else waiting[:MAX_PDUS]
            lasting = (await self._rows_after("lasting_edu", self.lasting, _MAX_DURABLE_EDUS))[
                :_MAX_DURABLE_EDUS
            ]
            if not rows and not lasting:
                if self.edus:
                    await self._send_ephemeral(self._take_ephemeral(MAX_EDUS))
                elif self._has_nothing_new():
                    return
                continue
            self.waiting_since = self.waiting_since or self._ctx.clock.now()
            chosen = self._catch_up_events(rows)
            for at in range(0, max(1, len(chosen)), MAX_PDUS):
                parcel = _TransactionContents(chosen[at : at + MAX_PDUS], lasting if not at else ())
                await self._deliver_or_bisect(parcel, self._take_ephemeral(MAX_EDUS - len(parcel.lasting)))
            if returns != self._returns:
                continue
            await self._advance_cursor(rows, lasting)
            if len(waiting) <= MAX_PDUS and len(lasting) < _MAX_DURABLE_EDUS and self._has_nothing_new():
                return

    def _has_nothing_new(self) -> bool:
        """True if nothing can have arrived since the backlog was last read: a caller that adds to it also
        wakes the task.
        """
        if self.edus or self._wake.is_set():
            return False
        self.waiting_since, self.reason = 0, ""
        return True

    async def _advance_cursor(self, rows: Sequence[Row], lasting: Sequence[Row]) -> None:
        self.waiting_since = 0
        if rows:
            self.position = rows[-1].position
        if not lasting:
            self._post.moved(self)
            return
        self.lasting = lasting[-1].position
        alone = destination_set((self.server,))[0]
        gone = [Delete("lasting_edu", row.key) for row in lasting if row.fields["recipients"] == alone]
        await self._ctx.store.commit([self.cursor_row(), *gone], durability="lazy")

    def cursor_row(self) -> Put:
        """The row of what is to outlive a restart."""
        fields = {
            "position": self.position,
            "lasting": self.lasting,
            "failures": self.failures,
            "failing_since": self.failing_since,
        }
        return Put("destination", (self.server,), b"", fields)

    @staticmethod
    def _catch_up_events(rows: Sequence[Row]) -> list[Row]:
        """All of a short backlog; of a room with a long one the newest event."""
        if len(rows) <= MAX_PDUS:
            return list(rows)
        newest = {str(row.fields["room_id"]): row for row in rows}
        return sorted(newest.values(), key=lambda row: row.position)

    def _take_ephemeral(self, most: int) -> list[dict[str, Any]]:
        """Takes ephemeral EDUs for a transaction. Those from before a change of the policies are dropped."""
        self._drop_outdated_ephemeral(self._ctx.policy_generation)
        return [self.edus.popitem(last=False)[1] for _ in range(min(most, len(self.edus)))]

    async def _transaction_body(
        self, parcel: _TransactionContents, passing: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        ids = [str(row.fields["event_id"]) for row in parcel.events]
        wires = {event_id: self._post.pdus.cached(event_id) for event_id in ids}
        absent = [(event_id,) for event_id, wire in wires.items() if wire is None]
        if absent:
            rows = await self._ctx.store.get_many("pdu", absent)
            wires |= {str(key[0]): row.body for key, row in rows.items()}
            wires |= await self._visible_pdus(rows.values())
        body: dict[str, Any] = {
            "origin": self._post.client.server,
            "origin_server_ts": self._ctx.clock.now(),
            "pdus": [orjson.Fragment(wire) for event_id in ids if (wire := wires[event_id]) is not None],
        }
        waited = [await edu_to_send(self._ctx, row) for row in parcel.lasting]
        edus = [*(edu for edu in waited if edu is not None), *passing]
        return body | ({"edus": edus} if edus else {})

    async def _visible_pdus(self, rows: Iterable[Row]) -> dict[str, bytes]:
        """Those of the stored events that servers may not have whole, as they may have them."""
        looked: dict[str, list[str]] = {}
        for row in rows:
            if self._ctx.has_policies or self._post.pdus.is_withheld(row):
                looked.setdefault(str(row.fields["room_id"]), []).append(str(row.key[0]))
        found: dict[str, bytes] = {}
        for room_id, event_ids in looked.items():
            found |= await self._post.pdus.load(room_id, event_ids)
        return found

    async def _put_transaction(self, txn: str, body: dict[str, Any], seconds: float) -> None:
        target = build_path("_matrix", "federation", "v1", "send", self._post.boot + txn)
        if not self.failures:
            await self._post.client.request("PUT", self.server, target, body, seconds=seconds)
            return
        async with self._post.probes:
            await self._post.client.request("PUT", self.server, target, body, seconds=seconds)

    async def _send_ephemeral(self, edus: Sequence[dict[str, Any]]) -> None:
        """Once: what may be lost, when there is nothing else to say."""
        self._told += 1
        try:
            body = await self._transaction_body(_TransactionContents((), ()), edus)
            await self._put_transaction(f"edus{self._told}", body, _EPHEMERAL_TIMEOUT_S)
        except REQUEST_FAILURES as error:
            self._deaf_until = self._ctx.clock.monotonic() + _EPHEMERAL_PAUSE_S
            self._ctx.count("matrix_edus_dropped")
            self._ctx.log.info("%s was not told: %s", self.server, error)

    async def _deliver_or_bisect(
        self, parcel: _TransactionContents, passing: Sequence[dict[str, Any]] = ()
    ) -> None:
        """One transaction until it is taken; what the peer cannot stand is bisected and dropped."""
        generation = self._ctx.policy_generation
        body = await self._transaction_body(parcel, passing)
        txn = parcel.named()
        if passing:
            self._told += 1
            txn += f"e{self._told}"
        while True:
            if generation != self._ctx.policy_generation:  # what waits is said as the policies of now have it
                generation = self._ctx.policy_generation
                body, txn = await self._transaction_body(parcel, ()), f"{parcel.named()}p{generation}"
            try:
                await self._put_transaction(txn, body, _TIMEOUT_S)
            except RemoteError as error:
                if error.hint in {401, 403, 404}:
                    await self._record_failure(f"refused with {error.hint} {error.code}: {error.reason}")
                    continue
                if passing:
                    # It may be an EDU that they will not have: nothing else is given up for that.
                    self._ctx.count("matrix_edus_dropped")
                    await self._deliver_or_bisect(parcel)
                    return
                halves = parcel.split()
                if not halves:
                    self._drop_poison(parcel, error)
                for half in halves:
                    await self._deliver_or_bisect(half)
                return
            except ServerUnreachable as error:
                await self._record_failure(error.detail, error.retry_after)
            except RemoteProtocolError as error:
                await self._record_failure(error.reason)
            else:
                self._deaf_until, self.reason = 0.0, ""
                if self.failures:
                    self.failures, self.failing_since = 0, 0
                    self._post.changed()
                return

    def _drop_poison(self, parcel: _TransactionContents, error: RemoteError) -> None:
        self.reason = f"refused with {error.hint} {error.code}: {error.reason}"
        self._ctx.count("matrix_poison_events" if parcel.events else "matrix_edus_dropped")
        what = parcel.events[0].fields["event_id"] if parcel.events else "an EDU"
        self._ctx.log.warning("%s will not take %s: %s", self.server, what, error.reason)

    async def _record_failure(self, reason: str, asked: float = 0.0) -> None:
        self.reason = reason
        self.failing_since = self.failing_since or self._ctx.clock.now()
        self.failures += 1
        self._post.changed()
        await self._ctx.store.commit([self.cursor_row()], durability="lazy")
        await self._wait_backoff(asked)

    async def _wait_backoff(self, asked: float) -> None:
        """Longer with every failure, unless the server asked for a certain patience, or is heard from."""
        failing_for = (self._ctx.clock.now() - self.failing_since) / 1000
        backoff = _EARLY_BACKOFF if failing_for < _EARLY else _LATE_BACKOFF
        if asked:
            backoff = Backoff(first=asked, most=asked)
        wait = backoff.delay(self.failures, self._ctx.random.uniform())
        self._heard.clear()
        try:
            async with asyncio.timeout(wait):
                await self._heard.wait()
        except TimeoutError:
            pass

    @property
    def is_idle(self) -> bool:
        """True if nothing is being sent or queued, and no attempt fails."""
        return (self.task is None or self.task.done()) and not self.edus and not self.failures

    def is_unreachable(self) -> bool:
        """True if the server has not been reached for an hour."""
        return bool(self.failures) and self._ctx.clock.now() - self.failing_since > _EARLY * 1000

    def destination_status(self, waiting: int) -> DestinationStatus:
        """For an operator; ``pending_rows`` are the events of which it is asked."""
        if not waiting:
            return DestinationStatus(name=self.server, state="delivered")
        return DestinationStatus(
            name=self.server,
            state="failed" if self.failures else "waiting",
            since=self.waiting_since,
            reason=self.reason,
            failures=self.failures,
            waiting=waiting,
        )

    async def backlog_size(self) -> int:
        """How much waits: events, and EDUs that may not be lost."""
        lasting = await self._rows_after("lasting_edu", self.lasting, _MAX_DURABLE_EDUS)
        return len(await self.pending_rows()) + len(lasting)

    async def discard_backlog(self) -> int:
        """Forget what waits: how much that was."""
        given_up = await self.backlog_size()
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        if given_up:
            self.position = self.lasting = await self._ctx.store.position()
        self.failures, self.failing_since, self.waiting_since = 0, 0, 0
        await self._ctx.store.commit([self.cursor_row()])
        self.edus.clear()
        return given_up
