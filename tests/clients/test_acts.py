"""Acts that a rate counts: each act of a user once, and nothing that this server does in a user's name."""

from __future__ import annotations

from typing import Any

import hansa_governance
import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from hansa import Join, NativeId
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa_governance.config import Config
from hansa_governance.policy import GovernancePolicy
from matrix.server_with_peer import OURS

assert hansa_governance.api == 1
MOST = 8


def paced(home: MatrixServer) -> None:
    policy = GovernancePolicy(
        Config(rate={"events": MOST, "seconds": 3600}), "pace", home.app.contexts["matrix"].clock
    )
    home.app.decisions.replace([InstalledPolicy(name="pace", policy=policy)])


async def left(person: LocalUser, room: str) -> int:
    """Returns how many more messages a user may send."""
    for said in range(MOST + 2):
        path = f"/rooms/{part(room)}/send/m.room.message/m{said}"
        status, answer = await person.ask("PUT", path, {"msgtype": "m.text", "body": "x"})
        if status != 200:
            assert (status, answer["errcode"]) == (429, "M_LIMIT_EXCEEDED")
            assert answer["dev.hansa.decision"].startswith("d-")
            return said
    return MOST + 2


async def login(home: MatrixServer, person: LocalUser) -> None:
    who = {"type": "m.id.user", "user": person.user}
    name = person.user[1:].partition(":")[0]
    body = {"type": "m.login.password", "identifier": who, "password": f"of {name}"}
    await home.anybody.call("POST", "/login", body | {"initial_device_display_name": "My telephone"})


#: An act, and for how many it counts.
ACTS: dict[str, tuple[Any, int]] = {
    "nothing": (lambda s: None, 0),
    "a login with a name for the device": (lambda s: login(s.home, s.person), 0),
    "a room": (lambda s: s.person.create(preset="public_chat", name="n", topic="t", room_alias_name="a"), 1),
    "a room for two": (lambda s: s.person.create(invite=[s.bob.user]), 2),
    "a join": (lambda s: s.person.join(s.other), 1),
    "another name, in three rooms": (
        lambda s: s.person.call("PUT", f"/profile/{part(s.person.user)}/displayname", {"displayname": "n"}),
        1,
    ),
    "a message to several devices": (
        lambda s: s.person.call("PUT", "/sendToDevice/x/1", {"messages": {s.bob.user: {"*": {}}}}),
        0,
    ),
    "an invite": (lambda s: s.person.room(s.room, "invite", {"user_id": s.bob.user}), 1),
    "a topic": (lambda s: s.person.state(s.room, "m.room.topic", {"topic": "t"}), 1),
    "a public name": (
        lambda s: s.person.call("PUT", f"/directory/room/{part(f'#b:{OURS}')}", {"room_id": s.room}),
        1,
    ),
    "an upgrade": (lambda s: s.person.room(s.mine, "upgrade", {"new_version": "11"}), 1),
}  # fmt: skip


class Scene:
    home: MatrixServer
    person: LocalUser
    bob: LocalUser
    room: str
    mine: str
    other: str


@pytest.mark.parametrize("name", ACTS)
async def test_an_act_counts_once(tmp_path, name):
    async with matrix_server(tmp_path) as home:
        s = Scene()
        s.home, s.person, s.bob = home, await home.person("alice"), await home.person("bob")
        s.room, s.mine, _ = [await s.person.create() for _ in range(3)]
        s.other = await s.bob.create(preset="public_chat")
        paced(home)
        act, counts = ACTS[name]
        done = act(s)
        if done is not None:
            await done
        assert await left(s.person, s.room) == MOST - counts


async def test_a_join_that_is_asked_about_again_is_no_act():
    from hansa.testing import ManualClock

    policy = GovernancePolicy(Config(rate={"events": 1, "seconds": 3600}), "pace", ManualClock())
    join = {"network": "m", "room": "!r", "user": NativeId("m", "@a:x"), "user_server": "x", "outbound": True}
    assert await policy.check(Join(**join)) is None
    assert await policy.check(Join(**join, again=True)) is None
    assert (await policy.check(Join(**join))).retry_after > 0
