"""What authors of plugins test with: a scripted network, a running Hansa in memory, the suites of tests that
every network, policy and store must pass.

Nothing of it is imported by the product, and nothing heavy by importing it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hansa.testing.actor import Actor
    from hansa.testing.clock import ManualClock
    from hansa.testing.harness import running
    from hansa.testing.network_suite import NetworkSuite
    from hansa.testing.policy_suite import PolicySuite
    from hansa.testing.store_suite import StoreSuite

__all__ = ["Actor", "ManualClock", "NetworkSuite", "PolicySuite", "StoreSuite", "running"]


_HOMES = {
    "Actor": "actor",
    "ManualClock": "clock",
    "NetworkSuite": "network_suite",
    "PolicySuite": "policy_suite",
    "StoreSuite": "store_suite",
    "running": "harness",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(f"hansa.testing.{_HOMES[name]}"), name)
