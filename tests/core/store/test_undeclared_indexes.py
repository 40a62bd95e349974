"""An index that nothing declares any more costs every write: it is told, and dropped, on each store."""

from __future__ import annotations

import pymongo
import pytest
from hansa.bus.integrity_check import check_rows
from hansa.bus.schema import SCHEMA as CORE
from hansa.store import catalogue, open_store
from hansa.store.base import Collection, Indexed, Schema


def schema(*indexes: tuple[str, ...], name: str = "thing") -> Schema:
    fields = {"size": int, "color": str}
    made = Collection(name=name, key={"id": str}, fields=fields, indexes=indexes)
    # Its name begins as an index of the other one would.
    other = Collection(name=f"{name}_by", key={"id": str}, fields=fields, indexes=(("size",),))
    return Schema(owner="o", version=1, collections=(made, other))


@pytest.fixture(params=["sqlite", "postgres", "mongo"])
def url(request, tmp_path, postgres_url, mongo_url) -> str:
    return {"sqlite": f"sqlite:{tmp_path}/x.db", "postgres": postgres_url, "mongo": mongo_url}[request.param]


def by_hand(url: str, request) -> None:
    """An index that an operator made stays."""
    if url.startswith("postgres"):
        request.getfixturevalue("postgres_server").sql("CREATE INDEX mine ON o_thing (color)", url)
    elif url.startswith("mongo"):
        with pymongo.MongoClient(url) as client:
            client.get_default_database()["network.s.o.thing"].create_index([("color", 1)], name="mine")


def is_there(url: str, request) -> bool:
    if url.startswith("postgres"):
        server = request.getfixturevalue("postgres_server")
        return server.sql("SELECT count(*) FROM pg_indexes WHERE indexname = 'mine'", url) == "1"
    with pymongo.MongoClient(url) as client:
        return "mine" in client.get_default_database()["network.s.o.thing"].index_information()


@pytest.mark.parametrize("name", ["thing", "a_thing_whose_name_is_so_long_that_it_is_cut"])
async def test_it_is_told_and_dropped(url, name, tmp_path, request):
    store = open_store(url, tmp_path)
    await store.open()
    assert isinstance(store, Indexed)
    both = schema(("size",), ("color", "size"), name=name)
    await store.declare("s", both)
    if name == "thing" and not url.startswith("sqlite"):
        by_hand(url, request)
    assert await store.undeclared("s", both) == []
    (found,) = await store.undeclared("s", schema(("size",), name=name))
    assert "color" in found or len(found) == 63
    await store.declare("s", schema(("size",), name=name))
    assert await store.undeclared("s", schema(("size",), name=name)) == []
    # What is declared is there: were it not declared either, it would be told.
    assert len(await store.undeclared("s", schema(name=name))) == 1
    if name == "thing" and not url.startswith("sqlite"):
        assert is_there(url, request)
    await store.close()


async def test_a_check_says_so(url, tmp_path):
    store = open_store(url, tmp_path)
    await store.open()
    for own in (catalogue.SCHEMA, CORE):
        await store.declare("", own)
    await catalogue.record(store, "", CORE)
    await store.declare("s", schema(("size",), ("color", "size")))
    await catalogue.record(store, "s", schema(("size",)))
    found = await check_rows(store, lambda *_: None)
    assert not found.wrong
    (note,) = found.notes
    assert "color" in note and "not declared any more" in note
    assert (await check_rows(store, lambda *_: None)).notes == []
    await store.close()
