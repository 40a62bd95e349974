"""Rooms whose branches do not merge by themselves: each further one makes every resolution more expensive.

A dummy event of a local user follows up to 20 extremities at once. Its type is the one that others use for
this, which clients do not show.
"""

from __future__ import annotations

from hansa import Busy, Custom, LocalProtocolError

from hansa_matrix.rooms.local_events import LocalEvents
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.room import MatrixRoom

DUMMY = "org.matrix.dummy_event"
#: Forward extremities that a room may have for long.
_ENDS = 10
#: So many local users are tried; those who may not send in the room cannot help.
_SPEAKERS = 5
#: Seconds until it is tried again in a room where no local user could.
_RETRY_AFTER_S = 3600.0


class ExtremityMerger:
    """See the module."""

    def __init__(self, own: LocalServer, administration: LocalEvents) -> None:
        self._ctx = own.ctx
        self._server = own.server
        self._administration = administration
        self._bridge_user = own.bridge_user
        self._in_vain: dict[str, float] = {}

    async def merge_extremities(self, room: MatrixRoom) -> None:
        """Merges the forward extremities of a room if they are too many and a local user may send there."""
        now = self._ctx.clock.monotonic()
        if len(room.head.extremities) <= _ENDS or now < self._in_vain.get(room.room_id, now):
            return
        self._in_vain.pop(room.room_id, None)
        try:
            await self._merge_extremities(room)
        except (Busy, LocalProtocolError) as error:  # it has better things to do, or is being taken down
            self._ctx.log.info("%s is not healed: %s", room.room_id, error)

    async def _merge_extremities(self, room: MatrixRoom) -> None:
        speakers = await self._eligible_senders(room)
        while speakers and len(room.head.extremities) > _ENDS:
            refusal = await self._administration.send(
                speakers[0], room.room_id, Custom(type=DUMMY), (DUMMY, None, {})
            )
            if refusal is None:
                self._ctx.count("matrix_forks_healed")
            else:
                self._ctx.log.info("%s is not healed by %s: %s", room.room_id, speakers[0], refusal.text)
                speakers = speakers[1:]
        if not speakers:
            self._in_vain[room.room_id] = self._ctx.clock.monotonic() + _RETRY_AFTER_S

    async def _eligible_senders(self, room: MatrixRoom) -> list[str]:
        """Returns some local users who are in the room, the bridge user first."""
        found: list[str] = []
        async for user in room.joined_users_of(self._server, first=self._bridge_user):
            found.append(user)
            if len(found) == _SPEAKERS:
                break
        return found
