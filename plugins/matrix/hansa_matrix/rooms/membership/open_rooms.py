"""Rooms by the addresses that an operator gives: found, joined, or created."""

from __future__ import annotations

from hansa import (
    CannotOpenRoom,
    LocalProtocolError,
    NetworkContext,
    OpenedRoom,
    Refusal,
    RefusalCode,
    RoomWish,
)

from hansa_matrix.proto import ids
from hansa_matrix.rooms.create_room import PUBLIC, RoomCreator, RoomTemplate
from hansa_matrix.rooms.directory.aliases import room_id_of
from hansa_matrix.rooms.directory.public_rooms import is_published, publish_room
from hansa_matrix.rooms.local_events import LocalEvents
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.join_rooms import RoomJoiner, parse_address

_NAME_KEY = ("m.room.name", "")


class RoomOpener:
    """Opens rooms for the core, and creates those that are missing."""

    def __init__(
        self, own: LocalServer, creator: RoomCreator, joiner: RoomJoiner, local_events: LocalEvents
    ) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._rooms = own.rooms
        self._user = own.bridge_user
        self._creator = creator
        self._joiner = joiner
        self._local_events = local_events

    async def open_room(self, address: str, *, create: bool) -> OpenedRoom:
        """Opens an address: ``#name`` is of this server, ``#name:server`` and ``!id`` of any server. Raises
        ``CannotOpenRoom``.
        """
        alias = address if ":" in address or address.startswith("!") else f"{address}:{self._own.server}"
        if alias.startswith("!"):
            room_id, via = parse_address(alias)
            return await self._joiner.enter(room_id, via)
        if not ids.is_valid_alias(alias):
            refusal = Refusal(code=RefusalCode.INVALID, text=f"{address!r} is not a room alias")
            raise CannotOpenRoom(refusal)
        if ids.domain_of(alias) != self._own.server:
            room_id, via = await self._joiner.remote.resolve(alias)
            return await self._joiner.enter(room_id, via)
        known = await room_id_of(self._ctx.store, alias)
        if known is not None and known in self._rooms:
            return await self._joiner.linker.describe_room(self._rooms[known])
        if not create or known is not None:  # a name of a room that is forgotten is not free
            raise CannotOpenRoom(Refusal(code=RefusalCode.NOT_FOUND, text=f"there is no room {alias}"))
        return await self.create_named(alias, self._ctx.config.room_version)

    async def found_room(self, address: str, wish: RoomWish) -> OpenedRoom:
        """See ``hansa.FoundsRooms.found_room``."""
        ours = ":" not in address or ids.domain_of(address) == self._own.server
        if not address.startswith("#") or not ours:
            return await self.open_room(address, create=True)
        alias = address if ":" in address else f"{address}:{self._own.server}"
        if not ids.is_valid_alias(alias) or await room_id_of(self._ctx.store, alias) is not None:
            opened = await self.open_room(address, create=True)
            await self._apply_wish(opened.native.id, wish)
            return opened
        return await self.create_named(alias, self._ctx.config.room_version, wish)

    async def _apply_wish(self, room_id: str, wish: RoomWish) -> None:
        """A room that exists is published, and named if it has no name. Refusals by its rules or a policy are
        logged: the room exists all the same.
        """
        room = self._rooms[room_id]
        try:
            if wish.published and not await is_published(self._ctx.store, room_id):
                await publish_room(self._ctx.store, room_id)
            if wish.name and _NAME_KEY not in await room.state():
                await self._local_events.send_state(room_id, *_NAME_KEY, {"name": wish.name})
        except LocalProtocolError as problem:
            self._ctx.log.warning("%s is not as [[rooms]] says: %s", room_id, problem)

    async def create_named(self, alias: str, version: str, wish: RoomWish | None = None) -> OpenedRoom:
        """Create a public room of the bridge user with an alias. Raises as ``RoomCreator.create``."""
        name = (wish.name or alias[1:].partition(":")[0]) if wish is not None else ""
        founding = RoomTemplate(
            member=await self._joiner.remote.profile(self._user),
            then=[*PUBLIC, *([(*_NAME_KEY, {"name": name})] if name else [])],
            published=wish is not None and wish.published,
        )
        return await self._joiner.linker.describe_room(
            await self._creator.create(self._user, version, alias, founding)
        )
