"""Ranks in a room that no network's own rules decide: removals, bans and new ranks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from core.ruling import Ruling, ruling
from hansa import (
    HistoryVisibility,
    JoinRule,
    Member,
    Membership,
    NativeId,
    Prepared,
    RefusalCode,
    Role,
    Standing,
    Submission,
    Verdict,
    ViewDelta,
)
from hansa.app import App
from hansa.bus.view_rules import ViewRulesTurn
from hansa.setup import RoomSetup
from hansa.testing import run_hansa, until
from hansa.testing.actor import Actor, Config, module

ANN, BEN, CAT = (NativeId("left", f"{name}@x") for name in ("ann", "ben", "cat"))
DAN = NativeId("right", "dan@y")


def networks(made: dict[str, Actor]) -> dict[str, Any]:
    return dict.fromkeys(("left", "right"), (module(made), Config()))


async def own_room(app: App, made: dict[str, Actor]) -> Any:
    """Ann owns the room; Ben is a moderator; Cat, and Dan of another network, are members."""
    setup = RoomSetup(links=["left:a", "right:b"], owners=[str(ANN)])
    await app.linker.keep_room(setup)
    for user in (ANN, BEN, CAT):
        await made["left"].join("a", user.id)
    await made["right"].join("b", DAN.id)
    view = made["left"].ctx.get_view("a")
    assert view is not None
    await until(lambda: view.person(ANN) is not None and view.person(ANN).role is Role.OWNER)
    result = await made["left"].do("a", ANN.id, Standing(user=BEN, role=Role.MODERATOR))
    assert result.refusal is None
    return view


def out(user: NativeId, membership: Membership = Membership.LEAVE) -> Member:
    return Member(user=user, membership=membership)


@pytest.mark.parametrize(
    ("by", "content", "allowed"),
    [
        (ANN, out(DAN), True),
        (BEN, out(DAN, Membership.BAN), True),
        (CAT, out(DAN), False),
        (CAT, out(DAN, Membership.BAN), False),
        (CAT, Standing(user=CAT, role=Role.MODERATOR), False),
        (BEN, Standing(user=DAN, role=Role.MODERATOR), True),
        (BEN, Standing(user=DAN, role=Role.OWNER), False),
        (BEN, Standing(user=DAN, role=Role.VISITOR, voice=False), True),
        (BEN, Standing(user=ANN, role=Role.MEMBER), True),
        (BEN, Standing(user=BEN, role=Role.OWNER), False),
        (BEN, Standing(user=BEN, role=Role.MEMBER), True),
        (ANN, Standing(user=DAN, role=Role.OWNER), True),
        (CAT, JoinRule(rule="public"), False),
        (BEN, JoinRule(rule="invite"), True),
        (CAT, out(NativeId("right", "new@y"), Membership.INVITE), True),
        # As above of Ann: what the server of another native room did to its own people has happened.
        (CAT, out(BEN), True),
    ],
)
async def test_a_rank_decides_who_may_do_what_to_others(by, content, allowed):
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made)) as app:
        await own_room(app, made)
        result = await made["left"].do("a", by.id, content)
        assert (result.refusal is None) is allowed, result.refusal
        assert allowed or result.refusal.code is RefusalCode.FORBIDDEN


async def test_of_two_owners_who_step_down_at_once_one_stays(monkeypatch):
    made: dict[str, Actor] = {}
    make = ViewRulesTurn.__init__
    monkeypatch.setattr(ViewRulesTurn, "__init__", lambda self, view, _: make(self, view, {"left", "right"}))
    async with run_hansa(networks(made)) as app:
        view = await own_room(app, made)
        act = made["left"].do
        assert (await act("a", ANN.id, Standing(user=DAN, role=Role.OWNER))).refusal is None
        outcomes = await asyncio.gather(
            act("a", ANN.id, Standing(user=ANN, role=Role.MEMBER)),
            made["right"].do("b", DAN.id, Standing(user=DAN, role=Role.MEMBER)),
        )
        assert [one.refusal.code for one in outcomes if one.refusal is not None] == [RefusalCode.CONFLICT]
        assert [person.role for person in view.joined()].count(Role.OWNER) == 1
        await act("a", ANN.id, out(ANN))  # everybody may leave
        await made["right"].do("b", DAN.id, out(DAN))
        assert view.membership(ANN) is not Membership.JOIN


async def test_nobody_gives_a_rank_to_a_person_who_was_never_there():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made)) as app:
        await own_room(app, made)
        stranger = Standing(user=NativeId("right", "new@y"), role=Role.MODERATOR)
        result = await made["left"].do("a", ANN.id, stranger)
        assert result.refusal is not None and result.refusal.code is RefusalCode.NOT_FOUND


async def test_of_a_room_of_ours_the_ranks_count_for_its_own_people_too(monkeypatch):
    made: dict[str, Actor] = {}
    make = ViewRulesTurn.__init__
    monkeypatch.setattr(ViewRulesTurn, "__init__", lambda self, view, _: make(self, view, {"left"}))
    async with run_hansa(networks(made)) as app:
        await own_room(app, made)
        left = made["left"]
        result = await left.do("a", CAT.id, out(BEN))
        assert result.refusal is not None and result.refusal.code is RefusalCode.FORBIDDEN
        result = await left.do("a", BEN.id, Standing(user=ANN, role=Role.MEMBER))
        assert result.refusal is not None and result.refusal.code is RefusalCode.FORBIDDEN
        assert (await left.do("a", BEN.id, JoinRule(rule="invite"))).refusal is None
        entering = Member(user=NativeId("left", "eve@x"), membership=Membership.JOIN)
        result = await left.do("a", "eve@x", entering)
        assert result.refusal is not None and result.refusal.code is RefusalCode.INVITE_ONLY
        invite = Member(user=entering.user, membership=Membership.INVITE)
        assert (await left.do("a", CAT.id, invite)).refusal is None
        assert (await left.do("a", "eve@x", entering)).refusal is None


async def test_an_owner_who_comes_later_is_one():
    made: dict[str, Actor] = {}
    async with run_hansa(networks(made)) as app:
        view = await own_room(app, made)
        await made["left"].do("a", ANN.id, out(ANN))
        await made["left"].join("a", ANN.id)
        assert view.person(ANN).role is Role.OWNER


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (Standing(user=DAN, role=Role.OWNER), Standing(user=DAN, role=Role.MEMBER)),
        (Standing(user=DAN, role=Role.MEMBER, voice=False), Standing(user=DAN, role=Role.MEMBER)),
        (JoinRule(rule="invite"), JoinRule(rule="public")),
        (HistoryVisibility(visibility="joined"), HistoryVisibility(visibility="shared")),
    ],
)
async def test_a_change_that_is_resolved_against_is_not_told_as_one(content, shown, monkeypatch):
    async def overrule(self: Ruling, inbound: Submission, verdict: Verdict) -> Prepared:
        delta = ViewDelta() if inbound.content == content else None
        return Prepared(visible=verdict.allowed, view_delta=delta)

    monkeypatch.setattr(Ruling, "prepare_event", overrule)
    made: dict[str, Any] = {}
    both = {"left": (ruling(made), Config()), "right": (module(made), Config())}
    async with run_hansa(both, rooms=[("left:a", "right:b")]):
        await made["right"].join("b", DAN.id)
        await made["left"].stands(content)
        told = await made["right"].until_shown("b", lambda all_: type(content) in map(type, all_))
        assert [one for one in told if type(one) is type(content)] == [shown]
