"""Faults of a real disk under a real process: what is refused is told to come again, what was acknowledged is
kept, and everything goes on by itself.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pymongo
import pytest
from peers.hansa import Hansa
from peers.mongo import Mongo
from peers.postgres import Postgres
from peers.postgres_pair import Pair
from peers.process import free_port
from peers.require import absent
from peers.waiting import until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if mount is None or os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        absent("a small disk", "run this as somebody who may mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@dataclass
class Scene:
    """A Hansa whose disk fails, and one that it talks with."""

    ours: Hansa
    theirs: Hansa
    alice: Any
    bob: Any
    room: str
    metrics: int
    ssl: ssl.SSLContext

    async def say(self, text: str) -> tuple[int, dict[str, Any], str]:
        """Returns the answer to Alice's client: status, body, ``Retry-After``."""
        path = f"/_matrix/client/v3/rooms/{self.room}/send/m.room.message/{text[:40]}"
        headers = {"Authorization": f"Bearer {self.alice.token}"}
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.ssl)) as http,
            http.put(
                self.ours.url + path, json={"msgtype": "m.text", "body": text}, headers=headers
            ) as answer,
        ):
            return answer.status, await answer.json(), answer.headers.get("Retry-After", "")

    async def health(self) -> tuple[int, dict[str, Any]]:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{self.metrics}/health") as answer,
        ):
            return answer.status, await answer.json()

    async def everybody_has(self, texts: set[str]) -> None:
        for person in (self.alice, self.bob):

            async def has(person: Any = person) -> bool:
                return texts <= set(await person.bodies(self.room))

            await until(f"{person.id} has {sorted(texts)[:5]} and so on", has, 60)

    async def nothing_restarted(self) -> None:
        found = await self.ours.run("status")
        assert found["state"] == "up"
        assert [(n["state"], n["restarts"]) for n in found["networks"]] == [("up", 0)]


@pytest.fixture
async def scene(ca, tmp_path) -> AsyncIterator[Callable[..., Awaitable[Scene]]]:
    made: list[Scene] = []

    async def make(folder: Any, store: str = "sqlite:hansa.db") -> Scene:
        port = free_port()
        metrics = f'metrics = "127.0.0.1:{port}"'
        ours = Hansa(folder / "ours", ca, lambda h: h.tables_before(metrics), store=store)
        theirs = Hansa(tmp_path / "theirs", ca)
        await ours.start()
        await theirs.start()
        alice, bob = await ours.user("alice"), await theirs.user("bob")
        room = await alice.create_room("11", preset="public_chat")
        await bob.join(room, ours.name)
        tls = ssl.create_default_context(cafile=str(ca.certificate))
        made.append(Scene(ours, theirs, alice, bob, room, port, tls))
        return made[-1]

    yield make
    for one in made:
        await one.alice.close()
        await one.bob.close()
        await one.ours.stop()
        await one.theirs.stop()


async def test_a_disk_that_is_really_full(scene, small_disk):
    """Its log is on the same disk: not even that may end anything."""
    s = await scene(small_disk)
    assert (await s.say("before"))[0] == 200
    filler = (small_disk / "filler").open("wb", buffering=0)
    filler.write(bytes(shutil.disk_usage(small_disk).free))
    with pytest.raises(OSError, match="No space"):
        filler.write(bytes(1))

    kept = {"before"}
    refused = 0
    for n in range(10):
        text = f"full {n} " + "x" * 20_000
        status, body, after = await s.say(text)
        kept |= {text} if status == 200 else set()
        refused += status == 503 and body["errcode"] == "M_UNKNOWN" and int(after) > 0
        assert status in {200, 503}, body
        assert not {"sql", "disk", "database"} & set(str(body).lower().split())
    assert refused >= 5
    for n in range(10):
        kept.add(f"from afar {n}")
        await s.bob.say(s.room, f"from afar {n}")
    found = await s.ours.run("status")
    assert (found["state"], found["store"]["kind"]) == ("degraded", "full")
    assert (await s.health())[0] == 503
    filler.truncate(0)
    filler.close()
    await s.everybody_has(kept)
    assert (await s.say("after"))[0] == 200
    await s.everybody_has(kept | {"after"})
    await s.nothing_restarted()


