"""Governance for Hansa: which users and servers may talk to each other, and what may cross. Deny always
overrides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hansa import hookimpl

from hansa_governance.config import Config

if TYPE_CHECKING:
    from hansa import PluginContext

    from hansa_governance.policy import GovernancePolicy

__all__ = ["Config", "api", "open_policy"]

api = 1


@hookimpl
def open_policy(ctx: PluginContext) -> GovernancePolicy:
    """One ``[policies.<name>]`` table."""
    from hansa_governance.policy import GovernancePolicy  # noqa: PLC0415  # only an enabled plugin is loaded

    return GovernancePolicy(ctx.config, ctx.id, ctx.clock)
