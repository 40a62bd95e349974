"""Finds the person of another network behind a ghost's id, also one that nobody has invited yet."""

from __future__ import annotations

from hansa import LocalProtocolError, NativeId, NetworkContext

from hansa_matrix.local.ghosts import people_behind


class GhostPeople:
    """The people behind the ghosts of one server."""

    def __init__(self, ctx: NetworkContext, server: str) -> None:
        self._ctx = ctx
        self._server = server

    def is_ghost_id(self, user: str) -> bool:
        """True if an id has the form of a ghost's."""
        local, _, server = user[1:].partition(":")
        return server == self._server and local.startswith(self._ctx.config.ghost_prefix)

    async def find_person(self, user: str) -> NativeId | None:
        """The person behind a ghost's id, who has that ghost from then on; None if it is known that there is
        nobody.
        """
        home = await self._ctx.home_of(user)
        local, known = user[1:].partition(":")[0], home.network != self._ctx.id
        for person in [home] if known else people_behind(local, self._ctx.config.ghost_prefix):
            if person.network == self._ctx.id or await self._ctx.is_nonexistent_user(person):
                continue
            try:
                await self._ctx.get_ghost_id(person)
            except LocalProtocolError:  # another person has that ghost
                continue
            return person
        return None
