"""Requests to one server for one room are bounded, and none of them delays the others."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from hansa import HttpRequest
from hansa.testing import ManualClock, until
from hansa_matrix.federation.client import ServerUnreachable
from hansa_matrix.rooms.inbound.bounded_fetch import FetchLimits, FetchPool
from matrix.server_with_peer import THEIRS, ServerWithPeer, server_with_peer
from matrix.test_gaps import History


def given_up(house: ServerWithPeer) -> dict[str, int]:
    return {
        value: count
        for (name, labels), count in house.app.counters.items()
        if name == "matrix_errands_given_up"
        for key, value in labels
        if key == "bound"
    }


async def until_tried(house: ServerWithPeer) -> None:
    ingest = house.matrix.staging
    await until(lambda: any(tries for _, _, tries in ingest.waiting_events(house.room.room_id)))


def bounded(house: ServerWithPeer, **bounds: Any) -> tuple[FetchPool, ManualClock]:
    matrix, clock = house.matrix, ManualClock()
    ctx: Any = SimpleNamespace(clock=clock, count=matrix.ctx.count)
    return FetchPool(ctx, matrix.federation_client, FetchLimits(**bounds)), clock


async def test_a_gap_that_takes_more_than_one_errand_waits_and_is_filled_later(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        patient = matrix.missing_events.fetched.errands
        matrix.missing_events.fetched.errands, _ = bounded(house, requests=2)
        history = History(house, 45)
        async with asyncio.TaskGroup() as group:
            arriving = group.create_task(history.arrived())
            await until_tried(house)
            assert given_up(house) == {"requests": 1}
            assert house.counted("matrix_pdus").keys().isdisjoint({"rejected", "refused", "dropped"})
            matrix.missing_events.fetched.errands = patient
        assert arriving.result() == dict.fromkeys(history.ids, "accepted")


async def test_a_request_gets_what_is_left_of_the_time_and_none_when_that_is_over(tmp_path):
    async with server_with_peer(tmp_path) as house:
        errands, clock = bounded(house, seconds=50.0)
        house.peer.answer = lambda _: (200, {})
        house.peer.asked.clear()
        async with errands.acquire(THEIRS) as errand:
            await errand.get("/one")
            await errand.request_members("/two", [], lambda *_: None)
            clock.advance(45)
            await errand.post("/three", {})
            clock.advance(5)
            with pytest.raises(ServerUnreachable, match="more than 50 seconds"):
                await errand.get("/four")
        asked = [(r.target, r.timeout) for r in house.peer.asked]
        assert asked == [("/one", 30.0), ("/two", 50.0), ("/three", 5.0)]
        assert given_up(house) == {"seconds": 1}
        small, large, _ = (r.max_body for r in house.peer.asked)
        assert small < large == 128 * 1024 * 1024


@pytest.mark.parametrize("key", ["pdu_ids", "auth_chain_ids"])
async def test_a_state_of_too_many_events_is_not_gone_through(tmp_path, key):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        matrix.missing_events.fetched.errands, _ = bounded(house, events=100)
        history = History(house, 2)
        asked: list[str] = []

        def answer(request: HttpRequest) -> tuple[int, Any] | None:
            asked.append(request.target)
            if "/state_ids/" in request.target:
                lots = [f"$made-up-{number}" for number in range(101)]
                return 200, {"pdu_ids": [], "auth_chain_ids": [], key: lots}
            return (200, {"events": []}) if "get_missing_events" in request.target else history(request)

        house.peer.answer = answer
        assert (await house.send(history.by_id[history.ids[-1]]))[0] == 200
        await until_tried(house)
        assert given_up(house) == {"events": 1}
        gone = [target for target in asked if "/event/" in target or "/state/" in target]
        assert len(gone) == 1 and quote(history.ids[0], safe="") in gone[0]  # the event itself, and no state


async def test_a_state_is_not_gone_through_if_more_came_than_was_announced(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        matrix.missing_events.fetched.errands, _ = bounded(house, events=100)
        history = History(house, 2)

        def answer(request: HttpRequest) -> tuple[int, Any] | None:
            if "/state_ids/" in request.target:
                return 200, {"pdu_ids": [f"$made-up-{n}" for n in range(60)], "auth_chain_ids": []}
            if "/state/" in request.target:
                return 200, {"pdus": [{}] * 60, "auth_chain": []}
            return (200, {"events": []}) if "get_missing_events" in request.target else history(request)

        house.peer.answer = answer
        assert (await house.send(history.by_id[history.ids[-1]]))[0] == 200
        await until_tried(house)
        assert given_up(house) == {"events": 1}


async def test_an_auth_chain_of_too_many_events_is_not_gone_through(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        matrix.missing_events.fetched.errands, _ = bounded(house, events=100)
        raw = house.forger.draft(house.room, "m.room.message", {"body": "x", "msgtype": "m.text"}, None)
        raw["auth_events"] = [*raw["auth_events"], "$" + "a" * 43]
        house.peer.answer = lambda r: (
            (200, {"auth_chain": [{}] * 101}) if "/event_auth/" in r.target else None
        )
        assert (await house.send(house.forger.finish(house.room, raw)))[0] == 200
        await until_tried(house)
        assert given_up(house) == {"events": 1}
        assert house.counted("matrix_pdus").get("dropped", 0) == 0


async def test_so_many_errands_to_one_server_keep_nobody_from_another(tmp_path):
    async with server_with_peer(tmp_path) as house:
        errands, _ = bounded(house)
        done, inside = asyncio.Event(), list[str]()

        async def run(server: str) -> None:
            async with errands.acquire(server) as errand:
                inside.append(errand.server)
                await done.wait()

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(run(THEIRS))
            group.create_task(run("elsewhere.example"))
            await until(lambda: "elsewhere.example" in inside)
            assert inside.count(THEIRS) == 8
            done.set()
        assert inside.count(THEIRS) == 20
        assert not errands._lanes
        assert not errands._users
