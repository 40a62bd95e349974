"""An operator sees what takes a rank in a Matrix room, as its power levels are now."""

from __future__ import annotations

import secrets
from types import SimpleNamespace

import hansa_matrix
from clients.matrix_server import MatrixServer
from hansa import Kind, NativeId
from hansa.admin.rooms import RoomCommands
from hansa.host.room_names import RoomNames
from hansa.testing import Actor, run_hansa
from hansa.testing.actor import Config as ActorConfig
from hansa.testing.actor import module
from hansa_matrix.config import Config
from hansa_matrix.crypto import SigningKey
from matrix.server_with_peer import OURS


async def test_power_levels_say_what_takes_a_rank(tmp_path):
    key = tmp_path / "matrix.key"
    key.touch(0o600)
    key.write_text(SigningKey.from_seed("ed25519:a", secrets.token_bytes(32)).line())
    cheap = {"argon2_memory_kib": 8, "argon2_time_cost": 1, "client_rate": 0, "registration": "open"}
    config = Config(server_name=OURS, signing_key=key, public_base_url="https://ours.example", **cheap)
    made: dict[str, Actor] = {}
    networks = {"matrix": (hansa_matrix, config), "chat": (module(made), ActorConfig())}
    async with run_hansa(networks) as app:
        alice = await MatrixServer(SimpleNamespace(app=app)).person("alice")
        room = await alice.create(preset="public_chat")
        matrix = app.network("matrix")
        kinds = await matrix.restricted_kinds(room)
        assert Kind.TOPIC in kinds and Kind.NAME in kinds and Kind.MESSAGE not in kinds
        levels = await alice.get(f"/rooms/{room}/state/m.room.power_levels")
        await alice.state(
            room, "m.room.power_levels", {**levels, "events_default": 10, "state_default": 0, "events": {}}
        )
        kinds = await matrix.restricted_kinds(room)
        assert Kind.TOPIC not in kinds and {Kind.MESSAGE, Kind.REACTION} <= set(kinds)

        native = NativeId("matrix", room)
        await app.linker.link_room(["chat:side"], app.rooms.room_of(native).id)
        commands = RoomCommands(app, RoomNames(app))
        shown = await commands.room(SimpleNamespace(path={"room": app.rooms.room_of(native).id}), None)
        (pair,) = [pair for pair in shown["crosses"] if pair["from"] == "chat"]
        assert "message" in pair["ranked"] and "topic" not in pair["ranked"]
        (back,) = [pair for pair in shown["crosses"] if pair["from"] == "matrix"]
        assert back["ranked"] == []
