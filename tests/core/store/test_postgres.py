"""The store contract on a real PostgreSQL, who may use a database, and what survives a kill."""

from __future__ import annotations

import asyncio
import logging

import asyncpg
import pytest
from core.store.elsewhere import ServerStoreSuite
from hansa.store import postgres, postgres_lease
from hansa.store.base import (
    Append,
    Collection,
    CompareAndSwap,
    Conflict,
    Delete,
    Insert,
    InUse,
    Put,
    Remove,
    Schema,
    StoreError,
)
from hansa.store.faults import StoreLost
from hansa.store.postgres import PostgresStore
from hansa.testing.store_suite import SCHEMA
from peers.waiting import until


class TestPostgres(ServerStoreSuite):
    made = PostgresStore

    @pytest.fixture
    def url(self, postgres_url) -> str:
        return postgres_url

    async def test_a_long_text_is_a_key_and_a_field_like_any_other(self, store):
        """An entry of an index has at most 2,704 bytes; an XMPP address may have 3,071."""
        pair = Collection(
            name="pair", key={"a": str, "n": int, "b": str}, fields={"c": str}, indexes=(("c",), ("b", "a"))
        )
        await store.declare("s", Schema(owner="suite", version=1, collections=(pair,)))
        head = "ü" * 1000
        long = [head + end for end in ("", "x", "\0", "\1", "y" * 3000, "\0\0")]
        cut = ["z" * 199 + end + "z" * 200 for end in ("\0", "\1", "\1\2", "z")]
        texts = [*long, *cut, "a" * 250, "short"]
        await store.commit("s", [Insert("pair", (t, n, t), b"%d" % n, {"c": t}) for n, t in enumerate(texts)])
        for n, text in enumerate(texts):
            row = await store.get("s", "pair", (text, n, text))
            assert (row.key, row.fields, row.body) == ((text, n, text), {"c": text}, b"%d" % n)
            for how in ({"index": ("c",)}, {"index": ("b", "a")}, {}):
                assert await store.scan("s", "pair", equal=(text,), **how) == [row]
            assert await store.count("s", "pair", equal={"c": text}) == 1
            with pytest.raises(Conflict):
                await store.commit("s", [Insert("pair", (text, n, text))])
            await store.commit("s", [CompareAndSwap("pair", row.key, row.body, b"new", row.fields)])
        keys = [(text, n, text) for n, text in enumerate(texts)]
        assert (await store.get_many("s", "pair", keys)).keys() == set(keys)
        first = await store.scan("s", "pair", limit=5)
        rest = await store.scan("s", "pair", after=first[-1].key[0])
        assert {row.key for row in (*first, *rest)} == set(keys)
        await store.commit("s", [Remove("pair", keys[0], b"new"), Delete("pair", keys[1])])
        assert await store.count("s", "pair") == len(keys) - 2

    async def analyzed(self, url):
        """As autovacuum does it, after some tens of rows."""
        connection = await asyncpg.connect(url)
        await connection.execute("ANALYZE")
        await connection.close()

    async def test_every_search_goes_by_an_index_and_sorts_nothing(self, store, postgres_url, monkeypatch):
        """A field may be None, which comes first."""
        await store.declare("s", SCHEMA)
        colors = ["red", "blue", "green", None]
        for at in range(0, 2000, 500):
            rows = [
                Put("thing", ("abc"[n % 3], n), b"", {"color": colors[n % 4], "size": n % 100})
                for n in range(at, at + 500)
            ]
            await store.commit("s", rows)
        asked = []
        fetch = store._fetch_values

        async def seen(sql, *values):
            asked.append((sql, values))
            return await fetch(sql, *values)

        monkeypatch.setattr(store, "_fetch_values", seen)
        for reverse in (False, True):
            await store.scan("s", "thing", reverse=reverse)
            await store.scan("s", "thing", equal=("a",), after=5, reverse=reverse)
            await store.scan("s", "thing", index=("color", "size"), equal=("red",), upto=9, reverse=reverse)
            await store.scan("s", "thing", index=("color", "size"), equal=(None,), reverse=reverse)
            await store.scan("s", "thing", index=("size",), after=3, reverse=reverse)
            await store.scan("s", "line", index=("who", "position"), equal=(3,), reverse=reverse)
        await store.get("s", "thing", ("a", 1))
        await store.get_many("s", "thing", [("a", n) for n in range(100)])
        await store.count("s", "thing", equal={"room": "a"})
        await self.analyzed(postgres_url)
        for sql, values in asked:
            async with store._readers.session() as connection:
                plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {sql}", *values))
            assert "Index" in plan
            assert "Sort " not in plan and "Seq Scan" not in plan and "Filter" not in plan, plan


