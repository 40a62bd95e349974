"""Failures between the store and PostgreSQL, on the wire to a real server or raised by the server.

In every case a batch is there whole and once, or not at all, and an error was raised if it is not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from urllib.parse import urlsplit

import asyncpg
import pytest
from hansa.store import postgres, postgres_writer
from hansa.store.base import Append, Conflict, Delete, Insert, Put, StoreError
from hansa.store.faults import FaultKind, ResultUnknown, StoreFault, StoreLost, postgres_kind
from hansa.store.postgres import PostgresStore
from hansa.testing.store_suite import SCHEMA
from peers.postgres import Postgres
from peers.process import free_port
from peers.waiting import until

#: What every batch of these tests has in it, and nothing else that is sent.
MARK = b"-marked-"


class Wire:
    """A cable to the server. ``plan``: what happens to the next messages that have a batch in them. ``before``:
    the session ends and the server never sees it. ``after``: the server's answer is lost with the session.
    ``late``: the session ends, and the server sees it when the test says so. ``silent``: no answer ever comes.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = free_port()
        self.plan: deque[str] = deque()
        self.held: list[tuple[asyncio.StreamWriter, bytes]] = []
        self.seen = 0
        self._far = (host, port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task] = set()
        self._ends: set[asyncio.StreamWriter] = set()

    async def lay(self) -> Wire:
        self._server = await asyncio.start_server(self._passed, "127.0.0.1", self.port)
        return self

    async def cut(self) -> None:
        """Nobody gets through until it is laid again."""
        self._server.close()
        for end in list(self._ends):
            end.transport.abort()
        await asyncio.gather(*self._tasks)

    async def _passed(self, reader, writer) -> None:
        self._tasks.add(asyncio.current_task())
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._far)
            self._ends |= {writer, far_writer}
            state = SimpleNamespace(deaf="")
            pumps = [self._out(reader, far_writer, writer, state), self._back(far_reader, writer, state)]
            await asyncio.gather(*pumps)
            writer.close()
            far_writer.close()
            self._ends -= {writer, far_writer}
        finally:
            self._tasks.discard(asyncio.current_task())

    async def _out(self, reader, far, near, state) -> None:
        while data := await read(reader):
            if MARK in data:
                self.seen += 1
                now = self.plan.popleft() if self.plan else ""
                if now in {"before", "late"}:
                    if now == "late":
                        self.held.append((far, data))
                    near.transport.abort()
                    if now == "before":
                        far.transport.abort()
                    return
                state.deaf = now
            far.write(data)
        if state.deaf != "silent" and not any(held is far for held, _ in self.held):
            far.close()

    async def _back(self, far_reader, near, state) -> None:
        while data := await read(far_reader):
            if state.deaf == "after":
                near.transport.abort()
                return
            if state.deaf != "silent":
                near.write(data)
        near.close()


async def read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 20)
    except OSError:
        return b""


@pytest.fixture
async def made(postgres_url) -> AsyncIterator[SimpleNamespace]:
    parts = urlsplit(postgres_url)
    wire = await Wire(parts.hostname, parts.port or 5432).lay()
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    through = parts._replace(netloc=f"{login}127.0.0.1:{wire.port}").geturl()
    store = PostgresStore(through)
    await store.open()
    await store.declare("s", SCHEMA)
    yield SimpleNamespace(store=store, wire=wire, url=postgres_url, through=through)
    await store.close()
    await wire.cut()


def batch(number: int):
    return [
        Insert("thing", ("a", number), b"%d%s" % (number, MARK)),
        Append("line", MARK, {"who": number}),
        Append("line", MARK, {"who": number}),
    ]


async def whole(store: PostgresStore, numbers: list[int]) -> bool:
    things = [row.key[1] for row in await store.scan("s", "thing", equal=("a",))]
    rows = await store.scan("s", "line")
    return (
        things == numbers
        and [row.fields["who"] for row in rows] == [n for n in numbers for _ in range(2)]
        and [row.position for row in rows] == list(range(1, len(rows) + 1))
    )


async def asked(url: str, sql: str) -> list:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(sql)
    finally:
        await connection.close()


