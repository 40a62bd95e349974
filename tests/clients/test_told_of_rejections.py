"""A Matrix user is told, once for each kind and room, that another network does not show what they did."""

from __future__ import annotations

import asyncio

from clients.linked_chat import linked_chat
from clients.matrix_server import LocalUser
from hansa import Features, Kind, Level
from hansa.testing import Actor
from matrix.server_with_peer import OURS


class Placeless(Actor):
    """A network that rejects places."""

    @property
    def features(self) -> Features:
        return Features(levels={Kind.MESSAGE: Level.FULL, Kind.LOCATION: Level.REJECTED})


WORDS = "chat cannot show this (location). The people there do not see it."


async def send_place(alice: LocalUser, room: str) -> None:
    await alice.say(room, "The harbour", msgtype="m.location", geo_uri="geo:53.55,9.99")


async def until_said(alice: LocalUser, room: str, wanted: str) -> None:
    async with asyncio.timeout(10):
        while wanted not in await alice.texts(room):
            await asyncio.sleep(0)


async def until_invited(alice: LocalUser) -> str:
    """The room that the bridge invites to."""
    async with asyncio.timeout(10):
        while not (invites := (await alice.get("/sync"))["rooms"].get("invite")):
            await asyncio.sleep(0)
    ((room, invite),) = invites.items()
    (event,) = [e for e in invite["invite_state"]["events"] if e["state_key"] == alice.user]
    assert event["content"]["is_direct"]
    return room


async def test_who_sends_what_another_network_rejects_is_told_alone(tmp_path):
    async with linked_chat(tmp_path, Placeless) as (home, chat):
        alice, bea = await home.person("alice"), await home.person("bea")
        room = await alice.join(f"#lobby:{OURS}")
        await bea.join(f"#lobby:{OURS}")
        for _ in range(2):
            await send_place(alice, room)
        notices = await until_invited(alice)
        await alice.join(notices)
        wanted = f"{room}: {WORDS}"
        await until_said(alice, notices, wanted)
        await alice.say(room, "after")
        assert await chat.until("lobby", 1) == ["after"]
        assert (await alice.texts(notices)).count(wanted) == 1
        assert not any(WORDS in (text or "") for text in await bea.texts(room))
        events = (await alice.get(f"/rooms/{notices}/messages?dir=b&limit=10"))["chunk"]
        (notice,) = [event for event in events if event["content"].get("body") == wanted]
        assert notice["sender"] == home.matrix.bridge_user
        assert notice["content"]["msgtype"] == "m.notice"


async def test_there_is_one_chat_for_all_notices(tmp_path):
    rooms = (("matrix:#lobby", "chat:lobby"), ("matrix:#den", "chat:den"))
    async with linked_chat(tmp_path, Placeless, rooms=rooms) as (home, _):
        alice = await home.person("alice")
        lobby, den = [await alice.join(f"#{name}:{OURS}") for name in ("lobby", "den")]
        await send_place(alice, lobby)
        await send_place(alice, den)
        notices = await until_invited(alice)
        await alice.join(notices)
        await until_said(alice, notices, f"{lobby}: {WORDS}")
        await until_said(alice, notices, f"{den}: {WORDS}")


async def test_who_declined_the_chat_is_told_in_the_room(tmp_path):
    rooms = (("matrix:#lobby", "chat:lobby"), ("matrix:#den", "chat:den"))
    async with linked_chat(tmp_path, Placeless, rooms=rooms) as (home, chat):
        alice = await home.person("alice")
        lobby, den = [await alice.join(f"#{name}:{OURS}") for name in ("lobby", "den")]
        await send_place(alice, lobby)
        await alice.call("POST", f"/rooms/{await until_invited(alice)}/leave", {})
        await send_place(alice, den)
        await until_said(alice, den, f"alice: {WORDS}")
        await alice.say(den, "after")
        assert await chat.until("den", 1) == ["after"], "the notice stays on Matrix"
        assert not (await alice.get("/sync"))["rooms"].get("invite")
