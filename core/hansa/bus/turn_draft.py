"""What a turn of a room will commit, and the earlier events that its submissions concern."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from hansa.bus import schema
from hansa.bus.admission import PendingSubmission
from hansa.bus.event_names import MAX_EDITS, EventNames, relation_delete
from hansa.bus.rooms import Room
from hansa.bus.target_rules import check_target, named_events, with_event_ids, with_known_target
from hansa.model.content import (
    BLANK,
    Content,
    Edit,
    Message,
    Reaction,
    Retraction,
    Targeted,
    target_of,
)
from hansa.model.events import Event, Refusal, RefusalCode, Submission, SubmitResult
from hansa.model.ref import NativeId
from hansa.store.base import Delete, Put, Write


@dataclass(slots=True)
class TurnDraft:
    """The writes and outcomes that one turn will commit."""

    writes: list[Write] = field(default_factory=list)
    #: Those of who came and went, which wait for the end: many take a way of their own.
    people: list[Put | Delete] = field(default_factory=list)
    #: Those of the log of memberships, which go the same way.
    logged: list[Put] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    outcomes: list[tuple[PendingSubmission, SubmitResult]] = field(default_factory=list)
    #: Those whose receipt is written with them.
    receipted: list[PendingSubmission] = field(default_factory=list)
    #: Events by the native ids that the submissions name, and those of this turn by their own.
    named: dict[NativeId, Event] = field(default_factory=dict)
    #: Events that say nothing any more, as they stand in the log now (by seq), and as they were.
    blanked: dict[int, Event] = field(default_factory=dict)
    taken_back: list[Event] = field(default_factory=list)
    #: The events that edits of this turn are of, once for each.
    edited: list[str] = field(default_factory=list)
    #: Those that leave the turn to be proposed to the room's late authority.
    proposed: list[PendingSubmission] = field(default_factory=list)
    #: Counters that rise once the turn is committed: a turn may be repeated.
    counts: list[str] = field(default_factory=list)
    #: True if an event that is not shown changes the view.
    corrects: bool = False
    #: Submissions that the next turn begins with.
    left: list[PendingSubmission] = field(default_factory=list)
    head: int = 0
    received: int = 0
    #: Events of one network alone.
    confined: int = 0

    def add(self, item: PendingSubmission, outcome: SubmitResult) -> None:
        """Records the outcome of one submission. Its receipt is committed with it, unless an earlier
        submission left the turn or failed and is therefore not durable.
        """
        if item.receipt is not None:
            here = {id(one) for one, _ in self.outcomes}
            if all(one.taken or id(one) in here for one in item.before):
                self.writes.append(item.receipt)
                self.receipted.append(item)
        self.outcomes.append((item, outcome))

    def is_about_this_turn(self, inbound: Submission) -> bool:
        """True if a submission names an event of this turn, or retracts one that was edited in it. The room's
        authority finds neither before they are committed.
        """
        named = named_events(inbound.content) if self.events else ()
        if not named:
            return False
        if inbound.native_targets:
            found = (self.named.get(NativeId(inbound.origin.network, name)) for name in named)
            named = tuple(event.id for event in found if event is not None)
        made = {event.id for event in self.events}
        if isinstance(inbound.content, Retraction):
            made |= {target_of(event.content) for event in self.events if isinstance(event.content, Edit)}
        return not made.isdisjoint(named)


class TargetFinder:
    """Finds the events that submissions concern, as a turn leaves them, and blanks retracted ones."""

    def __init__(self, names: EventNames) -> None:
        self._names = names

    async def prepare(self, room: Room, draft: TurnDraft, submissions: Iterable[Submission]) -> None:
        """Read the events that submissions with ``native_targets`` name, those of a whole turn at once."""
        wanted = {
            NativeId(inbound.origin.network, name)
            for inbound in submissions
            for name in named_events(inbound.content)
        }
        if not wanted:
            return
        draft.named = {event.origin: event for event in room.tail if event.origin in wanted}
        stored = await self._names.find_many(wanted - draft.named.keys())
        draft.named |= {ref: event for ref, event in stored.items() if event.room == room.id}

    async def resolve(
        self, room: Room, draft: TurnDraft, inbound: Submission
    ) -> tuple[Content, Event | None]:
        """The content as it enters the log, with the event that it concerns."""
        content = inbound.content
        if not inbound.native_targets:
            target = await self._find_target(room, draft, target_of(content))
            return with_known_target(content, target), target
        found: dict[str, Event] = {}
        for name in named_events(content):
            event = draft.named.get(NativeId(inbound.origin.network, name))
            if event is not None:
                found[name] = draft.blanked.get(event.seq, event)
        target = found.get(target_of(content))
        content = with_event_ids(content, {name: event.id for name, event in found.items()})
        return with_known_target(content, target), target

    async def _find_target(self, room: Room, draft: TurnDraft, event_id: str) -> Event | None:
        """An event of the room, as this turn leaves it."""
        for event in draft.events:
            if event.id == event_id:
                return event
        found = await self._names.find_in_room(room, event_id)
        return found and draft.blanked.get(found.seq, found)

    async def check(
        self, room: Room, inbound: Submission, target: Event | None, *, decided: bool
    ) -> Refusal | None:
        """Returns why the sender cannot say this about an event, None if they can. ``decided`` as in
        ``check_target``.
        """
        content = inbound.content
        assert isinstance(content, Targeted)
        refusal = check_target(content, target, inbound.sender, room.view, decided=decided)
        if refusal is not None or target is None or not isinstance(content, Edit):
            return refusal
        if not await self._names.has_room_for_edit(room, target):
            text = f"the message was edited {MAX_EDITS} times"
            return Refusal(code=RefusalCode.TOO_LARGE, text=text)
        return None

    async def blank_native(self, room: Room, native: str, draft: TurnDraft) -> None:
        """Take the words of an event out of the log, named by the room's authority."""
        if room.authority is None:
            return
        ref = NativeId(room.authority.native.network, native)
        event = draft.named.get(ref) or await self._names.find(ref)
        if event is not None and event.room == room.id:
            await self.blank_event(room, event, draft)

    async def blank_event(self, room: Room, event: Event, draft: TurnDraft) -> None:
        """Take the words of an event out of the log, and those of its edits."""
        if event.seq in draft.blanked:
            return
        self._blank(event, draft)
        if isinstance(event.content, Reaction):
            on = await self._find_target(room, draft, event.content.target)
            if on is not None:  # else who reacts again and again fills what is read of a message's reactions
                draft.writes.append(relation_delete(event, on))
        if not isinstance(event.content, Message):
            return
        async for edit in self._names.edits(event):
            if edit.content != BLANK:
                self._blank(edit, draft)
        for drafted in [*draft.events]:
            if isinstance(drafted.content, Edit) and drafted.content.target == event.id:
                self._blank(drafted, draft)

    @staticmethod
    def _blank(event: Event, draft: TurnDraft) -> None:
        blank = replace(event, content=BLANK, payload=b"")
        draft.writes.append(schema.event_put(blank))
        draft.events = [blank if drafted.seq == event.seq else drafted for drafted in draft.events]
        draft.blanked[event.seq] = blank
        draft.taken_back.append(_without_text(event))


def _without_text(event: Event) -> Event:
    """What is needed of an event that left the log: there may be thousands, and each may be long."""
    content = event.content
    if isinstance(content, Edit):
        message = replace(content.message, text="", spans=())
        return replace(event, content=replace(content, message=message), payload=b"")
    return event
