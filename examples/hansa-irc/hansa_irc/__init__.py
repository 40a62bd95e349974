"""A network for Hansa: channels of an IRC server."""

from __future__ import annotations

from hansa import NetworkContext, hookimpl

from hansa_irc.config import Config
from hansa_irc.network import Irc

api = 1

__all__ = ["Config", "api", "open_network"]


@hookimpl
def open_network(ctx: NetworkContext) -> Irc:
    """One ``[networks.<id>]`` table with ``plugin = "irc"``."""
    return Irc(ctx)
