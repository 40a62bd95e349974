"""Devices of people here and elsewhere: their keys, messages to them, and who is told when they change."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hansa import LocalProtocolError, NativeId, StoreError
from hansa.testing import until
from hansa_matrix.proto import devices as proto
from hansa_matrix.proto.devices import Device, ToDeviceEdu
from hansa_matrix.retention import purge_expired
from hansa_matrix.users.remote_devices import REFETCH_BURST
from hansa_matrix.users.user_services import Users
from hypothesis import given
from hypothesis import strategies as st
from matrix.proto.json_values import json_values
from matrix.server_with_peer import OURS, THEIRS, V1, ServerWithPeer, server_with_peer

US, THEM = f"@hansa:{OURS}", f"@m:{THEIRS}"


def keys_of(user: str, device_id: str, secret: str = "k") -> dict[str, Any]:
    return {
        "user_id": user,
        "device_id": device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {f"curve25519:{device_id}": secret, f"ed25519:{device_id}": secret},
        "signatures": {user: {f"ed25519:{device_id}": "s"}},
    }


def known(house: ServerWithPeer) -> Users:
    return house.matrix.users


class Told:
    """The EDUs that the other server was sent; ``status`` is what it answers."""

    def __init__(self, house: ServerWithPeer) -> None:
        self.status = 200
        self.edus: list[dict[str, Any]] = []
        self.transactions: list[dict[str, Any]] = []
        house.peer.answer = self._answer

    def _answer(self, request: Any) -> tuple[int, Any] | None:
        if "/send/" not in request.target:
            return None
        body = orjson.loads(request.body)
        self.transactions.append(body)
        if self.status == 200:
            self.edus += body.get("edus", [])
        return self.status, {}

    async def last(self, count: int) -> list[dict[str, Any]]:
        await until(lambda: len(self.edus) >= count)
        return [edu["content"] for edu in self.edus]


async def edus(house: ServerWithPeer, *given: tuple[str, Any], txn: str = "") -> int:
    body = {"pdus": [], "edus": [{"edu_type": kind, "content": content} for kind, content in given]}
    return (await house.ask("PUT", f"{V1}/send/{txn or id(body)}", body))[0]


# Ours.


async def test_a_change_is_told_to_the_servers_of_the_persons_rooms_and_names_the_one_before(tmp_path):
    async with server_with_peer(tmp_path, share_device_names=True) as house:
        told, devices = Told(house), known(house).devices
        changed: list[str] = []
        house.matrix.network.homeserver.local.notifier.wake_contacts = changed.append
        keys = keys_of(US, "A")
        await devices.put(US, Device(device_id="A", keys=keys, name="phone"))
        await devices.put(US, Device(device_id="A", keys=keys, name="phone"))  # nothing new
        await devices.put(US, Device(device_id="A", keys=keys, name="old phone"))
        await devices.put(US, Device(device_id="B"))
        await devices.remove(US, ["A", "unknown"])
        contents = await told.last(4)
        base = {"user_id": US, "device_id": "A"}
        assert contents == [
            {**base, "stream_id": 1, "prev_id": [], "keys": keys, "device_display_name": "phone"},
            {**base, "stream_id": 2, "prev_id": [1], "keys": keys, "device_display_name": "old phone"},
            {"user_id": US, "device_id": "B", "stream_id": 3, "prev_id": [2]},
            {**base, "stream_id": 4, "prev_id": [3], "deleted": True},
        ]
        assert {edu["edu_type"] for edu in told.edus} == {"m.device_list_update"}
        assert changed == [US] * 4
        _, listed = await house.ask("GET", f"{V1}/user/devices/{quote(US, safe='')}")
        assert listed == {"user_id": US, "stream_id": 4, "devices": []}  # B has no keys


@pytest.mark.parametrize("shared", [None, False, True])
async def test_what_somebody_calls_a_device_does_not_leave_the_server_unless_that_is_wanted(tmp_path, shared):
    options = {} if shared is None else {"share_device_names": shared}
    async with server_with_peer(tmp_path, **options) as house:
        told, devices = Told(house), known(house).devices
        await devices.put(US, Device(device_id="A", keys=keys_of(US, "A"), name="my phone"))
        (edu,) = await told.last(1)
        _, listed = await house.ask("GET", f"{V1}/user/devices/{quote(US, safe='')}")
        _, queried = await house.ask("POST", f"{V1}/user/keys/query", {"device_keys": {US: []}})
        given = [
            edu.get("device_display_name"),
            listed["devices"][0].get("device_display_name"),
            queried["device_keys"][US]["A"].get("unsigned", {}).get("device_display_name"),
        ]
        assert given == (["my phone"] * 3 if shared else [None] * 3)
        assert edu["keys"] == listed["devices"][0]["keys"] == keys_of(US, "A")
        # People here see it, as before.
        here = await known(house).keys.query_keys({US: []})
        assert here["device_keys"][US]["A"]["unsigned"] == {"device_display_name": "my phone"}


async def test_what_is_told_of_devices_waits_for_a_server_that_is_away_and_goes_in_one_transaction(tmp_path):
    async with server_with_peer(tmp_path) as house:
        told, devices = Told(house), known(house).devices
        told.status = 503
        for number in range(60):
            await devices.put(US, Device(device_id=f"D{number}", keys=keys_of(US, f"D{number}")))
        await until(lambda: told.transactions)
        sender = house.matrix.sender
        assert (await sender.destinations())[0].waiting == 50  # as many as one transaction takes
        told.status = 200
        told.transactions.clear()
        sender.heard_from(THEIRS)
        contents = await told.last(60)
        assert [c["stream_id"] for c in contents] == list(range(1, 61))
        await until(lambda: house.matrix.destination_queues[THEIRS].task.done())
        assert max(len(t["edus"]) for t in told.transactions) <= 50
        assert await house.matrix.store.scan("lasting_edu") == []  # taken: they are not kept


async def test_what_no_server_will_have_is_given_up_alone(tmp_path):
    async with server_with_peer(tmp_path) as house:
        told, devices = Told(house), known(house).devices
        answer = house.peer.answer

        def picky(request: Any) -> Any:
            if b'"device_id":"D3"' in (request.body or b""):
                return 400, {"errcode": "M_BAD_JSON"}
            return answer(request)

        told.status = 503
        for number in range(8):
            await devices.put(US, Device(device_id=f"D{number}"))
        await until(lambda: told.transactions)
        told.status, house.peer.answer = 200, picky
        house.matrix.sender.heard_from(THEIRS)
        contents = await told.last(7)
        assert [c["device_id"] for c in contents] == ["D0", "D1", "D2", "D4", "D5", "D6", "D7"]
        assert house.app.counters["matrix_edus_dropped", (("plugin", "matrix"),)] == 1


async def test_an_edu_for_many_is_swept_once_all_have_it(tmp_path):
    async with server_with_peer(tmp_path) as house:
        Told(house)
        sender, ctx = house.matrix.sender, house.app.contexts["matrix"]
        servers = (THEIRS, "other.example:1")
        house.matrix.destination_queue("other.example:1").run = lambda: None  # it gets nothing
        await ctx.store.commit(sender.durable_edu_writes({"edu_type": "x", "content": {}}, servers))
        sender.on_committed(servers)
        (row,) = await ctx.store.scan("lasting_edu")
        await until(lambda: house.matrix.destination_queues[THEIRS].lasting >= row.position)
        await sender.sweep()
        assert await ctx.store.scan("lasting_edu") == [row]
        house.matrix.destination_queues["other.example:1"].lasting = row.position
        await sender.sweep()
        assert await ctx.store.scan("lasting_edu") == []


@pytest.mark.parametrize(
    "over",
    [
        {"user_id": THEM}, {"device_id": "B"}, {"keys": None}, {"keys": {"a": 1}}, {"algorithms": "m.olm"},
        {"algorithms": [1]}, {"signatures": {"a": 1}}, {"more": "x" * 40_000},
    ],
)  # fmt: skip
async def test_keys_that_are_none_are_refused(tmp_path, over):
    async with server_with_peer(tmp_path) as house:
        with pytest.raises(LocalProtocolError, match="not the keys"):
            await known(house).devices.put(US, Device(device_id="A", keys=keys_of(US, "A") | over))


async def test_identity_keys_stay_as_they_are(tmp_path):
    async with server_with_peer(tmp_path) as house:
        devices = known(house).devices
        await devices.put(US, Device(device_id="A", keys=keys_of(US, "A")))
        for other in (keys_of(US, "A", "other"), None):
            with pytest.raises(LocalProtocolError, match="set and stay"):
                await devices.put(US, Device(device_id="A", keys=other))
        signed = keys_of(US, "A") | {"signatures": {US: {"ed25519:A": "s", "ed25519:cross": "t"}}}
        await devices.put(US, Device(device_id="A", keys=signed))  # signed by one more
        assert (await devices.get(US, "A")).keys == signed


async def claim(house: ServerWithPeer, device_id: str = "A", algorithm: str = "signed_curve25519") -> Any:
    body = {"one_time_keys": {US: {device_id: algorithm}}}
    status, answer = await house.ask("POST", f"{V1}/user/keys/claim", body)
    assert status == 200
    return answer["one_time_keys"].get(US, {}).get(device_id)


async def test_a_one_time_key_goes_to_one_only_in_the_order_of_upload_and_then_the_fallback_to_all(tmp_path):
    async with server_with_peer(tmp_path) as house:
        devices = known(house).devices
        await devices.put(US, Device(device_id="A"))
        names = ["zz", "b", "a", "m"]
        for name in names:
            await devices.add_one_time_keys(US, "A", {f"signed_curve25519:{name}": {"key": name}})
        await devices.add_one_time_keys(US, "A", {"signed_curve25519:b": {"key": "b"}})  # as it is
        with pytest.raises(LocalProtocolError, match="another key already"):
            await devices.add_one_time_keys(US, "A", {"signed_curve25519:b": {"key": "c"}})
        await devices.set_fallback_keys(US, "A", {"signed_curve25519:f": {"key": "f", "fallback": True}})
        assert await devices.one_time_key_counts(US, "A") == {"signed_curve25519": 4}
        assert await devices.unused_fallback(US, "A") == ["signed_curve25519"]
        got = [await claim(house) for _ in names]
        assert [list(one) for one in got] == [[f"signed_curve25519:{n}"] for n in names]
        assert await devices.one_time_key_counts(US, "A") == {"signed_curve25519": 0}
        for _ in range(2):
            assert await claim(house) == {"signed_curve25519:f": {"key": "f", "fallback": True}}
        assert await devices.unused_fallback(US, "A") == []
        assert await claim(house, algorithm="other") is None
        assert await claim(house, "B") is None


async def test_of_claims_at_the_same_time_no_two_get_the_same_key(tmp_path):
    async with server_with_peer(tmp_path) as house:
        keys = {f"curve25519:{n}": f"key {n}" for n in range(10)}
        await known(house).devices.put(US, Device(device_id="A"))
        await known(house).devices.add_one_time_keys(US, "A", keys)
        got = await asyncio.gather(*(claim(house, algorithm="curve25519") for _ in range(20)))
        given = [key for one in got if one for key in one]
        assert sorted(given) == sorted(keys)


async def test_a_device_that_goes_takes_its_keys_and_what_waits_for_it_along(tmp_path):
    async with server_with_peer(tmp_path) as house:
        devices, messages = known(house).devices, known(house).messages
        for device_id in ("A", "B"):
            await devices.put(US, Device(device_id=device_id, keys=keys_of(US, device_id)))
            await devices.add_one_time_keys(US, device_id, {"curve25519:1": "k"})
            await devices.set_fallback_keys(US, device_id, {"curve25519:f": "k"})
        await messages.send_message(
            ToDeviceEdu(sender=US, type="t", message_id="1", messages={US: {"*": {}}})
        )
        await devices.remove(US, ["A"])
        assert await claim(house, "A", "curve25519") is None
        assert await messages.queued_messages(US, "A") == []
        assert await claim(house, "B", "curve25519") == {"curve25519:1": "k"}
        assert len(await messages.queued_messages(US, "B")) == 1


def cross(user: str, usage: str, key: str = "k") -> dict[str, Any]:
    return {"user_id": user, "usage": [usage], "keys": {f"ed25519:{key}": key}}


async def test_cross_signing_keys_are_told_and_shown_but_for_the_one_that_is_private(tmp_path):
    async with server_with_peer(tmp_path) as house:
        told, devices = Told(house), known(house).devices
        keys = {usage: cross(US, usage) for usage in ("master", "self_signing", "user_signing")}
        await devices.set_cross_signing(US, keys)
        (content,) = await told.last(1)
        shown = {"master_key": keys["master"], "self_signing_key": keys["self_signing"]}
        assert content == {"user_id": US, **shown}
        _, listed = await house.ask("GET", f"{V1}/user/devices/{quote(US, safe='')}")
        assert listed == {"user_id": US, "stream_id": 0, "devices": [], **shown}
        _, queried = await house.ask("POST", f"{V1}/user/keys/query", {"device_keys": {US: []}})
        assert queried["master_keys"] == {US: keys["master"]}
        assert queried["self_signing_keys"] == {US: keys["self_signing"]}
        assert "user_signing" not in orjson.dumps(queried).decode()
        assert (await devices.get_all(US)).cross_signing == keys
        with pytest.raises(LocalProtocolError, match="not a master key"):
            await devices.set_cross_signing(US, {"master": cross(THEM, "master")})


async def test_queries_name_devices_and_never_a_ghost(tmp_path):
    async with server_with_peer(tmp_path) as house:
        devices, ctx = known(house).devices, house.app.contexts["matrix"]
        for device_id in ("A", "B"):
            await devices.put(US, Device(device_id=device_id, keys=keys_of(US, device_id), name=device_id))
        ghost = await ctx.get_ghost_id(NativeId("elsewhere", "somebody"))
        await devices.put(ghost, Device(device_id="G", keys=keys_of(ghost, "G")))  # nobody should
        body = {"device_keys": {US: ["A"], ghost: [], "@nobody:else": []}}
        _, answer = await house.ask("POST", f"{V1}/user/keys/query", body)
        (user,) = answer["device_keys"]
        assert user == US
        assert answer["device_keys"][US] == {"A": keys_of(US, "A")}
        _, listed = await house.ask("GET", f"{V1}/user/devices/{quote(ghost, safe='')}")
        assert listed == {"user_id": ghost, "stream_id": 0, "devices": []}


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("query", {"device_keys": []}), ("query", {"device_keys": {US: "A"}}), ("query", {"device_keys": {US: [1]}}),
        ("claim", {"one_time_keys": []}), ("claim", {"one_time_keys": {US: []}}),
        ("claim", {"one_time_keys": {US: {"A": 1}}}),
    ],
)  # fmt: skip
async def test_malformed_questions_for_keys(tmp_path, what, body):
    async with server_with_peer(tmp_path) as house:
        status, answer = await house.ask("POST", f"{V1}/user/keys/{what}", body)
        assert (status, answer["errcode"]) == (400, "M_BAD_JSON")


# Messages to devices.


def to_device(messages: Any, message_id: str = "m1", **over: Any) -> tuple[str, Any]:
    content = {"sender": THEM, "type": "m.room_key", "message_id": message_id, "messages": messages}
    return "m.direct_to_device", content | over


async def test_a_message_waits_for_its_device_once_however_often_it_comes(tmp_path):
    async with server_with_peer(tmp_path) as house:
        messages = known(house).messages
        for device_id in ("A", "B"):
            await known(house).devices.put(US, Device(device_id=device_id))
        woken: list[str] = []
        house.matrix.network.homeserver.local.notifier.wake_user = woken.append
        named = to_device({US: {"A": {"n": 1}, "unknown": {"n": 0}}})
        for _ in range(2):
            assert (
                await edus(house, named, named, to_device({US: {"*": {"n": 2}, "B": {"n": 3}}}, "m2")) == 200
            )
        waiting = await messages.queued_messages(US, "A")
        event = {"sender": THEM, "type": "m.room_key"}
        assert [w.event for w in waiting] == [{**event, "content": {"n": n}} for n in (1, 2)]
        assert [w.event["content"]["n"] for w in await messages.queued_messages(US, "B")] == [3]
        assert woken == [US, US, US]
        await messages.delete_upto(US, "A", waiting[0].position)
        assert await messages.queued_messages(US, "A") == waiting[1:]
        assert len(await messages.queued_messages(US, "B")) == 1
        assert await edus(house, named, to_device({US: {"A": {"n": 4}}}, "m3")) == 200  # beside a known one
        assert [w.event["content"]["n"] for w in await messages.queued_messages(US, "A")] == [2, 4]


async def test_a_fault_of_ours_that_no_repetition_mends_fails_no_transaction(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:

        async def broken(*_: Any) -> Any:
            raise RuntimeError("a bug")

        monkeypatch.setattr(known(house).messages, "_add_to_batch", broken)
        assert await edus(house, to_device({US: {"A": {}}})) == 200
        assert house.app.counters["matrix_edus_failed", (("plugin", "matrix"),)] == 1


async def test_by_what_repeats_are_known_is_kept_for_a_week(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        ctx = house.app.contexts["matrix"]
        await known(house).devices.put(US, Device(device_id="A"))
        await edus(house, to_device({US: {"A": {}}}))
        start = ctx.clock.now()
        for days, left in ((6, 1), (8, 0)):
            monkeypatch.setattr(type(ctx.clock), "now", lambda _, d=days: start + d * 86_400_000)
            await purge_expired(ctx)
            assert len(await ctx.store.scan("to_device_seen")) == left


async def test_the_same_id_of_another_server_is_another_message(tmp_path):
    async with server_with_peer(tmp_path) as house:
        await known(house).devices.put(US, Device(device_id="A"))
        for origin in (THEIRS, "elsewhere.example"):
            _, content = to_device({US: {"A": {}}}, sender=f"@m:{origin}")
            assert await known(house).messages.receive_edus(origin, [content]) == 0
        assert len(await known(house).messages.queued_messages(US, "A")) == 2


async def test_what_cannot_be_stored_is_asked_for_again(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        await known(house).devices.put(US, Device(device_id="A"))
        store = house.matrix.store
        commit, broken = store.commit, [True]

        async def failing(writes: Any, **options: Any) -> list[int]:
            if broken[0] and any(w.collection == "to_device_seen" for w in writes):
                raise StoreError("disk full")
            return await commit(writes, **options)

        monkeypatch.setattr(store, "commit", failing)
        assert await edus(house, to_device({US: {"A": {}}}), txn="t1") == 503
        broken[0] = False
        assert await edus(house, to_device({US: {"A": {}}}), txn="t1") == 200
        assert len(await known(house).messages.queued_messages(US, "A")) == 1


async def test_what_is_for_ghosts_or_nobody_is_let_go_and_counted(tmp_path):
    async with server_with_peer(tmp_path) as house:
        ghost = await house.app.contexts["matrix"].get_ghost_id(NativeId("elsewhere", "somebody"))
        assert await edus(house, to_device({ghost: {"*": {}}, "@x:elsewhere.example": {"*": {}}})) == 200
        store = house.matrix.store
        assert await store.scan("to_device") == []
        labels = (("plugin", "matrix"), ("reason", "nobody"))
        assert house.app.counters["matrix_to_device_discarded", labels] == 2


@pytest.mark.parametrize(
    "over",
    [
        {"sender": US}, {"sender": "@m:elsewhere"}, {"type": 1}, {"message_id": ""}, {"message_id": "x" * 300},
        {"messages": []}, {"messages": {US: []}}, {"messages": {"us": {}}}, {"messages": {US: {"A": 1}}},
        {"messages": {US: {"A": {"x": "y" * 300_000}}}},
    ],
)  # fmt: skip
async def test_what_is_no_message_is_counted_and_the_others_are_taken(tmp_path, over):
    async with server_with_peer(tmp_path) as house:
        await known(house).devices.put(US, Device(device_id="A"))
        good = to_device({US: {"A": {}}}, "good")
        bad = (good[0], good[1] | {"message_id": "bad"} | over)
        assert await edus(house, bad, good) == 200
        assert len(await known(house).messages.queued_messages(US, "A")) == 1
        assert house.app.counters["matrix_edus_ignored", (("plugin", "matrix"),)] == 1


async def test_no_more_waits_for_a_device_than_it_may(tmp_path, monkeypatch):
    monkeypatch.setattr("hansa_matrix.users.to_device_shares.MAX_MESSAGES_OF_PEER", 3)
    async with server_with_peer(tmp_path) as house:
        await known(house).devices.put(US, Device(device_id="A"))
        for number in range(5):
            await edus(house, to_device({US: {"A": {"n": number}}}, str(number)))
        waiting = await known(house).messages.queued_messages(US, "A")
        assert [w.event["content"]["n"] for w in waiting] == [0, 1, 2]
        labels = (("plugin", "matrix"), ("reason", "full"))
        assert house.app.counters["matrix_to_device_discarded", labels] == 2


async def test_a_message_goes_to_devices_here_and_elsewhere_in_edus_that_are_not_too_large(tmp_path):
    async with server_with_peer(tmp_path) as house:
        told = Told(house)
        await known(house).devices.put(US, Device(device_id="A"))
        await told.last(1)
        large = {"x": "y" * 40_000}
        everybody = {US: {"A": large}, THEM: {"P": large, "Q": large}, f"@n:{THEIRS}": {"*": {"n": 1}}}
        await known(house).messages.send_message(
            ToDeviceEdu(sender=US, type="t", message_id="m", messages=everybody)
        )
        contents = (await told.last(3))[1:]
        assert [(c["message_id"], c["messages"]) for c in contents] == [
            ("m", {THEM: {"P": large}}),
            ("m.1", {THEM: {"Q": large}, f"@n:{THEIRS}": {"*": {"n": 1}}}),
        ]
        assert all(c["sender"] == US and c["type"] == "t" for c in contents)
        assert len(await known(house).messages.queued_messages(US, "A")) == 1
        for bad in ({"nobody": {}}, {US: {"A": {"x": "y" * 70_000}}}):
            with pytest.raises(LocalProtocolError):
                await known(house).messages.send_message(
                    ToDeviceEdu(sender=US, type="t", message_id="m", messages=bad)
                )


# Theirs.


def listed(stream_id: int, *device_ids: str) -> dict[str, Any]:
    devices = [{"device_id": d, "keys": keys_of(THEM, d)} for d in device_ids]
    return {"user_id": THEM, "stream_id": stream_id, "devices": devices}


def update(stream_id: int, previous: list[int], device_id: str = "P", **over: Any) -> tuple[str, Any]:
    content = {
        "user_id": THEM,
        "device_id": device_id,
        "stream_id": stream_id,
        "prev_id": previous,
        "keys": keys_of(THEM, device_id),
    }
    return "m.device_list_update", content | over


class Their:
    """Their server's devices: ``lists`` are what it answers, one after the other."""

    def __init__(self, house: ServerWithPeer) -> None:
        self.lists: list[Any] = []
        self.asked: list[str] = []
        self.queried: Any = None
        self.claimed: Any = None
        house.peer.answer = self._answer

    def _answer(self, request: Any) -> tuple[int, Any] | None:
        self.asked.append(request.target)
        if "/user/devices/" in request.target:
            return (200, self.lists.pop(0)) if self.lists else (500, {})
        for what, answer in (("query", self.queried), ("claim", self.claimed)):
            if request.target.endswith(f"/user/keys/{what}"):
                return (200, answer) if answer is not None else (500, {})
        return 200, {}

    def times(self, part: str) -> int:
        return sum(part in target for target in self.asked)


