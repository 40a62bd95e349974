"""A Hansa with local Matrix users, and a scripted network beside it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hansa_matrix
from clients.matrix_server import MatrixServer
from hansa.testing import Actor, run_hansa
from hansa.testing.actor import Config as ActorConfig
from hansa.testing.actor import module
from hansa_matrix.config import Config
from hansa_matrix.crypto import SigningKey
from matrix.server_with_peer import OURS

LOBBY = (("matrix:#lobby", "chat:lobby"),)


@asynccontextmanager
async def linked_chat(
    folder: Path, kind: type[Actor] = Actor, *, rooms: Sequence[Sequence[str]] = LOBBY, **more: Any
) -> AsyncIterator[tuple[MatrixServer, Actor]]:
    """The Matrix server, and the scripted network ``chat`` of a ``kind``. ``more`` is for ``run_hansa``."""
    key = folder / "matrix.key"
    key.touch(0o600)
    key.write_text(SigningKey.from_seed("ed25519:a", secrets.token_bytes(32)).line())
    cheap = {"argon2_memory_kib": 8, "argon2_time_cost": 1, "client_rate": 0, "registration": "open"}
    config = Config(server_name=OURS, signing_key=key, public_base_url="https://ours.example", **cheap)
    made: dict[str, Actor] = {}
    networks = {"matrix": (hansa_matrix, config), "chat": (module(made, kind), ActorConfig())}
    async with run_hansa(networks, rooms=rooms, **more) as app:
        yield MatrixServer(SimpleNamespace(app=app)), made["chat"]
