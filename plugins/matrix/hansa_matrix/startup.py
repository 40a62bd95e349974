"""The start of a homeserver: the data that it reads first, and the tasks that run from then on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hansa import scan_all

from hansa_matrix.federation.announce import announce_to_peers
from hansa_matrix.homeserver import Homeserver
from hansa_matrix.retention import ExpiringRows, run_retention
from hansa_matrix.rooms.relations import Relations
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.state.depth_migration import count_anew
from hansa_matrix.row_migrations import OldRows


async def load_homeserver(home: Homeserver) -> None:
    """Read rooms, local users and queues from the store, and link the rooms that have no link."""
    await OldRows(home.own.ctx, home.own.server).complete()
    await _load_rooms(home)
    await home.local.memberships.load()
    await home.federation.sender.load()
    home.federation.sender.start()
    rooms = home.rooms
    await rooms.linker.link_unlinked()
    for room in list(rooms.registry.values()):
        await rooms.inbound.missing_events.unverified.settle(room)
    await rooms.inbound.staging.load(list(rooms.registry.values()))


async def _load_rooms(home: Homeserver) -> None:
    ctx, registry = home.own.ctx, home.rooms.registry
    async for row in scan_all(ctx.store, "room"):
        room_id = str(row.key[0])
        room = MatrixRoom.load(room_id, row.body, ctx.store, home.rooms.events)
        await room.awaited.load(ctx.store)
        await room.holes.load(ctx.store)
        registry.add(room)
        if await count_anew(ctx, room, home.own.server):
            ctx.log.info("the events of %s are in an order of our own now", room_id)
    await Relations(ctx.store).move()
    await registry.load_blocked()


def spawn_tasks(home: Homeserver) -> None:
    """Start what runs as long as the network does. One signed request goes to every server that shares a room
    with this one, so that those that gave it up try again.
    """
    ctx, federation, rooms = home.own.ctx, home.federation, home.rooms
    greeting = partial(announce_to_peers, ctx, federation.client, federation.sender, home.own.bridge_user)
    ctx.spawn(greeting, "greet peers")
    ctx.spawn(rooms.typing_and_receipts.expire, "typing ends")
    ctx.spawn(rooms.inbound.hole_filler.run, "fill holes")
    ctx.spawn(rooms.direct_chats.resume, "direct chats that were cut off")
    ctx.spawn(rooms.upgrades.resume, "upgrades that were cut off")
    kept: Sequence[ExpiringRows] = (
        federation.sender,
        home.media.repository,
        rooms.invites,
        federation.keyring,
        *home.users.expiring_rows(),
    )
    ctx.spawn(partial(run_retention, ctx, kept), "sweep")
