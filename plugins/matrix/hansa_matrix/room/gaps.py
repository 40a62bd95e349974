"""Filling gaps before an event is judged.

Missing ``prev_events`` are asked for by ``get_missing_events``, again and again up to 1,000 events; what is
still missing then is replaced by the state at that point, and the skipped gap is counted. SPEC:
server-server API, "Retrieving missing events".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from hansa import Conflict, NetworkContext, Placement, RemoteProtocolError

from hansa_matrix.federation.client import Client, Refused, Unreachable, path
from hansa_matrix.keyring import Keyring
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.gathered import GatheredIds, GatheredPdus
from hansa_matrix.proto.state_keys import CREATE_KEY
from hansa_matrix.room import outliers
from hansa_matrix.room.errand import Errand, Errands
from hansa_matrix.room.events import Status
from hansa_matrix.room.ingest import Ingest
from hansa_matrix.room.native import Adopted
from hansa_matrix.room.room import MatrixRoom

_MOST = 1000
_ASK = 20
_SINGLY = 50
#: So many servers of the room are asked besides the one that sent an event.
_OTHERS = 2


class GapFiller:
    """See ``ingest.Gaps``. ``ingest`` is set once both exist."""

    def __init__(self, ctx: NetworkContext, client: Client, keyring: Keyring) -> None:
        self._ctx = ctx
        self._server = client.server
        #: Where others are asked.
        self.errands = Errands(ctx, client)
        self._keyring = keyring
        self.ingest: Ingest | None = None

    async def lacking(self, room: MatrixRoom, pdu: Pdu, coming: Collection[str]) -> list[str]:
        """See ``ingest.Gaps.lacking``."""
        prev = [e for e in pdu.prev_events if e not in coming]
        auth = [e for e in pdu.auth_events if e not in coming]
        found = await room.events.load([*prev, *auth], room.version)
        unplaced = [e for e in prev if e not in found or not found[e].after]
        lacking = [*unplaced, *(e for e in auth if e not in found)]
        if not lacking:
            return []
        foreign = await room.events.foreign(lacking, room.version)  # the room's turn says what that means
        return [e for e in lacking if e not in foreign]

    async def fill(self, room: MatrixRoom, pdu: Pdu, origin: str) -> bool:
        """See ``ingest.Gaps.fill``. Who sent the event is asked first, then others of the room."""
        for server in self.candidates(room, origin):
            try:
                async with self.errands.to(server) as errand:
                    if await self._unplaced(room, pdu.prev_events):
                        await self._fill(room, pdu, errand, skip=server == origin)
                    await self.auth(room, pdu, errand)
            except (Unreachable, Refused, RemoteProtocolError) as error:
                self._ctx.log.info("the gap before %s waits: %s", pdu.event_id, error)
                continue
            if not await self.lacking(room, pdu, ()):
                return True
        return False

    def candidates(self, room: MatrixRoom, origin: str) -> list[str]:
        """``origin``, and some others of the room at random."""
        view = self._ctx.view(room.room_id)
        others = {s for n, s in view.joined_servers if n == self._ctx.id} if view is not None else set()
        listed = sorted(others - {origin, self._server})
        at = int(self._ctx.random.uniform() * len(listed))
        return [*([origin] if origin else []), *(listed[at:] + listed[:at])[:_OTHERS]]

    async def _unplaced(self, room: MatrixRoom, ids: Iterable[str]) -> list[str]:
        wanted = list(ids)
        found = await room.events.load(wanted, room.version)
        return [e for e in wanted if e not in found or not found[e].after]

    async def _fill(self, room: MatrixRoom, pdu: Pdu, errand: Errand, *, skip: bool) -> None:
        """Only who sent the event is believed that there is nothing before it to be had (``skip``): others
        may just not have the event yet.
        """
        got: dict[str, Pdu] = {}
        needed, ends = await self._traced(room, pdu, got)
        latest = [pdu.event_id]
        while any(e not in got for e in ends) and len(got) < _MOST:
            before = len(got)
            for one in await self._missing(room, errand, latest):
                got.setdefault(one.event_id, one)
            if len(got) == before:
                break
            needed, ends = await self._traced(room, pdu, got)
            latest = [e for e, one in needed.items() if set(one.prev_events) & set(ends)]
            latest = latest[:_ASK] or [pdu.event_id]
        lost = [e for e in ends if e not in got]
        if lost and not skip:
            raise Unreachable(f"{errand.server} does not have {lost[0]}")
        if lost:
            self._ctx.count("matrix_gaps_skipped")
            self._ctx.log.warning("a gap in %s before %s is skipped", room.room_id, pdu.event_id)
        for event_id in ends[:_ASK]:
            await self.adopt(room, event_id, errand)
        await self._take(room, needed, errand)

    async def _traced(
        self, room: MatrixRoom, pdu: Pdu, got: Mapping[str, Pdu]
    ) -> tuple[dict[str, Pdu], list[str]]:
        """What of ``got`` lies between what we have and an event, and where that way ends without reaching
        anything that we have: at events that are not in ``got``, or that are from before our join.
        """
        needed: dict[str, Pdu] = {}
        ends: dict[str, None] = {}
        edge = await self._unplaced(room, pdu.prev_events)
        while edge:
            following: dict[str, None] = {}
            for event_id in edge:
                one = got.get(event_id)
                if one is None or one.depth < room.head.floor:
                    ends[event_id] = None
                else:
                    needed[event_id] = one
                    following.update(dict.fromkeys(one.prev_events))
            edge = await self._unplaced(room, [e for e in following if e not in needed and e not in ends])
        return needed, list(ends)

    async def _missing(self, room: MatrixRoom, errand: Errand, latest: list[str]) -> list[Pdu]:
        target = path("_matrix", "federation", "v1", "get_missing_events", room.room_id)
        body = {
            "latest_events": latest,
            "earliest_events": list(room.head.extremities)[:_ASK],
            "limit": _ASK,
            "min_depth": 0,
        }
        answer = await errand.post(target, body)
        return await self.checked(room, _list(answer, "events")[: _ASK * 2])

    async def checked(self, room: MatrixRoom, objects: list[Any]) -> list[Pdu]:
        """Those that are well-formed, signed and of the room; the others are counted. Raises ``Unreachable``
        where keys are not to be had at the moment.
        """
        gathered = GatheredPdus(room.room_id, room.version)
        gathered.take("", objects)
        return await self._signed(room, gathered)

    async def members(self, room: MatrixRoom, errand: Errand, target: str, names: Sequence[str]) -> list[Pdu]:
        """As ``checked``, of an answer that is read as it comes."""
        gathered = GatheredPdus(room.room_id, room.version)
        answer = await errand.members(target, names, gathered.take)
        for name in names:
            _list(answer, name)
        return await self._signed(room, gathered)

    async def _signed(self, room: MatrixRoom, gathered: GatheredPdus) -> list[Pdu]:
        for _ in range(gathered.dropped):
            self._ctx.count("matrix_pdus", status="dropped")
        parsed = list(gathered.pdus.values())
        good, bad, awaited = await outliers.signed(parsed, room.version, self._keyring)
        if awaited:
            raise Unreachable(f"the keys of {', '.join(awaited[:5])} are not to be had now")
        for _ in range(bad):
            self._ctx.count("matrix_pdus", status="dropped")
        return good

    async def _take(self, room: MatrixRoom, got: dict[str, Pdu], errand: Errand) -> None:
        """Through the same turn as what is pushed, oldest first."""
        assert self.ingest is not None
        left = sorted(got.values(), key=lambda one: (one.depth, one.origin_server_ts))
        placed: set[str] = set()
        while left:
            ready = [p for p in left if not (set(p.prev_events) & set(got)) - placed]
            if not ready:
                return
            for one in ready:
                await self.auth(room, one, errand)
                if await self._unplaced(room, one.prev_events):
                    await self._adopt_all(room, one, errand)
                inbound = await self.ingest.inbound(one, errand.server)
                await self.ingest.submit([replace(inbound, placement=Placement.GAP)])
                placed.add(one.event_id)
            left = [p for p in left if p.event_id not in placed]

    async def _adopt_all(self, room: MatrixRoom, pdu: Pdu, errand: Errand) -> None:
        for event_id in await self._unplaced(room, pdu.prev_events):
            await self.adopt(room, event_id, errand)

    async def auth(self, room: MatrixRoom, pdu: Pdu, errand: Errand) -> None:
        """Have the auth events of an event, as outliers at least."""
        found = await room.events.load(pdu.auth_events, room.version)
        if all(a in found for a in pdu.auth_events):
            return
        target = path("_matrix", "federation", "v1", "event_auth", room.room_id, pdu.event_id)
        await self._keep(room, await self.members(room, errand, target, ["auth_chain"]))

    async def _keep(self, room: MatrixRoom, pdus: list[Pdu]) -> None:
        known = await room.events.load((p.event_id for p in pdus), room.version)
        fresh = [p for p in pdus if p.event_id not in known]
        state = await room.state()
        create = (await room.events_of(state, ())).get(CREATE_KEY)
        made = await outliers.judged(self._ctx, fresh, room.version, room.events, create)
        while made:
            try:
                await self._ctx.store.commit([one.insert() for one in made.values()])
            except Conflict as conflict:  # it was pushed and judged meanwhile, which counts for more
                made.pop(str(conflict.key[0]), None)
            else:
                room.events.keep(made.values())
                return

    async def adopt(self, room: MatrixRoom, event_id: str, errand: Errand) -> None:
        """Give an event whose past we do not have the state that a server says was before it."""
        target = path("_matrix", "federation", "v1", "state_ids", room.room_id)
        gathered, names = GatheredIds(), ["pdu_ids", "auth_chain_ids"]
        answer = await errand.members(f"{target}?event_id={quote(event_id, safe='')}", names, gathered.take)
        for name in names:
            _list(answer, name)
        state_ids, chain_ids = (gathered.of(name) for name in names)
        known = await room.events.load([*state_ids, *chain_ids], room.version)
        foreign = await room.events.foreign([*state_ids, *chain_ids], room.version)
        wanted = [e for e in (*chain_ids, *state_ids) if e not in known and e not in foreign]
        await self._keep(room, await self._fetch_state(room, event_id, errand, wanted))
        event = await self._one(room, event_id, errand)
        if event is None:
            return
        await self.auth(room, event, errand)
        loaded = await room.events.load(state_ids, room.version)
        state: dict[StateKey, str] = {
            one.pdu.key: e
            for e, one in loaded.items()
            if one.pdu.state_key is not None and one.status is not Status.REJECTED
        }
        assert self.ingest is not None
        inbound = await self.ingest.inbound(event, errand.server)
        await self.ingest.submit([replace(inbound, native=Adopted(pdu=event, state=state))])

    async def _fetch_state(
        self, room: MatrixRoom, event_id: str, errand: Errand, wanted: list[str]
    ) -> list[Pdu]:
        if len(wanted) > _SINGLY:
            target = path("_matrix", "federation", "v1", "state", room.room_id)
            target = f"{target}?event_id={quote(event_id, safe='')}"
            return await self.members(room, errand, target, ["auth_chain", "pdus"])
        found: list[Pdu] = []
        for one in wanted:
            try:
                pdu = await self._one(room, one, errand)
            except Refused:  # it names what it does not give: the state is without that
                continue
            found += [pdu] if pdu is not None else []
        return found

    async def _one(self, room: MatrixRoom, event_id: str, errand: Errand) -> Pdu | None:
        known = (await room.events.load([event_id], room.version)).get(event_id)
        if known is not None:
            return known.pdu
        answer = await errand.get(path("_matrix", "federation", "v1", "event", event_id))
        found = await self.checked(room, _list(answer, "pdus")[:1])
        return next((p for p in found if p.event_id == event_id), None)


def _list(answer: Any, key: str) -> list[Any]:
    value = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(value, list):
        raise RemoteProtocolError(f"the answer has no list of {key}")
    return value
