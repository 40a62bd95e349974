"""A message of another network with several files is several events of Matrix, and one event of the core."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hansa_matrix
from clients.matrix_server import LocalUser, MatrixServer
from hansa import Attachment, Edit, Message, NativeId, Reaction, Retraction
from hansa.testing import Actor, run_hansa
from hansa.testing.actor import Config as ActorConfig
from hansa.testing.actor import module
from hansa_matrix.config import Config
from hansa_matrix.crypto import SigningKey
from matrix.server_with_peer import OURS

BOB = "bob@y"
NAMES = ["one.png", "two.png", "three.pdf"]
FILES = tuple(Attachment(name=name, source=NativeId("chat", name)) for name in NAMES)


@asynccontextmanager
async def linked(folder: Path) -> AsyncIterator[tuple[LocalUser, str, Actor]]:
    key = folder / "matrix.key"
    key.touch(0o600)
    key.write_text(SigningKey.from_seed("ed25519:a", secrets.token_bytes(32)).line())
    cheap = {"argon2_memory_kib": 8, "argon2_time_cost": 1, "client_rate": 0, "registration": "open"}
    config = Config(server_name=OURS, signing_key=key, public_base_url="https://ours.example", **cheap)
    made: dict[str, Actor] = {}
    networks = {"matrix": (hansa_matrix, config), "chat": (module(made), ActorConfig())}
    async with run_hansa(networks, rooms=[["matrix:#lobby", "chat:lobby"]]) as app:
        alice = await MatrixServer(SimpleNamespace(app=app)).person("alice")
        yield alice, await alice.join(f"#lobby:{OURS}"), made["chat"]


async def messages(alice: LocalUser, room: str) -> list[dict[str, Any]]:
    found = await alice.get(f"/rooms/{room}/messages?dir=b&limit=50")
    return [event for event in found["chunk"][::-1] if event["type"] == "m.room.message"]


async def test_each_file_is_an_event_and_the_caption_is_the_firsts(tmp_path):
    async with linked(tmp_path) as (alice, room, chat):
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
