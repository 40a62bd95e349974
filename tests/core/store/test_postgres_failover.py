"""A primary and a standby by streaming replication: what is acknowledged outlives the primary, and what a standby
had not got is not taken for kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hansa.store import postgres_writer
from hansa.store.base import Append, Insert
from hansa.store.faults import FaultKind, StoreFault, StoreLost
from hansa.store.postgres import PostgresStore
from hansa.testing.store_suite import SCHEMA
from peers.postgres_pair import Pair, off
from peers.waiting import until


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    made = Pair()
    try:
        yield await made.start()
    finally:
        made.stop()


async def opened(url: str) -> PostgresStore:
    store = PostgresStore(url)
    await store.open()
    await store.declare("s", SCHEMA)
    return store


def batch(number: int):
    return [Insert("thing", ("a", number), b"x"), Append("line", b"", {"who": number})]


async def test_a_standby_that_is_promoted_has_all_that_was_acknowledged_and_hansa_goes_on(pair):
    await pair.wait_for_the_standby()
    store = await opened(pair.url)
    acknowledged: list[int] = []
    numbers = iter(range(100_000))
    going = True

    async def write() -> None:
        while going:
            number = next(numbers)
            while True:
                try:
                    await store.commit("s", batch(number))
                except StoreFault as fault:
                    if fault.kind is not FaultKind.AWAY:
                        raise
                else:  # nothing was kept of what failed: it is sent again
                    break
            acknowledged.append(number)
            assert await store.get("s", "thing", ("a", number)) is not None

    async def more(count: int) -> None:
        wanted = len(acknowledged) + count

        async def enough() -> bool:
            for writer in writers:
                if writer.done():
                    writer.result()
            return len(acknowledged) >= wanted

        await until(f"{count} more are acknowledged", enough, 90)

    writers = [asyncio.ensure_future(write()) for _ in range(16)]
    await more(200)
    pair.first.kill()
    await pair.promote()
    await more(200)
    going = False
    await asyncio.gather(*writers)
    rows = await store.scan("s", "line", limit=10_000)
    assert sorted(row.fields["who"] for row in rows) == sorted(acknowledged)
    assert [row.position for row in rows] == list(range(1, len(rows) + 1))
    assert await store.count("s", "thing") == len(acknowledged)
    where = pair.second.sql("SELECT count(*) FROM suite_line", pair.on_second)
    assert int(where) == len(acknowledged)
    await store.close()


async def test_what_the_standby_had_not_got_is_not_taken_for_kept(pair):
    """Without ``synchronous_standby_names``: the process ends, and starts from what there is."""
    store = await opened(pair.url)
    await store.commit("s", batch(1))
    pair.second.kill()
    assert await store.commit("s", batch(2)) == [2]
    pair.first.kill()
    await off(pair.second.start)
    await pair.promote()
    with pytest.raises(StoreLost, match="went back behind what it had kept"):
        await store.commit("s", batch(3))
    await store.close()
    pair.second.sql("UPDATE hansa_lease SET born = '1'", pair.on_second)  # that process has ended
    again = await opened(pair.url)
    assert await again.commit("s", batch(2)) == [2]
    assert [row.key[1] for row in await again.scan("s", "thing")] == [1, 2]
    await again.close()


async def test_nothing_is_acknowledged_while_the_standby_that_is_waited_for_is_away(pair, monkeypatch):
    monkeypatch.setattr(postgres_writer, "_BEGIN", 0.5)
    await pair.wait_for_the_standby()
    store = await opened(pair.url)
    pair.second.kill()
    waits = asyncio.ensure_future(store.commit("s", batch(1)))
    await until("the commit waits for the standby", lambda: off(pair.waits))
    with pytest.raises(StoreFault) as caught:
        await store.commit("s", batch(2))
    assert caught.value.kind is FaultKind.AWAY
    assert not waits.done()
    await off(pair.second.start)
    assert await waits == [1]
    assert [row.key[1] for row in await store.scan("s", "thing")] == [1]
    await store.close()


async def test_a_session_that_is_cut_off_while_the_standby_is_waited_for_learns_its_result(pair, monkeypatch):
    """The commit is in the primary's own log already: it is seen when the standby has it, and not before."""
    monkeypatch.setattr(postgres_writer, "_ANSWER_TIMEOUT_S", 1.0)
    await pair.wait_for_the_standby()
    store = await opened(pair.url)
    session = store._writer._session
    pair.second.kill()
    waits = asyncio.ensure_future(store.commit("s", batch(1)))
    while store._writer._session is session:
        await asyncio.sleep(0.01)
    assert not waits.done()
    await off(pair.second.start)
    assert await waits == [1]
    assert [row.key[1] for row in await store.scan("s", "thing")] == [1]
    assert await store.commit("s", batch(2)) == [2]
    await store.close()


async def test_who_ends_the_wait_for_a_standby_acknowledges_nothing(pair):
    """The server then says that the commit is done, and warns."""
    await pair.wait_for_the_standby()
    store = await opened(pair.url)
    pair.second.kill()
    commit = asyncio.ensure_future(store.commit("s", batch(1)))
    session = store._writer._session
    await until("the commit waits for the standby", lambda: off(pair.waits))
    sql = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    await off(pair.first.sql, sql)
    while store._writer._session is session:
        await asyncio.sleep(0.01)
    await until("its result is asked for, which waits too", lambda: off(pair.waits))
    assert not commit.done()
    await off(pair.second.start)
    assert await commit == [1]
    assert [row.key[1] for row in await store.scan("s", "thing")] == [1]
    await store.close()
