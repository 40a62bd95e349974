"""From ``[store] url`` to a store: what is refused, what is kept secret, and what is missing."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing

import pytest
from hansa.config import Mistakes, parse
from hansa.pure.errors import ConfigError
from hansa.store import open_store
from hansa.store.base import Collection, Schema
from hansa.store.mongo import MongoStore
from hansa.store.postgres import PostgresStore
from hansa.store.sqlite import SqliteStore

POSTGRES = "postgres://ann:s3cr%21et@db.example,db2.example:5433/hansa?sslmode=verify-full"
URL = "mongodb://ann:s3cr%21et@db.example,db2.example:27018/hansa?replicaSet=rs0"


def configured(url, folder):
    def no_plugins(name):
        raise ConfigError(name)

    return parse({"server": {"listen": ["http://127.0.0.1:80"]}, "store": {"url": url}}, folder, no_plugins)


@pytest.mark.parametrize("url", [URL, "mongodb+srv://db.example/hansa", "mongodb://[::1]:27017/a-b_c"])
def test_a_mongodb_url_opens_nothing_yet(url, tmp_path):
    assert isinstance(open_store(configured(url, tmp_path).store.url, tmp_path), MongoStore)


@pytest.mark.parametrize(
    "url",
    [
        POSTGRES,
        "postgresql://db.example/hansa",
        "postgres:///hansa?host=/run/postgresql",
        "postgres://[::1]:5433/a-b_c",
    ],
)
def test_a_postgres_url_opens_nothing_yet(url, tmp_path):
    assert isinstance(open_store(configured(url, tmp_path).store.url, tmp_path), PostgresStore)


def test_sqlite_is_relative_to_the_folder(tmp_path):
    assert isinstance(open_store(configured("sqlite:x.db", tmp_path).store.url, tmp_path), SqliteStore)


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://ann:hush@host",
        "mongodb://ann:hush@host/",
        "mongodb://ann:hu/sh@host/hansa",
        "mongodb://ann:hu@sh@host/hansa",
        "mongodb://ann:hush@host/han.sa",
        "mongodb://ann:hush@host/hansa extra",
        "postgres://ann:hush@host",
        "postgres://ann:hush@host/",
        "postgres://ann:hu/sh@host/hansa",
        "postgresql://ann:hu@sh@host/hansa",
        "postgres://ann:hush@host/han.sa",
        "postgres://ann:hush@[::1/hansa",
        "mongodb://ann:hush@[::1/hansa",
        "postgres://ann:hush\u2100@host/hansa",
        "mysql://ann:hush@host/hansa",
        "ann:hush@host/hansa",
        "sqlite:",
        "",
    ],
)
def test_what_is_no_store_is_named_by_its_path_and_not_shown(url, tmp_path):
    for call in (lambda: configured(url, tmp_path), lambda: open_store(url, tmp_path)):
        with pytest.raises(ConfigError) as caught:
            call()
        text = str(caught.value)
        assert text.startswith("store.url: ")
        assert not any(part in text for part in ("ann", "hush", "sh@"))


@pytest.mark.parametrize("url", [URL, POSTGRES])
def test_the_url_may_be_a_secret_and_is_in_no_representation(url, tmp_path, monkeypatch):
    monkeypatch.setenv("HANSA_STORE", url)
    (tmp_path / "url").write_text(f"{url}\n")
    (tmp_path / "url").chmod(0o600)
    for secret in (url, {"env": "HANSA_STORE"}, {"file": "url"}):
        config = configured(secret, tmp_path)
        assert config.store.url == url
        assert "s3cr" not in f"{config!r} {config} {open_store(config.store.url, tmp_path)!r}"


def test_a_missing_variable_is_a_mistake(tmp_path, monkeypatch):
    monkeypatch.delenv("HANSA_STORE", raising=False)
    with pytest.raises(Mistakes, match="no HANSA_STORE"):
        configured({"env": "HANSA_STORE"}, tmp_path)


def test_without_the_driver_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "hansa.store.mongo")
    monkeypatch.setitem(sys.modules, "pymongo", None)
    with pytest.raises(ConfigError, match=r"store.url: MongoDB needs pymongo.*: install hansa\[mongo\]"):
        open_store(URL, tmp_path)
    for name in [name for name in sys.modules if name.startswith("hansa.store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigError, match=r"store.url: PostgreSQL needs asyncpg: install hansa\[postgres\]"):
        open_store(POSTGRES, tmp_path)


async def test_an_index_that_is_declared_no_more_is_dropped(tmp_path):
    """Each costs every commit a page. One that was made by hand stays."""

    async def indexes(*declared):
        fields = {"size": int, "color": str}
        made = Collection(name="thing", key={"id": str}, fields=fields, indexes=declared)
        store = SqliteStore(tmp_path / "x.db")
        await store.open()
        await store.declare("", Schema(owner="o", version=1, collections=[made]))
        await store.close()
        with closing(sqlite3.connect(tmp_path / "x.db")) as db:
            db.execute("CREATE INDEX IF NOT EXISTS mine ON o_thing (color)")
            return {row[1] for row in db.execute("PRAGMA index_list(o_thing)") if row[3] == "c"}

    assert await indexes(("size",), ("color", "size")) == {"o_thing_by_size", "o_thing_by_color_size", "mine"}
    assert await indexes(("size",)) == {"o_thing_by_size", "mine"}
