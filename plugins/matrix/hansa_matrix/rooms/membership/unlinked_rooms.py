"""The ghosts of a room that is no longer linked leave it: nothing that is said there reaches them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hansa import NetworkContext, Write, again_on_conflict

from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.rooms.event_builder import EventBuilder
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.room_draft import RoomDraft

#: Ghosts that leave in one commit.
_BATCH = 50
_PRESENT = frozenset({"join", "invite", "knock"})


class UnlinkedRooms:
    """Takes ghosts out of rooms."""

    def __init__(self, own: LocalServer) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx

    async def remove_ghosts(self, room_id: str) -> None:
        """Every ghost of this server in the room leaves it, the invited ones too."""
        room = self._own.rooms.get_resident(room_id)
        if room is None:
            return
        state = await room.state()
        users = [key[1] for key in state if key[0] == MEMBER and ids.domain_of(key[1]) == self._own.server]
        ghosts = [user for user in users if (await self._ctx.home_of(user)).network != self._ctx.id]
        for at in range(0, len(ghosts), _BATCH):
            batch = ghosts[at : at + _BATCH]
            await again_on_conflict(partial(self._remove, room, batch))

    async def _remove(self, room: MatrixRoom, ghosts: Sequence[str]) -> None:
        await self._own.rooms.refresh_room(room)
        members = await room.events_of(await room.state(), [(MEMBER, ghost) for ghost in ghosts])
        draft, writes = RoomDraft(room, self._own), list[Write]()
        speech = EventBuilder(draft)
        for (_, ghost), event in members.items():
            if event.membership in _PRESENT:
                writes += await speech.local_event(ghost, MEMBER, ghost, {"membership": "leave"})
        if writes:
            await draft.commit(writes)
