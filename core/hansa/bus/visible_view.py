"""The view of a room under the current policies: its name and topic, and the display names of its members.

A view holds text that earlier policies let pass. It is judged again once for each generation of policies,
before a network shows it to people, and in the background after every change. Denied text is removed from the
view; the members stay. The view alone depends on these questions: no decision is kept of them.

A policy that cannot answer denies nothing permanently: all names are hidden until it answers.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from hansa.bus.pipeline import Pipeline
from hansa.bus.policy_dispatch import ENGINE_ERROR
from hansa.bus.policy_engine import PolicyEngine
from hansa.bus.rooms import Room, Rooms
from hansa.environment import Clock
from hansa.model.content import Content, Member, Name, Topic
from hansa.model.crossing import EventIn
from hansa.model.events import Link, NativeFacts
from hansa.model.ref import NativeId
from hansa.model.view import RoomInfo, RoomMember, ViewDelta
from hansa.store.faults import StoreFault

#: People whose names are judged without a pause.
_STEP = 50
#: Seconds after which a policy that could not answer is asked again about a room.
_AGAIN = 30.0


class _UnsureError(Exception):
    """A policy could not answer, which denies."""


class VisibleViews:
    """The views of all rooms, as the policies of now allow them."""

    def __init__(
        self,
        rooms: Rooms,
        decisions: PolicyEngine,
        pipeline: Pipeline,
        clock: Clock,
    ) -> None:
        self._rooms = rooms
        self._decisions = decisions
        self._pipeline = pipeline
        self._clock = clock
        #: Rooms whose names are hidden in memory: under which generation, and when they are judged again.
        self._hidden: dict[str, tuple[int, float]] = {}
        self._log = logging.getLogger("hansa.present")

    async def every(self) -> None:
        """All rooms, one after the other; again, while a policy cannot answer."""
        generation = self._decisions.generation
        while generation == self._decisions.generation:
            for room in self._rooms:
                await self.settle(room)
            if not self._hidden:
                return
            await asyncio.sleep(_AGAIN)

    async def settle(self, room: Room) -> None:
        """Return when what a room's view says may be shown. Where the store does not take the change, it is
        made in memory until it does.
        """
        while self._decisions.policies and room.generation != self._decisions.generation:
            if not await self._judge_room(room, self._decisions.generation):
                return

    async def _judge_room(self, room: Room, generation: int) -> bool:
        """Under the policies of a generation; False if they could not answer, or the store did not take the
        change.
        """
        before, found = room.generation, ViewDelta()
        under, again = self._hidden.get(room.id, (0, 0.0))
        if under == generation and self._clock.monotonic() < again:
            room.view.apply(_without_names(room))
            return False

        async def change() -> ViewDelta:
            nonlocal found
            if room.id in self._hidden:
                await self._rooms.reload(room)  # the names as they were
            try:
                found = await self._denied_delta(room)
            except _UnsureError:
                self._hidden[room.id] = (generation, self._clock.monotonic() + _AGAIN)
                room.view.apply(_without_names(room))
                raise
            self._hidden.pop(room.id, None)
            room.generation = generation  # stored with the change
            return found

        try:
            await self._pipeline.correct(room.id, change)
        except _UnsureError:
            self._log.warning("a policy could not answer: what room %s says is hidden meanwhile", room.id)
            self._pipeline.corrected(room)
            return False
        except StoreFault as fault:
            self._log.warning("what room %s says could not be stored: %s", room.id, fault)
            room.view.apply(found)
            room.generation = before
            return False
        return True

    async def _denied_delta(self, room: Room) -> ViewDelta:
        """The change that takes out what the policies of now deny."""
        people: list[RoomMember] = []
        for number, person in enumerate(list(room.view.people.values()), 1):
            if person.name:
                said = Member(user=person.user, membership=person.membership, name=person.name)
                if not await self._can_pass(room, person.user, person.server, said):
                    people.append(replace(person, name=None))
            if not number % _STEP:
                await asyncio.sleep(0)
        return ViewDelta(upserts=tuple(people), info=await self._allowed_info(room))

    async def _allowed_info(self, room: Room) -> RoomInfo:
        facts = room.view.facts
        if facts.name and not await self._is_allowed(room, facts.name_by, Name(text=facts.name)):
            facts = replace(facts, name="", name_by=None)
        if facts.topic and not await self._is_allowed(room, facts.topic_by, Topic(text=facts.topic)):
            facts = replace(facts, topic="", topic_by=None)
        return facts

    async def _is_allowed(self, room: Room, by: NativeId | None, content: Content) -> bool:
        """Asks the policies about content of the view. A sender that is not known is a user that no list
        allows.
        """
        sender = by or NativeId(_link_of(room, "").native.network, "")
        server = self._pipeline.server_of(by.network, by.id) if by is not None else ""
        return await self._can_pass(room, sender, server, content)

    async def _can_pass(self, room: Room, sender: NativeId, server: str, content: Content) -> bool:
        asked = EventIn(
            link=_link_of(room, sender.network),
            sender=sender,
            content=content,
            view=room.view,
            facts=NativeFacts(sender_server=server, automatic=True),
            immutable=True,
        )
        verdict = await self._decisions.judge_unrecorded(asked)
        if not verdict.allowed and any(reason.code == ENGINE_ERROR for reason in verdict.reasons):
            raise _UnsureError
        return verdict.allowed


def _without_names(room: Room) -> ViewDelta:
    people = tuple(replace(person, name=None) for person in room.view.people.values() if person.name)
    facts = replace(room.view.facts, name="", topic="", name_by=None, topic_by=None)
    return ViewDelta(upserts=people, info=facts)


def _link_of(room: Room, network: str) -> Link:
    """The link over which something was said."""
    first = next(iter(room.links.values()), Link(room=room.id, native=NativeId("", "")))
    return room.link_of(network) or room.authority or first
