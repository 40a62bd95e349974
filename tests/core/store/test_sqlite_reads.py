"""SQLite: what is read by key is looked up by key, however many keys and however large the table."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from hansa.store.base import Collection, Key
from hansa.store.sqlite_tables import make, reads, table

ALIAS = Collection(name="alias", key={"network": str, "native": str}, fields={"seq": int})
PDU = Collection(name="pdu", key={"event_id": str})


def keys_of(count: int) -> list[Key]:
    return [("matrix" if n % 3 else "xmpp", f"${n}") for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 50, 200, 700])
def test_reads_by_key_are_looked_up_in_the_whole_primary_key(count: int) -> None:
    alias = table("core", ALIAS)
    with closing(sqlite3.connect(":memory:")) as db:
        make(db, [alias])
        rows = [("", *key, n, b"") for n, key in enumerate(keys_of(2 * count))]
        db.executemany(alias.insert, rows)
        found = []
        for sql, values in reads(alias, "", keys_of(count)):
            plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
            assert all("network=? AND native=?" in step for step in plan), plan
            found += db.execute(sql, values).fetchall()
    assert sorted(row[:2] for row in found) == sorted(keys_of(count))


def test_few_statements_for_any_number_of_keys() -> None:
    pdu = table("matrix", PDU)
    texts = {sql for n in range(1, 300) for sql, _ in reads(pdu, "", [(f"${i}",) for i in range(n)])}
    assert len(texts) <= 10
