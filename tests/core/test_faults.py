"""A bug in one place is one refusal there: not a lost neighbour, and never a way around a policy."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator

import pytest
from hansa import (
    Action,
    EventIn,
    LocalProtocolError,
    Message,
    NativeFacts,
    NativeId,
    Reason,
    Submission,
    Verdict,
    hookimpl,
)
from hansa.setup import PolicySetup
from hansa.testing import run_hansa
from hansa.testing.actor import Actor, Config, module


class Clumsy(Actor):
    """Its facts fail for one text, the first time or always."""

    failing = ""
    once = False

    def server_of(self, user):
        return "x"

    def policy_facts(self, inbound):
        if self.failing and inbound.content.text == self.failing:
            if self.once:
                self.failing = ""
            raise RuntimeError("a bug")
        return NativeFacts(sender_server="x")


def clumsy(made: dict[str, Actor]):
    plugin = types.ModuleType("clumsy")
    plugin.api, plugin.Config = 1, Config

    def open_network(ctx):
        made[ctx.id] = Clumsy(ctx)
        return made[ctx.id]

    plugin.open_network = hookimpl(open_network)
    return plugin


def said(text: str) -> Submission:
    return Submission(
        origin=NativeId("left", f"o-{text}"),
        room=NativeId("left", "a"),
        sender=NativeId("left", "ann@x"),
        content=Message(text=text),
        ts=0,
    )


class Deny:
    @hookimpl
    async def check(self, crossing):
        if isinstance(crossing, EventIn) and crossing.content.text == "bad":
            return Verdict(Action.DENY, (Reason(code="BAD"),))
        return None


def denying() -> PolicySetup:
    plugin = types.ModuleType("denying")
    plugin.api, plugin.Config = 1, Config
    plugin.open_policy = hookimpl(lambda ctx: Deny())
    return PolicySetup(name="deny", module=plugin, options=Config())


@pytest.fixture
async def house() -> AsyncIterator[dict[str, Actor]]:
    made: dict[str, Actor] = {}
    networks = {"left": (clumsy(made), Config()), "right": (module(made), Config())}
    async with run_hansa(networks, rooms=(("left:a", "right:b"),), policies=[denying()]):
        yield made


async def test_the_neighbours_of_what_fails_happen(house):
    house["left"].failing = "poison"
    with pytest.raises(LocalProtocolError, match="a bug"):
        await house["left"].ctx.submit([said("one"), said("poison"), said("two")])
    assert await house["right"].until("b", 2) == ["one", "two"]


async def test_what_failed_once_is_judged_before_it_happens(house):
    house["left"].failing, house["left"].once = "bad", True
    outcomes = await house["left"].ctx.submit([said("one"), said("bad"), said("two")])
    assert [o.refusal is not None for o in outcomes] == [False, True, False]
    assert await house["right"].until("b", 2) == ["one", "two"]
