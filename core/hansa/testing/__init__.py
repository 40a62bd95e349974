"""The test kit for authors of plugins: a scripted network, a running Hansa in memory, the suites of tests
that every network, policy and store must pass.

The product imports nothing of it, and importing it is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hansa.model.chat_commands import CommandSettings
    from hansa.setup import ObserverSetup, PolicySetup
    from hansa.store.memory import MemoryStore
    from hansa.testing.actor import Actor
    from hansa.testing.asking import judged, requested
    from hansa.testing.clock import ManualClock
    from hansa.testing.harness import run_hansa
    from hansa.testing.http import ScriptedHttp
    from hansa.testing.late_authority_suite import LateAuthoritySuite
    from hansa.testing.network_suite import NetworkSuite
    from hansa.testing.policy_suite import PolicySuite
    from hansa.testing.routes import registered_routes
    from hansa.testing.running_policy import RunningPolicy, run_policy
    from hansa.testing.store_suite import StoreSuite
    from hansa.testing.waiting import until

__all__ = [
    "Actor",
    "CommandSettings",
    "LateAuthoritySuite",
    "ManualClock",
    "MemoryStore",
    "NetworkSuite",
    "ObserverSetup",
    "PolicySetup",
    "PolicySuite",
    "RunningPolicy",
    "ScriptedHttp",
    "StoreSuite",
    "judged",
    "registered_routes",
    "requested",
    "run_hansa",
    "run_policy",
    "until",
]


_HOMES = {
    "Actor": "testing.actor",
    "CommandSettings": "model.chat_commands",
    "LateAuthoritySuite": "testing.late_authority_suite",
    "ManualClock": "testing.clock",
    "MemoryStore": "store.memory",
    "NetworkSuite": "testing.network_suite",
    "ObserverSetup": "setup",
    "PolicySetup": "setup",
    "PolicySuite": "testing.policy_suite",
    "RunningPolicy": "testing.running_policy",
    "ScriptedHttp": "testing.http",
    "StoreSuite": "testing.store_suite",
    "judged": "testing.asking",
    "registered_routes": "testing.routes",
    "requested": "testing.asking",
    "run_hansa": "testing.harness",
    "run_policy": "testing.running_policy",
    "until": "testing.waiting",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(f"hansa.{_HOMES[name]}"), name)
