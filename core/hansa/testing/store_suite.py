"""The tests that every store must pass. Subclass ``StoreSuite`` with a fixture ``store`` that is open and
empty.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hansa.store.base import (
    MAX_BODY,
    Append,
    Collection,
    CompareAndSwap,
    Conflict,
    Delete,
    Insert,
    NewerSchema,
    Put,
    Remove,
    Row,
    Schema,
    ScopedStore,
    Store,
    StoreError,
    TooLarge,
    Write,
)
from hansa.store.bounds import MAX_BYTES, MAX_WRITES, MAX_WRITES_WHOLE, Whole
from hansa.store.paging import every_page, pages, scan_all

THING = Collection(
    name="thing",
    key={"room": str, "at": int},
    fields={"color": str, "size": int},
    indexes=(("color", "size"), ("size",)),
)
LINE = Collection(name="line", stream=True, fields={"who": int}, indexes=(("who", "position"),))
SCHEMA = Schema(owner="suite", version=1, collections=(THING, LINE))


def _thing_row(room: str, at: int, color: str = "red", size: int = 0, body: bytes = b"x") -> Put:
    return Put("thing", (room, at), body, {"color": color, "size": size})


class StoreSuite:
    """The contract of ``hansa.store.base.Store`` as tests."""

    async def test_a_put_row_is_read_back_exactly(self, store: Store) -> None:
        """Key, fields and body, binary-exact."""
        await store.declare("s", SCHEMA)
        body = bytes(range(256))
        await store.commit("s", [_thing_row("a", 1, "blue", 7, body)])
        assert await store.get("s", "thing", ("a", 1)) == Row(
            key=("a", 1), fields={"color": "blue", "size": 7}, body=body
        )
        assert await store.get("s", "thing", ("a", 2)) is None

    async def test_scopes_share_nothing(self, store: Store) -> None:
        """The same key in two scopes is two rows."""
        for scope in ("s", "t"):
            await store.declare(scope, SCHEMA)
            await store.commit(scope, [_thing_row("a", 1, scope)])
        row = await store.get("t", "thing", ("a", 1))
        assert row is not None
        assert row.fields["color"] == "t"
        assert await store.count("s", "thing") == 1

    async def test_every_scope_that_the_core_uses_is_one(self, store: Store) -> None:
        """Its own, a network's id, and ``policy:NAME`` with whatever name an operator gave a policy."""
        scopes = [
            "",
            "matrix",
            "policy:limits",
            "policy:no-spam",
            "policy:no spam.$here",
            "policy:caf\xe9",
            "p",
        ]
        for number, scope in enumerate(scopes):
            await store.declare(scope, SCHEMA)
            await store.commit(scope, [_thing_row("a", number, scope)])
        await store.commit("", [Put(f"{scope}/thing" if scope else "thing", ("b", 1)) for scope in scopes])
        for number, scope in enumerate(scopes):
            rows = await store.scan(scope, "thing")
            assert [row.key for row in rows] == [("a", number), ("b", 1)]

    async def test_what_is_appended_after_an_advance_comes_later(self, store: Store) -> None:
        """``advance`` never goes back. Rows of a stream may be written at their positions, as a copy does."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [Put("line", (7,), b"seven", {"who": 1})])
        await store.advance(40)
        await store.advance(12)
        assert await store.position() == 40
        assert await store.commit("s", [Append("line", b"", {"who": 1})]) == [41]
        assert [row.position for row in await store.scan("s", "line")] == [7, 41]

    async def test_every_row_is_read_page_by_page(self, store: Store) -> None:
        """``every_page`` goes through keys of several parts in their order, and goes on behind any key."""
        await store.declare("s", SCHEMA)
        keys = sorted((room, at) for room in ("", "a", "a\x00", "ab", "b\x01", "ä") for at in (-3, 0, 1, 9))
        await store.commit("s", [Put("thing", key) for key in keys])
        for limit in (1, 3, 4, 5, 100):
            for start in (None, *range(len(keys))):
                after = keys[start] if start is not None else ()
                pages = [page async for page in every_page(store, "s", THING, after, limit)]
                read = [row.key for page in pages for row in page]
                assert read == keys[0 if start is None else start + 1 :], (limit, after)

    async def test_one_batch_may_write_to_two_scopes(self, store: Store) -> None:
        """``SCOPE/NAME`` addresses another scope, and both are written or none."""
        await store.declare("s", SCHEMA)
        await store.declare("t", SCHEMA)
        other = Insert("t/thing", ("a", 1), b"", {"color": "red", "size": 0})
        await store.commit("s", [_thing_row("a", 1), other])
        assert await store.count("t", "thing") == 1
        with pytest.raises(Conflict):
            await store.commit("s", [_thing_row("b", 2), other])
        assert await store.get("s", "thing", ("b", 2)) is None

    async def test_a_conflict_leaves_nothing_of_its_batch(self, store: Store) -> None:
        """An ``Insert`` of a known key names collection and key."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing_row("a", 1)])
        before = await store.position()
        writes: list[Write] = [
            _thing_row("b", 1),
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
        await store.commit("s", [CompareAndSwap("thing", ("a", 1), None, b"one")])
        await store.commit("s", [CompareAndSwap("thing", ("a", 1), b"one", b"two")])
        for expect in (None, b"one"):
            with pytest.raises(Conflict):
                await store.commit("s", [CompareAndSwap("thing", ("a", 1), expect, b"three")])
        row = await store.get("s", "thing", ("a", 1))
        assert row is not None
        assert row.body == b"two"

    async def test_cas_writes_the_declared_fields_too(self, store: Store) -> None:
        """A field that is not given is None, as with ``Put``."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing_row("a", 1, "blue", 7, b"one")])
        await store.commit("s", [CompareAndSwap("thing", ("a", 1), b"one", b"one", {"size": 8})])
        row = await store.get("s", "thing", ("a", 1))
        assert row == Row(key=("a", 1), fields={"color": None, "size": 8}, body=b"one")

    async def test_an_empty_body_is_no_missing_row(self, store: Store) -> None:
        """``b""`` and None are two expectations."""
        await store.declare("s", SCHEMA)
        with pytest.raises(Conflict):
            await store.commit("s", [CompareAndSwap("thing", ("a", 1), b"", b"two")])
        await store.commit("s", [Put("thing", ("a", 1), b"")])
        with pytest.raises(Conflict):
            await store.commit("s", [CompareAndSwap("thing", ("a", 1), None, b"two")])
        with pytest.raises(Conflict):
            await store.commit("s", [Remove("thing", ("a", 1), b"two")])
        await store.commit("s", [Remove("thing", ("a", 1), b"")])
        assert await store.count("s", "thing") == 0

    async def test_remove_needs_the_row_and_the_body_it_expects(self, store: Store) -> None:
        """A row that is gone, or has changed, is a ``Conflict`` that leaves nothing of its batch."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing_row("a", n, body=b"one") for n in (1, 2)])
        for gone in (Remove("thing", ("a", 3)), Remove("thing", ("a", 1), b"two")):
            with pytest.raises(Conflict) as caught:
                await store.commit("s", [_thing_row("b", 1), Remove("thing", ("a", 2)), gone])
            assert (caught.value.collection, caught.value.key) == ("thing", gone.key)
            assert [row.key for row in await store.scan("s", "thing")] == [("a", 1), ("a", 2)]
        await store.commit("s", [Remove("thing", ("a", 1)), Remove("thing", ("a", 2), b"one")])
        assert await store.count("s", "thing") == 0

    async def test_of_many_who_remove_a_row_one_wins(self, store: Store) -> None:
        """With what it wrote besides: so one takes what all want."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing_row("a", 0)])
        done = await asyncio.gather(
            *(store.commit("s", [Remove("thing", ("a", 0)), Put("thing", ("mine", n))]) for n in range(20)),
            return_exceptions=True,
        )
        assert sum(isinstance(d, Conflict) for d in done) == 19
        assert [row.key for row in await store.scan("s", "thing")] == [("mine", done.index([]))]

    async def test_scan_orders_bounds_and_limits(self, store: Store) -> None:
        """Ranges after ``equal``, both directions."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing_row("a", n, "red" if n % 2 else "blue", n) for n in range(1, 11)])
        await store.commit("s", [_thing_row("b", 3, "red", 3)])

        async def ats(**how: object) -> list[object]:
            rows = await store.scan("s", "thing", **how)  # type: ignore[arg-type]
            return [row.key[1] for row in rows]

        assert await ats(equal=("a",), after=3, upto=6) == [4, 5, 6]
        assert await ats(equal=("a",), after=6, upto=4, reverse=True) == [5, 4]
        assert await ats(equal=("a",), reverse=True, limit=2) == [10, 9]
        assert await ats(index=("color", "size"), equal=("red",), after=1, upto=5) == [3, 3, 5]
        assert await ats(index=("size",), after=9) == [10]
        assert await ats(equal=("c",)) == []

    async def test_keys_are_in_the_order_of_their_characters(self, store: Store) -> None:
        """Keys are ordered by their characters, and integers by their values; bounds are exact."""
        await store.declare("s", SCHEMA)
        names = sorted(
            ["", "\0", "\0\0", "\1", "\2", "a", "a\0", "a\1", "a\2", "a\2a", "ab", "é", "\ufffd", "😀"]
        )
        numbers = [-(2**63), -10, -1, 0, 9, 10, 2**31, 2**63 - 1]
        keys = [(name, number) for name in names for number in numbers]
        await store.commit("s", [_thing_row(*key) for key in reversed(keys)])

        async def found(**how: object) -> list[object]:
            return [row.key for row in await store.scan("s", "thing", **how)]  # type: ignore[arg-type]

        assert await found() == keys
        assert await found(reverse=True) == keys[::-1]
        for name in names:
            assert await found(equal=(name,)) == [k for k in keys if k[0] == name]
            assert await found(after=name) == [k for k in keys if k[0] > name]
            assert await found(upto=name) == [k for k in keys if k[0] <= name]
            assert await found(after=name, reverse=True) == [k for k in keys[::-1] if k[0] < name]
            assert await found(upto=name, reverse=True) == [k for k in keys[::-1] if k[0] >= name]
            assert await store.count("s", "thing", equal={"room": name}) == len(numbers)
        for number in numbers:
            assert await found(equal=("a",), after=number) == [("a", n) for n in numbers if n > number]
            assert await found(equal=("a",), upto=number) == [("a", n) for n in numbers if n <= number]

    async def test_all_rows_come_however_few_fit_on_a_page(self, store: Store) -> None:
        """Each once and in the order of one search, also where more are alike than a page has."""
        await store.declare("s", SCHEMA)
        things = [("a", 0)] + [("b", n) for n in range(9)] + [("c", 0), ("d", 0), ("d", 1)]
        colors = ["red", "blue", "red"]
        await store.commit("s", [_thing_row(*key, colors[n % 3], n // 4) for n, key in enumerate(things)])
        await store.commit("s", [Append("line", b"", {"who": n % 2}) for n in range(9)])
        scoped = ScopedStore(store, "s")
        searches: list[tuple[str, dict[str, Any]]] = [
            ("thing", {}),
            ("thing", {"reverse": True}),
            ("thing", {"after": "a", "upto": "c"}),
            ("thing", {"after": "d", "upto": "b", "reverse": True}),
            ("thing", {"equal": ("b",)}),
            ("thing", {"equal": ("b",), "after": 2, "upto": 7}),
            ("thing", {"equal": ("b", 3)}),
            ("thing", {"equal": ("z",)}),
            ("thing", {"index": ("color", "size")}),
            ("thing", {"index": ("color", "size"), "equal": ("red",)}),
            ("thing", {"index": ("color", "size"), "equal": ("red",), "after": 0, "reverse": False}),
            ("thing", {"index": ("size",), "reverse": True}),
            ("line", {}),
            ("line", {"index": ("who", "position"), "equal": (1,)}),
            ("line", {"index": ("who", "position"), "equal": (1,), "reverse": True}),
        ]
        for collection, search in searches:
            wanted = [row.key for row in await scoped.scan(collection, **search)]
            assert [row.key async for row in scan_all(scoped, collection, **search)] == wanted
            for size in range(1, 6):
                read = [page async for page in pages(scoped, collection, size=size, **search)]
                assert [row.key for page in read for row in page] == wanted, (search, size)
                assert all(read)

    async def test_pages_that_cannot_be_told_apart_are_an_error(self, store: Store) -> None:
        """No row is left out in silence."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [Put("thing", ("a", n), b"", {"color": "red"}) for n in range(3)])
        for search in ({"index": ("size",)}, {"index": ("color", "size"), "equal": ("red",)}):
            with pytest.raises(StoreError, match="without size"):
                [row async for row in pages(ScopedStore(store, "s"), "thing", size=2, **search)]

    async def test_an_index_bounds_exactly_and_none_comes_first(self, store: Store) -> None:
        """Rows equal in the index come by key; None is below everything and within no bound."""
        await store.declare("s", SCHEMA)
        sizes: list[int | None] = [None, -5, 0, 7, 7, 2**63 - 1]
        await store.commit(
            "s", [Put("thing", ("a", n), b"", {"color": "red", "size": s}) for n, s in enumerate(sizes)]
        )
        await store.commit("s", [Put("thing", ("b", 0), b"", {"color": None, "size": 7})])

        async def ats(**how: object) -> list[object]:
            rows = await store.scan("s", "thing", index=("color", "size"), **how)  # type: ignore[arg-type]
            return [row.key[1] for row in rows]

        assert await ats(equal=("red",)) == [0, 1, 2, 3, 4, 5]
        assert await ats(equal=("red",), reverse=True) == [5, 4, 3, 2, 1, 0]
        assert await ats(equal=("red",), upto=7) == [1, 2, 3, 4]
        assert await ats(equal=("red",), after=7) == [5]
        assert await ats(equal=("red",), upto=2**63 - 1) == [1, 2, 3, 4, 5]
        assert await ats(equal=("red",), after=7, reverse=True) == [2, 1]
        assert await ats(equal=("red",), upto=7, reverse=True) == [5, 4, 3]
        assert await ats(equal=("red", None)) == [0]
        assert await ats(equal=(None,)) == [0]
        assert await ats(after="re") == [0, 1, 2, 3, 4, 5]
        assert await ats(upto="red", limit=2) == [0, 1]
        assert await ats(upto="re") == []
        assert await store.count("s", "thing", equal={"color": "red", "size": 7}) == 2
        assert await store.count("s", "thing", equal={"color": None}) == 1
        assert await store.count("s", "thing", equal={"room": "a", "at": 3}) == 1

    async def test_get_many_takes_more_than_a_thousand_keys(self, store: Store) -> None:
        """And answers with those that exist."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing_row("a", n) for n in range(600)])
        await store.commit("s", [_thing_row("a", n) for n in range(600, 1200)])
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

    async def test_what_is_visible_has_no_gaps(self, store: Store) -> None:
        """A reader never sees a position while a lower one is still to come, nor one of half a batch."""
        await store.declare("s", SCHEMA)
        writers = [
            asyncio.ensure_future(store.commit("s", [Append("line", b"", {"who": n})] * 3)) for n in range(60)
        ]
        seen = -1
        while seen < 180:
            rows = await store.scan("s", "line")
            assert [row.position for row in rows] == list(range(1, len(rows) + 1))
            assert len(rows) % 3 == 0
            assert len(rows) >= seen
            seen = len(rows)
            await asyncio.sleep(0)
        await asyncio.gather(*writers)

    async def test_of_many_who_insert_a_key_one_wins(self, store: Store) -> None:
        """And what the others wrote besides is not there; who writes something else is not disturbed."""
        await store.declare("s", SCHEMA)
        batches: list[list[Write]] = [
            [Insert("thing", ("a", 0), b"%d" % n), Put("thing", ("mine", n))] for n in range(20)
        ]
        done = await asyncio.gather(
            *(store.commit("s", batch) for batch in batches),
            *(store.commit("s", [_thing_row("b", n)]) for n in range(20)),
            return_exceptions=True,
        )
        assert sum(isinstance(d, Conflict) for d in done[:20]) == 19
        assert done[20:] == [[]] * 20
        row = await store.get("s", "thing", ("a", 0))
        assert row is not None
        assert [r.key[1] for r in await store.scan("s", "thing", equal=("mine",))] == [int(row.body)]

    async def test_many_who_count_by_cas_count_all(self, store: Store) -> None:
        """A lost race is done again."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing_row("a", 0, body=b"0")])

        async def one() -> None:
            while True:
                row = await store.get("s", "thing", ("a", 0))
                assert row is not None
                try:
                    await store.commit(
                        "s", [CompareAndSwap("thing", ("a", 0), row.body, b"%d" % (int(row.body) + 1))]
                    )
                except Conflict:
                    continue
                return

        await asyncio.gather(*(one() for _ in range(8)))
        row = await store.get("s", "thing", ("a", 0))
        assert row is not None
        assert row.body == b"8"

    async def test_the_writes_of_a_batch_are_in_order(self, store: Store) -> None:
        """Each sees what those before it did, also in other hands' batches of the same moment."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing_row("a", 1, body=b"old")])
        writes: list[Write] = [
            Delete("thing", ("a", 1)),
            Insert("thing", ("a", 1), b"new"),
            CompareAndSwap("thing", ("a", 1), b"new", b"newer"),
            Put("thing", ("a", 2), b"one"),
            Put("thing", ("a", 2), b"two"),
            Put("thing", ("a", 3)),
            Delete("thing", ("a", 3)),
            Insert("thing", ("a", 4)),
            Remove("thing", ("a", 4)),
        ]
        await asyncio.gather(
            store.commit("s", writes),
            store.commit("s", [CompareAndSwap("thing", ("a", 2), b"two", b"three")]),
            store.commit("s", [Insert("thing", ("a", 3), b"again")]),
        )
        bodies = [(row.key[1], row.body) for row in await store.scan("s", "thing")]
        assert bodies == [(1, b"newer"), (2, b"three"), (3, b"again")]

    async def test_a_batch_may_be_as_large_as_a_big_room(self, store: Store) -> None:
        """Thousands of writes are one commit: whole, or not at all."""
        await store.declare("s", SCHEMA)
        people = [_thing_row("big", n, body=b"x" * 100) for n in range(1500)]
        with pytest.raises(Conflict):
            await store.commit("s", [*people, Insert("thing", ("c", 1)), Insert("thing", ("c", 1))])
        assert await store.count("s", "thing") == 0
        await store.commit("s", people)
        assert await store.count("s", "thing", equal={"room": "big"}) == 1500

    async def test_a_batch_over_the_bounds_is_refused_whole(self, store: Store) -> None:
        """5,000 writes and 16 MiB go in, one more does not, and the same is said by every store; what is
        marked as one that cannot be cut has bounds of its own.
        """
        await store.declare("s", SCHEMA)
        many: list[Write] = [Put("thing", ("a", n)) for n in range(MAX_WRITES + 1)]
        with pytest.raises(TooLarge, match=f"{MAX_WRITES + 1} writes"):
            await store.commit("s", many)
        piece = MAX_BODY - 100
        large: list[Write] = [_thing_row("b", n, body=b"x" * piece) for n in range(MAX_BYTES // piece)]
        with pytest.raises(TooLarge, match="bytes"):
            await store.commit("s", [*large, _thing_row("b", len(large), body=b"x" * piece)])
        assert await store.count("s", "thing") == 0
        await store.commit("s", many[:-1])
        await store.commit("s", large)
        await store.commit("s", Whole(many))
        assert await store.count("s", "thing") == len(many) + len(large)

    async def test_a_batch_that_cannot_be_cut_is_bounded_too(self, store: Store) -> None:
        """20,000 writes."""
        await store.declare("s", SCHEMA)
        with pytest.raises(TooLarge, match=f"{MAX_WRITES_WHOLE + 1} writes"):
            await store.commit("s", Whole(Put("thing", ("a", n)) for n in range(MAX_WRITES_WHOLE + 1)))
        assert await store.count("s", "thing") == 0

    async def test_what_is_acknowledged_is_read_back_however_durable(self, store: Store) -> None:
        """A lazy commit may be lost by a crash, but not by the one who reads it."""
        await store.declare("s", SCHEMA)
        for n in range(5):
            await store.commit("s", [_thing_row("a", n)], durability="lazy")
            assert await store.count("s", "thing") == n + 1
        assert await store.commit("s", []) == []

    async def test_a_body_over_the_limit_is_refused(self, store: Store) -> None:
        """One MiB goes in, one byte more does not."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing_row("a", 1, body=b"x" * MAX_BODY)])
        with pytest.raises(TooLarge):
            await store.commit("s", [_thing_row("b", 1), _thing_row("a", 2, body=b"x" * (MAX_BODY + 1))])
        assert await store.count("s", "thing") == 1

    async def test_what_was_not_declared_cannot_be_written(self, store: Store) -> None:
        """Neither a collection nor a field."""
        await store.declare("s", SCHEMA)
        with pytest.raises(StoreError):
            await store.commit("s", [Put("other", ("a",))])
        with pytest.raises(StoreError):
            await store.commit("s", [Put("thing", ("a", 1), b"", {"shape": "round"})])

    async def test_what_cannot_be_stored_harms_only_its_own_batch(self, store: Store) -> None:
        """Integers over 64 bits, half a surrogate pair, a key with too few parts: StoreError."""
        await store.declare("s", SCHEMA)
        bad: list[Write] = [
            _thing_row("a", 2**63),
            _thing_row("a", 1, size=-(2**63) - 1),
            _thing_row("\ud800", 1),
            _thing_row("a", 1, color="\udfff"),
            Put("thing", ("a",)),
            Append("line", b"", {"who": 2**64}),
        ]
        done = await asyncio.gather(
            *(store.commit("s", [_thing_row("b", n), write]) for n, write in enumerate(bad)),
            store.commit("s", [_thing_row("good", 1)]),
            return_exceptions=True,
        )
        assert [isinstance(d, StoreError) for d in done] == [True] * len(bad) + [False]
        assert [row.key for row in await store.scan("s", "thing")] == [("good", 1)]

    async def test_a_field_may_be_added_later(self, store: Store) -> None:
        """It is None in the rows that were there, and an index finds them."""
        await store.declare(
            "s", Schema(owner="suite", version=1, collections=(Collection(name="thing", key=THING.key),))
        )
        await store.commit("s", [Put("thing", ("a", 1), b"old")])
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing_row("a", 2)])
        rows = await store.scan("s", "thing", index=("color", "size"))
        assert [(row.key[1], row.fields["color"]) for row in rows] == [(1, None), (2, "red")]
        assert [r.body for r in await store.scan("s", "thing", index=("color", "size"), equal=(None,))] == [
            b"old"
        ]

    async def test_after_close_nothing_is_written(self, store: Store) -> None:
        """A commit under way ends, a later one is refused; a second close does nothing."""
        await store.declare("s", SCHEMA)
        under_way = [asyncio.ensure_future(store.commit("s", [_thing_row("a", n)])) for n in range(10)]
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.gather(*under_way) == [[]] * 10
        with pytest.raises(StoreError):
            await store.commit("s", [_thing_row("a", 99)])
        await store.close()

    async def test_a_newer_schema_is_refused(self, store: Store) -> None:
        """With a message that says what to do."""
        await store.declare("s", Schema(owner="suite", version=2, collections=(THING,)))
        with pytest.raises(NewerSchema, match="use a newer one"):
            await store.declare("s", SCHEMA)

    async def test_rows_migrate_forward_once(self, store: Store) -> None:
        """Each version's migration sees every row."""
        await store.declare("s", SCHEMA)
        await store.commit("s", [_thing_row("a", 1, size=1)])

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
