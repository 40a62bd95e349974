"""One peer that stalls, floods or is gone keeps nobody else waiting; an operator can see and end it."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import orjson
import pytest
from hansa import LocalProtocolError
from hansa.testing import until
from hansa_matrix.federation.client import ServerUnreachable
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.ratelimit import RateLimiter
from matrix.server_with_peer import THEIRS, V1, ServerWithPeer, server_with_peer
from peers.event_forge import EventForge


def lost(house: ServerWithPeer, text: str = "lost") -> dict[str, Any]:
    """An event whose past nobody has."""
    return house.forger.message(house.room, text, prev_events=["$" + secrets.token_urlsafe(32)])


async def test_a_peer_that_stalls_holds_its_own_event_and_nobody_elses(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        asked, answer = [], asyncio.Event()
        request = matrix.federation_client.request

        async def stalls(method: str, server: str, target: str, *rest: Any, **more: Any) -> Any:
            if "get_missing_events" in target:
                asked.append(server)
                await answer.wait()
                raise ServerUnreachable("too late")
            return await request(method, server, target, *rest, **more)

        monkeypatch.setattr(matrix.federation_client, "request", stalls)
        assert (await house.send(lost(house)))[0] == 200
        await until(lambda: asked)
        for number in range(3):
            assert await house.fate(house.forger.message(house.room, f"m{number}")) == "accepted"
        await until(lambda: matrix.staging.waiting_count(house.room.room_id) == 1)
        answer.set()
        await until(lambda: matrix.staging.waiting_events(house.room.room_id))


async def test_servers_that_stall_when_asked_for_keys_hold_up_nobody_elses_events(tmp_path, monkeypatch):
    """A member hands on what people of servers said that never answer."""
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        asked, answer = [], asyncio.Event()
        request = matrix.federation_client.request

        async def stalls(method: str, server: str, target: str, *rest: Any, **more: Any) -> Any:
            if target.startswith("/_matrix/key") and server != THEIRS:
                asked.append(server)
                await answer.wait()
                raise ServerUnreachable("too late")
            return await request(method, server, target, *rest, **more)

        monkeypatch.setattr(matrix.federation_client, "request", stalls)
        silent = [EventForge(f"silent{number}.example") for number in range(10)]
        pdus = []
        for one in silent:
            raw = house.forger.draft(house.room, "m.room.message", {"body": "x"}, sender=f"@x:{one.name}")
            pdus.append(one.finish(house.room, raw))
        assert (await house.send(*pdus))[0] == 200
        for number in range(3):
            assert await house.fate(house.forger.message(house.room, f"m{number}")) == "accepted"
        assert 0 < len(asked) <= 2  # one server's events take two of the places
        answer.set()


async def test_others_of_the_room_are_asked_when_the_sender_does_not_know(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        asked: list[str] = []

        async def request(_method: str, server: str, target: str, *_: Any, **__: Any) -> Any:
            if "get_missing_events" in target:
                asked.append(server)
            raise ServerUnreachable("not now")

        monkeypatch.setattr(matrix.federation_client, "request", request)
        monkeypatch.setattr(
            matrix.missing_events, "candidate_servers", lambda *_: [THEIRS, "a.example", "b.example"]
        )
        await house.send(lost(house))
        await until(lambda: len(asked) >= 3)
        assert asked[:3] == [THEIRS, "a.example", "b.example"]


async def test_an_event_that_cannot_be_judged_is_listed_and_given_up_by_command(tmp_path):
    """Mistake 29: nothing blocks a room for ever."""
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        operations = matrix.network.admin_commands()
        raw = lost(house)
        name = event_id(raw, house.room.version)
        await house.send(raw)
        await until(lambda: [e for e in matrix.staging.waiting_events(house.room.room_id) if e[2]])
        (stuck,) = await operations["rooms stuck"]({"room": house.room.room_id})
        assert (stuck["event"], stuck["origin"]) == (name, THEIRS) and stuck["attempts"] >= 1
        named = {"room": house.room.room_id, "event": name}
        assert await operations["rooms skip"](named) == {"skipped": name}
        assert await matrix.store.scan("staged", limit=5) == []
        with pytest.raises(LocalProtocolError, match="is not waiting there"):
            await operations["rooms skip"](named)


# Limits.


def test_an_allowance_is_a_burst_and_a_rate_for_each_name():
    clock = type("C", (), {"at": 0.0, "monotonic": lambda self: self.at})()
    allowed = RateLimiter(clock, 2.0, 3)
    assert [allowed.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert allowed.take("b") == 0.0
    clock.at = 0.5
    assert [allowed.take("a"), allowed.take("a")] == [0.0, 0.5]
    clock.at = 1e6
    assert [allowed.take("a") for _ in range(4)][-1] > 0
    assert all(RateLimiter(clock, 0, 1).take("a") == 0.0 for _ in range(5))
    for number in range(10_050):
        allowed.take(str(number))
    assert len(allowed._left) == 10_000


async def test_a_server_that_asks_too_often_is_told_to_wait_and_others_are_not(tmp_path):
    async with server_with_peer(tmp_path, federation_rate=0.001, federation_burst=8) as house:
        found = [await house.ask("GET", f"{V1}/query/directory?room_alias=x") for _ in range(9)]
        assert [status for status, _ in found][-1] == 429
        assert found[-1][1]["errcode"] == "M_LIMIT_EXCEEDED"
        assert house.app.counters["matrix_requests_limited", (("plugin", "matrix"),)] >= 1


async def test_a_server_may_have_so_many_requests_under_way(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path, federation_concurrency=2) as house:
        go = asyncio.Event()

        async def slow(*_: Any) -> bytes:
            await go.wait()
            return b"{}"

        monkeypatch.setattr(house.matrix.intake, "stage_transaction", slow)
        under_way = [asyncio.ensure_future(house.send()) for _ in range(2)]
        for _ in range(200):
            await asyncio.sleep(0)
        status, _ = await house.send()
        assert status == 429
        go.set()
        assert [(await one)[0] for one in under_way] == [200, 200]
        assert (await house.send())[0] == 200


# Destinations.


async def test_destinations_are_listed_retried_and_given_up(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        operations = matrix.network.admin_commands()
        reachable = [False]
        sent: list[Any] = []

        def answer(request: Any) -> Any:
            if "/send/" not in request.target:
                return None
            if reachable[0]:
                sent.append(orjson.loads(request.body))
                return 200, {}
            return 503, {}

        house.peer.answer = answer
        say = matrix.local_events.send_state
        await say(house.room.room_id, "m.room.message", None, {"body": "1"})
        await until(lambda: matrix.destination_queues[THEIRS].failures)
        (row,) = await operations["destinations ls"]({})
        assert (row["name"], row["state"], row["waiting"]) == (THEIRS, "failed", 1) and "503" in row["reason"]
        gauges = {name: value for (name, _), value in house.app.gauges.items() if "destinations" in name}
        assert gauges == {"matrix_destinations_failing": 1, "matrix_destinations_gone": 0}
        reachable[0] = True
        await operations["destinations retry"]({"server": THEIRS})
        await until(lambda: sent)
        assert sent[0]["pdus"][0]["content"] == {"body": "1"}
        await until(lambda: not matrix.destination_queues[THEIRS].failures)
        assert house.app.gauges["matrix_destinations_failing", (("plugin", "matrix"),)] == 0
        reachable[0] = False
        for text in ("2", "3"):
            await say(house.room.room_id, "m.room.message", None, {"body": text})
        await until(lambda: matrix.destination_queues[THEIRS].failures)
        sent.clear()
        assert (await operations["destinations reset"]({"server": THEIRS}))["given_up"] == 2
        reachable[0] = True
        await say(house.room.room_id, "m.room.message", None, {"body": "4"})
        await until(lambda: sent)
        assert [p["content"]["body"] for t in sent for p in t["pdus"]] == ["4"]
        with pytest.raises(LocalProtocolError, match="nothing was ever sent to"):
            await operations["destinations retry"]({"server": "unknown.example"})