async def cached(house: ServerWithPeer, *lists: Any) -> Their:
    """A list that a local user asked for, so that it is stored."""
    their = Their(house)
    their.lists = list(lists)
    known(house).remote.schedule_fetch(THEM)
    await until(lambda: not house.matrix.device_list_fetches)
    return their


async def devices_of(house: ServerWithPeer) -> set[str] | None:
    found = await known(house).remote.get_current(THEM)
    return set(found.devices) if found is not None else None


async def test_a_list_that_nobody_asked_for_is_not_kept_but_told_of(tmp_path):
    async with server_with_peer(tmp_path) as house:
        their = Their(house)
        changed: list[str] = []
        house.matrix.network.homeserver.local.notifier.wake_contacts = changed.append
        assert await edus(house, update(5, [])) == 200
        assert changed == [THEM] and await devices_of(house) is None
        assert their.times("/user/devices/") == 0


async def test_updates_are_followed_and_repeats_are_none(tmp_path):
    async with server_with_peer(tmp_path) as house:
        await cached(house, listed(3, "P"))
        changed: list[str] = []
        house.matrix.network.homeserver.local.notifier.wake_contacts = changed.append
        await edus(house, update(4, [3], "Q"))
        assert await devices_of(house) == {"P", "Q"}
        await edus(house, update(4, [3], "Q"), update(2, [1], "P"))
        await edus(house, update(6, [4], "P", deleted=True))
        assert await devices_of(house) == {"Q"}
        await edus(house, update(7, [6], "Q", keys=None))  # its keys are gone
        assert await devices_of(house) == set()
        assert changed == [THEM] * 3


