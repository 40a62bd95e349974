"""One store into another: complete, resumable, verified, and never over existing rows."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hansa.bus.integrity_check import check_rows
from hansa.bus.schema import SCHEMA as CORE
from hansa.environment import SystemClock
from hansa.store import catalogue
from hansa.store.base import Append, Collection, Delete, Put, Schema, StoreError
from hansa.store.health import StoreHealth, WatchedStore
from hansa.store.memory import MemoryStore
from hansa.store.sqlite import SqliteStore
from hansa.store.store_copy import NotTheSame, copy_store
from hansa.testing.store_suite import SCHEMA, THING

BIG = Schema(owner="big", version=3, collections=(Collection(name="file", key={"id": str}, heap=True),))


async def _filled(path: Path | None = None) -> WatchedStore:
    store = WatchedStore(SqliteStore(path) if path else MemoryStore(), StoreHealth(SystemClock()))
    await store.open()
    await store.declare("", CORE)
    await store.declare("s", SCHEMA)
    await store.declare("policy:words", BIG)
    for room in ("a", "b"):
        await store.commit("s", [Put("thing", (room, at), bytes([at]), {"color": room}) for at in range(150)])
    await store.commit("s", [Append("line", b"%d" % n, {"who": n}) for n in range(250)])
    await store.commit("s", [Delete("line", (249,)), Delete("line", (250,))])
    await store.commit("policy:words", [Put("file", (str(n),), bytes(900_000)) for n in range(12)])
    await store.commit("", [Put("alias", ("matrix", "$ä"), b"", {"room": "r", "seq": 1})])
    return store


async def _target(path: Path) -> SqliteStore:
    store = SqliteStore(path)
    await store.open()
    return store


class _Broken(Exception):
    pass


async def test_a_copy_has_every_row_and_goes_on_counting_behind_the_last_position(tmp_path):
    source, target = await _filled(), await _target(tmp_path / "to.db")
    told: list[tuple[int, int]] = []
    found = await copy_store(source, target, lambda *n: told.append(n))
    assert (found.rows, found.resumed, found.position) == (300 + 248 + 12 + 1, False, 250)
    assert told[-1] == (found.rows, found.rows)
    assert await target.get("s", "thing", ("b", 149)) == await source.get("s", "thing", ("b", 149))
    assert await target.get("policy:words", "file", ("3",)) == await source.get(
        "policy:words", "file", ("3",)
    )
    assert await target.commit("s", [Append("line")]) == [251], (
        "the last two are gone, and their positions are not given again"
    )
    assert [s for s, _ in await catalogue.recorded(target)] == ["", "policy:words", "s"]
    assert not (await check_rows(target, lambda *_: None)).wrong
    await target.close()


async def test_a_copy_that_was_broken_off_goes_on_where_it_stood(tmp_path):
    source = await _filled()
    seen: list[int] = []
    for most in (1, 5, 10_000):
        target = await _target(tmp_path / "to.db")

        def told(done: int, of: int, most: int = most) -> None:
            seen.append(done)
            if len(seen) % 10_000 >= most:
                raise _Broken

        with contextlib.suppress(_Broken):
            found = await copy_store(source, target, told)
        if most < 10_000:
            with pytest.raises(StoreError, match="half a copy"):
                await catalogue.check_whole(target)
            with pytest.raises(StoreError, match="half a copy"):
                await copy_store(target, MemoryStore(), told)
            with pytest.raises(StoreError, match="half a copy"):
                await check_rows(target, lambda *_: None)
        else:
            await catalogue.check_whole(target)
        await target.close()
    assert found.resumed and found.rows == 561
    assert seen == sorted(set(seen)), "no row was copied twice"


async def test_a_copy_goes_on_with_what_its_source_is_by_now(tmp_path):
    """Hansa may run on the source between two calls, and the second call may name another source."""
    source, target = await _filled(), await _target(tmp_path / "to.db")

    def broken(done: int, of: int) -> None:
        if done > 400:
            raise _Broken

    with pytest.raises(_Broken):
        await copy_store(source, target, broken)
    await source.commit(
        "s", [Put("thing", ("a", 3), b"changed", {"color": "new"}), Delete("thing", ("a", 4))]
    )
    await source.commit("s", [Put("thing", ("A", 1), b"before the others")])
    found = await copy_store(source, target, lambda *_: None)
    assert found.resumed and found.rows == 561
    for scope, name in (("s", "thing"), ("s", "line"), ("policy:words", "file"), ("", "alias")):
        assert await target.scan(scope, name, limit=10_000) == await source.scan(scope, name, limit=10_000)
    await target.close()


async def test_a_copy_is_not_made_over_rows_that_are_there(tmp_path):
    source, target = await _filled(), await _filled(tmp_path / "mine.db")
    with pytest.raises(StoreError, match="not empty"):
        await copy_store(source, target, lambda *_: None)
    whole = await _target(tmp_path / "to.db")
    await copy_store(source, whole, lambda *_: None)
    with pytest.raises(StoreError, match="not empty"):
        await copy_store(source, whole, lambda *_: None)
    await target.close()
    await whole.close()


class _Forgetful(MemoryStore):
    """Acknowledges what it does not keep as it came."""

    async def get_many(self, scope, collection, keys):
        found = await super().get_many(scope, collection, keys)
        return {key: row for key, row in found.items() if key != ("b", 77)}


async def test_a_row_that_reads_otherwise_ends_the_copy():
    target = _Forgetful()
    await target.open()
    with pytest.raises(NotTheSame, match=r"\('b', 77\) of s/thing"):
        await copy_store(await _filled(), target, lambda *_: None)


async def test_a_database_without_a_catalogue_says_what_to_do():
    source, target = MemoryStore(), MemoryStore()
    for store in (source, target):
        await store.open()
    await source.declare("s", SCHEMA)
    for work in (copy_store(source, target, lambda *_: None), check_rows(source, lambda *_: None)):
        with pytest.raises(StoreError, match="start this Hansa on it once"):
            await work


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"version":1}',
        b'{"version":"1","collections":[]}',
        b'{"version":1,"collections":[{"name":"x","key":{"a":"float"},"fields":{},"indexes":[],"stream":false}]}',
        b'{"version":1,"collections":[{"name":"x","key":{},"fields":{},"indexes":[],"stream":false,"heap":false}]}',
    ],
)
async def test_a_catalogue_that_was_edited_is_named(body):
    source, target = await _filled(), MemoryStore()
    await target.open()
    await source.commit("", [Put(catalogue.NAME, ("s", "suite"), body)])
    for work in (copy_store(source, target, lambda *_: None), check_rows(source, lambda *_: None)):
        with pytest.raises(StoreError, match="of 'suite' in 's': its row was changed or damaged"):
            await work


async def test_the_catalogue_follows_what_is_declared():
    store = WatchedStore(MemoryStore(), StoreHealth(SystemClock()))
    await store.open()
    await store.declare("s", SCHEMA)
    more = Schema(
        owner="suite", version=1, collections=(*SCHEMA.collections, Collection(name="new", key={"a": int}))
    )
    await store.declare("s", more)
    [(scope, found)] = await catalogue.recorded(store)
    assert (scope, [one.name for one in found.collections]) == ("s", ["thing", "line", "new"])
    assert found.collections[0] == THING


async def test_a_check_finds_logs_with_holes_and_positions_beyond_the_end():
    store = await _filled()
    body = b'{"name":"","topic":"","join_rule":"","encrypted":false,"version":"","head":3,"received":0}'
    await store.commit("", [Put("room", ("r",), body), Put("event", ("r", 1)), Put("event", ("r", 3))])
    await store.commit("s", [Put("line", (999,))])
    found = await check_rows(store, lambda *_: None)
    assert found.wrong == [
        "s/line has a row at position 999, and the store ends at 250",
        "the log of room r ends at 3 and has 2 events",
    ]
