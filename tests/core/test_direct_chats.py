"""Direct chats between people of two networks, opened by an invite or by the first message."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest
from hansa import (
    Action,
    CannotOpenRoom,
    Event,
    EventOut,
    Invite,
    LocalProtocolError,
    Member,
    Membership,
    Message,
    NativeId,
    NetworkContext,
    OpenedRoom,
    OpensDirectChats,
    Reason,
    Refusal,
    RefusalCode,
    RoomInfo,
    Style,
    Verdict,
    ViewDelta,
    hookimpl,
)
from hansa.app import App
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.testing import run_hansa, until
from hansa.testing.actor import Actor, Config

ANN, BOB = NativeId("left", "ann@x"), NativeId("right", "bob@y")


class Chatting(Actor):
    """A network with direct chats; nobody is called ``nobody``. ``faults`` are raised first, one each."""

    def __init__(self, ctx: NetworkContext) -> None:
        super().__init__(ctx)
        self.faults: list[Exception] = []
        self.opened = 0

    async def require_direct_chat(self, user: str, other: NativeId) -> None:
        del other
        if user.startswith("nobody"):
            raise CannotOpenRoom(Refusal(code=RefusalCode.NOT_FOUND, text=f"there is no {user}"))

    async def open_direct_chat(self, user: str, other: NativeId) -> OpenedRoom:
        await self.require_direct_chat(user, other)
        if self.faults:
            raise self.faults.pop(0)
        self.opened += 1
        return OpenedRoom(native=NativeId(self.ctx.id, f"{user} {other}"))


def plugin(made: dict[str, Actor], kind: type[Actor]) -> ModuleType:
    def open_network(ctx: NetworkContext) -> Actor:
        made[ctx.id] = kind(ctx)
        return made[ctx.id]

    module: Any = ModuleType(f"hansa_chatting_{id(made)}_{kind.__name__}")
    module.api, module.Config, module.open_network = 1, Config, hookimpl(open_network)
    sys.modules.setdefault(module.__name__, module)
    return module


@asynccontextmanager
async def chatting(**more: Any) -> AsyncIterator[tuple[App, dict[str, Any]]]:
    """``left`` and ``right`` have direct chats, ``plain`` has none. Ann of ``left`` is in the room ``a``."""
    made: dict[str, Any] = {}
    chats = plugin(made, Chatting)
    networks = {
        "left": (chats, Config()),
        "right": (chats, Config()),
        "plain": (plugin(made, Actor), Config()),
    }
    async with run_hansa(networks, **more) as app:
        await made["left"].ctx.open_link("a")
        await made["left"].join("a", ANN.id)
        yield app, made


async def last_membership(app: App, network: Actor, room: str, membership: Membership) -> Event:
    """The newest event of a room, once it is Bob's ``membership``."""
    core = app.rooms.room_of(NativeId(network.ctx.id, room))

    def is_last() -> bool:
        content = core.tail[-1].content if core.tail else None
        return isinstance(content, Member) and (content.user, content.membership) == (BOB, membership)

    await until(is_last)
    return core.tail[-1]


class Denies:
    """A policy that denies what ``picks`` says."""

    def __init__(self, picks: Any) -> None:
        self.picks = picks

    async def check(self, crossing: Any) -> Verdict | None:
        reason = Reason(code="NO", policy="p", rule="r", text="not with them")
        return Verdict(Action.DENY, (reason,)) if self.picks(crossing) else None


def test_the_protocol_is_what_a_chatting_network_has():
    assert isinstance(Chatting.__new__(Chatting), OpensDirectChats)
    assert not isinstance(Actor.__new__(Actor), OpensDirectChats)


async def test_an_invite_opens_the_chat_and_words_go_both_ways():
    async with chatting() as (_app, made):
        left, right = made["left"], made["right"]
        assert (await left.invite("a", ANN.id, BOB)).refusal is None
        await left.say("a", ANN.id, "at once after the invite")
        chat = f"{BOB.id} {ANN}"
        await right.until(chat, 1)
        assert right.texts(chat) == ["at once after the invite"]
        await right.say(chat, BOB.id, "hello ann")
        shown = await left.until_shown("a", lambda _: "hello ann" in left.texts("a"))
        joined = [c for c in shown if isinstance(c, Member)]
        assert [(c.user, c.membership) for c in joined] == [(BOB, Membership.JOIN)]
        notices = [c.text for c in shown if isinstance(c, Message) and c.style is Style.NOTICE]
        assert len(notices) == 1
        assert "not encrypted" in notices[0]
        assert "right" in notices[0]
        assert not [c for c in right.contents(chat) if isinstance(c, Message) and c.style is Style.NOTICE]


