"""The replacement for content that a network cannot carry."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core.vocabulary import ANN, SAMPLES
from hansa import (
    Custom,
    Features,
    Kind,
    Level,
    Member,
    Membership,
    Message,
    Style,
)
from hansa.model.features import degrade
from hansa.testing import run_hansa
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
