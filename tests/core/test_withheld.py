"""Withheld events of a native history: they take effect, and their content is not shown here."""

from __future__ import annotations

from typing import Any

import pytest
from core.ruling import ANN, ruling
from hansa import (
    Action,
    EventIn,
    Member,
    Membership,
    Message,
    Name,
    NativeId,
    Reason,
    Topic,
    Verdict,
    ViewDelta,
    texts_of,
)
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.testing import run_hansa
from hansa.testing.actor import Config, module

WORD = "classified"


class Censor:
    async def check(self, crossing: Any) -> Verdict | None:
        if isinstance(crossing, EventIn) and any(WORD in text for text in texts_of(crossing)):
            return Verdict(Action.DENY, (Reason(code="NO", policy="p", rule="r", text="no"),))
        return None


@pytest.mark.parametrize(
    "content",
    [
        Member(user=ANN, membership=Membership.JOIN, name=WORD),
        Member(user=ANN, membership=Membership.JOIN, name="Ann", reason=WORD),
        Member(user=ANN, membership=Membership.LEAVE, reason=WORD),
        Member(user=NativeId("left", "eve@y"), membership=Membership.BAN, reason=WORD),
        Name(text=WORD),
        Topic(text=WORD),
        Message(text=WORD),
    ],
    ids=lambda content: f"{content.kind}-{getattr(content, 'membership', '')}",
)
async def test_what_is_withheld_takes_effect_and_names_nothing(content: Any) -> None:
    made: dict[str, Any] = {}
    networks = {"left": (ruling(made), Config()), "right": (module(made), Config())}
    async with run_hansa(networks, rooms=[("left:a", "right:b")]) as app:
        await made["left"].stands(Member(user=ANN, membership=Membership.JOIN, name="Ann"))
        await made["left"].stands(Name(text="Plaza"))
        app.decisions.replace([InstalledPolicy(name="censor", policy=Censor())])
        outcome = await made["left"].stands(content)
        assert outcome.event is None and outcome.verdict.action is Action.WITHHOLD
        assert outcome.verdict.decision
        view = made["right"].ctx.get_view("b")
        assert view.facts.name == "Plaza" and view.facts.topic == ""
        if isinstance(content, Member):
            assert view.membership(content.user) is content.membership
            assert view.person(content.user).name in {None, "Ann"}
        await made["left"].stands(Message(text="the last"))
        await made["right"].until("b", 1)
        assert WORD not in repr(made["right"].contents("b"))
        assert WORD not in repr(await made["right"].ctx.read_history("b", limit=20))
        assert WORD not in repr([(p.name, p.membership) for p in view.people.values()])


async def test_a_network_is_told_of_a_present_that_no_event_says() -> None:
    made: dict[str, Any] = {}
    networks = {"left": (ruling(made), Config()), "right": (module(made), Config())}
    async with run_hansa(networks, rooms=[("left:a", "right:b")]) as app:
        told: list[Any] = []

        async def show_present(link: Any) -> None:
            told.append((link.id, view.membership(ANN)))
            raise RuntimeError("it has a fault")

        view = made["right"].ctx.get_view("b")
        made["right"].show_present = show_present
        await made["left"].stands(Member(user=ANN, membership=Membership.JOIN, name="Ann"))
        app.decisions.replace([InstalledPolicy(name="censor", policy=Censor())])
        await made["left"].stands(Message(text=WORD))
        await made["left"].stands(Topic(text=WORD))
        await made["left"].stands(Message(text="hello"))
        await made["right"].until("b", 1)
        assert told == [], "events say it, or it changes nothing"
        await made["left"].stands(Member(user=ANN, membership=Membership.BAN, reason=WORD))
        await made["left"].stands(Message(text="the last"))
        await made["right"].until("b", 2)
        assert told == [("right:b", Membership.BAN)]
        await made["left"].ctx.reconcile_view("a", ViewDelta(removed=(ANN,)))
        await made["left"].stands(Message(text="and on"))
        await made["right"].until("b", 3)
        assert told[1:] == [("right:b", None)]
