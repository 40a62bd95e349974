"""``GET /notifications``: the events that notified a user, and whether they are read."""

from __future__ import annotations

from typing import Any

import pytest
from clients.matrix_server import LocalUser, Refused, matrix_server, part
from hansa_matrix.local.client_stream import stream_write as tell


async def told(person: LocalUser, more: str = "") -> list[dict[str, Any]]:
    """All pages."""
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        answer = await person.get(f"/notifications?x=1{more}{f'&from={token}' if token else ''}")
        found += answer["notifications"]
        token = answer.get("next_token", "")
        if not token:
            return found


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_what_somebody_was_told_of_in_pages(tmp_path, limit):
    async with matrix_server(tmp_path) as home:
        alice, bob, eve = await home.person("alice"), await home.person("bob"), await home.person("eve")
        rooms = [await alice.create(preset="public_chat") for _ in range(2)]
        elsewhere = await alice.create(preset="public_chat")
        await alice.say(rooms[0], "before bob")
        for room in rooms:
            await bob.join(room)
        await eve.join(elsewhere)
        said = [await alice.say(rooms[n % 2], f"bob: {n}" if n == 3 else str(n)) for n in range(6)]
        await alice.say(elsewhere, "not for bob")
        await bob.say(rooms[0], "mine")
        last = await alice.say(rooms[0], "last")
        gone = await alice.say(rooms[1], "gone")
        await alice.call("PUT", f"/rooms/{part(rooms[1])}/redact/{part(gone)}/r", {})
        found = await told(bob, f"&limit={limit}")
        assert [one["event"]["event_id"] for one in found] == [last, *reversed(said)]
        assert {one["room_id"] for one in found} == set(rooms)
        one = found[3]
        assert one["event"]["content"]["body"] == "bob: 3"
        assert {"set_tweak": "highlight"} in one["actions"] and "notify" in one["actions"]
        assert one["ts"] == one["event"]["origin_server_ts"]
        assert "room_id" not in one["event"]
        # What bob said is after what he was told in the first room before.
        unread = [one["event"]["event_id"] for one in found if not one["read"]]
        assert unread == [last, said[5], said[3], said[1]]
        await bob.call("POST", f"/rooms/{part(rooms[1])}/receipt/m.read/{part(said[3])}", {})
        found = await told(bob, f"&limit={limit}")
        assert [one["event"]["event_id"] for one in found if not one["read"]] == [last, said[5]]
        loud = await told(bob, f"&limit={limit}&only=highlight")
        assert [one["event"]["event_id"] for one in loud] == [said[3]]
        assert [one["event"]["sender"] for one in await told(alice)] == [bob.user]
        await bob.room(rooms[0], "leave")
        assert {one["room_id"] for one in await told(bob)} == {rooms[1]}


async def test_pages_go_on_where_few_are_for_one(tmp_path):
    """Most of what happens is for others: a page may be empty, and says where the next one begins."""
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room, other = await alice.create(preset="public_chat"), await alice.create()
        await bob.join(room)
        said = await alice.say(room, "bob")
        matrix = home.matrix
        for _ in range(7):
            writes = [tell(other, "$nothing") for _ in range(500)]
            await matrix.store.commit(writes)
        found = await told(bob)
        assert [one["event"]["event_id"] for one in found] == [said]


@pytest.mark.parametrize("query", ["from=x", "from=-1", "limit=x", f"from={'1' * 30}"])
async def test_tokens_that_are_none(tmp_path, query):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        with pytest.raises(Refused, match="M_INVALID_PARAM"):
            await alice.get(f"/notifications?{query}")


async def test_the_ignored_and_the_unheard_tell_of_nothing(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await alice.say(room, "x")
        data = f"/user/{part(bob.user)}/account_data/m.ignored_user_list"
        await bob.call("PUT", data, {"ignored_users": {alice.user: {}}})
        assert await told(bob) == []
        await bob.call("PUT", data, {"ignored_users": {}})
        await bob.call("PUT", f"/pushrules/global/room/{part(room)}", {"actions": []})
        assert await told(bob) == []
        await bob.call("DELETE", f"/pushrules/global/room/{part(room)}")
        assert len(await told(bob)) == 1
