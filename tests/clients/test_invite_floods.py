"""Invites from strangers: bounded by sender and recipient, in number, in size and in time."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
from clients.matrix_server import LocalUser, MatrixServer, matrix_server
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.stripped_state import MAX_STRIPPED_SIZE, stripped_state
from hansa_matrix.ratelimit import RateLimiter
from hansa_matrix.rooms.membership import pending_invites
from matrix.server_with_peer import V2
from matrix.two_servers import USER, at
from peers.event_forge import JoinedRoom


def pendings(home: MatrixServer) -> Any:
    return home.matrix.pending_invites


def unlimited(home: MatrixServer, monkeypatch: Any) -> None:
    """How often is one thing, how many is another; each comes at a time of its own."""
    clock = home.app.contexts["matrix"].clock
    times = itertools.count(clock.now())
    monkeypatch.setattr(type(clock), "now", lambda _: next(times))
    pendings(home)._of_peer = pendings(home)._of_server = RateLimiter(clock, 0, 1)


async def ask_in(home: MatrixServer, number: int, user: str, state: list[Any] | None = None) -> int:
    """The forger's server invites a user into another room of its own; returns the status of the answer."""
    forger, version = home.wire.forger, home.wire.room.version
    room = JoinedRoom(f"!n{number}:x", "12", USER)
    content = {"room_version": "12", "number": number}
    draft = forger.draft(room, "m.room.create", content, "", prev_events=[])
    del draft["room_id"]
    create = forger.finish(room, draft)
    room.room_id = "!" + event_id(create, version)[1:]
    invite = forger.draft(room, "m.room.member", {"membership": "invite"}, user)
    raw = forger.finish(room, invite)
    body = {"room_version": "12", "event": raw, "invite_room_state": [create, *(state or [])]}
    target = f"{V2}/invite/{at(room.room_id, event_id(raw, version))}"
    status, answer = await home.wire.ask("PUT", target, body)
    assert status in {200, 429}, answer
    return status


async def shown(person: LocalUser) -> dict[str, Any]:
    found = await person.get("/sync")
    return found.get("rooms", {}).get("invite", {})


async def kept(home: MatrixServer) -> list[Any]:
    return await home.app.contexts["matrix"].store.scan("invite")


async def test_one_server_s_flood_is_small(tmp_path):
    """The issue's: 1,500 invites of one server in three seconds, each with as much state as fits."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        big = [
            {"type": "m.room.topic", "state_key": "", "sender": USER, "content": {"topic": "t" * 30_000}},
            {"type": "m.room.name", "state_key": "", "sender": USER, "content": {"name": "n" * 30_000}},
            {"type": "org.example.junk", "state_key": "", "sender": USER, "content": {"x": "y" * 30_000}},
        ]
        answers = [await ask_in(home, n, alice.user, big) for n in range(60)]
        assert answers == [200] * 20 + [429] * 40
        assert sum(len(row.body) for row in await kept(home)) < 20 * 40_000
        assert len(orjson.dumps(await alice.get("/sync"))) < 20 * 40_000
        assert home.wire.counted("matrix_invites_limited")[""] == 40


async def test_of_one_server_the_oldest_gives_way(tmp_path, monkeypatch):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        unlimited(home, monkeypatch)
        for n in range(30):
            assert await ask_in(home, n, alice.user) == 200
        assert await ask_in(home, 99, bob.user) == 200
        assert len(await shown(alice)) == 20
        assert len(await shown(bob)) == 1
        assert len(await kept(home)) == 21
        assert home.app.gauges["matrix_invites_waiting", (("plugin", "matrix"),)] == 22 - 1


async def test_what_gave_way_is_gone_for_clients_and_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(pending_invites, "MAX_OF_PEER", 2)
    monkeypatch.setattr(pending_invites, "_MAX_LEFT_ROOMS", 3)
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        unlimited(home, monkeypatch)
        await alice.sync()
        await ask_in(home, 0, alice.user)
        (first,) = (await alice.sync())["rooms"]["invite"]
        await ask_in(home, 1, alice.user)
        await ask_in(home, 2, alice.user)
        assert first in (await alice.sync())["rooms"]["leave"]
        for n in range(3, 10):
            await ask_in(home, n, alice.user)
        stays = home.matrix.memberships.memberships_of(alice.user)
        assert len(stays) == 2 + 3


async def test_of_many_servers_who_has_most_gives_way(tmp_path, monkeypatch):
    monkeypatch.setattr(pending_invites, "MAX_OF_USER", 6)
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        unlimited(home, monkeypatch)
        for n in range(5):
            await ask_in(home, n, alice.user)
        rows = await kept(home)
        signed = pending_invites.parse_pdu(
            {**orjson.loads(rows[0].body)["event"], "room_id": "!other:x"}, home.wire.room.version
        )
        for peer in ("a.example", "b.example", "c.example"):
            moved = pending_invites.parse_pdu({**signed.raw, "room_id": f"!{peer}:x"}, home.wire.room.version)
            await pendings(home).keep(moved, peer, [], "12", generation=0)
        peers = [str(row.fields["peer"]) for row in await kept(home)]
        assert sorted(peers)[3:] == ["a.example", "b.example", "c.example"]
        assert len(peers) == 6


async def test_of_one_server_and_in_all(tmp_path, monkeypatch):
    monkeypatch.setattr(pending_invites, "MAX_OF_SERVER", 3)
    async with matrix_server(tmp_path) as home:
        people = [await home.person(f"p{n}") for n in range(5)]
        unlimited(home, monkeypatch)
        for n, person in enumerate(people):
            await ask_in(home, n, person.user)
        assert {row.key[1] for row in await kept(home)} == {p.user for p in people[2:]}
        monkeypatch.setattr(pending_invites, "MAX_OF_SERVER", 100)
        monkeypatch.setattr(pending_invites, "MAX_IN_ALL", 3)
        await ask_in(home, 9, people[0].user)
        assert {row.key[1] for row in await kept(home)} == {p.user for p in (*people[3:], people[0])}


async def test_nobody_answers_for_half_a_year(tmp_path, monkeypatch):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        await ask_in(home, 0, alice.user)
        await pendings(home).sweep()
        assert len(await kept(home)) == 1
        clock = home.app.contexts["matrix"].clock
        later = clock.now() + pending_invites.KEPT_FOR
        monkeypatch.setattr(type(clock), "now", lambda _: later)
        await pendings(home).sweep()
        assert await kept(home) == [] and await shown(alice) == {}
        assert home.app.gauges["matrix_invites_waiting", (("plugin", "matrix"),)] == 0


def test_what_is_kept_of_a_room_s_state():
    def of(type_: str, key: str = "", **more: Any) -> dict[str, Any]:
        return {"type": type_, "state_key": key, "sender": "@a:x", "content": {}, "hashes": {}, **more}

    state = [
        of("m.room.topic", content={"topic": "x" * MAX_STRIPPED_SIZE}),
        of("m.room.name"),
        of("m.room.name", content={"name": "second"}),
        of("m.room.member", "@a:x"),
        of("m.room.member", "@b:x"),
        of("m.room.create"),
        of("org.example"),
        {"type": "m.room.avatar"},
        "none",
    ]
    found = stripped_state(state, "@a:x")
    assert [(one["type"], one["state_key"]) for one in found] == [
        ("m.room.create", ""), ("m.room.member", "@a:x"), ("m.room.name", "")
    ]  # fmt: skip
    assert all(set(one) == {"type", "state_key", "sender", "content"} for one in found)
    assert found[2]["content"] == {}
