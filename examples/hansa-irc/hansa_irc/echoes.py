"""Lines that come back: another bridge in the channel has said again what was said there, or what this one
said. Without this, two bridges between the same two rooms would answer each other for ever. Pure.
"""

from __future__ import annotations

import re

from hansa import LruCache

#: Seconds within which a repeated line is an echo, and lines that are remembered.
_ECHO_S = 60.0
_MAX_LINES = 5000
#: A line that a bridge says for a person: their name, and what they said.
_FOR_A_PERSON = re.compile(r"(?:<([^<>]{1,64})>|\* (\S{1,64})) (.*)", re.DOTALL)
#: The end that makes a nick another one where the first is in use.
_SUFFIX = re.compile(r"_[0-9]*$")


class Echoes:
    """The lines of all channels in the last minute. Times are in seconds."""

    def __init__(self) -> None:
        #: When a line was said, by its channel, its speaker, and its text: a nick; ``=`` and
        #: the beginning of a puppet's; empty for the bridge itself.
        self._lines: LruCache[tuple[str, str, str], float] = LruCache(_MAX_LINES)

    def say(self, channel: str, puppet: str, text: str, now: float) -> None:
        """The bridge says a line, by a puppet's nick or, where that is empty, by its own."""
        self._lines.put((channel, f"={_base(puppet)}" if puppet else "", text), now)

    def is_echo(self, channel: str, nick: str, text: str, now: float) -> bool:
        """True if a line that is heard is an echo; any other is remembered."""
        keys = [(channel, "", text), (channel, f"={_base(nick)}", text)]
        if match := _FOR_A_PERSON.fullmatch(text):
            keys.append((channel, (match[1] or match[2]).lower(), match[3]))
        if any(self._is_recent(key, now) for key in keys):
            return True
        self._lines.put((channel, nick.lower(), text), now)
        return False

    def _is_recent(self, key: tuple[str, str, str], now: float) -> bool:
        said = self._lines.get(key)
        return said is not None and now - said < _ECHO_S


def _base(nick: str) -> str:
    return _SUFFIX.sub("", nick.lower())
