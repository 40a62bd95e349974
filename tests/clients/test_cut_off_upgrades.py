"""A room is replaced as a whole or not at all: wherever the power fails, and whatever is said meanwhile."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import hansa_matrix
import pytest
from clients.matrix_server import LocalUser, Refused, matrix_server, part
from hansa import Membership, NativeId, Put, StoreFault, ViewDelta
from hansa import RoomMember as Inhabitant
from hansa.app import App
from hansa.store.faults import FaultKind
from hansa.store.sqlite import SqliteStore
from hansa.testing import until
from hansa.testing.actor import Config as ActorConfig
from hansa.testing.actor import module
from hansa.testing.harness import run_hansa
from hansa_matrix.config import Config
from hansa_matrix.crypto import SigningKey
from hansa_matrix.proto.auth_rules.levels import level_of
from hansa_matrix.proto.room_versions import VERSIONS
from hansa_matrix.rooms.upgrade.inherited_levels import closed_power_levels
from hansa_matrix.testing import MatrixHarness
from matrix.server_with_peer import OURS

JULIET = NativeId("xmpp", "juliet@example.org")


class Dying(SqliteStore):
    """A database that keeps nothing any more after ``left`` further commits."""

    left: int | None = None

    async def commit(self, *given: Any, **options: Any) -> list[int]:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise StoreFault(FaultKind.FAILING, "the power fails")
        return await super().commit(*given, **options)


@asynccontextmanager
async def up(folder: Path) -> AsyncIterator[tuple[App, Dying]]:
    """A server on the database in a folder."""
    key = folder / "matrix.key"
    if not key.exists():
        key.touch(0o600)
        key.write_text(SigningKey.from_seed("ed25519:a", secrets.token_bytes(32)).line())
    config = Config(
        server_name=OURS,
        signing_key=key,
        argon2_memory_kib=8,
        argon2_time_cost=1,
        client_rate=0,
        registration="open",
        public_reading=True,
    )
    store = Dying(folder / "hansa.db", synchronous="OFF")
    networks = {"matrix": (hansa_matrix, config), "xmpp": (module({}), ActorConfig())}
    with suppress(StoreFault):  # a database that fails cannot keep how far deliveries are
        async with run_hansa(networks, store=store) as app:
            await MatrixHarness(app.network("matrix")).rooms_loaded.wait()
            yield app, store
    await store.close()


async def people(app: App) -> LocalUser:
    body = {"username": "alice", "password": "x", "auth": {"type": "m.login.dummy"}, "device_id": "A"}
    found = await LocalUser(app, "", "", "").call("POST", "/register", body)
    return LocalUser(app, found["user_id"], found["access_token"], "A")


async def content(person: LocalUser, room: str, type_: str) -> Any:
    events = await person.get(f"/rooms/{part(room)}/state")
    return next((e["content"] for e in events if (e["type"], e["state_key"]) == (type_, "")), None)


async def led(app: App, name: str) -> str:
    return str(
        (await LocalUser(app, "", "", "").get(f"/directory/room/{part(f'#{name}:{OURS}')}"))["room_id"]
    )


async def replace(person: LocalUser, room: str) -> str:
    return str((await person.room(room, "upgrade", {"new_version": "11"}))["replacement_room"])


async def whole(app: App, alice: LocalUser, room: str, new: str, core: str) -> None:
    """The new room has everything that the old one had, and the old one is closed."""
    context = app.contexts["matrix"]
    assert context.get_link(new).room == core
    assert context.get_link(room).room != core
    assert await led(app, "verona") == new
    listed = [r["room_id"] for r in (await alice.get("/publicRooms"))["chunk"]]
    assert listed == [new]
    assert (await content(alice, room, "m.room.power_levels"))["events_default"] == 50
    assert ("m.room.member", await context.get_ghost_id(JULIET)) in await MatrixHarness(
        app.network("matrix")
    ).get_room(new).state()
    assert set((await alice.get("/joined_rooms"))["joined_rooms"]) == {room, new}
    assert not await context.store.scan("upgrade", limit=1)


async def cut_off(folder: Path, commits: int) -> bool:
    """Replace a room with a server that dies after so many commits; True if it lived to the end."""
    folder.mkdir()
    async with up(folder) as (app, store):
        alice = await people(app)
        room = await alice.create(room_alias_name="verona", preset="public_chat", visibility="public")
        await app.link_room([f"matrix:{room}", "xmpp:verona"])
        context = app.contexts["matrix"]
        come = ViewDelta(upserts=(Inhabitant(user=JULIET, membership=Membership.JOIN, server="x"),))
        await context.reconcile_view(room, come)
        core, token = context.get_link(room).room, alice.token
        store.left = commits
        with suppress(Refused, StoreFault):
            await replace(alice, room)
        lived = store.left >= 0
    async with up(folder) as (app, _):
        alice = LocalUser(app, alice.user, token, "A")
        context = app.contexts["matrix"]

        async def settled() -> bool:
            return not await context.store.scan("upgrade", limit=1)

        await until(settled)
        tombstone = await content(alice, room, "m.room.tombstone")
        if tombstone is None:
            assert not lived
            assert context.get_link(room).room == core
            assert await led(app, "verona") == room
            assert (await alice.get("/joined_rooms"))["joined_rooms"] == [room]
            assert [r["room_id"] for r in (await alice.get("/publicRooms"))["chunk"]] == [room]
            new = await replace(alice, room)
        else:
            new = tombstone["replacement_room"]
        await whole(app, alice, room, new, core)
        with pytest.raises(Refused, match="replaced already"):
            await replace(alice, room)
    return lived


async def test_an_upgrade_is_whole_or_nothing_wherever_the_power_fails(tmp_path):
    commits = 0
    while not await cut_off(tmp_path / str(commits), commits):
        commits += 1
    assert commits > 5


async def test_a_tombstone_that_is_refused_at_last_leaves_no_room(tmp_path):
    """Between the check and the tombstone the right to send it is taken away."""
    async with matrix_server(tmp_path, "11", public_reading=True) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(room_alias_name="verona", preset="public_chat", visibility="public")
        await bob.join(room)
        levels = await content(alice, room, "m.room.power_levels")
        levels["users"][bob.user] = 90
        levels["events"]["m.room.tombstone"] = 90
        await alice.state(room, "m.room.power_levels", levels)
        matrix = home.matrix
        founder = matrix.room_creator
        create = founder.create

        async def slow(*given: Any) -> Any:
            made = await create(*given)
            await alice.state(room, "m.room.power_levels", levels | {"users": {alice.user: 100}})
            return made

        founder.create = slow
        before = (await bob.get("/joined_rooms"))["joined_rooms"]
        with pytest.raises(Refused, match=r"M_FORBIDDEN.*m\.room\.tombstone was refused"):
            await replace(bob, room)
        assert (await bob.get("/joined_rooms"))["joined_rooms"] == before
        assert [room_ for room_, one in matrix.rooms.items() if one.resident and room_ not in before] == [
            home.wire.room.room_id,
            home.wire.other.room_id,
        ]
        assert await led(home.app, "verona") == room
        assert not await matrix.store.scan("upgrade", limit=1)


async def test_what_was_begun_in_vain_is_undone_by_asking_again(tmp_path):
    async with matrix_server(tmp_path, "11", public_reading=True) as home:
        alice = await home.person("alice")
        room = await alice.create(preset="public_chat")
        matrix = home.matrix
        say = matrix.local_events.send

        async def dies(*_: Any) -> Any:
            raise OSError("the power fails")

        matrix.local_events.send = dies
        with pytest.raises(Refused, match="500"):
            await replace(alice, room)
        matrix.local_events.send = say
        begun = (await alice.get("/joined_rooms"))["joined_rooms"]
        new = await replace(alice, room)
        assert set((await alice.get("/joined_rooms"))["joined_rooms"]) == {room, new}
        assert len(begun) == 2
        assert new not in begun


async def test_a_room_that_another_process_is_replacing_is_replaced_once(tmp_path):
    """Its row comes between what this process reads and what it writes."""
    async with matrix_server(tmp_path, "11", public_reading=True) as home:
        alice = await home.person("alice")
        room = await alice.create(preset="public_chat")
        matrix = home.matrix
        create = matrix.room_creator.create

        async def raced(*given: Any) -> Any:
            row = Put("upgrade", (room,), b'{"new": "!theirs", "followed": false}')
            await matrix.store.commit([row])
            return await create(*given)

        matrix.room_creator.create = raced
        before = set(matrix.rooms)
        with pytest.raises(Refused, match="is being replaced"):
            await replace(alice, room)
        assert set(matrix.rooms) == before
        assert await content(alice, room, "m.room.tombstone") is None


@pytest.mark.parametrize(("before", "after"), [("9", "11"), ("11", "12"), ("12", "12")])
async def test_the_old_room_is_closed_for_who_is_set_over_nobody(tmp_path, before, after):
    async with matrix_server(tmp_path, public_reading=True) as home:
        alice, bob, carol = [await home.person(name) for name in ("alice", "bob", "carol")]
        room = await alice.create(preset="public_chat", room_version=before)
        await bob.join(room)
        answer = await alice.room(room, "upgrade", {"new_version": after})
        levels = await content(alice, room, "m.room.power_levels")
        assert (levels["events_default"], levels["invite"]) == (50, 50)
        for refused in (bob.say(room, "still here"), bob.room(room, "invite", {"user_id": carol.user})):
            with pytest.raises(Refused, match="M_FORBIDDEN"):
                await refused
        await alice.say(room, "last word")
        new = await content(alice, answer["replacement_room"], "m.room.power_levels")
        assert new["events_default"] == 0


@pytest.mark.parametrize(
    ("said", "least"),
    [
        ({}, 50),
        ({"users_default": 60}, 61),
        ({"users_default": "60", "events_default": "5"}, 61),
        ({"events_default": 70, "invite": 10}, 50),
        ({"events_default": 70, "invite": 70}, None),
        ({"events_default": [], "invite": None, "users_default": {}}, 50),
    ],
)
def test_levels_that_close_a_room(said, least):
    version = VERSIONS["9"]
    found = closed_power_levels(said, version)
    if least is None:
        assert found is None
        return
    assert found is not None
    for name in ("events_default", "invite"):
        before = level_of(said.get(name, 0), version) or 0
        assert found[name] == (said[name] if before >= least else least)
    assert closed_power_levels(found, version) is None


async def test_who_may_not_close_the_old_room_replaces_it_all_the_same(tmp_path):
    async with matrix_server(tmp_path, "10", public_reading=True) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        levels = await content(alice, room, "m.room.power_levels")
        levels["users"][bob.user] = 50
        levels["events"]["m.room.tombstone"] = 50
        await alice.state(room, "m.room.power_levels", levels)
        new = await replace(bob, room)
        assert (await content(alice, room, "m.room.tombstone"))["replacement_room"] == new
        assert await content(alice, room, "m.room.power_levels") == levels
        counted = {name for (name, _), _ in home.app.counters.items()}
        assert "matrix_upgrades_left_open" in counted