async def test_a_missed_change_makes_a_list_stale_until_it_came_anew(tmp_path):
    async with server_with_peer(tmp_path) as house:
        their = await cached(house, listed(3, "P"))
        their.lists = []
        await edus(house, update(6, [5], "Q"))
        await until(lambda: not house.matrix.device_list_fetches)
        assert await devices_of(house) is None  # their server did not answer: it is not used
        their.lists = [listed(5, "P"), listed(7, "P", "Q", "R")]  # the first is older than what we were told
        await edus(house, update(7, [6], "R"))
        await until(lambda: not house.matrix.device_list_fetches)
        assert await devices_of(house) == {"P", "Q", "R"}
        assert their.times("/user/devices/") == 4
        for stale in (update(9, []), update(10, [9])):
            their.lists = [listed(10, "S")]
            await edus(house, stale)
        await until(lambda: not house.matrix.device_list_fetches)
        assert await devices_of(house) == {"S"}


@pytest.mark.parametrize("number", [1, 3, 2])
async def test_a_server_whose_numbers_say_nothing_is_asked_anew(tmp_path, number):
    """Some servers send the number 1 for ever, and never the previous ones; a reinstalled one begins
    again.
    """
    async with server_with_peer(tmp_path) as house:
        their = await cached(house, listed(3, "P"))
        changed: list[str] = []
        house.matrix.network.homeserver.local.notifier.wake_contacts = changed.append
        for names in (["P", "Q"], ["Q"], ["Q", "R"]):
            their.lists = [listed(number, *names)] * 3
            gone = {"deleted": True} if names == ["Q"] else {}
            await edus(house, update(number, [], "P" if gone else names[-1], **gone))
            await until(lambda: not house.matrix.device_list_fetches)
            assert await devices_of(house) == set(names)
        assert changed == [THEM] * 3


