"""The depth that an event says of itself is its sender's choice: nobody reads more or less for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from clients.test_absences import back, left, pages, there
from hansa.testing import until
from matrix.server_with_peer import THEIRS
from matrix.test_joining import ALIAS
from matrix.two_servers import levels_with

MOST = 2**53 - 1
DEPTHS = [0, 1, 5, MOST]


async def spoken(home: MatrixServer, text: str, **over: Any) -> None:
    """The other server's person says something."""
    status, answer = await home.wire.send(home.wire.forger.message(home.wire.room, text, **over))
    assert (status, list(answer["pdus"].values())) == (200, [{}])


async def heard(person: LocalUser, room: str, text: str) -> bool:
    return text in await person.texts(room)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("how", ["leave", "kick", "ban"])
async def test_who_left_reads_nothing_of_afterwards(tmp_path: Path, depth: int, how: str) -> None:
    async with matrix_server(tmp_path) as home:
        alice, eve = await home.person("alice"), await home.person("eve")
        room = home.wire.room.room_id
        await alice.join(room)
        await eve.join(room)
        await spoken(home, "before", depth=MOST - 1 if depth == MOST else depth)
        await until(lambda: heard(eve, room, "before"))
        if how == "leave":
            await eve.room(room, "leave")
        else:
            await levels_with(home.wire, users={alice.user: 50})
            await alice.room(room, how, {"user_id": eve.user})
        await spoken(home, "sealed with wax", depth=depth)
        await until(lambda: heard(alice, room, "sealed with wax"))
        assert await eve.texts(room) == ["before"]


@pytest.mark.parametrize("depth", DEPTHS)
async def test_a_room_is_joined_and_spoken_in_whatever_depths_it_has(tmp_path: Path, depth: int) -> None:
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = home.wire.room.room_id
        await alice.join(room)
        await spoken(home, "deep", depth=depth)
        await until(lambda: heard(alice, room, "deep"))
        for kind in ("join", "leave", "knock"):
            status, answer = await home.wire.ask(
                "GET", f"/_matrix/federation/v1/make_{kind}/{part(room)}/{part('@new:' + THEIRS)}?ver=12"
            )
            if status == 200:
                assert 0 <= answer["event"]["depth"] <= MOST
            assert kind != "join" or status == 200
        event = await alice.say(room, "on top")
        assert "on top" in await alice.texts(room)
        assert event


@pytest.mark.parametrize("depth", DEPTHS)
async def test_history_is_read_to_its_beginning_whatever_depths_it_has(tmp_path: Path, depth: int) -> None:
    async with there(tmp_path, "12") as (_, past, juliet):
        early = [f"early {number}" for number in range(300)]
        for text in early:
            past.say(text, depth=depth)
        room = await juliet.join(ALIAS)
        for most in (7, 100):
            assert (await pages(juliet, room, most=most))[::-1] == early
            assert await pages(juliet, room, most=most, way="f") == early


@pytest.mark.parametrize("depth", DEPTHS)
async def test_an_absence_is_read_whatever_depths_it_has(tmp_path: Path, depth: int) -> None:
    async with there(tmp_path, "12") as (_, past, juliet):
        room = await juliet.join(ALIAS)
        await past.heard("hello")
        await until(lambda: heard(juliet, room, "hello"))
        await left(past, juliet, room)
        away = [f"away {number}" for number in range(130)]
        for text in away:
            past.say(text, depth=depth)
        await back(past, juliet, room)
        assert (await pages(juliet, room))[::-1] == ["hello", *away]


@pytest.mark.parametrize("depth", [0, 1, 5, MOST - 1])
async def test_a_join_of_any_depth_has_a_past(tmp_path: Path, depth: int) -> None:
    """make_join of the other server says how deep the join is."""
    async with there(tmp_path, "12") as (_, past, juliet):
        past.spoil_template = lambda answer: {**answer, "event": {**answer["event"], "depth": depth}}
        early = [f"early {number}" for number in range(30)]
        for text in early:
            past.say(text)
        room = await juliet.join(ALIAS)
        await past.heard("hello")
        await until(lambda: heard(juliet, room, "hello"))
        assert (await pages(juliet, room))[::-1] == [*early, "hello"]
