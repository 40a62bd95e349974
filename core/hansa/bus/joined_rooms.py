"""The rooms in which a person is joined: looked for once, and then kept as people come and go."""

from __future__ import annotations

from collections.abc import Iterable

from hansa.model.content import Membership
from hansa.model.lru import LruCache
from hansa.model.ref import NativeId
from hansa.model.view import RoomView

#: Persons whose rooms are remembered.
_MAX_PEOPLE = 20_000


class JoinedRooms:
    """Remembers the rooms of those who were asked for last. Every view reports to ``on_joined``."""

    def __init__(self) -> None:
        self._rooms: LruCache[NativeId, dict[str, None]] = LruCache(_MAX_PEOPLE)

    def find(self, user: NativeId, views: Iterable[RoomView]) -> tuple[str, ...]:
        """The ids of a person's rooms, in an order that a seed repeats. ``views`` are all that there are, and
        are read only for a person who is not remembered.
        """
        rooms = self._rooms.get(user)
        if rooms is None:
            joined = (view.room for view in views if view.membership(user) is Membership.JOIN)
            rooms = dict.fromkeys(joined)
            self._rooms.put(user, rooms)
        return tuple(rooms)

    def on_joined(self, room: str, user: NativeId, joined: bool) -> None:
        """A person is joined in a room, or not any more."""
        rooms = self._rooms.get(user)
        if rooms is None:
            return
        if joined:
            rooms[room] = None
        else:
            rooms.pop(room, None)

    def clear(self) -> None:
        """A view was read again, or is gone."""
        self._rooms.clear()