async def test_a_list_whose_number_never_reaches_what_was_told_is_taken(tmp_path):
    async with server_with_peer(tmp_path) as house:
        their = await cached(house, listed(3, "P"))
        their.lists = [listed(0, "P", "Q")] * 3
        await edus(house, update(9, [], "Q"))
        await until(lambda: not house.matrix.device_list_fetches)
        assert await devices_of(house) == {"P", "Q"}


async def test_a_server_causes_so_many_lists_to_be_asked_for_and_no_more(tmp_path):
    """A list that is not fetched is stale, so that no old keys are used."""
    async with server_with_peer(tmp_path) as house:
        their = await cached(house, listed(3, "P"))
        their.asked.clear()
        for number in range(int(REFETCH_BURST) + 30):
            their.lists = [listed(number % 2, "P", "Q")] * 3
            await edus(house, update(number % 2, [], "Q", deleted=number % 2 == 0))
            await until(lambda: not house.matrix.device_list_fetches)
        assert 0 < their.times("/user/devices/") <= REFETCH_BURST + 1
        assert await devices_of(house) is None


async def test_one_list_is_fetched_once_at_a_time(tmp_path):
    async with server_with_peer(tmp_path) as house:
        their = await cached(house, listed(3, "P"))
        their.asked.clear()
        their.lists = [listed(9, "P")]
        await edus(house, *(update(n, [n - 1]) for n in range(5, 10)))
        await until(lambda: not house.matrix.device_list_fetches)
        assert their.times("/user/devices/") == 1 and await devices_of(house) == {"P"}


