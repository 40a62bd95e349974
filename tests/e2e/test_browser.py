"""Matrix clients in a real browser: what Element does, on a Hansa and towards a Synapse."""

from __future__ import annotations

import pytest
from peers.waiting import until

pytestmark = pytest.mark.e2e


async def test_a_browser_begins_speaks_and_reads(hansa, page):
    server = await hansa()
    romeo = await page("romeo", server.url, await server.account("romeo"))
    tybalt = await page("tybalt", server.url, await server.account("tybalt"))
    await romeo.call("rename", "Romeo")
    room = await romeo.call(
        "create",
        {"preset": "public_chat", "room_alias_name": "plaza", "name": "Plaza", "visibility": "public"},
    )
    assert await tybalt.call("join", f"#plaza:{server.name}") == room
    await romeo.until(
        "tybalt in the room", "members", room, holds=lambda who: set(who) == {romeo.id, tybalt.id}
    )
    event = await romeo.call("say", room, "what light is this?")
    shown = await tybalt.until(
        "the message", "events", room, holds=lambda events: events and events[-1]["id"] == event
    )
    assert shown[-1]["content"]["body"] == "what light is this?"
    assert (await tybalt.call("unread", room)) == 1
    await tybalt.call("read", room)
    await romeo.until("the receipt", "readers", room, event, holds=lambda who: tybalt.id in who)
    await tybalt.until("nothing unread", "unread", room, holds=lambda count: count == 0)
    await tybalt.call("setTyping", room, True)
    await romeo.until("who types", "typing", room, holds=lambda who: who == [tybalt.id])
    mxc = await romeo.call("upload", "a letter")
    assert await tybalt.call("download", mxc) == "a letter"
    await romeo.call("redact", room, event)
    await tybalt.until(
        "the redaction",
        "events",
        room,
        holds=lambda events: any(e["id"] == event and e["redacted"] for e in events),
    )
    for number in range(30):
        await romeo.call("say", room, str(number))
    late = await page("late", server.url, await server.account("late"))
    await late.call("join", room)
    await late.until("the room", "rooms", holds=lambda rooms: [r["name"] for r in rooms] == ["Plaza"])
    back = await late.call("back", room, 60)
    assert [
        e["content"].get("body") for e in back if e["type"] == "m.room.message" and not e["redacted"]
    ] == [str(n) for n in range(30)]
    await late.call("stop")


@pytest.mark.parametrize("hosted", ["here", "there"])
async def test_encrypted_between_browsers_of_two_servers(hosted, hansa, synapse, matrix_user, page):
    """The Rust crypto of Element on both sides."""
    server = await hansa()
    romeo = await page("romeo", server.url, await server.account("romeo"))
    alice = await page("alice", synapse.url, (await matrix_user("alice")).id)
    host, guest = (romeo, alice) if hosted == "here" else (alice, romeo)
    encrypted = {
        "type": "m.room.encryption",
        "state_key": "",
        "content": {"algorithm": "m.megolm.v1.aes-sha2"},
    }
    room = await host.call(
        "create",
        {"preset": "private_chat", "name": "balcony", "initial_state": [encrypted], "invite": [guest.id]},
    )
    await guest.until("the invite", "invites", holds=lambda rooms: room in rooms)
    await guest.call("join", room, [host.id.partition(":")[2]])
    for one in (host, guest):
        await one.until(
            "both in the room", "members", room, holds=lambda who: set(who) == {host.id, guest.id}
        )
    for one, other in ((host, guest), (guest, host)):
        assert await one.call("crossSign", "pw") is True
        whole = {"devices": 1, "signed": 1, "crossSigned": True}
        await other.until(
            "the other's keys", "knows", one.id, holds=lambda found, whole=whole: found == whole
        )
    for number in range(3):
        await host.call("say", room, f"to the guest {number}")
        await guest.call("say", room, f"to the host {number}")
    for one, other, texts in (
        (guest, host, [f"to the guest {n}" for n in range(3)]),
        (host, guest, [f"to the host {n}" for n in range(3)]),
    ):

        async def deciphered(one=one, other=other, texts=texts) -> bool:
            return await one.bodies(room, other.id) == texts

        await until(f"{one.id} deciphers {other.id}", deciphered)
        events = [
            e
            for e in await one.call("events", room)
            if e["sender"] == other.id and e["type"] == "m.room.message"
        ]
        assert all(e["encrypted"] and not e["failed"] for e in events)


async def test_a_new_browser_reads_what_was_backed_up(hansa, page):
    """The keys to what was said before come out of the backup, and out of nothing else."""
    server = await hansa()
    name = await server.account("romeo")
    first = await page("romeo", server.url, name)
    assert await first.call("crossSign", "pw") is True
    encrypted = {
        "type": "m.room.encryption",
        "state_key": "",
        "content": {"algorithm": "m.megolm.v1.aes-sha2"},
    }
    room = await first.call("create", {"preset": "private_chat", "initial_state": [encrypted]})
    await first.until("the room", "members", room, holds=lambda who: who == [first.id])
    version = await first.call("backUp")
    for number in range(3):
        await first.call("say", room, f"before {number}")
    kept = await first.until("the backup", "backedUp", holds=lambda found: found["count"] > 0)
    assert kept["version"] == version
    await first.call("stop")
    second = await page("again", server.url, name)
    await second.until("the room", "rooms", holds=lambda rooms: room in [one["id"] for one in rooms])
    events = [e for e in await second.call("back", room, 60) if e["encrypted"]]
    assert len(events) == 3 and all(e["failed"] for e in events)
    restored = await second.call("restore", kept["key"], version)
    assert (restored["imported"], restored["total"]) == (kept["count"], kept["count"])

    async def deciphered() -> bool:
        return await second.bodies(room, second.id) == [f"before {number}" for number in range(3)]

    await until("what was said before is deciphered", deciphered)
