"""Messages that another gateway says again. Without this, two gateways between the same two rooms would
answer each other for ever. Gateways do not mark what they repeat: a nick and a text within a minute are all
that is known. Pure.
"""

from __future__ import annotations

import re

from hansa import LruCache

#: Seconds within which a repeated message is an echo, and messages that are remembered.
ECHO_S, _MAX_MESSAGES = 60.0, 5000
#: A message that a gateway says for a person: their name, and what they said.
_FOR_A_PERSON = re.compile(r"(?:<([^<>]{1,64})>|\* (\S{1,64})) (.*)", re.DOTALL)
#: The end that makes a nick another one where the first is in use.
_SUFFIX = re.compile(r"(?:[_-]\d*| \([^()]*\))$")


class ForeignEchoes:
    """The messages of all rooms in the last minute. Times are in seconds."""

    def __init__(self) -> None:
        self._sent: LruCache[tuple[str, str, str], float] = LruCache(_MAX_MESSAGES)
        self._heard: LruCache[tuple[str, str, str], float] = LruCache(_MAX_MESSAGES)

    def note_sent(self, room: str, name: str, text: str, now: float) -> None:
        """We say ``text`` in a room for a person of a name."""
        self._sent.put((room, _base(name), text), now)

    def is_echo_of_sent(self, room: str, nick: str, text: str, now: float) -> bool:
        """True if an occupant says again what we said. Any other message is remembered."""
        keys = [(room, _base(nick), text)]
        if match := _FOR_A_PERSON.fullmatch(text):
            keys.append((room, _base(match[1] or match[2]), match[3]))
        if any(now - (self._sent.get(key) or -ECHO_S) < ECHO_S for key in keys):
            return True
        for key in keys:
            self._heard.put(key, now)
        return False

    def is_echo_of_heard(self, room: str, name: str, text: str, now: float) -> bool:
        """True if a person of another network, by a gateway, says what an occupant of the same name said."""
        return now - (self._heard.get((room, _base(name), text)) or -ECHO_S) < ECHO_S


def _base(nick: str) -> str:
    return _SUFFIX.sub("", nick.casefold())
