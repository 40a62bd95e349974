"""Network tables reload one by one: a changed one restarts, a new one starts, one that is gone stops."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hansa import Router, hookimpl
from hansa.setup import NetworkSetup
from hansa.testing import Actor, run_hansa, until
from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    word: str = ""
    server_name: str = ""


class Counted(Actor):
    """Counts how it is started and stopped, and cannot be opened with the word ``broken``."""

    def __init__(self, ctx: Any) -> None:
        if ctx.config.word == "broken":
            raise RuntimeError("this word cannot be used")
        super().__init__(ctx)
        self.started = self.stopped = 0

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None:
        self.stopped += 1

    @hookimpl
    def register_routes(self, router: Router) -> None:
        """Takes the server name of its table."""


@pytest.fixture
def made() -> dict[str, list[Counted]]:
    return {}


@pytest.fixture
def plugin(made) -> ModuleType:
    found: Any = ModuleType(f"hansa_counted_{id(made)}")
    found.api, found.Config = 1, Config

    @hookimpl
    def open_network(ctx: Any) -> Counted:
        made.setdefault(ctx.id, []).append(Counted(ctx))
        return made[ctx.id][-1]

    found.open_network = open_network
    return found


def setups(plugin: ModuleType, **words: str) -> list[NetworkSetup]:
    return [
        NetworkSetup(id=key, module=plugin, options=Config(word=word, server_name=f"{key}.example"))
        for key, word in words.items()
    ]


def running(plugin: ModuleType, **options: Any) -> Any:
    networks = {one.id: (plugin, one.options) for one in setups(plugin, left="a", right="a")}
    return run_hansa(networks, rooms=[("left:x", "right:y")], **options)


async def test_a_changed_table_restarts_its_network_and_no_other(made, plugin):
    async with running(plugin) as app:
        left = made["left"][0]
        await left.say("x", "ann@x", "one")
        await made["right"][0].until("y", 1)
        assert await app.reload_networks(setups(plugin, left="a", right="b")) == {"right": ""}
        old, new = made["right"]
        await until(lambda: new.started == 1)
        assert (old.started, old.stopped) == (1, 1) and new.ctx.config.word == "b"
        assert len(made["left"]) == 1 and left.stopped == 0
        await left.say("x", "ann@x", "two")
        assert await new.until("y", 1) == ["two"], "what was delivered before is not delivered again"
        await new.say("y", "bob@y", "three", origin="three")
        assert await left.until("x", 1) == ["three"]
        assert await app.reload_networks(setups(plugin, left="a", right="b")) == {}


async def test_a_table_that_is_gone_stops_its_network_and_what_was_said_meanwhile_waits(made, plugin):
    async with running(plugin) as app:
        left, right = made["left"][0], made["right"][0]
        assert await app.reload_networks(setups(plugin, left="a")) == {"right": ""}
        assert right.stopped == 1 and "right" not in app.runners and "right" not in app.contexts
        assert "right.example" not in app.routers and "left.example" in app.routers
        await left.say("x", "ann@x", "anybody?")
        assert await app.reload_networks(setups(plugin, left="a", right="a")) == {"right": ""}
        assert await made["right"][-1].until("y", 1) == ["anybody?"]
        assert "right.example" in app.routers


async def test_a_new_table_starts_a_network_that_can_be_linked(made, plugin):
    async with running(plugin) as app:
        assert await app.reload_networks(setups(plugin, left="a", right="a", third="a")) == {"third": ""}
        await until(lambda: app.runners["third"].state == "up")
        room = next(iter(app.rooms)).id
        await app.link_room(["third:z"], room)
        await made["left"][0].say("x", "ann@x", "welcome")
        assert await made["third"][0].until("z", 1) == ["welcome"]


async def test_a_network_that_cannot_be_opened_stays_as_it_was_and_the_others_are_reloaded(made, plugin):
    async with running(plugin) as app:
        found = await app.reload_networks(setups(plugin, left="broken", right="b", third="broken"))
        assert found == dict.fromkeys(("left", "third"), "this word cannot be used") | {"right": ""}
        assert made["left"][-1].ctx.config.word == "a" and "third" not in app.runners
        await until(lambda: app.runners["left"].state == "up" and app.runners["right"].state == "up")
        await made["left"][-1].say("x", "ann@x", "still here")
        assert await made["right"][-1].until("y", 1) == ["still here"]
        assert {one.id: one.options.word for one in app.setup.networks} == {"left": "a", "right": "b"}
