"""Presence between networks: judged, the latest alone, bounded, never stored."""

from __future__ import annotations

from typing import Any

import pytest
from hansa import (
    ALLOW,
    Action,
    EphemeralIn,
    EphemeralOut,
    LocalProtocolError,
    NativeId,
    PersonPresence,
    PresenceState,
    RoomView,
    Verdict,
    ViewDelta,
    texts_of,
)
from hansa.bus import presence_relay
from hansa.config.settings import NetworkTable
from hansa.model.ephemeral import MAX_PRESENCE_TEXT
from hansa.setup import NetworkSetup
from hansa.testing import ManualClock, run_hansa, until
from hansa.testing.actor import Actor, Config, module

AWAY, HERE, BUSY = PresenceState.AWAY, PresenceState.HERE, PresenceState.BUSY


def town(made: dict[str, Actor], *, rooms: int = 1, clock: ManualClock | None = None):
    """Two networks with rooms a0 and b0, a1 and b1 ..."""
    plugin = module(made)
    networks = {"left": (plugin, Config()), "right": (plugin, Config())}
    return run_hansa(
        networks,
        rooms=[(f"left:a{n}", f"right:b{n}") for n in range(rooms)],
        clock=clock or ManualClock(),
    )


def texts(actor: Actor, room: str) -> list[str]:
    """The texts that were shown in a room, in order."""
    return [one.text for one in actor.presences.get(room, [])]


async def test_a_presence_reaches_the_other_network_and_not_its_own():
    made: dict[str, Actor] = {}
    async with town(made) as app:
        await made["left"].join("a0", "ann@x")
        assert await made["left"].set_presence("ann@x", AWAY, "at lunch", room="a0")
        await until(lambda: made["right"].presences)
        (shown,) = made["right"].presences["b0"]
        assert (shown.user, shown.state, shown.text) == (NativeId("left", "ann@x"), AWAY, "at lunch")
        assert shown.since == app.seams.clock.now()
        assert made["left"].presences == {}
        assert app.counters["signals", (("result", "sent"),)] == 1
        with pytest.raises(LocalProtocolError, match="may not speak for"):
            await made["left"].ctx.send_presence(
                PersonPresence(user=NativeId("right", "bob@y"), state=AWAY), "a0"
            )


async def test_nobody_is_away_where_they_are_not():
    made: dict[str, Actor] = {}
    async with town(made, rooms=2):
        await made["left"].join("a0", "ann@x")
        assert not await made["left"].set_presence("ann@x", AWAY, room="a1")
        assert not await made["left"].set_presence("ann@x", AWAY, room="nowhere")
        await made["left"].set_presence("ann@x", AWAY)
        await until(lambda: made["right"].presences)
        assert list(made["right"].presences) == ["b0"]


async def test_in_every_room_of_a_person():
    made: dict[str, Actor] = {}
    async with town(made, rooms=3):
        for room in ("a0", "a2"):
            await made["left"].join(room, "ann@x")
        await made["left"].set_presence("ann@x", BUSY, "in a call")
        await until(lambda: len(made["right"].presences) == 2)
        assert {room: texts(made["right"], room) for room in ("b0", "b2")} == {
            "b0": ["in a call"],
            "b2": ["in a call"],
        }


async def test_the_latest_of_many_is_shown_and_no_repetition():
    made: dict[str, Actor] = {}
    clock = ManualClock()
    async with town(made, clock=clock):
        left, right = made["left"], made["right"]
        for person in ("ann@x", "eve@x"):
            await left.join("a0", person)
        await left.set_presence("ann@x", AWAY, "first")
        await until(lambda: texts(right, "b0") == ["first"])
        await left.set_presence("ann@x", AWAY, "first")  # says nothing new
        for number in range(20):
            await left.set_presence("ann@x", HERE, f"{number}")
        await left.set_presence("eve@x", AWAY, "of another")
        await until(lambda: texts(right, "b0") == ["first", "of another"])
        clock.advance(presence_relay.HOLD_S)
        await until(lambda: texts(right, "b0") == ["first", "of another", "19"])
        await left.set_presence("ann@x", HERE, "19")
        clock.advance(presence_relay.REPEAT_AFTER_S)
        await left.set_presence("ann@x", HERE, "19")
        await until(lambda: texts(right, "b0") == ["first", "of another", "19", "19"])


async def test_many_rooms_are_told_one_after_the_other(monkeypatch):
    monkeypatch.setattr(presence_relay, "MAX_BURST", 3)  # for the person, and for two rooms
    made: dict[str, Actor] = {}
    clock = ManualClock()
    async with town(made, rooms=5, clock=clock):
        for number in range(5):
            await made["left"].join(f"a{number}", "ann@x")
        await made["left"].set_presence("ann@x", AWAY, "before")
        await until(lambda: len(made["right"].presences) == 2)
        await made["left"].set_presence("ann@x", AWAY, "after", room="a4")  # replaces what waits
        for told in (3, 4, 5):
            clock.advance(1 / presence_relay.RATE)
            await until(lambda told=told: len(made["right"].presences) == told)
        shown = sorted(text for room in made["right"].presences for text in texts(made["right"], room))
        assert shown == ["after", "before", "before", "before", "before"]


async def test_a_server_has_a_share_of_what_waits(monkeypatch):
    monkeypatch.setattr(presence_relay, "MAX_WAITING_OF_SERVER", 3)
    monkeypatch.setattr(presence_relay, "MAX_BURST", 1)
    made: dict[str, Actor] = {}
    async with town(made) as app:
        people = [*(f"p{n}@x" for n in range(6)), "bob@y"]
        for person in people:
            await made["left"].join("a0", person)
        for person in people:
            await made["left"].set_presence(person, AWAY)
        assert app.counters["signals", (("result", "busy"),)] == 3


