"""Stored events under other policies than those that judged them.

Events that are read as history, or wait to be sent, are judged by the current policies: each event once for
each generation of them, when a user reads it. An event that is denied now is withheld from that reader as if
it had been denied on receipt; its place in the DAG stays as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from hansa import EventIn, Link, LruCache, NativeFacts, NativeId, NetworkContext, RoomView, Submission

from hansa_matrix.conversion.from_matrix import content_from_pdu
from hansa_matrix.conversion.native_ids import NativeIds
from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.event_store import DECISION, Status, StoredEvent
from hansa_matrix.rooms.native_events import BackfilledPdu

#: Events whose verdict is remembered, and those that are judged without a pause.
_REMEMBERED, _STEP = 50_000, 50
_DECIDED = frozenset({Status.WITHHELD, Status.REJECTED})


class PolicyRechecks:
    """See ``EventStore.judge``."""

    def __init__(
        self, ctx: NetworkContext, ids: NativeIds, facts: Callable[[Submission], NativeFacts]
    ) -> None:
        self._ctx = ctx
        self._ids = ids
        self._facts = facts
        #: ``event id -> (generation, decision)``; the decision is empty where the event may be shown.
        self._known: LruCache[str, tuple[int, str]] = LruCache(_REMEMBERED)

    @property
    def active(self) -> bool:
        """True if there is any policy."""
        return self._ctx.has_policies

    async def __call__(self, found: Mapping[str, StoredEvent]) -> Mapping[str, StoredEvent]:
        """Events as the policies of now have them."""
        generation = self._ctx.policy_generation
        denied: dict[str, StoredEvent] = {}
        asked = 0
        for event_id, one in found.items():
            if one.generation == generation or one.status in _DECIDED:
                continue
            known = self._known.get(event_id)
            if known is None or known[0] != generation:
                known = (generation, await self._denying_decision(one.pdu))
                self._known.put(event_id, known)
                asked += 1
                if not asked % _STEP:
                    await asyncio.sleep(0)
            if known[1]:
                reason = f"{DECISION}{known[1]}"
                denied[event_id] = replace(one, status=Status.WITHHELD, reason=reason)
        return {**found, **denied} if denied else found

    async def _denying_decision(self, pdu: Pdu) -> str:
        room = NativeId(self._ctx.id, pdu.room_id)
        inbound = Submission(
            origin=NativeId(self._ctx.id, pdu.event_id),
            room=room,
            sender=NativeId(self._ctx.id, pdu.sender),
            content=await content_from_pdu(pdu, self._ids),
            ts=pdu.origin_server_ts,
            native=BackfilledPdu(pdu),
        )
        link = self._ctx.get_link(pdu.room_id) or Link(room="", native=room, authority=True)
        verdict = await self._ctx.check(
            EventIn(
                link=link,
                sender=inbound.sender,
                content=inbound.content,
                view=self._ctx.get_view(pdu.room_id) or RoomView(room=link.room),
                facts=self._facts(inbound),
                immutable=True,
            )
        )
        return "" if verdict.allowed else verdict.decision