@pytest.mark.parametrize(
    ("whom", "text"),
    [
        (NativeId("right", "nobody@y"), "there is no nobody@y"),
        (NativeId("plain", "carl@z"), "plain has no direct chats"),
        (NativeId("gone", "carl@z"), "gone is not running"),
    ],
)
async def test_an_invite_that_reaches_nobody_is_refused_in_words(whom: NativeId, text: str):
    async with chatting() as (app, made):
        refusal = (await made["left"].invite("a", ANN.id, whom)).refusal
        assert refusal is not None
        assert text in refusal.text
        view = made["left"].ctx.get_view("a")
        assert view is not None
        assert view.person(whom) is None
        assert app.counters["direct_chats", (("result", "refused"),)] == 1


async def test_a_room_of_three_does_not_become_a_direct_chat():
    async with chatting() as (_, made):
        await made["left"].join("a", "third@x")
        refusal = (await made["left"].invite("a", ANN.id, BOB)).refusal
        assert refusal is not None
        assert "only a chat of two" in refusal.text


async def test_policies_are_asked_about_the_invite():
    async with chatting() as (app, made):
        denies = Denies(lambda c: isinstance(c, Invite) and c.user == BOB and c.outbound)
        app.decisions.replace([InstalledPolicy(name="p", policy=denies)])
        refusal = (await made["left"].invite("a", ANN.id, BOB)).refusal
        assert refusal is not None
        assert refusal.code is RefusalCode.POLICY
        assert refusal.text.startswith("not with them")
        with pytest.raises(CannotOpenRoom, match="not with them"):
            await made["left"].ctx.open_direct_chat(f"{ANN.id} {BOB}", ANN.id, BOB)
        assert made["right"].opened == 0


async def test_policies_judge_what_was_said_before_the_chat_had_its_link():
    async with chatting() as (app, made):
        left, right = made["left"], made["right"]
        asked: list[EventOut] = []

        def picks(crossing: Any) -> bool:
            if isinstance(crossing, EventOut) and crossing.link.native.network == "right":
                asked.append(crossing)
                return isinstance(crossing.content, Message) and crossing.content.text == "secret"
            return False

        app.decisions.replace([InstalledPolicy(name="p", policy=Denies(picks))])
        busy = CannotOpenRoom(Refusal(code=RefusalCode.BUSY, text="a moment"))
        right.faults = [busy]
        await left.invite("a", ANN.id, BOB)
        await left.say("a", ANN.id, "secret")
        await left.say("a", ANN.id, "public")
        assert not asked  # there is no link yet
        chat = f"{BOB.id} {ANN}"
        await right.until(chat, 1)
        await until(lambda: app.consumers[f"right:{chat}"].position >= 4)
        assert right.texts(chat) == ["public"]


async def test_a_chat_that_does_not_open_after_the_invite_is_declined_with_the_reason():
    async with chatting() as (app, made):
        made["right"].faults = [CannotOpenRoom(Refusal(code=RefusalCode.FORBIDDEN, text="bob is away"))]
        assert (await made["left"].invite("a", ANN.id, BOB)).refusal is None
        left = await last_membership(app, made["left"], "a", Membership.LEAVE)
        assert left.content.reason == "bob is away"
        assert left.sender == BOB
        assert app.counters["direct_chats", (("result", "declined"),)] == 1


async def test_an_invite_whose_chat_a_stop_prevented_is_opened_at_the_next_start():
    async with chatting() as (app, made):
        made["right"].faults = [LocalProtocolError("stopped")]
        app.direct_chats.on_committed = lambda *_: None  # as if the process ended here
        await made["left"].invite("a", ANN.id, BOB)
        made["right"].faults.clear()
        app.direct_chats.resume()
        view = made["left"].ctx.get_view("a")
        await until(lambda: view.membership(BOB) is Membership.JOIN)
        assert made["right"].opened == 1


