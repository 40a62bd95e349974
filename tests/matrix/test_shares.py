"""A server that fills a room's queue leaves others their share of it."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from hansa.testing import until
from hansa_matrix.federation.client import ServerUnreachable
from hansa_matrix.rooms.inbound.backlog import LITTLE, MAX_BYTES, MAX_BYTES_EACH, Backlog
from hansa_matrix.rooms.inbound.staging_shares import StagingShares
from matrix.server_with_peer import THEIRS, V1, ServerWithPeer, server_with_peer
from peers.event_forge import EventForge, JoinedRoom

MUTE = "127.0.0.3:3"


def filled(shares: StagingShares, origin: str, room_id: str = "!r", at_once: int = 50) -> int:
    """How many PDUs of a server are taken until it is refused."""
    taken = 0
    while not shares.full(origin, {room_id: at_once}):
        for _ in range(at_once):
            shares.add(room_id, origin)
        taken += at_once
    return taken


def test_one_server_fills_half_of_a_room_and_others_go_on():
    shares = StagingShares(5000, 20_000)
    assert filled(shares, "evil") == 2500
    assert shares.full("evil", {"!r": 1}) == "room"
    assert filled(shares, "good") == 2500
    assert 1500 <= filled(shares, "third") <= 1700  # an equal share, as the room is full
    assert shares.full("evil", {"!r": 1}) == "room"


def test_one_server_fills_half_of_everything_and_others_go_on():
    shares = StagingShares(5000, 20_000)
    assert sum(filled(shares, "evil", f"!{n}") for n in range(20)) == 10_000
    assert shares.full("evil", {"!new": 1}) == "all"
    assert filled(shares, "good", "!new") == 2500


def test_there_is_an_end_for_everybody():
    shares = StagingShares(100, 20_000)
    for number in range(1000):
        filled(shares, f"s{number}", at_once=1)
    assert shares.waiting <= 200


def test_what_waits_no_more_is_room_for_others():
    shares = StagingShares(100, 200)
    assert filled(shares, "evil", at_once=10) == 50
    for _ in range(50):
        shares.remove("!r", "evil")
    assert (shares.waiting, shares._rooms) == (0, {})
    assert filled(shares, "evil", at_once=10) == 50


@pytest.mark.parametrize("most", [50, 51, 99])
def test_a_whole_transaction_of_one_server_always_finds_room_in_an_empty_line(most):
    assert not StagingShares(most, most).full("good", {"!r": 50})


async def waiting(house: ServerWithPeer) -> dict[str, float]:
    return {name: value for (name, _), value in house.app.gauges.items() if name.startswith("matrix_waiting")}


async def test_a_server_that_fills_a_line_is_refused_and_others_are_not(tmp_path, monkeypatch):
    """The events of that server cite events that no server has: all of them wait."""
    async with server_with_peer(tmp_path, max_staged_pdus_per_room=100, gap_patience=3600.0) as house:
        matrix = house.matrix

        async def silent(*_: Any, **__: Any) -> Any:
            raise ServerUnreachable("nobody answers")

        mute = EventForge(MUTE)
        house.peer.keys = lambda r: (200, mute.keys() if r.host_header == MUTE else house.forger.keys())
        user = f"@x:{MUTE}"
        guest = JoinedRoom(house.room.room_id, "12", user)
        guest.state, guest.tips = house.room.state, house.room.tips
        draft = mute.draft(guest, "m.room.member", {"membership": "join"}, user)
        join = mute.finish(guest, draft)
        assert await house.fate(join) == "accepted"
        monkeypatch.setattr(matrix.federation_client, "request", silent)
        codes = []
        for _ in range(12):
            lost = ["$" + secrets.token_urlsafe(32)]
            pdus = [house.forger.message(house.room, f"{n}", prev_events=lost) for n in range(10)]
            codes.append((await house.send(*pdus))[0])
        assert codes == [200] * 5 + [429] * 7
        rows = await matrix.store.scan("staged", equal=(house.room.room_id,), limit=1000)
        assert len(rows) == 50
        assert {row.fields["origin"] for row in rows} == {THEIRS}
        assert (await waiting(house))["matrix_waiting"] == 50
        path = f"{V1}/send/{secrets.token_hex(4)}"
        good = mute.message(guest, "I am still heard")
        assert (await house.ask("PUT", path, {"pdus": [good]}, origin=MUTE, key=mute.key))[0] == 200
        assert house.counted("matrix_pdus_refused") != {}


async def test_what_is_judged_makes_room(tmp_path):
    async with server_with_peer(tmp_path, max_staged_pdus_per_room=102) as house:
        lost = "$" + secrets.token_urlsafe(32)
        tips = dict(house.room.tips)
        stuck = house.forger.message(house.room, "stuck", prev_events=[lost])
        house.room.tips = tips
        assert (await house.send(stuck))[0] == 200  # with it nothing is judged before it is answered
        before = await waiting(house)
        for turn in range(4):
            pdus = [house.forger.message(house.room, f"{turn} {n}") for n in range(50)]
            status, _ = await house.send(*pdus)
            assert status == 200
            await until(lambda: house.matrix.staging.waiting_count(house.room.room_id) <= 1)
        assert (await waiting(house)) == before and before["matrix_waiting"] == 1


@pytest.mark.parametrize("greedy", [1, 2, 4, 16, 100])
def test_servers_that_send_much_leave_room_for_those_that_send_little(greedy):
    backlog, step = Backlog(), 256 * 1024
    busy = True
    while busy:
        busy = False
        for name in range(greedy):
            if not backlog.full(f"g{name}", step):
                backlog.change(f"g{name}", step)
                busy = True
    taken = [backlog._by_origin[f"g{name}"] for name in range(greedy)]
    assert max(taken) - min(taken) <= step  # none has more than another
    assert max(taken) <= MAX_BYTES_EACH
    assert greedy > 2 or min(taken) == MAX_BYTES_EACH
    assert not backlog.full("small", LITTLE)
    backlog.change("g0", -taken[0])
    assert not backlog.full("g0", step)


def test_what_waits_is_bounded_however_many_servers_send_little():
    backlog = Backlog()
    for name in range(1000):
        while not backlog.full(f"s{name}", LITTLE // 4):
            backlog.change(f"s{name}", LITTLE // 4)
    assert MAX_BYTES - LITTLE < backlog.bytes <= MAX_BYTES
