"""Repeated announcements of other servers: devices and receipts. Bounded per server."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from hansa.testing import until
from hansa_matrix.local.client_stream import DEVICES, RECEIPTS
from hansa_matrix.users import remote_devices
from matrix.server_with_peer import THEIRS, ServerWithPeer, server_with_peer
from matrix.test_devices import THEM, Their, cached, devices_of, edus, known, listed, update
from matrix.test_edus import receipts


async def told(house: ServerWithPeer, topic: str) -> list[str]:
    rows = await house.app.contexts["matrix"].store.scan("news", index=("topic", "position"), equal=(topic,))
    return [str(row.fields["ref"]) for row in rows]


async def usage(house: ServerWithPeer) -> dict[str, list[int]]:
    rows = await house.app.contexts["matrix"].store.scan("remote_devices_usage")
    return {str(row.key[0]): orjson.loads(row.body) for row in rows}


async def sizes(house: ServerWithPeer) -> dict[str, int]:
    rows = await house.app.contexts["matrix"].store.scan("remote_devices")
    return {str(row.key[0]): len(row.body) for row in rows}


async def test_changes_of_devices_leave_one_row_a_person_and_none_of_strangers(tmp_path):
    async with server_with_peer(tmp_path) as house:
        for number in range(1, 30):
            kind, content = update(number, [])
            assert (
                await edus(house, (kind, content), (kind, {**content, "user_id": f"@n{number}:{THEIRS}"}))
                == 200
            )
        assert await told(house, DEVICES) == [THEM]


async def test_receipts_leave_one_row_a_person(tmp_path):
    async with server_with_peer(tmp_path) as house:
        house.matrix.get_room(house.room.room_id).attended = True
        found = await receipts(house, *((f"$e{number}", number, "") for number in range(1, 40)))
        assert found == {"": ["$e39", 39]}
        assert len(await told(house, RECEIPTS + house.room.room_id)) == 1


async def test_lists_of_one_server_are_bounded(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        await cached(house, listed(1, "P"))
        (size,) = (await sizes(house)).values()
        assert await usage(house) == {THEIRS: [1, size]}
        labels = (("plugin", "matrix"),)
        assert house.app.gauges["matrix_device_lists_bytes", labels] == size
        # One more device is too much: the list is not kept then, but asked for each time.
        monkeypatch.setattr(remote_devices, "MAX_BYTES_OF_SERVER", size + 10)
        assert await edus(house, update(2, [1], "Q")) == 200
        assert await sizes(house) == {} and await usage(house) == {}
        assert house.app.gauges["matrix_device_lists_bytes", labels] == 0
        assert house.app.counters["matrix_device_lists_not_kept", labels] == 1


async def test_lists_are_bounded_in_number_and_in_all(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        their = await cached(house, listed(1, "P"))
        monkeypatch.setattr(remote_devices, "MAX_LISTS_OF_SERVER", 1)
        their.lists = [{**listed(1), "user_id": f"@other:{THEIRS}"}]
        known(house).remote.schedule_fetch(f"@other:{THEIRS}")
        await settled(house)
        assert set(await sizes(house)) == {THEM}
        monkeypatch.setattr(remote_devices, "MAX_LISTS_OF_SERVER", 5)
        monkeypatch.setattr(remote_devices, "MAX_BYTES", 1)
        their.lists = [{**listed(1, "P"), "user_id": f"@small:{THEIRS}"}]
        known(house).company.is_tracked = lambda _: True
        known(house).remote.schedule_fetch(f"@small:{THEIRS}")
        await settled(house)
        assert len(await sizes(house)) == 2  # a server with little has a place in any case
        monkeypatch.setattr(remote_devices, "GUARANTEED_BYTES", 1)
        assert await edus(house, update(2, [1], "Q")) == 200
        assert THEM not in await sizes(house)


async def settled(house: ServerWithPeer) -> None:
    await until(lambda: not house.matrix.device_list_fetches)


async def test_a_stale_list_takes_no_place(tmp_path):
    async with server_with_peer(tmp_path) as house:
        their = await cached(house, listed(1, "P"))
        assert await edus(house, update(5, [4])) == 200  # a change was missed
        await settled(house)
        assert await sizes(house) == {THEM: 0} and (await usage(house)) == {THEIRS: [1, 0]}
        their.lists = [listed(7, "P", "Q")]
        assert await edus(house, update(7, [6])) == 200
        await settled(house)
        assert await devices_of(house) == {"P", "Q"}


async def test_a_large_list_is_asked_for_anew_once_for_many_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(remote_devices, "_MAX_PATCHED_BYTES", 10)
    async with server_with_peer(tmp_path) as house:
        their = await cached(house, listed(1, "P"))
        before = their.times("/user/devices/")
        their.lists = [listed(60, "P", "Q")]
        await asyncio.gather(*(edus(house, update(n, [n - 1], f"D{n}")) for n in range(2, 61)))
        await settled(house)
        assert their.times("/user/devices/") - before < 10
        assert await devices_of(house) in ({"P", "Q"}, None)


async def test_lists_of_who_is_in_no_room_with_us_go(tmp_path):
    async with server_with_peer(tmp_path) as house:
        await cached(house, listed(1, "P"))
        await known(house).remote.sweep()
        assert set(await sizes(house)) == {THEM}
        known(house).company.is_tracked = lambda _: False
        known(house).remote._swept_to = None
        await known(house).remote.sweep()
        assert await sizes(house) == {} and await usage(house) == {}


async def test_one_server_s_lists_wait_behind_themselves(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        their, gate, asked = Their(house), asyncio.Event(), list[str]()
        known(house).company.is_tracked = lambda _: True

        async def request(_method: str, server: str, *_: Any, **__: Any) -> Any:
            asked.append(server)
            await gate.wait()
            return {}

        monkeypatch.setattr(known(house).remote._client, "request", request)
        for number in range(300):
            known(house).remote.schedule_fetch(f"@u{number}:{THEIRS}")
        known(house).remote.schedule_fetch("@a:other.example")
        assert len(house.matrix.device_list_fetches) == 201  # two hundred of one server, and the other
        await until(lambda: "other.example" in asked)
        assert asked.count(THEIRS) == 3
        gate.set()
        await settled(house)
        assert not their.lists
