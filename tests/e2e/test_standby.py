"""Two processes over one database: one serves, the other waits, and takes over with all that was acknowledged."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

import aiohttp
import pytest
from peers.hansa import CommandFailed, Hansa
from peers.mongo import Mongo
from peers.postgres import Postgres
from peers.process import free_port
from peers.synapse import MatrixUser, Refusal
from peers.waiting import until

pytestmark = pytest.mark.e2e

_STORES = ("mongodb", "postgres")
#: Seconds within which a standby serves: after a crash of the other, and where that one lets go by itself.
_AFTER_CRASH, _AFTER_DRAIN = 15.0, 3.0
_LEASE = 10.0


@asynccontextmanager
async def database(kind: str, tmp_path) -> AsyncIterator[str]:
    (tmp_path / "database").mkdir()
    server: Mongo | Postgres = Mongo(tmp_path / "database") if kind == "mongodb" else Postgres()
    await asyncio.to_thread(server.start)
    try:
        yield server.database()
    finally:
        await asyncio.to_thread(server.stop)


@dataclass
class Pair:
    """One server name in two processes, of which ``active`` serves."""

    active: Hansa
    standby: Hansa
    #: Where the health of the standby is asked for.
    watched: str


@asynccontextmanager
async def pair(url: str, ca, tmp_path) -> AsyncIterator[Pair]:
    active = Hansa(tmp_path / "active", ca, store=url)
    metrics = free_port()
    standby = Hansa(
        tmp_path / "standby",
        ca,
        lambda made: made.tables_before(f'metrics = "127.0.0.1:{metrics}"'),
        store=url,
        seen_at=active.port,
    )
    shutil.copy(active.folder / "matrix.key", standby.folder / "matrix.key")
    try:
        await active.start()
        await standby.start()
        yield Pair(active, standby, f"http://127.0.0.1:{metrics}")
    finally:
        await standby.stop()
        await active.stop()


async def _get(url: str) -> tuple[int, dict]:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return answer.status, await answer.json(content_type=None)


async def _text(url: str) -> str:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return await answer.text()


async def _serves(hansa: Hansa, seconds: float = 60.0) -> float:
    """Wait until clients are answered; how long that took, in seconds."""
    began = time.monotonic()
    connector = aiohttp.TCPConnector(ssl=False)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(5)) as http:

        async def answered() -> bool:
            try:
                async with http.get(f"{hansa.url}/_matrix/client/v3/account/whoami") as answer:
                    return answer.status == 401
            except (aiohttp.ClientError, TimeoutError):
                return False

        await until("the standby serves", answered, seconds)
    return time.monotonic() - began


async def _ended(hansa: Hansa, seconds: float = 15.0) -> int:
    async def code() -> bool:
        return hansa.exit_code is not None

    await until("the process has ended", code, seconds)
    assert hansa.exit_code is not None
    return hansa.exit_code


async def _refused(hansa: Hansa) -> bool:
    """True if no process listens for clients."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", hansa.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


@dataclass
class Talk:
    """A user who sends numbered messages without a pause, each until ``user`` acknowledged it."""

    user: MatrixUser
    room: str
    said: list[str] = field(default_factory=list)
    over: bool = False

    async def run(self) -> None:
        while not self.over:
            text = f"number {len(self.said)}"
            path = f"/rooms/{quote(self.room, safe='')}/send/m.room.message/{secrets.token_hex(8)}"
            while not await self._say(path, text):
                await asyncio.sleep(0.05)  # what a client waits before it asks again
            self.said.append(text)

    async def _say(self, path: str, text: str) -> bool:
        try:
            async with asyncio.timeout(5):
                await self.user.call("PUT", path, {"msgtype": "m.text", "body": text})
        except Refusal as refusal:
            if refusal.status not in {429, 502, 503}:
                raise
            return False
        except (aiohttp.ClientError, TimeoutError):
            return False
        return True

    async def said_more(self, count: int) -> None:
        goal = len(self.said) + count

        async def enough() -> bool:
            return len(self.said) >= goal

        await until(f"{count} more messages are acknowledged", enough, 60)


