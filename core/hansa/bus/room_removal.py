"""The removal of a core room that nothing is linked to: its rows, in batches, its own row last."""

from __future__ import annotations

from hansa.bus.rooms import Room, Rooms
from hansa.bus.schema import SCHEMA
from hansa.store.base import Delete, ScopedStore
from hansa.store.paging import first_page

_PAGE_SIZE = 1000
#: The collections whose rows belong to a room, with the index that finds them.
OF_ROOM: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("alias", ("room", "seq")),
    *((one.name, ()) for one in SCHEMA.collections if next(iter(one.key)) == "room" and one.name != "room"),
)


async def remove_room(store: ScopedStore, rooms: Rooms, room: Room) -> None:
    """Removes a room without links. An interrupted removal leaves a room that has no links."""
    for collection, index in OF_ROOM:
        while rows := await first_page(store, collection, index=index, equal=(room.id,), size=_PAGE_SIZE):
            await store.commit([Delete(collection, row.key) for row in rows])
    await store.commit([Delete("room", (room.id,))])
    rooms.forget(room)