async def opened(url: str) -> PostgresStore:
    store = PostgresStore(url)
    await store.open()
    await store.declare("s", SCHEMA)
    return store


async def lease(url: str, change: str = "") -> asyncpg.Record:
    """Returns the lease after a change by another process."""
    connection = await asyncpg.connect(url)
    try:
        if change:
            await connection.execute(f"UPDATE hansa_lease SET {change}")
        return await connection.fetchrow("SELECT *, until > clock_timestamp() AS held FROM hansa_lease")
    finally:
        await connection.close()


ELSEWHERE = "token = 'theirs', host = 'elsewhere', namespace = 'another kernel'"


async def test_a_lease_of_another_machine_that_is_gone_is_waited_for(postgres_url):
    await (await opened(postgres_url)).close()
    await lease(postgres_url, f"{ELSEWHERE}, until = clock_timestamp() + interval '0.5 s'")
    await (await opened(postgres_url)).close()


async def test_a_process_of_another_machine_that_lives_is_named(postgres_url, monkeypatch):
    await (await opened(postgres_url)).close()
    await lease(postgres_url, f"{ELSEWHERE}, until = clock_timestamp() + interval '60 s'")
    waiting = asyncio.ensure_future(PostgresStore(postgres_url).open())
    await until("it is waited for", lambda: listens(postgres_url))
    await lease(postgres_url, "until = until + interval '1 s'")
    await noted(postgres_url)
    with pytest.raises(StoreError, match="on elsewhere"):
        await waiting
    monkeypatch.setattr(postgres_lease, "_WAIT_TIMEOUT_S", 0.2)
    with pytest.raises(StoreError, match="on elsewhere"):
        await PostgresStore(postgres_url).open()


async def test_a_lease_that_the_clock_put_far_ahead_is_not_waited_for(postgres_url, monkeypatch):
    """The database's clock was put back by an hour after the holder died."""
    await (await opened(postgres_url)).close()
    await lease(postgres_url, f"{ELSEWHERE}, until = clock_timestamp() + interval '1 h'")
    monkeypatch.setattr(postgres_lease, "SECONDS", 0.3)
    monkeypatch.setattr(postgres_lease, "_WAIT_TIMEOUT_S", 0.5)
    await (await opened(postgres_url)).close()


async def test_processes_that_meet_an_empty_database_at_once_agree_on_one(postgres_url):
    stores = [PostgresStore(postgres_url) for _ in range(6)]
    met = await asyncio.gather(*(store.open() for store in stores), return_exceptions=True)
    assert met.count(None) == 1, met
    assert [one for one in met if one is not None and not isinstance(one, InUse)] == []
    for store in stores:
        await store.close()


class _Meanwhile:
    """A connection: another store is opened after its first answer to a question about a table."""

    def __init__(self, connection: asyncpg.Connection, other: PostgresStore) -> None:
        self._connection = connection
        self._other: PostgresStore | None = other

    async def fetchval(self, sql: str, *values: object) -> object:
        answer = await self._connection.fetchval(sql, *values)
        if "to_regclass" in sql and self._other is not None:
            other, self._other = self._other, None
            await other.open()
        return answer

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


async def test_a_database_that_another_store_makes_between_two_questions_is_in_use(postgres_url, monkeypatch):
    store, other = PostgresStore(postgres_url), PostgresStore(postgres_url)
    connect, waiting = asyncpg.connect, [other]

    async def connected(*values: object, **settings: object):
        connection = await connect(*values, **settings)
        return _Meanwhile(connection, waiting.pop()) if waiting else connection

    monkeypatch.setattr(asyncpg, "connect", connected)
    with pytest.raises(InUse):
        await store.open()
    assert await other.count("", "schema") == 0
    await other.close()


@pytest.mark.parametrize("done", ["DELETE FROM hansa_lease", "DROP TABLE hansa_lease"])
async def test_a_database_whose_last_position_is_lost_is_refused(done, postgres_url):
    store = await opened(postgres_url)
    await store.commit("s", [Append("line")])
    await store.close()
    await executed(postgres_url, done)
    with pytest.raises(StoreError, match="hansa_lease has lost its row"):
        await opened(postgres_url)


