"""Events that are needed to judge others, taken without a place in the DAG: signatures, hash, own auth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hansa import NetworkContext

from hansa_matrix.crypto import verify_signature
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.proto.auth_rules.rules import check_auth_events, check_event_auth
from hansa_matrix.proto.auth_rules.state_keys import CREATE, CREATE_KEY
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.pdu import (
    check_content_hash,
    key_valid_at,
    required_servers,
    signature_problem,
    signing_key_ids,
)
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.proto.streaming.packed_pdus import Unpacking, pack_pdu, unpack_pdu
from hansa_matrix.rooms.event_store import RoomEvents, Status, StoredEvent
from hansa_matrix.rooms.third_party_check import THIRD_PARTY_OK

T = TypeVar("T")

#: Events that are read at a time: what is not here is looked for too.
READ = 500
#: Servers that are asked for keys at a time for one answer; and that may be asked in vain, with as many more
#: as twice those that gave theirs: in an old room most servers are gone, and invented ones do not exist.
_ASKED, MAX_IN_VAIN, _VAIN_TO_GIVEN = 250, 500, 2

#: Events that are looked at without a pause, and their bytes.
_STEP, _STEP_BYTES = 100, 128 * 1024
#: Events that are held against the rules without a pause.
_JUDGED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureResult:
    """``good`` are those whose signatures do, after checks 2 and 3; ``awaited`` the servers without whose
    keys some of the ``bad`` could not be judged, but which may still give them.
    """

    good: list[Pdu]
    bad: list[Pdu]
    awaited: list[str]


class KeyLookups:
    """Asks for the keys that the events of one answer need, until too many servers were asked in vain."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._vain = self._given = 0

    @property
    def ended(self) -> bool:
        """True if no more servers are asked."""
        return self._vain > MAX_IN_VAIN + _VAIN_TO_GIVEN * self._given

    async def ensure_keys(self, wanted: Iterable[tuple[str, str]]) -> None:
        """See ``Keyring.ensure_keys``."""
        by_server: dict[str, list[tuple[str, str]]] = {}
        for server, key_id in wanted:
            by_server.setdefault(server, []).append((server, key_id))
        lacking = [s for s, names in by_server.items() if not await self._keyring.has_keys(names, 0)]
        left = set(lacking)
        await self._keyring.ensure_keys(
            [n for s, names in by_server.items() if s not in left for n in names], 0
        )
        for at in range(0, len(lacking), _ASKED):
            if self.ended:
                return
            some = lacking[at : at + _ASKED]
            await self._keyring.ensure_keys([name for server in some for name in by_server[server]], 0)
            given = sum(any(self._keyring.get(*name) for name in by_server[server]) for server in some)
            self._given += given
            self._vain += len(some) - given


async def verify_signatures(
    pdus: Sequence[Pdu], version: RoomVersion, keyring: Keyring, lookups: KeyLookups | None = None
) -> SignatureResult:
    """Look at the signatures of events. One key look-up per server, as many as ``lookups`` lets through."""
    wanted: dict[tuple[str, str], int] = {}
    async for found in _in_steps(pdus, _needed_keys, version):
        for key, at in found.items():
            wanted[key] = max(wanted.get(key, 0), at)
    newest = max(wanted.values(), default=0)
    await (lookups or KeyLookups(keyring)).ensure_keys(wanted)
    stale = [k for k in wanted if (held := keyring.get(*k)) is not None and held.valid_until < wanted[k]]
    await keyring.ensure_keys(stale, newest)
    good = [p async for some in _in_steps(pdus, _verify_with_keys, version, keyring) for p in some]
    passed = {p.event_id for p in good}
    bad = [p for p in pdus if p.event_id not in passed]
    return SignatureResult(good=good, bad=bad, awaited=keyring.pending_servers(wanted) if bad else [])


async def _in_steps(
    pdus: Sequence[Pdu], look: Callable[..., T], version: RoomVersion, *more: object
) -> AsyncIterator[T]:
    """Yields the results of ``look`` for a few events at a time, and of more than a few in a thread: twenty
    thousand signatures take seconds, in which other rooms must go on.
    """
    if len(pdus) <= _STEP and sum(len(p.wire) for p in pdus) <= _STEP_BYTES:
        yield look(pdus, version, *more)
        return
    loop = asyncio.get_running_loop()
    for at in range(0, len(pdus), _STEP):
        yield await loop.run_in_executor(None, look, pdus[at : at + _STEP], version, *more)


