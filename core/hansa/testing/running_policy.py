"""One policy in a running Hansa, for the tests of its author: with a clock and HTTP of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from hansa.app import App
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.environment import Clock, Http, Random
from hansa.model.crossing import Crossing
from hansa.model.events import Event
from hansa.model.verdict import Verdict
from hansa.setup import PolicySetup
from hansa.store.base import Store
from hansa.testing.harness import run_hansa

#: Seconds that the core waits for an observer.
OBSERVER_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class RunningPolicy:
    """A policy that runs. ``policy`` is the object that ``open_policy`` returned."""

    app: App
    installed: InstalledPolicy

    @property
    def policy(self) -> Any:
        """The plugin's own object."""
        return self.installed.policy

    async def judge(self, crossing: Crossing) -> Verdict:
        """Returns the verdict about a crossing, as the core asks for it: under the policy's time-out, and
        with its ``on_error`` where it fails.
        """
        return await self.app.decisions.judge_and_store(crossing)

    async def observe(self, event: Event) -> None:
        """Calls the policy's ``event_committed``, if it has one. Raises what it raises, and TimeoutError
        where it takes longer than the core waits for an observer.
        """
        observer = getattr(self.policy, "event_committed", None)
        if observer is not None:
            async with asyncio.timeout(OBSERVER_TIMEOUT_S):
                await observer(event=event)


@asynccontextmanager
async def run_policy(
    plugin: ModuleType,
    options: Mapping[str, Any] | None = None,
    *,
    name: str = "tested",
    timeout: float = 1.0,  # noqa: ASYNC109  # the policy's own, in its setup
    clock: Clock | None = None,
    random: Random | None = None,
    http: Http | None = None,
    store: Store | None = None,
) -> AsyncIterator[RunningPolicy]:
    """Runs a policy alone. ``options`` is its table without ``plugin``; ``timeout`` is in seconds. ``clock``,
    ``random``, ``http`` and ``store`` are the ones of ``run_hansa``.
    """
    config = plugin.Config.model_validate(dict(options or {}))
    setup = PolicySetup(name=name, module=plugin, options=config, timeout=timeout)
    running = run_hansa({}, policies=[setup], clock=clock, random=random, http=http, store=store)
    async with running as app:
        yield RunningPolicy(app, app.decisions.policies[0])
