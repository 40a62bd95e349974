"""Notifications of the memberships of local users to the parts that are built after them."""

from __future__ import annotations

from collections.abc import Callable, Collection

#: Takes a local user with an account, and the id of a room that the user has joined.
OnJoined = Callable[[str, str], None]
#: Takes the id of a room, and servers whose first user has joined it.
OnServersJoined = Callable[[str, Collection[str]], None]


class MembershipListeners:
    """Listeners are added while the server is built, and called in that order."""

    def __init__(self) -> None:
        self._joined: tuple[OnJoined, ...] = ()
        self._servers_joined: tuple[OnServersJoined, ...] = ()

    def on_joined(self, listener: OnJoined) -> None:
        """Call ``listener`` with every local user who has joined a room."""
        self._joined += (listener,)

    def on_servers_joined(self, listener: OnServersJoined) -> None:
        """Call ``listener`` with the servers that have come into a room."""
        self._servers_joined += (listener,)

    def notify_joined(self, user: str, room_id: str) -> None:
        """A local user has joined a room."""
        for listener in self._joined:
            listener(user, room_id)

    def notify_servers_joined(self, room_id: str, servers: Collection[str]) -> None:
        """The first users of some servers have joined a room."""
        for listener in self._servers_joined:
            listener(room_id, servers)
