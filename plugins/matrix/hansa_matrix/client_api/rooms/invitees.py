"""Checks which users can be invited. SPEC: client-server API, "Joining rooms"."""

from __future__ import annotations

from hansa import LocalProtocolError, NetworkContext

from hansa_matrix.errors import matrix_error
from hansa_matrix.local.ghosts import people_behind
from hansa_matrix.rooms.local_server import LocalServer


class Invitees:
    """People of this server and of other networks: of both it may be known that there is nobody."""

    def __init__(self, own: LocalServer) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx

    async def require_exists(self, user: str) -> None:
        """Raises the error answer about a user who is known not to exist. A user of another network who may
        exist has a ghost afterwards.
        """
        local, _, server = user[1:].partition(":")
        prefix = self._ctx.config.ghost_prefix
        if await self._own.is_unused_id(user):
            raise matrix_error(404, "M_NOT_FOUND", f"there is no {user}")
        if (
            server != self._own.server
            or not local.startswith(prefix)
            or user in self._own.memberships.accounts
        ):
            return
        home = await self._ctx.home_of(user)
        known = home.network != self._ctx.id
        for person in [home] if known else people_behind(local, prefix):
            if person.network == self._ctx.id or await self._ctx.is_nonexistent_user(person):
                continue
            try:
                await self._ctx.get_ghost_id(person)
            except LocalProtocolError:  # another person has that ghost
                continue
            return
        raise matrix_error(404, "M_NOT_FOUND", f"there is no {user}")
