"""Asking the policies about events of ours that reach a room's history without the core's pipeline: the first
events of a room, and who is brought into one.

Each is asked about as the same event would be later, before anything of the room is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from hansa import (
    Crossing,
    EventIn,
    EventOut,
    Inbound,
    Link,
    NativeFacts,
    NetworkContext,
    Ref,
    Refusal,
    RefusalCode,
    RoomRefused,
    RoomView,
)

from hansa_matrix.bridge import OwnDraft, Views, meaning
from hansa_matrix.room.native import Spoken

#: Who says something, and what.
Said = tuple[Ref, OwnDraft]


class Judging:
    """``facts`` is what policies may know of an event, as the network tells the core."""

    def __init__(self, ctx: NetworkContext, views: Views, facts: Callable[[Inbound], NativeFacts]) -> None:
        self._ctx = ctx
        self._views = views
        self._facts = facts

    async def check(self, crossing: Crossing) -> None:
        """Raises ``RoomRefused`` if a policy denies the crossing."""
        verdict = await self._ctx.check(crossing)
        if verdict.allowed:
            return
        code = RefusalCode.RATE if verdict.retry_after else RefusalCode.POLICY
        raise RoomRefused(
            Refusal(code=code, text=verdict.text, decision=verdict.decision, retry_after=verdict.retry_after)
        )

    async def inbound(self, room_id: str, sender: Ref, draft: OwnDraft) -> Inbound:
        """An event of ours as it would be submitted to the core."""
        return Inbound(
            origin=Ref(self._ctx.id, ""),
            room=Ref(self._ctx.id, room_id),
            sender=sender,
            content=await meaning(draft, self._views.home_of),
            ts=self._ctx.clock.now(),
            native=Spoken(draft=draft),
            draft=True,
        )

    async def texts(self, room_id: str, said: Iterable[Said]) -> tuple[str, ...]:
        """The strings of some events that a person may read."""
        found: dict[str, None] = {}
        for sender, draft in said:
            found |= dict.fromkeys(self._facts(await self.inbound(room_id, sender, draft)).texts)
        return tuple(found)

    async def drafts(self, room_id: str, view: RoomView, said: Iterable[Said]) -> None:
        """Ask about events on their way in, and out to the servers in ``view``. Raises ``RoomRefused`` for
        the first that a policy denies.
        """
        native = Ref(self._ctx.id, room_id)
        link = self._ctx.link(room_id) or Link(room=view.room, native=native, authority=True)
        for sender, draft in said:
            inbound = await self.inbound(room_id, sender, draft)
            facts = replace(self._facts(inbound), automatic=True)
            content = inbound.content
            await self.check(EventIn(link=link, sender=sender, content=content, view=view, facts=facts))
            if sender.network != self._ctx.id:
                await self.check(EventOut(link=link, sender=sender, content=content, view=view, facts=facts))
