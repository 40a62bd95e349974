"""Hostile histories from a server of a room: cycles, ids that are used twice, redacted copies."""

from __future__ import annotations

import asyncio
import secrets
import tracemalloc
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import orjson
import pytest
from hansa import Backoff, CannotOpenRoom, HttpRequest, RemoteProtocolError
from hansa.testing import until
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.rooms.inbound import outliers, room_queue
from hansa_matrix.rooms.inbound.outliers import sort_by_auth
from hansa_matrix.rooms.membership import remote_membership
from matrix.server_with_peer import THEIRS, V1, ServerWithPeer, server_with_peer
from matrix.test_joining import ALIAS, Resident
from matrix.two_servers import status_of
from peers.event_forge import EventForge

named_ids = pytest.mark.parametrize("version", ["1", "2"])


class Cites:
    """An event that counts how often its citations are read."""

    looks = 0

    def __init__(self, name: str, *auth: str) -> None:
        self.event_id, self._auth = name, auth

    @property
    def auth_events(self) -> tuple[str, ...]:
        Cites.looks += 1
        assert Cites.looks < 10_000, "it goes round in a ring"
        return self._auth


@pytest.mark.parametrize("ring", [("a", "a"), ("ab", "ba"), ("abcd", "bcda")])
def test_a_ring_of_auth_events_comes_to_an_end(ring):
    Cites.looks = 0
    pdus = [Cites(one, other, "x") for one, other in zip(*ring, strict=True)] + [Cites("x"), Cites("y", "a")]
    order = [one.event_id for one in sort_by_auth(pdus)]  # type: ignore[arg-type]
    assert sorted(order) == sorted({*ring[0], "x", "y"})
    assert order.index("x") < min(order.index(one) for one in ring[0])
    assert order.index("a") < order.index("y")


def test_the_order_of_many_that_cite_many_holds_one_place_for_each():
    """Each of 500 cites all before it: their 125,000 citations are not held at once."""
    pdus = [SimpleNamespace(event_id=str(n), auth_events=[str(m) for m in range(n)]) for n in range(500)]
    tracemalloc.start()
    try:
        order = [one.event_id for one in sort_by_auth(reversed(pdus))]  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()
    assert order == [str(n) for n in range(500)]


def _auth(house: ServerWithPeer, *more: str) -> list[str]:
    keys = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", house.room.user)]
    return [*(house.room.state[key] for key in keys if key in house.room.state), *more]


async def _done(house: ServerWithPeer, raw: dict[str, Any]) -> None:
    """Send an event, and wait until nothing waits."""
    assert (await house.send(raw))[0] == 200
    async with asyncio.timeout(10):
        while await house.matrix.store.scan("staged", limit=1):
            await asyncio.sleep(0.005)


def _giving(house: ServerWithPeer, *raws: dict[str, Any]) -> None:
    def answer(request: HttpRequest) -> tuple[int, Any] | None:
        return (200, {"auth_chain": list(raws)}) if "/event_auth/" in unquote(request.target) else None

    house.peer.answer = answer


@named_ids
async def test_a_ring_in_an_auth_chain_stops_nobody(tmp_path, version):
    async with server_with_peer(tmp_path, version, gap_patience=0.0) as house:
        forger, room, user = house.forger, house.room, house.room.user
        one, two = (f"${secrets.token_hex(8)}:{THEIRS}" for _ in "12")
        ring = []
        for name, other in ((one, two), (two, one)):
            content = {"membership": "join", "displayname": name[:9]}
            over = {"auth_events": _auth(house, other)}
            draft = forger.draft(room, "m.room.member", content, user, **over) | {"event_id": name}
            ring.append(forger.finish(room, draft))
        _giving(house, *ring)
        async with asyncio.timeout(10):
            raw = forger.message(room, "it goes round", auth_events=[*_auth(house)[:2], one])
            assert (await house.send(raw))[0] == 200
            assert await house.fate(forger.message(room, "still here")) == "accepted"
        store = house.matrix.store
        assert await store.get("pdu", (one,)) is None
        assert await store.get("pdu", (two,)) is None


@named_ids
async def test_an_id_stays_with_the_event_that_had_it_first(tmp_path, version):
    """An auth event without a place is named by what stands on it: nobody puts another into its row."""
    async with server_with_peer(tmp_path, version) as house:
        forger, room, user = house.forger, house.room, house.room.user
        again = forger.draft(room, "m.room.member", {"membership": "join", "displayname": "x"}, user)
        first = forger.finish(room, again)
        _giving(house, first)
        auth = [*_auth(house)[:2], first["event_id"]]
        assert await house.fate(forger.message(room, "on it", auth_events=auth)) == "accepted"
        store = house.matrix.store
        row = await store.get("pdu", (first["event_id"],))
        assert row.fields["status"] == "outlier"
        draft = forger.draft(room, "m.room.message", {"msgtype": "m.text", "body": "another"})
        other = forger.finish(room, draft | {"event_id": first["event_id"]})
        await _done(house, other)
        assert house.counted("matrix_pdus")["refused"] == 1
        assert (await store.get("pdu", (first["event_id"],))).body == row.body
        await _done(house, first)  # the same one gets its place
        assert (await store.get("pdu", (first["event_id"],))).fields["after"]


