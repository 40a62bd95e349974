"""Users who do not exist are not invited, where that can be known: of this server, and of other networks."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from types import SimpleNamespace

import hansa_matrix
import pytest
from clients.matrix_server import MatrixServer, part
from hansa import Member, Membership, NativeId, hookimpl
from hansa.testing import Actor, run_hansa
from hansa.testing.actor import Config as ActorConfig
from hansa.testing.actor import module
from hansa_matrix.config import Config
from hansa_matrix.crypto import SigningKey
from hansa_matrix.local.ghosts import escape_localpart, ghost_localpart, people_behind
from hypothesis import given
from hypothesis import strategies as st
from matrix.server_with_peer import OURS


class Chat(Actor):
    """A network that knows its users: those whose names begin with ``ann``."""

    asked: list[str]

    async def is_nonexistent_user(self, user: str) -> bool:
        self.asked.append(user)
        return not user.startswith("ann")


@asynccontextmanager
async def bridged(folder):
    """A Hansa, and a network that knows its users."""
    key = folder / "matrix.key"
    key.touch(0o600)
    key.write_text(SigningKey.from_seed("ed25519:a", secrets.token_bytes(32)).line())
    cheap = {"argon2_memory_kib": 8, "argon2_time_cost": 1, "client_rate": 0, "registration": "open"}
    config = Config(server_name=OURS, signing_key=key, **cheap)
    made: dict[str, Chat] = {}
    plugin = module({})

    @hookimpl
    def open_network(ctx):
        made[ctx.id] = Chat(ctx)
        made[ctx.id].asked = []
        return made[ctx.id]

    plugin.open_network = open_network
    networks = {"matrix": (hansa_matrix, config), "chat": (plugin, ActorConfig())}
    async with run_hansa(networks, rooms=[["matrix:#hall", "chat:hall"]]) as app:
        yield MatrixServer(SimpleNamespace(app=app)), made["chat"]


def ghost(person: str, network: str = "chat") -> str:
    return f"@_{escape_localpart(network)}_{escape_localpart(person)}:{OURS}"


ABSENT = [f"@nobody:{OURS}", ghost("bob@x"), ghost("ann@x", "telex"), f"@_:{OURS}", f"@_chat:{OURS}",
          f"@_chat_:{OURS}", f"@_chat_=ff:{OURS}", f"@_chat_Ann=40x:{OURS}", ghost("@alice:" + OURS, "matrix")]  # fmt: skip


@pytest.mark.parametrize("absent", ABSENT)
async def test_nobody_is_not_invited_by_any_door(tmp_path, absent):
    async with bridged(tmp_path) as (home, _chat):
        alice = await home.person("alice")
        room = await alice.create(preset="public_chat")
        for method, path, body in (
            ("POST", f"/rooms/{part(room)}/invite", {"user_id": absent}),
            ("PUT", f"/rooms/{part(room)}/state/m.room.member/{part(absent)}", {"membership": "invite"}),
            ("POST", "/createRoom", {"invite": [absent], "name": "not made"}),
        ):
            status, answer = await alice.ask(method, path, body)
            assert (status, answer["errcode"]) == (404, "M_NOT_FOUND"), (path, answer)
        assert len((await alice.get("/joined_rooms"))["joined_rooms"]) == 1


async def test_somebody_of_another_network_is_invited_though_nobody_here_met_them(tmp_path):
    async with bridged(tmp_path) as (home, chat):
        alice = await home.person("alice")
        room = await home.matrix.network.room_at(f"#hall:{OURS}")
        await alice.join(room)
        await alice.room(room, "invite", {"user_id": ghost("ann@x.example")})
        assert chat.asked == ["ann@x.example"]
        await chat.until_shown("hall", lambda seen: any(_invites(one, "ann@x.example") for one in seen))
        found = await alice.get(f"/rooms/{part(room)}/state/m.room.member/{part(ghost('ann@x.example'))}")
        assert found["membership"] == "invite"
        # And the other way round: who invites from there is told likewise.
        await chat.join("hall", "ann@x.example")
        refused = await chat.invite("hall", "ann@x.example", NativeId("matrix", f"@nobody:{OURS}"))
        assert refused.refusal is not None and refused.refusal.code.name == "NOT_FOUND"
        bob = await home.person("bob")
        assert (await chat.invite("hall", "ann@x.example", NativeId("matrix", bob.user))).refusal is None


def _invites(content, person: str) -> bool:
    invited = isinstance(content, Member) and content.membership is Membership.INVITE
    return invited and content.user.id == person


@given(network=st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True), person=st.text(min_size=1, max_size=40))
def test_who_is_behind_a_ghost_can_be_told(network, person):
    if not person.isprintable():
        return
    who = NativeId(network, person)
    found = list(people_behind(ghost_localpart(who, "_"), "_"))
    assert who in found
    assert all(ghost_localpart(one, "_") == ghost_localpart(who, "_") for one in found)
