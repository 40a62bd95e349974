"""What every store must do. Subclass ``StoreSuite`` with a fixture ``store`` that is open and empty."""

from __future__ import annotations

import asyncio

import pytest

from hansa.store.base import (
    MAX_BODY,
    Append,
    Cas,
    Collection,
    Conflict,
    Delete,
    Insert,
    NewerSchema,
    Put,
    Row,
    Schema,
    Store,
    StoreError,
    TooLarge,
    Write,
)

THING = Collection(
    name="thing",
    key={"room": str, "at": int},
    fields={"color": str, "size": int},
    indexes=(("color", "size"), ("size",)),
)
LINE = Collection(name="line", stream=True, fields={"who": int}, indexes=(("who", "position"),))
SCHEMA = Schema(owner="suite", version=1, collections=(THING, LINE))


def _thing(room: str, at: int, color: str = "red", size: int = 0, body: bytes = b"x") -> Put:
    return Put("thing", (room, at), body, {"color": color, "size": size})


class StoreSuite:
    """The contract of ``hansa.store.base.Store`` as tests."""

    async def test_a_put_row_is_read_back_exactly(self, store: Store) -> None:
        """Key, fields and body, binary-exact."""
        await store.declare("s", SCHEMA)
        body = bytes(range(256))
        await store.commit("s", [_thing("a", 1, "blue", 7, body)])
        assert await store.get("s", "thing", ("a", 1)) == Row(
            key=("a", 1), fields={"color": "blue", "size": 7}, body=body
        )
        assert await store.get("s", "thing", ("a", 2)) is None

    async def test_scopes_share_nothing(self, store: Store) -> None:
        """The same key in two scopes is two rows."""
        for scope in ("s", "t"):
            await store.declare(scope, SCHEMA)
            await store.commit(scope, [_thing("a", 1, scope)])
        row = await store.get("t", "thing", ("a", 1))
        assert row is not None
        assert row.fields["color"] == "t"
        assert await store.count("s", "thing") == 1

    async def test_one_batch_may_write_to_two_scopes(self, store: Store) -> None:
        """``SCOPE/NAME`` addresses another scope, and both are written or none."""
        await store.declare("s", SCHEMA)
        await store.declare("t", SCHEMA)
        other = Insert("t/thing", ("a", 1), b"", {"color": "red", "size": 0})
        await store.commit("s", [_thing("a", 1), other])
        assert await store.count("t", "thing") == 1
        with pytest.raises(Conflict):
            await store.commit("s", [_thing("b", 2), other])
        assert await store.get("s", "thing", ("b", 2)) is None

    async def test_a_conflict_leaves_nothing_of_its_batch(self, store: Store) -> None:
        """An ``Insert`` of a known key names collection and key."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing("a", 1)])
        before = await store.position()
        writes: list[Write] = [
            _thing("b", 1),
            Append("line", b"", {"who": 1}),
            Delete("thing", ("a", 1)),
            Insert("thing", ("a", 1), b"one"),
            Insert("thing", ("a", 1), b"two"),
        ]
        with pytest.raises(Conflict) as caught:
            await store.commit("s", writes)
        assert (caught.value.collection, caught.value.key) == ("thing", ("a", 1))
        assert await store.count("s", "thing") == 1
        assert await store.count("s", "line") == 0
        assert await store.position() == before

    async def test_cas_writes_only_what_it_expected(self, store: Store) -> None:
        """Compare and set, with None for a row that must not be."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [Cas("thing", ("a", 1), None, b"one")])
        await store.commit("s", [Cas("thing", ("a", 1), b"one", b"two")])
        for expect in (None, b"one"):
            with pytest.raises(Conflict):
                await store.commit("s", [Cas("thing", ("a", 1), expect, b"three")])
        row = await store.get("s", "thing", ("a", 1))
        assert row is not None
        assert row.body == b"two"

    async def test_scan_orders_bounds_and_limits(self, store: Store) -> None:
        """Ranges after ``equal``, both directions."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing("a", n, "red" if n % 2 else "blue", n) for n in range(1, 11)])
        await store.commit("s", [_thing("b", 3, "red", 3)])

        async def ats(**how: object) -> list[object]:
            rows = await store.scan("s", "thing", **how)  # type: ignore[arg-type]
            return [row.key[1] for row in rows]

        assert await ats(equal=("a",), after=3, upto=6) == [4, 5, 6]
        assert await ats(equal=("a",), after=6, upto=4, reverse=True) == [5, 4]
        assert await ats(equal=("a",), reverse=True, limit=2) == [10, 9]
        assert await ats(index=("color", "size"), equal=("red",), after=1, upto=5) == [3, 3, 5]
        assert await ats(index=("size",), after=9) == [10]
        assert await ats(equal=("c",)) == []

    async def test_get_many_takes_more_than_a_thousand_keys(self, store: Store) -> None:
        """And answers with those that exist."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing("a", n) for n in range(600)])
        await store.commit("s", [_thing("a", n) for n in range(600, 1200)])
        found = await store.get_many("s", "thing", [("a", n) for n in range(-10, 1200)])
        assert len(found) == 1200

    async def test_positions_rise_in_the_order_of_commits(self, store: Store) -> None:
        """Also when many commit at once, and across scopes."""
        await store.declare("s", SCHEMA)
        await store.declare("t", SCHEMA)
        got = await asyncio.gather(
            *(store.commit("st"[n % 2], [Append("line", b"", {"who": n})] * 2) for n in range(50))
        )
        flat = [p for pair in got for p in pair]
        assert len(set(flat)) == 100
        assert all(second == first + 1 for first, second in got)
        assert await store.position() == max(flat)
        rows = await store.scan("s", "line", index=("who", "position"), equal=(2,))
        assert [row.position for row in rows] == got[2]

    async def test_a_body_over_the_limit_is_refused(self, store: Store) -> None:
        """One MiB goes in, one byte more does not."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing("a", 1, body=b"x" * MAX_BODY)])
        with pytest.raises(TooLarge):
            await store.commit("s", [_thing("b", 1), _thing("a", 2, body=b"x" * (MAX_BODY + 1))])
        assert await store.count("s", "thing") == 1

    async def test_what_was_not_declared_cannot_be_written(self, store: Store) -> None:
        """Neither a collection nor a field."""
        await store.declare("s", SCHEMA)
        with pytest.raises(StoreError):
            await store.commit("s", [Put("other", ("a",))])
        with pytest.raises(StoreError):
            await store.commit("s", [Put("thing", ("a", 1), b"", {"shape": "round"})])

    async def test_a_newer_schema_is_refused(self, store: Store) -> None:
        """With a message that says what to do."""
        await store.declare("s", Schema(owner="suite", version=2, collections=(THING,)))
        with pytest.raises(NewerSchema, match="use a newer one"):
            await store.declare("s", SCHEMA)

    async def test_rows_migrate_forward_once(self, store: Store) -> None:
        """Each version's migration sees every row."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing("a", 1, size=1)])

        def double(collection: str, row: Row) -> list[Write]:
            if collection != "thing":
                return []
            size = int(row.fields["size"] or 0) * 2
            return [Put("thing", row.key, row.body, {**row.fields, "size": size})]

        second = Schema(owner="suite", version=2, collections=(THING, LINE), migrations={1: double})
        for _ in range(2):
            await store.declare("s", second)
        row = await store.get("s", "thing", ("a", 1))
        assert row is not None
        assert row.fields["size"] == 2
