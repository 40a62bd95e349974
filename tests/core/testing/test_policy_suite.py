"""Each check of PolicySuite is failed by a policy that is broken in just this way, and by it alone."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import types
from typing import ClassVar, get_args

import pytest
from hansa import Action, Crossing, EventIn, EventOut, Join, Message, PeerConnect, Reason, Verdict, hookimpl
from hansa.api.hookspecs import hookimpl as marked
from hansa.environment import HttpRequest
from hansa.testing import PolicySuite
from hansa.testing.policy_samples import samples
from pydantic import BaseModel, ConfigDict

from .checks import failing, names


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    word: str


class Sound:
    """Denies a word, and asks another server about connecting servers."""

    def __init__(self, ctx):
        self.ctx = ctx

    @hookimpl
    async def check(self, crossing: Crossing) -> Verdict | None:
        said = crossing.content if isinstance(crossing, EventIn) else None
        if isinstance(said, Message) and self.ctx.config.word in said.text:
            return self.deny()
        if isinstance(crossing, PeerConnect) and crossing.server == "x.example":
            await self.ctx.http.request(HttpRequest(method="GET", host="judge", port=1, target="/"))
        return None

    def deny(self):
        return Verdict(Action.DENY, (Reason(code="WORD", policy=self.ctx.id, text="no such word"),))


def suite_of(policy, config=Config):
    module = types.ModuleType(f"policy_{policy.__name__}_{config.__name__}")
    module.api, module.Config = 1, config
    module.open_policy = hookimpl(lambda ctx: policy(ctx))
    sys.modules[module.__name__] = module

    class Suite(PolicySuite):
        plugin = module
        options: ClassVar = {"word": "hello"}
        timeout = 0.1
        observer_timeout = 0.2
        close_timeout = 0.3

    return Suite


class TestASoundPolicy(suite_of(Sound)):
    pass


class Partial(Sound):
    """Knows rooms only."""

    @marked
    async def check(self, crossing):
        crossing.link  # noqa: B018


class Nonsense(Sound):
    @marked
    async def check(self, crossing):
        return isinstance(crossing, EventOut)


class Moody(Sound):
    """Every second instance denies what the others allow."""

    made = 0

    def __init__(self, ctx):
        super().__init__(ctx)
        Moody.made += 1
        self.bad_day = ctx.id == "mine" and Moody.made % 2 == 0

    @marked
    async def check(self, crossing):
        return self.deny() if self.bad_day and isinstance(crossing, EventIn) else None


class Meddling(Sound):
    """Changes the room that it is asked about."""

    @marked
    async def check(self, crossing):
        if isinstance(crossing, EventIn):
            crossing.view._people.clear()


class FirstCome(Sound):
    """Leaves the verdict to the first instance of its kind that is asked."""

    seen = None

    @marked
    async def check(self, crossing):
        if FirstCome.seen is crossing and self.ctx.id != "mine":
            return None
        FirstCome.seen = crossing
        return self.deny() if isinstance(crossing, EventIn) else None


class Stubborn(Sound):
    """Asks again whatever happens."""

    @marked
    async def check(self, crossing):
        for _ in range(3):
            try:
                return await super().check(crossing)
            except BaseException:
                continue
        return None


class Blocking(Sound):
    @marked
    async def check(self, crossing):
        if isinstance(crossing, PeerConnect) and crossing.outbound and not crossing.server:
            time.sleep(0.4)


class Waiting(Sound):
    """Waits for an event that nobody sets."""

    @marked
    async def check(self, crossing):
        if isinstance(crossing, EventOut):
            await asyncio.Event().wait()


class Flipping(Sound):
    """Takes the second question about one crossing for a second event."""

    @marked
    async def check(self, crossing):
        known, self.known = getattr(self, "known", None), crossing
        return self.deny() if known is crossing and isinstance(crossing, Join) else None


class Curt(Sound):
    def deny(self):
        return Verdict(Action.DENY)


class Nameless(Sound):
    def deny(self):
        return Verdict(Action.DENY, (Reason(code="", policy=self.ctx.id, text="no"),))


class Secretive(Sound):
    def deny(self):
        return Verdict(Action.DENY, (Reason(code="WORD", policy=self.ctx.id),))


class Dawdling(Sound):
    """Its observer asks a server that does not answer, and everybody behind it waits."""

    @marked
    async def event_committed(self, event):
        await self.ctx.http.request(HttpRequest(method="GET", host="judge", port=1, target="/"))


class Touchy(Sound):
    """Its observer knows messages only."""

    @marked
    async def event_committed(self, event):
        event.content.text  # noqa: B018


class Leaving(Sound):
    """Starts a task behind the back of its context."""

    kept: ClassVar = []

    @marked
    async def event_committed(self, event):
        self.kept.append(asyncio.get_running_loop().create_task(asyncio.Event().wait(), name="forgotten"))


class Undying(Sound):
    """Its task swallows every cancellation."""

    def __init__(self, ctx):
        super().__init__(ctx)
        ctx.spawn(self.work(), "work")

    async def work(self):
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()


class Permissive(BaseModel):
    word: str


BROKEN = {
    Partial: "test_every_crossing_has_an_answer",
    Nonsense: "test_every_crossing_has_an_answer",
    Moody: "test_the_same_facts_have_the_same_verdicts",
    Meddling: "test_the_order_of_policies_changes_nothing",
    FirstCome: "test_the_order_of_policies_changes_nothing",
    Stubborn: "test_a_time_out_is_kept",
    Blocking: "test_a_time_out_is_kept",
    Waiting: "test_every_crossing_has_an_answer",
    Flipping: "test_a_verdict_does_not_flip",
    Curt: "test_a_denial_has_a_reason",
    Nameless: "test_a_denial_has_a_reason",
    Secretive: "test_a_denial_has_a_reason",
    Dawdling: "test_an_observer_ends",
    Touchy: "test_an_observer_ends",
    Leaving: "test_it_leaves_no_task",
    Undying: "test_it_leaves_no_task",
}

#: Parts of the sentence with which the suite says what is wrong and what to do.
SENTENCES = {
    Waiting: "hangs, although it waits for no HTTP answer",
    Flipping: "Count only crossings that have facts.act",
    Curt: "DENY without a Reason: add one with a code and a text",
    Nameless: "has no code: the log cannot name it",
    Secretive: "without a text: the user is told nothing",
    Dawdling: "Hand long work to ctx.spawn",
    Touchy: "event_committed raised AttributeError",
    Leaving: r"the policy left forgotten .* start tasks with ctx.spawn",
    Undying: "swallows the cancellation of mine: work .* Let CancelledError pass",
}


@pytest.mark.parametrize("policy", BROKEN, ids=lambda policy: policy.__name__)
async def test_a_broken_policy_fails_exactly_its_check(policy):
    assert await failing(suite_of(policy)) == {BROKEN[policy]}


@pytest.mark.parametrize("policy", SENTENCES, ids=lambda policy: policy.__name__)
async def test_a_finding_says_what_is_wrong_and_what_to_do(policy):
    with pytest.raises(AssertionError, match=SENTENCES[policy]):
        await getattr(suite_of(policy)(), BROKEN[policy])()


async def test_a_config_that_takes_any_key_fails_exactly_its_check():
    assert await failing(suite_of(Sound, Permissive)) == {"test_the_plugin_is_one_that_loads"}


def test_every_check_has_a_policy_that_fails_it():
    assert {*BROKEN.values(), "test_the_plugin_is_one_that_loads"} == set(names(PolicySuite))


def test_the_samples_hold_every_crossing():
    assert {type(one) for one in samples()} == set(get_args(Crossing))


async def test_crossings_without_a_kind_are_refused():
    class Narrow(suite_of(Sound)):
        def crossings(self):
            return [c for c in samples() if not isinstance(c, PeerConnect)]

    assert await failing(Narrow) == {"test_every_crossing_has_an_answer"}
