"""A database that fails in the middle of a conversation: what was acknowledged is there once and in order, for
everybody, and everything goes on by itself when the database is back.

Every store, every fault; a few of them for short. ``HANSA_STORE_FAULTS=10,45,90`` runs all of them for so many
seconds each.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import aiohttp
import pytest
from e2e.three_servers import LOBBY, MUC, wait_linked, wait_matrix_member, wait_matrix_messages, xmpp_config
from peers.hansa import Hansa
from peers.mongo import Mongo, through_url
from peers.postgres import Postgres
from peers.prosody import XmppUser
from peers.synapse import MatrixUser, Refusal
from peers.waiting import until
from peers.wire import Wire

pytestmark = pytest.mark.e2e

_SAID = 45
_ALL = os.environ.get("HANSA_STORE_FAULTS", "")
_FAULTS = ("killed", "cut", "frozen", "slow", "answers lost")
#: What is run every time: each fault, each store.
_FEW = [
    ("sqlite", "locked"),
    ("mongodb", "cut"),
    ("postgres", "killed"),
    ("postgres", "frozen"),
    ("postgres", "answers lost"),
]
_MANY = [("sqlite", "locked"), *((store, fault) for store in ("mongodb", "postgres") for fault in _FAULTS)]
_CASES = (
    [(*case, float(seconds)) for case in _MANY for seconds in _ALL.split(",")]
    if _ALL
    else [(*case, 6.0) for case in _FEW]
)


@dataclass
class Database:
    """A database that can be made to fail. ``url`` goes through the wire."""

    url: str
    wire: Wire | None = None
    server: Mongo | Postgres | None = None
    file: str = ""

    async def fail(self, fault: str, seconds: float) -> None:
        """Begin a fault, wait, and end it."""
        match fault:
            case "locked":
                await asyncio.to_thread(self._lock, seconds)
            case "killed":
                assert self.server is not None
                await asyncio.to_thread(self.server.kill)
                await asyncio.sleep(seconds)  # how long the fault lasts is what is tested
                await asyncio.to_thread(self.server.start)
            case "cut":
                assert self.wire is not None
                await self.wire.cut()
                await asyncio.sleep(seconds)
                await self.wire.mend()
            case "frozen":
                assert self.wire is not None
                self.wire.freeze()
                await asyncio.sleep(seconds)
                self.wire.thaw()
            case "slow":
                assert self.wire is not None
                self.wire.delay = 0.5
                await asyncio.sleep(seconds)
                self.wire.delay = 0.0
            case _:
                assert self.wire is not None
                seed = secrets.randbits(32)
                print(f"answers lost by seed {seed}")
                chance = random.Random(seed)
                for _ in range(int(seconds * 4)):
                    self.wire.lose_an_answer()
                    await asyncio.sleep(chance.uniform(0.05, 0.4))

    def _lock(self, seconds: float) -> None:
        with closing(sqlite3.connect(self.file, isolation_level=None)) as db:
            db.execute("PRAGMA busy_timeout = 5000")
            db.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            db.execute("ROLLBACK")


@asynccontextmanager
async def database(kind: str, fault: str, tmp_path) -> AsyncIterator[Database]:
    if kind == "sqlite":
        yield Database("sqlite:hansa.db", file=str(tmp_path / "hansa0" / "hansa.db"))
        return
    (tmp_path / "mongo").mkdir()
    server = Mongo(tmp_path / "mongo", "--sync-on-commit") if kind == "mongodb" else Postgres()
    await asyncio.to_thread(server.start)
    wire = Wire()
    try:
        url = server.database()
        if isinstance(server, Mongo):
            if fault == "killed":
                server.require_mortal()
            host, port = await asyncio.to_thread(server.address)
            await wire.lay(port, host)
            through = through_url(url, wire.port)
        else:
            parts = urlsplit(url)
            await wire.lay(parts.port or 5432, parts.hostname or "127.0.0.1")
            user, at, _ = parts.netloc.rpartition("@")
            through = parts._replace(netloc=f"{user}{at}127.0.0.1:{wire.port}").geturl()
        yield Database(through, wire, server)
        assert wire.carried, "Hansa went another way to its database"
    finally:
        await wire.cut()
        await asyncio.to_thread(server.stop)


@dataclass
class Talk:
    """Three people who say numbered things, each at its own pace, until each was acknowledged."""

    room: str
    local: MatrixUser
    remote: MatrixUser
    juliet: XmppUser
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    faulted: asyncio.Event = field(default_factory=asyncio.Event)
    refused: int = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._say("local", self._local))
            group.create_task(self._say("remote", self._remote))
            group.create_task(self._say("juliet", self._juliet))

    async def _say(self, who: str, say: Callable[[str], Awaitable[None]]) -> None:
        """A third before the fault, a third that begins while it lasts, a third after it."""
        for number in range(_SAID):
            if number == _SAID // 3:
                self.begun.set()
            if number == 2 * _SAID // 3:
                await self.faulted.wait()
            await say(f"{who} {number}")

    async def _local(self, text: str) -> None:
        """As a client does: the same transaction id until there is an answer."""
        path = f"/rooms/{quote(self.room, safe='')}/send/m.room.message/{secrets.token_hex(8)}"
        while True:
            try:
                await self.local.call("PUT", path, {"msgtype": "m.text", "body": text})
            except Refusal as refusal:
                if refusal.status not in {429, 502, 503}:
                    raise
                self.refused += 1
                await asyncio.sleep(0.2)  # what a client waits before it asks again
            except (aiohttp.ClientError, TimeoutError):
                self.refused += 1
                await asyncio.sleep(0.2)
            else:
                return

    async def _remote(self, text: str) -> None:
        await self.remote.say(self.room, text)

    async def _juliet(self, text: str) -> None:
        while True:
            name = self.juliet.say(MUC, text)
            verdict = await self.juliet.verdict(name, MUC, 240)
            if verdict is None:
                return
            assert verdict.kind == "wait", verdict
            self.refused += 1
            await asyncio.sleep(0.2)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("kind", "fault", "seconds"), _CASES)
async def test_a_conversation_outlives_a_fault_of_the_database(
    kind, fault, seconds, hansa, prosody, matrix_user, xmpp_user, tmp_path, local_user
):
    async with database(kind, fault, tmp_path) as kept:
        server = await hansa(xmpp_config(prosody) + LOBBY, store=kept.url)
        await wait_linked(server)
        local, remote, juliet = (
            await local_user(server, "local"),
            await matrix_user("remote"),
            await xmpp_user("juliet"),
        )
        room = await remote.join(f"#lobby:{server.name}")
        await local.join(f"#lobby:{server.name}")
        await juliet.join(MUC, "Juliet")
        await wait_matrix_member(remote, room, "Juliet")
        talk = Talk(room, local, remote, juliet)
        talking = asyncio.ensure_future(talk.run())
        begun = asyncio.ensure_future(talk.begun.wait())
        await asyncio.wait({talking, begun}, return_when=asyncio.FIRST_COMPLETED)
        await kept.fail(fault, seconds)
        talk.faulted.set()
        await asyncio.wait_for(talking, 240)
        print(f"{kind}, {fault} for {seconds:.0f} s: {talk.refused} times a sender was told to try later")
        for reader in (local, remote):
            for who in ("local", "remote", "juliet"):
                await wait_matrix_messages(reader, room, who, [f"{who} {n}" for n in range(_SAID)], 90)
        await _heard(juliet)
        await _whole(server, local, remote, room)
        await server.stop()  # before its database


async def _heard(juliet: XmppUser) -> None:
    for who in ("local", "remote", "juliet"):
        said = [f"{who} {n}" for n in range(_SAID)]
        await juliet.until(f"what {who} said last", lambda said=said: said[-1] in juliet.bodies(MUC), 90)
        assert [text for text in juliet.bodies(MUC) if text.startswith(f"{who} ")] == said


async def _whole(server: Hansa, local: MatrixUser, remote: MatrixUser, room: str) -> None:
    """The state is one, nothing crashed, and the status says so."""

    async def alike() -> bool:
        here, there = await local.state(room), await remote.state(room)
        return {k: e["event_id"] for k, e in here.items()} == {k: e["event_id"] for k, e in there.items()}

    await until("both servers have one state", alike, 60)

    async def well() -> bool:
        status = await server.run("status")
        return status["store"]["state"] == "up" and all(n["state"] == "up" for n in status["networks"])

    await until("the status is well again", well, 60)
    log = server.log()
    for bad in ("crashed", "Traceback"):
        assert bad not in log, log[log.index(bad) - 300 :][:2000]
