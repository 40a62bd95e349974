"""The policies of a configuration: opened together, and closed together when others take their place."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from hansa.api.contracts import Policy
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.host import loader
from hansa.host.plugin_contexts import BaseContext
from hansa.model.errors import PluginError
from hansa.pacing.store_retry import Work

if TYPE_CHECKING:
    from hansa.host.plugin_host import PluginHost
    from hansa.setup import PolicySetup


class PolicyContext(BaseContext):
    """The context of a policy or an observer: see ``hansa.PluginContext``. Its rows are apart from those of
    any network.
    """

    def __init__(self, app: PluginHost, name: str, config: Any, *, table: str = "policy") -> None:
        super().__init__(app, name, config, scope=f"{table}:{name}")
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Work, name: str) -> asyncio.Task[None]:
        """See ``hansa.PluginContext.spawn``."""
        task = super().spawn(work, name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End everything that it spawned."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Policies:
    """One opened set."""

    def __init__(self) -> None:
        self.installed: tuple[InstalledPolicy, ...] = ()
        self._manager = loader.new_manager()
        self._contexts: list[PolicyContext] = []

    async def open(self, app: PluginHost, setups: Sequence[PolicySetup]) -> None:
        """Open all, or none: what raises leaves nothing running. Raises PluginError."""
        try:
            opened = [await self._open_policy(app, setup) for setup in setups]
        except BaseException:
            await self.close()
            raise
        self.installed = tuple(opened)

    async def _open_policy(self, app: PluginHost, setup: PolicySetup) -> InstalledPolicy:
        context = PolicyContext(app, setup.name, setup.options)
        self._contexts.append(context)
        policy = loader.open_plugin(self._manager, "open_policy", setup.module, context)
        if not isinstance(policy, Policy):
            raise PluginError(f"policy {setup.name!r} has no check()")
        loader.register(self._manager, policy, f"policy:{setup.name}")
        for schema in context.schemas:
            await context.store.declare(schema)
        return InstalledPolicy(
            name=setup.name,
            policy=policy,
            on_error=setup.on_error,
            shadow=setup.shadow,
            timeout=setup.timeout,
        )

    def observers(self, hook: str) -> list[tuple[str, Callable[..., Awaitable[Any]]]]:
        """Returns the implementations of an observers' hook, each with the name of its plugin."""
        return loader.hook_implementations(self._manager, hook)

    async def close(self) -> None:
        """End everything that they spawned."""
        for context in self._contexts:
            await context.close()


def digest_of(setups: Sequence[PolicySetup]) -> str:
    """Returns the digest of a configuration of policies; empty for no policies. The digest does not reveal
    the configuration.
    """
    if not setups:
        return ""
    said = sorted(
        repr((s.name, s.module.__name__, _options_text(s.options), s.on_error.name, s.shadow)) for s in setups
    )
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


def _options_text(options: Any) -> str:
    dump = getattr(options, "model_dump_json", None)
    return str(dump()) if dump is not None else repr(options)
