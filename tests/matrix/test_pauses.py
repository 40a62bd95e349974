"""Work on thousands of events lets everything else go on in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hansa_matrix.federation.client import FederationClient
from hansa_matrix.proto.auth_rules.levels import PowerLevels
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.pdu import pdu_from_raw
from hansa_matrix.rooms.inbound import outliers
from matrix.server_with_peer import THEIRS, ServerWithPeer, server_with_peer

MANY = 1000


class Turns:
    """How often the event loop had time for others."""

    count = 0


@asynccontextmanager
async def others() -> AsyncIterator[Turns]:
    turns, done = Turns(), asyncio.Event()

    async def turn() -> None:
        while not done.is_set():
            turns.count += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(turn())
        try:
            yield turns
        finally:
            done.set()


def members(house: ServerWithPeer) -> list[Any]:
    room, found = house.room, []
    for number in range(MANY):
        user = f"@m{number}:{THEIRS}"
        draft = house.forger.draft(room, "m.room.member", {"membership": "join"}, user, sender=user)
        found.append(pdu_from_raw(house.forger.finish(room, draft), room.version))
    return found


async def test_signatures_and_rules(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        pdus = members(house)
        await matrix.keyring.ensure_keys([(THEIRS, house.forger.key.key_id)], 0)
        async with others() as turns:
            seen = await outliers.verify_signatures(pdus, house.room.version, matrix.keyring)
            good, bad = seen.good, len(seen.bad)
            verified = turns.count
            room = matrix.get_room(house.room.room_id)
            create = (await room.events_of(await room.state(), ()))["m.room.create", ""]
            began = turns.count
            made = await outliers.check_auth(matrix.ctx, good, room.version, room.events, create)
            judged = turns.count - began
        assert (len(good), bad, len(made)) == (MANY, 0, MANY)
        assert [p.event_id for p in good] == [p.event_id for p in pdus]
        assert verified >= 10
        assert judged >= 10


async def test_a_few_signatures_cost_no_thread(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        matrix, pdus = house.matrix, members(house)[:20]
        await matrix.keyring.ensure_keys([(THEIRS, house.forger.key.key_id)], 0)
        monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", None, raising=False)
        assert len((await outliers.verify_signatures(pdus, house.room.version, matrix.keyring)).good) == 20


async def test_a_view(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        room = matrix.get_room(house.room.room_id)
        create = (await room.events_of(await room.state(), ()))["m.room.create", ""]
        state = {pdu.key: pdu for pdu in members(house)} | {create.key: create}

        async def steps() -> AsyncIterator[dict[StateKey, Pdu]]:
            keys = list(state)
            for at in range(0, len(keys), 100):
                yield {key: state[key] for key in keys[at : at + 100]}

        async with others() as turns:
            levels = PowerLevels(create, None, room.version)
            view = await matrix.local_server.views.whole(steps(), room.version.id, levels)
            assert turns.count >= 2
        assert len(view.upserts) == MANY


@pytest.mark.parametrize(("size", "paused"), [(600_000, True), (1_000, False)])
async def test_a_large_answer(tmp_path, size, paused):
    async with server_with_peer(tmp_path) as house:
        body = {"text": "x" * size}
        client: FederationClient = house.matrix.federation_client
        house.peer.answer = lambda _: (200, body)
        await client.request("GET", THEIRS, "/once")
        threads: list[Any] = []
        loop = asyncio.get_running_loop()
        run = loop.run_in_executor

        def watched(pool: Any, work: Any, *rest: Any) -> Any:
            threads.append(work)
            return run(pool, work, *rest)

        loop.run_in_executor = watched  # type: ignore[method-assign]
        assert await client.request("GET", THEIRS, "/large") == body
        assert bool(threads) is paused
