"""Asks the policies about local events that reach a room's history without the core's pipeline: the first
events of a room, and its first members.

Each is asked about as the same event would be later, before anything of the room is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hansa import (
    CannotOpenRoom,
    Content,
    Crossing,
    EventIn,
    EventOut,
    Link,
    NativeFacts,
    NativeId,
    NetworkContext,
    RoomView,
    Submission,
    refusal_by,
)

from hansa_matrix.conversion.from_matrix import content_from_event
from hansa_matrix.conversion.room_views import RoomViewBuilder
from hansa_matrix.conversion.to_matrix import EventDraft
from hansa_matrix.rooms.native_events import ClientEvent
from hansa_matrix.rooms.policy.policy_facts import facts_of_native


@dataclass(frozen=True, slots=True)
class CheckedEvent:
    """A sender, the sender's server on its own network, and the event's draft."""

    sender: NativeId
    server: str
    draft: EventDraft


class PolicyChecks:
    """With no policy nothing is asked and nothing made ready."""

    def __init__(self, ctx: NetworkContext, views: RoomViewBuilder) -> None:
        self._ctx = ctx
        self._views = views

    async def check(self, crossing: Crossing) -> None:
        """Raises ``CannotOpenRoom`` if a policy denies the crossing."""
        verdict = await self._ctx.check(crossing)
        if verdict.allowed:
            return
        raise CannotOpenRoom(refusal_by(verdict))

    async def _event_and_facts(self, room_id: str, said: CheckedEvent) -> tuple[Content, NativeFacts]:
        """Returns the content and facts of an event, as if it were submitted to the core."""
        inbound = Submission(
            origin=NativeId(self._ctx.id, ""),
            room=NativeId(self._ctx.id, room_id),
            sender=said.sender,
            content=await content_from_event(said.draft, self._views.ids),
            ts=self._ctx.clock.now(),
            native=ClientEvent(draft=said.draft),
            local=True,
        )
        facts = replace(facts_of_native(inbound, said.server), sender_server=said.server, automatic=True)
        return inbound.content, facts

    async def texts(self, room_id: str, said: Iterable[CheckedEvent]) -> tuple[str, ...]:
        """The strings of some events that a person may read."""
        if not self._ctx.has_policies:
            return ()
        found: dict[str, None] = {}
        for one in said:
            _, facts = await self._event_and_facts(room_id, one)
            found |= dict.fromkeys(facts.texts)
        return tuple(found)

    async def drafts(self, room_id: str, view: RoomView, said: Iterable[CheckedEvent]) -> None:
        """Ask about events on their way in, and out to the servers in ``view``. Raises ``CannotOpenRoom`` for
        the first that a policy denies.
        """
        if not self._ctx.has_policies:
            return
        native = NativeId(self._ctx.id, room_id)
        link = self._ctx.get_link(room_id) or Link(room=view.room, native=native, authority=True)
        for one in said:
            content, facts = await self._event_and_facts(room_id, one)
            for way in (EventIn, EventOut):
                await self.check(way(link=link, sender=one.sender, content=content, view=view, facts=facts))
