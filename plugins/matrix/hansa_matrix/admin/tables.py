"""The commands of an operator, all in one table."""

from __future__ import annotations

from collections.abc import Mapping

from hansa import AdminCommand

from hansa_matrix.admin.events import EventCommands
from hansa_matrix.admin.media import MediaCommands
from hansa_matrix.admin.membership import MembershipCommands
from hansa_matrix.admin.rooms import RoomCommands
from hansa_matrix.admin.server import ServerCommands
from hansa_matrix.homeserver import Homeserver


def build_admin_table(home: Homeserver, others: Mapping[str, AdminCommand]) -> dict[str, AdminCommand]:
    """The commands by their words, with ``others``. A room may be named by its address in each of them."""
    rooms, media = home.rooms, home.media
    return rooms.addresses.resolve_room_arguments(
        {
            **ServerCommands(home.own, rooms.inbound.staging).admin_commands(),
            **EventCommands(rooms.local_events).admin_commands(),
            **MembershipCommands(home.own, rooms).admin_commands(),
            **rooms.directory.admin_commands(),
            **RoomCommands(home.own, rooms.local_events, rooms.inbound.missing_events).admin_commands(),
            **MediaCommands(media.repository, media.remote).admin_commands(),
            "rooms upgrade": rooms.upgrades.upgrade,
            "rooms backfill": rooms.backfill.backfill,
            **others,
        }
    )