@pytest.mark.parametrize(
    "over",
    [
        {"user_id": US}, {"user_id": "@m:elsewhere"}, {"device_id": ""}, {"stream_id": "4"}, {"stream_id": -1},
        {"stream_id": True}, {"prev_id": 3}, {"prev_id": ["3"]}, {"keys": {"a": 1}},
        {"keys": keys_of(THEM, "Z")}, {"keys": keys_of(US, "Q")},
    ],
)  # fmt: skip
async def test_what_is_no_update_changes_nothing(tmp_path, over):
    async with server_with_peer(tmp_path) as house:
        await cached(house, listed(3, "P"))
        kind, content = update(4, [3], "Q")
        await edus(house, (kind, content | over))
        assert await devices_of(house) == {"P"}
        assert house.app.counters["matrix_edus_ignored", (("plugin", "matrix"),)] == 1


async def test_who_shares_no_room_any_more_is_asked_for_again(tmp_path):
    async with server_with_peer(tmp_path) as house:
        await cached(house, listed(3, "P"))
        known(house).company.is_tracked = lambda _: False
        assert await devices_of(house) is None
        known(house).company.is_tracked = lambda _: True
        assert await devices_of(house) is None


async def test_their_signing_keys_are_followed(tmp_path):
    async with server_with_peer(tmp_path) as house:
        first = cross(THEM, "master", "one")
        await cached(house, {**listed(3, "P"), "master_key": first, "self_signing_key": {"no": "key"}})
        assert (await known(house).remote.get_current(THEM)).cross_signing == {"master": first}
        changed: list[str] = []
        house.matrix.network.homeserver.local.notifier.wake_contacts = changed.append
        second, third = cross(THEM, "master", "two"), cross(THEM, "self_signing", "three")
        kind = "m.signing_key_update"
        await edus(house, (kind, {"user_id": THEM, "master_key": second, "self_signing_key": third}))
        assert (await known(house).remote.get_current(THEM)).cross_signing == {
            "master": second,
            "self_signing": third,
        }
        for bad in ({"user_id": US, "master_key": cross(US, "master")}, {"user_id": THEM, "master_key": 1}):
            await edus(house, (kind, bad))
        assert changed == [THEM]
        assert house.app.counters["matrix_edus_ignored", (("plugin", "matrix"),)] == 2


