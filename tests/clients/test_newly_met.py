"""A user who meets another one now learns the changes that were sent to others before."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from clients.matrix_server import MatrixServer, matrix_server, part
from clients.test_absences import back, there
from clients.test_crypto import keys_of
from hansa import HttpRequest
from hansa.testing import until
from hansa_matrix.users import presence
from matrix.server_with_peer import OFFERED, OURS, THEIRS
from nacl.signing import SigningKey


class Told:
    """The transactions that the other server gets."""

    def __init__(self, home: MatrixServer) -> None:
        self.edus: list[dict[str, Any]] = []
        self.before = home.wire.peer.answer
        home.wire.peer.answer = self.answer

    def answer(self, request: HttpRequest) -> tuple[int, Any] | None:
        if "/send/" in request.target and request.host_header == THEIRS:
            self.edus += orjson.loads(request.body or b"{}").get("edus", [])
            return self.before(request) or (200, {})
        return self.before(request)

    async def of(self, kind: str) -> list[dict[str, Any]]:
        """Those of a kind, once there is one."""

        async def some() -> list[dict[str, Any]]:
            return [edu["content"] for edu in self.edus if edu["edu_type"] == kind]

        return await until(some)


async def test_servers_that_meet_somebody_learn_of_their_devices(tmp_path):
    async with matrix_server(tmp_path) as home:
        told, alice = Told(home), await home.person("alice", "A")
        await alice.call("POST", "/keys/upload", {"device_keys": keys_of(alice, SigningKey.generate())})
        assert told.edus == []
        await alice.join(f"#one:{OURS}")
        (update,) = await told.of("m.device_list_update")
        assert (update["user_id"], update["device_id"], update["prev_id"]) == (alice.user, "A", [])
        status, listed = await home.wire.ask("GET", f"/_matrix/federation/v1/user/devices/{part(alice.user)}")
        assert (status, listed["stream_id"]) == (200, update["stream_id"])
        # They get no update about users that they know already.
        await alice.call("PUT", "/devices/A", {"display_name": "phone"})
        room = await alice.create(preset="public_chat", room_alias_name="verona")
        await home.wire.join("verona")
        bob = await home.person("bob", "B")
        await bob.call("POST", "/keys/upload", {"device_keys": keys_of(bob, SigningKey.generate())})
        await bob.join(room)

        async def of_bob() -> list[dict[str, Any]]:
            return [one for one in await told.of("m.device_list_update") if one["user_id"] == bob.user]

        assert len(await until(of_bob)) == 1
        await bob.join(f"#one:{OURS}")
        await bob.call("POST", "/logout", {})

        async def gone() -> bool:
            return any(one.get("deleted") for one in await of_bob())

        await until(gone)
        assert len(await of_bob()) == 2


async def test_a_server_whose_room_somebody_joins_learns_of_their_devices(tmp_path):
    async with there(tmp_path, "12") as (home, past, juliet):
        told = Told(home)
        await juliet.call("POST", "/keys/upload", {"device_keys": keys_of(juliet, SigningKey.generate())})
        await back(past, juliet, past.room.room_id)
        (update,) = await told.of("m.device_list_update")
        assert (update["user_id"], update["device_id"]) == (juliet.user, juliet.device)


async def test_servers_that_meet_somebody_learn_that_they_are_there(tmp_path):
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        told, alice = Told(home), await home.person("alice")
        await alice.sync()
        await alice.join(f"#one:{OURS}")
        ((push,),) = [one["push"] for one in await told.of("m.presence")]
        assert (push["user_id"], push["presence"]) == (alice.user, "online")


async def nobody(*_: Any) -> None:
    """Is met."""


async def test_servers_that_come_into_a_room_learn_who_is_there(tmp_path, monkeypatch):
    """They are told of everybody who is there, and again when they have taken up the room."""
    monkeypatch.setattr(presence, "WELCOME_DELAY_S", 0.05)
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        monkeypatch.setattr(home.matrix.users, "announce_user", nobody)  # as they come in themselves
        told, alice, bob, carol = Told(home), *[await home.person(n) for n in ("alice", "bob", "carol")]
        room = await alice.create(preset="public_chat", room_alias_name="verona")
        await bob.join(room)
        await carol.join(room)
        for one in (alice, bob):
            await one.sync()
        assert told.edus == []
        await home.wire.join("verona")

        async def twice() -> list[list[Any]]:
            found = [one["push"] for one in await told.of("m.presence")]
            return found if len(found) == 2 else []

        for push in await until(twice):
            assert {(one["user_id"], one["presence"]) for one in push} == {
                (alice.user, "online"),
                (bob.user, "online"),
            }
        # Who comes from a server that is there already meets nobody new.
        before = len(told.edus)
        await home.wire.join("verona")
        await bob.sync("&set_presence=unavailable")
        pushes = [
            e["content"]["push"] for e in (await told_more(told, before)) if e["edu_type"] == "m.presence"
        ]
        assert [[one["user_id"] for one in push] for push in pushes] == [[bob.user]]


async def told_more(told: Told, before: int) -> list[dict[str, Any]]:
    """Returns the new messages after the first ``before``, once there are any."""

    async def more() -> list[dict[str, Any]]:
        return told.edus[before:]

    return await until(more)


def online(*users: str) -> dict[str, Any]:
    """A transaction that says who is there."""
    push = [{"user_id": user, "presence": "online", "last_active_ago": 5} for user in users]
    edu = {"edu_type": "m.presence", "content": {"push": push}}
    return {"origin": THEIRS, "origin_server_ts": 1, "pdus": [], "edus": [edu]}


@pytest.mark.parametrize("comes", ["they", "we", "too late"])
async def test_what_was_said_of_people_just_before_they_are_met_is_known(tmp_path, monkeypatch, comes):
    """A server hears of a join before that is taken up here, and says at once who is there."""
    monkeypatch.setattr(presence, "EARLY_PRESENCE_TTL_S", -1.0 if comes == "too late" else 60.0)
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        known, wire = home.matrix.users, home.wire
        if comes != "we":  # the users that alice meets by her join do not matter here
            monkeypatch.setattr(known, "announce_user", nobody)
        room = await alice.create(preset="public_chat", room_alias_name="verona")
        other, stranger = f"@other:{THEIRS}", f"@stranger:{THEIRS}"

        async def said() -> None:
            target = "/_matrix/federation/v1/send/early"
            status, answer = await wire.ask("PUT", target, online(other, stranger))
            assert (status, answer) == (200, {"pdus": {}})

        async def joins() -> None:
            where = f"{part(room)}/{part(other)}"
            _, made = await wire.ask("GET", f"/_matrix/federation/v1/make_join/{where}?{OFFERED}")
            join = wire.forger.joining(made, "other")
            path = f"/_matrix/federation/v2/send_join/{part(room)}/{part(join.event_id)}"
            assert (await wire.ask("PUT", path, join.raw))[0] == 200

        if comes == "we":
            monkeypatch.setattr(known.company, "is_tracked", lambda _: False)
            await joins()
            await said()
            await bob.join(room)
        else:
            await said()
            assert known.presences.get(other) is None
            await joins()

        async def shown() -> bool:
            found = (await alice.sync()).get("presence", {}).get("events", [])
            return any(e["sender"] == other and e["content"]["presence"] == "online" for e in found)

        if comes == "too late":

            async def looked() -> bool:
                return list(known.presences._early) == []

            await until(looked)
            assert not await shown()
        else:
            await until(shown)
        assert known.presences.get(stranger) is None


async def test_people_elsewhere_who_are_met_now_are_shown_as_there(tmp_path):
    """Their server said so before, to others of this server."""
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        await bob.join(f"#one:{OURS}")
        room = await alice.create(preset="public_chat", room_alias_name="verona")
        other = f"@m:{THEIRS}"
        push = [{"user_id": other, "presence": "online", "last_active_ago": 5}]
        await home.wire.ask(
            "PUT",
            "/_matrix/federation/v1/send/p1",
            {
                "origin": THEIRS,
                "origin_server_ts": 1,
                "pdus": [],
                "edus": [{"edu_type": "m.presence", "content": {"push": push}}],
            },
        )
        await alice.sync()
        assert "presence" not in await alice.sync()
        joined = await home.wire.join("verona")
        assert joined.room_id == room
        found = (await alice.sync())["presence"]["events"]
        assert [(e["sender"], e["content"]["presence"]) for e in found] == [(other, "online")]


@pytest.mark.parametrize("who", ["comes", "is there"])
async def test_people_who_meet_know_who_is_there(tmp_path, who):
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        for one in (alice, bob):
            await one.sync()
            assert "presence" not in await one.sync()
        await bob.join(room)
        reader, other = (bob, alice) if who == "comes" else (alice, bob)
        found = (await reader.sync())["presence"]["events"]
        assert [e["content"]["presence"] for e in found if e["sender"] == other.user] == ["online"]
        assert "presence" not in await reader.sync()


async def test_who_is_there_without_saying_so(tmp_path):
    """``set_presence=offline`` is a client in the background: it says nothing, and keeps nobody there."""
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        status = f"/presence/{part(bob.user)}/status"
        await bob.sync("&set_presence=offline")
        assert (await alice.get(status))["presence"] == "offline"
        away = {"presence": "unavailable", "status_msg": "at the ball"}
        await bob.call("PUT", status, away)
        await bob.sync("&set_presence=offline")
        found = await alice.get(status)
        assert (found["presence"], found["status_msg"]) == ("unavailable", "at the ball")
