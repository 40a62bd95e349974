"""Typing and receipts between networks: judged, passed on, never kept."""

from __future__ import annotations

from typing import Any

import pytest
from hansa import Action, EphemeralIn, EphemeralOut, LocalProtocolError, NativeId, Typing, Verdict, hookimpl
from hansa.testing import run_hansa
from hansa.testing.actor import Actor, Config, module


class Stops:
    """A policy against one kind of crossing."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    @hookimpl
    async def check(self, crossing: Any) -> Verdict | None:
        return Verdict(Action.DENY) if isinstance(crossing, self.kind) else None


def town(made: dict[str, Actor]):
    """Two networks with one room."""
    plugin = module(made)
    networks = {"left": (plugin, Config()), "right": (plugin, Config())}
    return run_hansa(networks, rooms=[("left:a", "right:b")])


async def test_a_signal_reaches_the_other_networks_of_the_room_and_not_its_own():
    made: dict[str, Actor] = {}
    async with town(made) as app:
        await made["left"].join("a", "ann@x")
        await made["left"].typing("a", "ann@x")
        assert made["right"].signals == {"b": [Typing(user=NativeId("left", "ann@x"), typing=True)]}
        assert made["left"].signals == {}
        event = (await made["left"].say("a", "ann@x", "hi")).event
        assert event is not None
        await made["right"].read("b", "bob@y", event)
        assert made["left"].signals["a"][0].event == event
        assert app.counters["signals", (("result", "sent"),)] == 2
        await made["left"].typing("nowhere", "ann@x")
        with pytest.raises(LocalProtocolError, match="may not speak for"):
            await made["left"].ctx.send_ephemeral("a", Typing(user=NativeId("right", "bob@y"), typing=True))


@pytest.mark.parametrize("kind", [EphemeralIn, EphemeralOut])
async def test_policy_stops_it_on_either_side(kind, monkeypatch):
    made: dict[str, Actor] = {}
    async with town(made) as app:
        checked = app.decisions.judge_and_store

        async def check(crossing: Any) -> Verdict:
            return (await Stops(kind).check(crossing)) or await checked(crossing)

        monkeypatch.setattr(app.decisions, "judge_and_store", check)
        await made["left"].typing("a", "ann@x")
        assert made["right"].signals == {}
        assert app.counters["signals", (("result", "denied"),)] == 1


async def test_a_network_that_fails_with_it_fails_alone(monkeypatch):
    made: dict[str, Actor] = {}
    async with town(made) as app:

        async def broken(*_: Any) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(made["right"], "show_ephemeral", broken)
        await made["left"].typing("a", "ann@x")
        assert app.counters["signals", (("result", "failed"),)] == 1


async def test_under_load_it_is_dropped_first(monkeypatch):
    made: dict[str, Actor] = {}
    async with town(made) as app:
        monkeypatch.setattr(app.pipeline, "waiting", lambda _: 1000)
        await made["left"].typing("a", "ann@x")
        assert made["right"].signals == {}
        assert app.counters["signals", (("result", "busy"),)] == 1
