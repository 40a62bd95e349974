"""Joins into a restricted room of this server, and the errors for refused ones: they say whether another
resident is worth asking.
"""

from __future__ import annotations

import pytest
from matrix.server_with_peer import V1, V2, ServerWithPeer, server_with_peer
from matrix.two_servers import OTHER, USER, at, levels_with, ours, refused

versions = pytest.mark.parametrize("version", ["8", "9", "10", "11"])
ELSEWHERE = "!elsewhere:x"


async def restricted(house: ServerWithPeer, *spaces: str) -> None:
    """The room is for who is in some others."""
    allow = [{"type": "m.room_membership", "room_id": space} for space in spaces]
    rules = {"join_rule": "restricted", "allow": allow}
    assert (await ours(house, "m.room.join_rules", "", rules)).refusal is None


async def powerless(house: ServerWithPeer) -> None:
    """Gives the forger's user all rights, and no local user the right to invite."""
    bot = house.matrix.bridge_user
    await levels_with(house, invite=50, users={USER: 100, bot: 100})
    await levels_with(house, users={USER: 100, bot: 0})


def asks(house: ServerWithPeer, user: str = OTHER) -> str:
    version = house.room.version.id
    return f"{V1}/make_join/{at(house.room.room_id, user)}?ver={version}"


async def inside(house: ServerWithPeer, user: str) -> None:
    """Joins a user of the forger's server to the other room."""
    where = at(house.other.room_id, user)
    _, template = await house.ask("GET", f"{V1}/make_join/{where}?ver={house.room.version.id}")
    join = house.forger.joining(template, "n")
    path = f"{V2}/send_join/{at(house.other.room_id, join.event_id)}"
    assert (await house.ask("PUT", path, join.raw))[0] == 200


@versions
async def test_who_is_in_a_room_that_we_are_in_is_let_in_by_somebody_who_may_invite(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        await restricted(house, house.other.room_id)
        await refused(house, 403, "M_FORBIDDEN", "GET", asks(house))
        await inside(house, OTHER)
        status, template = await house.ask("GET", asks(house))
        bot = house.matrix.bridge_user
        assert (status, template["event"]["content"]["join_authorised_via_users_server"]) == (200, bot)


@versions
async def test_where_nobody_of_ours_may_invite_another_resident_is_to_be_asked(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        await restricted(house, house.other.room_id)
        await inside(house, OTHER)
        await powerless(house)
        await refused(house, 400, "M_UNABLE_TO_GRANT_JOIN", "GET", asks(house))


@versions
async def test_who_may_be_in_a_room_that_we_do_not_know_is_for_another_resident_to_say(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        await restricted(house, ELSEWHERE)
        await refused(house, 400, "M_UNABLE_TO_AUTHORISE_JOIN", "GET", asks(house))
        await restricted(house, house.other.room_id, ELSEWHERE)
        await refused(house, 400, "M_UNABLE_TO_AUTHORISE_JOIN", "GET", asks(house))
        await inside(house, OTHER)
        assert (await house.ask("GET", asks(house)))[0] == 200
