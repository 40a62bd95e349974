"""People with real clients on a Hansa, a Synapse and a Prosody, in one room."""

from __future__ import annotations

import pytest
from e2e.three_servers import LOBBY, MUC, wait_linked, wait_matrix_messages, xmpp_config
from nio import JoinResponse
from peers.waiting import until

pytestmark = pytest.mark.e2e


async def test_three_people_on_three_servers_with_a_restart_between(
    hansa, prosody, matrix_user, xmpp_user, nio_user
):
    server = await hansa(xmpp_config(prosody) + LOBBY)
    await wait_linked(server)
    romeo = await nio_user(server.url, await server.account("romeo"))
    await romeo.client.set_displayname("Romeo")
    juliet, alice = await xmpp_user("juliet"), await matrix_user("alice")
    await juliet.join(MUC, "Juliet")
    joined = await romeo.client.join(f"#lobby:{server.name}")
    assert isinstance(joined, JoinResponse), joined
    room = await alice.join(f"#lobby:{server.name}")
    assert room == joined.room_id
    nick = await juliet.until("Romeo", lambda: next((n for n in juliet.occupants(MUC) if n == "Romeo"), ""))

    async def round_(number: int) -> None:
        said = [f"{who} {number}" for who in ("romeo", "alice", "juliet")]
        await romeo.say(room, said[0])
        await alice.say(room, said[1])
        assert await juliet.verdict(juliet.say(MUC, said[2]), MUC) is None
        everything = [f"{who} {n}" for n in range(number + 1) for who in ("romeo", "alice", "juliet")]
        await romeo.until("all at Romeo's", lambda: len(romeo.bodies(room)) >= len(everything))
        await juliet.until("all at Juliet's", lambda: len(juliet.bodies(MUC)) >= len(everything))
        assert sorted(romeo.bodies(room)) == sorted(everything)
        assert sorted(juliet.bodies(MUC)) == sorted(everything)
        for who in ("romeo", "juliet"):
            assert [t for t in romeo.bodies(room) if t.startswith(who)] == [
                f"{who} {n}" for n in range(number + 1)
            ]
        ghost = next(u for u, n in (await alice.members(room)).items() if n == "Juliet")
        await wait_matrix_messages(alice, room, romeo.id, [f"romeo {n}" for n in range(number + 1)])
        await wait_matrix_messages(alice, room, ghost, [f"juliet {n}" for n in range(number + 1)])

    assert nick == "Romeo"
    await romeo.until("the room at Romeo's", lambda: room in romeo.client.rooms)
    await round_(0)
    await server.kill()
    await alice.say(room, "alice 1")  # while nobody is there to hear it
    await server.start()
    await wait_linked(server)
    await juliet.join(MUC, "Juliet")
    await romeo.until("what was said meanwhile", lambda: "alice 1" in romeo.bodies(room), 60)
    await romeo.say(room, "romeo 1")
    await juliet.until("Romeo after the restart", lambda: "romeo 1" in juliet.bodies(MUC), 60)
    await juliet.until("Alice's while we were away", lambda: "alice 1" in juliet.bodies(MUC), 60)
    assert [t for t in romeo.bodies(room) if t.startswith("alice")] == ["alice 0", "alice 1"]
    assert [t for t in juliet.bodies(MUC) if t.startswith("alice")] == ["alice 0", "alice 1"]
    await wait_matrix_messages(alice, room, romeo.id, ["romeo 0", "romeo 1"])


@pytest.mark.parametrize("hosted", ["here", "there"])
async def test_encrypted_between_servers(hosted, hansa, synapse, matrix_user, nio_user):
    """Olm and Megolm of real clients on both sides: keys queried, claimed, sent to devices over federation."""
    server = await hansa()
    alice_id = (await matrix_user("alice")).id
    romeo = await nio_user(server.url, await server.account("romeo"))
    alice = await nio_user(synapse.url, alice_id)
    host, guest = (romeo, alice) if hosted == "here" else (alice, romeo)
    room = await host.encrypted_with(guest, name="balcony")
    for one, other in ((host, guest), (guest, host)):
        await one.until(
            f"{other.id} in the room of {one.id}",
            lambda one=one, other=other: (
                room in one.client.rooms
                and other.id in one.client.rooms[room].users
                and one.client.rooms[room].encrypted
            ),
        )

        async def known(one=one, other=other) -> bool:
            await one.sync()
            return bool(list(one.client.device_store.active_user_devices(other.id)))

        await until(f"{one.id} knows the devices of {other.id}", known)
    for number in range(3):
        await host.say(room, f"to the guest {number}")
        await guest.say(room, f"to the host {number}")
    for one, texts in (
        (guest, [f"to the guest {n}" for n in range(3)]),
        (host, [f"to the host {n}" for n in range(3)]),
    ):
        sender = host.id if one is guest else guest.id
        await one.until(
            "everything deciphered", lambda one=one, sender=sender: len(one.bodies(room, sender)) >= 3
        )
        assert one.bodies(room, sender) == texts
        assert all(encrypted for _, who, _, encrypted in one.said if who == sender)
        assert not one.undecipherable
    assert "to the guest" not in server.log()


@pytest.mark.parametrize("store", ["sqlite", "mongo", "postgres"])
async def test_positions_and_what_was_told_outlive_a_crash(store, hansa, local_user, request):
    url = {} if store == "sqlite" else {"store": request.getfixturevalue(f"{store}_url")}
    server = await hansa(**url)
    romeo, tybalt = await local_user(server, "romeo"), await local_user(server, "tybalt")
    room = await romeo.create_room(name="Verona")
    await tybalt.join(room)
    data = f"/user/{romeo.id}/account_data/test.note"
    await romeo.call("PUT", data, {"n": 1})
    since = (await romeo.sync())["next_batch"]
    await tybalt.say(room, "before")
    await romeo.call("PUT", data, {"n": 2})
    await tybalt.call("PUT", "/sendToDevice/test.ping/1", {"messages": {romeo.id: {"*": {"n": 1}}}})
    await server.kill()
    await server.start()
    await tybalt.say(room, "after")
    got: list[str] = []
    notes: list[int] = []
    pings = 0
    for _ in range(3):
        found = await romeo.call("GET", f"/sync?timeout=0&since={since}")
        since = found["next_batch"]
        events = found.get("rooms", {}).get("join", {}).get(room, {}).get("timeline", {}).get("events", [])
        got += [e["content"]["body"] for e in events if e["type"] == "m.room.message"]
        notes += [e["content"]["n"] for e in found.get("account_data", {}).get("events", [])]
        pings += len(found.get("to_device", {}).get("events", []))
    assert (got, notes, pings) == (["before", "after"], [2], 1)
    assert await romeo.bodies(room) == ["before", "after"]
