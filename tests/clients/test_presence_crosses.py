"""Presence between Matrix and another network: of users here, of users elsewhere, and of ghosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from clients.matrix_server import LocalUser, MatrixServer, Refused, matrix_server, part
from hansa import Action, NativeId, Presence, PresenceState, Verdict
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.testing import until
from hansa.testing.actor import Actor, Config, module
from hansa_matrix.conversion.presence import ghost_presence_edu, parse_person_presence
from hansa_matrix.proto.edus import PresenceEdu
from matrix.server_with_peer import OURS, THEIRS
from matrix.test_devices import Told, edus

JULIET = NativeId("stage", "juliet@x")
MAY = f"@m:{THEIRS}"


@asynccontextmanager
async def linked(tmp_path: Any) -> AsyncIterator[tuple[MatrixServer, Actor, Told]]:
    """A room of Matrix that juliet, of a scripted network, is in; and what the other server is told."""
    made: dict[str, Actor] = {}
    beside = {"stage": (module(made), Config())}
    async with matrix_server(tmp_path, beside=beside, linked=["stage:lobby"], presence_enabled=True) as home:
        told = Told(home.wire)
        await made["stage"].join("lobby", JULIET.id)
        yield home, made["stage"], told


def shown(stage: Actor) -> list[tuple[str, str, str]]:
    return [(one.user.id, str(one.state), one.text) for one in stage.presences.get("lobby", [])]


async def set_status(user: LocalUser, presence: str, text: str = "") -> None:
    body = {"presence": presence, "status_msg": text}
    await user.call("PUT", f"/presence/{part(user.user)}/status", body)


async def test_another_network_sees_who_of_matrix_is_away(tmp_path):
    async with linked(tmp_path) as (home, stage, _):
        alice, bob = await home.person("alice"), await home.person("bob")
        await alice.join(f"#one:{OURS}")
        await set_status(bob, "unavailable", "in no common room")
        await set_status(alice, "unavailable", "at the ball")
        push = [{"user_id": MAY, "presence": "unavailable", "status_msg": "tea", "last_active_ago": 5000}]
        await edus(home.wire, ("m.presence", {"push": push}))
        await until(lambda: len(shown(stage)) == 2)
        assert sorted(shown(stage)) == [(alice.user, "away", "at the ball"), (MAY, "away", "tea")]
        now = home.app.seams.clock.now()
        (may,) = [one for one in stage.presences["lobby"] if one.user.id == MAY]
        assert now - 60_000 < may.since <= now - 5000


async def test_who_is_away_when_they_join_is_shown_away(tmp_path):
    async with linked(tmp_path) as (home, stage, _):
        alice = await home.person("alice")
        await set_status(alice, "unavailable", "tired")
        await alice.join(f"#one:{OURS}")
        await until(lambda: shown(stage))
        assert shown(stage) == [(alice.user, "away", "tired")]


async def test_a_ghost_is_away_for_users_and_servers_in_the_room(tmp_path):
    async with linked(tmp_path) as (home, stage, told):
        alice, eve = await home.person("alice"), await home.person("eve")
        await alice.join(f"#one:{OURS}")
        await alice.sync()
        await eve.sync()
        ghost = await home.app.contexts["matrix"].get_ghost_id(JULIET)
        status = f"/presence/{part(ghost)}/status"
        assert await alice.get(status) == {"presence": "offline"}
        await stage.set_presence(JULIET.id, PresenceState.AWAY, "on the balcony")

        async def sees() -> Any:
            found = await alice.sync()
            return [e for e in found.get("presence", {}).get("events", []) if e["sender"] == ghost]

        (event,) = await until(sees)
        assert event["content"]["presence"] == "unavailable"
        assert event["content"]["status_msg"] == "on the balcony"
        assert not await sees()
        found = await alice.get(status)
        assert (found["presence"], found["status_msg"]) == ("unavailable", "on the balcony")
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await eve.get(status)
        assert ghost not in str(await eve.sync())
        pushes = await until(lambda: [e["content"]["push"] for e in told.edus if ghost in str(e)])
        (((entry,),)) = pushes
        assert (entry["user_id"], entry["presence"], entry["status_msg"]) == (
            ghost,
            "unavailable",
            "on the balcony",
        )


async def test_users_who_wait_are_woken_by_a_ghost(tmp_path):
    async with linked(tmp_path) as (home, stage, _):
        alice = await home.person("alice")
        await alice.join(f"#one:{OURS}")
        await alice.sync()
        while (await alice.sync()).keys() & {"rooms", "presence"}:
            pass
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            waiting = group.create_task(alice.sync(timeout=20_000))
            await stage.set_presence(JULIET.id, PresenceState.BUSY)
        (event,) = waiting.result()["presence"]["events"]
        assert event["content"]["status_msg"] == "busy"


async def test_a_policy_against_presence_holds_for_ghosts(tmp_path):
    class NoPresence:
        async def check(self, crossing: Any) -> Any:
            return Verdict(Action.DENY) if isinstance(crossing, Presence) else None

    async with linked(tmp_path) as (home, stage, _):
        home.app.decisions.replace([InstalledPolicy(name="none", policy=NoPresence())])
        await stage.set_presence(JULIET.id, PresenceState.AWAY, "secret")
        ghost = await home.app.contexts["matrix"].get_ghost_id(JULIET)
        await until(lambda: home.app.counters.get(("signals", (("result", "sent"),))))
        assert home.matrix.users.presences.get(ghost) is None


async def test_nothing_is_shown_where_presence_is_off(tmp_path):
    made: dict[str, Actor] = {}
    beside = {"stage": (module(made), Config())}
    async with matrix_server(tmp_path, beside=beside, linked=["stage:lobby"]) as home:
        stage = made["stage"]
        await stage.join("lobby", JULIET.id)
        alice = await home.person("alice")
        await alice.join(f"#one:{OURS}")
        await set_status(alice, "unavailable", "x")
        await stage.set_presence(JULIET.id, PresenceState.AWAY)
        await until(lambda: home.app.counters.get(("signals", (("result", "sent"),))))
        assert stage.presences == {}
        assert home.matrix.users.presences.get_all() == []


@pytest.mark.parametrize(
    ("state", "presence", "back"),
    [
        (PresenceState.HERE, "online", PresenceState.HERE),
        (PresenceState.AWAY, "unavailable", PresenceState.AWAY),
        (PresenceState.BUSY, "unavailable", PresenceState.AWAY),
        (PresenceState.OFFLINE, "offline", PresenceState.OFFLINE),
    ],
)
def test_states_of_both_sides(state: PresenceState, presence: str, back: PresenceState):
    one = parse_person_presence(
        PresenceEdu(user="@a:x", presence=presence, last_active_ago=2**52), "matrix", 1000
    )
    assert (one.state, one.since) == (back, 0)
    ghost = ghost_presence_edu("@_g:x", one.__class__(user=JULIET, state=state, since=900), 1000)
    assert ghost.presence == presence
    assert ghost.last_active_ago == (0 if state is PresenceState.HERE else 100)
