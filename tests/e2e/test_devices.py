"""Devices, keys and messages to devices between a real Synapse and a Hansa, both ways."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote

import pytest
from hansa_matrix.proto.devices import Device, ToDeviceEdu
from hansa_matrix.users.user_services import Users
from peers.scripted_hansa import ScriptedHansa
from peers.synapse import MatrixUser
from peers.waiting import until

pytestmark = pytest.mark.e2e


def keys_of(user: str, device_id: str) -> dict[str, Any]:
    return {
        "user_id": user,
        "device_id": device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            f"curve25519:{device_id}": secrets.token_hex(16),
            f"ed25519:{device_id}": secrets.token_hex(16),
        },
        "signatures": {user: {f"ed25519:{device_id}": "c2lnbmF0dXJl"}},
    }


class ClientDevice:
    """Alice's device on Synapse, and what came for it."""

    def __init__(self, user: MatrixUser, device_id: str) -> None:
        self.user, self.device_id = user, device_id
        self.got: list[dict[str, Any]] = []
        self.changed: set[str] = set()
        self._since = ""

    async def sync(self) -> None:
        since = f"&since={self._since}" if self._since else ""
        found = await self.user.call("GET", f"/sync?timeout=0{since}")
        self._since = found["next_batch"]
        self.got += found.get("to_device", {}).get("events", [])
        self.changed |= set(found.get("device_lists", {}).get("changed", []))


async def town(stage: Any, alice: MatrixUser) -> tuple[ScriptedHansa, Users, str, ClientDevice]:
    """A Hansa whose bridge user has a device and is in a room with Alice, who has one too."""
    hansa = await stage()
    await hansa.run("rooms", "create", "matrix:#lobby")
    await alice.join(f"#lobby:{hansa.name}")
    device_id = (await alice.call("GET", "/account/whoami"))["device_id"]
    await alice.call(
        "POST",
        "/keys/upload",
        {
            "device_keys": keys_of(alice.id, device_id),
            "one_time_keys": {
                "signed_curve25519:a1": {"key": "one", "signatures": {alice.id: {"ed25519:x": "s"}}}
            },
        },
    )
    phone = ClientDevice(alice, device_id)
    await phone.sync()
    return hansa, hansa.matrix.users, hansa.matrix.bridge_user, phone


async def test_keys_are_found_claimed_once_and_followed(stage, matrix_user):
    alice = await matrix_user("alice")
    _, known, bot, phone = await town(stage, alice)
    bots = keys_of(bot, "BOT")
    await known.devices.put(bot, Device(device_id="BOT", keys=bots, name="a bot"))
    await known.devices.add_one_time_keys(
        bot, "BOT", {"signed_curve25519:b1": {"key": "two", "signatures": {}}}
    )

    found = await known.keys.query_keys({alice.id: []})
    assert found["failures"] == {}
    assert found["device_keys"][alice.id][phone.device_id]["keys"] == keys_in(
        found, alice.id, phone.device_id
    )
    claimed = await known.keys.claim_keys({alice.id: {phone.device_id: "signed_curve25519"}})
    assert claimed["one_time_keys"][alice.id][phone.device_id]["signed_curve25519:a1"]["key"] == "one"
    again = await known.keys.claim_keys({alice.id: {phone.device_id: "signed_curve25519"}})
    assert again == {"one_time_keys": {}, "failures": {}}

    async def seen() -> bool:
        answer = await alice.call("POST", "/keys/query", {"device_keys": {bot: []}})
        return bool(answer["device_keys"].get(bot, {}).get("BOT", {}).get("keys") == bots["keys"])

    await until("Alice sees the bot's device", seen)
    body = {"one_time_keys": {bot: {"BOT": "signed_curve25519"}}}
    claimed = await alice.call("POST", "/keys/claim", body)
    assert claimed["one_time_keys"][bot]["BOT"]["signed_curve25519:b1"]["key"] == "two"
    assert await known.devices.one_time_key_counts(bot, "BOT") == {"signed_curve25519": 0}

    async def kept() -> bool:
        return await known.remote.get_current(alice.id) is not None

    await until("Alice's devices are kept", kept)
    before = await known.remote.get_current(alice.id)
    assert before is not None
    name = {"display_name": "Alice's new phone"}
    await alice.call("PUT", f"/devices/{quote(phone.device_id)}", name)

    async def followed() -> bool:
        of = await known.remote.get_current(alice.id)
        return of is not None and of.stream_id > before.stream_id and set(of.devices) == {phone.device_id}

    await until("the change is followed", followed)
    phone.changed.clear()
    await known.devices.put(bot, Device(device_id="BOT", keys=bots, name="a better bot"))
    await known.devices.put(bot, Device(device_id="SECOND", keys=keys_of(bot, "SECOND")))

    async def told() -> bool:
        await phone.sync()
        return bot in phone.changed

    await until("Alice is told that the bot's devices changed", told)

    async def both() -> bool:
        answer = await alice.call("POST", "/keys/query", {"device_keys": {bot: []}})
        return set(answer["device_keys"].get(bot, {})) == {"BOT", "SECOND"}

    await until("Alice sees both of the bot's devices", both)
    await known.devices.remove(bot, ["BOT"])

    async def one() -> bool:
        answer = await alice.call("POST", "/keys/query", {"device_keys": {bot: []}})
        return set(answer["device_keys"].get(bot, {})) == {"SECOND"}

    await until("Alice sees that one is gone", one)


def keys_in(found: Any, user: str, device_id: str) -> Any:
    keys = found["device_keys"][user][device_id]["keys"]
    assert set(keys) == {f"curve25519:{device_id}", f"ed25519:{device_id}"}
    return keys


async def test_messages_to_devices_arrive_once_also_over_a_restart(stage, matrix_user):
    alice = await matrix_user("alice")
    hansa, known, bot, phone = await town(stage, alice)
    await known.devices.put(bot, Device(device_id="BOT", keys=keys_of(bot, "BOT")))

    async def send(number: int) -> None:
        messages = {bot: {"BOT": {"n": number}}}
        await alice.call("PUT", f"/sendToDevice/m.test/{secrets.token_hex(6)}", {"messages": messages})

    async def arrived(count: int) -> list[Any]:
        waiting: list[Any] = []

        async def so() -> bool:
            waiting[:] = await hansa.matrix.users.messages.queued_messages(bot, "BOT")
            return len(waiting) >= count

        await until(f"{count} messages came", so)
        return waiting

    await send(1)
    (first,) = await arrived(1)
    assert first.event == {"sender": alice.id, "type": "m.test", "content": {"n": 1}}
    await hansa.stop()
    await send(2)
    await send(3)
    await hansa.start()
    assert [w.event["content"]["n"] for w in await arrived(3)] == [1, 2, 3]

    for number in range(4, 7):
        content = {"n": number}
        messages = {alice.id: {phone.device_id: content} if number < 6 else {"*": content}}
        message = ToDeviceEdu(sender=bot, type="m.test", message_id=f"m{number}", messages=messages)
        await hansa.matrix.users.messages.send_message(message)

    async def got() -> bool:
        await phone.sync()
        return len(phone.got) >= 3

    await until("Alice's phone has them", got)
    assert [(e["sender"], e["content"]["n"]) for e in phone.got] == [(bot, n) for n in (4, 5, 6)]
