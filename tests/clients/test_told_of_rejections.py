"""A Matrix user is told, once for each kind and room, that another network does not show what they did."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import hansa_matrix
from clients.matrix_server import MatrixServer
from hansa import Features, Kind, Level, hookimpl
from hansa.testing import Actor, run_hansa
from hansa.testing.actor import Config as ActorConfig
from hansa_matrix.config import Config
from hansa_matrix.crypto import SigningKey
from matrix.server_with_peer import OURS


class Placeless(Actor):
    """A network that rejects places."""

    @property
    def features(self) -> Features:
        return Features(levels={Kind.MESSAGE: Level.FULL, Kind.LOCATION: Level.REJECTED})


@asynccontextmanager
async def linked(folder: Path) -> AsyncIterator[tuple[MatrixServer, Actor]]:
    key = folder / "matrix.key"
    key.touch(0o600)
    key.write_text(SigningKey.from_seed("ed25519:a", secrets.token_bytes(32)).line())
    cheap = {"argon2_memory_kib": 8, "argon2_time_cost": 1, "client_rate": 0, "registration": "open"}
    config = Config(server_name=OURS, signing_key=key, public_base_url="https://ours.example", **cheap)
    made: dict[str, Actor] = {}

    def open_network(ctx: Any) -> Actor:
        made[ctx.id] = Placeless(ctx)
        return made[ctx.id]

    plugin: Any = ModuleType("hansa_placeless")
    plugin.api, plugin.Config, plugin.open_network = 1, ActorConfig, hookimpl(open_network)
    networks = {"matrix": (hansa_matrix, config), "chat": (plugin, ActorConfig())}
    async with run_hansa(networks, rooms=[["matrix:#lobby", "chat:lobby"]]) as app:
        yield MatrixServer(SimpleNamespace(app=app)), made["chat"]


async def test_who_sends_what_another_network_rejects_is_told_in_the_room(tmp_path):
    async with linked(tmp_path) as (home, chat):
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
