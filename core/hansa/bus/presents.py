"""A present that changed without an event is shown to each network that shows it, also over a crash.

The commit of the change has a mark for each such link. It is removed once the network has shown the present,
unless a later change has replaced it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

from hansa.api.contracts import Network, ShowsPresent
from hansa.bus.rooms import Room, Rooms
from hansa.environment import Random
from hansa.model.events import Link
from hansa.store.base import Conflict, Put, Remove, ScopedStore
from hansa.store.paging import scan_all


class PresentHost(Protocol):
    """The parts of the running application that showing uses."""

    def network(self, network: str) -> Network | None:
        """The open network of an id."""
        ...

    async def wait_up(self, network: str) -> None:
        """Wait until a network is up."""
        ...

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> object:
        """Run a task."""
        ...


class Presents:
    """Shows the present of rooms."""

    def __init__(self, store: ScopedStore, rooms: Rooms, random: Random, around: PresentHost) -> None:
        self._store = store
        self._rooms = rooms
        self._random = random
        self._around = around
        #: Links whose present is being shown; True where it changed meanwhile.
        self._showing: dict[str, bool] = {}
        self._log = logging.getLogger("hansa.bus.presents")

    def marks(self, room: Room) -> list[Put]:
        """The writes for the commit of a change: each link whose network shows the present."""
        number = self._random.bytes(8)
        return [Put("unshown", (link.id,), number) for link in self._links(room)]

    def show(self, room: Room) -> None:
        """Show what was committed."""
        for link in self._links(room):
            self._begin(link)

    async def resume(self) -> None:
        """Show what a process that ended did not."""
        marked = {str(row.key[0]) async for row in scan_all(self._store, "unshown")}
        for room in self._rooms:
            for link in room.links.values():
                if link.id in marked:
                    self._begin(link)

    def _begin(self, link: Link) -> None:
        if link.id in self._showing:
            self._showing[link.id] = True
            return
        self._showing[link.id] = False
        self._around.spawn(partial(self._show_until_it_stands, link), f"present of {link.id}")

    async def _show_until_it_stands(self, link: Link) -> None:
        try:
            while True:
                self._showing[link.id] = False
                await self._show_link(link)
                if not self._showing[link.id]:
                    return
        finally:
            self._showing.pop(link.id, None)

    def _links(self, room: Room) -> Sequence[Link]:
        return [
            link
            for link in room.links.values()
            if isinstance(self._around.network(link.native.network), ShowsPresent)
        ]

    async def _show_link(self, link: Link) -> None:
        await self._around.wait_up(link.native.network)
        mark = await self._store.get("unshown", (link.id,))
        network = self._around.network(link.native.network)
        if not isinstance(network, ShowsPresent) or self._rooms.link(link.native) is None:
            return
        try:
            await network.show_present(link)
        except Exception:  # noqa: BLE001  # a network's fault: it is shown at the next start, or with the next change
            self._log.exception("the present of %s could not be shown", link.id)
            return
        if mark is not None:
            try:
                await self._store.commit([Remove("unshown", (link.id,), mark.body)], durability="lazy")
            except Conflict:
                return  # it changed again, and who changed it shows it
