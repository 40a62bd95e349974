"""The owners of a configured room in which the core decides: the operator names them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hansa.api.contracts import KnowsServers
from hansa.model.content import Membership
from hansa.model.ref import NativeId
from hansa.model.role import Role
from hansa.model.view import RoomMember, RoomView, ViewDelta

if TYPE_CHECKING:
    from hansa.host.plugin_host import PluginHost


async def appoint_owners(host: PluginHost, room_id: str, owners: Sequence[str]) -> None:
    """Makes people owners, each given as ``NETWORK:USER``. Who is not in the room is one once they come. A
    room that a network's own rules decide keeps its ranks.
    """
    room = host.rooms.get(room_id)
    if room is None or not owners:
        return
    if room.authority is not None:
        text = "%s decides who owns the room %s: the owners that are configured are not set"
        logging.getLogger("hansa.rooms").warning(text, room.authority.id, room_id)
        return

    async def with_owners() -> ViewDelta:
        rows = (_as_owner(host, room.view, spec) for spec in owners)
        return ViewDelta(upserts=tuple(row for row in rows if row != room.view.person(row.user)))

    await host.pipeline.correct(room_id, with_owners)


def _as_owner(host: PluginHost, view: RoomView, spec: str) -> RoomMember:
    name, _, user = spec.partition(":")
    person, network = NativeId(name, user), host.network(name)
    server = network.server_of(user) if isinstance(network, KnowsServers) else name
    stranger = RoomMember(user=person, membership=Membership.LEAVE, server=server)
    return replace(view.person(person) or stranger, role=Role.OWNER, voice=True)
