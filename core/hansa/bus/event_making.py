"""A submission that a turn has taken, as an event of the log with all its names."""

from __future__ import annotations

from hansa.api.contracts import Prepared
from hansa.bus import schema
from hansa.bus.admission import PendingSubmission
from hansa.bus.event_names import chosen_put
from hansa.bus.media_references import media_reference_writes
from hansa.bus.rooms import Room
from hansa.bus.turn_draft import TurnDraft
from hansa.environment import Clock, Random
from hansa.model.content import BLANK, Content
from hansa.model.events import Event
from hansa.model.ref import NativeId


class EventMaker:
    """Makes events at the end of a turn's draft."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self._clock = clock
        self._random = random

    def make_event(
        self, room: Room, item: PendingSubmission, draft: TurnDraft, prepared: Prepared, content: Content
    ) -> Event:
        """The next event of a room's log, with the writes for its names. The draft has both afterwards."""
        inbound = item.inbound
        draft.head += 1
        draft.received = max(self._clock.now(), draft.received)
        taken_back = bool(prepared.native_id) and prepared.native_id in prepared.redacted
        event = Event(
            # By time, so that the store puts neighbours beside each other.
            id=item.event_id or f"{draft.received:012x}{self._random.bytes(9).hex()}",
            room=room.id,
            seq=draft.head,
            origin=inbound.origin,
            sender=inbound.sender,
            content=BLANK if taken_back else content,  # before it came
            ts=inbound.ts,
            received=draft.received,
            placement=inbound.placement,
            withheld_from=tuple(item.withheld),
            generation=item.generation,
            payload=b"" if taken_back else inbound.payload,
        )
        draft.confined += event.is_confined
        draft.events.append(event)
        draft.named[inbound.origin] = event
        draft.writes.append(schema.event_insert(event))
        draft.writes.append(schema.alias_insert(inbound.origin, room.id, event.seq))
        authority = room.authority
        if authority is not None and (prepared.native_id != inbound.origin.id or prepared.more_ids):
            self._name_by_authority(authority.native.network, draft, prepared, event)
        for name in inbound.aliases:
            alias = NativeId(inbound.origin.network, name)
            draft.writes.append(schema.alias_put(alias, room.id, event.seq))
        for name in inbound.chosen_ids:
            draft.writes.append(chosen_put(event, name))
        draft.writes += media_reference_writes(event)
        return event

    @staticmethod
    def _name_by_authority(network: str, draft: TurnDraft, prepared: Prepared, event: Event) -> None:
        """Writes the ids that the room's authority gave to an event."""
        for part, native in enumerate((prepared.native_id, *prepared.more_ids)):
            if not native:
                break
            alias = NativeId(network, native)
            if alias != event.origin:
                draft.named[alias] = event
                draft.writes.append(schema.alias_insert(alias, event.room, event.seq, part))
