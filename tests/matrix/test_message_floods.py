"""Messages to devices that strangers send: bounded by who they are from and for, and in time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import orjson
from hansa import Conflict
from hansa.store import paging
from hansa_matrix.proto.devices import Device
from hansa_matrix.users import to_device as module
from hansa_matrix.users import to_device_shares
from matrix.server_with_peer import THEIRS, ServerWithPeer, server_with_peer
from matrix.test_devices import THEM, US, edus, known, to_device


async def flood(house: ServerWithPeer, origin: str, count: int, size: int = 10, **to: Any) -> None:
    """So many messages of a server, of so many bytes each, a hundred in a transaction."""
    part = [
        {
            "sender": f"@m:{origin}", "type": "m.x", "message_id": f"{number}",
            "messages": {to.get("user", US): {to.get("device", "A"): {"x": "y" * size}}},
        }
        for number in range(count)
    ]  # fmt: skip
    for at in range(0, count, 100):
        await known(house).messages.receive_edus(origin, part[at : at + 100])


async def waiting(house: ServerWithPeer, device: str = "A") -> dict[str, int]:
    """How many wait for a device, by the server that they are of."""
    found = await known(house).messages.queued_messages(US, device, most=10_000)
    return dict(Counter(one.event["sender"].partition(":")[2] for one in found))


async def usage(house: ServerWithPeer) -> dict[tuple[Any, ...], list[int]]:
    rows = await house.app.contexts["matrix"].store.scan("to_device_usage")
    return {row.key: orjson.loads(row.body) for row in rows}


async def test_one_server_s_flood_is_small(tmp_path):
    """The issue's: 2,400 messages, 134 MiB."""
    async with server_with_peer(tmp_path) as house:
        await known(house).devices.put(US, Device(device_id="A"))
        await flood(house, THEIRS, 2400, 56_000)
        rows = await house.app.contexts["matrix"].store.scan("to_device", limit=10_000)
        assert sum(len(row.body) for row in rows) <= to_device_shares.MAX_BYTES_OF_PEER
        assert len(rows) == to_device_shares.MAX_BYTES_OF_PEER // len(rows[0].body)
        await flood(house, "honest.example", 1)
        assert (await waiting(house))["honest.example"] == 1
        discarded = sum(
            house.app.counters.get(("matrix_to_device_discarded", (("plugin", "matrix"), ("reason", why))), 0)
            for why in ("full", "rate")
        )
        assert discarded == 2400 - len(rows)
        gauge = house.app.gauges["matrix_to_device_waiting_bytes", (("plugin", "matrix"),)]
        assert gauge == sum(size for _, size in (await usage(house)).values()) > 16_000_000


async def test_many_servers_at_once_count_right(tmp_path):
    async with server_with_peer(tmp_path) as house:
        await known(house).devices.put(US, Device(device_id="A"))
        origins = [f"s{number}.example" for number in range(8)]
        await asyncio.gather(*(flood(house, origin, 30) for origin in origins for _ in range(3)))
        assert await waiting(house) == dict.fromkeys(origins, 30)
        assert {key[2]: count for key, (count, _) in (await usage(house)).items()} == dict.fromkeys(
            origins, 30
        )
        position = (await known(house).messages.queued_messages(US, "A", most=1000))[-1].position
        await asyncio.gather(
            *(known(house).messages.delete_upto(US, "A", position) for _ in range(3)),
            *(flood(house, origin, 31) for origin in origins),
        )
        assert await waiting(house) == dict.fromkeys(origins, 1)
        assert sum((await known(house).messages.shares.bytes_by_peer()).values()) == sum(
            size for _, size in (await usage(house)).values()
        )


async def test_a_full_device_has_the_greediest_give_way(tmp_path, monkeypatch):
    monkeypatch.setattr(to_device_shares, "MAX_MESSAGES_OF_DEVICE", 10)
    async with server_with_peer(tmp_path) as house:
        await known(house).devices.put(US, Device(device_id="A"))
        await flood(house, "greedy.example", 10)
        await flood(house, "honest.example", 3)
        assert await waiting(house) == {"greedy.example": 7, "honest.example": 3}
        found = await known(house).messages.queued_messages(US, "A")
        assert found[0].event["sender"] == "@m:greedy.example"  # the oldest of all is there still
        await flood(house, "third.example", 10)
        left = await waiting(house)
        assert sum(left.values()) == 10 and left["honest.example"] == 3 and left["third.example"] >= 3
        labels = (("plugin", "matrix"), ("reason", "evicted"))
        assert house.app.counters["matrix_to_device_discarded", labels] == 3 + left["third.example"]


