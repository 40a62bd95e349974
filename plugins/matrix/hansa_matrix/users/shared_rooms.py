"""The rooms that users share, among those that this server is in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hansa import Membership, NativeId, NetworkContext, RoomView

from hansa_matrix.proto import ids


class SharedRooms:
    """Asked of users of Matrix, never of ghosts: those are people of other networks."""

    def __init__(self, ctx: NetworkContext, server: str) -> None:
        self._ctx = ctx
        self.server = server

    def _views_of(self, user: str) -> Iterator[RoomView]:
        person_id = NativeId(self._ctx.id, user)
        for link in self._ctx.list_links():
            view = self._ctx.get_view(link.native.id)
            person = view.person(person_id) if view is not None else None
            if view is not None and person is not None and person.membership is Membership.JOIN:
                yield view

    def servers_sharing(self, user: str) -> set[str]:
        """Returns the other servers in a user's rooms."""
        found = (s for view in self._views_of(user) for n, s in view.joined_servers if n == self._ctx.id)
        return set(found) - {self.server}

    def newly_met_servers(self, room_id: str, others: Iterable[str]) -> set[str]:
        """Returns the other servers that a user meets in a room, and in none of their others."""
        elsewhere: set[str] = set()
        for other in others:
            if other != room_id:
                elsewhere |= self.servers_of_room(other)
        return self.servers_of_room(room_id) - elsewhere - {self.server}

    def servers_of_room(self, room_id: str) -> set[str]:
        """The servers of a room, ours too."""
        view = self._ctx.get_view(room_id)
        return {s for n, s in view.joined_servers if n == self._ctx.id} if view is not None else set()

    def is_in_room(self, room_id: str, user: str) -> bool:
        """True if a user is in a room."""
        view = self._ctx.get_view(room_id)
        return view is not None and view.membership(NativeId(self._ctx.id, user)) is Membership.JOIN

    def is_tracked(self, user: str) -> bool:
        """True if a user shares a room with this server, whose server then sends the user's device
        updates.
        """
        return next(self._views_of(user), None) is not None

    async def is_local_user(self, user: str) -> bool:
        """True if a user is of this server and not a ghost."""
        if not ids.is_valid_user_id(user) or ids.domain_of(user) != self.server:
            return False
        return (await self._ctx.home_of(user)).network == self._ctx.id
