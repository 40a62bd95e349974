"""A message of another network with several files is several events of Matrix, and one event of the core."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from clients.linked_chat import linked_chat
from clients.matrix_server import LocalUser
from hansa import Attachment, Edit, Kind, Message, NativeId, Reaction, Retraction
from hansa_matrix.testing import MatrixHarness
from matrix.server_with_peer import OURS

BOB = "bob@y"
NAMES = ["one.png", "two.png", "three.pdf"]
FILES = tuple(Attachment(name=name, source=NativeId("chat", name)) for name in NAMES)


async def messages(alice: LocalUser, room: str) -> list[dict[str, Any]]:
    found = await alice.get(f"/rooms/{room}/messages?dir=b&limit=50")
    return [event for event in found["chunk"][::-1] if event["type"] == "m.room.message"]


async def test_each_file_is_an_event_and_the_caption_is_the_firsts(tmp_path):
    async with linked_chat(tmp_path) as (home, chat):
        alice = await home.person("alice")
        room = await alice.join(f"#lobby:{OURS}")
        said = await chat.do("lobby", BOB, Message(text="the plans", attachments=FILES))
        assert said.event is not None
        first, second, third = await messages(alice, room)
        assert [event["content"]["filename"] for event in (first, second, third)] == NAMES
        assert [event["content"]["body"] for event in (first, second, third)] == ["the plans", *NAMES[1:]]
        assert len({event["content"]["url"] for event in (first, second, third)}) == 3

        # A reaction to any of them is one to the message, and its edit changes the first.
        about = {"rel_type": "m.annotation", "event_id": second["event_id"], "key": "👍"}
        await alice.call("PUT", f"/rooms/{room}/send/m.reaction/1", {"m.relates_to": about})
        wanted = Reaction(target=said.event.id, key="👍")
        await chat.until_shown("lobby", lambda found: wanted in found, 10)
        edit = Edit(target=said.event.id, message=Message(text="all plans", attachments=FILES))
        await chat.do("lobby", BOB, edit)
        replaced = (await messages(alice, room))[-1]["content"]["m.relates_to"]
        assert replaced == {"rel_type": "m.replace", "event_id": first["event_id"]}

        await chat.do("lobby", BOB, Retraction(target=said.event.id))

        async def all_gone() -> bool:
            return all(not event["content"] for event in await messages(alice, room))

        async with asyncio.timeout(10):
            while not await all_gone():
                await asyncio.sleep(0)


async def until_gone(alice: LocalUser, room: str, *names: str) -> None:
    """Wait until of the files ``names`` alone nothing is there."""

    async def left() -> list[str]:
        return [e["content"]["filename"] for e in await messages(alice, room) if "filename" in e["content"]]

    async with asyncio.timeout(10):
        while set(await left()) != set(NAMES) - set(names):
            await asyncio.sleep(0)


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_file_that_a_moderator_redacts_takes_the_others_with_it(tmp_path, which):
    """Other networks have one message, and retract it whole."""
    async with linked_chat(tmp_path) as (home, chat):
        alice = await home.person("alice")
        room = await alice.join(f"#lobby:{OURS}")
        matrix = MatrixHarness(home.app.network("matrix"))
        levels = await alice.get(f"/rooms/{room}/state/m.room.power_levels")
        raised = {**levels, "users": {**levels["users"], alice.user: 50}}
        await matrix.local_events.send_state(room, "m.room.power_levels", "", raised)
        said = await chat.do("lobby", BOB, Message(text="the plans", attachments=FILES))
        assert said.event is not None
        there = [event["event_id"] for event in await messages(alice, room)]
        path = f"/rooms/{room}/redact/{there[which]}/1"
        await alice.call("PUT", path, {})
        wanted = Retraction(target=said.event.id, of=Kind.MESSAGE)
        await chat.until_shown("lobby", lambda found: wanted in found, 10)
        await until_gone(alice, room, *NAMES)
        redactions = [
            event
            for event in (await alice.get(f"/rooms/{room}/messages?dir=b&limit=50"))["chunk"]
            if event["type"] == "m.room.redaction"
        ]
        assert len(redactions) == 3
        assert [event["sender"] == alice.user for event in redactions].count(True) == 1


async def test_a_file_that_an_edit_leaves_out_is_redacted(tmp_path):
    async with linked_chat(tmp_path) as (home, chat):
        alice = await home.person("alice")
        room = await alice.join(f"#lobby:{OURS}")
        said = await chat.do("lobby", BOB, Message(text="the plans", attachments=FILES))
        assert said.event is not None
        fewer = Message(text="the plans", attachments=(FILES[0], FILES[2]))
        await chat.do("lobby", BOB, Edit(target=said.event.id, message=fewer))
        await until_gone(alice, room, NAMES[1])
        await chat.do("lobby", BOB, Edit(target=said.event.id, message=Message(text="none")))
        await until_gone(alice, room, NAMES[1], NAMES[2])
        found = (await alice.get(f"/rooms/{room}/messages?dir=b&limit=50"))["chunk"]
        assert [event["type"] for event in found].count("m.room.redaction") == 2
        kept = await chat.ctx.event_with_id("lobby", said.event.id)
        assert kept == said.event, "it is not taken back"
