"""The media service of the core, ``ctx.media``, and the contract of a network that keeps files itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hansa.model.content import Attachment
from hansa.model.errors import HansaError
from hansa.model.events import Refusal
from hansa.model.ref import NativeId


class MediaUnavailable(HansaError):  # an answer
    """A file cannot be stored, opened or fetched: ``refusal`` says why, in every network's terms."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaStream:
    """A file that is open. ``size`` is that of the whole file in bytes, 0 where it is not known; ``first`` is
    the position of the first byte that ``chunks`` gives. Close ``chunks`` at the end
    (``contextlib.aclosing``).
    """

    media_type: str
    name: str
    size: int
    chunks: AsyncGenerator[bytes]
    first: int = 0


class MediaService(Protocol):
    """Files for all networks: ``ctx.media``. A file is never in memory as a whole. Every method that can fail
    raises ``MediaUnavailable``.
    """

    async def store(
        self,
        chunks: AsyncIterator[bytes],
        *,
        name: str = "",
        media_type: str = "",
        sender: str = "",
        size: int = 0,
    ) -> Attachment:
        """Stores a file of ``sender``, a person of this network (empty: the network itself), whose quota it
        counts against. ``media_type`` is a claim that the file's first bytes can refute; ``size`` in bytes is
        0 where it is not known before. A file that no event names after 24 hours is deleted.
        """
        ...

    async def open(self, attachment: Attachment, *, first: int = 0, last: int | None = None) -> MediaStream:
        """Opens a file of any network for the people of this one, from the byte at ``first`` on, up to the
        one at ``last`` inclusively. The policies are asked (``MediaTransfer``).
        """
        ...

    def link(self, attachment: Attachment, native_room: str, event_id: str) -> str:
        """A URL that people of a native room of this network can open without an account, for as long as the
        operator set, and as long as the event is there for them. ``event_id`` is the core's; the attachment
        is one of the event's. Empty where the file has no source, or where no public address is known.
        """
        ...

    def name_source(self, source: NativeId) -> str:
        """A name of letters, digits, ``-`` and ``_`` for a file of any network, which only this server can
        make: for a network whose messages name files by ids of its own. The same file has the same name for
        ever. At most 240 characters; empty for an id that is too long for that.
        """
        ...

    def find_source(self, name: str) -> NativeId | None:
        """The file that ``name_source`` gave a name, None for any other name."""
        ...

    async def fetch(self, url: str, *, sender: str = "", name: str = "") -> Attachment:
        """Fetches and stores what is at an http or https URL, for ``sender``, a person of this network. Only
        public addresses are connected to; redirects are followed three times.
        """
        ...


@runtime_checkable
class KeepsMedia(Protocol):
    """A network that keeps files under ids of its own, or can fetch them."""

    async def open_media(self, media: str, *, first: int = 0, last: int | None = None) -> MediaStream:
        """Opens the file with an id of this network, from the byte at ``first`` on, up to the one at ``last``
        inclusively. Raises ``MediaUnavailable``. The core asks the policies, and gives up after 60 seconds.
        """
        ...
