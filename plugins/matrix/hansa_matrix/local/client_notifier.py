"""Wakes the clients that wait in ``/sync``. Durable changes stand in the stream (``client_stream.py``) before
a client is woken; changes that are not stored, such as typing and presence, are counted here.
"""

from __future__ import annotations

from hansa import Membership, NativeId, NetworkContext

from hansa_matrix.local.memberships import LocalMemberships


class ClientNotifier:
    """Wakes the clients that wait for a change. The part that made the change calls it."""

    def __init__(self, ctx: NetworkContext, memberships: LocalMemberships) -> None:
        self._ctx = ctx
        self._memberships = memberships
        #: Counts changes of what is not kept; a client that has seen a count has seen all before it.
        self.changes = 0
        #: The count of the last change, by the room in which users type or the user whose presence changed.
        self.changed_in: dict[str, int] = {}

    def wake_user(self, user: str) -> None:
        """Wake the clients of a local user."""
        self._memberships.news.notify_topic(user)

    def wake_room(self, room_id: str) -> None:
        """Wake the clients of the local users in a room, and those that look into it."""
        self._memberships.notify_room(room_id)

    def wake_contacts(self, user: str) -> None:
        """Wake the clients of any user and of everybody who shares a room with that user."""
        who = NativeId(self._ctx.id, user)
        for link in self._ctx.list_links():
            view = self._ctx.get_view(link.native.id)
            if view is not None and view.membership(who) is Membership.JOIN:
                self.wake_room(link.native.id)
        self.wake_user(user)

    def typing_changed(self, room_id: str) -> None:
        """Other users type in a room than before."""
        self._count_change(room_id)
        self.wake_room(room_id)

    def presence_changed(self, user: str) -> None:
        """A user has another presence than before."""
        self._count_change(user)
        self.wake_contacts(user)

    def _count_change(self, name: str) -> None:
        self.changes += 1
        self.changed_in[name] = self.changes