def _needed_keys(pdus: Sequence[Pdu], version: RoomVersion) -> dict[tuple[str, str], int]:
    """The keys of signatures that matter, and when (ms) they have to be valid at the latest."""
    wanted: dict[tuple[str, str], int] = {}
    for one in pdus:
        pdu = unpack_pdu(one, version)
        for key in signing_key_ids(pdu, required_servers(pdu, version)):
            wanted[key] = max(wanted.get(key, 0), key_valid_at(pdu, version))
    return wanted


def _verify_with_keys(pdus: Sequence[Pdu], version: RoomVersion, keyring: Keyring) -> list[Pdu]:
    """The events that pass checks 2 and 3, packed as they were."""
    good = list[Pdu]()
    for one in pdus:
        pdu = unpack_pdu(one, version)
        if signature_problem(pdu, version, keyring.get, verify_signature) is None:
            checked = check_content_hash(pdu, version)
            good.append(checked if pdu is one else one if checked is pdu else pack_pdu(checked))
    return good


def sort_by_auth(pdus: Iterable[Pdu]) -> list[Pdu]:
    """Every event after those of its auth events that are among them. Of a ring, which no hash allows where
    ids are hashes, one event comes before an auth event of its own.
    """
    by_id = {p.event_id: p for p in pdus}
    met: set[str] = set()
    ordered: list[Pdu] = []
    for start in by_id.values():
        if start.event_id in met:
            continue
        met.add(start.event_id)
        stack = [(start, iter(start.auth_events))]  # as deep as the chain, however many ids an event cites
        while stack:
            pdu, cited = stack[-1]
            following = next((a for a in cited if a in by_id and a not in met), None)
            if following is None:
                stack.pop()
                ordered.append(pdu)
                continue
            met.add(following)
            stack.append((by_id[following], iter(by_id[following].auth_events)))
    return ordered


async def check_auth(
    ctx: NetworkContext, pdus: Sequence[Pdu], version: RoomVersion, events: RoomEvents, create: Pdu | None
) -> dict[str, StoredEvent]:
    """Receipt check 4 for each, in the order of their auth chains. Events that cite an unavailable event are
    left out; events that fail are stored as rejected. Packed events stay so.
    """
    known: dict[str, StoredEvent] = {}
    cited_ids = list({a for p in pdus for a in p.auth_events})
    for at in range(0, len(cited_ids), READ):
        known |= await events.load(cited_ids[at : at + READ], version)
    made: dict[str, StoredEvent] = {}
    unpacking, looked = Unpacking(version), 0
    create = unpack_pdu(create, version) if create is not None else None
    many = len(pdus) > _STEP
    ordered = await asyncio.to_thread(sort_by_auth, pdus) if many else sort_by_auth(pdus)
    for number, held in enumerate(ordered, 1):
        looked += len(held.wire)
        if looked > _STEP_BYTES or not number % _JUDGED:
            looked = 0
            await asyncio.sleep(0)
        cited = [made.get(a) or known.get(a) for a in held.auth_events]
        if any(one is None for one in cited):
            ctx.count("matrix_pdus", status="unverifiable")
            continue
        auth = [one for one in cited if one is not None]
        pdu = unpack_pdu(held, version)
        if create is None and pdu.type == CREATE:
            create = pdu
        rejected = {one.pdu.event_id for one in auth if one.status is Status.REJECTED}
        plain = [unpacking(one.pdu) for one in auth]
        reject = check_auth_events(pdu, plain, version, create=create, rejected=rejected)
        if reject is None and pdu.type != CREATE:
            state = {p.key: p for p in plain if p.state_key is not None}
            if create is not None:
                state.setdefault(CREATE_KEY, create)
            reject = check_event_auth(pdu, state, version, third_party_ok=THIRD_PARTY_OK)
        status, why = Status.OUTLIER, ""
        if reject is not None:
            status, why = Status.REJECTED, f"{reject.rule}: {reject.reason}"
        made[held.event_id] = StoredEvent(held, status, reason=why)
    return made
