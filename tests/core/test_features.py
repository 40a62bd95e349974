"""The replacement for content that a network cannot carry."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core.vocabulary import ANN, SAMPLES
from hansa import (
    Custom,
    DeliveryRejected,
    Features,
    Kind,
    Level,
    Member,
    Membership,
    Message,
    Request,
    Style,
    Topic,
)
from hansa.admin.rooms import RoomCommands
from hansa.cli import show
from hansa.host.room_names import RoomNames
from hansa.model.feature_table import feature_rows
from hansa.model.features import degrade
from hansa.store.memory import MemoryDisk, MemoryStore
from hansa.testing import run_hansa, until
from hansa.testing.actor import Actor, Config, module

ALL = SAMPLES


def only(level: Level, most: int = 32_768) -> Features:
    return Features(levels=dict.fromkeys(Kind, level), max_text=most)


@pytest.mark.parametrize(("content", "text"), ALL, ids=lambda value: getattr(value, "kind", None))
def test_a_fallback_says_it_in_words(content, text):
    assert degrade(content, only(Level.FALLBACK)) == Message(text=text, style=Style.NOTICE)


def test_every_kind_and_membership_has_words():
    assert {content.kind for content, _ in ALL} == set(Kind)
    for membership in Membership:
        content = Member(user=ANN, membership=membership)
        assert degrade(content, only(Level.FALLBACK)) is not None


@pytest.mark.parametrize("level", [Level.DROPPED, Level.REJECTED])
def test_what_is_dropped_or_rejected_is_nothing(level):
    assert [degrade(content, only(level)) for content, _ in ALL] == [None] * len(ALL)


@pytest.mark.parametrize("level", [Level.PARTIAL, Level.FULL])
def test_what_is_carried_stays_what_it_is(level):
    features = replace(only(level), formatting=True, replies=True, attachments=True)
    assert [degrade(content, features) for content, _ in ALL] == [content for content, _ in ALL]


def test_a_custom_event_without_words_cannot_fall_back():
    assert degrade(Custom(type="poll"), only(Level.FALLBACK)) is None


async def test_what_a_network_cannot_show_is_counted(monkeypatch):
    monkeypatch.setattr(Actor, "features", Features(levels={Kind.MESSAGE: Level.FULL}))
    made: dict[str, Actor] = {}
    networks = dict.fromkeys(("left", "right"), (module(made), Config()))
    async with run_hansa(networks, rooms=(("left:a", "right:b"),)) as app:
        await made["left"].set_topic("a", "ann@x", "unseen")
        await made["left"].say("a", "ann@x", "seen")
        assert await made["right"].until("b", 1) == ["seen"]
        assert app.counters["not_carried", (("kind", "topic"), ("network", "right"))] == 1


async def test_the_sender_of_what_is_rejected_is_told_once_for_each_kind(monkeypatch):
    levels = {Kind.MESSAGE: Level.FULL, Kind.TOPIC: Level.REJECTED, Kind.NAME: Level.REJECTED}
    monkeypatch.setattr(Actor, "features", Features(levels=levels))
    made: dict[str, Actor] = {}
    networks = dict.fromkeys(("left", "right"), (module(made), Config()))
    disk = MemoryDisk()
    topic = ("ann@x", "right cannot show this (topic). The people there do not see it.")
    async with run_hansa(networks, rooms=(("left:a", "right:b"),), store=MemoryStore(disk)) as app:
        for _ in range(2):
            await made["left"].set_topic("a", "ann@x", "unseen")
        await made["left"].set_name("a", "ann@x", "unseen")
        await made["left"].set_topic("a", "bob@x", "unseen")
        await until(lambda: len(made["left"].told) == 3)
        assert made["left"].told[0] == topic
        assert [user for user, _ in made["left"].told] == ["ann@x", "ann@x", "bob@x"]
        assert app.counters["not_carried", (("kind", "topic"), ("network", "right"))] == 3
    async with run_hansa(networks, rooms=(("left:a", "right:b"),), store=MemoryStore(disk)):
        await made["left"].do("a", "ann@x", Topic(text="unseen again"), origin="later-1")
        await made["left"].say("a", "ann@x", "seen", origin="later-2")
        await made["right"].until("b", 1)
        assert made["left"].told == []


async def test_the_sender_of_what_cannot_be_delivered_is_told_once_for_each_kind():
    made: dict[str, Actor] = {}
    networks = dict.fromkeys(("left", "right"), (module(made), Config()))
    async with run_hansa(networks, rooms=(("left:a", "right:b"),)) as app:

        def reject(_delivery):
            raise DeliveryRejected("words of the other side")

        made["right"].before_send = reject
        for _ in range(2):
            await made["left"].say("a", "ann@x", "unseen")
        await made["left"].set_topic("a", "ann@x", "unseen")
        await until(lambda: len(made["left"].told) == 2)
        await until(lambda: app.counters["dead_letters", (("network", "right"),)] == 3)
        assert made["left"].told == [
            ("ann@x", f"right did not take this ({kind}). The people there do not see it.")
            for kind in ("message", "topic")
        ]


def test_the_table_says_how_each_side_sees_the_other():
    rich = Features(levels=dict.fromkeys(Kind, Level.FULL), formatting=True, replies=True, attachments=True)
    levels = {Kind.MESSAGE: Level.FULL, Kind.EDIT: Level.FALLBACK, Kind.POLL_START: Level.REJECTED}
    poor = Features(
        levels=levels | {Kind.MEMBER: Level.PARTIAL}, losses={Kind.MEMBER: "no reason"}, formatting=True
    )
    heading, rows = feature_rows({"rich": rich, "poor": poor})
    assert heading == ["", "rich → poor", "poor → rich"]
    found = {row[0]: row[1:] for row in rows}
    assert found["message"] == ["whole (a reply as a quote; a file as a link)", "whole"]
    assert found["edit"] == ["in words", ""]
    assert found["member"] == ["in part (no reason)", "whole"]
    assert (found["poll-start"], found["call"]) == (["refused", ""], ["not shown", ""])


async def test_an_operator_sees_what_crosses_in_a_room(monkeypatch):
    monkeypatch.setattr(Actor, "features", Features(levels={Kind.MESSAGE: Level.FULL}))
    made: dict[str, Actor] = {}
    networks = dict.fromkeys(("left", "right"), (module(made), Config()))
    async with run_hansa(networks, rooms=(("left:a", "right:b"),)) as app:
        found = await RoomCommands(app, RoomNames(app)).room(
            Request(method="GET", target="/", host="x", path={"room": "left:a"}), {}
        )
    pair = {"from": "left", "to": "right", "levels": {"message": "full"}, "losses": {}, "ranked": []}
    assert pair in found["crosses"]
    found |= {"people": [], "links": [], "addresses": []}
    assert "what crosses  left → right  right → left\nmessage       whole         whole" in show.room(found)
    found["crosses"] = [{**pair, "ranked": ["message"]}]
    assert "what crosses  left → right\nmessage       whole, with a rank" in show.room(found)
