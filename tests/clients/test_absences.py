"""Messages of other servers in a room while no local user was in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from hansa import HttpRequest
from hansa.testing import until
from matrix.server_with_peer import THEIRS
from matrix.test_backfill import Past
from matrix.test_joining import ALIAS

each_version = pytest.mark.parametrize("version", ["8", "10", "11", "12"])


class There(Past):
    """The room on the forger's server, which takes what we send there."""

    def __call__(self, request: HttpRequest) -> tuple[int, Any] | None:
        path = unquote(request.target.partition("?")[0])
        if "/v1/send/" in path:
            for raw in orjson.loads(request.body or b"")["pdus"]:
                self.had(raw)
            return 200, {"pdus": {}}
        found = super().__call__(request)
        if "/make_join/" in path and found is not None:
            user = path.rpartition("/")[2]
            event = {**found[1]["event"], "sender": user, "state_key": user}
            return 200, {**found[1], "event": event}
        if "/v2/send_join/" in path and found is not None:
            self.had(found[1]["event"])
        return found

    @property
    def forger(self) -> Any:
        return self.house.forger

    async def heard(self, text: str) -> None:
        """Say something, and send it to us."""
        raw = self.forger.message(self.room, text)
        self.had(raw)
        status, _ = await self.house.send(raw)
        assert status == 200


@asynccontextmanager
async def there(folder: Path, version: str) -> AsyncIterator[tuple[MatrixServer, There, LocalUser]]:
    async with matrix_server(folder, version) as home:
        past = There(home.wire, version)
        home.wire.peer.answer = past
        yield home, past, await home.person("juliet")


async def left(past: There, juliet: LocalUser, room: str) -> None:
    """Juliet goes, and the other server knows."""
    await juliet.room(room, "leave")

    async def gone() -> bool:
        member = past.room.state["m.room.member", juliet.user]
        return bool(past.by_id[member]["content"]["membership"] == "leave")

    await until(gone)


async def back(past: There, juliet: LocalUser, room: str) -> None:
    """Juliet comes again, from the other server."""
    await juliet.call("POST", f"/join/{part(room)}?server_name={THEIRS}", {})


async def pages(juliet: LocalUser, room: str, start: str = "", most: int = 20, way: str = "b") -> list[str]:
    """All that Juliet reads in a direction, page by page."""
    found: list[str] = []
    while True:
        query = f"dir={way}&limit={most}{f'&from={start}' if start else ''}"
        got = await juliet.get(f"/rooms/{part(room)}/messages?{query}")
        found += [e["content"]["body"] for e in got["chunk"] if e["type"] == "m.room.message"]
        start = got.get("end", "")
        if not start or (way == "f" and not got["chunk"]):
            return found


@each_version
async def test_what_was_said_while_nobody_was_there_is_read_afterwards(tmp_path, version):
    async with there(tmp_path, version) as (_, past, juliet):
        early = [f"early {n}" for n in range(3)]
        for text in early:
            past.say(text)
        room = await juliet.join(ALIAS)
        await past.heard("hello")
        await until(lambda: has(juliet, room, "hello"))
        expected = [*early, "hello"]
        for absence in range(2):
            await left(past, juliet, room)
            away = [f"away {absence} {n}" for n in range(130)]
            for text in away:
                past.say(text)
            await back(past, juliet, room)
            await past.heard(f"again {absence}")
            await until(lambda absence=absence: has(juliet, room, f"again {absence}"))
            expected += [*away, f"again {absence}"]
        for most in (7, 20, 100):
            assert (await pages(juliet, room, most=most))[::-1] == expected
            assert await pages(juliet, room, most=most, way="f") == expected


async def has(juliet: LocalUser, room: str, text: str) -> bool:
    got = await juliet.get(f"/rooms/{part(room)}/messages?dir=b&limit=5")
    return any(e["content"].get("body") == text for e in got["chunk"])


async def test_a_sync_begins_anew_where_somebody_came_back(tmp_path):
    async with there(tmp_path, "12") as (_, past, juliet):
        room = await juliet.join(ALIAS)
        await past.heard("hello")
        await until(lambda: has(juliet, room, "hello"))
        await juliet.sync()
        await left(past, juliet, room)
        for number in range(5):
            past.say(f"away {number}")
        await back(past, juliet, room)
        found = (await juliet.sync())["rooms"]["join"][room]["timeline"]
        assert [e["type"] for e in found["events"]] == ["m.room.member"]
        assert found["limited"] is True
        before = await pages(juliet, room, found["prev_batch"])
        assert before[:6] == [*(f"away {n}" for n in range(4, -1, -1)), "hello"]
        juliet.since = ""
        whole = (await juliet.sync())["rooms"]["join"][room]["timeline"]
        assert [e["type"] for e in whole["events"]] == ["m.room.member"]
        assert whole["limited"] is True


async def test_around_an_event_of_an_absence(tmp_path):
    async with there(tmp_path, "12") as (_, past, juliet):
        room = await juliet.join(ALIAS)
        await left(past, juliet, room)
        away = [past.say(f"away {number}") for number in range(9)]
        await back(past, juliet, room)
        await pages(juliet, room)  # which has it fetched
        got = await juliet.get(f"/rooms/{part(room)}/context/{part(away[4])}?limit=8")
        assert [e["event_id"] for e in got["events_before"]] == away[3::-1]
        assert [e["event_id"] for e in got["events_after"]] == away[5:]
        assert (await pages(juliet, room, got["start"]))[:1] == []
        assert await pages(juliet, room, got["end"], way="f") == []


async def test_history_that_is_for_those_who_were_there_is_not_read(tmp_path):
    async with there(tmp_path, "12") as (_, past, juliet):
        past.sent("m.room.history_visibility", {"history_visibility": "joined"}, "")
        room = await juliet.join(ALIAS)
        await past.heard("hello")
        await until(lambda: has(juliet, room, "hello"))
        await left(past, juliet, room)
        away = past.say("not for her")
        await back(past, juliet, room)
        await past.heard("again")
        await until(lambda: has(juliet, room, "again"))
        assert await pages(juliet, room) == ["again", "hello"]
        status, _ = await juliet.ask("GET", f"/rooms/{part(room)}/event/{part(away)}")
        assert status == 404
