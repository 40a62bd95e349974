"""A role that lacks a right is a mistake of the configuration: which right, of which role, on what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from hansa.store.base import Put
from hansa.store.faults import FaultKind, StoreFault
from hansa.store.postgres import PostgresStore
from hansa.testing.store_suite import SCHEMA


@pytest.fixture
async def bob(postgres_server, postgres_url) -> AsyncIterator[str]:
    """The URL of a database whose tables are another role's, as the role ``bob`` who may use them."""
    if not postgres_server.ours:
        pytest.skip("HANSA_TEST_POSTGRES may not make roles")
    owner = PostgresStore(postgres_url)
    await owner.open()
    await owner.declare("s", SCHEMA)
    await owner.close()
    postgres_server.sql("DROP ROLE IF EXISTS bob; CREATE ROLE bob LOGIN")
    postgres_server.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO bob", postgres_url)
    parts = urlsplit(postgres_url)
    yield parts._replace(netloc=f"bob@{parts.netloc.rpartition('@')[2]}").geturl()
    postgres_server.sql("DROP OWNED BY bob", postgres_url)


async def used(url: str) -> None:
    store = PostgresStore(url)
    try:
        await store.open()
        await store.declare("s", SCHEMA)
        await store.commit("s", [Put("thing", ("a", 1))])
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        (
            "REVOKE DELETE, INSERT ON suite_thing FROM bob",
            "role bob lacks INSERT, DELETE on table suite_thing",
        ),
        ("REVOKE UPDATE ON hansa_lease FROM bob", "role bob lacks UPDATE on table hansa_lease"),
        ("REVOKE USAGE ON SCHEMA public FROM bob, PUBLIC", "role bob has no schema"),
        (
            "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM bob",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES",
        ),
    ],
)
async def test_what_is_missing_is_said_at_the_start(bob, postgres_server, postgres_url, taken, said):
    await used(bob)
    postgres_server.sql(taken, postgres_url)
    with pytest.raises(StoreFault, match=said) as caught:
        await used(bob)
    assert caught.value.kind is FaultKind.FORBIDDEN


async def test_a_role_that_may_make_nothing_is_told_what_to_grant(bob, postgres_server, postgres_url):
    name = urlsplit(postgres_url).path.strip("/")
    postgres_server.sql("DROP TABLE suite_thing", postgres_url)
    with pytest.raises(
        StoreFault, match="lacks CREATE on schema public: GRANT CREATE ON SCHEMA public TO bob"
    ):
        await used(bob)
    postgres_server.sql(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
    with pytest.raises(StoreFault, match=f"bob lacks TEMPORARY on database {name}") as caught:
        await used(bob)
    assert caught.value.kind is FaultKind.FORBIDDEN


async def test_a_right_that_is_taken_away_meanwhile_is_no_read_only_database(
    bob, postgres_server, postgres_url
):
    store = PostgresStore(bob)
    await store.open()
    await store.declare("s", SCHEMA)
    postgres_server.sql("REVOKE INSERT ON suite_thing FROM bob", postgres_url)
    with pytest.raises(
        StoreFault, match=r"role bob: permission denied for table suite_thing.*; it needs SELECT"
    ) as caught:
        await store.commit("s", [Put("thing", ("a", 1))])
    assert caught.value.kind is FaultKind.FORBIDDEN
    postgres_server.sql("GRANT INSERT ON suite_thing TO bob", postgres_url)
    await store.commit("s", [Put("thing", ("a", 1))])
    await store.close()
