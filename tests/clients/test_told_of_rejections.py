"""A Matrix user is told, once for each kind and room, that another network does not show what they did."""

from __future__ import annotations

import asyncio

from clients.linked_chat import linked_chat
from hansa import Features, Kind, Level
from hansa.testing import Actor
from matrix.server_with_peer import OURS


class Placeless(Actor):
    """A network that rejects places."""

    @property
    def features(self) -> Features:
        return Features(levels={Kind.MESSAGE: Level.FULL, Kind.LOCATION: Level.REJECTED})


async def test_who_sends_what_another_network_rejects_is_told_in_the_room(tmp_path):
    async with linked_chat(tmp_path, Placeless) as (home, chat):
        alice = await home.person("alice")
        room = await alice.join(f"#lobby:{OURS}")
        for _ in range(2):
            await alice.say(room, "The harbour", msgtype="m.location", geo_uri="geo:53.55,9.99")
        wanted = "alice: chat cannot show this (location). The people there do not see it."
        async with asyncio.timeout(10):
            while wanted not in await alice.texts(room):
                await asyncio.sleep(0)
        await alice.say(room, "after")
        assert await chat.until("lobby", 1) == ["after"], "the notice stays on Matrix"
        assert (await alice.texts(room)).count(wanted) == 1
        events = (await alice.get(f"/rooms/{room}/messages?dir=b&limit=10"))["chunk"]
        (notice,) = [event for event in events if event["content"].get("body") == wanted]
        assert notice["sender"] == home.matrix.bridge_user
        assert notice["content"]["msgtype"] == "m.notice"
        assert notice["content"]["m.mentions"] == {"user_ids": [f"@alice:{OURS}"]}
