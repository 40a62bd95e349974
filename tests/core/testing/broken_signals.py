"""Networks that are broken in signals."""

from __future__ import annotations

from hansa import PresenceState

from .wire import Wire


class Unready(Wire):
    """Knows two states."""

    async def show_presence(self, link, presence):
        _ = {PresenceState.HERE: "", PresenceState.AWAY: "away"}[presence.state]


BROKEN_SIGNALS = {Unready: "test_any_presence_is_taken"}
SIGNAL_SENTENCES = {Unready: "Take every state"}
