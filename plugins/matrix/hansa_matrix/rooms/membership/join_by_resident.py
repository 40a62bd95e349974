"""Joins of restricted rooms that we are in, but where another resident has to let people in.

SPEC: server-server API, "Restricted rooms": a resident none of whose people may invite says
``M_UNABLE_TO_GRANT_JOIN``, and the next one is asked. The same holds for this server.
"""

from __future__ import annotations

from collections.abc import Sequence

from hansa import CannotOpenRoom, SubmitResult

from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY, MEMBER, POWER_LEVELS_KEY
from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.inbound.missing_events import MissingEvents
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.remote_membership import RemoteMembership
from hansa_matrix.rooms.room import MatrixRoom

#: Servers that are asked for one join.
_MAX_RESIDENTS = 10


class JoinByResident:
    """The handshake of a join, of a room whose state is here already."""

    def __init__(self, own: LocalServer, membership: RemoteMembership, gaps: MissingEvents) -> None:
        self._own = own
        self._ctx = own.ctx
        self._membership = membership
        self._gaps = gaps

    async def join(self, room: MatrixRoom, user: str, via: Sequence[str]) -> SubmitResult:
        """Joins a local user by another resident: of ``via`` after the servers whose users may invite. Raises
        ``CannotOpenRoom`` if none lets them in.
        """
        servers = list(dict.fromkeys([*await self._resident_servers(room), *via]))[:_MAX_RESIDENTS]
        try:
            join, server = await self._membership.get_cosigned_join(room.room_id, user, servers)
        except CannotOpenRoom:
            self._ctx.count("matrix_joins_granted", result="refused")
            raise
        self._ctx.count("matrix_joins_granted", result="granted")
        if await self._gaps.missing_references(room, join, ()):
            await self._gaps.fetch(room, join, server)
        inbound = await self._gaps.submitter.build_submission(join, server, handshake=True)
        (outcome,) = await self._ctx.submit([inbound])
        return outcome

    async def _resident_servers(self, room: MatrixRoom) -> list[str]:
        """The other servers of the room, first those of people who may invite, the mightiest first."""
        state = await room.state()
        known: dict[tuple[str, str], Pdu] = await room.events_of(state, [POWER_LEVELS_KEY])
        levels = room.levels(known[CREATE_KEY], known.get(POWER_LEVELS_KEY), room.version)
        view = self._ctx.get_view(room.room_id)
        servers = {s for n, s in view.joined_servers if n == self._ctx.id} if view is not None else set()
        servers.discard(self._own.server)
        users = [key[1] for key in state if key[0] == MEMBER and ids.domain_of(key[1]) in servers]
        users = [user for user in users if levels.user_level(user) >= levels.invite]
        users.sort(key=lambda user: (-levels.user_level(user), user))
        granting = [ids.domain_of(user) async for user in room.joined_of(state, users)]
        return list(dict.fromkeys([*granting, *sorted(servers)]))
