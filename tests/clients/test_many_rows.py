"""More rows than one search of the store gives: nothing is left out in silence, and nothing takes more than its
share of time.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import orjson
import pytest
from clients.matrix_server import MatrixServer, matrix_server, part
from hansa import Delete, Put, Write
from hansa_matrix.client_api.account.accounts import Accounts
from hansa_matrix.local.client_stream import DEVICES, RECEIPTS, stream_write
from hansa_matrix.local.memberships import LocalMemberships
from hansa_matrix.rooms.inbound import pdu_staging
from hansa_matrix.rooms.inbound.room_queue import RoomQueue
from hansa_matrix.rooms.room_registry import RoomRegistry
from hansa_matrix.users import to_device_shares
from matrix.server_with_peer import THEIRS

#: One more than a search gives at the most.
MANY = 10_001


async def kept(home: MatrixServer, writes: Iterable[Write]) -> None:
    """Rows as if they had come about."""
    store, left = home.app.contexts["matrix"].store, iter(writes)
    while page := list(islice(left, 2000)):
        await store.commit(page)


def strangers(count: int = MANY) -> Iterable[str]:
    return (f"@n{number:05}:{THEIRS}" for number in range(count))


async def test_a_change_of_devices_is_told_whatever_else_changed(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        await bob.join(await alice.create(preset="public_chat"))
        await alice.sync()
        began = alice.since
        await kept(
            home, [stream_write(DEVICES, bob.user), *(stream_write(DEVICES, user) for user in strangers())]
        )
        assert bob.user in (await alice.sync())["device_lists"]["changed"]
        changes = await alice.get(f"/keys/changes?from={began}&to={alice.since}")
        assert bob.user in changes["changed"]
        assert not any(user in changes["changed"] for user in strangers(100))


async def test_who_came_and_went_among_many_events_of_a_room_is_told(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, carol = [await home.person(name) for name in ("alice", "bob", "carol")]
        room = await alice.create(preset="public_chat")
        await carol.join(room)
        await alice.sync()
        await bob.join(room)
        await carol.room(room, "leave")
        said = await alice.say(room, "said again and again")
        group = home.matrix.get_room(room).head.group
        await kept(home, (stream_write(room, said, group) for _ in range(MANY)))
        found = (await alice.sync())["device_lists"]
        assert bob.user in found["changed"]
        assert found["left"] == [carol.user]


async def test_what_is_of_one_person_is_told_whatever_else_is(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        await alice.sync()
        await alice.call("PUT", f"/user/{part(alice.user)}/account_data/test.first", {"note": "kept"})
        room = await alice.create()
        await kept(home, (stream_write(alice.user, f"data  test.{number}") for number in range(MANY)))
        found = await alice.sync()
        assert {"type": "test.first", "content": {"note": "kept"}} in found["account_data"]["events"]
        assert room in found["rooms"]["join"]


async def test_all_receipts_of_a_room_are_told(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        event = await alice.say(room, "read by many")
        await alice.sync()
        body = orjson.dumps([event, 1])
        await kept(home, (Put("receipt", (room, user, ""), body) for user in strangers()))
        await kept(home, (stream_write(RECEIPTS + room, user) for user in strangers()))
        home.matrix.typing_and_receipts._receipts.revoke_owner(f"{room} ")  # these rows are nobody's doing
        for again in (alice.since, ""):
            alice.since = again
            (read,) = (await alice.sync())["rooms"]["join"][room]["ephemeral"]["events"]
            assert read["content"][event]["m.read"].keys() == set(strangers())


async def test_all_account_data_is_told(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        rows = (
            Put("account_data", (alice.user, "", f"test.{number:05}"), b'{"a":1}') for number in range(MANY)
        )
        await kept(home, rows)
        events = (await alice.sync())["account_data"]["events"]
        assert {e["type"] for e in events} >= {f"test.{number:05}" for number in range(MANY)}


async def test_all_rooms_of_a_person_and_all_accounts_are_known_after_a_start(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        ctx = home.app.contexts["matrix"]
        body = orjson.dumps({"membership": "leave", "event_id": "", "sender": alice.user})
        await kept(home, (Put("stay", (alice.user, f"!r{n:05}:x"), body) for n in range(MANY)))
        attendance = LocalMemberships(ctx)
        await attendance.load()
        assert len(attendance.memberships_of(alice.user)) == MANY
        account = (await ctx.store.get("account", (alice.user,))).body
        await kept(home, (Put("account", (user,), account) for user in strangers()))
        accounts = object.__new__(Accounts)
        accounts._ctx = ctx
        assert {one.user async for one in accounts.all_accounts()} == {alice.user, *strangers()}


async def test_all_blocked_rooms_are_known_after_a_start(tmp_path):
    async with matrix_server(tmp_path) as home:
        await kept(home, (Put("blocked", (f"!r{number:05}:x",)) for number in range(MANY)))
        rooms = RoomRegistry(home.app.contexts["matrix"], home.matrix.memberships)
        await rooms.load_blocked()
        assert sum(rooms.is_blocked(f"!r{number:05}:x") for number in range(MANY)) == MANY


async def test_all_that_waits_to_be_judged_is_taken_up_after_a_start(tmp_path, monkeypatch):
    monkeypatch.setattr(pdu_staging, "_LOADED", 2)
    async with matrix_server(tmp_path) as home:
        wire = home.wire
        room = home.matrix.get_room(wire.room.room_id)
        raws = [wire.forger.message(wire.room, f"m{number}") for number in range(7)]
        fields = {"event_id": "", "origin": THEIRS}
        puts = [
            Put("staged", (room.room_id, at), orjson.dumps(raw), fields) for at, raw in enumerate(raws, 1)
        ]
        await kept(home, puts)
        line = RoomQueue()
        await home.matrix.staging._taken_up(room, line)
        assert [entry.at for entry in line.waiting_entries()] == list(range(1, 8))
        await kept(home, [Delete("staged", put.key) for put in puts])


async def test_what_relates_in_a_rare_way_is_found_among_many(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        root = await alice.say(room, "root")
        relation = {"rel_type": "m.reference", "event_id": root}
        rare = await alice.say(room, type_="test.rare", **{"m.relates_to": relation})
        fields = {
            "room_id": room, "kind": "m.reference", "type": "test.often", "sender": alice.user, "ts": 2,
        }  # fmt: skip
        later = 9 * 10**15
        await kept(
            home,
            (
                Put(
                    "relation",
                    (root, f"$x{n}"),
                    b"",
                    {**fields, "place": f"{later + n:016d}_{n:016d}_{n:016x}"},
                )
                for n in range(2 * MANY)
            ),
        )
        where, token, asked = f"/relations/{part(root)}/m.reference/test.rare", "", 0
        found: list[Any] = []
        while not found:
            asked += 1
            path = f"/_matrix/client/v1/rooms/{part(room)}{where}?limit=5{token}"
            page = await alice.get(path)
            found = page["chunk"]
            assert found or page["next_batch"]
            token = f"&from={page.get('next_batch')}"
        assert [e["event_id"] for e in found] == [rare]
        assert 1 < asked < 10


async def test_messages_to_a_device_give_way_in_linear_time(tmp_path, monkeypatch):
    """Of a device that has as much as it may each new message lets another go."""
    monkeypatch.setattr(to_device_shares, "MAX_MESSAGES_OF_DEVICE", 300)
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        ctx = home.app.contexts["matrix"]
        messages = home.matrix.users.messages
        batch = messages.shares.start_batch()
        for number in range(300):
            assert await batch.add_message(
                alice.user, alice.device, "greedy.example", b"x" * 100 + b"%d" % number
            )
        await ctx.store.commit(batch.all_writes())
        read, scan = 0, ctx.store.scan

        async def counted(collection: str, **search: Any) -> Any:
            nonlocal read
            rows = await scan(collection, **search)
            read += len(rows) if collection == "to_device" else 0
            return rows

        monkeypatch.setattr(ctx.store, "scan", counted)
        batch = messages.shares.start_batch()
        for _ in range(100):
            assert await batch.add_message(alice.user, alice.device, "modest.example", b"y")
        await ctx.store.commit(batch.all_writes())
        assert read <= 100
        monkeypatch.setattr(ctx.store, "scan", scan)
        waiting = await ctx.store.scan("to_device", limit=1000)
        assert [row.fields["peer"] for row in waiting] == ["greedy.example"] * 200 + ["modest.example"] * 100


@pytest.mark.parametrize("how", ["device", "everything"])
async def test_nothing_stays_of_a_device_that_is_gone(tmp_path, how):
    async with matrix_server(tmp_path) as home:
        alice, phone = await home.person("alice"), await home.person("alice", "PHONE")
        fields = {"user_id": alice.user, "device_id": "PHONE"}
        await kept(home, (Put("access_token", (f"{number:064x}",), b"", fields) for number in range(1500)))
        keys = {"algorithm": "test", "at": 1}
        rows = (Put("one_time_key", (alice.user, "PHONE", f"test:{n}"), b"{}", keys) for n in range(MANY))
        await kept(home, rows)
        if how == "device":
            await phone.call("POST", "/logout")
        else:
            await alice.call("POST", "/logout/all")
        store = home.app.contexts["matrix"].store
        assert await store.count("one_time_key") == 0
        assert await store.count("access_token", equal={"device_id": "PHONE"}) == 0
