"""Actions of people that are not messages: they are passed on at once or not at all, and never stand in the
log.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from hansa.model.events import Event
from hansa.model.ref import NativeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Typing:
    """A person began or ceased to write. The last one of a person counts."""

    user: NativeId
    typing: bool
    kind = "typing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A person has read up to an event, in one thread (empty: in the room). ``ts`` is in ms."""

    user: NativeId
    event: Event
    ts: int
    thread: str = ""
    kind = "receipt"


EphemeralEvent = Typing | Receipt

#: Characters of the text of a presence.
MAX_PRESENCE_TEXT: Final = 255


class PresenceState(StrEnum):
    """The states of a person: ``here``, ``away`` for a while, ``busy`` so that nobody should disturb them,
    and ``offline``. A person who is offline stays a member of their rooms.
    """

    HERE = "here"
    AWAY = "away"
    BUSY = "busy"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonPresence:
    """A person is here, away, busy or offline, with a text of their own. ``since`` is when that began, in ms
    since 1970, as the person's network says it, and 0 where that is not known. The last one of a person in a
    room counts.

    The core passes on a ``text`` of one line and of 255 characters at most: control characters and line ends
    become spaces, and what is longer ends with an ellipsis.
    """

    user: NativeId
    state: PresenceState
    text: str = ""
    since: int = 0
    kind = "presence"


def with_bounded_text(presence: PersonPresence) -> PersonPresence:
    """Returns a presence whose text is one line of at most 255 characters."""
    start = presence.text[: 4 * MAX_PRESENCE_TEXT]
    line = "".join(" " if unicodedata.category(char) in _NO_TEXT else char for char in start)
    text = " ".join(line.split())
    if len(text) > MAX_PRESENCE_TEXT or len(start) < len(presence.text):
        text = text[: MAX_PRESENCE_TEXT - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
    return presence if text == presence.text else replace(presence, text=text)


#: The Unicode categories of control characters, surrogates, and ends of lines and paragraphs.
_NO_TEXT: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
