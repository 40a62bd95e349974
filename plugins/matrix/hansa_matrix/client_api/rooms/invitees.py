"""Checks which users can be invited. SPEC: client-server API, "Joining rooms"."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from hansa import CannotOpenRoom, NetworkContext

from hansa_matrix.client_api.http import error_from_refusal
from hansa_matrix.errors import matrix_error
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
        if await self._own.is_unused_id(user):
            raise matrix_error(404, "M_NOT_FOUND", f"there is no {user}")
        if not self._own.ghosts.is_ghost_id(user) or user in self._own.memberships.accounts:
            return
        if await self._own.ghosts.find_person(user) is None:
            raise matrix_error(404, "M_NOT_FOUND", f"there is no {user}")

    async def require_reachable(self, caller: str, invited: Collection[str], body: Mapping[str, Any]) -> None:
        """Raises the error answer for a new room of ``/createRoom`` that a ghost among the invited people
        cannot be in: a room with other networks is either linked to them, or a direct chat.
        """
        ghosts = [u for u in invited if self._own.ghosts.is_ghost_id(u)]
        for ghost in ghosts:
            person = await self._ctx.home_of(ghost)
            if len(invited) > 1:
                text = f"{person.id} is on {person.network}: only a chat of two opens by an invite"
                raise matrix_error(403, "M_FORBIDDEN", text)
            state = body.get("initial_state")
            events = state if isinstance(state, list) else []
            if any(isinstance(one, dict) and one.get("type") == "m.room.encryption" for one in events):
                text = f"{person.id} is on {person.network}, which cannot read encrypted rooms"
                raise matrix_error(403, "M_FORBIDDEN", text)
            try:
                await self._ctx.require_direct_chat("", person, caller)
            except CannotOpenRoom as problem:
                raise error_from_refusal(problem.refusal) from problem