async def test_a_query_is_answered_from_what_is_kept_else_by_their_server_and_failures_are_named(tmp_path):
    async with server_with_peer(tmp_path) as house:
        their = Their(house)
        await known(house).devices.put(US, Device(device_id="A", keys=keys_of(US, "A")))
        other = "@far:away.example:1"
        their.queried = {
            "device_keys": {
                THEM: {"P": keys_of(THEM, "P"), "Q": keys_of(THEM, "not Q")},
                US: {"X": keys_of(US, "X")},  # not theirs to say
            },
            "master_keys": {THEM: cross(THEM, "master"), US: cross(US, "master")},
            "self_signing_keys": {THEM: {"keys": 7}},
        }
        their.lists = [listed(1, "P")]
        answer = their._answer
        house.peer.answer = lambda r: (500, {}) if "away" in r.host_header else answer(r)
        found = await known(house).keys.query_keys({US: [], THEM: [], other: []})
        assert found["device_keys"] == {US: {"A": keys_of(US, "A")}, THEM: {"P": keys_of(THEM, "P")}}
        assert found["master_keys"] == {THEM: cross(THEM, "master")} and found["self_signing_keys"] == {}
        assert list(found["failures"]) == ["away.example:1"]
        await until(lambda: not house.matrix.device_list_fetches)
        their.asked.clear()
        again = await known(house).keys.query_keys({THEM: ["P"]})
        assert again["device_keys"] == {THEM: {"P": keys_of(THEM, "P")}} and again["failures"] == {}
        assert their.times("/user/") == 0  # it is kept now


