"""Typing and read markers of a hosted MUC, in both directions. Nothing of them is stored.

SPEC: XEP-0085 section 5.5 (chat states in rooms); XEP-0333 section 4.3 (displayed markers in rooms).
"""

from __future__ import annotations

from hansa import EphemeralEvent, NativeId, NetworkContext, Receipt, TokenBuckets, Typing

from hansa_xmpp.proto.commands import ChatState, DisplayedMarker
from hansa_xmpp.service import HostedRoom, MucService
from hansa_xmpp.targets import Targets

#: The signals of one person in one room, and of all in one room: per second, and at once.
_PERSON_RATE, _MAX_OF_PERSON, _ROOM_RATE, _MAX_OF_ROOM = 0.5, 6.0, 20.0, 60.0


class Signals:
    """The signals of one component. What is over the rates is dropped and counted."""

    def __init__(self, ctx: NetworkContext, service: MucService, targets: Targets) -> None:
        self._ctx = ctx
        self._service = service
        self._targets = targets
        self._of_person = TokenBuckets(ctx.clock, _PERSON_RATE, _MAX_OF_PERSON)
        self._of_room = TokenBuckets(ctx.clock, _ROOM_RATE, _MAX_OF_ROOM)

    async def submit_signal(self, native: str, room: HostedRoom, signal: ChatState | DisplayedMarker) -> None:
        """Tells everybody in the room, if the policies let it in."""
        if not self._may_pass(native, signal.user):
            return
        event = await self._event_of(native, signal)
        if event is None:
            self._ctx.count("xmpp_ignored", why="unknown marker")
        elif await self._ctx.send_ephemeral(native, event):
            self._service.send_stanzas(room.muc.reflect_signal(signal))

    async def _event_of(self, native: str, signal: ChatState | DisplayedMarker) -> EphemeralEvent | None:
        if isinstance(signal, ChatState):
            return Typing(user=signal.user, typing=signal.state == "composing")
        event = await self._targets.find_event(native, signal.id)
        if event is None:
            return None
        return Receipt(user=signal.user, event=event, ts=self._ctx.clock.now())

    async def show_signal(self, native: str, signal: EphemeralEvent) -> None:
        """Shows occupants what a person of another network does; a person who is not in the room is not
        shown.
        """
        room = self._service.room(native)
        if room is None or not self._service.up or not room.occupants_verified.done():
            return
        marked = ""
        if isinstance(signal, Receipt):
            event = await self._targets.find_event(native, signal.event.id)
            if event is None:
                return
            marked = event.id
        if self._may_pass(native, signal.user):
            self._service.send_stanzas(room.muc.show_signal(signal, marked))

    def _may_pass(self, native: str, user: NativeId) -> bool:
        if not self._of_person.take(f"{native} {user}") and not self._of_room.take(native):
            return True
        self._ctx.count("xmpp_dropped", why="signals")
        return False
