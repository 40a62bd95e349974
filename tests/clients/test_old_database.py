"""A database that an earlier version wrote (commit d365809) is opened by this one: nothing is lost, and what
was there counts as what comes. ``vectors/old_database.sql.gz`` is what that version wrote.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import hansa_matrix
import orjson
import pytest
from clients.matrix_server import AnonymousClient, LocalUser, Refused, part
from clients.test_sessions import login
from hansa.app import App
from hansa.bus.schema import SCHEMA as CORE
from hansa.environment import Environment, SystemClock, SystemRandom
from hansa.store.base import Append, Delete, Put, Schema
from hansa.store.memory import key_names
from hansa.store.mongo import MongoStore
from hansa.store.sqlite import SqliteStore
from hansa.testing.harness import run_hansa
from hansa_matrix.client_api.account import account_data
from hansa_matrix.config import Config
from hansa_matrix.proto.media import MxcUri
from hansa_matrix.schema import SCHEMA as MATRIX
from hansa_matrix.testing import MatrixHarness
from matrix.server_with_peer import OURS, THEIRS

VECTORS = Path(__file__).parent.parent / "vectors"
FACTS = json.loads((VECTORS / "old_database.json").read_text())
FILE = b"bytes of old"


class Then(SystemClock):
    """As if it were soon after the database was written."""

    _ahead = SystemClock().now() - FACTS["made_at"]

    def now(self) -> int:
        return super().now() - self._ahead


def dumped(folder: Path) -> Path:
    file = folder / "old.db"
    with closing(sqlite3.connect(file)) as db:
        db.executescript(gzip.decompress((VECTORS / "old_database.sql.gz").read_bytes()).decode())
    return file


async def copied(file: Path, url: str) -> None:
    """The same rows, with the fields that they had, as that version wrote them into MongoDB."""
    store = MongoStore(url)
    await store.open()
    with closing(sqlite3.connect(file)) as db:
        for scope, schema in (("", CORE), ("matrix", MATRIX)):
            names = {c.name: f"{schema.owner}_{c.name}" for c in schema.collections}
            columns = {n: [r[1] for r in db.execute(f'PRAGMA table_info("{t}")')] for n, t in names.items()}
            old = [
                replace(c, indexes=(), fields={f: k for f, k in c.fields.items() if f in columns[c.name]})
                for c in schema.collections
                if columns[c.name]
            ]
            await store.declare(scope, Schema(owner=schema.owner, version=1, collections=tuple(old)))
            if schema is MATRIX:  # positions go on where they were
                (last,) = db.execute("SELECT value FROM hansa_meta WHERE name = 'position'").fetchone()
                made = await store.commit(scope, [Append("news")] * last)
                await store.commit(scope, [Delete("news", (position,)) for position in made])
            for c in old:
                keys = key_names(c)
                wanted = ", ".join(f'"{n}"' for n in (*keys, *c.fields, "body"))
                rows = db.execute(f'SELECT {wanted} FROM "{names[c.name]}"').fetchall()
                fields = [dict(zip(c.fields, row[len(keys) : -1], strict=True)) for row in rows]
                puts = [
                    Put(c.name, row[: len(keys)], bytes(row[-1]), known)
                    for row, known in zip(rows, fields, strict=True)
                ]
                await store.commit(scope, puts)
    await store.close()


@pytest.fixture(params=["sqlite", "mongodb"])
async def opened(request, tmp_path) -> Callable[..., Any]:
    """Opens the old database, again and again."""
    file = dumped(tmp_path)
    if request.param == "mongodb":
        url = request.getfixturevalue("mongo_url")
        await copied(file, url)

    async def chunks():
        yield FILE

    key = tmp_path / "matrix.key"
    key.touch(0o600)
    key.write_text(FACTS["signing_key"])
    options: dict[str, Any] = {"argon2_memory_kib": 8, "argon2_time_cost": 1, "client_rate": 0}
    config = Config(server_name=OURS, signing_key=key, registration="token", **options)

    @asynccontextmanager
    async def opening():
        store = MongoStore(url) if request.param == "mongodb" else SqliteStore(file)
        seams = Environment(Then(), SystemRandom())
        async with run_hansa({"matrix": (hansa_matrix, config)}, store=store, seams=seams) as app:
            await MatrixHarness(app.network("matrix")).rooms_loaded.wait()
            await app.contexts["matrix"].blobs.put(chunks(), 100)
            yield app

    return opening


def person(app: App, name: str) -> LocalUser:
    return LocalUser(app, *FACTS[name])


async def bodies(app: App, collection: str) -> dict[Any, Any]:
    rows = await app.contexts["matrix"].store.scan(collection, limit=1000)
    return {row.key: orjson.loads(row.body) for row in rows}


async def test_nothing_of_an_old_database_is_lost(opened):
    async with opened() as app:
        alice, bob, carol = (person(app, name) for name in ("alice", "bob", "carol"))
        assert (await carol.ask("GET", "/account/whoami"))[0] == 401  # it was closed
        bob.since = FACTS["bob_since"]  # a client's place holds
        (joined,) = (await bob.sync())["rooms"]["join"].values()
        assert [e["content"]["body"] for e in joined["timeline"]["events"]] == ["after bob's token"]
        whole = await alice.sync()
        assert len(whole["rooms"]["invite"]) == 3
        assert [e["content"]["words"] for e in whole["to_device"]["events"]] == ["from bob", "from afar"]
        assert {"type": "test.note", "content": {"note": "kept"}} in whole["account_data"]["events"]
        said = await alice.texts(FACTS["room"])
        assert said == ["line 0", "line 1", None, "line 3", "line 4", "* edited", "after bob's token"]
        for version, room in FACTS["versions"].items():
            await alice.say(room, "again")
            assert await bob.texts(room) == [f"in {version}", "again"]
        assert await alice.get(f"/user/{part(alice.user)}/filter/{FACTS['filter']}")
        assert (await bob.get(f"/profile/{part(alice.user)}"))["displayname"] == "Alice of old"
        old, new = FACTS["replaced"]
        assert old != new
        for name, room in (("old", FACTS["room"]), ("bobs", FACTS["room"]), ("moves", new)):
            assert (await alice.get(f"/directory/room/{part(f'#{name}:{OURS}')}"))["room_id"] == room
        assert [r["room_id"] for r in (await alice.get("/publicRooms"))["chunk"]] == [FACTS["room"]]
        await bob.call("DELETE", f"/directory/room/{part(f'#bobs:{OURS}')}")  # who gave it takes it
        await bob.join(FACTS["private"])
        assert await bob.texts(FACTS["private"]) == ["for bob later"]
        kept = await alice.whole("GET", f"/_matrix/client/v1/media/download/{FACTS['file'][6:]}")
        assert kept.status == 200
        assert kept.chunks is not None
        assert b"".join([chunk async for chunk in kept.chunks]) == FILE
        decision = FACTS["decision"]["dev.hansa.decision"]
        assert (await app.decisions.explain(decision))["id"] == decision
        token = {"type": "m.login.registration_token", "token": FACTS["registration_token"]}
        await AnonymousClient(app).call(
            "POST", "/register", {"username": "dora", "password": "p", "auth": token}
        )
        await AnonymousClient(app).call("POST", "/login", login("bob", "of bob"))
        # The owner of a reserved address was not stored then: no user may fill it.
        answer = await alice.whole("PUT", f"/_matrix/media/v3/upload/{FACTS['reserved'][6:]}", data=b"late")
        assert answer.status == 403


async def test_what_waits_in_an_old_database_is_counted_and_has_an_age(opened):
    async with opened() as app:
        store = app.contexts["matrix"].store
        waiting = await store.scan("to_device", limit=1000)
        assert {row.fields["peer"] for row in waiting} == {FACTS["bob"][0], THEIRS}
        sizes: Counter[Any] = Counter()
        for row in waiting:
            sizes[row.fields["user_id"], row.fields["device_id"], row.fields["peer"]] += len(row.body)
        counted = await bodies(app, "to_device_usage")
        assert {key: size for key, (_, size) in counted.items()} == sizes
        alice = person(app, "alice")
        second = await AnonymousClient(app).call(
            "POST", "/login", login("alice", "of alice", device_id="SECOND")
        )
        other = LocalUser(app, alice.user, second["access_token"], "SECOND")
        for one in (alice, other):
            assert len((await one.sync())["to_device"]["events"]) == 2
            await one.sync()
        assert await bodies(app, "to_device_usage") == {}

        invites = await store.scan("invite", limit=10)
        assert {row.fields["peer"] for row in invites} == {THEIRS}
        now = app.seams.clock.now()
        assert all(now - 60_000 < int(row.fields["at"] or 0) <= now for row in invites)
        (report,) = await store.scan("report", limit=10)
        assert report.fields["by"] == alice.user
        assert report.fields["ts"] == orjson.loads(report.body)["at"]


async def test_files_of_an_old_database_count_and_copies_among_them_give_way(opened):
    async with opened() as app:
        library = MatrixHarness(app.network("matrix")).media
        copies = {"*": [1800, 3], THEIRS: [1800, 3], "": [len(FILE), 1]}
        assert await bodies(app, "media_usage") == {(owner,): count for owner, count in copies.items()}
        assert await library._evict_copies(700)
        assert await library._evict_copies(1)
        assert [item.mxc.server for item in await library.list_files()] == [OURS]
        assert ("*",) not in await bodies(app, "media_usage")
        server, _, media_id = FACTS["file"].removeprefix("mxc://").partition("/")
        assert await library.remove_file(MxcUri(server, media_id))
        assert await bodies(app, "media_usage") == {}


async def test_a_row_is_counted_once_however_often_the_database_is_opened(opened):
    async with opened() as app:
        first = await bodies(app, "media_usage"), await bodies(app, "to_device_usage")
    async with opened() as app:
        assert (await bodies(app, "media_usage"), await bodies(app, "to_device_usage")) == first


async def test_account_data_of_an_old_database_counts(opened, monkeypatch):
    async with opened() as app:
        alice = person(app, "alice")
        rows = await app.contexts["matrix"].store.scan("account_data", equal=(alice.user,), limit=100)
        kept = sum(len(row.body) for row in rows)
        assert kept
        monkeypatch.setattr(account_data, "MAX_BYTES_OF_USER", kept + 10)
        with pytest.raises(Refused, match="M_TOO_LARGE"):
            await alice.call("PUT", f"/user/{part(alice.user)}/account_data/test.more", {"note": "x" * 20})
        monkeypatch.setattr(account_data, "MAX_BYTES_OF_USER", kept + 100)
        await alice.call("PUT", f"/user/{part(alice.user)}/account_data/test.more", {"note": "x" * 20})


async def test_who_set_the_name_of_a_room_is_known_as_its_state_says(opened):
    """That version kept the name alone, by which no policy could tell whose it is."""
    async with opened() as app:
        named = [room for room in app.rooms if room.view.facts.name or room.view.facts.topic]
        assert named
        for room in named:
            facts = room.view.facts
            assert not facts.name or facts.name_by is not None
            assert not facts.topic or facts.topic_by is not None
