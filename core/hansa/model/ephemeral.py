"""Actions of people that are not messages: they are passed on at once or not at all, and never stand in the
log.
"""

from __future__ import annotations

from dataclasses import dataclass

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
