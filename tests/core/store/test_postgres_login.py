"""TLS and passwords as libpq has them, on a server that demands both."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from hansa.store.base import Put, StoreError
from hansa.store.postgres import PostgresStore
from hansa.testing.store_suite import SCHEMA
from peers.ca import PrivateCA
from peers.postgres import Postgres

PASSWORD = "s3cr et/@:!"


@pytest.fixture(scope="module")
def ca(tmp_path_factory) -> PrivateCA:
    return PrivateCA(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def guarded(ca) -> Iterator[Postgres]:
    """A server that lets the role ``ann`` in over TLS and with her password alone."""
    if not Postgres().ours:
        pytest.skip("HANSA_TEST_POSTGRES is not ours to configure")
    server = Postgres().start()
    chain, key = ca.issue("postgres", "127.0.0.1")
    for file, name in ((chain, "server.crt"), (key, "server.key")):
        shutil.copy(file, server.data / name)
        (server.data / name).chmod(0o600)
    subprocess.run(
        ["chown", "--reference", server.data, server.data / "server.crt", server.data / "server.key"],
        check=True,
    )
    server.sql("ALTER SYSTEM SET ssl = on")
    server.sql(f"CREATE ROLE ann LOGIN CREATEDB PASSWORD '{PASSWORD}'")
    rules = "hostssl all ann 127.0.0.1/32 scram-sha-256\nhost all ann 127.0.0.1/32 reject\n"
    hba = server.data / "pg_hba.conf"
    hba.write_text(rules + hba.read_text())
    server.kill()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def where(guarded) -> str:
    """Host, port and name of an empty database."""
    url = guarded.database()
    name = urlsplit(url).path
    guarded.sql(f"ALTER DATABASE {name.strip('/')} OWNER TO ann")
    return f"127.0.0.1:{guarded.port}{name}"


async def used(url: str) -> None:
    store = PostgresStore(url)
    await store.open()
    await store.declare("s", SCHEMA)
    await store.commit("s", [Put("thing", ("a", 1))])
    async with store._readers.session() as connection:
        sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert await connection.fetchval(sql)
    await store.close()


async def test_a_password_file_and_a_certificate_that_is_checked(where, ca, tmp_path, monkeypatch):
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:*:*:ann:{PASSWORD}\n")
    file.chmod(0o600)
    tls = f"sslmode=verify-full&sslrootcert={ca.certificate}"
    await used(f"postgres://ann@{where}?{tls}&passfile={file}")
    monkeypatch.setenv("PGPASSFILE", str(file))
    await used(f"postgresql://ann@{where}?{tls}&connect_timeout=3&target_session_attrs=any")
    file.chmod(0o644)
    with (
        pytest.raises(StoreError, match="password authentication failed"),
        pytest.warns(UserWarning, match="group or world access"),
    ):
        await used(f"postgres://ann@{where}?{tls}")


async def test_a_password_in_the_url_is_escaped_and_never_said(where, ca, caplog):
    tls = f"sslmode=verify-full&sslrootcert={ca.certificate}"
    await used(f"postgres://ann:s3cr%20et%2F%40%3A%21@{where}?{tls}")
    for wrong in ("s3cr%20et", "other"):
        with pytest.raises(StoreError, match="password authentication failed") as caught:
            await used(f"postgres://ann:{wrong}@{where}?{tls}")
        assert "s3cr" not in f"{caught.value}{caplog.text}" and "other@" not in str(caught.value)


async def test_a_server_that_is_somebody_else_is_not_spoken_to(where, tmp_path):
    other = PrivateCA(tmp_path / "other")
    with pytest.raises(StoreError, match="certificate"):
        await used(f"postgres://ann:x@{where}?sslmode=verify-full&sslrootcert={other.certificate}")
    with pytest.raises(StoreError, match="conf rejects"):
        await used(f"postgres://ann:x@{where}?sslmode=disable")