async def test_the_first_word_of_the_other_side_opens_the_chat_once():
    async with chatting() as (_app, made):
        left, right = made["left"], made["right"]
        own = f"{BOB.id} {ANN}"
        link = await right.ctx.open_direct_chat(own, BOB.id, ANN)
        assert link.native == NativeId("right", own)
        again = await right.ctx.open_direct_chat(own, BOB.id, ANN)
        assert again == link
        assert left.opened == 1
        await right.say(own, BOB.id, "knock knock")
        theirs = f"{ANN.id} {BOB}"
        await left.until_shown(theirs, lambda _: "knock knock" in left.texts(theirs))
        await left.say(theirs, ANN.id, "who is there")
        await right.until_shown(own, lambda _: "who is there" in right.texts(own))


async def test_the_room_of_a_direct_chat_says_so_also_after_its_network_described_it_anew():
    async with chatting() as (app, made):
        left = made["left"]
        await left.invite("a", ANN.id, BOB)
        view = left.ctx.get_view("a")
        assert not view.facts.direct
        await until(lambda: view.facts.direct)
        await left.ctx.reconcile_view("a", ViewDelta(info=RoomInfo(name="ours")))
        assert (view.facts.name, view.facts.direct) == ("ours", True)
        room = app.rooms.room_of(NativeId("left", "a"))
        await app.rooms.reload(room)
        assert (room.view.facts.name, room.view.facts.direct) == ("ours", True)


async def test_nobody_to_write_to_is_said():
    async with chatting() as (_, made):
        with pytest.raises(CannotOpenRoom, match="there is no nobody@x"):
            await made["right"].ctx.open_direct_chat("c", BOB.id, NativeId("left", "nobody@x"))
        assert made["right"].ctx.get_link("c") is None


async def test_who_left_the_chat_is_invited_again_by_the_next_word():
    async with chatting() as (_, made):
        left, right = made["left"], made["right"]
        await left.invite("a", ANN.id, BOB)
        own, view = f"{BOB.id} {ANN}", left.ctx.get_view("a")
        await until(lambda: view.membership(BOB) is Membership.JOIN)
        await left.leave("a", ANN.id)
        await right.ctx.open_direct_chat(own, BOB.id, ANN)
        assert view.membership(ANN) is Membership.INVITE


async def test_a_second_room_is_refused_while_both_are_in_the_first_and_takes_over_after():
    async with chatting() as (app, made):
        left, right = made["left"], made["right"]
        await left.invite("a", ANN.id, BOB)
        first = left.ctx.get_view("a")
        await until(lambda: first.membership(BOB) is Membership.JOIN)
        await left.ctx.open_link("second")
        await left.join("second", ANN.id)
        second = left.ctx.get_view("second")
        await left.invite("second", ANN.id, BOB)
        declined = await last_membership(app, left, "second", Membership.LEAVE)
        assert "already" in declined.content.reason
        await left.leave("a", ANN.id)
        await left.invite("second", ANN.id, BOB)
        await until(lambda: second.membership(BOB) is Membership.JOIN)
        await left.say("second", ANN.id, "here now")
        own = f"{BOB.id} {ANN}"
        await right.until_shown(own, lambda _: "here now" in right.texts(own))


async def test_who_was_thrown_out_of_a_chat_begins_another_and_who_is_banned_none():
    async with chatting() as (_, made):
        left, right = made["left"], made["right"]
        await left.invite("a", ANN.id, BOB)
        own, view = f"{BOB.id} {ANN}", left.ctx.get_view("a")
        await until(lambda: view.membership(BOB) is Membership.JOIN and view.facts.direct)
        await left.ban("a", ANN.id, BOB)
        with pytest.raises(CannotOpenRoom, match="banned"):
            await right.ctx.open_direct_chat(own, BOB.id, ANN)
        await left.kick("a", ANN.id, BOB)
        link = await right.ctx.open_direct_chat(own, BOB.id, ANN)
        assert link.room != left.ctx.get_link("a").room
