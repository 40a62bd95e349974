"""Rooms by their addresses, as operators say them. SPEC: client-server API, "Room aliases"."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from hansa import AdminCommand, CannotOpenRoom, LocalProtocolError, NetworkContext, scan_all

from hansa_matrix.proto import ids
from hansa_matrix.proto.state_content import canonical_alias
from hansa_matrix.rooms.directory.aliases import room_id_of
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.membership.remote_membership import RemoteMembership

#: Rooms of other servers whose own word for their address is read for one answer.
_MAX_READ = 1000
_ALIAS_KEY = ("m.room.canonical_alias", "")
#: Commands whose room may be one that this server is not in: they find it themselves.
_ABROAD = frozenset({"rooms knock"})


class RoomAddresses:
    """Finds the room of an address, and the addresses of a room."""

    def __init__(self, own: LocalServer, membership: RemoteMembership) -> None:
        self._ctx: NetworkContext = own.ctx
        self._server = own.server
        self._membership = membership
        self._rooms = own.rooms

    async def find_room(self, address: str) -> str | None:
        """Returns the id of the room that an address leads to: an alias of this server, with or without its
        name, or one of another server, which is asked. None if it leads nowhere. Raises LocalProtocolError if
        it cannot be known.
        """
        if address.startswith("!"):
            return address.partition("?")[0]
        if not address.startswith("#"):
            return None
        alias = address if ":" in address else f"{address}:{self._server}"
        if not ids.is_valid_alias(alias):
            return None
        if ids.domain_of(alias) == self._server:
            return await room_id_of(self._ctx.store, alias)
        try:
            return (await self._membership.resolve(alias))[0]
        except CannotOpenRoom as refused:
            raise LocalProtocolError(refused.refusal.text) from refused

    async def addresses_of(self, natives: Collection[str]) -> dict[str, list[str]]:
        """The names that this server has for rooms, by their ids; of a room without one, the name of another
        server by which its own people call it.
        """
        found: dict[str, list[str]] = {}
        async for row in scan_all(self._ctx.store, "room_alias"):
            if (room_id := str(row.fields["room_id"])) in natives:
                found.setdefault(room_id, []).append(str(row.key[0]))
        for room_id in [one for one in natives if one not in found][:_MAX_READ]:
            named = await self._foreign_alias(room_id)
            if named:
                found[room_id] = [named]
            await asyncio.sleep(0)
        return found

    async def _foreign_alias(self, room_id: str) -> str:
        room = self._rooms.get(room_id)
        if room is None:
            return ""
        event = (await room.shown_of(await room.state(), [_ALIAS_KEY])).get(_ALIAS_KEY)
        said = canonical_alias(event.content) if event is not None else None
        # Aliases of this server are rows of its store, whatever a room's state says.
        return said if said and ids.is_valid_alias(said) and ids.domain_of(said) != self._server else ""

    def resolve_room_arguments(self, operations: Mapping[str, AdminCommand]) -> dict[str, AdminCommand]:
        """The same commands, whose room may be named by its address."""
        return {
            words: operation if words in _ABROAD else self._with_room(operation)
            for words, operation in operations.items()
        }

    def _with_room(self, operation: AdminCommand) -> AdminCommand:
        async def found(arguments: Mapping[str, Any]) -> Any:
            named = arguments.get("room")
            if not isinstance(named, str) or not named.startswith("#"):
                return await operation(arguments)
            room_id = await self.find_room(named)
            if room_id is None:
                raise LocalProtocolError(f"no room is called {named}: `hansa rooms ls` shows their addresses")
            return await operation({**arguments, "room": room_id})

        return found