async def test_a_server_has_a_share_over_all_devices(tmp_path, monkeypatch):
    monkeypatch.setattr(to_device_shares, "MAX_TOTAL_BYTES_OF_PEER", 3000)
    async with server_with_peer(tmp_path) as house:
        for device in ("A", "B"):
            await known(house).devices.put(US, Device(device_id=device))
        await flood(house, "greedy.example", 50, 100)
        before = await waiting(house)
        await flood(house, "greedy.example", 60, 100, device="B")
        assert before["greedy.example"] < 50 and await waiting(house, "B") == {}
        await flood(house, "honest.example", 1, 100, device="B")
        assert await waiting(house, "B") == {"honest.example": 1}
        await flood(house, "many.example", 10, 100)  # together there is place, so that one may have most
        assert (await waiting(house))["many.example"] == 10
        # Where all together have too much, nobody has more than the least that each may have.
        monkeypatch.setattr(to_device_shares, "MAX_TOTAL_BYTES", 1)
        monkeypatch.setattr(to_device_shares, "GUARANTEED_BYTES", 1000)
        await flood(house, "third.example", 50, 100)
        assert sum(s for key, (_, s) in (await usage(house)).items() if key[2] == "third.example") <= 1000


async def test_what_a_device_has_or_is_gone_with_counts_no_more(tmp_path):
    async with server_with_peer(tmp_path) as house:
        await known(house).devices.put(US, Device(device_id="A"))
        await flood(house, THEIRS, 5)
        found = await known(house).messages.queued_messages(US, "A")
        await known(house).messages.delete_upto(US, "A", found[2].position)
        assert [count for count, _ in (await usage(house)).values()] == [2]
        await known(house).messages.delete_upto(US, "A", found[4].position)
        assert await usage(house) == {}
        await flood(house, THEIRS, 7)
        assert [count for count, _ in (await usage(house)).values()] == [2]
        await known(house).devices.remove(US, ["A"])
        assert await usage(house) == {}
        await known(house).messages.sweep()
        assert not await known(house).messages.shares.bytes_by_peer()


async def test_what_no_device_asks_for_goes_after_half_a_year(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        await known(house).devices.put(US, Device(device_id="A"))
        await flood(house, THEIRS, 5)
        await known(house).messages.sweep()
        assert await waiting(house) == {THEIRS: 5}
        clock = house.app.contexts["matrix"].clock
        later = clock.now() + module.MESSAGE_TTL_MS
        monkeypatch.setattr(type(clock), "now", lambda _: later)
        await known(house).messages.sweep()
        assert await waiting(house) == {} and await usage(house) == {}


async def test_what_waits_is_counted_page_by_page(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        for device in ("A", "B", "C"):
            await known(house).devices.put(US, Device(device_id=device))
            for origin in ("a.example", "b.example", "c.example"):
                await flood(house, origin, 2 + ord(device), 10 * len(origin), device=device)
        kept = dict(await known(house).messages.shares.bytes_by_peer())
        for page in (3, 4, 5, 9, 10):
            monkeypatch.setattr(paging, "PAGE_SIZE", page)
            await known(house).messages.shares.recount()
            assert dict(await known(house).messages.shares.bytes_by_peer()) == kept


async def test_what_is_for_nobody_leaves_nothing(tmp_path):
    async with server_with_peer(tmp_path) as house:
        await flood(house, THEIRS, 50)
        store = house.app.contexts["matrix"].store
        assert await store.scan("to_device_seen") == [] and await store.scan("to_device") == []


async def test_of_very_many_it_is_known_only_of_the_last_that_they_came(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_SEEN_IDS", 20)
    monkeypatch.setattr(module, "_TRIM_EVERY", 10)
    async with server_with_peer(tmp_path) as house:
        await known(house).devices.put(US, Device(device_id="A"))
        await flood(house, "other.example", 5)
        for number in range(60):
            await edus(house, to_device({US: {"A": {}}}, f"{number:03}"))
        store = house.app.contexts["matrix"].store
        assert await store.count("to_device_seen", equal={"origin": THEIRS}) <= 29
        assert await store.count("to_device_seen", equal={"origin": "other.example"}) == 5


async def test_a_message_that_loses_every_race_is_asked_for_again(tmp_path, monkeypatch):
    """It is never taken for kept."""
    async with server_with_peer(tmp_path) as house:
        await known(house).devices.put(US, Device(device_id="A"))
        store = house.matrix.store
        plain = store.commit

        async def losing(writes: Any, **options: Any) -> Any:
            if any(write.collection == "to_device" for write in writes):
                raise Conflict("to_device_usage", (US, "A", THEIRS))
            return await plain(writes, **options)

        monkeypatch.setattr(store, "commit", losing)
        assert await edus(house, to_device({US: {"A": {}}}), txn="t1") == 503
        monkeypatch.undo()
        assert await edus(house, to_device({US: {"A": {}}}), txn="t1") == 200
        assert await waiting(house) == {THEM.partition(":")[2]: 1}