@pytest.mark.parametrize("version", ["2", "3", "6", "10", "12"])
async def test_a_spoiled_copy_that_waits_gives_way_to_the_one_of_its_own_server(tmp_path, version):
    """A member relays what another says, with signatures that do not hold, before that other's server does."""
    async with server_with_peer(tmp_path, version) as house:
        room = house.room
        relay = EventForge("127.0.0.3:3")
        house.peer.keys = lambda request: (
            200,
            (relay if request.host_header == relay.name else house.forger).keys(),
        )
        raw = house.forger.message(room, "as it was said")
        name = event_id(raw, room.version)
        signatures = {THEIRS: {"ed25519:now": "A" * 86}}
        spoiled = {**raw, "signatures": signatures}
        matrix = house.matrix
        ingest, real = matrix.staging, matrix.staging._submit_batch
        held = asyncio.Event()

        async def judge(*given: Any) -> int:
            await held.wait()
            return await real(*given)

        ingest._submit_batch = judge
        assert (
            await house.ask("PUT", f"{V1}/send/a", {"pdus": [spoiled]}, origin=relay.name, key=relay.key)
        )[0] == 200
        assert (await house.send(raw))[0] == 200
        held.set()
        assert await status_of(house, raw) == "accepted"
        row = await matrix.store.get("pdu", (name,))
        assert orjson.loads(row.body)["content"]["body"] == "as it was said"
        assert not await matrix.store.scan("staged", limit=10)


async def test_an_answer_that_invents_servers_causes_few_look_ups(tmp_path, monkeypatch):
    monkeypatch.setattr(remote_membership, "_KEY_PAUSES", (0.0,))
    async with server_with_peer(tmp_path, "11") as house:
        resident = Resident(house, "11")
        for number in range(3000):
            server = f"s{number}.test"
            user = f"@u:{server}"
            draft = house.forger.draft(
                resident.room, "m.room.member", {"membership": "join"}, user, sender=user
            )
            resident.events.append(house.forger.finish(resident.room, draft, server=server))
        house.peer.keys = lambda request: (
            (200, house.forger.keys()) if request.host_header == THEIRS else None
        )
        house.peer.answer = resident
        matrix = house.matrix
        with suppress(CannotOpenRoom):
            await matrix.network.open_room(ALIAS, create=False)
        looked = {r.host_header for r in house.peer.asked if r.target == "/_matrix/key/v2/server"}
        assert outliers.MAX_IN_VAIN < len(looked) <= outliers.MAX_IN_VAIN + 251


async def test_so_many_rooms_are_entered_at_a_time_and_one_server_has_its_share(tmp_path):
    """Answers that come slowly hold places; of them one server, and one person, has no more than two."""
    async with server_with_peer(tmp_path, "11") as house:
        matrix, held, reached = house.matrix, asyncio.Event(), list[str]()
        rooms = [Resident(house, "11") for _ in range(4)]
        for number, one in enumerate(rooms):
            one.room.room_id = f"!made{number}:{THEIRS}"

        async def kept(offer: Any, room_id: str, user: str) -> Any:
            reached.append(room_id)
            await held.wait()
            raise RemoteProtocolError("it is no room")

        matrix.remote_membership._join_by = kept

        def template(request: HttpRequest) -> tuple[int, Any] | None:
            path = unquote(request.target)
            found = next((one for one in rooms if one.room.room_id in path), None)
            return found(request) if found is not None else None

        house.peer.answer = template
        joins = [
            asyncio.ensure_future(
                matrix.remote_membership.join(one.room.room_id, matrix.bridge_user, [THEIRS])
            )
            for one in rooms
        ]
        await until(lambda: matrix.remote_membership._places.waiting >= 2)
        assert (
            len(reached) == remote_membership.JOINS.each["server"] == remote_membership.JOINS.each["person"]
        )
        assert matrix.remote_membership._places.taken == len(reached)
        held.set()
        for one in await asyncio.gather(*joins, return_exceptions=True):
            assert isinstance(one, CannotOpenRoom)
        assert sorted(reached) == sorted(one.room.room_id for one in rooms)


@named_ids
@pytest.mark.parametrize("ring", [1, 2])
async def test_what_follows_a_ring_goes_on(tmp_path, monkeypatch, version, ring):
    """Events that follow each other wait for each other; an event that follows them does not wait for
    ever.
    """
    monkeypatch.setattr(room_queue, "RETRY", Backoff(first=0.01, most=0.01))
    async with server_with_peer(tmp_path, version, gap_patience=0.0) as house:
        forger, room = house.forger, house.room
        tips = list(room.tips)
        names = [f"${secrets.token_hex(8)}:{THEIRS}" for _ in range(ring)]
        had: dict[str, dict[str, Any]] = {}
        for at, name in enumerate(names):
            content = {"msgtype": "m.text", "body": "round and round"}
            draft = forger.draft(room, "m.room.message", content, prev_events=[names[at - 1]])
            had[name] = forger.finish(room, draft | {"event_id": name})

        def answer(request: HttpRequest) -> tuple[int, Any] | None:
            path = unquote(request.target)
            if "/get_missing_events/" in path:
                return 200, {"events": list(had.values())}
            if "/event/" in path and (raw := had.get(path.rpartition("/event/")[2])) is not None:
                return 200, {"pdus": [raw]}
            if "/state_ids/" in path:
                return 200, {"pdu_ids": list(room.state.values()), "auth_chain_ids": []}
            return None

        house.peer.answer = answer
        after = forger.message(room, "after", prev_events=[names[0], *tips])
        assert (await house.send(*had.values(), after))[0] == 200
        async with asyncio.timeout(20):
            assert await status_of(house, after) == "accepted"
        store = house.matrix.store
        check = await house.matrix.network.admin_commands()["rooms check"]({"room": room.room_id})
        assert {one["event"] for one in check["holes"]} <= set(names)
        assert (await store.get("pdu", (event_id(after, room.version),))).fields["after"]
