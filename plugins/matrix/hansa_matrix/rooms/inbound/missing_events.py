"""Fetches the events that an event cites, before it is judged.

1. An event that cites missing events steps aside, and the others of its room go on
   (``rooms/inbound/pdu_staging.py``).
2. The server that sent it is asked, then two others of the room. Each fetch has limits of time, requests and
   events (``rooms/inbound/bounded_fetch.py``).
3. ``get_missing_events`` is repeated until the answers reach a stored event, up to 1,000 events. Each event
   passes receipt checks 1 to 3 (``rooms/inbound/fetched_events.py``).
4. Where they do not reach one, the state at that point is fetched from several servers, which must not
   contradict each other (``rooms/inbound/fetched_events.py``). The event there is stored with that state
   (``rooms/pdu_receipt.py``), and the skipped gap is counted.
5. Missing auth events are fetched and checked as outliers (``rooms/inbound/outliers.py``).
6. The fetched events go through the room's turn, oldest first (``rooms/pdu_receipt.py``).
7. An event that cannot be fetched or verified after several attempts is passed over as a hole
   (``rooms/state/holes.py``). It is filled if it arrives later (``rooms/inbound/hole_filler.py``).

SPEC: server-server API, "Retrieving missing events"; ADR 0013.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from hansa import NetworkContext, Placement

from hansa_matrix.federation.client import (
    REQUEST_FAILURES,
    FederationClient,
    RemoteError,
    ServerUnreachable,
    build_path,
)
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.ids import domain_of
from hansa_matrix.proto.pdu import required_servers
from hansa_matrix.proto.streaming.packed_pdus import unpack_pdu
from hansa_matrix.rooms.inbound.bounded_fetch import BoundedFetch, FetchPool
from hansa_matrix.rooms.inbound.fetched_events import FetchedEvents, FetchNotes, list_member
from hansa_matrix.rooms.inbound.pdu_submission import PduSubmitter
from hansa_matrix.rooms.inbound.unverified_servers import UnverifiedServers
from hansa_matrix.rooms.native_events import PduWithRemoteState
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.state.holes import DEFINITE, TRIES, Hole, Suspects, Why

_MAX_EVENTS = 1000
_ASK = 20
#: So many servers of the room are asked besides the one that sent an event.
_OTHERS = 2
#: So many holes before one event are looked for once more, and the state there asked for.
_LOOKED_AT = 3
#: Tries after which an available event that gets no place is passed over.
_HAD_IN_VAIN = 4 * TRIES
#: Rooms, reasons and servers that a hole was said of.
_TOLD = 10_000


def _has_references_cached(room: MatrixRoom, pdu: Pdu, coming: Collection[str]) -> bool:
    """True if all events that an event cites are in memory, or on their way. Most calls read nothing from the
    store.
    """
    at_hand = room.events.at_hand
    for event_id in pdu.prev_events:
        if event_id not in coming and ((one := at_hand(event_id)) is None or not one.after):
            return False
    return all(event_id in coming or at_hand(event_id) is not None for event_id in pdu.auth_events)


class MissingEvents:
    """Fetches the events that an event refers to."""

    def __init__(
        self, ctx: NetworkContext, client: FederationClient, keyring: Keyring, submitter: PduSubmitter
    ) -> None:
        self._ctx = ctx
        self._server = client.server
        self._keyring = keyring
        self.fetched = FetchedEvents(ctx, FetchPool(ctx, client), keyring)
        self._suspects = Suspects(ctx.clock, ctx.config.gap_patience)
        self._told: set[tuple[str, str, str]] = set()
        self.unverified = UnverifiedServers(ctx, client.server)
        self.submitter = submitter

    @property
    def errands(self) -> FetchPool:
        """Where others are asked."""
        return self.fetched.errands

    async def missing_references(self, room: MatrixRoom, pdu: Pdu, coming: Collection[str]) -> list[str]:
        """The ``prev_events`` without a place in the DAG and the ``auth_events`` that are not stored, without
        those that are ``coming``.
        """
        if _has_references_cached(room, pdu, coming):
            return []
        prev = [e for e in pdu.prev_events if e not in coming]
        auth = [e for e in pdu.auth_events if e not in coming]
        found = await room.events.load([*prev, *auth], room.version)
        unplaced = [e for e in prev if e not in found or not found[e].after]
        lacking = [*unplaced, *(e for e in auth if e not in found)]
        if not lacking:
            return []
        foreign = await room.events.load_foreign(
            lacking, room.version
        )  # the room's turn says what that means
        return [e for e in lacking if e not in foreign and e not in room.holes]

    async def fetch(self, room: MatrixRoom, pdu: Pdu, origin: str) -> bool:
        """Store the ``prev_events`` and ``auth_events`` of an event, with states; False if that has to wait.
        The server that sent the event is asked first, then others of the room.
        """
        notes = FetchNotes(origin)
        for server in self.candidate_servers(room, origin):
            notes.asked.append(server)
            try:
                async with self.errands.acquire(server) as errand:
                    if await self._without_state(room, pdu.prev_events):
                        await self._fetch_from_server(room, pdu, errand, notes, skip=server == origin)
                    await self.fetched.fetch_auth_events(room, pdu, errand, notes)
            except REQUEST_FAILURES as error:
                self._ctx.log.info("the gap before %s waits: %s", pdu.event_id, error)
                continue
            if not await self.missing_references(room, pdu, ()):
                return True
        return await self._pass_over(room, pdu, notes)

    def candidate_servers(self, room: MatrixRoom, origin: str) -> list[str]:
        """``origin``, and some others of the room at random."""
        view = self._ctx.get_view(room.room_id)
        others = {s for n, s in view.joined_servers if n == self._ctx.id} if view is not None else set()
        listed_ = sorted(others - {origin, self._server})
        at = int(self._ctx.random.uniform() * len(listed_))
        return [*([origin] if origin else []), *(listed_[at:] + listed_[:at])[:_OTHERS]]

    async def _without_state(self, room: MatrixRoom, ids: Iterable[str]) -> list[str]:
        wanted = [e for e in ids if e not in room.holes]
        found = await room.events.load(wanted, room.version)
        return [e for e in wanted if e not in found or not found[e].after]

    async def _fetch_from_server(
        self, room: MatrixRoom, pdu: Pdu, errand: BoundedFetch, notes: FetchNotes, *, skip: bool
    ) -> None:
        """Fetches the events before an event. Only the server that sent the event is believed that there are
        none before it (``skip``): others may just not have the event yet.
        """
        got: dict[str, Pdu] = {}
        needed, ends = await self._connects(room, pdu, got)
        latest = [pdu.event_id]
        while any(e not in got for e in ends) and len(got) < _MAX_EVENTS:
            before = len(got)
            for one in await self._get_missing_events(room, errand, latest, notes):
                got.setdefault(one.event_id, one)
            if len(got) == before:
                break
            needed, ends = await self._connects(room, pdu, got)
            latest = [e for e, one in needed.items() if set(one.prev_events) & set(ends)]
            latest = latest[:_ASK] or [pdu.event_id]
        early = [e for e in needed if e in notes.doubtful and not self.can_pass_over(room, e, notes)]
        if early:
            raise ServerUnreachable(f"{early[0]} cannot be verified now: {notes.reason_for(early[0])}")
        lost = [e for e in ends if e not in got]
        if lost and not skip:
            raise ServerUnreachable(f"{errand.server} does not have {lost[0]}")
        if lost:
            self._count_skipped(room, pdu, lost[0], errand.server)
        for event_id in ends[:_ASK]:
            await self._try_adopt(room, event_id, errand, notes)
        await self._submit(room, needed, errand, notes)

    def _count_skipped(self, room: MatrixRoom, pdu: Pdu, lost: str, server: str) -> None:
        """Counted once of each gap, however often it is tried, and said once of each room and server."""
        if self._suspects.tries(room.room_id, lost):
            return
        self._ctx.count("matrix_gaps_skipped")
        if self._is_first_time((room.room_id, "skipped", server)):
            text = "a gap in %s before %s is skipped, as %s gives it; others like it are counted"
            self._ctx.log.warning(text, room.room_id, pdu.event_id, server)

    def _is_first_time(self, topic: tuple[str, str, str]) -> bool:
        """True if this is the first log entry about a room, a reason and a server."""
        if topic in self._told:
            return False
        if len(self._told) >= _TOLD:
            self._told.clear()
        self._told.add(topic)
        return True

    async def _connects(
        self, room: MatrixRoom, pdu: Pdu, got: Mapping[str, Pdu]
    ) -> tuple[dict[str, Pdu], list[str]]:
        """Returns the events of ``got`` that lie between the stored ones and an event, and the ends of paths
        that reach no stored event: they end at events that are not in ``got``, or that are from before the
        join of this server.
        """
        needed: dict[str, Pdu] = {}
        ends: dict[str, None] = {}
        edge = await self._without_state(room, pdu.prev_events)
        while edge:
            following: dict[str, None] = {}
            for event_id in edge:
                one = got.get(event_id)
                if one is None or room.head.is_before_join(event_id):
                    ends[event_id] = None
                else:
                    needed[event_id] = one
                    following.update(dict.fromkeys(one.prev_events))
            edge = await self._without_state(
                room, [e for e in following if e not in needed and e not in ends]
            )
        return needed, list(ends)

    async def _get_missing_events(
        self, room: MatrixRoom, errand: BoundedFetch, latest: list[str], notes: FetchNotes
    ) -> list[Pdu]:
        """Fetches the events before some events. Where ids are hashes, an event that cannot be verified still
        proves its ``prev_events``: the path continues behind it.
        """
        target = build_path("_matrix", "federation", "v1", "get_missing_events", room.room_id)
        body = {
            "latest_events": latest,
            "earliest_events": list(room.head.extremities)[:_ASK],
            "limit": _ASK,
            "min_depth": 0,
        }
        answer = await errand.post(target, body)
        found = await self.fetched.check_pdus(room, list_member(answer, "events")[: _ASK * 2], notes)
        return found if room.version.server_made_event_ids else [*found, *notes.doubtful.values()]

    async def _submit(
        self, room: MatrixRoom, got: dict[str, Pdu], errand: BoundedFetch, notes: FetchNotes
    ) -> None:
        """Through the same turn as what is pushed, oldest first."""
        left = sorted(got.values(), key=lambda one: (one.origin_server_ts, one.event_id))
        placed: set[str] = set()
        while left:
            ready = [p for p in left if not (set(p.prev_events) & set(got)) - placed]
            if not ready:
                return
            for one in (unpack_pdu(held, room.version) for held in ready):
                await self._fetch_states(room, one, errand, notes)
                placed.add(one.event_id)
                if one.event_id in notes.doubtful:
                    citing = next((p for p in got.values() if one.event_id in p.prev_events), one)
                    self._add_hole(room, one.event_id, notes, known=one, citing=citing, state=None)
                    await self.unverified.settle(room)
                    continue
                await self.fetched.fetch_auth_events(room, one, errand, notes)
                if await self.missing_references(room, one, ()) and not await self._pass_over(
                    room, one, notes
                ):
                    raise ServerUnreachable(f"what {one.event_id} stands on is not here yet")
                inbound = await self.submitter.build_submission(one, errand.server)
                await self.submitter.submit([replace(inbound, placement=Placement.GAP)])
                notes.taken.add(one.event_id)
            left = [p for p in left if p.event_id not in placed]

    async def _fetch_states(
        self, room: MatrixRoom, pdu: Pdu, errand: BoundedFetch, notes: FetchNotes
    ) -> None:
        for event_id in await self._without_state(room, pdu.prev_events):
            if event_id not in notes.taken:
                await self._try_adopt(room, event_id, errand, notes)

    async def _try_adopt(
        self, room: MatrixRoom, event_id: str, errand: BoundedFetch, notes: FetchNotes
    ) -> None:
        """Sets the state before an event, if the event is available."""
        try:
            await self.set_state_from_remote(room, event_id, errand, notes)
        except RemoteError as error:
            self._ctx.log.info("%s does not give %s: %s", errand.server, event_id, error)

    async def set_state_from_remote(
        self,
        room: MatrixRoom,
        event_id: str,
        errand: BoundedFetch,
        notes: FetchNotes | None = None,
        depth: int = 0,
    ) -> None:
        """Give an event whose past we do not have the state that servers say was before it; in a gap others
        than the one that sent it are asked too, and none of them may contradict it. ``depth``: see
        ``PduWithRemoteState``.
        """
        # First the event: of what nobody gives no other server is asked for the state.
        event = await self.fetched.fetch_event(room, event_id, errand, notes)
        if event is None:
            return
        if notes is None:
            given = await self.fetched.state_ids(room, event_id, errand)
            state = await self.fetched.fetch_state(room, event_id, errand, given)
        else:
            state = await self._agreed_state(room, event_id, errand) or await room.state()
        with contextlib.suppress(RemoteError):  # it is judged without what it cites, and rejected
            await self.fetched.fetch_auth_events(room, event, errand, notes)
        inbound = await self.submitter.build_submission(event, errand.server)
        await self.submitter.submit(
            [replace(inbound, native=PduWithRemoteState(pdu=event, state=state, depth=depth))]
        )

    async def _agreed_state(
        self, room: MatrixRoom, event_id: str, errand: BoundedFetch
    ) -> dict[StateKey, str] | None:
        """Returns the state before an event. Raises ``ServerUnreachable`` while a server may still give
        it.
        """
        others = (s for s in self.candidate_servers(room, errand.server) if s != errand.server)
        asked = [errand, *(self.errands.acquire_beside(server) for server in others)]
        try:
            return await self.fetched.agreed_state(room, event_id, asked, strict=False)
        except ServerUnreachable:
            if self._suspects.is_ripe(room.room_id, event_id):
                return None
            raise

    def can_pass_over(self, room: MatrixRoom, event_id: str, notes: FetchNotes) -> bool:
        """True if a missing event need not be waited for any longer. Each is counted once in an attempt."""
        if event_id not in notes.counted:
            notes.counted.add(event_id)
            if self._suspects.tried(room.room_id, event_id, notes.origin):
                self._ctx.log.info("%s in %s: %s", event_id, room.room_id, notes.reason_for(event_id))
        why, pdu = notes.reason_for(event_id), notes.doubtful.get(event_id)
        if why in DEFINITE or self._suspects.is_ripe(room.room_id, event_id):
            return True
        if why is not Why.KEYLESS or pdu is None:
            return False
        servers = required_servers(pdu, room.version)
        patience = self._ctx.config.gap_patience
        return any(self._keyring.failing_for(server) > patience for server in servers)

    async def _pass_over(self, room: MatrixRoom, pdu: Pdu, notes: FetchNotes) -> bool:
        """Pass over what an event lacks, if all of that has been asked for long enough; False if not."""
        lacking = await self.missing_references(room, pdu, ())
        early = [e for e in lacking if not self.can_pass_over(room, e, notes)]
        if early:
            return False
        servers = self.candidate_servers(room, notes.origin)
        for number, event_id in enumerate(lacking):
            known = notes.doubtful.get(event_id)
            if number < _LOOKED_AT and notes.reason_for(event_id) is Why.NOT_FOUND:
                known = await self._fetch_again(room, event_id, servers, notes)
            if (
                known is not None
                and notes.reason_for(event_id) is not Why.REFUSED
                and event_id not in notes.doubtful
            ):
                if self._suspects.tries(room.room_id, event_id) < _HAD_IN_VAIN:
                    return False  # it is available after all: the next attempt takes it
                notes.taken.add(event_id)  # where servers make ids it may follow itself
            state = None
            certain = known is not None and not room.version.server_made_event_ids
            if number < _LOOKED_AT and event_id in pdu.prev_events and not certain:
                with contextlib.suppress(ServerUnreachable):
                    asked = [self.errands.acquire_beside(server) for server in servers]
                    state = await self.fetched.agreed_state(room, event_id, asked)
            self._add_hole(room, event_id, notes, known=known, citing=pdu, state=state)
        await self.unverified.settle(room)
        return True

    def _add_hole(
        self,
        room: MatrixRoom,
        event_id: str,
        notes: FetchNotes,
        *,
        known: Pdu | None,
        citing: Pdu,
        state: Mapping[StateKey, str] | None,
    ) -> None:
        """Pass over an event from now on. It is said once of each server and reason, and counted."""
        now, why = self._ctx.clock.now(), notes.reason_for(event_id)
        certain = known is not None and not room.version.server_made_event_ids
        hole = Hole(
            room_id=room.room_id,
            event_id=event_id,
            why=why,
            cited_by=citing.event_id,
            origin=notes.origin,
            since=now,
            again=now,
            keys=self.fetched.keys_of(room, known) if known is not None else (),
            prev=known.prev_events if known is not None and certain else (),
            state=state,
        )
        tries = max(1, self._suspects.tries(room.room_id, event_id))
        room.holes.add(replace(hole.tried(now, notes.asked), attempts=tries))
        self._suspects.forget(room.room_id, event_id)
        self._ctx.count("matrix_holes", why=why.value)
        server = domain_of(known.sender) if known is not None else notes.origin
        if self._is_first_time((room.room_id, why.value, server)):
            text = (
                "%s in %s is skipped (%s, %s): the events after it are processed; others like it are counted"
            )
            self._ctx.log.warning(text, event_id, room.room_id, why.value, server)

    async def _fetch_again(
        self, room: MatrixRoom, event_id: str, servers: Iterable[str], notes: FetchNotes
    ) -> Pdu | None:
        """Look once more for an event, to know why it is not here."""
        for server in servers:
            try:
                found = await self.fetched.fetch_event(
                    room, event_id, self.errands.acquire_beside(server), notes
                )
            except REQUEST_FAILURES:
                continue
            if found is not None:
                return found
        return notes.doubtful.get(event_id)
