"""What a message says about an earlier one, from the ids of XMPP to events of the log and back.

In a room, an id of the room (XEP-0359) is the id of the core's event, a long message's with the number of the
part behind a dot. A correction names the id that its sender gave to the message (XEP-0308).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hansa import (
    Content,
    Delivery,
    Edit,
    Event,
    Kind,
    Message,
    NativeId,
    NetworkContext,
    Reaction,
    Retraction,
)

from hansa_xmpp.proto import errors
from hansa_xmpp.proto.commands import GroupchatMessage
from hansa_xmpp.proto.errors import Condition
from hansa_xmpp.proto.stanza import MAX_ID
from hansa_xmpp.proto.targeted import Correction, ReactionSet, Reply, RetractionRequest


class TargetRefused(Exception):
    """The message is answered with an error."""

    def __init__(self, condition: Condition, text: str) -> None:
        super().__init__(text)
        self.condition = condition
        self.text = text


@dataclass(frozen=True, slots=True)
class Resolved:
    """What is submitted for a message: nothing for reactions that are known already. ``whole``: the content
    does not say all of the body.
    """

    contents: tuple[Content, ...]
    whole: bool = False


class Targets:
    """Finds events for the messages of a room, and the facts to show what concerns an event."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx

    async def resolve_message(self, native: str, said: GroupchatMessage) -> Resolved:
        """What a message means. Raises ``TargetRefused``."""
        thread = await self._thread_of(native, said)
        content = said.content
        if thread and isinstance(content, Message):
            content = replace(content, thread=thread)
        match said.about:
            case Correction(id=chosen) if isinstance(content, Message):
                target = await self._by_chosen_id(native, said.user, chosen)
                return Resolved((Edit(target=target.id, message=content),))
            case Reply(id=room_id) if isinstance(content, Message):
                found = await self.find_event(native, room_id)
                if found is None or said.answer is None:
                    return Resolved((content,))
                answer = replace(said.answer, reply_to=found.id, thread=thread)
                return Resolved((answer,), whole=said.answer != said.content)
            case ReactionSet() as wanted:
                return Resolved(tuple(await self._reaction_changes(native, said.user, wanted)))
            case RetractionRequest() as request:
                target = await self._known_event(native, request.id)
                if not request.moderated and target.sender != said.user:
                    raise TargetRefused(errors.FORBIDDEN, "only who said it may retract it")
                return Resolved((Retraction(target=target.id, reason=request.reason),))
            case _:
                return Resolved(() if content is None else (content,))

    async def _thread_of(self, native: str, said: GroupchatMessage) -> str:
        """The first event of the thread of a message, if an event names it: a client that answers in a
        thread of another network repeats the name. Empty for every other thread.
        """
        name = said.stanza.text_of("thread")
        if not name or len(name) > MAX_ID:
            return ""
        first = await self._ctx.event_with_id(native, name)
        if first is None or not isinstance(first.content, Message):
            return ""
        return first.content.thread or first.id

    async def find_event(self, native: str, room_id: str) -> Event | None:
        """The message to which an id of the room belongs, for one of a correction that which it corrects."""
        event = await self._ctx.event_with_id(native, room_id.partition(".")[0])
        return await self._corrected_event(native, event)

    async def _corrected_event(self, native: str, event: Event | None) -> Event | None:
        if event is not None and isinstance(event.content, Edit):
            return await self._ctx.event_with_id(native, event.content.target)
        return event

    async def _known_event(self, native: str, room_id: str) -> Event:
        return _require_known(await self.find_event(native, room_id))

    async def _by_chosen_id(self, native: str, sender: NativeId, chosen: str) -> Event:
        event = await self._ctx.event_by_chosen_id(native, sender, chosen)
        return _require_known(await self._corrected_event(native, event))

    async def _reaction_changes(self, native: str, user: NativeId, wanted: ReactionSet) -> list[Content]:
        target = await self._known_event(native, wanted.id)
        present = await self._reactions_of(native, target, user)
        known = {content.key for _, content in present}
        removed = [Retraction(target=one.id) for one, content in present if content.key not in wanted.keys]
        added = [Reaction(target=target.id, key=key) for key in wanted.keys if key not in known]
        return [*removed, *added]

    async def _reactions_of(
        self, native: str, target: Event, user: NativeId
    ) -> Sequence[tuple[Event, Reaction]]:
        """The reactions of a person to a message, as far as the room's people may know them."""
        found = list[tuple[Event, Reaction]]()
        async for event in self._ctx.related(target, Kind.REACTION, user):
            if isinstance(event.content, Reaction):
                may_know = user.network == self._ctx.id or await self._ctx.event_with_id(native, event.id)
                if may_know:
                    found.append((event, event.content))
        return found

    async def shown_content(self, delivery: Delivery) -> tuple[Content | ReactionSet | None, Event | None]:
        """What the room is shown of an event, and the message that it is about. Nothing is shown of what is
        about an event that the room's people did not get.
        """
        native, content, target = delivery.link.native.id, delivery.content, delivery.target
        match content:
            case Reaction():
                if target is None:
                    return None, None
                return await self._whole_set(native, target, delivery.event.sender), target
            case Retraction(of=Kind.REACTION):
                message = await self._ctx.event_with_id(native, content.of_target)
                if target is None or message is None:
                    return None, None
                return await self._whole_set(native, message, target.sender), message
            case Retraction(of=Kind.EDIT):
                message = await self._ctx.event_with_id(native, content.of_target)
                if message is None:
                    return None, None
                return await self._restored_message(native, message), message
            case Retraction():
                return (content, target) if target is not None else (None, None)
            case _:
                return content, target

    async def _whole_set(self, native: str, message: Event, owner: NativeId) -> ReactionSet:
        keys = [content.key for _, content in await self._reactions_of(native, message, owner)]
        return ReactionSet(message.id, tuple(dict.fromkeys(keys)), owner)

    async def _restored_message(self, native: str, message: Event) -> Content | None:
        """What a message says after one of its edits is retracted, as the room's people may know it."""
        async for edit in self._ctx.related(message, Kind.EDIT, newest_first=True):
            known = await self._ctx.event_with_id(native, edit.id)
            if known is not None and isinstance(known.content, Edit):
                return known.content
        content = message.content
        return Edit(target=message.id, message=content) if isinstance(content, Message) else None


def _require_known(event: Event | None) -> Event:
    if event is None:
        raise TargetRefused(errors.NOT_FOUND, "the message that this is about is not known")
    return event
