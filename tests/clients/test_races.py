"""Races: proofs, tokens and logouts at the same moment. The store is held at a chosen call."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from clients.test_crypto import SigningKey, cross, keys_of
from clients.test_sessions import login, operate
from hansa.store.base import Put

REGISTRATION = "m.login.registration_token"


class Held:
    """A store in which one kind of call waits, after it was done, until it is let go on."""

    def __init__(self, house: MatrixServer, call: str, collection: str) -> None:
        self._app, self._inner = house.app, house.app.store.inner
        self._call, self._collection = call, collection
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        self._app.store.inner = self

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        return self._hold(found) if name == self._call else found

    def _hold(self, call):
        async def held(scope, what, *args, **options):
            found = await call(scope, what, *args, **options)
            named = what if isinstance(what, str) else " ".join(write.collection for write in what)
            if self._collection in named and not self.reached.is_set():
                self.reached.set()
                await self.go_on.wait()
            return found

        return held

    def release(self) -> None:
        self._app.store.inner = self._inner
        self.go_on.set()


async def fresh(home: MatrixServer, person: LocalUser) -> LocalUser:
    """Another device, whose token nobody has shown yet."""
    found = await home.anybody.call("POST", "/login", login("alice", "of alice"))
    return LocalUser(home.app, person.user, found["access_token"], found["device_id"])


async def everywhere(alice: LocalUser, _other: LocalUser) -> None:
    await alice.call("POST", "/logout/all", {})


async def removed(alice: LocalUser, other: LocalUser) -> None:
    await alice.call("DELETE", f"/devices/{other.device}", {"auth": login("alice", "of alice")})


async def changed(alice: LocalUser, _other: LocalUser) -> None:
    await alice.call("POST", "/account/password", {"new_password": "x", "auth": login("alice", "of alice")})


async def closed(alice: LocalUser, _other: LocalUser) -> None:
    await alice.call("POST", "/account/deactivate", {"auth": login("alice", "of alice")})


@pytest.mark.parametrize("out", [everywhere, removed, changed, closed])
@pytest.mark.parametrize("collection", ["access_token", "account"])
async def test_a_token_that_is_read_while_it_is_taken_back_does_not_live_on(tmp_path, out, collection):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        await alice.get("/account/whoami")
        other = await fresh(home, alice)
        held = Held(home, "get", collection)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(other.ask("GET", "/account/whoami"))
            await held.reached.wait()
            await out(alice, other)
            held.release()
        assert asking.result()[0] == 401
        assert (await other.ask("GET", "/account/whoami"))[0] == 401


@pytest.mark.parametrize("out", [everywhere, changed, closed])
@pytest.mark.parametrize(
    ("call", "collection"),
    [("get", "account"), ("scan", "access_token"), ("commit", "access_token")],
)
async def test_a_login_under_way_does_not_survive_what_logs_everybody_out(tmp_path, out, call, collection):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        await alice.get("/account/whoami")
        held = Held(home, call, collection)
        async with asyncio.TaskGroup() as group:
            coming = group.create_task(
                home.anybody.ask("POST", "/login", login("alice", "of alice", device_id="NEW"))
            )
            await held.reached.wait()
            await out(alice, alice)
            held.release()
        status, found = coming.result()
        if status == 200:
            late = home.anybody
            late.token = found["access_token"]
            assert (await late.ask("GET", "/account/whoami"))[0] == 401
        else:
            assert status == 403
        assert await home.app.contexts["matrix"].store.count("access_token", equal={"device_id": "NEW"}) == 0


async def test_keys_that_are_uploaded_while_their_device_is_logged_out_bring_no_device_back(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        other = await fresh(home, alice)
        held = Held(home, "get", "access_token")
        async with asyncio.TaskGroup() as group:
            renaming = group.create_task(other.ask("PUT", f"/devices/{other.device}", {"display_name": "x"}))
            await held.reached.wait()
            await removed(alice, other)
            held.release()
        assert renaming.result()[0] in {400, 401, 404}
        assert [d["device_id"] for d in (await alice.get("/devices"))["devices"]] == [alice.device]


async def test_a_closed_account_is_not_opened_by_a_password_set_at_the_same_moment(tmp_path):
    async with matrix_server(tmp_path) as home:
        await home.person("alice")
        held = Held(home, "get", "account")
        async with asyncio.TaskGroup() as group:
            setting = group.create_task(operate(home, "user passwd", name="alice", password="new"))
            await held.reached.wait()
            await operate(home, "user deactivate", name="alice")
            held.release()
        assert setting.exception() is None
        (listed,) = await operate(home, "user ls")
        assert listed["deactivated"]
        assert (await home.anybody.ask("POST", "/login", login("alice", "new")))[0] == 403


async def test_a_single_use_token_makes_one_account_however_many_come_at_once(tmp_path):
    async with matrix_server(tmp_path, registration="token") as home:
        token = (await operate(home, "tokens add"))["token"]
        auth = {"type": REGISTRATION, "token": token}

        async def register(n: int, auth: dict) -> int:
            body = {"username": f"p{n}", "password": "pw", "auth": auth}
            return (await home.anybody.ask("POST", "/register", body))[0]

        answers = await asyncio.gather(*(register(n, auth) for n in range(20)))
        assert answers.count(200) == 1
        assert len(await operate(home, "user ls")) == 1
        assert [t["used"] for t in await operate(home, "tokens ls")] == [1]


async def test_three_uses_are_three_and_nobody_loses_theirs_to_a_race(tmp_path):
    async with matrix_server(tmp_path, registration="token") as home:
        token = (await operate(home, "tokens add", uses=3))["token"]
        auth = {"type": REGISTRATION, "token": token}
        asks = [
            home.anybody.ask("POST", "/register", {"username": f"p{n}", "password": "pw", "auth": auth})
            for n in range(10)
        ]
        answers = [status for status, _ in await asyncio.gather(*asks)]
        assert answers.count(200) == 3
        assert [t["used"] for t in await operate(home, "tokens ls")] == [3]


async def test_a_wrong_proof_does_not_open_a_session_again_that_was_used_up(tmp_path):
    async with matrix_server(tmp_path, registration="token") as home:
        token = (await operate(home, "tokens add"))["token"]
        asks = home.anybody
        body = {"username": "p0", "password": "pw"}
        session = (await asks.ask("POST", "/register", body))[1]["session"]
        right = {"type": REGISTRATION, "token": token, "session": session}
        held = Held(home, "get", "registration_token")
        async with asyncio.TaskGroup() as group:  # the wrong one is looked at when the right one ends
            wrong = group.create_task(
                asks.ask("POST", "/register", body | {"auth": right | {"token": "wrong"}})
            )
            await held.reached.wait()
            assert (await asks.ask("POST", "/register", body | {"auth": right}))[0] == 200
            held.release()
        assert wrong.result()[0] == 400
        for n in range(1, 20):
            for auth in ({"session": session}, {"session": session, "type": REGISTRATION}, right):
                body = {"username": f"p{n}", "password": "pw", "auth": auth}
                assert (await asks.ask("POST", "/register", body))[0] in {400, 401, 403}
        assert len(await operate(home, "user ls")) == 1


async def test_of_two_that_end_a_session_at_once_one_is_let_through(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        session = (await alice.ask("POST", "/account/password", {"new_password": "new"}))[1]["session"]
        body = {"new_password": "new", "auth": {**login("alice", "of alice"), "session": session}}
        answers = await asyncio.gather(*(alice.ask("POST", "/account/password", body) for _ in range(5)))
        assert sorted(status for status, _ in answers) == [200, 400, 400, 400, 400]


async def test_a_proof_for_one_request_is_none_for_another(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        one, other = await home.person("alice", "ONE"), await home.person("alice", "OTHER")
        session = (await alice.ask("DELETE", f"/devices/{one.device}", {}))[1]["session"]
        auth = {**login("alice", "of alice"), "session": session}
        assert (await alice.ask("DELETE", f"/devices/{other.device}", {"auth": auth}))[0] == 400
        assert (await bob.ask("DELETE", f"/devices/{one.device}", {"auth": auth}))[0] == 400
        assert (await alice.ask("POST", "/delete_devices", {"devices": ["OTHER"], "auth": auth}))[0] == 400
        assert (await alice.ask("DELETE", f"/_matrix/client/r0/devices/{one.device}", {"auth": auth}))[
            0
        ] == 200
        assert (await other.ask("GET", "/account/whoami"))[0] == 200


async def test_a_stay_that_begins_while_the_last_is_forgotten_stays(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        attendance = home.matrix.memberships
        stay = attendance.membership_of(alice.user, room)
        held = Held(home, "commit", "stay")
        async with asyncio.TaskGroup() as group:
            group.create_task(attendance.forget_room(alice.user, room))
            await held.reached.wait()
            again = type(stay)(room_id=room, membership="join", event_id="$new", sender=alice.user)
            attendance.on_committed(alice.user, again)
            held.release()
        assert attendance.membership_of(alice.user, room) is again


async def test_the_store_that_these_tests_hold_is_the_servers(tmp_path):
    async with matrix_server(tmp_path) as home:
        held = Held(home, "commit", "profile")
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(home.app.contexts["matrix"].store.commit([Put("profile", ("@x:y",))]))
            await held.reached.wait()
            assert not writing.done()
            held.release()


async def all_done(*asks) -> list[int]:
    return [status for status, _ in await asyncio.gather(*asks)]


async def test_nothing_that_is_acknowledged_is_lost_to_what_else_is_changed_at_once(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice", "A"), await home.person("bob", "B")
        room = await alice.create()
        me, here = part(alice.user), f"/user/{part(alice.user)}"
        many = range(40)
        for asks in (
            (alice.ask("PUT", f"{here}/account_data/test.{n}", {"n": n}) for n in many),
            (alice.ask("PUT", f"{here}/rooms/{part(room)}/tags/u.{n}", {}) for n in many),
            (
                alice.ask("PUT", f"/pushrules/global/underride/r{n}", {"actions": [], "conditions": []})
                for n in many
            ),
            (alice.ask("PUT", f"/profile/{me}/test.{n}", {f"test.{n}": n}) for n in many),
            (
                bob.ask("PUT", f"/sendToDevice/test.x/{n}", {"messages": {alice.user: {"*": {"n": n}}}})
                for n in many
            ),
        ):
            assert await all_done(*asks) == [200] * len(many)
        whole = await alice.sync()
        named = {event["type"]: event["content"] for event in whole["account_data"]["events"]}
        assert all(named[f"test.{n}"] == {"n": n} for n in many)
        assert {e["content"]["n"] for e in whole["to_device"]["events"]} == set(many)
        tags = (await alice.get(f"{here}/rooms/{part(room)}/tags"))["tags"]
        assert set(tags) == {f"u.{n}" for n in many}
        rules = named["m.push_rules"]["global"]["underride"]
        assert {r["rule_id"] for r in rules if not r["default"]} == {f"r{n}" for n in many}
        profile = await alice.get(f"/profile/{me}")
        assert all(profile[f"test.{n}"] == n for n in many)


@pytest.mark.parametrize(
    ("collection", "path", "body", "others"),
    [
        ("profile", "/profile/{me}/displayname", {"displayname": "x"}, "/profile/{me}/avatar_url"),
        ("account_data", "/user/{me}/rooms/!r:x/tags/u.a", {}, "/user/{me}/rooms/!r:x/tags/u.b"),
    ],
)
async def test_what_another_process_writes_between_reading_and_writing_stays(
    tmp_path, collection, path, body, others
):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        me = part(alice.user)
        await alice.ask("PUT", path.format(me=me), body)
        store = home.app.contexts["matrix"].store
        (row,) = [r for r in await store.scan(collection, limit=100) if alice.user in r.key]
        theirs = row.body.replace(b'"x"', b'"y"').replace(b'"u.a"', b'"u.z"')
        assert theirs != row.body
        held = Held(home, "get", collection)
        async with asyncio.TaskGroup() as group:
            value = {"avatar_url": "mxc://a/b"} if collection == "profile" else {}
            asking = group.create_task(alice.ask("PUT", others.format(me=me), value))
            await held.reached.wait()
            await store.commit([Put(collection, row.key, theirs)])
            held.release()
        assert asking.result()[0] == 200
        kept = (await store.get(collection, row.key)).body
        assert b'"y"' in kept or b'"u.z"' in kept
        assert b"avatar_url" in kept or b"u.b" in kept


async def test_a_name_of_a_device_and_a_signature_on_it_do_not_take_each_other_back(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice", "A")
        key = SigningKey.generate()
        await alice.call("POST", "/keys/upload", {"device_keys": keys_of(alice, key)})
        devices = home.matrix.users.devices
        held = Held(home, "get", "device")
        async with asyncio.TaskGroup() as group:
            naming = group.create_task(alice.ask("PUT", "/devices/A", {"display_name": "mine"}))
            await held.reached.wait()
            signing = group.create_task(
                devices.update_device(alice.user, "A", lambda one: replace(one, keys={**one.keys, "more": 1}))
            )
            for _ in range(50):
                await asyncio.sleep(0)
            held.release()
        assert naming.result()[0] == 200
        assert signing.exception() is None
        device = await devices.get(alice.user, "A")
        assert device.name == "mine"
        assert device.keys["more"] == 1


async def test_of_two_devices_that_set_the_first_keys_at_once_one_has_to_prove_who_it_is(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice", "A")
        thief = await fresh(home, alice)
        keys = [{"master_key": cross(alice, "master", SigningKey.generate())} for _ in range(2)]
        held = Held(home, "get_many", "cross_signing_key")
        async with asyncio.TaskGroup() as group:
            late = group.create_task(thief.ask("POST", "/keys/device_signing/upload", keys[1]))
            await held.reached.wait()
            assert (await alice.ask("POST", "/keys/device_signing/upload", keys[0]))[0] == 200
            held.release()
        assert late.result()[0] == 401
        found = await alice.call("POST", "/keys/query", {"device_keys": {alice.user: []}})
        assert found["master_keys"][alice.user]["keys"] == keys[0]["master_key"]["keys"]


async def test_a_device_has_one_token_however_many_log_in_as_it_at_once(tmp_path):
    async with matrix_server(tmp_path) as home:
        await home.person("alice")
        asks = (
            home.anybody.ask("POST", "/login", login("alice", "of alice", device_id="SAME"))
            for _ in range(20)
        )
        assert await all_done(*asks) == [200] * 20
        store = home.app.contexts["matrix"].store
        assert await store.count("access_token", equal={"device_id": "SAME"}) == 1


async def test_keys_of_a_device_that_is_logged_out_meanwhile_are_not_kept(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        other = await fresh(home, alice)
        held = Held(home, "get", "access_token")
        once = {"one_time_keys": {"signed_curve25519:1": {"key": "k"}}, "fallback_keys": {}}
        async with asyncio.TaskGroup() as group:
            late = group.create_task(other.ask("POST", "/keys/upload", once))
            await held.reached.wait()
            await removed(alice, other)
            held.release()
        assert late.result()[0] in {400, 401}
        assert await home.app.contexts["matrix"].store.count("one_time_key") == 0
