"""From a transaction to the room's turn: staged with its answer in one commit, then handled room by room.

1. ``PUT /send`` is parsed (``server_api/send.py``, ``proto/streaming/transactions.py``).
2. A PDU stays if its room is joined and not blocked, receipt check 1 passes (``proto/pdu.py``) and the server
   ACL lets its sender take part (``rooms/inbound/pdu_intake.py``). Others are dropped and counted.
3. A transaction beyond the server's share is refused before any part of it is taken
   (``rooms/inbound/staging_shares.py``, ``rooms/inbound/backlog.py``).
4. A transaction of one room that lacks nothing is judged in the commit of its answer, without being staged
   (``rooms/inbound/pdu_staging.py``).
5. Any other is staged: one commit has its PDUs and its answer (``schema.py``). Each PDU joins the queue of
   its room (``rooms/inbound/room_queue.py``).
6. One worker per room takes PDUs from the front and makes receipt checks 2 and 3 (``proto/pdu.py``).
7. A PDU that lacks something steps aside, and the others of the room go on: keys (``federation/keyring.py``),
   events that it cites (``rooms/inbound/missing_events.py``), the signature of a policy server
   (``rooms/inbound/policy_server.py``).
8. The others are submitted to the core (``rooms/inbound/pdu_submission.py``). The room's turn makes the other
   checks and removes the staged rows in its commit (``rooms/pdu_receipt.py``).

A staged PDU is acknowledged, so it is never forgotten: a restart reads it again, a failed fetch is repeated,
and only checks 1 and 2 may drop it, which is counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
from hansa import (
    Busy,
    Conflict,
    Delete,
    Insert,
    NetworkContext,
    Put,
    StoreFault,
    Submission,
    Write,
    again_on_conflict,
    pages,
)

from hansa_matrix.crypto import verify_signature
from hansa_matrix.federation.client import REQUEST_FAILURES
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.ids import domain_of
from hansa_matrix.proto.pdu import Signers, check_content_hash, parse_pdu, signature_problem, signers_of
from hansa_matrix.rooms.inbound.backlog import Backlog, memory_size
from hansa_matrix.rooms.inbound.missing_events import MissingEvents
from hansa_matrix.rooms.inbound.pending_commits import PendingCommits
from hansa_matrix.rooms.inbound.policy_server import PolicyServerClient
from hansa_matrix.rooms.inbound.room_queue import QueuedPdu, RoomQueue
from hansa_matrix.rooms.inbound.staging_shares import StagingShares
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom

_BATCH = 50
#: Seconds until a room's line goes on after the database failed.
_FAULT_WAIT = 1.0
#: Staged rows that are read at a time.
_LOADED = 1000
#: Events of one room for which other servers are asked at a time.
_FILLS = 4
#: Of those, the ones that one server sent.
_FILLS_OF_ONE = 2
#: Tries after which an event no longer waits for others of the line, which may wait for it.
_IN_LINE = 3


class PduStaging:
    """Everything that waits to be judged, a line per room."""

    def __init__(
        self, own: LocalServer, keyring: Keyring, gaps: MissingEvents, policing: PolicyServerClient
    ) -> None:
        config = own.ctx.config
        self._ctx: NetworkContext = own.ctx
        self._rooms = own.rooms
        self._keyring = keyring
        self._gaps = gaps
        self._submitter = gaps.submitter
        self._policing = policing
        self._shares = StagingShares(config.max_staged_pdus_per_room, config.max_staged_pdus)
        #: Staged rows that stay though their events have left the line: tried again at the next start.
        self._left = gaps.submitter.kept_rows
        self._lines: dict[str, RoomQueue] = {}
        self._backlog = Backlog()
        self._coming = PendingCommits()
        self._at = 0

    async def load(self, rooms: Sequence[MatrixRoom]) -> None:
        """Take up what was acknowledged before a restart."""
        for room in rooms:
            line = self._lines.setdefault(room.room_id, RoomQueue(self._backlog))
            await self._taken_up(room, line)
            if len(line):
                self._start_worker(room, line)

    async def _taken_up(self, room: MatrixRoom, line: RoomQueue) -> None:
        async for rows in pages(self._ctx.store, "staged", equal=(room.room_id,), size=_LOADED):
            for row in rows:
                pdu = parse_pdu(orjson.loads(row.body), room.version)
                at, origin = int(row.key[1]), str(row.fields["origin"])
                line.append_entry(QueuedPdu(at, pdu, origin))
                self._shares.add(room.room_id, origin)
                self._at = max(self._at, at)
        self._update_gauges()

    def _update_gauges(self) -> None:
        self._ctx.set_gauge("matrix_waiting", self._shares.waiting)
        self._ctx.set_gauge("matrix_waiting_bytes", self._backlog.bytes)

    def _release_shares(self, room_id: str, gone: Iterable[QueuedPdu]) -> None:
        """Entries have left the line; those whose row stays keep their part of the share."""
        for entry in gone:
            if entry.at not in self._left:
                self._shares.remove(room_id, entry.origin)
        self._update_gauges()

    def waiting_count(self, room_id: str) -> int:
        """How many PDUs of a room wait."""
        line = self._lines.get(room_id)
        return len(line) if line is not None else 0

    async def discard(self, room_id: str, event_id: str) -> bool:
        """Give an event up that was acknowledged and cannot be judged; False if none of that id waits."""
        line = self._lines.get(room_id)
        entry = line.remove(event_id) if line is not None else None
        if entry is None:
            return False
        await self._ctx.store.commit([Delete("staged", (room_id, entry.at))])
        self._release_shares(room_id, [entry])
        self._ctx.count("matrix_pdus", status="skipped")
        self._ctx.log.warning("%s is skipped, as an operator wants it", event_id)
        return True

    def waiting_events(self, room_id: str) -> list[tuple[str, str, int]]:
        """``(event id, origin, attempts)`` of what waits in a room, 100 at most."""
        line = self._lines.get(room_id)
        return [(e.pdu.event_id, e.origin, e.tries) for e in line.waiting_entries()[:100]] if line else []

    async def stage_transaction(
        self, origin: str, txn: str, fresh: Sequence[tuple[MatrixRoom, Pdu]], answer: Mapping[str, Any]
    ) -> bytes:
        """Stage the PDUs of a transaction and keep its answer in one commit; the answer as bytes. A repeated
        transaction is answered as before. Raises ``Busy`` before anything is taken.
        """
        more = Counter(room.room_id for room, _ in fresh)
        if full := self._shares.full(origin, more):
            self._ctx.count("matrix_pdus_refused", full=full)
            raise Busy("too many events wait", after=2.0)
        size = sum(memory_size(pdu) for _, pdu in fresh)
        if self._backlog.full(origin, size):
            self._ctx.count("matrix_backlog_full")
            raise Busy("the events that wait take too much memory", after=5.0)
        body = orjson.dumps({"pdus": answer})
        receipt = Insert("txn", (origin, txn), body, {"ts": self._ctx.clock.now()})
        try:
            with self._backlog.reserved(origin, size):
                settled = await self._at_once(origin, receipt, fresh)
                if not settled:
                    await self._stage_pdus(origin, receipt, fresh)
            if not settled:
                self._update_gauges()
        except Conflict:
            before = await self._ctx.store.get("txn", (origin, txn))
            if before is None:
                raise
            return before.body
        return body

    async def _at_once(self, origin: str, receipt: Insert, fresh: Sequence[tuple[MatrixRoom, Pdu]]) -> bool:
        """Judge the PDUs of a transaction in the commit that keeps its answer, where nobody has to be waited
        for: one room, in whose line nobody is, all that they stand on and every key at hand, no policy.
        False if they are to be staged.
        """
        if (
            not 0 < len(fresh) <= _BATCH
            or self._ctx.has_policies
            or len({room.room_id for room, _ in fresh}) > 1
        ):
            return False
        room = fresh[0][0]
        line = self._lines.setdefault(room.room_id, RoomQueue(self._backlog))
        names = {(room.room_id, pdu.event_id) for _, pdu in fresh}
        if len(line) or line.running or any(name in self._coming for name in names):
            return False
        entries = [QueuedPdu(0, pdu, origin) for _, pdu in fresh if room.events.at_hand(pdu.event_id) is None]
        if len(names) < len(fresh) or len(entries) < len(fresh):
            return False
        line.running = True
        try:
            with self._coming.hold_for_writing(names):
                return await self._judged_at_once(room, receipt, entries)
        except (Conflict, StoreFault):
            raise
        except Exception:  # noqa: BLE001  # what is staged is tried again, each alone
            return False
        finally:
            line.running = False
            if len(line):
                self._start_worker(room, line)

    async def _judged_at_once(self, room: MatrixRoom, receipt: Insert, entries: Sequence[QueuedPdu]) -> bool:
        await self._prefetch(room, entries)
        items: list[Submission] = []
        expected: set[str] = set()
        policed = await self._policing.policy_server_of(room) is not None
        for entry in entries:
            needed = signers_of(entry.pdu, room.version)
            if (
                (not self._keyring.at_hand(needed.keys, needed.at) and await self._lacks_keys(room, entry))
                or await self._gaps.missing_references(room, entry.pdu, expected)
                or (policed and await self._lacks_policy_signature(room, entry))
            ):
                return False
            if (good := await self.verify_pdu(room, entry.pdu, needed)) is not None:
                items.append(await self._submitter.build_submission(good, entry.origin))
                expected.add(good.event_id)
        if not items:
            await self._ctx.store.commit([receipt])
            return True
        await self._submitter.remove_staged(items, await self._ctx.submit(items, receipt=receipt))
        await self._rooms.listeners.notify_idle(room)
        return True

    async def _stage_pdus(
        self, origin: str, receipt: Insert, fresh: Sequence[tuple[MatrixRoom, Pdu]]
    ) -> None:
        """Keep a transaction with its answer. An event that another transaction is storing or judging at this
        moment may yet be lost: it is waited for, and nothing relies on it before.
        """
        names = {(room.room_id, pdu.event_id) for room, pdu in fresh}
        await self._coming.wait_for_others(names)
        with self._coming.hold_for_writing(names):
            await again_on_conflict(
                partial(self._stage_numbered, origin, receipt, fresh), collections={"staged"}
            )

    async def _stage_numbered(
        self, origin: str, receipt: Insert, fresh: Sequence[tuple[MatrixRoom, Pdu]]
    ) -> None:
        try:
            await self._commit_staged(origin, receipt, fresh)
        except Conflict as lost:
            if lost.collection == "staged":  # another gave the number to a PDU of that room
                rows = await self._ctx.store.scan("staged", equal=lost.key[:1], limit=1, reverse=True)
                self._at = max(self._at, *(int(row.key[1]) for row in rows), int(lost.key[1]))
            raise

    async def _commit_staged(
        self, origin: str, receipt: Insert, fresh: Sequence[tuple[MatrixRoom, Pdu]]
    ) -> None:
        writes: list[Write] = [receipt]
        staged: dict[tuple[str, str], tuple[MatrixRoom, int, Pdu]] = {}
        completed: list[tuple[QueuedPdu, Pdu]] = []
        for room, pdu in fresh:
            known = room.events.at_hand(pdu.event_id)
            line = self._lines.setdefault(room.room_id, RoomQueue(self._backlog))
            settled = known is not None and known.after and not known.policy_server_refused
            if pdu.event_id in line.ids:
                entry = line.find_entry(pdu.event_id)
                if entry is not None and (
                    _by_its_own(origin, entry, pdu)
                    or await self._policing.adds_signature(room, entry.pdu, pdu)
                ):
                    fields = {"event_id": pdu.event_id, "origin": entry.origin}
                    writes.append(Put("staged", (room.room_id, entry.at), pdu.wire, fields))
                    completed.append((entry, pdu))
                continue
            name = (room.room_id, pdu.event_id)
            if settled or name in staged:
                continue
            self._at = max(self._at + 1, self._ctx.clock.now() * 1000)
            fields = {"event_id": pdu.event_id, "origin": origin}
            writes.append(Insert("staged", (room.room_id, self._at), pdu.wire, fields))
            staged[name] = (room, self._at, pdu)
        await self._ctx.store.commit(writes)
        for entry, pdu in completed:
            entry.pdu, entry.unwanted = pdu, ""
        for room, at, pdu in staged.values():
            line = self._lines[room.room_id]
            line.append_entry(QueuedPdu(at, pdu, origin))
            self._shares.add(room.room_id, origin)
            self._start_worker(room, line)

    def _start_worker(self, room: MatrixRoom, line: RoomQueue) -> None:
        if not line.running:
            line.running = True
            self._ctx.spawn(partial(self._run_room, room, line), f"ingest {room.room_id}")

    def _spawn_for_entry(
        self,
        work: Callable[[MatrixRoom, RoomQueue, QueuedPdu], Coroutine[Any, Any, None]],
        room: MatrixRoom,
        line: RoomQueue,
        entry: QueuedPdu,
        what: str,
    ) -> None:
        self._ctx.spawn(partial(work, room, line, entry), f"{what} {entry.pdu.event_id}")

    async def _run_room(self, room: MatrixRoom, line: RoomQueue) -> None:
        try:
            while len(line):
                await line.wait_ready(self._ctx.clock)
                batch = line.peek(_BATCH)
                try:
                    done = await self._submit_batch(room, batch)
                except StoreFault:  # what was acknowledged waits until it can be stored what becomes of it
                    await asyncio.sleep(_FAULT_WAIT)
                    continue
                self._release_shares(room.room_id, line.pop_done(done))
                if done and not line.peek(1):
                    with suppress(StoreFault):  # the next time that all is done
                        await self._rooms.listeners.notify_idle(room)
                if done or not batch:
                    continue
                # The first one cites events that must be fetched: the others pass it meanwhile.
                entry = line.check_out()
                try:
                    lacking = await self._gaps.missing_references(room, entry.pdu, ())
                    busy = len(line.held) > _FILLS or line.held_of(entry.origin) > _FILLS_OF_ONE
                    if not busy and await self._lacks_keys(room, entry):
                        self._spawn_for_entry(self._ask_keys, room, line, entry, "keys of")
                    elif (
                        not lacking
                        and not await self._lacks_keys(room, entry)
                        and await self._lacks_policy_signature(room, entry)
                    ):
                        self._spawn_for_entry(self._ask_policy_server, room, line, entry, "policy on")
                    elif busy or (entry.tries < _IN_LINE and self._in_line(room, line, lacking)):
                        self._requeue(line, entry, ready=False)
                    else:
                        self._spawn_for_entry(self._fetch_missing, room, line, entry, "gap before")
                except StoreFault:
                    self._requeue(line, entry, ready=False)
        finally:
            line.running = False

    def _in_line(self, room: MatrixRoom, line: RoomQueue, ids: Iterable[str]) -> bool:
        """True if all of these wait here, or are about to."""
        return all(one in line.ids or (room.room_id, one) in self._coming for one in ids)

    async def _fetch_missing(self, room: MatrixRoom, line: RoomQueue, entry: QueuedPdu) -> None:
        """Ask for what an event lacks, as long as that takes: its room's line goes on."""
        filled = False
        try:
            filled = await self._gaps.fetch(room, entry.pdu, entry.origin)
        except StoreFault as fault:
            self._ctx.log.info("%s is filled in later: %s", entry.pdu.event_id, fault)
        except Exception as error:  # noqa: BLE001  # as in _judge
            self._submitter.log_failure(entry.pdu.event_id, error)
        finally:
            self._requeue(line, entry, ready=filled)

    async def _lacks_keys(self, room: MatrixRoom, entry: QueuedPdu) -> bool:
        """True if keys must be fetched. Meanwhile the other events of the room go on."""
        if entry.keyed:
            return False
        needed = signers_of(entry.pdu, room.version)
        for server, key_id in needed.keys:
            key = self._keyring.get(server, key_id)
            if key is None or key.valid_until < needed.at:
                return not await self._keyring.has_keys(needed.keys, needed.at)
        return False

    async def _ask_keys(self, room: MatrixRoom, line: RoomQueue, entry: QueuedPdu) -> None:
        """Ask once, however that ends: without the keys the event is dropped at its turn."""
        pdu = entry.pdu
        try:
            needed = signers_of(pdu, room.version)
            await self._keyring.ensure_keys(needed.keys, needed.at, share=entry.origin)
        except StoreFault as fault:  # nobody was asked
            self._ctx.log.info("the keys of %s are asked for later: %s", pdu.event_id, fault)
            self._requeue(line, entry, ready=False)
            return
        except Exception as error:  # noqa: BLE001  # as in _judge
            self._submitter.log_failure(pdu.event_id, error)
        entry.keyed = True
        self._requeue(line, entry, ready=True)

    async def _lacks_policy_signature(self, room: MatrixRoom, entry: QueuedPdu) -> bool:
        """True if the room's policy server must be asked about an event."""
        return not entry.unwanted and await self._policing.missing_signature(room, entry.pdu) is not None

    async def _ask_policy_server(self, room: MatrixRoom, line: RoomQueue, entry: QueuedPdu) -> None:
        """Ask once, however that ends: a policy server that is dead does not stall its rooms."""
        before = signed = entry.pdu
        why = ""
        try:
            signed = await self._policing.ensure_signed(room, before)
        except REQUEST_FAILURES as error:
            why = str(error)[:200] or "refused"
        except StoreFault as fault:  # nobody was asked
            self._ctx.log.info("it is asked about %s later: %s", before.event_id, fault)
            self._requeue(line, entry, ready=False)
            return
        except Exception as error:  # noqa: BLE001  # as in _judge
            self._submitter.log_failure(entry.pdu.event_id, error)
            why = "it could not be asked about"
        if entry.pdu is before:  # else it came again meanwhile, with the signature
            entry.pdu, entry.unwanted = signed, why
        self._requeue(line, entry, ready=True)

    def _requeue(self, line: RoomQueue, entry: QueuedPdu, *, ready: bool) -> None:
        gone = line.check_in(entry, self._ctx.clock.monotonic(), ready=ready)
        if gone is not None:  # its row stays
            self._left.add(gone.at)
            self._ctx.count("matrix_pdus", status="set_aside")
            self._ctx.log.warning("%s waits for the next start", gone.pdu.event_id)

    async def verify_pdu(self, room: MatrixRoom, pdu: Pdu, needed: Signers | None = None) -> Pdu | None:
        """Checks 2 and 3; None for an event to drop. ``needed`` saves finding out who signs it."""
        servers, keys, at = needed or signers_of(pdu, room.version)
        if not self._keyring.at_hand(keys, at):
            await self._keyring.ensure_keys(keys, at)
        problem = signature_problem(pdu, room.version, self._keyring.get, verify_signature, servers)
        if problem is None:
            return check_content_hash(pdu, room.version)
        known = {server for server, key in keys if self._keyring.get(server, key)}
        await self._gaps.unverified.note(room, set(servers) - known)
        self._ctx.count("matrix_pdus", status="dropped")
        self._ctx.log.info("dropped %s: %s", pdu.event_id, problem)
        return None

    async def _submit_batch(self, room: MatrixRoom, batch: Sequence[QueuedPdu]) -> int:
        """Judge from the front of the line; how many are done with."""
        items: list[Submission] = []
        drops: list[Write] = []
        expected: set[str] = set()
        taken = 0
        await self._prefetch(room, batch)
        for entry in batch:
            pdu, origin, row = entry.pdu, entry.origin, (room.room_id, entry.at)
            try:
                if await self._lacks_keys(room, entry):
                    break
                good = await self.verify_pdu(room, pdu)
                if entry.pdu is not pdu:  # it came again meanwhile
                    break
                if good is None:
                    drops.append(Delete("staged", row))
                elif await self._gaps.missing_references(
                    room, good, expected
                ) or await self._lacks_policy_signature(room, entry):
                    break
                else:
                    items.append(
                        await self._submitter.build_submission(good, origin, row, unwanted=entry.unwanted)
                    )
                    expected.add(good.event_id)
            except StoreFault:
                raise
            except Exception as error:  # noqa: BLE001  # one event must not end the network, again at every start
                self._submitter.log_failure(pdu.event_id, error)
                self._left.add(entry.at)
            taken += 1
        if drops:
            await self._ctx.store.commit(drops)
        if items:
            await self._submitter.submit(items)
        return taken

    async def _prefetch(self, room: MatrixRoom, batch: Sequence[QueuedPdu]) -> None:
        """Read what several events stand on in one go."""
        if len(batch) < 2:
            return
        cited = {e for one in batch for e in (*one.pdu.prev_events, *one.pdu.auth_events)}
        cited -= {one.pdu.event_id for one in batch}
        try:
            await room.events.load(cited, room.version)
        except StoreFault:  # nothing is judged now
            raise
        except Exception:  # those that it concerns fail by themselves
            self._ctx.log.exception("reading ahead in %s", room.room_id)


def _by_its_own(origin: str, waiting: QueuedPdu, pdu: Pdu) -> bool:
    """True if the sender's own server sends a copy of an event that already waits as a copy from another
    server. The copies may differ in content or signatures, by which one of them is redacted or dropped.
    """
    return origin == domain_of(pdu.sender) != waiting.origin and waiting.pdu.wire != pdu.wire
