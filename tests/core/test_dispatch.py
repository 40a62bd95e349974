"""Asking a policy: whatever goes wrong in it counts as its ``on_error``."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hansa import Action, PeerConnect, Verdict
from hansa.bus.policy_dispatch import InstalledPolicy, ask_policy


class Answers:
    def __init__(self, check):
        self.check = check


async def swallows(crossing):
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return Verdict(Action.ALLOW)


async def swallows_and_has_no_opinion(crossing):
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


@pytest.mark.parametrize("late", [swallows, swallows_and_has_no_opinion])
@pytest.mark.parametrize("on_error", [Action.DENY, Action.ALLOW])
async def test_an_answer_after_the_time_out_is_too_late(late, on_error):
    installed = InstalledPolicy(name="late", policy=Answers(late), on_error=on_error, timeout=0.01)
    answer = await ask_policy(installed, PeerConnect(network="n", server="s"))
    assert answer.failed == "no answer within 0.01 s"
    assert answer.verdict.action is on_error


async def test_a_cancellation_of_the_asker_is_no_answer():
    async def forever(crossing):
        await asyncio.Event().wait()

    installed = InstalledPolicy(name="slow", policy=Answers(forever), timeout=60)
    asking = asyncio.ensure_future(ask_policy(installed, PeerConnect(network="n", server="s")))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
