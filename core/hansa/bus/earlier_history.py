"""What was said in a native room before it was linked, from the network that has it.

Nothing of it is kept: the network that has it also knows what was redacted since. See ADR 32.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Collection
from dataclasses import replace
from typing import Protocol

from hansa.api.contracts import Network
from hansa.api.history import EarlierEvent, EarlierPage, FetchesHistory
from hansa.bus.membership_reader import MembershipLog
from hansa.bus.rejudging import PolicyRecheck
from hansa.bus.rooms import Room
from hansa.model.content import Content, Edit, Membership, Message, Reaction, Targeted
from hansa.model.errors import Busy
from hansa.model.events import EarlierHistory, Event, Link
from hansa.model.ref import NativeId
from hansa.pacing.fair_slots import FairSlots, SlotShares

#: Events of one answer, and bytes of a native id.
MAX_EARLIER, MAX_NATIVE = 100, 180
#: Seconds for a network to answer, its wait for a slot included.
_FETCH_TIMEOUT_S = 20.0
#: Answers that are waited for at the same time: the people of a server, and the readers of a room, have a
#: share, so that slow rooms and their readers hold up no others.
_SLOTS = SlotShares(in_all=16, each={"server": 4, "room": 2}, waiting=32)
#: The last time of the year 9999, which every protocol can write (ms).
_MAX_TIME = 253_402_300_799_999
_MARK = "~"
_UNJUDGED = -1
_log = logging.getLogger("hansa.bus")


class EarlierHistoryHost(Protocol):
    """The parts of the running application that reading uses."""

    def network(self, network: str) -> Network | None:
        """The open network of an id."""
        ...

    def server_of(self, network: str, user: str) -> str:
        """The server of a user, by the network's own rule."""
        ...

    def is_command(self, sender: NativeId, content: Content) -> bool:
        """See ``hansa.bus.admission.NetworkLookup.is_command``."""
        ...


class EarlierHistoryReader:
    """Reads it for persons, judged by the history visibility of then and the policies of now. Commands to the
    bridge are left out, as they are confined in the log.
    """

    def __init__(self, around: EarlierHistoryHost, log: MembershipLog, rejudging: PolicyRecheck) -> None:
        self._around = around
        self._log = log
        self._rejudging = rejudging
        self._slots = FairSlots(_SLOTS)

    async def read(
        self, room: Room, link: Link, user: NativeId, before: str, *, limit: int, ask_others: bool
    ) -> EarlierHistory | None:
        """See ``hansa.NetworkContext.read_earlier_for``."""
        place = decode_place(before)
        if place is None:
            return None
        found = self._source(room, link)
        if found is None or not link.direction.outward:
            return None if place else EarlierHistory()
        source, network = found
        limit = max(1, min(limit, MAX_EARLIER))
        page = await self._fetch(source, network, user, place, limit, ask_others=ask_others)
        if page is None:
            return None
        memberships = await self._log.memberships(room, user)
        was_here = memberships.has_later(0, Membership.JOIN.value)
        events, commands = list[Event](), set[str]()
        for earlier in page.events[-limit:]:
            if self._is_about_command(earlier, commands):
                commands.add(earlier.native)
                continue
            public = earlier.visibility == "world_readable"
            if not public and not (was_here and earlier.visibility == "shared"):
                continue
            if isinstance(earlier.content, Edit) and earlier.target_sender != earlier.sender:
                continue  # nobody speaks for another, and nobody corrects what is gone
            event = _event_of(room, source, earlier)
            if event is not None and await self._rejudging.passes(room, link, event):
                events.append(event)
        return EarlierHistory(
            events=tuple(events), before=None if page.before is None else encode_place(page.before)
        )

    def _is_about_command(self, earlier: EarlierEvent, commands: Collection[str]) -> bool:
        """True for a command, and for what concerns one of ``commands``."""
        content = earlier.content
        said = content.message if isinstance(content, Edit) else content
        if isinstance(content, Targeted) and content.target in commands:
            return True
        try:
            return self._around.is_command(earlier.sender, said)
        except Busy:  # nothing says so while the network is started again
            return isinstance(said, Message)

    def _source(self, room: Room, link: Link) -> tuple[Link, FetchesHistory] | None:
        """The network that has what was said before: the room's authority, or else the first of the others
        that can tell. The reader's own is never asked.
        """
        links = sorted(room.links.values(), key=lambda one: (not one.authority, one.id))
        for source in links:
            network = self._around.network(source.native.network)
            own = source.native.network == link.native.network
            if isinstance(network, FetchesHistory) and not own and source.direction.inward:
                return source, network
        return None

    async def _fetch(
        self,
        source: Link,
        network: FetchesHistory,
        user: NativeId,
        place: str,
        limit: int,
        *,
        ask_others: bool,
    ) -> EarlierPage | None:
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT_S):
                if not ask_others:
                    return await network.fetch_before(source, place, limit=limit, ask_others=False)
                server = f"{user.network} {self._around.server_of(user.network, user.id)}"
                async with self._slots.hold_slot(("server", server), ("room", source.room)):
                    return await network.fetch_before(source, place, limit=limit, ask_others=True)
        except Exception:  # noqa: BLE001  # a faulty network must not hide the log
            _log.warning("what was said before %s was linked cannot be read now", source.id, exc_info=True)
            return EarlierPage(before=place)


def encode_place(native: str) -> str:
    """The id of an earlier event, or of another place before the log; empty for the place of the link."""
    if not native:
        return ""
    return _MARK + urlsafe_b64encode(native.encode()).decode().rstrip("=")


def decode_place(place: str) -> str | None:
    """The native id in a place; None for what ``encode_place`` never writes."""
    text = place.removeprefix(_MARK)
    try:
        native = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (Base64Error, ValueError):
        return None
    return native if len(native.encode()) <= MAX_NATIVE and encode_place(native) == place else None


def _event_of(room: Room, source: Link, earlier: EarlierEvent) -> Event | None:
    """The event as networks show it; None where its id is too long."""
    if len(earlier.native.encode(errors="surrogatepass")) > MAX_NATIVE:
        return None
    return Event(
        id=encode_place(earlier.native),
        room=room.id,
        seq=0,
        origin=NativeId(source.native.network, earlier.native),
        sender=earlier.sender,
        content=_with_places(earlier.content),
        ts=earlier.ts,
        received=min(max(earlier.ts, 0), _MAX_TIME),
        generation=_UNJUDGED,
    )


def _with_places(content: Content) -> Content:
    """A content that names no native ids: a correction has the id of an earlier event. Files are named
    alone, as a link to one is opened by the log.
    """
    match content:
        case Message():
            files = tuple(replace(file, source=None, thumbnail=None) for file in content.attachments)
            return replace(content, reply_to="", thread="", attachments=files)
        case Edit():
            message = _with_places(content.message)
            assert isinstance(message, Message)
            return replace(content, target=encode_place(content.target), message=message)
        case Reaction():
            return replace(content, target=encode_place(content.target))
        case _:
            return content
