"""How much is unread of rooms and of their threads, and what makes it read."""

from __future__ import annotations

from typing import Any

import pytest
from clients.matrix_server import LocalUser, MatrixServer, Refused, matrix_server, part

BY_THREAD = "&filter=" + part('{"room":{"timeline":{"unread_thread_notifications":true}}}')


def within(root: str, body: str = "in a thread") -> dict[str, Any]:
    related = {"rel_type": "m.thread", "event_id": root}
    return {"msgtype": "m.text", "body": body, "m.relates_to": related}


async def counts(person: LocalUser, room: str, more: str = BY_THREAD) -> tuple[int, dict[str, int]]:
    """Of the room, and by thread."""
    found = (await person.sync(f"{more}&full_state=true"))["rooms"]["join"][room]
    threads = found.get("unread_thread_notifications", {})
    notified = {root: of["notification_count"] for root, of in threads.items()}
    return found["unread_notifications"]["notification_count"], notified


async def read(person: LocalUser, room: str, event: str, kind: str = "m.read", **body: Any) -> None:
    await person.call("POST", f"/rooms/{part(room)}/receipt/{kind}/{part(event)}", body)


async def two(home: MatrixServer) -> tuple[LocalUser, LocalUser, str]:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await alice.create(preset="public_chat")
    await bob.join(room)
    await bob.sync()
    return alice, bob, room