async def test_large_rooms_are_left_out():
    made: dict[str, Actor] = {}
    async with town(made, rooms=2) as app:
        setups = [
            NetworkSetup(id=one.id, module=one.module, options=one.options, presence_members=2)
            for one in app.setup.networks
        ]
        await app.reload_networks(setups)
        for room, people in (("a0", ("ann@x", "bob@x", "eve@x")), ("a1", ("ann@x", "bob@x"))):
            for person in people:
                await made["left"].join(room, person)
        await made["left"].set_presence("ann@x", AWAY)
        await until(lambda: made["right"].presences)
        assert list(made["right"].presences) == ["b1"]


def test_the_default_of_the_setup_is_that_of_the_configuration():
    default = NetworkTable.model_fields["presence_members"].default
    assert NetworkSetup.__dataclass_fields__["presence_members"].default == default


async def test_a_busy_room_is_told_later(monkeypatch):
    made: dict[str, Actor] = {}
    clock = ManualClock()
    async with town(made, clock=clock) as app:
        await made["left"].join("a0", "ann@x")
        asked: list[str] = []

        def waiting(room: str) -> int:
            asked.append(room)
            return 1000 if len(asked) == 1 else 0

        monkeypatch.setattr(app.pipeline, "waiting", waiting)
        await made["left"].set_presence("ann@x", AWAY, "later")
        await until(lambda: asked)
        assert made["right"].presences == {}
        clock.advance(presence_relay.HOLD_S)
        await until(lambda: texts(made["right"], "b0") == ["later"])


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("kind", [EphemeralIn, EphemeralOut])
async def test_a_policy_stops_it_on_either_side(kind: type, everywhere: bool, monkeypatch):
    made: dict[str, Actor] = {}
    async with town(made) as app:
        await made["left"].join("a0", "ann@x")
        await made["left"].join("a0", "bob@x")
        asked: list[Any] = []

        async def check(crossing: Any) -> Verdict:
            asked.append(crossing)
            theirs = isinstance(crossing, kind) and crossing.sender.id == "ann@x"
            return Verdict(Action.DENY) if theirs else ALLOW

        monkeypatch.setattr(app.decisions, "judge_and_store", check)
        room = "" if everywhere else "a0"
        let_in = await made["left"].set_presence("ann@x", AWAY, "secret", room=room)
        assert let_in is (everywhere or kind is EphemeralOut)
        await made["left"].set_presence("bob@x", AWAY, "lunch", room=room)
        await until(lambda: texts(made["right"], "b0") == ["lunch"])
        assert app.counters["signals", (("result", "denied"),)] == 1
        first = next(one for one in asked if isinstance(one, kind))
        assert (first.kind, texts_of(first)) == ("presence", ("secret",))


async def test_a_network_that_fails_with_it_fails_alone(monkeypatch):
    made: dict[str, Actor] = {}
    async with town(made) as app:
        await made["left"].join("a0", "ann@x")
        show = made["right"].show_presence

        async def broken(link: Any, presence: PersonPresence) -> None:
            if presence.text == "breaks":
                raise RuntimeError("a bug")
            await show(link, presence)

        monkeypatch.setattr(made["right"], "show_presence", broken)
        await made["left"].join("a0", "bob@x")
        await made["left"].set_presence("ann@x", AWAY, "breaks")
        await made["left"].set_presence("bob@x", AWAY, "works")
        await until(lambda: texts(made["right"], "b0") == ["works"])
        assert app.counters["signals", (("result", "failed"),)] == 1


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a\r\nQUIT :b\0", "a QUIT :b"),
        ("x" * 300, "x" * (MAX_PRESENCE_TEXT - 1) + "…"),
        (" " * 5000 + "x", "…"),
        ("\ud800a\u2028b", "a b"),
        ("x" * MAX_PRESENCE_TEXT, "x" * MAX_PRESENCE_TEXT),
    ],
)
async def test_a_text_is_of_one_line_and_bounded(said: str, shown: str):
    made: dict[str, Actor] = {}
    async with town(made):
        await made["left"].join("a0", "ann@x")
        await made["left"].set_presence("ann@x", AWAY, said)
        await until(lambda: texts(made["right"], "b0") == [shown])


async def test_the_rooms_of_a_person_are_looked_for_once_and_follow_what_happens(monkeypatch):
    made: dict[str, Actor] = {}
    async with town(made, rooms=2) as app:
        ann, left = NativeId("left", "ann@x"), made["left"]
        rooms = {name: app.rooms.room_of(NativeId("left", name)) for name in ("a0", "a1")}
        await left.join("a0", "ann@x")
        assert app.rooms.joined_by(ann) == [rooms["a0"]]
        looked = list[str]()
        membership = RoomView.membership

        def counted(view: RoomView, user: NativeId) -> Any:
            looked.append(view.room)
            return membership(view, user)

        monkeypatch.setattr(RoomView, "membership", counted)
        assert app.rooms.joined_by(ann) == [rooms["a0"]]
        assert looked == []
        monkeypatch.undo()
        await left.join("a1", "ann@x")
        assert {room.id for room in app.rooms.joined_by(ann)} == {room.id for room in rooms.values()}
        await left.leave("a0", "ann@x")
        assert app.rooms.joined_by(ann) == [rooms["a1"]]
        await app.rooms.reload(rooms["a1"])
        assert app.rooms.joined_by(ann) == [rooms["a1"]]
        await left.join("a0", "ann@x")
        gone = ViewDelta(removed=(ann,))
        await app.pipeline.correct(rooms["a1"].id, gone)
        assert app.rooms.joined_by(ann) == [rooms["a0"]]
