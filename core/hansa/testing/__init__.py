"""What authors of plugins test with: a scripted network, a running Hansa in memory, the store suite.

Nothing of it is imported by the product, and nothing heavy by importing it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Actor", "StoreSuite", "running"]


def __getattr__(name: str) -> Any:
    if name == "Actor":
        from hansa.testing.actor import Actor  # noqa: PLC0415  # lazy on purpose

        return Actor
    if name == "StoreSuite":
        from hansa.testing.store_suite import StoreSuite  # noqa: PLC0415

        return StoreSuite
    if name == "running":
        from hansa.testing.harness import running  # noqa: PLC0415

        return running
    raise AttributeError(name)
