"""Native Matrix for Hansa: a federation engine of its own, for room versions 1 to 12."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hansa import hookimpl

from hansa_matrix.admin.commands import register
from hansa_matrix.config import Config

if TYPE_CHECKING:
    from hansa import Commands, NetworkContext

    from hansa_matrix.network import MatrixNetwork

__all__ = ["Config", "api", "open_network", "register_commands"]

api = 1


@hookimpl
def open_network(ctx: NetworkContext) -> MatrixNetwork:
    """One server name."""
    from hansa_matrix.network import MatrixNetwork  # noqa: PLC0415  # its dependencies are an extra

    return MatrixNetwork(ctx)


@hookimpl
def register_commands(commands: Commands) -> None:
    """``hansa matrix ...``."""
    register(commands)
