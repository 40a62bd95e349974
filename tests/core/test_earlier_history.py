"""What was said in a native room before it was linked: who reads which part of it, and what a network may give."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from core.ruling import ruling
from hansa import (
    Action,
    Attachment,
    Direction,
    EarlierEvent,
    EarlierPage,
    Edit,
    Membership,
    Message,
    NativeId,
    Reaction,
    Reason,
    RoomMember,
    Verdict,
    ViewDelta,
    texts_of,
)
from hansa.bus import earlier_history
from hansa.bus.earlier_history import decode_place, encode_place
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.model.chat_commands import CommandSettings
from hansa.testing import run_hansa, until
from hansa.testing.actor import Actor, Config, module
from hypothesis import given
from hypothesis import strategies as st

OLD, BOB, EVE = NativeId("left", "old@x"), NativeId("right", "bob@y"), NativeId("right", "eve@y")


class Past:
    """Gives ``events``, as many at a time as it is asked for; ``asked`` keeps how."""

    def __init__(self, *events: EarlierEvent) -> None:
        self.events = list(events)
        self.asked: list[tuple[str, int, bool]] = []

    async def fetch_before(
        self, link: Any, before: str, *, limit: int, ask_others: bool
    ) -> EarlierPage | None:
        assert link.id == "left:a"
        self.asked.append((before, limit, ask_others))
        names = [event.native for event in self.events]
        if before and before not in names:
            return None
        end = names.index(before) if before else len(names)
        start = max(0, end - limit)
        return EarlierPage(events=self.events[start:end], before=names[start] if start else None)


def said(number: int, visibility: str = "shared", **over: Any) -> EarlierEvent:
    content = over.pop("content", Message(text=f"m{number}"))
    return EarlierEvent(
        native=f"${number}", sender=OLD, content=content, ts=number, visibility=visibility, **over
    )


async def test_an_edit_by_another_or_of_what_is_gone_is_not_shown() -> None:
    made: dict[str, Any] = {}
    better = Edit(target="$1", message=Message(text="better"))
    past = Past(
        said(1),
        said(2, content=better, target_sender=NativeId("left", "mallory@x")),
        said(3, content=better),
        said(4, content=better, target_sender=OLD),
    )
    async with town(made, past):
        ctx = await has_past(made, past)
        found = await ctx.read_earlier_for("b", BOB, limit=10)
        assert [event.ts for event in found.events] == [1, 4]


async def test_commands_to_the_bridge_are_left_out() -> None:
    made: dict[str, Any] = {}
    past = Past(
        said(1),
        said(2, content=Message(text="!hansa link right:secret")),
        said(3, content=Edit(target="$2", message=Message(text="the secret")), target_sender=OLD),
        said(4, content=Reaction(target="$2", key="secret")),
        said(
            5, content=Edit(target="$1", message=Message(text="!hansa link right:secret")), target_sender=OLD
        ),
        said(6),
    )
    async with town(made, past, commands=CommandSettings(enabled=True)):
        ctx = await has_past(made, past)
        found = await ctx.read_earlier_for("b", BOB, limit=10)
        assert [event.ts for event in found.events] == [1, 6]


def town(made: dict[str, Any], past: Any, **more: Any) -> Any:
    networks = {"left": (ruling(made), Config()), "right": (module(made), Config())}
    return run_hansa(networks, rooms=[("left:a", "right:b")], **more)


async def has_past(made: dict[str, Any], past: Any) -> Any:
    made["left"].fetch_before = past.fetch_before
    row = RoomMember(user=BOB, membership=Membership.JOIN)
    await made["right"].ctx.reconcile_view("b", ViewDelta(upserts=(row,)))
    return made["right"].ctx


async def texts(ctx: Any, user: NativeId = BOB, before: str = "", **more: Any) -> list[str]:
    found = await ctx.read_earlier_for("b", user, before, **{"limit": 10, **more})
    assert found is not None
    return [event.content.text for event in found.events]


async def test_a_person_reads_what_the_visibility_of_then_allows() -> None:
    made: dict[str, Any] = {}
    past = Past(said(1, "world_readable"), said(2), said(3, "joined"), said(4, "invited"), said(5, "odd"))
    async with town(made, past) as app:
        ctx = await has_past(made, past)
        assert await texts(ctx) == ["m1", "m2"]
        assert await texts(ctx, EVE) == ["m1"]
        gone = RoomMember(user=BOB, membership=Membership.LEAVE)
        await made["left"].stands(Message(text="in the log"))
        await ctx.reconcile_view("b", ViewDelta(upserts=(gone,)))
        assert await texts(ctx) == ["m1", "m2"]  # who was there once, as on Matrix
        assert await made["left"].ctx.read_earlier_for("a", BOB, limit=5) is not None
        assert len(past.asked) == 3  # the network that has it is not told of it
        room = app.rooms.room_of(NativeId("left", "a"))
        assert [event.content for event in room.tail] == [Message(text="in the log")]


async def test_it_is_read_in_pages_and_each_event_is_a_place() -> None:
    made: dict[str, Any] = {}
    past = Past(*(said(n) for n in range(1, 8)))
    async with town(made, past):
        ctx = await has_past(made, past)
        pages, before = [], ""
        while True:
            found = await ctx.read_earlier_for("b", BOB, before, limit=3, ask_others=False)
            pages.append([event.content.text for event in found.events])
            if found.before is None:
                break
            before = found.before
        assert pages == [["m5", "m6", "m7"], ["m2", "m3", "m4"], ["m1"]]
        assert [asked[1:] for asked in past.asked] == [(3, False)] * 3
        (event,) = (await ctx.read_earlier_for("b", BOB, limit=1)).events
        assert (event.seq, event.id, event.origin) == (0, encode_place("$7"), NativeId("left", "$7"))
        assert await texts(ctx, before=event.id, limit=2) == ["m5", "m6"]
        for unknown in (encode_place("$99"), "nothing", "~", "~%", event.id + "="):
            assert await ctx.read_earlier_for("b", BOB, unknown, limit=2) is None
        await ctx.read_earlier_for("b", BOB, limit=100_000)
        assert past.asked[-1][1] == earlier_history.MAX_EARLIER


class Censor:
    async def check(self, crossing: Any) -> Verdict | None:
        bad = any("m2" in text for text in texts_of(crossing))
        return Verdict(Action.DENY, (Reason(code="NO", policy="p", rule="r", text="no"),)) if bad else None


async def test_the_policies_of_now_judge_each_event() -> None:
    made: dict[str, Any] = {}
    past = Past(said(1), said(2), said(3))
    async with town(made, past) as app:
        ctx = await has_past(made, past)
        assert await texts(ctx) == ["m1", "m2", "m3"]
        app.decisions.replace([InstalledPolicy(name="censor", policy=Censor())])
        assert await texts(ctx) == ["m1", "m3"]


async def test_what_is_redacted_meanwhile_is_gone_and_nothing_is_kept() -> None:
    made: dict[str, Any] = {}
    past = Past(said(1), said(2))
    async with town(made, past) as app:
        ctx = await has_past(made, past)
        assert await texts(ctx) == ["m1", "m2"]
        del past.events[0]
        assert await texts(ctx) == ["m2"]
        room = app.rooms.room_of(NativeId("left", "a"))
        assert await app.core.scan("event", equal=(room.id,)) == []
        assert await app.core.scan("alias", equal=("left",)) == []


async def test_contents_name_nothing_that_only_their_network_knows() -> None:
    made: dict[str, Any] = {}
    file = Attachment(name="a.png", source=NativeId("left", "mxc"))
    answer = Message(text="yes", reply_to="$1", thread="$1", attachments=(file,))
    edit = Edit(target="$1", message=answer)
    past = Past(said(1), said(2, content=answer), said(3, content=edit, target_sender=OLD))
    async with town(made, past):
        ctx = await has_past(made, past)
        found = await ctx.read_earlier_for("b", BOB, limit=5)
        plain = Message(text="yes", attachments=(Attachment(name="a.png"),))
        contents = [event.content for event in found.events]
        assert contents[1:] == [plain, Edit(target=found.events[0].id, message=plain)]


@pytest.mark.parametrize("direction", [Direction.IN, Direction.OUT])
async def test_directions_hold(direction: Direction) -> None:
    made: dict[str, Any] = {}
    past = Past(said(1))
    async with town(made, past) as app:
        ctx = await has_past(made, past)
        room = app.rooms.room_of(NativeId("left", "a"))
        name = "right:b" if direction is Direction.IN else "left:a"
        room.links[name] = replace(room.links[name], direction=direction)
        assert await texts(ctx) == []
        assert past.asked == []


async def test_a_network_that_fails_says_that_there_may_be_more() -> None:
    made: dict[str, Any] = {}

    class Broken:
        async def fetch_before(self, *_: Any, **__: Any) -> Any:
            raise ValueError("broken")

    class Generous:
        async def fetch_before(self, *_: Any, **__: Any) -> Any:
            long = EarlierEvent(
                native="$" * 300, sender=OLD, content=Message(text="x"), ts=0, visibility="shared"
            )
            future = said(10**18)
            return EarlierPage(events=[*(said(n) for n in range(20)), long, future], before="$x")

    async with town(made, None):
        ctx = await has_past(made, Broken())
        found = await ctx.read_earlier_for("b", BOB, limit=5)
        assert (found.events, found.before) == ((), "")
        await has_past(made, Generous())
        found = await ctx.read_earlier_for("b", BOB, limit=5)
        assert [event.ts for event in found.events] == [17, 18, 19, 10**18]
        assert found.events[-1].received == 253_402_300_799_999


async def test_a_room_whose_networks_have_none_has_none() -> None:
    made: dict[str, Actor] = {}
    networks = {"left": (module(made), Config()), "right": (module(made, hosted=True), Config())}
    async with run_hansa(networks, rooms=[("left:a", "right:b")]):
        found = await made["right"].ctx.read_earlier_for("b", BOB, limit=5)
        assert found is not None
        assert (found.events, found.before) == ((), None)
        assert await made["right"].ctx.read_earlier_for("b", BOB, encode_place("$1"), limit=5) is None


@given(st.text(max_size=400))
def test_any_place_is_read_or_refused(text: str) -> None:
    native = decode_place(text)
    assert native is None or (text == "" == native) or encode_place(native) == text
    if len(text.encode(errors="surrogatepass")) <= earlier_history.MAX_NATIVE and text.isprintable():
        assert decode_place(encode_place(text)) == text


class Slow(Past):
    """Answers at once in the room ``left:a``, and in all others never."""

    def __init__(self, *events: EarlierEvent) -> None:
        super().__init__(*events)
        self.waiting = 0

    async def fetch_before(
        self, link: Any, before: str, *, limit: int, ask_others: bool
    ) -> EarlierPage | None:
        if link.id == "left:a":
            return await super().fetch_before(link, before, limit=limit, ask_others=ask_others)
        self.waiting += 1
        await asyncio.Event().wait()
        raise AssertionError


async def test_slow_rooms_and_who_reads_them_hold_up_no_others() -> None:
    made: dict[str, Any] = {}
    past, rooms = Slow(said(1)), [(f"left:a{n}", f"right:b{n}") for n in range(20)]
    async with town(made, past) as app:
        for links in rooms:
            await app.link_room(links, create=True)
        ctx = await has_past(made, past)

        def read(room: int, server: str) -> asyncio.Task[Any]:
            reader = NativeId("right", f"r@{server}")
            return asyncio.ensure_future(ctx.read_earlier_for(f"b{room}", reader, limit=1))

        tasks = [read(room, "slow") for room in range(20)] + [read(0, f"s{n}") for n in range(20)]
        await until(lambda: past.waiting >= 5)
        assert await texts(ctx) == ["m1"]
        assert past.waiting == 4 + 1, "of the server, and of the room of which it has one already"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
