"""A server that policies deny, let into a room by another one: what is said there would reach it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from clients.matrix_server import LocalUser, matrix_server, part
from hansa import Backoff
from hansa.testing import until
from hansa_matrix.rooms.inbound import room_queue
from matrix.server_with_peer import OURS
from matrix.test_holes import MUTE, World, _options, denied


@pytest.fixture(autouse=True)
def _at_once(monkeypatch) -> None:
    monkeypatch.setattr(room_queue, "RETRY", Backoff(first=0.01, most=0.01))


@asynccontextmanager
async def scene(folder: Any) -> AsyncIterator[tuple[World, LocalUser]]:
    async with matrix_server(folder, gap_patience=0.0, **_options("denied")) as home:
        alice = await home.person("alice")
        await alice.join(f"#one:{OURS}")
        yield World(home.wire), alice


async def says(world: World, alice: LocalUser, txn: str = "1") -> int:
    path = f"/rooms/{part(world.house.room.room_id)}/send/m.room.message/{txn}"
    status, answer = await alice.ask("PUT", path, {"msgtype": "m.text", "body": "to all who are there"})
    if status != 200:
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        explained = await world.house.app.decisions.explain(answer["dev.hansa.decision"])
        assert explained["facts"]["crossing"] == "EventOut"
        assert MUTE in explained["facts"]["room_servers"]
    return status


def view(world: World) -> Any:
    return world.house.app.contexts["matrix"].get_view(world.house.room.room_id)


async def test_what_is_said_does_not_reach_a_server_whose_events_cannot_be_verified(tmp_path):
    """Its join is passed over, so that nobody of it is in the state."""
    async with scene(tmp_path) as (world, alice):
        assert await says(world, alice, "before") == 200
        joined = denied(world)
        await world.placed(world.say("after"))
        assert await world.holes() == {joined: "denied"}
        assert MUTE in view(world).servers()
        assert MUTE not in {server for _, server in view(world).joined_servers}
        assert await says(world, alice) == 403
        room = world.house.app.rooms.get(view(world).room)
        await world.house.app.rooms.reload(room)
        assert MUTE in room.view.servers(), "what no store holds is not forgotten when the rest is read again"
        assert await says(world, alice, "again") == 403


async def test_a_server_whose_event_came_is_reckoned_with_before_anybody_cites_it(tmp_path):
    async with scene(tmp_path) as (world, alice):
        await world.house.send(world.join())
        await until(lambda: MUTE in view(world).servers())
        assert await says(world, alice) == 403
        assert await world.holes() == {}


async def test_a_room_that_bars_it_is_spoken_in(tmp_path):
    """The list of barred servers is let through, since nobody is known who could be put out."""
    async with scene(tmp_path) as (world, alice):
        denied(world)
        await world.placed(world.say("after"))
        assert await says(world, alice) == 403
        matrix = world.house.matrix
        bars = {"allow": ["*"], "deny": [MUTE.rpartition(":")[0]], "allow_ip_literals": True}
        room = world.house.room.room_id
        await matrix.local_events.send_state(room, "m.room.server_acl", "", bars)
        await matrix.hole_filler.fill_due_holes()
        assert MUTE not in view(world).servers()
        assert await says(world, alice) == 200


async def test_after_a_start_it_is_known_still(tmp_path):
    async with scene(tmp_path) as (world, alice):
        denied(world)
        await world.placed(world.say("after"))
        matrix = world.house.matrix
        view(world).suspect("matrix", frozenset())
        assert await says(world, alice, "0") == 200
        await type(matrix.missing_events.unverified)(matrix.ctx, matrix.server_name).settle(world.room)
        assert await says(world, alice) == 403


async def test_who_is_allowed_again_is_in_the_room_as_anybody(tmp_path):
    async with scene(tmp_path) as (world, alice):
        denied(world)
        await world.placed(world.say("after"))
        await world.house.app.reload_policies([])
        assert await says(world, alice) == 200
