"""Events that were judged under earlier policies are judged again before they are shown or sent."""

from __future__ import annotations

from collections.abc import Callable

from hansa.bus.policy_engine import PolicyEngine
from hansa.bus.rooms import Room
from hansa.model.crossing import EventIn, EventOut
from hansa.model.events import Event, Link, NativeFacts
from hansa.model.lru import LruCache

#: Verdicts that are remembered: what is read again and again is judged, and its decision kept, once.
_REMEMBERED = 10_000


class PolicyRecheck:
    """``server_of`` is a network's own rule for the server of a user."""

    def __init__(self, decisions: PolicyEngine, server_of: Callable[[str, str], str]) -> None:
        self._decisions = decisions
        self._server_of = server_of
        self._known: LruCache[tuple[str, str], tuple[int, bool]] = LruCache(_REMEMBERED)

    async def passes(self, room: Room, link: Link, event: Event) -> bool:
        """True if an event of the log may pass a link now. The stored decision counts. Where the policies
        have changed since then, or the link was made later, the current policies decide as well: about the
        way in and the way out.
        """
        if event.is_withheld_from(link):
            return False
        generation = self._decisions.generation
        if not self._decisions.policies:
            return True
        if event.generation == generation and event.seq >= link.judged_from:
            return True
        key = (event.id, link.id)
        known = self._known.get(key)
        if known is not None and known[0] == generation:
            return known[1]
        passes = await self._recheck_event(room, link, event)
        self._known.put(key, (generation, passes))
        return passes

    async def may_show(self, room: Room, link: Link, event: Event) -> bool:
        """True if an event of the log may be shown to the people of a link now."""
        return link.direction.outward and await self.passes(room, link, event)

    async def _recheck_event(self, room: Room, link: Link, event: Event) -> bool:
        said = room.link_of(event.origin.network) or link
        facts = NativeFacts(
            sender_server=self._server_of(event.sender.network, event.sender.id), automatic=True, ts=event.ts
        )
        way_in = EventIn(
            link=said,
            sender=event.sender,
            content=event.content,
            view=room.view,
            facts=facts,
            immutable=True,
        )
        if not (await self._decisions.judge_and_store(way_in)).allowed:
            return False
        out = EventOut(link=link, sender=event.sender, content=event.content, view=room.view, facts=facts)
        return (await self._decisions.judge_and_store(out)).allowed
