"""The interface of a network that has the history of a room from before its link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hansa.model.content import Content
from hansa.model.events import Link
from hansa.model.ref import NativeId


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierEvent:
    """An event of a native room that is not in the log. ``native`` is its id, of 180 bytes at most, ``ts``
    its time in ms as its sender claims, ``visibility`` the history visibility of the room at it. The events
    that ``content`` names are named by native ids. ``target_sender`` is the sender of the message that an
    edit changes: None, where this message is not here or says nothing any more.
    """

    native: str
    sender: NativeId
    content: Content
    ts: int
    visibility: str
    target_sender: NativeId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierPage:
    """Earlier events in order. ``before`` is where to go on, of 180 bytes at most: None where the room
    begins, and what was given where the part before it cannot be had now.
    """

    events: Sequence[EarlierEvent] = ()
    before: str | None = None


@runtime_checkable
class FetchesHistory(Protocol):
    """A network that has, or can get, what was said in a native room before the room was linked. The core
    keeps nothing of it: what the network redacts later is gone at the next read.
    """

    async def fetch_before(
        self, link: Link, before: str, *, limit: int, ask_others: bool
    ) -> EarlierPage | None:
        """The last ``limit`` events before a place: that of the link if ``before`` is empty, else of a native
        id that was given, or of ``EarlierPage.before``; None for a place that is not known. The same place
        gives the same events. Without ``ask_others`` only what is here is given, at once; else other servers
        may be asked, for 15 s.
        """
        ...