async def test_a_backup_that_is_put_in_the_place_of_what_runs_is_noticed_with_the_next_commit(postgres_url):
    """``pg_restore --clean`` beside a Hansa that runs: its sessions go on, and the token is its own."""
    store = await opened(postgres_url)
    await store.commit("s", [Append("line"), Append("line")])
    before = await lease(postgres_url)
    await store.commit("s", [Append("line"), Append("line")])
    await executed(postgres_url, "DELETE FROM suite_line WHERE position > 2")
    await lease(postgres_url, f"position = {before['position']}, number = {before['number']}")
    with pytest.raises(StoreLost, match="restored backup"):
        await store.commit("s", [Append("line")])
    await store.close()
    await lease(postgres_url, "until = clock_timestamp()")
    again = await opened(postgres_url)
    assert await again.count("s", "line") == 2
    await again.close()


async def test_whoever_waits_for_another_machine_is_woken_when_that_lets_go(postgres_url):
    first = await opened(postgres_url)
    await lease(postgres_url, "namespace = 'another kernel', until = clock_timestamp() + interval '60 s'")
    first._timer.cancel()
    second = PostgresStore(postgres_url)
    waiting = asyncio.ensure_future(second.open())
    await until("it is waited for", lambda: listens(postgres_url))
    await first.close()
    async with asyncio.timeout(5):
        await waiting
    await second.close()


async def listens(url: str) -> bool:
    connection = await asyncpg.connect(url)
    try:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE (query LIKE 'LISTEN%' OR query LIKE '%AS left%')"
        return bool(
            await connection.fetchval(f"{sql} AND datname = current_database() AND pid <> pg_backend_pid()")
        )
    finally:
        await connection.close()


async def executed(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(sql)
    await connection.close()


async def noted(url: str) -> None:
    await executed(url, "SELECT pg_notify('hansa_lease', '')")


async def test_a_process_of_this_machine_that_is_no_more_is_not_waited_for(postgres_url):
    await (await opened(postgres_url)).close()
    store = await opened(postgres_url)
    await lease(postgres_url, "born = '1'")
    await (await opened(postgres_url)).close()
    await store.close()


async def test_who_lost_the_database_writes_and_reads_nothing_more(postgres_url):
    store = await opened(postgres_url)
    await lease(postgres_url, "until = clock_timestamp()")
    second = await opened(postgres_url)
    for _ in range(2):
        with pytest.raises(StoreLost):
            await store.commit("s", [Put("thing", ("a", 1)), Append("line")])
    assert isinstance(await store.lost(), StoreLost)
    with pytest.raises(StoreLost):
        await store.get("s", "thing", ("a", 1))
    assert await second.count("s", "thing") == 0
    await store.close()
    await second.commit("s", [Put("thing", ("a", 1))])
    await second.close()


async def test_the_lease_is_kept_while_nothing_is_written(postgres_url, monkeypatch):
    monkeypatch.setattr(postgres, "SECONDS", 0.15)
    store = await opened(postgres_url)
    await lease(postgres_url, "until = clock_timestamp() - interval '1000 s'")

    async def extended() -> bool:
        return (await lease(postgres_url))["held"]

    await until("the lease is extended", extended, 10)
    await store.close()
    assert (await lease(postgres_url))["token"] == ""


async def test_the_password_is_in_no_error_and_no_log(postgres_url, postgres_server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    server, _, database = postgres_url.removeprefix("postgres://").rpartition("@")[2].partition("/")
    nobody = f"postgres://ann:s3cr%21et@127.0.0.1:9/{database}"
    urls = [f"postgres://ann:s3cr%21et@{server}/{database}", nobody, f"{nobody}?sslpassword=s3cr%21et"]
    for url in urls:
        store = PostgresStore(url)
        with pytest.raises(StoreError) as caught:
            await store.open()
        assert "PostgreSQL " in str(caught.value)
        for text in (str(caught.value), repr(store), caplog.text):
            assert "s3cr!et" not in text and "s3cr%21et" not in text
    assert "127.0.0.1:9" in str(caught.value)


async def test_a_database_whose_text_is_not_unicode_is_refused_with_what_to_do(postgres_server):
    url = postgres_server.database()
    name = url.rpartition("/")[2]
    postgres_server.sql(f"DROP DATABASE {name}")
    postgres_server.sql(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StoreError, match="is LATIN1: make the database with ENCODING 'UTF8'"):
        await PostgresStore(url).open()
