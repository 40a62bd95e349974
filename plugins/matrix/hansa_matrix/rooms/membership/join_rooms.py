"""Into rooms of other servers: by their ids, and by invites that the bridge user accepts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from hansa import (
    Backoff,
    CannotOpenRoom,
    NetworkContext,
    OpenedRoom,
    Refusal,
    RefusalCode,
)

from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.pending_invites import PendingInvites
from hansa_matrix.rooms.membership.remote_membership import RemoteMembership
from hansa_matrix.rooms.membership.room_linker import RoomLinker
from hansa_matrix.rooms.room import MatrixRoom

#: Seconds between attempts to follow an invite.
_ACCEPT_BACKOFF, _MAX_TRIES = Backoff(first=0.5, most=4.0), 5


def parse_address(address: str) -> tuple[str, list[str]]:
    """``!id``, ``!id:server`` or ``!id?via=server&via=server``: the room and the servers to ask."""
    room_id, _, query = address.partition("?")
    via = [value for key, value in parse_qsl(query) if key == "via" and ids.is_valid_server_name(value)]
    own = [ids.domain_of(room_id)] if ":" in room_id else []
    return room_id, list(dict.fromkeys([*via, *own]))


class RoomJoiner:
    """Brings local users into rooms, which are in the registry from then on."""

    def __init__(
        self, own: LocalServer, remote: RemoteMembership, invites: PendingInvites, linker: RoomLinker
    ) -> None:
        self._ctx: NetworkContext = own.ctx
        self._user = own.bridge_user
        self._rooms = own.rooms
        self.remote = remote
        self.pending = invites
        self.linker = linker

    async def join(
        self, room_id: str, via: Sequence[str], user: str = "", more: Mapping[str, Any] | None = None
    ) -> MatrixRoom:
        """As ``enter``, and link the room; the room. Raises ``CannotOpenRoom``."""
        opened = await self.enter(room_id, via, user, more)
        await self._ctx.open_link(room_id, authority=True, view=opened.view_delta)
        return self._rooms[room_id]

    async def enter(
        self, room_id: str, via: Sequence[str], user: str = "", more: Mapping[str, Any] | None = None
    ) -> OpenedRoom:
        """Joins a room as a local user (the bridge user if none is named), unless a local user is in it
        already. ``more`` is further content of the join. Raises ``CannotOpenRoom``.
        """
        if self._rooms.is_blocked(room_id):
            text = f"{room_id} is blocked: `hansa matrix rooms unblock` ends that"
            raise CannotOpenRoom(Refusal(code=RefusalCode.FORBIDDEN, text=text))
        user = user or self._user
        room = self._rooms.get(room_id)
        anew = room is None or not room.resident
        if room is None or anew:
            with self.linker.joining(room_id):
                room = await self.remote.join(room_id, user, via, more or {})
                self._rooms.add(room)
                await self.pending.drop(room_id, user)
        return await self.linker.describe_room(room, anew=anew)

    def invited(self, pdu: Pdu, origin: str) -> None:
        """An invite arrived: the bridge user accepts it, and the invites of other users wait for them."""
        if pdu.state_key == self._user and self._ctx.config.accept_invites:
            self._ctx.spawn(
                partial(self._accept_bridge_invite, pdu, origin), f"accept invite to {pdu.room_id}"
            )

    async def _accept_bridge_invite(self, pdu: Pdu, origin: str) -> None:
        for tried in range(1, _MAX_TRIES + 1):
            try:
                await self.join(pdu.room_id, [origin])
                break
            except CannotOpenRoom as error:
                if error.refusal.code in {RefusalCode.INVITE_ONLY, RefusalCode.BUSY} and tried < _MAX_TRIES:
                    # Their server asks for our signature before the invite is a part of the room.
                    await asyncio.sleep(_ACCEPT_BACKOFF.delay(tried))
                    continue
                self._ctx.log.warning("invite to %s: %s", pdu.room_id, error.refusal.text)
                if error.refusal.decision:
                    await self.remote.leave_remote(pdu.room_id, self._user, [origin])
                    await self.pending.drop(pdu.room_id, self._user)
                return
        self._ctx.log.info("joined %s, invited by %s", pdu.room_id, pdu.sender)
