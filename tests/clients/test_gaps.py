"""Messages in a room during a gap that is too wide to fill: a user who reads back that far gets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from clients.test_absences import There, each_version, has, pages
from hansa import HttpRequest
from hansa.testing import until
from hansa_matrix.client_api.rooms import pagination
from hansa_matrix.client_api.rooms.pagination import RoomPaginator
from hansa_matrix.rooms.inbound.backfill import Backfill
from matrix.test_joining import ALIAS


class Wide(There):
    """Gives nothing of a gap as it is asked for to fill it."""

    def __call__(self, request: HttpRequest) -> tuple[int, Any] | None:
        if "/get_missing_events/" in request.target:
            return 200, {"events": []}
        return super().__call__(request)


@asynccontextmanager
async def wide(folder: Path, version: str = "12") -> AsyncIterator[tuple[MatrixServer, Wide, LocalUser, str]]:
    """Juliet is in the room, and was told of something."""
    async with matrix_server(folder, version) as home:
        past = home.wire.peer.answer = Wide(home.wire, version)
        juliet = await home.person("juliet")
        room = await juliet.join(ALIAS)
        await past.heard("hello")
        await until(lambda: has(juliet, room, "hello"))
        yield home, past, juliet, room


async def skipped(past: Wide, juliet: LocalUser, room: str, name: str, count: int) -> list[str]:
    """So many things that we do not hear, and one that we do."""
    texts = [f"{name} {number}" for number in range(count)]
    for text in texts:
        past.say(text)
    await past.heard(f"after {name}")
    await until(lambda: has(juliet, room, f"after {name}"))
    return [*texts, f"after {name}"]


@each_version
async def test_what_lies_in_gaps_is_read_backwards_and_forwards(tmp_path, version):
    async with wide(tmp_path, version) as (_, past, juliet, room):
        expected = ["hello"]
        for name, count in (("one", 130), ("two", 3), ("three", 40)):
            expected += await skipped(past, juliet, room, name, count)
        for most in (7, 100):
            assert (await pages(juliet, room, most=most))[::-1] == expected
            assert await pages(juliet, room, most=most, way="f") == expected


async def test_a_sync_over_a_gap_is_limited_and_says_where_the_gap_is(tmp_path):
    async with wide(tmp_path) as (_, past, juliet, room):
        await juliet.sync()
        await skipped(past, juliet, room, "one", 5)
        await past.heard("and so on")
        await until(lambda: has(juliet, room, "and so on"))
        found = (await juliet.sync())["rooms"]["join"][room]["timeline"]
        assert [e["content"]["body"] for e in found["events"]] == ["after one", "and so on"]
        assert found["limited"] is True
        before = await pages(juliet, room, found["prev_batch"])
        assert before == [*(f"one {n}" for n in range(4, -1, -1)), "hello"]
        await past.heard("no gap")
        await until(lambda: has(juliet, room, "no gap"))
        assert (await juliet.sync())["rooms"]["join"][room]["timeline"]["limited"] is False


@pytest.mark.parametrize("count", [1, 250])
async def test_a_gap_is_known_after_a_restart(tmp_path, count):
    async with wide(tmp_path) as (home, past, juliet, room):
        expected = ["hello", *await skipped(past, juliet, room, "one", count)]
        matrix = home.matrix
        kept = matrix.get_room(room)
        row = await matrix.store.get("room", (room,))
        again = type(kept).load(room, row.body, matrix.store, matrix.event_store)
        assert again.timeline_breaks == kept.timeline_breaks
        assert len(again.head.gaps) == 1
        assert (await pages(juliet, room, most=30))[::-1] == expected


class Mute(Wide):
    """Answers nothing of the past while ``silent``."""

    silent = True
    asked = 0

    def __call__(self, request: HttpRequest) -> tuple[int, Any] | None:
        if "/backfill/" in request.target:
            self.asked += 1
            if self.silent:
                return 503, {"errcode": "M_UNKNOWN", "error": "not now"}
        return super().__call__(request)


async def backwards(juliet: LocalUser, room: str) -> list[str]:
    """All that Juliet reads until a page leads nowhere, oldest first."""
    found: list[str] = []
    start, before = "", None
    while start != before:
        query = f"dir=b&limit=100{f'&from={start}' if start else ''}"
        got = await juliet.get(f"/rooms/{part(room)}/messages?{query}")
        found += [e["content"]["body"] for e in got["chunk"] if e["type"] == "m.room.message"]
        start, before = got.get("end", start), start
    return found[::-1]


async def test_a_page_waits_for_others_once_and_nobody_asks_for_the_same_in_vain(tmp_path, monkeypatch):
    """However many gaps it reaches over: each of them may keep a reader waiting for ten seconds."""
    async with matrix_server(tmp_path) as home:
        past = home.wire.peer.answer = Mute(home.wire, "12")
        juliet = await home.person("juliet")
        room = await juliet.join(ALIAS)
        await past.heard("hello")
        await until(lambda: has(juliet, room, "hello"))
        expected = ["hello"]
        for name in ("one", "two", "three", "four", "five"):
            expected += await skipped(past, juliet, room, name, 3)
        runs: list[Any] = []
        fetched = RoomPaginator._backfill_once

        async def counted(self: RoomPaginator, *given: Any) -> bool:
            runs.append(given)
            return await fetched(self, *given)

        monkeypatch.setattr(RoomPaginator, "_backfill_once", counted)
        # What stands right before the gap's end came with it.
        heard = [text for text in expected if not text.endswith((" 0", " 1"))]
        monkeypatch.setattr(pagination, "REFETCH_AFTER_S", 0.0)
        got = await juliet.get(f"/rooms/{part(room)}/messages?dir=b&limit=100")
        assert len(runs) == 1 and got["end"]
        runs.clear()
        assert await backwards(juliet, room) == heard
        monkeypatch.setattr(pagination, "REFETCH_AFTER_S", 60.0)
        asked = [given for given in runs if len(given) > 1]
        assert len({within for _, within in asked}) == 5
        assert await backwards(juliet, room) == heard
        assert [given for given in runs if len(given) > 1] == asked
        past.silent = False
        monkeypatch.setattr(pagination, "REFETCH_AFTER_S", 0.0)
        assert await backwards(juliet, room) == expected


async def test_two_who_read_a_gap_at_once_both_read_it(tmp_path, monkeypatch):
    page = Backfill._fetch_page

    async def late(self: Backfill, *given: Any, **named: Any) -> int:
        for _ in range(2000):  # the others come so far meanwhile
            await asyncio.sleep(0)
        return await page(self, *given, **named)

    async with wide(tmp_path) as (home, past, juliet, room):
        phone = await home.person("juliet", "PHONE")
        expected = ["hello", *await skipped(past, juliet, room, "one", 450)]
        monkeypatch.setattr(Backfill, "_fetch_page", late)
        for found in await asyncio.gather(*(pages(one, room, most=100) for one in (juliet, phone, juliet))):
            assert found[::-1] == expected
