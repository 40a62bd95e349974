"""Events of a room's past from other servers: each event passes the same checks, in whatever answer it
arrives.

SPEC: server-server API, "Retrieving events", "Checks performed on receipt of a PDU".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from hansa import Conflict, NetworkContext, PeerConnect, RemoteProtocolError

from hansa_matrix.federation.client import REQUEST_FAILURES, RemoteError, ServerUnreachable, build_path
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.pdu import is_oversized, required_servers, signing_key_ids
from hansa_matrix.proto.streaming.gathered_pdus import GatheredIds, GatheredPdus
from hansa_matrix.proto.streaming.packed_pdus import unpack_pdu
from hansa_matrix.rooms.event_store import Status, StoredEvent
from hansa_matrix.rooms.inbound import outliers
from hansa_matrix.rooms.inbound.bounded_fetch import BoundedFetch, FetchPool
from hansa_matrix.rooms.inbound.early_checks import EarlyChecks
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.state.holes import Why

_SINGLY = 50
#: Events that are stored in one commit.
_MAX_BATCH = 200


@dataclass(slots=True)
class FetchNotes:
    """The result of one attempt to fetch: the reasons why some events could not be accepted, those of them
    that are well-formed, and the server that was asked.
    """

    origin: str
    why: dict[str, Why] = field(default_factory=dict)
    doubtful: dict[str, Pdu] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    #: Those that were had and have no place afterwards.
    taken: set[str] = field(default_factory=set)
    counted: set[str] = field(default_factory=set)

    def reason_for(self, event_id: str) -> Why:
        """Why an event is not here."""
        if event_id in self.taken:
            return Why.REFUSED
        return self.why.get(event_id, Why.NOT_FOUND)


class FetchedEvents:
    """Asks, checks and keeps outliers."""

    def __init__(self, ctx: NetworkContext, errands: FetchPool, keyring: Keyring) -> None:
        self._ctx = ctx
        self.errands = errands
        self._keyring = keyring

    async def check_pdus(
        self, room: MatrixRoom, objects: Iterable[Any], notes: FetchNotes | None = None
    ) -> list[Pdu]:
        """Returns the events that are well-formed, signed and of the room, packed; the others are counted,
        and noted. Without ``notes`` it raises ``ServerUnreachable`` while keys are not available.
        """
        gathered = GatheredPdus(room.room_id, room.version)
        gathered.add_values("", list(objects))
        return await self._verify_signatures(room, gathered, notes)

    async def request_pdus(
        self,
        room: MatrixRoom,
        errand: BoundedFetch,
        target: str,
        names: Sequence[str],
        notes: FetchNotes | None = None,
    ) -> list[Pdu]:
        """As ``check_pdus``, of an answer that is read as it comes."""
        gathered = GatheredPdus(room.room_id, room.version)
        checks = EarlyChecks(gathered, room.version, self._keyring)
        answer = await errand.request_members(target, names, gathered.add_values, checks.between)
        for name in names:
            list_member(answer, name)
        return await self._verify_signatures(room, gathered, notes, checks)

    async def _verify_signatures(
        self,
        room: MatrixRoom,
        gathered: GatheredPdus,
        notes: FetchNotes | None,
        checks: EarlyChecks | None = None,
    ) -> list[Pdu]:
        for _ in range(gathered.dropped):
            self._ctx.count("matrix_pdus", status="dropped")
        if notes is not None:
            notes.why |= dict.fromkeys(gathered.foreign, Why.WRONG_ROOM)
        seen = await (checks or EarlyChecks(gathered, room.version, self._keyring)).finished()
        if notes is None and seen.awaited:
            raise ServerUnreachable(f"the keys of {', '.join(seen.awaited[:5])} cannot be fetched now")
        for _ in range(seen.lost):
            self._ctx.count("matrix_pdus", status="dropped")
        for pdu in {p.event_id: p for p in (*gathered.unsigned, *seen.bad)}.values():
            if notes is not None:
                notes.why[pdu.event_id] = await self._signature_problem(room, pdu)
                notes.doubtful[pdu.event_id] = pdu
        if notes is not None:
            for pdu in seen.good:
                notes.why.pop(pdu.event_id, None)
                notes.doubtful.pop(pdu.event_id, None)
        return seen.good

    async def _signature_problem(self, room: MatrixRoom, pdu: Pdu) -> Why:
        """Returns the fault of an event's signatures."""
        for server in sorted(required_servers(pdu, room.version)):
            keys = signing_key_ids(pdu, [server])
            if any(self._keyring.is_distrusted(*key) for key in keys):
                return Why.DISTRUSTED
            if not keys or any(self._keyring.get(*key) is not None for key in keys):
                continue
            wanted = PeerConnect(network=self._ctx.id, server=server, outbound=True)
            if not (await self._ctx.check(wanted)).allowed:
                return Why.DENIED
            return Why.KEYLESS
        return Why.UNSIGNED

    def keys_of(self, room: MatrixRoom, pdu: Pdu) -> tuple[tuple[str, str], ...]:
        """``(server, key id)`` of what signed an event and has to, 10 at most."""
        return tuple(sorted(signing_key_ids(pdu, required_servers(pdu, room.version)))[:10])

    async def fetch_auth_events(
        self, room: MatrixRoom, pdu: Pdu, errand: BoundedFetch, notes: FetchNotes | None = None
    ) -> None:
        """Have the auth events of an event, as outliers at least."""
        found = await room.events.load(pdu.auth_events, room.version)
        if all(a in found or a in room.holes for a in pdu.auth_events):
            return
        target = build_path("_matrix", "federation", "v1", "event_auth", room.room_id, pdu.event_id)
        await self.store_outliers(
            room, await self.request_pdus(room, errand, target, ["auth_chain"], notes), notes
        )

    async def store_outliers(
        self, room: MatrixRoom, pdus: list[Pdu], notes: FetchNotes | None = None
    ) -> None:
        """Store events without a place."""
        known = await room.events.load((p.event_id for p in pdus), room.version)
        taken = await room.events.taken_ids([p for p in pdus if p.event_id not in known], room.version)
        fresh = [p for p in pdus if p.event_id not in known and p.event_id not in taken]
        state = await room.state()
        create = (await room.events_of(state, ())).get(CREATE_KEY)
        made = await outliers.check_auth(self._ctx, fresh, room.version, room.events, create)
        if notes is not None:
            notes.why |= {p.event_id: Why.UNVERIFIABLE for p in fresh if p.event_id not in made}
        whole = list(made.values())
        for at in range(0, len(whole), _MAX_BATCH):
            await self._insert_new(room, whole[at : at + _MAX_BATCH])

    async def _insert_new(self, room: MatrixRoom, some: Sequence[StoredEvent]) -> None:
        left = {one.pdu.event_id: one for one in some}
        while left:
            try:
                await self._ctx.store.commit([one.insert() for one in left.values()])
            except Conflict as conflict:  # it was pushed and judged meanwhile, which counts for more
                left.pop(str(conflict.key[0]), None)
            else:
                version = room.version
                room.events.keep(replace(one, pdu=unpack_pdu(one.pdu, version)) for one in left.values())
                return

    async def fetch_event(
        self, room: MatrixRoom, event_id: str, errand: BoundedFetch, notes: FetchNotes | None = None
    ) -> Pdu | None:
        """One event. Raises ``RemoteError`` where the server does not give it."""
        known = (await room.events.load([event_id], room.version)).get(event_id)
        if known is not None:
            return known.pdu
        answer = await errand.get(build_path("_matrix", "federation", "v1", "event", event_id))
        objects = list_member(answer, "pdus")[:1]
        found = await self.check_pdus(room, objects, notes)
        if not found and notes is not None and objects and event_id not in notes.why:
            notes.why[event_id] = Why.OVERSIZED if is_oversized(objects[0], room.version) else Why.MALFORMED
        return next((unpack_pdu(p, room.version) for p in found if p.event_id == event_id), None)

    async def state_ids(
        self, room: MatrixRoom, event_id: str, errand: BoundedFetch
    ) -> tuple[list[str], list[str]]:
        """Asks a server for the state before an event, and for its auth chain, as ids."""
        target = build_path("_matrix", "federation", "v1", "state_ids", room.room_id)
        gathered, names = GatheredIds(), ["pdu_ids", "auth_chain_ids"]
        answer = await errand.request_members(
            f"{target}?event_id={quote(event_id, safe='')}", names, gathered.add_values
        )
        for name in names:
            list_member(answer, name)
        return gathered.ids_of("pdu_ids"), gathered.ids_of("auth_chain_ids")

    async def fetch_state(
        self, room: MatrixRoom, event_id: str, errand: BoundedFetch, given: tuple[list[str], list[str]]
    ) -> dict[StateKey, str]:
        """The events of ``given`` (see ``state_ids``) that are of the room and passed the checks, by key."""
        state_ids, chain_ids = given
        known = await room.events.load([*state_ids, *chain_ids], room.version)
        foreign = await room.events.load_foreign([*state_ids, *chain_ids], room.version)
        wanted = [e for e in (*chain_ids, *state_ids) if e not in known and e not in foreign]
        await self.store_outliers(room, await self._fetch_state_events(room, event_id, errand, wanted))
        loaded = await room.events.load(state_ids, room.version)
        return {
            one.pdu.key: e
            for e, one in loaded.items()
            if one.pdu.state_key is not None and one.status is not Status.REJECTED
        }

    async def _fetch_state_events(
        self, room: MatrixRoom, event_id: str, errand: BoundedFetch, wanted: list[str]
    ) -> list[Pdu]:
        """Fetches the events of a state; those that are not available or cannot be verified are left out."""
        notes = FetchNotes(errand.server)
        if len(wanted) > _SINGLY:
            target = build_path("_matrix", "federation", "v1", "state", room.room_id)
            target = f"{target}?event_id={quote(event_id, safe='')}"
            return await self.request_pdus(room, errand, target, ["auth_chain", "pdus"], notes)
        found: list[Pdu] = []
        for event in wanted:
            try:
                pdu = await self.fetch_event(room, event, errand, notes)
            except RemoteError:
                continue
            found += [pdu] if pdu is not None else []
        return found

    async def agreed_state(
        self, room: MatrixRoom, event_id: str, asked: Sequence[BoundedFetch], *, strict: bool = True
    ) -> dict[StateKey, str] | None:
        """The state before an event as servers of the room say alike. None where they do not: where fewer
        than two say the same, or no more than half of those that answer; without ``strict`` the answer of
        one counts if no other contradicts it. An answer that there is no such event is one, if ``strict``.
        Raises ``ServerUnreachable`` if nobody answers.
        """
        answers: list[tuple[BoundedFetch, tuple[list[str], list[str]]]] = []
        denials, silent = 0, list[str]()
        for errand in asked:
            try:
                answers.append((errand, await self.state_ids(room, event_id, errand)))
            except RemoteError:
                if not strict and errand is asked[0]:
                    return None  # it gave the event, and nobody else is bothered with what it does not know
                denials += strict
            except REQUEST_FAILURES as error:
                silent.append(str(error))
        if silent and len(silent) == len(asked):
            raise ServerUnreachable(silent[0])
        said = Counter(frozenset(state) for _, (state, _) in answers)
        if not said:
            return None
        (most, times), *_ = said.most_common(1)
        alone = len(answers) == 1 and (len(asked) == 1 or not strict)
        if (times < 2 and not alone) or 2 * times <= len(answers) + denials:
            return None
        problem: Exception = ServerUnreachable("no server is left to ask")
        for errand, given in answers:
            if frozenset(given[0]) != most:
                continue
            try:
                state = await self.fetch_state(room, event_id, errand, given)
            except REQUEST_FAILURES as error:
                problem = error
                continue
            same = state.get(CREATE_KEY) == (await room.state()).get(CREATE_KEY)
            return state if same else None
        raise ServerUnreachable(str(problem))


def list_member(answer: Any, key: str) -> list[Any]:
    """A list in an answer. Raises RemoteProtocolError if there is none."""
    value = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(value, list):
        raise RemoteProtocolError(f"the answer has no list of {key}")
    return value
