"""The data that one user can make this server keep is bounded: excess is refused or takes the oldest's
place.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from clients.matrix_server import OURS, LocalUser, MatrixServer, matrix_server, part
from hansa_matrix.client_api.account import account_data
from hansa_matrix.client_api.rooms import aliases, reports
from hansa_matrix.retention import COUNTED, purge_expired
from hansa_matrix.users import devices, openid


async def rows(home: MatrixServer, collection: str) -> list[Any]:
    return await home.app.contexts["matrix"].store.scan(collection, limit=10_000)


async def keep(person: LocalUser, type_: str, size: int) -> int:
    path = f"/user/{part(person.user)}/account_data/{type_}"
    return (await person.ask("PUT", path, {"x": "y" * size}))[0]


async def test_account_data_is_bounded_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(account_data, "MAX_BYTES_OF_USER", 5000)
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        assert [await keep(alice, f"t{n}", 1000) for n in range(6)] == [200] * 4 + [413] * 2
        assert await keep(alice, "t0", 10) == 200  # less than before
        assert await keep(alice, "t9", 900) == 200
        assert await keep(bob, "t0", 1000) == 200
        answers = await asyncio.gather(*(keep(bob, f"b{n}", 1000) for n in range(8)))
        assert sorted(answers) == [200] * 3 + [413] * 5
        usage = {row.key[0]: int(row.body) for row in await rows(home, "account_data_usage")}
        kept = dict.fromkeys(usage, 0)
        for row in await rows(home, "account_data"):
            kept[row.key[0]] += len(row.body)
        assert usage == kept


async def test_tokens_for_others_take_the_place_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(openid, "MAX_TOKENS_OF_USER", 3)
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        path = "/user/{}/openid/request_token"
        given = [await alice.call("POST", path.format(part(alice.user)), {}) for _ in range(5)]
        await bob.call("POST", path.format(part(bob.user)), {})
        assert len(await rows(home, "openid")) == 4
        matrix = home.matrix
        assert await matrix.users.openid.user_of_token(given[-1]["access_token"]) == alice.user


async def test_reports_take_the_place_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "MAX_REPORTS_OF_USER", 3)
    monkeypatch.setattr(reports, "MAX_REPORTS", 5)
    async with matrix_server(tmp_path) as home:
        people = [await home.person(name) for name in ("alice", "bob", "carol")]
        for number in range(5):
            await people[0].call("POST", f"/users/{part('@x:y')}/report", {"reason": str(number)})
        operations = home.matrix.network.admin_commands()
        assert [one["reason"] for one in await operations["reports ls"]({})] == ["2", "3", "4"]
        for person in people[1:]:
            for number in range(2):
                await person.call("POST", f"/users/{part('@x:y')}/report", {"reason": f"b{number}"})
        found = await operations["reports ls"]({})
        assert len(found) == 5 and {one["by"] for one in found} == {person.user for person in people}
        context = home.app.contexts["matrix"]
        later = context.clock.now() + 366 * 86_400_000
        monkeypatch.setattr(type(context.clock), "now", lambda _: later)
        await purge_expired(context)
        assert await operations["reports ls"]({}) == []


async def test_a_room_has_so_many_names(tmp_path, monkeypatch):
    monkeypatch.setattr(aliases, "MAX_ALIASES_OF_ROOM", 3)
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        rooms = [await alice.create() for _ in range(2)]

        async def named(number: int, room: str) -> int:
            path = f"/directory/room/{part(f'#n{number}:{OURS}')}"
            return (await alice.ask("PUT", path, {"room_id": room}))[0]

        assert [await named(number, rooms[0]) for number in range(5)] == [200] * 3 + [403] * 2
        assert await named(9, rooms[1]) == 200


async def upload(person: LocalUser, **keys: Any) -> tuple[int, Any]:
    return await person.ask("POST", "/keys/upload", keys)


async def test_keys_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "MAX_ONE_TIME_KEYS_OF_USER", 5)
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        other = await home.person("alice", "B")
        assert (await upload(alice, one_time_keys={f"x:{n}": "k" for n in range(4)}))[0] == 200
        assert (await upload(other, one_time_keys={"x:1": "k"}))[0] == 200
        status, found = await upload(other, one_time_keys={"x:2": "k"})
        assert status == 400 and "that is enough" in found["error"]
        assert (await upload(other, one_time_keys={"x:1": "k"}))[0] == 200  # a repeated one is not a new one
        assert (await upload(alice, one_time_keys={"y:1": "k" * 5000}))[0] == 400
        algorithms = {f"a{n}:1": "k" for n in range(devices.MAX_FALLBACK_KEYS)}
        assert (await upload(alice, fallback_keys=algorithms))[0] == 200
        assert (await upload(alice, fallback_keys={"a0:2": "k"}))[0] == 200  # another of a known one
        assert (await upload(alice, fallback_keys={"more:1": "k"}))[0] == 400
        assert len(await rows(home, "fallback_key")) == devices.MAX_FALLBACK_KEYS


@pytest.mark.parametrize("collection", COUNTED)
async def test_rows_are_counted(tmp_path, collection):
    async with matrix_server(tmp_path) as home:
        await purge_expired(home.app.contexts["matrix"])
        labels = (("collection", collection), ("plugin", "matrix"))
        assert home.app.gauges["matrix_stored_rows", labels] == len(await rows(home, collection))
