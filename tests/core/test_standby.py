"""A second process on one database waits, is seen to wait, and goes on where the first one ended."""

from __future__ import annotations

import asyncio
import copy
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
from hansa.environment import SystemClock
from hansa.standby import Standby
from hansa.store.base import InUse
from hansa.store.faults import FaultKind, StoreFault
from hansa.store.health import StoreHealth, WatchedStore
from hansa.store.memory import MemoryStore
from peers.hansa import CommandFailed, Hansa
from peers.mongo import Mongo
from peers.process import free_port
from peers.synapse import MatrixUser, Refusal
from peers.waiting import until


@dataclass
class Pair:
    """Two processes of one server; ``metrics`` is the second's port."""

    first: Hansa
    second: Hansa
    metrics: int
    alice: MatrixUser
    room: str

    async def health(self) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{self.metrics}/health") as answer,
        ):
            return answer.status, (await answer.json())["store"]

    async def goes_on(self, *texts: str) -> None:
        """The second one serves all that was acknowledged, and what is said from now on."""

        async def serves() -> bool:
            try:
                up = (await self.second.run("status"))["state"] == "up"
                return up and await self.second._opened()
            except CommandFailed:  # between the socket of who stands by and that of who serves
                return False

        await until("the second one serves", serves, 15)
        await self.alice.say(self.room, "to the second")
        bodies = await self.alice.bodies(self.room)
        for text in (*texts, "to the second"):
            assert bodies.count(text) == 1
        assert await self.health() == (200, "up")


@pytest.fixture
async def pair(ca, tmp_path) -> AsyncIterator[Pair]:
    folder = tmp_path / "mongo"
    folder.mkdir()
    mongo = Mongo(folder).start()
    port = free_port()
    first = Hansa(tmp_path / "first", ca, store=mongo.database())
    second = copy.copy(first)
    second.folder = tmp_path / "second"
    second.folder.mkdir()
    second.config = second.folder / "hansa.toml"
    metrics = f'[server]\nmetrics = "127.0.0.1:{port}"\n'
    second.config.write_text(first.config.read_text().replace("[server]\n", metrics))
    (second.folder / "matrix.key").write_bytes((first.folder / "matrix.key").read_bytes())
    (second.folder / "matrix.key").chmod(0o600)
    await first.start()
    alice = await first.user("alice")
    room = await alice.create_room("11")
    await alice.say(room, "before")
    await second.start()
    yield Pair(first, second, port, alice, room)
    await alice.close()
    await second.stop()
    await first.stop()
    mongo.stop()


async def test_a_second_process_stands_by_and_goes_on_when_the_first_one_is_killed(pair):
    found = await pair.second.run("status")
    assert found["state"] == "standby"
    assert found["store"]["pid"] == pair.first.pid
    assert await pair.health() == (503, "standby")
    with pytest.raises(CommandFailed, match="is a standby"):
        await pair.second.run("rooms", "ls")
    assert sum(line.startswith("standby: ") for line in pair.second.log().splitlines()) == 1
    await pair.alice.say(pair.room, "to the first")
    await pair.first.kill()
    await pair.goes_on("before", "to the first")


async def test_who_is_promoted_takes_over_at_once_and_the_other_one_ends(pair):
    with pytest.raises(CommandFailed, match="is not a standby"):
        await pair.first.run("promote")
    assert await pair.second.run("promote") == {"promoted": True}
    process = pair.first._process

    async def ended() -> bool:
        return not process.running

    await until("the first one has ended", ended, 15)
    assert process.exit_code == 0
    await pair.goes_on("before")


async def test_a_standby_reads_its_configuration_again_and_uses_it_when_it_serves(pair):
    policy = '\n[policies.words]\nplugin = "governance"\nwords = ["forbidden"]\n'
    pair.second.config.write_text(pair.second.config.read_text() + policy)
    pair.second.send(signal.SIGHUP)

    async def told() -> bool:
        said = "reloaded (from when this process serves): policy words, certificates"
        return said in pair.second.log()

    await until("it is told that it was read", told, 10)
    assert (await pair.second.run("reload"))["reloaded"] == ["policy words", "certificates"]
    pair.second.config.write_text(pair.second.config.read_text().replace('plugin = "gov', 'plugin = "vog'))
    pair.second.send(signal.SIGHUP)

    async def refused() -> bool:
        return "not reloaded, nothing has changed: " in pair.second.log()

    await until("a mistake is told", refused, 10)
    assert (await pair.second.run("status"))["state"] == "standby"
    await pair.first.kill()
    await pair.goes_on("before")
    assert [p["name"] for p in (await pair.second.run("status"))["policies"]] == ["words"]
    with pytest.raises(Refusal, match="403"):
        await pair.alice.say(pair.room, "a forbidden word")


async def test_a_standby_that_is_told_to_stop_stops(pair):
    assert await pair.second.stop() == 0
    await pair.alice.say(pair.room, "to the first")


class Taken(MemoryStore):
    """Another process has it, or it is away, as often as told."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)

    async def open(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        await super().open()

    async def request_takeover(self) -> None:
        raise AssertionError("nobody promoted it")

    async def takeover_requested_by(self) -> str:
        return ""


async def test_a_standby_waits_for_a_database_that_is_away_meanwhile(monkeypatch):
    monkeypatch.setattr("hansa.standby.ASK_EVERY", 0.001)
    taken = InUse("elsewhere", 1, 10)
    inner = Taken(StoreFault(FaultKind.AWAY, "gone"), taken, InUse("elsewhere", 2, 10))
    store = WatchedStore(inner, StoreHealth(SystemClock()))
    said: list[str] = []
    standby = Standby(store, inner, SystemClock(), said.append)
    standby.begin(taken)
    assert await standby.wait(asyncio.Event())
    assert said == [
        "standby: process 1 on elsewhere has the database",
        "standby: process 2 on elsewhere has the database",
        "standby: this process has the database now",
    ]
    assert not inner.errors
    await store.open()  # it is open
    await store.close()