async def test_every_thread_is_counted_for_itself(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, room = await two(home)
        root, other = await alice.say(room, "root"), await alice.say(room, "other")
        assert await counts(bob, room) == (2, {})
        answers = [await alice.say(room, **within(root, str(n))) for n in range(3)]
        last = await alice.say(room, **within(other))
        mention = {"m.mentions": {"user_ids": [bob.user]}, **within(other, "you")}
        await alice.say(room, **mention)
        assert await counts(bob, room) == (2, {root: 3, other: 2})
        assert await counts(bob, room, "") == (7, {})
        found = (await bob.sync(f"{BY_THREAD}&full_state=true"))["rooms"]["join"][room]
        assert found["unread_thread_notifications"][other] == {"notification_count": 2, "highlight_count": 1}
        assert found["unread_notifications"]["highlight_count"] == 0
        await read(bob, room, answers[1], thread_id=root)
        assert await counts(bob, room) == (2, {root: 1, other: 2})
        await read(bob, room, answers[2], "m.read.private", thread_id=root)
        assert await counts(bob, room) == (2, {other: 2})
        await read(bob, room, root, thread_id="main")
        assert await counts(bob, room) == (1, {other: 2})
        await read(bob, room, last)
        assert await counts(bob, room) == (0, {other: 1})
        assert await counts(bob, room, "") == (1, {})


async def test_receipts_of_the_room_and_of_its_threads_stand_beside_each_other(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, room = await two(home)
        root = await alice.say(room, "root")
        answer = await alice.say(room, **within(root))
        last = await alice.say(room, "last")
        await alice.sync()
        await read(bob, room, root)
        await read(bob, room, answer, thread_id=root)
        await read(bob, room, last, thread_id="main")
        told = (await alice.sync())["rooms"]["join"][room]["ephemeral"]["events"]
        names = {
            event: [one["m.read"][bob.user].get("thread_id")]
            for receipts in told
            for event, one in receipts["content"].items()
        }
        assert names == {root: [None], answer: [root], last: ["main"]}
        assert await counts(bob, room) == (0, {})


async def test_a_receipt_does_not_go_back(tmp_path):
    """Of two devices the one that is behind says what it has read last."""
    async with matrix_server(tmp_path) as home:
        alice, bob, room = await two(home)
        said = [await alice.say(room, str(n)) for n in range(3)]
        await read(bob, room, said[1], "m.read.private")
        await read(bob, room, said[0])  # others are told, and it unreads nothing
        assert await counts(bob, room) == (1, {})
        await read(bob, room, said[2])
        await alice.sync()
        await read(bob, room, said[0])
        assert "rooms" not in await alice.sync()
        assert await counts(bob, room) == (0, {})


async def test_what_reacts_to_an_answer_is_of_its_thread(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, room = await two(home)
        root = await alice.say(room, "root")
        answer = await alice.say(room, **within(root))
        refers = {"rel_type": "m.reference", "event_id": answer}
        second = await alice.say(room, **{"msgtype": "m.text", "body": "x", "m.relates_to": refers})
        third = {"rel_type": "m.reference", "event_id": second}
        await alice.say(room, **{"msgtype": "m.text", "body": "y", "m.relates_to": third})
        about = {"rel_type": "m.reference", "event_id": root}
        await alice.say(room, **{"msgtype": "m.text", "body": "z", "m.relates_to": about})
        assert await counts(bob, room) == (2, {root: 3})


async def test_what_was_taken_back_is_not_unread(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, room = await two(home)
        root = await alice.say(room, "root")
        answer = await alice.say(room, **within(root))
        gone = await alice.say(room, "bob: gone")
        assert await counts(bob, room, "") == (3, {})
        for event in (gone, answer):
            await alice.call("PUT", f"/rooms/{part(room)}/redact/{part(event)}/{event[1:5]}", {})
        assert await counts(bob, room) == (1, {})
        found = (await bob.sync("&full_state=true"))["rooms"]["join"][room]
        assert found["unread_notifications"] == {"notification_count": 1, "highlight_count": 0}


async def test_who_answers_has_read(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, room = await two(home)
        root = await alice.say(room, "root")
        await alice.say(room, **within(root))
        await bob.say(room, **within(root, "mine"))
        assert await counts(bob, room) == (1, {})
        await bob.say(room, "mine")
        assert await counts(bob, room) == (0, {})
        await alice.say(room, "more")
        assert await counts(bob, room) == (1, {})


async def test_another_name_reads_nothing(tmp_path):
    """Events from before the join are not unread; the user's own member events since then do not count."""
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await alice.say(room, "before")
        await bob.join(room)
        said = [await alice.say(room, str(n)) for n in range(3)]
        await bob.call("PUT", f"/profile/{part(bob.user)}/displayname", {"displayname": "Bobby"})
        assert await counts(bob, room) == (3, {})
        await read(bob, room, said[0], thread_id="main")
        await read(bob, room, said[1])
        assert await counts(bob, room) == (1, {})


@pytest.mark.parametrize(
    ("event", "kind", "thread", "taken"),
    [
        ("answer", "m.read", "root", True), ("answer", "m.read", "main", False), ("answer", "m.read.private", "other", False),
        ("root", "m.read", "main", True), ("root", "m.read", "root", True), ("other", "m.read", "root", False),
        ("answer", "m.fully_read", "root", False), ("answer", "m.read", "", False),
    ],
)  # fmt: skip
async def test_receipts_for_a_thread(tmp_path, event, kind, thread, taken):
    async with matrix_server(tmp_path) as home:
        alice, bob, room = await two(home)
        said = {"root": await alice.say(room, "root"), "other": await alice.say(room, "other")}
        said["answer"] = await alice.say(room, **within(said["root"]))
        asked = read(bob, room, said[event], kind, thread_id=said.get(thread, thread))
        if taken:
            await asked
        else:
            with pytest.raises(Refused, match="M_INVALID_PARAM"):
                await asked


async def test_one_event_may_be_the_last_that_is_read_of_the_room_and_of_a_thread(tmp_path):
    """Both receipts are told to clients, first and as news: neither takes the other's place."""
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        said = await alice.say(room, "x")
        await alice.sync()
        for body in ({}, {"thread_id": "main"}):
            await bob.call("POST", f"/rooms/{part(room)}/receipt/m.read/{part(said)}", body)
        fresh = await home.person("alice", "LAPTOP")
        for found in (await alice.sync(), await fresh.sync()):
            told = [
                e for e in found["rooms"]["join"][room]["ephemeral"]["events"] if e["type"] == "m.receipt"
            ]
            read = [e["content"][said]["m.read"][bob.user].get("thread_id") for e in told]
            assert read == [None, "main"]
