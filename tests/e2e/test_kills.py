"""SIGKILL under load: what was acknowledged is there once and in order, and was delivered once; nothing is stuck.

A few kills for each store. ``HANSA_KILLS=100`` makes it so many, ``HANSA_KILLS_SEED`` repeats a run: see
``scripts/soak``.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from contextlib import asynccontextmanager

import pytest
from e2e.kills import ORIGINS, Listener, Load, kill_while_it_starts, shown
from peers.hansa import Hansa
from peers.mongo import Mongo
from peers.postgres import Postgres

from bench.room import FakeRoom

pytestmark = pytest.mark.e2e

_KILLS = int(os.environ.get("HANSA_KILLS", "2"))
_SEED = os.environ.get("HANSA_KILLS_SEED", "")
#: Kills between two looks at every row, for which Hansa is stopped.
_LOOK = 25
#: ``client_rate``: the load is not to be slowed down.
_MORE = "client_rate = 0\n"


@asynccontextmanager
async def _server(kind, tmp_path):
    """The store's URL, and the server that has it; PostgreSQL with the promises that it has by default."""
    if kind == "sqlite":
        yield "sqlite:hansa.db", None
        return
    (tmp_path / "mongo").mkdir()
    server = Mongo(tmp_path / "mongo") if kind == "mongodb" else Postgres("fsync=on", "full_page_writes=on")
    await asyncio.to_thread(server.start)
    try:
        yield server.database(), server
    finally:
        await asyncio.to_thread(server.stop)


@asynccontextmanager
async def _load(ca, folder, url):
    server = Hansa(folder, ca, _MORE, store=url)
    origins = [await Listener(ca).start() for _ in range(ORIGINS)]
    room = FakeRoom(origins, 10, f"kills-{secrets.token_hex(4)}")
    for origin in origins:
        origin.rooms.append(room)
    load = Load(server, origins, room, url)
    try:
        await server.start()
        await load.enter()
        yield load
    finally:
        for user in load.people:
            await user.close()
        await server.stop()
        for origin in origins:
            await origin.stop()


async def _killed(load, chance, kind, database):
    """One kill at a random moment, and what follows until everything holds."""
    load.go_on()
    await load.lasts(chance.uniform(0.2, 3.0))
    if database is not None:
        await asyncio.to_thread(database.kill)
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        await asyncio.to_thread(database.start)
        await asyncio.sleep(chance.uniform(0.0, 2.0))
        killed = 1
    else:
        await load.server.kill()
        killed = 1
        while chance.random() < 0.2:
            await kill_while_it_starts(load.server, chance)
            killed += 1
        await load.server.start()
    await load.pause()
    await load.holds()
    return killed


async def _soak(load, kind, database):
    seed = int(_SEED) if _SEED else secrets.randbits(32)
    print(f"{kind}: {_KILLS} kills by seed {seed}", flush=True)
    chance = random.Random(seed)
    loading = asyncio.ensure_future(load.run())
    kills, looked, began = 0, 0, time.monotonic()
    try:
        while kills < _KILLS:
            again = load.delivered_again
            killing = asyncio.ensure_future(_killed(load, chance, kind, database))
            await asyncio.wait({loading, killing}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                killing.cancel()
                await loading
            kills += await killing
            assert database is None or load.delivered_again == again, (
                "delivered again by a process that lives"
            )
            if kills // _LOOK > looked or kills >= _KILLS:
                looked = kills // _LOOK
                assert await load.server.stop() == 0
                rows = await load.stored()
                seconds = time.monotonic() - began
                told = {
                    "kills": kills,
                    "events": load.kept.count,
                    "rate": load.rates,
                    "sent again": load.again,
                    "rows": rows,
                }
                told["delivered again"] = load.delivered_again
                print(f"{kind}: {shown(told)}, after {seconds:.0f} s, seed {seed}", flush=True)
                if kills < _KILLS:
                    await load.server.start()
    finally:
        loading.cancel()
        await asyncio.wait({loading})
    assert "crashed" not in load.server.log()


@pytest.mark.timeout(600 + 60 * _KILLS)  # what is waited for ends before, and says what did not come
@pytest.mark.parametrize("kind", ["sqlite", "mongodb", "postgres"])
async def test_hansa_is_killed_under_load(kind, ca, tmp_path):
    async with _server(kind, tmp_path) as (url, _), _load(ca, tmp_path / "hansa", url) as load:
        await _soak(load, kind, None)


@pytest.mark.timeout(600 + 60 * _KILLS)  # what is waited for ends before, and says what did not come
async def test_postgres_is_killed_under_load(ca, tmp_path):
    """The server that speaks MongoDB's protocol here loses what it acknowledged when it is killed: that would
    be a test of it and not of Hansa.
    """
    async with _server("postgres", tmp_path) as (url, server), _load(ca, tmp_path / "hansa", url) as load:
        await _soak(load, "postgres killed", server)
