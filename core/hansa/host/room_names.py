"""Rooms by what operators call them: an id of the core, an id of a network, or an address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from hansa.api.contracts import NamesRooms, Network
from hansa.bus.rooms import Room, Rooms
from hansa.host.supervisor import NetworkSupervisor
from hansa.model.errors import RemoteProtocolError
from hansa.model.events import Link
from hansa.model.ref import NativeId


def missing(text: str) -> RemoteProtocolError:
    """The answer about what is not there."""
    return RemoteProtocolError(text, hint=404, code="not-found")


class RoomNamesHost(Protocol):
    """The parts of the running application that know rooms and their networks."""

    rooms: Rooms

    @property
    def runners(self) -> Mapping[str, NetworkSupervisor]:
        """Every configured network, by its id."""
        ...

    def network(self, network: str) -> Network | None:
        """The open network of an id."""
        ...


class RoomNames:
    """Finds rooms and links, and tells their addresses."""

    def __init__(self, app: RoomNamesHost) -> None:
        self._app = app

    async def room(self, name: str) -> Room:
        """The room that is meant. Raises the answer of one that is not there."""
        room = self._app.rooms.get(name)
        if room is None:
            link = await self.link(name)
            room = self._app.rooms.get(link.room) if link is not None else None
        if room is None:
            raise missing(f"there is no room {name}: `hansa rooms ls` shows them")
        return room

    async def link(self, name: str) -> Link | None:
        """The link of ``NETWORK:ID``, ``NETWORK:ADDRESS``, or of an address that one network alone knows."""
        network, _, native = name.partition(":")
        known = self._app.rooms.link(NativeId(network, native))
        if known is not None:
            return known
        if network in self._app.runners:
            return await self._link_at(network, native)
        found = [link for one in self._app.runners if (link := await self._link_at(one, name)) is not None]
        if len(found) > 1:
            which = ", ".join(link.id for link in found)
            raise missing(f"{name} is the name of several rooms: use one of {which}")
        return found[0] if found else None

    async def _link_at(self, network: str, address: str) -> Link | None:
        known = self._app.rooms.link(NativeId(network, address))
        instance = self._app.network(network)
        if known is not None or not isinstance(instance, NamesRooms):
            return known
        native = await instance.room_at(address)
        return self._app.rooms.link(NativeId(network, native)) if native is not None else None

    async def addresses(self, rooms: Iterable[Room]) -> dict[str, list[str]]:
        """By room, ``NETWORK:ADDRESS`` of each address that its networks have for it."""
        found: dict[str, list[str]] = {room.id: [] for room in rooms}
        natives: dict[str, dict[str, str]] = {}
        for room_id in found:
            room = self._app.rooms.get(room_id)
            for link in room.links.values() if room is not None else ():
                natives.setdefault(link.native.network, {})[link.native.id] = room_id
        for network, wanted in natives.items():
            instance = self._app.network(network)
            if not isinstance(instance, NamesRooms):
                continue
            for native, addresses in (await instance.addresses_of(wanted.keys())).items():
                found[wanted[native]] += [f"{network}:{address}" for address in addresses]
        return found
