"""Deactivation with erasure: what other servers get, and what they may still read."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from clients.test_crypto import keys_of
from clients.test_newly_met import Told
from clients.test_sessions import login, operate
from hansa import HttpRequest, Put
from hansa.testing import until
from hansa_matrix.client_api.rooms import client_events
from matrix.server_with_peer import OURS, THEIRS
from nacl.signing import SigningKey

FEDERATION = "/_matrix/federation/v1"


class Heard(Told):
    """The EDUs and events that the other server gets, in order."""

    def __init__(self, home: MatrixServer) -> None:
        super().__init__(home)
        self.pdus: list[dict[str, Any]] = []

    def answer(self, request: HttpRequest) -> tuple[int, Any] | None:
        if "/send/" in request.target and request.host_header == THEIRS:
            self.pdus += orjson.loads(request.body or b"{}").get("pdus", [])
        return super().answer(request)


async def close(person: LocalUser, *, erase: bool) -> None:
    proof = login(person.user[1:].partition(":")[0], f"of {person.user[1:].partition(':')[0]}")
    await person.call("POST", "/account/deactivate", {"auth": proof, "erase": erase})


async def test_other_servers_learn_that_somebody_is_gone(tmp_path):
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        heard, bob = Heard(home), await home.person("bob", "PHONE")
        await bob.call("POST", "/keys/upload", {"device_keys": keys_of(bob, SigningKey.generate())})
        await bob.call("PUT", f"/profile/{part(bob.user)}/displayname", {"displayname": "Robert"})
        await bob.call("PUT", f"/profile/{part(bob.user)}/org.example", {"org.example": "x"})
        for room in ("one", "two"):
            await bob.join(f"#{room}:{OURS}")
        status = {"presence": "online", "status_msg": "at the ball"}
        await bob.call("PUT", f"/presence/{part(bob.user)}/status", status)
        await heard.of("m.presence")
        token = (await bob.call("POST", f"/user/{part(bob.user)}/openid/request_token", {}))["access_token"]
        heard.edus.clear()
        heard.pdus.clear()
        await close(bob, erase=True)

        async def left() -> list[Any]:
            found = [p for p in heard.pdus if p["type"] == "m.room.member" and p["state_key"] == bob.user]
            return found if len(found) == 2 else []

        for pdu in await until(left):
            assert pdu["content"] == {"membership": "leave"}
        (update,) = await heard.of("m.device_list_update")
        assert (update["device_id"], update["deleted"]) == ("PHONE", True)
        ((push,),) = [one["push"] for one in await heard.of("m.presence")]
        assert push == {"user_id": bob.user, "presence": "offline", "last_active_ago": 0}
        # No request gets any of it any more.
        ask = home.wire.ask
        for field in ("", "&field=displayname", "&field=avatar_url", "&field=org.example"):
            answered, found = await ask("GET", f"{FEDERATION}/query/profile?user_id={part(bob.user)}{field}")
            assert (answered, found["errcode"]) == (404, "M_NOT_FOUND")
        _, devices = await ask("GET", f"{FEDERATION}/user/devices/{part(bob.user)}")
        assert devices["devices"] == []
        assert {"master_key", "self_signing_key"}.isdisjoint(devices)
        _, keys = await ask("POST", f"{FEDERATION}/user/keys/query", {"device_keys": {bob.user: []}})
        assert not any(
            keys.get(name, {}).get(bob.user) for name in ("device_keys", "master_keys", "self_signing_keys")
        )
        wanted = {"one_time_keys": {bob.user: {"PHONE": "signed_curve25519"}}}
        _, keys = await ask("POST", f"{FEDERATION}/user/keys/claim", wanted)
        assert not keys["one_time_keys"].get(bob.user)
        answered, _ = await ask("GET", f"{FEDERATION}/openid/userinfo?access_token={token}")
        assert answered == 401


async def test_keys_are_gone_before_anybody_is_told_of_it(tmp_path):
    """A server that hears of the last device asks for the devices that are left."""
    async with matrix_server(tmp_path) as home:
        bob = await home.person("bob")
        await bob.call("POST", "/keys/upload", {"device_keys": keys_of(bob, SigningKey.generate())})
        devices = home.matrix.users.devices
        remove, left = devices.remove, list[Any]()

        async def removing(user: str, names: Any) -> None:
            left.append(await devices.get_all(user))
            await remove(user, names)

        devices.remove = removing
        store = home.matrix.store
        await store.commit([Put("cross_signing_key", (bob.user, "master"), b"{}")])
        await close(bob, erase=False)
        assert left and left[0].cross_signing == {}


@pytest.mark.parametrize("erase", [True, False])
async def test_a_name_of_the_erased_is_shown_to_who_was_there_alone(tmp_path, erase):
    async with matrix_server(tmp_path) as home:
        alice, bob, eve = [await home.person(n) for n in ("alice", "bob", "eve")]
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await alice.state(room, "m.room.power_levels", await levels(alice, room, bob))
        await bob.state(room, "m.room.name", {"name": "Verona"})
        said = await alice.say(room, "x")
        await close(bob, erase=erase)

        async def gone() -> bool:
            members = (await alice.get(f"/rooms/{part(room)}/members?membership=leave"))["chunk"]
            return any(e["state_key"] == bob.user for e in members)

        await until(gone)
        await eve.join(room)
        where = f"/rooms/{part(room)}"
        for reader, shown in ((alice, True), (eve, not erase)):
            state = (await reader.get(f"{where}/context/{part(said)}?limit=0"))["state"]
            (joined,) = [e for e in state if e.get("state_key") == bob.user]
            assert joined["content"]["membership"] == "join"
            assert ("displayname" in joined["content"]) is shown
            state = await reader.get(f"{where}/state")
            (left,) = [e for e in state if e.get("state_key") == bob.user]
            assert left["unsigned"]["replaces_state"] == joined["event_id"]
            assert ("displayname" in left["unsigned"]["prev_content"]) is (not erase)
            timeline = (await reader.get(f"{where}/messages?dir=b&limit=50"))["chunk"]
            (told,) = [e for e in timeline if e["event_id"] == left["event_id"]]
            assert ("displayname" in told["unsigned"]["prev_content"]) is shown
            assert [e["content"] for e in state if e["type"] == "m.room.name"] == [{"name": "Verona"}]


@pytest.mark.parametrize("version", ["10", "12"])
async def test_servers_that_come_later_get_no_name_of_the_erased(tmp_path, version):
    """Neither in the state nor among its auth events; the erased user is a member all the same."""
    async with matrix_server(tmp_path, version) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat", room_alias_name="verona", room_version=version)
        await bob.join(room)
        await alice.state(room, "m.room.power_levels", await levels(alice, room, bob))
        named = await bob.state(room, "m.room.name", {"name": "Verona"})
        await alice.say(room, "x")
        await close(bob, erase=True)

        async def gone() -> bool:
            return bob.user not in (await alice.get(f"/rooms/{part(room)}/joined_members"))["joined"]

        await until(gone)
        taken: list[Any] = []
        ask = home.wire.ask

        async def asking(method: str, target: str, *given: Any, **more: Any) -> tuple[int, Any]:
            answer = await ask(method, target, *given, **more)
            taken.append(answer[1])
            return answer

        home.wire.ask = asking
        await home.wire.join("verona")
        for target in (
            f"{FEDERATION}/state/{part(room)}?event_id={part(named)}",
            f"{FEDERATION}/event_auth/{part(room)}/{part(named)}",
        ):
            status, answer = await ask("GET", target)
            assert status == 200, answer
            taken.append(answer)
        found = [
            pdu
            for answer in taken
            for name in ("state", "auth_chain", "pdus")
            for pdu in answer.get(name, ())
        ]
        of_bob = [p for p in found if p["type"] == "m.room.member" and p["state_key"] == bob.user]
        assert {p["content"]["membership"] for p in of_bob} == {"join", "leave"}
        assert all(p["content"].keys() <= {"membership"} for p in of_bob)
        assert any(p["content"].get("displayname") == "alice" for p in found if p["type"] == "m.room.member")


@pytest.mark.parametrize("closed", [False, True])
async def test_an_operator_erases_somebody_who_closed_their_account_or_not(tmp_path, closed):
    async with matrix_server(tmp_path) as home:
        alice, bob, eve = [await home.person(n) for n in ("alice", "bob", "eve")]
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await bob.say(room, "forget me")
        if closed:
            await operate(home, "user deactivate", name="bob")
            assert await home.anybody.get(f"/profile/{bob.user}") == {"displayname": "bob"}
        found = await operate(home, "user deactivate", name="bob", erase=True)
        assert found == {"user": bob.user, "deactivated": True, "erased": True}
        assert (await home.anybody.ask("GET", f"/profile/{bob.user}"))[0] == 404
        await eve.join(room)
        assert await eve.texts(room) == [None]


async def test_what_a_crash_left_of_the_erased_goes_at_the_next_start(tmp_path):
    async with matrix_server(tmp_path) as home:
        bob = await home.person("bob")
        await close(bob, erase=True)
        matrix = home.matrix
        store, row = matrix.store, Put("profile", (bob.user,), b'{"displayname":"Robert"}')
        await store.commit([row])  # as if the power had failed before
        await matrix.client_api.accounts.finish_deactivation(bob.user)
        assert await store.get("profile", (bob.user,)) is None


async def levels(alice: LocalUser, room: str, other: LocalUser) -> dict[str, Any]:
    found = await alice.get(f"/rooms/{part(room)}/state/m.room.power_levels")
    return {**found, "users": {**found["users"], other.user: 50}}


async def test_an_invite_that_names_the_erased_is_theirs_too(tmp_path):
    """Another user sent it, with the name of the erased user."""
    async with matrix_server(tmp_path) as home:
        alice, bob, eve = [await home.person(n) for n in ("alice", "bob", "eve")]
        room = await alice.create(preset="public_chat")
        named = {"membership": "invite", "displayname": "Robert of Verona", "reason": "the ball"}
        asked = await alice.state(room, "m.room.member", named, bob.user)
        await bob.join(room)
        await close(bob, erase=True)

        async def gone() -> bool:
            members = (await alice.get(f"/rooms/{part(room)}/members?membership=leave"))["chunk"]
            return any(e["state_key"] == bob.user for e in members)

        await until(gone)
        await eve.join(room)
        where = f"/rooms/{part(room)}"
        for reader, shown in ((alice, True), (eve, False)):
            timeline = (await reader.get(f"{where}/messages?dir=b&limit=50"))["chunk"]
            told = next(e for e in timeline if e["event_id"] == asked)
            assert (told["content"] == named) is shown
            assert ("Robert" in str([e["unsigned"].get("prev_content") for e in timeline])) is shown
        version = (await eve.get(f"{where}/state/m.room.create"))["room_version"]
        assert version


async def test_names_of_very_many_erased_are_not_looked_for(tmp_path, monkeypatch):
    """Each check of a reader's membership needs the state of that time."""
    monkeypatch.setattr(client_events, "MAX_ERASED", 1)
    async with matrix_server(tmp_path) as home:
        alice, bob, eve = [await home.person(n) for n in ("alice", "bob", "eve")]
        room = await alice.create(preset="public_chat")
        for one in (bob, eve):
            await one.join(room)
        said = await alice.say(room, "x")
        for one in (bob, eve):
            await close(one, erase=True)

        async def gone() -> bool:
            members = (await alice.get(f"/rooms/{part(room)}/members?membership=leave"))["chunk"]
            return len(members) == 2

        await until(gone)
        state = (await alice.get(f"/rooms/{part(room)}/context/{part(said)}?limit=0"))["state"]
        content = {e["state_key"]: e["content"] for e in state if e["type"] == "m.room.member"}
        assert content[eve.user] == {"membership": "join", "displayname": "eve"}
        assert content[bob.user] == {"membership": "join"}