async def test_a_claim_goes_to_their_server_and_takes_only_what_was_asked_for(tmp_path):
    async with server_with_peer(tmp_path) as house:
        their = Their(house)
        await known(house).devices.put(US, Device(device_id="A"))
        await known(house).devices.add_one_time_keys(US, "A", {"curve25519:1": "ours"})
        their.claimed = {
            "one_time_keys": {
                THEM: {
                    "P": {"curve25519:x": "theirs"},
                    "Q": {"other:x": "not asked for"},
                    "R": {"curve25519:a": "one", "curve25519:b": "two"},
                },
                US: {"A": {"curve25519:fake": "not theirs to give"}},
            }
        }
        wanted = {
            US: {"A": "curve25519"},
            THEM: dict.fromkeys("PQR", "curve25519"),
            "@far:away.example:1": {"Z": "curve25519"},
        }
        answer = their._answer
        house.peer.answer = lambda r: (500, {}) if "away" in r.host_header else answer(r)
        found = await known(house).keys.claim_keys(wanted)
        assert found["one_time_keys"] == {
            US: {"A": {"curve25519:1": "ours"}},
            THEM: {"P": {"curve25519:x": "theirs"}},
        }
        assert list(found["failures"]) == ["away.example:1"]


NAMES = st.sampled_from(
    [
        "user_id", "device_id", "stream_id", "prev_id", "keys", "deleted", "sender", "type", "message_id",
        "messages", "master_key", "devices", "algorithms", "usage",
    ]
)  # fmt: skip
VALUES = st.one_of(json_values, st.just(THEM), st.just({THEM: {"A": {}}}), st.just([{"device_id": "A"}]))


@given(st.dictionaries(NAMES, VALUES))
def test_nothing_makes_the_parsers_raise(content: dict[str, Any]) -> None:
    content.setdefault("user_id", THEM)
    for parse in (proto.parse_device_list, proto.parse_to_device, proto.parse_signing_keys):
        parse(content, THEIRS)
    proto.parse_user_devices(content, THEM)
    proto.parse_device_keys(content, THEM, "A")
    proto.parse_cross_signing_key(content, THEM, "master")
    proto.parse_one_time_key("a:b", content)
