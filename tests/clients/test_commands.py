"""Commands to the bridge by Matrix users."""

from __future__ import annotations

import asyncio

import orjson
from clients.linked_chat import linked_chat
from clients.matrix_server import matrix_server
from hansa import NativeId, RoomMatch
from hansa.model.chat_commands import CommandSettings
from hansa.testing import until
from matrix.server_with_peer import OURS, THEIRS

ALICE = f"@alice:{OURS}"
ON = CommandSettings(enabled=True, operators=frozenset({NativeId("matrix", ALICE)}))


async def test_a_command_is_answered_by_a_notice_that_stays_on_matrix(tmp_path):
    async with linked_chat(tmp_path, commands=ON) as (home, chat):
        alice = await home.person("alice")
        room = await alice.join(f"#lobby:{OURS}")
        await chat.join("lobby", "bob@y", "Bob")
        await alice.say(room, "!hansa who")

        async with asyncio.timeout(10):
            while not [text for text in await alice.texts(room) if text.startswith("chat (1): Bob")]:
                await asyncio.sleep(0)
        found = await alice.get(f"/rooms/{room}/messages?dir=b&limit=1")
        assert found["chunk"][0]["sender"] == home.matrix.bridge_user
        assert found["chunk"][0]["content"]["msgtype"] == "m.notice"
        await alice.say(room, "after")
        assert await chat.until("lobby", 1) == ["after"]


async def test_an_operator_links_from_a_chat_with_the_bridge_user(tmp_path):
    async with linked_chat(tmp_path, commands=ON) as (home, chat):
        alice = await home.person("alice")
        room = await alice.create(is_direct=True, preset="private_chat", invite=[home.matrix.bridge_user])
        native = NativeId("matrix", room)
        await until(lambda: home.app.rooms.link(native) is not None)
        await alice.say(room, "!hansa link chat:side")
        await until(lambda: len(home.app.rooms.room_of(native).links) == 2)
        await alice.say(room, "hello")
        assert await chat.until("side", 1) == ["hello"]


async def test_people_of_other_networks_find_published_rooms_and_their_people(tmp_path):
    async with linked_chat(tmp_path, commands=ON) as (home, chat):
        alice = await home.person("alice")
        await alice.create(
            preset="public_chat", visibility="public", name="About cats", room_alias_name="cats"
        )
        await alice.create(preset="private_chat", name="Secret cats")
        rooms = await chat.ctx.find_rooms("CATS", limit=5)
        assert [(one.network, one.address, one.name) for one in rooms] == [
            ("matrix", f"#cats:{OURS}", "About cats")
        ]
        assert [one.user.id for one in await chat.ctx.find_people("alic", limit=5)] == [ALICE]
        await chat.join("lobby", "alicia@y", "Alicia")  # her ghost is not a person of Matrix
        assert [one.user.id for one in await chat.ctx.find_people("alic", limit=5)] == [ALICE]
        assert await chat.ctx.find_people("secret", limit=5) == []


async def test_rooms_of_another_server_are_read_strictly(tmp_path):
    listed = [
        {"canonical_alias": f"#cats:{THEIRS}", "name": "Cats", "topic": 7, "num_joined_members": "many"},
        {"canonical_alias": "no alias", "name": "x"},
        {"name": "cannot be joined"},
        "nonsense",
    ]
    async with matrix_server(tmp_path) as home:
        asked = []

        def answer(request):
            if request.target != "/_matrix/federation/v1/publicRooms":
                return None
            asked.append((request.host_header, orjson.loads(request.body)))
            return 200, {"chunk": listed}

        home.wire.peer.answer = answer
        found = await home.app.searches.find_rooms(f"about cats :{THEIRS}", limit=5)
        assert found == [RoomMatch(network="matrix", address=f"#cats:{THEIRS}", name="Cats")]
        assert asked == [(THEIRS, {"limit": 5, "filter": {"generic_search_term": "about cats"}})]
        assert await home.app.searches.find_rooms("cats :not/a/server", limit=5) == []
        assert len(asked) == 1