@asynccontextmanager
async def talking(both: Pair) -> AsyncIterator[Talk]:
    user = await both.active.user("ann")
    elsewhere = MatrixUser(both.standby.url, user.id, user.token, both.active.ca.certificate)
    talk = Talk(user, await user.create_room())
    task = asyncio.ensure_future(talk.run())
    try:
        await talk.said_more(10)
        yield talk
        talk.user = elsewhere
        await talk.said_more(10)
        talk.over = True
        await task
        bodies = await elsewhere.bodies(talk.room, user.id)
        assert bodies == talk.said
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await user.close()
        await elsewhere.close()


@pytest.mark.parametrize("kind", _STORES)
async def test_a_second_process_waits_and_says_so(kind, ca, tmp_path):
    async with database(kind, tmp_path) as url, pair(url, ca, tmp_path) as both:
        status = await both.standby.run("status")
        assert status["state"] == "standby"
        assert status["store"]["pid"] == both.active.pid
        again = await both.standby.run("status")
        assert again["store"]["since"] == status["store"]["since"] > 0
        assert f"standby: process {both.active.pid} on " in both.standby.log()
        code, health = await _get(f"{both.watched}/health")
        assert (code, health["ok"], health["state"]) == (503, False, "standby")
        assert 'hansa_store_state{state="standby"} 1.0' in await _text(f"{both.watched}/metrics")
        assert await _refused(both.standby)
        with pytest.raises(CommandFailed, match=f"process {both.active.pid} on"):
            await both.standby.run("rooms", "ls")
        with pytest.raises(CommandFailed, match="has the database already"):
            await both.active.run("promote")
        assert (await both.active.run("status"))["state"] == "up"
        assert await both.standby.stop() == 0
        assert (await both.active.run("status"))["state"] == "up"


@pytest.mark.parametrize("kind", _STORES)
async def test_a_killed_process_is_replaced_with_nothing_lost_or_doubled(kind, ca, tmp_path):
    async with database(kind, tmp_path) as url, pair(url, ca, tmp_path) as both, talking(both):
        await both.active.kill()
        took = await _serves(both.standby)
        print(f"{kind}: served {took:.1f} s after SIGKILL")
        assert took <= _AFTER_CRASH


@pytest.mark.parametrize("kind", _STORES)
@pytest.mark.parametrize("command", ["drain", "promote"])
async def test_a_process_lets_go_by_itself(kind, command, ca, tmp_path):
    async with database(kind, tmp_path) as url, pair(url, ca, tmp_path) as both, talking(both):
        asked = both.active if command == "drain" else both.standby
        began = time.monotonic()
        await asked.run(command)
        await _serves(both.standby)
        took = time.monotonic() - began
        print(f"{kind}: served {took:.1f} s after {command}")
        assert took <= _AFTER_DRAIN
        assert await _ended(both.active) == 0
        assert (await both.standby.run("status"))["state"] == "up"
        code, _ = await _get(f"{both.watched}/health")
        assert code == 200


@pytest.mark.parametrize("kind", _STORES)
async def test_a_process_that_slept_longer_than_its_lease_ends_itself(kind, ca, tmp_path):
    async with database(kind, tmp_path) as url, pair(url, ca, tmp_path) as both, talking(both) as talk:
        both.active.send(signal.SIGSTOP)
        took = await _serves(both.standby)
        print(f"{kind}: served {took:.1f} s after SIGSTOP")
        assert _LEASE / 2 < took <= _AFTER_CRASH
        said = len(talk.said)
        both.active.send(signal.SIGCONT)
        assert await _ended(both.active) == 4
        assert len(talk.said) == said, "it acknowledged what it could not keep"
        assert "another process has taken it over" in both.active.log()


async def test_on_sqlite_a_second_process_is_refused(ca, tmp_path):
    first = Hansa(tmp_path / "first", ca)
    second = Hansa(tmp_path / "second", ca, store=f"sqlite:{first.folder / 'hansa.db'}", seen_at=first.port)
    shutil.copy(first.folder / "matrix.key", second.folder / "matrix.key")
    try:
        await first.start()
        with pytest.raises(RuntimeError, match=r"ended with 1:[\s\S]*in use by process"):
            await second.start()
    finally:
        await first.stop()
