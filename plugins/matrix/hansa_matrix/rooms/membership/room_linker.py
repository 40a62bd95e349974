"""From a room that this server is in to a room that the core knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from hansa import NativeId, NetworkContext, OpenedRoom, ViewDelta

from hansa_matrix.conversion.room_views import view_state_keys
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY, MEMBER, POWER_LEVELS_KEY
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.upgrade.unfinished_upgrades import replacement_rooms

#: A transaction waits for a room that is being entered, 30 s at most.
_LOOK, _LOOKS = 0.1, 300


class RoomLinker:
    """Opens links of rooms. Others count this server in from send_join on, and send; the core knows the room
    from its link on.
    """

    def __init__(self, own: LocalServer) -> None:
        self._ctx: NetworkContext = own.ctx
        self._views = own.views
        self._rooms = own.rooms
        self._joining: set[str] = set()
        self._linking: set[str] = set()

    @contextmanager
    def joining(self, room_id: str) -> Iterator[None]:
        """Make transactions of a room wait while this server joins it."""
        self._joining.add(room_id)
        try:
            yield
        finally:
            self._joining.discard(room_id)

    async def link_room(self, room: MatrixRoom, *, anew: bool = False) -> None:
        """Opens the link of a room that this server is in. ``anew`` as in ``describe_room``."""
        opened = await self.describe_room(room, anew=anew)
        await self._ctx.open_link(room.room_id, authority=True, view=opened.view_delta)

    async def link_unlinked(self) -> None:
        """Link the rooms that have no link because a stop came between. Runs once, at the start. A room that
        takes the place of another is linked by its upgrade.
        """
        successors = await replacement_rooms(self._ctx.store)
        for room in list(self._rooms.values()):
            unlinked = room.resident and self._ctx.get_link(room.room_id) is None
            if unlinked and room.room_id not in successors:
                await self.link_room(room)
        for room in list(self._rooms.values()):
            await self.complete(room)

    async def wait_until_joined(self, room_id: str) -> bool:
        """Wait while this server joins a room; False if that takes too long for a request."""
        for _ in range(_LOOKS):
            room = self._rooms.get(room_id)
            idle = room is None or not room.resident or self._ctx.get_link(room_id) is not None
            if idle and room_id not in self._joining:
                return True
            await asyncio.sleep(_LOOK)
        if room_id not in self._joining and room_id not in self._linking:
            self._linking.add(room_id)
            self._ctx.spawn(partial(self._link, room_id), f"link {room_id}")
        return False

    async def _link(self, room_id: str) -> None:
        """Links a room that was joined but not linked, because the database went away between the two."""
        room = self._rooms.get(room_id)
        if room is not None and room.resident and room_id not in await replacement_rooms(self._ctx.store):
            await self.link_room(room)
        self._linking.discard(room_id)

    async def describe_room(self, room: MatrixRoom, *, anew: bool = False) -> OpenedRoom:
        """Returns a joined room in the form of the core; ``anew`` if the core's knowledge of it is from
        before.
        """
        native = NativeId(self._ctx.id, room.room_id)
        linked = self._ctx.get_link(room.room_id) is not None
        if linked and not anew:
            return OpenedRoom(native=native, authority=True)
        present = await room.state()
        powers = await room.events_of(present, [POWER_LEVELS_KEY])
        levels = room.levels(powers[CREATE_KEY], powers.get(POWER_LEVELS_KEY), room.version)
        wanted = [*view_state_keys(), *(key for key in present if key[0] == MEMBER)]
        shown = room.shown_in_steps(present, wanted)
        view: ViewDelta = await self._views.whole(shown, room.version.id, levels)
        if linked:  # we had left: what is known of the room's people is from then
            before = self._ctx.get_view(room.room_id)
            here = {person.user for person in view.upserts}
            gone = [user for user in (before.people if before else ()) if user not in here]
            await self._ctx.reconcile_view(room.room_id, replace(view, removed=tuple(gone)))
        return OpenedRoom(native=native, authority=True, view_delta=view)

    async def complete(self, room: MatrixRoom) -> None:
        """COMPAT: what versions up to d365809 kept of a room does not say who set its name and topic, without
        which no policy can judge them by that. Its state says so.
        """
        view = self._ctx.get_view(room.room_id)
        if view is None or not room.resident:
            return
        facts = view.facts
        unknown = (facts.name and facts.name_by is None, facts.topic and facts.topic_by is None)
        wanted = [("m.room.name", "")] * bool(unknown[0]) + [("m.room.topic", "")] * bool(unknown[1])
        state = await room.state() if wanted else {}
        if any(key in state for key in wanted):
            await self.describe_room(room, anew=True)