@pytest.mark.parametrize("faults", [["before"], ["after"], ["before", "before", "after"], ["before"] * 3])
async def test_what_was_cut_off_is_there_once(made, faults):
    made.wire.plan.extend(faults)
    assert await made.store.commit("s", batch(1)) == [1, 2]
    assert not made.wire.plan
    assert await made.store.commit("s", batch(2)) == [3, 4]
    assert await whole(made.store, [1, 2])
    assert await made.store.position() == 4


async def test_a_whole_group_that_was_cut_off_is_there_once(made):
    made.wire.plan.extend(["after", "before", "after"])
    got = await asyncio.gather(*(made.store.commit("s", batch(n)) for n in range(200)))
    assert got == [[2 * n + 1, 2 * n + 2] for n in range(200)]
    assert not made.wire.plan
    assert await whole(made.store, list(range(200)))


async def test_what_reaches_the_server_after_its_sender_gave_it_up_is_not_kept(made):
    """The token of the session that sent it is another's by then."""
    made.wire.plan.append("late")
    appends = [Append("line", MARK, {"who": 1})] * 2  # nothing that would be a conflict
    assert await made.store.commit("s", appends) == [1, 2]
    ((far, data),) = made.wire.held
    far.write(data)
    await far.drain()

    async def ended() -> bool:
        rows = await asked(
            made.url, "SELECT state, query FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )
        return not any(state == "active" and "hansa_write" in query for state, query in rows)

    await until("the server has done with it", ended)
    far.close()
    assert await made.store.commit("s", batch(2)) == [3, 4]
    assert await made.store.count("s", "line") == 4


async def test_a_server_that_does_not_answer_is_asked_in_another_session(made, monkeypatch):
    monkeypatch.setattr(postgres_writer, "_ANSWER_TIMEOUT_S", 0.5)
    made.wire.plan.append("silent")
    assert await made.store.commit("s", batch(1)) == [1, 2]
    assert made.wire.seen == 1
    assert await whole(made.store, [1])


async def test_a_large_batch_has_more_time_for_its_answer(made, monkeypatch):
    slow = "BEGIN PERFORM pg_sleep(0.8); RETURN NEW; END"
    await asked(made.url, f"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ {slow} $$")
    await asked(
        made.url,
        "CREATE TRIGGER slow BEFORE INSERT ON suite_thing FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    monkeypatch.setattr(postgres_writer, "_ANSWER_TIMEOUT_S", 0.1)
    monkeypatch.setattr(postgres_writer, "_ROWS_A_SECOND", 1)
    assert await made.store.commit("s", batch(1)) == [1, 2]
    assert made.wire.seen == 1


async def test_what_waits_behind_an_open_result_fails_and_the_result_comes(made, monkeypatch):
    monkeypatch.setattr(postgres_writer, "_BEGIN", 0.3)
    monkeypatch.setattr(postgres_writer, "_STILL", 0.1)
    made.wire.plan.append("after")
    first = asyncio.ensure_future(made.store.commit("s", batch(1)))
    while made.wire.plan:
        await asyncio.sleep(0)
    await made.wire.cut()
    for _ in range(2):
        with pytest.raises(StoreFault) as caught:
            await made.store.commit("s", batch(2))
        assert caught.value.kind is FaultKind.AWAY
    assert not first.done()
    await made.wire.lay()
    await first
    positions = await made.store.commit("s", batch(3))
    assert await first == [1, 2] and positions == [3, 4]
    assert await whole(made.store, [1, 3])


async def test_a_store_that_is_closed_before_it_is_known_says_that_it_is_not(made, monkeypatch):
    monkeypatch.setattr(postgres_writer, "CLOSING", 0.3)
    made.wire.plan.append("after")
    first = asyncio.ensure_future(made.store.commit("s", batch(1)))
    while made.wire.plan:
        await asyncio.sleep(0)
    await made.wire.cut()
    behind = asyncio.ensure_future(made.store.commit("s", batch(2)))
    async with asyncio.timeout(10):
        await made.store.close()
        with pytest.raises(ResultUnknown):
            await first
        with pytest.raises(StoreError):
            await behind


async def test_nothing_was_begun_while_the_database_was_away_and_that_is_said(made, monkeypatch):
    monkeypatch.setattr(postgres_writer, "_BEGIN", 0.3)
    await made.wire.cut()
    with pytest.raises(StoreFault) as caught:
        await made.store.commit("s", batch(1))
    assert caught.value.kind is FaultKind.AWAY
    await made.wire.lay()
    assert await made.store.commit("s", batch(2)) == [1, 2]
    assert await whole(made.store, [2])


async def test_reads_wait_for_a_database_that_comes_back(made):
    await made.store.commit("s", batch(1))
    await made.wire.cut()
    read = asyncio.ensure_future(whole(made.store, [1]))
    await asyncio.wait({read}, timeout=0.3)
    assert not read.done()
    await made.wire.lay()
    assert await read


async def test_the_patience_of_a_read_ends_and_says_so(made, monkeypatch):
    monkeypatch.setattr(postgres, "_READ_PATIENCE", 0.2)
    await made.wire.cut()
    with pytest.raises(StoreFault) as caught:
        await made.store.get("s", "thing", ("a", 1))
    assert caught.value.kind is FaultKind.AWAY


async def test_a_read_that_nobody_waits_for_any_more_costs_no_session(made):
    await made.store.commit("s", batch(1))
    pids = {row["pid"] for row in await asked(made.url, "SELECT pid FROM pg_stat_activity")}
    for _ in range(30):
        read = asyncio.ensure_future(made.store.get("s", "thing", ("a", 1)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read
    assert (await made.store.get("s", "thing", ("a", 1))).key == ("a", 1)
    after = {
        row["pid"] for row in await asked(made.url, "SELECT pid FROM pg_stat_activity WHERE usename = user")
    }
    assert len(after - pids) <= 1 + postgres._READERS


async def test_sessions_that_are_ended_all_the_time_lose_and_double_nothing(made):
    ending = True

    async def end() -> None:
        while ending:
            await asked(
                made.url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'hansa' AND datname = current_database()",
            )
            before = made.store.transactions
            while ending and made.store.transactions < before + 3:
                await asyncio.sleep(0)

    async def write(first: int) -> None:
        for n in range(first, 200, 4):
            await made.store.commit("s", batch(n))
            assert (await made.store.get("s", "thing", ("a", n))).body == b"%d%s" % (n, MARK)

    killer = asyncio.ensure_future(end())
    await asyncio.gather(*(write(n) for n in range(4)))
    ending = False
    await killer
    things = [row.key[1] for row in await made.store.scan("s", "thing", equal=("a",))]
    lines = [row.fields["who"] for row in await made.store.scan("s", "line")]
    assert things == list(range(200))
    assert sorted(lines) == [n for n in range(200) for _ in range(2)]


async def forget(url: str, commits: int, positions: int) -> None:
    """Lose the last commits, as a crash loses what was not on the disk, and the sessions with them."""
    sql = f"""
        DELETE FROM suite_line WHERE position > (SELECT position - {positions} FROM hansa_lease);
        DELETE FROM suite_thing WHERE body LIKE '%lazy%';
        UPDATE hansa_lease SET number = number - {commits}, position = position - {positions};
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'hansa' AND datname = current_database();
    """
    connection = await asyncpg.connect(url)
    await connection.execute(sql)
    await connection.close()


async def test_what_was_lazy_and_is_lost_is_written_again(made):
    await made.store.commit("s", batch(1))
    for n in (2, 3, 4):
        writes = [Put("thing", ("b", n), b"lazy"), Append("line", b"", {"who": n})]
        assert await made.store.commit("s", writes, durability="lazy") == [n + 1]
    await forget(made.url, commits=2, positions=2)
    assert await made.store.commit("s", batch(5)) == [6, 7]
    assert [row.fields["who"] for row in await made.store.scan("s", "line")] == [1, 1, 2, 3, 4, 5, 5]
    assert {(r.key[1], r.body) for r in await made.store.scan("s", "thing", equal=("b",))} >= {
        (3, b"lazy"),
        (4, b"lazy"),
    }


async def test_only_what_is_lazy_does_not_wait_for_the_disk(made):
    settings = []
    await asked(
        made.url,
        "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "NEW.body := current_setting('synchronous_commit')::bytea; RETURN NEW; END $$",
    )
    await asked(
        made.url, "CREATE TRIGGER noted BEFORE INSERT ON suite_thing FOR EACH ROW EXECUTE FUNCTION noted()"
    )
    for n, durability in enumerate(("lazy", "full", "lazy")):
        await made.store.commit("s", [Put("thing", ("a", n))], durability=durability)
        settings.append((await made.store.get("s", "thing", ("a", n))).body)
    assert settings == [b"off", b"on", b"off"]
    await asyncio.gather(
        made.store.commit("s", [Put("thing", ("b", 1))], durability="lazy"),
        made.store.commit("s", [Put("thing", ("b", 2))]),
        made.store.commit("s", [Put("thing", ("b", 3))], durability="lazy"),
    )
    mixed = [row.body for row in await made.store.scan("s", "thing", equal=("b",))]
    assert mixed[1] == b"on"


async def test_a_server_that_waits_for_no_disk_by_default_is_told_to(made):
    await asked(
        made.url,
        "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "NEW.body := current_setting('synchronous_commit')::bytea; RETURN NEW; END $$",
    )
    await asked(
        made.url, "CREATE TRIGGER noted BEFORE INSERT ON suite_thing FOR EACH ROW EXECUTE FUNCTION noted()"
    )
    name = urlsplit(made.url).path.strip("/")
    for given, wanted in (("off", b"on"), ("remote_apply", b"remote_apply")):
        await asked(made.url, f"ALTER DATABASE {name} SET synchronous_commit = {given}")
        made.store._writer._drop_session()
        await made.store.commit("s", [Put("thing", ("a", 1))])
        assert (await made.store.get("s", "thing", ("a", 1))).body == wanted
        await made.store.commit("s", [Delete("thing", ("a", 1))])


async def test_nothing_is_read_from_another_server_than_the_one_that_is_written_to(made):
    """After a failover the primary of before may still answer."""
    await made.store.commit("s", batch(1))
    assert await whole(made.store, [1])
    readers = made.store._readers
    here = readers._server
    readers.moved("another")
    read = asyncio.ensure_future(whole(made.store, [1]))
    await asyncio.wait({read}, timeout=0.3)
    assert not read.done()
    readers.moved(here)
    assert await read


async def test_a_database_that_went_back_behind_what_it_had_acknowledged_ends_the_process(made):
    """As after a failover to a standby that had not received the last commits."""
    await made.store.commit("s", batch(1))
    await made.store.commit("s", batch(2))
    await forget(made.url, commits=1, positions=2)
    with pytest.raises(StoreLost, match="went back behind what it had kept"):
        await made.store.commit("s", batch(3))
    assert isinstance(await made.store.lost(), StoreLost)
    with pytest.raises(StoreLost):
        await made.store.get("s", "thing", ("a", 1))


async def raising(url: str, state: str, times: int) -> None:
    """The next writes of things whose room is ``bad`` fail with an SQLSTATE."""
    await asked(url, "CREATE SEQUENCE raised")
    await asked(
        url,
        f"CREATE FUNCTION raising() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF nextval('raised') <= {times} THEN RAISE EXCEPTION USING ERRCODE = '{state}', "
        f"MESSAGE = 'no', DETAIL = NEW.body::text; END IF; RETURN NEW; END $$",
    )
    await asked(
        url,
        "CREATE TRIGGER raising BEFORE INSERT ON suite_thing FOR EACH ROW WHEN (NEW.room = 'bad') "
        "EXECUTE FUNCTION raising()",
    )


@pytest.mark.parametrize("state", ["40001", "40P01", "57P01", "57P03", "25006"])
async def test_what_can_be_done_again_is_done_once(made, state):
    await raising(made.url, state, times=3)
    writes = [*batch(1), Put("thing", ("bad", 1), b"secret")]
    assert await made.store.commit("s", writes) == [1, 2]
    assert (await asked(made.url, "SELECT last_value FROM raised"))[0][0] == 4
    assert await whole(made.store, [1])


@pytest.mark.parametrize(
    ("state", "kind"),
    [("53100", "full"), ("XX001", "damaged"), ("XX002", "damaged"), ("55P03", "locked"), ("42501", "forbidden"),
     ("58030", "failing"), ("57014", "away")],
)  # fmt: skip
async def test_what_the_server_cannot_do_is_named_and_shows_nothing_of_what_was_written(made, state, kind):
    await raising(made.url, state, times=1)
    with pytest.raises(StoreFault) as caught:
        await made.store.commit("s", [*batch(1), Put("thing", ("bad", 1), b"secret")])
    assert caught.value.kind.value == kind
    assert state in str(caught.value)
    assert "secret" not in str(caught.value) and b"secret".hex() not in str(caught.value)
    assert caught.value.__cause__ is None
    assert await made.store.commit("s", batch(2)) == [1, 2]
    assert await whole(made.store, [2])


@pytest.mark.parametrize("state", ["22003", "23514", "54000"])
async def test_what_is_not_taken_harms_only_its_own_batch(made, state):
    await raising(made.url, state, times=100)
    batches = [batch(n) for n in range(6)]
    batches[3] = [*batch(3), Put("thing", ("bad", 1), b"secret")]
    done = await asyncio.gather(*(made.store.commit("s", one) for one in batches), return_exceptions=True)
    assert [isinstance(one, StoreError) for one in done] == [n == 3 for n in range(6)]
    assert not isinstance(done[3], StoreFault | Conflict) and "secret" not in str(done[3])
    assert await whole(made.store, [0, 1, 2, 4, 5])


async def test_a_server_that_takes_no_writes_is_told_as_such_until_it_takes_them(made, monkeypatch):
    monkeypatch.setattr(postgres_writer, "_BEGIN", 0.3)
    name = urlsplit(made.url).path.strip("/")
    await asked(made.url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with contextlib.suppress(asyncpg.PostgresError):
        await asked(
            made.url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'hansa'",
        )
    monkeypatch.setattr(postgres_writer, "_STILL", 0.1)
    first = asyncio.ensure_future(made.store.commit("s", batch(1)))
    while made.store._writer._trouble is None:
        await asyncio.sleep(0)
    for _ in range(2):  # of the first it may be open whether it was kept
        with pytest.raises(StoreFault) as caught:
            await made.store.commit("s", batch(2))
        assert caught.value.kind is FaultKind.READ_ONLY
    server = urlsplit(made.url)._replace(path="/postgres").geturl()
    await asked(server, f"ALTER DATABASE {name} RESET default_transaction_read_only")
    (told,) = await asyncio.gather(first, return_exceptions=True)
    assert told == [1, 2] or (isinstance(told, StoreFault) and told.kind is FaultKind.READ_ONLY)
    kept = [1] if told == [1, 2] else []
    await made.store.commit("s", batch(3))
    assert await whole(made.store, [*kept, 3])


@pytest.mark.parametrize(
    ("state", "kind"),
    [("", "away"), ("08006", "away"), ("57P01", "away"), ("57P03", "away"), ("53100", "full"),
     ("53300", "away"), ("25006", "read-only"), ("XX001", "damaged"), ("XX002", "damaged"), ("XX000", "failing"),
     ("28P01", "failing"), ("3D000", "failing"), ("58P01", "damaged")],
)  # fmt: skip
def test_sqlstates_have_a_kind(state, kind):
    assert postgres_kind(state).value == kind


@pytest.fixture
def mortal() -> Iterator[Postgres]:
    """A database of this test alone, which may be killed."""
    server = Postgres().start()
    yield server
    server.stop()


async def test_a_server_that_is_killed_and_comes_back_has_everything_once(mortal):
    store = PostgresStore(mortal.database())
    await store.open()
    await store.declare("s", SCHEMA)
    for round_ in range(3):
        first = round_ * 100
        work = [asyncio.ensure_future(store.commit("s", batch(first + n))) for n in range(100)]
        await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        mortal.kill()
        await asyncio.get_running_loop().run_in_executor(None, mortal.start)
        await asyncio.gather(*work)
    things = [row.key[1] for row in await store.scan("s", "thing", equal=("a",))]
    assert things == list(range(300))
    assert await store.count("s", "line") == await store.position() == 600
    await store.close()
