"""Searches for people and rooms over all networks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hansa import (
    Action,
    Crossing,
    DirectoryQuery,
    NativeId,
    PersonMatch,
    ProfileQuery,
    Reason,
    RoomMatch,
    Verdict,
)
from hansa.admin.searches import SearchCommands
from hansa.app import App
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.cli import show
from hansa.cli.main import _make_parser, _make_question
from hansa.environment import Request
from hansa.model.chat_commands import CommandSettings
from hansa.testing import run_hansa
from hansa.testing.actor import Actor, Config, module


class Found:
    """A network that finds the same for every text, more than it was asked for."""

    def __init__(self, rooms: Sequence[RoomMatch] = (), people: Sequence[PersonMatch] = ()) -> None:
        self.rooms, self.people, self.fault = rooms, people, False

    async def find_rooms(self, text: str, *, limit: int) -> Sequence[RoomMatch]:
        if self.fault:
            raise RuntimeError(text)
        return self.rooms

    async def find_people(self, text: str, *, limit: int) -> Sequence[PersonMatch]:
        if self.fault:
            raise RuntimeError(text)
        return self.people


def room(network: str, address: str, **more: Any) -> RoomMatch:
    return RoomMatch(network=network, address=address, **more)


def person(network: str, user: str, name: str = "") -> PersonMatch:
    return PersonMatch(user=NativeId(network, user), name=name)


@asynccontextmanager
async def searched(left: Found, right: Found) -> AsyncIterator[tuple[App, dict[str, Actor]]]:
    made: dict[str, Actor] = {}
    plugin = module(made)
    networks = {name: (plugin, Config()) for name in ("left", "right")}
    async with run_hansa(networks, commands=CommandSettings(enabled=True)) as app:
        for name, found in (("left", left), ("right", right)):
            made[name].find_rooms = found.find_rooms  # type: ignore[attr-defined]
            made[name].find_people = found.find_people  # type: ignore[attr-defined]
        yield app, made


LEFT = Found([room("left", "#cats", name="Cats\nand more", members=3)], [person("left", "ann@x", "Ann")])


async def test_a_network_tells_of_its_own_rooms_and_people_alone():
    right = Found(
        [room("left", "#forged"), room("right", "cats")],
        [person("left", "@forged"), person("right", "bob@y")],
    )
    async with searched(LEFT, right) as (app, made):
        rooms = await app.searches.find_rooms("cats", limit=9)
        assert [(one.network, one.address) for one in rooms] == [("left", "#cats"), ("right", "cats")]
        people = await app.searches.find_people("b", limit=9)
        assert [str(one.user) for one in people] == ["left:ann@x", "right:bob@y"]
        assert [one.network for one in await made["left"].ctx.find_rooms("cats", limit=9)] == ["right"]


async def test_results_are_bounded():
    many = Found(
        [room("right", f"room{n}") for n in range(500)], [person("right", f"p{n}") for n in range(500)]
    )
    long = Found([room("left", "x" * 2000)], [person("left", "x" * 2000)])
    async with searched(long, many) as (app, _):
        assert len(await app.searches.find_rooms("r", limit=7)) == 7
        assert len(await app.searches.find_rooms("r", limit=10_000)) == 50
        assert {one.user.network for one in await app.searches.find_people("p", limit=100)} == {"right"}
        for text in ("", "  ", "x" * 256):
            assert await app.searches.find_rooms(text, limit=7) == []


async def test_a_network_that_fails_hides_no_other():
    broken = Found()
    broken.fault = True
    async with searched(broken, Found([room("right", "cats")])) as (app, _):
        assert [one.address for one in await app.searches.find_rooms("cats", limit=9)] == ["cats"]
        assert app.counters[("searches_failed", (("network", "left"),))] == 1


class _Denies:
    """Denies what names a word."""

    async def check(self, crossing: Crossing) -> Verdict | None:
        match crossing:
            case DirectoryQuery(texts=texts) if any("bad" in text for text in texts):
                pass
            case ProfileQuery(user=user) if "bad" in user.id:
                pass
            case _:
                return None
        return Verdict(Action.DENY, (Reason(code="NO", text="no"),))


async def test_policies_judge_each_result():
    right = Found(
        [room("right", "a", name="bad words"), room("right", "b", topic="bad"), room("right", "c")],
        [person("right", "bad@y"), person("right", "bob@y")],
    )
    async with searched(Found(), right) as (app, _):
        app.decisions.replace([InstalledPolicy(name="no", policy=_Denies())])
        assert [one.address for one in await app.searches.find_rooms("x", limit=9)] == ["c"]
        assert [one.user.id for one in await app.searches.find_people("x", limit=9)] == ["bob@y"]


async def test_the_command_in_a_chat():
    async with searched(LEFT, Found()) as (_, made):
        ask = made["right"].ctx.answer_command
        assert await ask("bob@y", "search rooms cats") == "left:#cats  Cats and more (3)"
        assert await ask("bob@y", "search people ann") == "left:ann@x  Ann"
        assert await ask("bob@y", "search cats now") == (
            "Write !hansa search rooms WORDS, or search people WORDS."
        )
    async with searched(Found(), Found()) as (_, made):
        assert await made["right"].ctx.answer_command("bob@y", "search rooms dogs") == "No rooms match dogs."


@pytest.mark.parametrize(("kind", "shown"), [("rooms", "left:#cats  Cats"), ("people", "left:ann@x  Ann")])
async def test_the_command_line(kind: str, shown: str):
    args = _make_parser().parse_args(["search", kind, "a", "b"])
    (method, path, _), name = _make_question(args)
    assert (method, path, name) == ("GET", f"/search/{kind}/a%20b", "matches")
    async with searched(LEFT, Found()) as (app, _):
        request = Request(method="GET", target=path, host="", path={"kind": kind, "text": "a b"})
        found = await SearchCommands(app).search(request, {})
        assert shown in show.matches(found)
    assert show.matches([]) == "nothing was found"
