"""The tests that every policy must pass. Subclass ``PolicySuite`` and name the plugin's module and its
options.

A policy gets a clock that stands still, and an HTTP client to which no server ever answers. A finding says
what is wrong, and what the author does about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from types import ModuleType
from typing import Any, Never, get_args

import pytest
from pydantic import ValidationError

from hansa.api.contracts import Policy
from hansa.api.hookspecs import hookimpl
from hansa.bus.policy_dispatch import InstalledPolicy, PolicyAnswer, ask_policy
from hansa.environment import HttpRequest
from hansa.host.plugin_checks import check_module
from hansa.model.crossing import (
    Crossing,
    EventIn,
    EventOut,
)
from hansa.model.events import Event
from hansa.model.verdict import Action, Verdict, strictest
from hansa.setup import PolicySetup
from hansa.testing.clock import ManualClock
from hansa.testing.harness import run_hansa
from hansa.testing.http import BufferedHttp
from hansa.testing.policy_samples import sample_event, sample_people, samples
from hansa.testing.task_watch import describe_tasks, end_tasks, finish_within, leaked_tasks


class SilentHttp(BufferedHttp):
    """An ``Http`` on which no answer ever comes. ``asked`` counts the questions."""

    def __init__(self) -> None:
        self.asked = 0

    async def request(self, request: HttpRequest) -> Never:
        """See ``Http.request``."""
        del request
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError

    async def srv(self, name: str) -> Never:
        """See ``Http.srv``."""
        del name
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError


class _Numbers:
    """Randomness that every instance sees alike."""

    def __init__(self) -> None:
        self._next = 0

    def bytes(self, count: int) -> bytes:
        """See ``Random.bytes``."""
        self._next += 1
        return self._next.to_bytes(8, "big").rjust(count, b"\0")[-count:]

    def uniform(self) -> float:
        """See ``Random.uniform``."""
        self._next = (self._next * 1103515245 + 12345) % 2**31
        return self._next / 2**31


class _CountsPeople:
    """A policy that denies by the view of the room: a change of the view changes its verdict."""

    @hookimpl
    async def check(self, crossing: Crossing) -> Verdict | None:
        """See ``hansa.Policy.check``."""
        if isinstance(crossing, EventIn | EventOut) and len(crossing.view.people) == len(sample_people()):
            return Verdict(Action.DENY)
        return None


@pytest.mark.asyncio
class PolicySuite:
    """The contract of ``hansa.Policy`` as tests."""

    #: The plugin's module, as the entry point names it.
    plugin: ModuleType
    #: Its table without ``plugin``: what ``plugin.Config`` is validated from.
    options: dict[str, Any] = {}  # noqa: RUF012  # read only; pydantic makes its own copy
    #: The wall clock of the tests, in ms since 1970.
    now = 1_700_000_000_000
    #: Seconds that a policy is given here before its ``on_error`` counts.
    timeout = 0.2
    #: Seconds that ``event_committed`` may take.
    observer_timeout = 1.0
    #: Seconds that the end of the policy may take.
    close_timeout = 2.0

    def crossings(self) -> list[Crossing]:
        """Returns the crossings that are asked about. Add those that your policy is about; each call makes
        new ones.
        """
        return samples()

    def events(self) -> list[Event]:
        """Returns the events that ``event_committed`` is shown. Add those that your observer is about."""
        found: list[Event] = []
        for crossing in samples():
            if isinstance(crossing, EventIn) and crossing.facts.size:
                found.append(sample_event(crossing, len(found) + 1, self.now))
        return found

    @asynccontextmanager
    async def opened(self, *names: str) -> AsyncIterator[list[InstalledPolicy]]:
        """Fresh instances under these names."""
        setups = [
            PolicySetup(name=name, module=self.plugin, options=self._make_config(), timeout=self.timeout)
            for name in names
        ]
        self.http = SilentHttp()
        #: The tasks of the policy that swallowed their cancellation at its end.
        self.stubborn: list[asyncio.Task[Any]] = []
        before = asyncio.all_tasks()
        running = run_hansa(
            {}, policies=setups, clock=ManualClock(self.now), random=_Numbers(), http=self.http
        )
        app = await running.__aenter__()  # its end is bounded below, which ``async with`` cannot do
        try:
            yield list(app.decisions.policies)
        finally:
            ending = running.__aexit__(None, None, None)
            self.stubborn = await finish_within(ending, self.close_timeout, before)

    def _make_config(self) -> Any:
        return self.plugin.Config.model_validate(self.options)

    async def _ask_about_all(self) -> list[Verdict]:
        async with self.opened("mine") as installed:
            return [
                (await self._ask_installed(installed[0], crossing)).verdict for crossing in self.crossings()
            ]

    async def _ask_installed(self, installed: InstalledPolicy, crossing: Crossing) -> PolicyAnswer:
        """Returns the answer of a policy, even of one that cannot be stopped, which one test is about."""
        asking = asyncio.ensure_future(ask_policy(installed, crossing))
        await asyncio.wait({asking}, timeout=self.timeout * 3)
        if not asking.done():
            await end_tasks([asking])
            failed = f"no answer within {self.timeout:g} s, nor after its cancellation"
            verdict = Verdict(installed.on_error)
            return PolicyAnswer(name=installed.name, verdict=verdict, shadow=False, failed=failed)
        return asking.result()

    async def _merge_answers(self, asked: Sequence[InstalledPolicy], crossing: Crossing) -> Verdict:
        before = deepcopy(crossing)
        merged = strictest([(await self._ask_installed(installed, crossing)).verdict for installed in asked])
        assert crossing == before, "a policy changed what it was asked about"
        return merged

    async def test_the_plugin_is_one_that_loads(self) -> None:
        """It says ``api``, and its Config refuses a key that it does not know."""
        check_module("mine", self.plugin)
        with pytest.raises(ValidationError, match="extra_forbidden"):
            self.plugin.Config.model_validate({**self.options, "no_such_setting": 1})

    async def test_every_crossing_has_an_answer(self) -> None:
        """Of each member of the union; a Verdict or None, and nothing is raised."""
        crossings = self.crossings()
        missing = set(get_args(Crossing)) - {type(crossing) for crossing in crossings}
        assert not missing, f"crossings() lacks {missing}"
        async with self.opened("mine") as installed:
            for crossing in crossings:
                asked = self.http.asked
                answer = await self._ask_installed(installed[0], crossing)
                if self.http.asked > asked and "no answer within" in answer.failed:
                    continue  # the way out is silent here
                assert "no answer within" not in answer.failed, (
                    f"{crossing}: the policy hangs, although it waits for no HTTP answer: "
                    "check may wait for nothing that never comes, such as a lock or an event"
                )
                assert not answer.failed, f"{crossing}: {answer.failed}"

    async def test_the_same_facts_have_the_same_verdicts(self) -> None:
        """Two instances that are asked the same in the same order say the same."""
        assert await self._ask_about_all() == await self._ask_about_all()

    async def test_a_verdict_does_not_flip(self) -> None:
        """The same crossing again has the same verdict, while nothing happens and no time passes. Crossings
        of an act (``facts.act``) are left out: a rate counts them.
        """
        async with self.opened("mine") as installed:
            for crossing in self.crossings():
                if getattr(getattr(crossing, "facts", None), "act", ""):
                    continue
                said = [(await self._ask_installed(installed[0], crossing)).verdict.action for _ in range(3)]
                if said.count(said[0]) != len(said):
                    text = ", ".join(action.name for action in said)
                    raise AssertionError(
                        f"{crossing}: the policy said {text} about the same crossing. The core asks again "
                        "before each delivery, so a verdict follows from the crossing, the clock and what "
                        "was observed. Count only crossings that have facts.act"
                    )

    async def test_a_denial_has_a_reason(self) -> None:
        """A verdict that is not ALLOW says why: a code for operators, and a text for the user."""
        async with self.opened("mine") as installed:
            for crossing in self.crossings():
                answer = await self._ask_installed(installed[0], crossing)
                verdict = answer.verdict
                if answer.failed or verdict.action is Action.ALLOW:
                    continue
                said = f"{crossing}: the policy says {verdict.action.name}"
                assert verdict.reasons, f"{said} without a Reason: add one with a code and a text"
                for reason in verdict.reasons:
                    assert reason.code, f"{said} with a Reason that has no code: the log cannot name it"
                    assert reason.text, f"{said} ({reason.code}) without a text: the user is told nothing"

    async def test_an_observer_ends(self) -> None:
        """``event_committed`` takes every kind of event and returns, or the events behind it wait. HTTP does
        not answer meanwhile.
        """
        async with self.opened("mine") as installed:
            observer: Any = getattr(installed[0].policy, "event_committed", None)
            if observer is None:
                pytest.skip("this policy observes nothing")
            for event in self.events():
                watching = asyncio.ensure_future(observer(event=event))
                done, _ = await asyncio.wait({watching}, timeout=self.observer_timeout)
                if not done:
                    await end_tasks([watching])
                    raise AssertionError(
                        f"event_committed hangs at {event.content}: it took longer than "
                        f"{self.observer_timeout:g} s. Hand long work to ctx.spawn, with a time-out"
                    )
                error = watching.exception()
                assert error is None, f"event_committed raised {error!r} for {event.content}"

    async def test_it_leaves_no_task(self) -> None:
        """After its end none of its tasks runs: those of ``ctx.spawn`` end when they are cancelled, and no
        others are begun.
        """
        before = asyncio.all_tasks()
        async with self.opened("mine") as installed:
            for crossing in self.crossings():
                await self._ask_installed(installed[0], crossing)
            observer: Any = getattr(installed[0].policy, "event_committed", None)
            for event in self.events() if observer is not None else ():
                watching = asyncio.ensure_future(observer(event=event))
                await asyncio.wait({watching}, timeout=self.observer_timeout)
                await end_tasks([watching])
        left = leaked_tasks(before)
        await end_tasks(left)
        assert not self.stubborn, (
            f"the policy swallows the cancellation of {describe_tasks(self.stubborn)}: it never ends. "
            "Let CancelledError pass"
        )
        assert not left, (
            f"the policy left {describe_tasks(left)} running: start tasks with ctx.spawn, which ends them"
        )

    async def test_the_order_of_policies_changes_nothing(self) -> None:
        """Asked before or after others, the merged verdict is the same; nobody changes what is asked."""
        merged: list[list[Verdict]] = []
        for reverse in (False, True):
            async with self.opened("first", "second") as installed:
                witness: Policy = _CountsPeople()
                asked = [*installed, InstalledPolicy(name="witness", policy=witness)]
                if reverse:
                    asked.reverse()
                merged.append([await self._merge_answers(asked, crossing) for crossing in self.crossings()])
        assert merged[0] == merged[1]

    async def test_a_time_out_is_kept(self) -> None:
        """When nobody answers the policy, it ends within its time-out, and its ``on_error`` counts."""
        async with self.opened("mine") as installed:
            for crossing in self.crossings():
                asking = asyncio.ensure_future(ask_policy(installed[0], crossing))
                began = asyncio.get_running_loop().time()
                done, _ = await asyncio.wait({asking}, timeout=self.timeout * 3)
                took = asyncio.get_running_loop().time() - began
                await end_tasks([asking])
                assert done, f"{crossing}: it goes on after its time-out"
                assert took < self.timeout * 3, f"{crossing}: it kept everybody waiting for {took:.1f} s"
