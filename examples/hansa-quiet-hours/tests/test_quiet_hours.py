"""Quiet hours keep the contract of policies, and are quiet."""

from __future__ import annotations

import datetime as dt
from typing import ClassVar

import hansa_quiet_hours
import pytest
from hansa.testing import Actor, ManualClock, PolicySetup, PolicySuite, run_hansa
from hansa.testing.actor import Config as ActorConfig
from hansa.testing.actor import module

EVENING = round(dt.datetime(2026, 3, 1, 21, 59, tzinfo=dt.UTC).timestamp() * 1000)


class TestByNight(PolicySuite):
    plugin = hansa_quiet_hours
    now = EVENING + 60_000


class TestByDay(PolicySuite):
    plugin = hansa_quiet_hours
    options: ClassVar = {"begins": "01:00", "ends": "02:00", "grace": 0}
    now = EVENING


async def test_nothing_new_is_said_at_night_but_what_was_begun_is_finished():
    clock, made = ManualClock(EVENING), dict[str, Actor]()
    options = hansa_quiet_hours.Config(grace=120)
    policy = PolicySetup(name="night", module=hansa_quiet_hours, options=options)
    plugin = module(made)
    networks = {name: (plugin, ActorConfig()) for name in ("left", "right")}
    async with run_hansa(networks, rooms=[("left:a", "right:b")], policies=[policy], clock=clock) as app:

        async def says(text):
            return (await made["left"].say("a", "ann@x", text)).refusal

        assert await says("good evening") is None
        await made["right"].until("b", 1)
        clock.advance(119)
        assert await says("it is past ten") is None
        await made["right"].until("b", 2)
        clock.advance(121)
        refusal = await says("is anybody awake?")
        assert refusal is not None
        assert "it is quiet here from 22:00 to 07:00 UTC" in refusal.text
        await app.reload_policies([policy])
        history = await made["right"].ctx.read_history("b", limit=5)
        assert len(history) == 2, "what was said by day may be read at night"
        clock.advance(9 * 3600)
        assert await says("good morning") is None


@pytest.mark.parametrize(
    ("begins", "ends", "quiet", "loud"),
    [
        ("22:00", "07:00", ["22:00", "00:00", "06:59"], ["07:00", "21:59"]),
        ("01:00", "02:00", ["01:00"], ["02:00"]),
    ],
)
def test_the_night_may_pass_midnight(begins, ends, quiet, loud):
    class Context:
        id = "night"
        config = hansa_quiet_hours.Config(begins=begins, ends=ends)

    policy = hansa_quiet_hours.QuietHours(Context())
    assert all(policy.night(dt.time.fromisoformat(at)) for at in quiet)
    assert not any(policy.night(dt.time.fromisoformat(at)) for at in loud)
