"""A user joins a room that Matrix has and the core does not."""

from __future__ import annotations

from clients.matrix_server import matrix_server


async def test_a_join_links_the_room_that_another_join_could_not(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await home.app.contexts["matrix"].close_link(room)
        await bob.join(room)
        await bob.say(room, "here")
        assert await alice.texts(room) == ["here"]
