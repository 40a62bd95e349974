"""The state of the storage of a real process: what the operator sees, and what clients do."""

from __future__ import annotations

import resource
import sqlite3
import ssl
from contextlib import closing

import aiohttp
import pytest
from peers.hansa import Hansa
from peers.process import free_port
from peers.waiting import until


async def health(port: int) -> tuple[int, dict]:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/health") as answer:
        return answer.status, await answer.json()


async def metrics(port: int) -> str:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as answer:
        return await answer.text()


async def renamed(server: Hansa, ca, token: str, user: str, name: str) -> tuple[int, str]:
    """Returns the answer to a client that writes."""
    tls = ssl.create_default_context(cafile=str(ca.certificate))
    path = f"{server.url}/_matrix/client/v3/user/{user}/account_data/test.note"
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as http,
        http.put(path, json={"text": name * 1000}, headers=headers) as answer,
    ):
        return answer.status, await answer.text()


@pytest.mark.timeout(120)
async def test_a_disk_that_takes_no_more_and_a_lock_are_states_of_the_server(hansa, ca):
    port = free_port()
    server = await hansa(lambda made: made.tables_before(f'metrics = "127.0.0.1:{port}"'))
    alice = await server.user("alice")
    assert (await server.run("status"))["state"] == "up"

    async def up() -> bool:
        return (await health(port))[1]["ok"]

    await until("every network is up", up)
    # No file of the process may grow: what a full disk does, to one process.
    database = server.folder / "hansa.db"
    soft = max(f.stat().st_size for f in (database, server.folder / "hansa.db-wal") if f.exists()) // 2
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (max(soft, 1), hard))

    status, text = await renamed(server, ca, alice.token, alice.id, "one")
    assert status == 503, text
    assert "M_UNKNOWN" in text
    assert not any(word in text.lower() for word in ("sql", "disk", "database", "hansa.db"))
    found = await server.run("status")
    assert found["state"] == "degraded"
    assert found["store"]["kind"] == "full"
    status, said = await health(port)
    assert status == 503
    assert said["ok"] is False
    assert f'hansa_store_degraded{{kind="{found["store"]["kind"]}"}} 1.0' in await metrics(port)

    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert (await server.run("status"))["state"] == "up"
    assert (await health(port))[0] == 200
    assert (await renamed(server, ca, alice.token, alice.id, "two"))[0] == 200

    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        async def noticed() -> bool:
            return (await server.run("status"))["state"] == "degraded"

        await until("the lock is noticed", noticed, 20)
        assert (await health(port))[0] == 503
        other.execute("ROLLBACK")

    async def well() -> bool:
        return (await server.run("status"))["state"] == "up"

    await until("the end of the lock is noticed", well, 20)