async def test_a_database_that_is_taken_away_acknowledges_nothing(scene, tmp_path):
    s = await scene(tmp_path)
    database = s.ours.folder / "hansa.db"
    database.rename(database.with_suffix(".away"))
    status, body, after = await s.say("into nothing")
    assert (status, body["errcode"]) == (503, "M_UNKNOWN")
    assert int(after) > 0
    assert (await s.ours.run("status"))["store"]["kind"] == "away"
    await s.bob.say(s.room, "from afar")
    database.with_suffix(".away").rename(database)
    assert (await s.say("back"))[0] == 200
    await s.everybody_has({"back", "from afar"})
    await s.nothing_restarted()


async def test_a_lock_of_another_process_is_waited_for_once(scene, tmp_path):
    """A writer gets an answer soon while the lock is known, and does not wait for one lock's patience after
    the other.
    """
    s = await scene(tmp_path)
    with closing(sqlite3.connect(s.ours.folder / "hansa.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert (await s.say("first"))[0] == 503
        before = time.monotonic()
        assert [(await s.say(f"still {n}"))[0] for n in range(4)] == [503] * 4
        assert time.monotonic() - before < 10
        assert (await s.ours.run("status"))["store"]["kind"] == "locked"
        await s.bob.say(s.room, "from afar")
        other.execute("ROLLBACK")

    async def taken() -> bool:
        return (await s.say("taken"))[0] == 200

    await until("the lock is gone", taken)
    await s.everybody_has({"taken", "from afar"})
    await s.nothing_restarted()


async def test_killed_in_the_midst_of_writing_it_has_what_it_acknowledged(scene, tmp_path):
    s = await scene(tmp_path)
    kept: set[str] = set()
    for again in range(6):
        done = 0

        async def speaks(person: int, again: int = again) -> None:
            nonlocal done
            for n in range(1000):
                text = f"{again} {person} {n}"
                try:
                    if (await s.say(text))[0] != 200:
                        return
                except aiohttp.ClientError:
                    return
                kept.add(text)
                done += 1

        speaking = [asyncio.ensure_future(speaks(person)) for person in range(4)]
        while done < 7 + 5 * again:
            await asyncio.sleep(0)
        await s.ours.kill()
        await asyncio.gather(*speaking)
        await s.ours.start()
    assert len(kept) > 100
    await s.everybody_has(kept)


class MongoServer:
    """MongoDB's protocol. It is stopped in order: the server for tests keeps on a kill not all that it
    acknowledged.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._mongo = Mongo(folder)
        self.start, self.stop = self._mongo.start, self._mongo.stop

    def database(self) -> str:
        self.url = self._mongo.database()
        return self.url

    def end(self) -> None:
        self._mongo._process.stop()

    def send(self, number: signal.Signals) -> None:
        self._mongo._process.send(number)

    def take(self) -> None:
        with pymongo.MongoClient(self.url) as client:
            rows = client.get_default_database()["hansa.lease"]
            rows.update_one({"_id": "store"}, {"$set": {"token": "another's"}})

    def taken(self) -> str:
        with pymongo.MongoClient(self.url) as client:
            return client.get_default_database()["hansa.lease"].find_one({"_id": "store"})["token"]


class PostgresServer:
    """PostgreSQL, which is killed."""

    def __init__(self, folder: Path) -> None:
        self._postgres = Postgres()
        self.start, self.stop = self._postgres.start, self._postgres.stop
        self.end, self.send = self._postgres.kill, self._postgres.send

    def database(self) -> str:
        self.url = self._postgres.database()
        return self.url

    def take(self) -> None:
        self._postgres.sql("UPDATE hansa_lease SET token = 'another''s'", self.url)

    def taken(self) -> str:
        return self._postgres.sql("SELECT token FROM hansa_lease", self.url)


@pytest.fixture(params=[MongoServer, PostgresServer])
def server(request, tmp_path) -> Iterator[Any]:
    """A database of this test alone."""
    made = request.param(tmp_path / "server")
    try:
        made.start()
        yield made
    finally:
        made.stop()


async def test_a_database_that_ends_and_is_started_again(scene, server, tmp_path):
    s = await scene(tmp_path, server.database())
    assert (await s.say("before"))[0] == 200
    server.end()
    status, body, after = await s.say("meanwhile")
    assert (status, body["errcode"]) == (503, "M_UNKNOWN")
    assert int(after) > 0
    assert (await s.ours.run("status"))["store"]["kind"] == "away"
    assert (await s.health())[0] == 503
    await s.bob.say(s.room, "from afar")
    server.start()

    async def taken() -> bool:
        return (await s.say("taken"))[0] == 200

    await until("it is back", taken)
    await s.everybody_has({"before", "taken", "from afar"})
    await s.nothing_restarted()
    await s.ours.stop()


async def test_a_database_that_stands_still_for_a_while(scene, server, tmp_path):
    """It answers nothing and closes nothing. What was under way is kept or not, and its client finds which."""
    s = await scene(tmp_path, server.database())
    assert (await s.say("before"))[0] == 200
    server.send(signal.SIGSTOP)
    status, body, after = await s.say("under way")
    assert (status, body["errcode"]) == (503, "M_UNKNOWN")
    assert int(after) > 0
    server.send(signal.SIGCONT)

    async def taken() -> bool:
        return (await s.say("under way"))[0] == 200

    await until("it is back", taken, 60)
    await s.everybody_has({"before", "under way"})
    for person in (s.alice, s.bob):
        assert (await person.bodies(s.room)).count("under way") == 1
    await s.nothing_restarted()
    await s.ours.stop()


async def test_a_process_whose_database_was_taken_ends_at_once_and_says_so(scene, server, tmp_path):
    s = await scene(tmp_path, server.database())
    assert (await s.say("before"))[0] == 200
    server.take()
    process = s.ours._process
    assert process is not None

    async def ended() -> bool:
        return not process.running

    await until("it has ended", ended, 30)
    assert process.exit_code == 4
    (line,) = [line for line in s.ours.log().splitlines() if line.startswith("stopped:")]
    assert "another process has taken it over" in line
    assert server.taken() == "another's"


async def test_a_primary_that_dies_and_a_standby_that_is_promoted_lose_and_double_nothing(scene, tmp_path):
    """People of both servers speak all the while; who is told to come again does so."""
    pair = Pair()
    try:
        await pair.start()
        await pair.wait_for_the_standby()
        s = await scene(tmp_path, pair.url)
        said: list[str] = []
        going = True

        async def speaks(person: int) -> None:
            number = 0
            while going:
                text = f"{person} says {number}"
                while (await s.say(text))[0] != 200:
                    await asyncio.sleep(0.1)
                said.append(text)
                number += 1

        async def answers() -> None:
            number = 0
            while going:
                text = f"bob says {number}"
                await s.bob.say(s.room, text)
                said.append(text)
                number += 1

        async def more(count: int) -> None:
            wanted = len(said) + count

            async def enough() -> bool:
                return len(said) >= wanted

            await until(f"{count} more are said", enough, 90)

        speaking = [asyncio.ensure_future(speaks(person)) for person in range(3)]
        speaking.append(asyncio.ensure_future(answers()))
        await more(60)
        pair.first.kill()
        await pair.promote()
        await more(60)
        going = False
        await asyncio.gather(*speaking)
        await s.everybody_has(set(said))
        for person in (s.alice, s.bob):
            bodies = [body for body in await person.bodies(s.room) if " says " in body]
            assert sorted(bodies) == sorted(said)
            for who in ("0", "1", "2", "bob"):
                own = [body for body in bodies if body.startswith(f"{who} says")]
                assert own == [f"{who} says {n}" for n in range(len(own))]
        await s.nothing_restarted()
        await s.ours.stop()
    finally:
        pair.stop()
