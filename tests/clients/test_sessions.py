"""Accounts: made, logged into, proven, closed."""

from __future__ import annotations

import asyncio
import hashlib
import hmac

import pytest
from clients.matrix_server import LocalUser, Refused, matrix_server, part
from hansa import Busy, LocalProtocolError
from hansa.testing import until
from hansa_matrix.client_api.account.address_shares import AddressShares, address_group
from hansa_matrix.client_api.account.login_attempts import ADDRESSES
from hansa_matrix.client_api.account.passwords import Passwords
from matrix.server_with_peer import OURS


async def operate(home, words, **arguments):
    return await home.matrix.network.admin_commands()[words](arguments)


def login(name, password, **more):
    who = {"type": "m.id.user", "user": name}
    return {"type": "m.login.password", "identifier": who, "password": password, **more}


async def test_an_operator_makes_an_account_and_its_person_logs_in(tmp_path):
    async with matrix_server(tmp_path, registration="closed") as home:
        made = await operate(home, "user add", name="alice", password="in fair verona", admin=False)
        assert made == {"user": f"@alice:{OURS}", "admin": False}
        assert await home.anybody.call("GET", "/login") == {"flows": [{"type": "m.login.password"}]}
        found = await home.anybody.call("POST", "/login", login("alice", "in fair verona", device_id="D"))
        assert (found["user_id"], found["device_id"]) == (f"@alice:{OURS}", "D")
        alice = home.anybody
        alice.token = found["access_token"]
        who = {"user_id": f"@alice:{OURS}", "device_id": "D", "is_guest": False}
        assert await alice.get("/account/whoami") == who
        (listed,) = await operate(home, "user ls")
        assert (listed["user"], listed["devices"], listed["deactivated"]) == (f"@alice:{OURS}", 1, False)


@pytest.mark.parametrize("name", ["Alice", "a b", "hansa", "_xmpp_x", "a:b", "", "ä", "@x:elsewhere"])
async def test_names_that_nobody_gets(tmp_path, name):
    async with matrix_server(tmp_path) as home:
        with pytest.raises(LocalProtocolError):
            await operate(home, "user add", name=name, password="pw")


@pytest.mark.parametrize(
    "body",
    [
        login("alice", "wrong"), login("nobody", "of alice"), login("alice", ""), login("@alice:elsewhere", "of alice"),
        login("al ice", "of alice"),
    ],
)  # fmt: skip
async def test_a_wrong_name_or_password_are_told_alike(tmp_path, body):
    async with matrix_server(tmp_path) as home:
        await home.person("alice")
        status, found = await home.anybody.ask("POST", "/login", body)
        assert (status, found["errcode"]) == (403, "M_FORBIDDEN")
        assert found["error"] == "wrong user name or password"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "M_MISSING_PARAM"), ({"type": 7}, "M_BAD_JSON"), ({"type": "m.login.sso"}, "M_UNKNOWN"),
        ({"type": "m.login.password"}, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "identifier": {"type": "m.id.phone"}}, "M_UNKNOWN"),
        ({"type": "m.login.password", "user": "alice"}, "M_MISSING_PARAM"),
        ({**login("alice", "of alice"), "device_id": "x" * 300}, "M_INVALID_PARAM"),
    ],
)  # fmt: skip
async def test_a_login_that_is_none(tmp_path, body, code):
    async with matrix_server(tmp_path) as home:
        await home.person("alice")
        status, found = await home.anybody.ask("POST", "/login", body)
        assert (status, found["errcode"]) == (400, code)


async def test_old_clients_name_the_user_as_it_was_done_before(tmp_path):
    async with matrix_server(tmp_path) as home:
        await home.person("alice")
        body = {"type": "m.login.password", "user": "alice", "password": "of alice"}
        assert (await home.anybody.call("POST", "/_matrix/client/r0/login", body))[
            "user_id"
        ] == f"@alice:{OURS}"


async def test_tokens_in_headers_and_where_it_is_allowed_in_queries(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        found = await home.anybody.ask("GET", f"/account/whoami?access_token={alice.token}")
        assert found[1]["user_id"] == alice.user
        for token, code in (
            ("", "M_MISSING_TOKEN"),
            ("nobody's", "M_UNKNOWN_TOKEN"),
            ("x" * 2000, "M_UNKNOWN_TOKEN"),
        ):
            asks = home.anybody
            asks.token = token
            status, answer = await asks.ask("GET", "/account/whoami")
            assert (status, answer["errcode"]) == (401, code)
    folder = tmp_path / "strict"
    folder.mkdir()
    async with matrix_server(folder, allow_query_access_token=False) as home:
        alice = await home.person("alice")
        status, _ = await home.anybody.ask("GET", f"/account/whoami?access_token={alice.token}")
        assert status == 401


async def test_registration_closed_by_token_and_open(tmp_path):
    async with matrix_server(tmp_path, registration="closed") as home:
        status, found = await home.anybody.ask("POST", "/register", {"username": "a", "password": "pw"})
        assert (status, found["errcode"]) == (403, "M_FORBIDDEN")
    folder = tmp_path / "token"
    folder.mkdir()
    async with matrix_server(folder, registration="token") as home:
        token = (await operate(home, "tokens add"))["token"]
        asks = home.anybody
        valid = "/_matrix/client/v1/register/m.login.registration_token/validity?token="
        assert await asks.get(valid + token) == {"valid": True}
        with pytest.raises(LocalProtocolError, match="tokens ls"):
            await operate(home, "tokens rm", token=token[:-1])
        assert await asks.get(valid + token) == {"valid": True}
        body = {"username": "a", "password": "pw"}
        status, first = await asks.ask("POST", "/register", body)
        assert (status, first["flows"]) == (401, [{"stages": ["m.login.registration_token"]}])
        wrong = {"type": "m.login.registration_token", "token": "guessed", "session": first["session"]}
        status, found = await asks.ask("POST", "/register", body | {"auth": wrong})
        assert (status, found["errcode"], found["session"]) == (401, "M_FORBIDDEN", first["session"])
        dummy = {"type": "m.login.dummy", "session": first["session"]}
        assert (await asks.ask("POST", "/register", body | {"auth": dummy}))[0] == 401
        right = wrong | {"token": token}
        assert (await asks.call("POST", "/register", body | {"auth": right}))["user_id"] == f"@a:{OURS}"
        assert await asks.get(valid + token) == {"valid": False}
        again = {"username": "b", "password": "pw", "auth": {"type": right["type"], "token": token}}
        assert (await asks.ask("POST", "/register", again))[0] == 401
        assert [t["used"] for t in await operate(home, "tokens ls")] == [1]
        assert (await asks.ask("POST", "/register?kind=guest", {}))[1][
            "errcode"
        ] == "M_GUEST_ACCESS_FORBIDDEN"


async def test_open_registration_and_what_it_refuses(tmp_path):
    async with matrix_server(tmp_path) as home:
        asks = home.anybody
        assert await asks.get("/register/available?username=alice") == {"available": True}
        alice = await home.person("alice", "PHONE")
        assert alice.device == "PHONE"
        dummy = {"password": "pw", "auth": {"type": "m.login.dummy"}}
        for name, code in (
            ("alice", "M_USER_IN_USE"),
            ("Ä", "M_INVALID_USERNAME"),
            ("hansa", "M_EXCLUSIVE"),
            ("_x_y", "M_EXCLUSIVE"),
        ):
            status, found = await asks.ask("POST", "/register", dummy | {"username": name})
            assert (status, found["errcode"]) == (400, code)
        quiet = await asks.call("POST", "/register", dummy | {"username": "bob", "inhibit_login": True})
        assert quiet == {"user_id": f"@bob:{OURS}"}
        assert (await asks.ask("POST", "/register", {"auth": {"type": "m.login.dummy"}}))[0] == 400


async def test_a_secret_that_tools_share_makes_accounts(tmp_path):
    async with matrix_server(tmp_path, registration="closed", registration_secret="hush") as home:
        asks, path = home.anybody, "/_synapse/admin/v1/register"
        nonce = (await asks.call("GET", path))["nonce"]

        def body(secret, admin="notadmin"):
            said = b"\0".join([nonce.encode(), b"alice", b"pw", admin.encode()])
            mac = hmac.new(secret, said, hashlib.sha1).hexdigest()
            return {
                "nonce": nonce,
                "username": "alice",
                "password": "pw",
                "admin": admin == "admin",
                "mac": mac,
            }

        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await asks.call("POST", path, body(b"guess"))
        with pytest.raises(Refused, match="nonce"):
            await asks.call("POST", path, body(b"hush"))  # a nonce is used once, also in vain
        nonce = (await asks.call("GET", path))["nonce"]
        assert (await asks.call("POST", path, body(b"hush", "admin")))["user_id"] == f"@alice:{OURS}"
        assert [(u["user"], u["admin"]) for u in await operate(home, "user ls")] == [(f"@alice:{OURS}", True)]
    folder = tmp_path / "none"
    folder.mkdir()
    async with matrix_server(folder) as home:
        assert (await home.anybody.ask("GET", path))[1]["errcode"] == "M_UNRECOGNIZED"


async def test_another_password_needs_the_old_one_and_logs_the_others_out(tmp_path):
    async with matrix_server(tmp_path) as home:
        phone, laptop = await home.person("alice", "PHONE"), await home.person("alice", "LAPTOP")
        status, found = await phone.ask("POST", "/account/password", {"new_password": "other"})
        assert (status, found["flows"]) == (401, [{"stages": ["m.login.password"]}])
        auth = {**login("alice", "wrong"), "session": found["session"]}
        body = {"new_password": "other", "auth": auth}
        assert (await phone.ask("POST", "/account/password", body))[1]["errcode"] == "M_FORBIDDEN"
        auth["password"] = "of alice"
        assert await phone.call("POST", "/account/password", body) == {}
        assert (await laptop.ask("GET", "/account/whoami"))[0] == 401
        assert (await phone.get("/account/whoami"))["device_id"] == "PHONE"
        assert (await home.anybody.ask("POST", "/login", login("alice", "of alice")))[0] == 403
        assert await home.anybody.call("POST", "/login", login("alice", "other"))


async def test_a_session_proves_one_thing_only(tmp_path):
    """A password given to remove a device does not close the account."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        _, small = await alice.ask("DELETE", f"/devices/{alice.device}")
        auth = {**login("alice", "of alice"), "session": small["session"]}
        status, _ = await alice.ask("POST", "/account/deactivate", {"auth": auth})
        assert status == 400
        assert (await alice.get("/account/whoami"))["user_id"] == alice.user


async def test_devices_are_listed_named_and_removed(tmp_path):
    async with matrix_server(tmp_path) as home:
        phone, laptop = await home.person("alice", "PHONE"), await home.person("alice", "LAPTOP")
        await phone.call("PUT", "/devices/LAPTOP", {"display_name": "the old one"})
        listed = {d["device_id"]: d.get("display_name") for d in (await phone.get("/devices"))["devices"]}
        assert listed == {"PHONE": None, "LAPTOP": "the old one"}
        bob = await home.person("bob")
        assert (await bob.ask("GET", "/devices/PHONE"))[0] == 404
        body = {"auth": login(phone.user, "of alice")}
        assert await phone.call("DELETE", "/devices/LAPTOP", body) == {}
        assert (await laptop.ask("GET", "/account/whoami"))[0] == 401
        third = await home.person("alice", "THIRD")
        assert await phone.call("POST", "/delete_devices", {"devices": ["THIRD"], **body}) == {}
        assert (await third.ask("GET", "/account/whoami"))[0] == 401


async def test_out_everywhere(tmp_path):
    async with matrix_server(tmp_path) as home:
        phone, laptop = await home.person("alice", "PHONE"), await home.person("alice", "LAPTOP")
        await laptop.call("POST", "/logout", {})
        assert (await laptop.ask("GET", "/account/whoami"))[1]["errcode"] == "M_UNKNOWN_TOKEN"
        laptop = await home.person("alice", "LAPTOP")
        await phone.call("POST", "/logout/all", {})
        for device in (phone, laptop):
            assert (await device.ask("GET", "/account/whoami"))[0] == 401


async def test_a_closed_account_stays_closed(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        await alice.call("POST", "/account/deactivate", {"auth": login("alice", "of alice")})
        assert (await alice.ask("GET", "/account/whoami"))[0] == 401
        status, found = await home.anybody.ask("POST", "/login", login("alice", "of alice"))
        assert (status, found["errcode"]) == (403, "M_FORBIDDEN")  # nothing is kept to prove it by
        again = {"username": "alice", "password": "pw", "auth": {"type": "m.login.dummy"}}
        assert (await home.anybody.ask("POST", "/register", again))[1]["errcode"] == "M_USER_IN_USE"
        with pytest.raises(LocalProtocolError, match="is deactivated"):
            await operate(home, "user passwd", name="alice", password="another")
        bob = await home.person("bob")
        await operate(home, "user deactivate", name="bob")
        assert (await bob.ask("GET", "/account/whoami"))[0] == 401


async def test_who_closes_their_account_goes_out_of_every_room(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room, asked = await alice.create(preset="public_chat"), await alice.create(invite=[bob.user])
        await bob.join(room)
        await operate(home, "user deactivate", name="bob")
        for one in (room, asked):

            async def out(one=one):
                return (await alice.get(f"/rooms/{one}/state/m.room.member/{bob.user}"))[
                    "membership"
                ] == "leave"

            assert await until(out)


async def test_a_waiting_sync_ends_when_its_device_is_logged_out(tmp_path):
    async with matrix_server(tmp_path) as home:
        phone, laptop = await home.person("alice", "PHONE"), await home.person("alice", "LAPTOP")
        await phone.sync()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(phone.ask("GET", f"/sync?timeout=60000&since={phone.since}"))

            async def listens():
                return phone.user in home.matrix.stream_waiters

            await until(listens)
            await laptop.call("POST", "/logout/all", {})
        assert (await waiting)[0] == 401


async def test_too_many_attempts_are_let_wait(tmp_path):
    async with matrix_server(tmp_path, client_rate=0.05, client_burst=6) as home:
        asks = home.anybody
        answers = [await asks.whole("POST", "/login", login("alice", "guess")) for _ in range(7)]
        assert [a.status for a in answers] == [403] * 5 + [429] * 2
        assert int(answers[-1].headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("DELETE", "/devices/{device}", {}),
        ("POST", "/delete_devices", {"devices": ["OTHER"]}),
        ("POST", "/account/password", {"new_password": "other"}),
        ("POST", "/account/deactivate", {}),
    ],
)
async def test_who_has_a_token_cannot_guess_the_password_by_it(tmp_path, method, target, body):
    async with matrix_server(tmp_path, client_rate=0.05, client_burst=6) as home:
        alice = await home.person("alice")
        auth = login("alice", "guess")
        path = target.format(device=alice.device)
        answers = [await alice.whole(method, path, {**body, "auth": auth}) for _ in range(6)]
        assert [a.status for a in answers] == [401] * 4 + [429] * 2  # making the account was one attempt


async def test_pages_of_any_origin_may_ask(tmp_path):
    async with matrix_server(tmp_path) as home:
        for method, target in (
            ("OPTIONS", "/sync"),
            ("GET", "/sync"),
            ("GET", "/nothing"),
            ("OPTIONS", "/_matrix/media/v3/upload"),
        ):
            answer = await home.anybody.whole(method, target)
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        assert (await home.anybody.whole("OPTIONS", "/sync")).status == 200


async def test_one_person_does_not_do_as_much_as_they_like(tmp_path):
    async with matrix_server(tmp_path, client_rate=0.5, client_burst=5) as home:
        alice = await home.person("alice")
        room = await alice.create()
        answers = [
            await alice.whole("PUT", f"/rooms/{room}/send/test.note/{number}", {}) for number in range(6)
        ]
        assert [a.status for a in answers] == [200] * 4 + [429] * 2
        assert (await alice.get("/account/whoami"))["user_id"] == alice.user  # to ask is free


async def test_what_the_erased_said_is_for_those_who_were_there(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, eve = await home.person("alice"), await home.person("bob"), await home.person("eve")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await bob.say(room, "forget me")
        await bob.call("POST", "/account/deactivate", {"auth": login("bob", "of bob"), "erase": True})
        await eve.join(room)
        assert await alice.texts(room) == ["forget me"]
        assert await eve.texts(room) == [None]
        status, found = await home.anybody.ask("GET", f"/profile/{bob.user}")
        assert (status, found["errcode"]) == (404, "M_NOT_FOUND")


async def test_servers_that_come_later_do_not_get_what_the_erased_said(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        known, later = (
            home.wire.room.room_id,
            await alice.create(preset="public_chat", room_alias_name="verona"),
        )
        await bob.join(f"#one:{OURS}")
        await bob.join(later)
        said = [await bob.say(room, "forget me") for room in (known, later)]
        said.append(await alice.say(later, "stays"))
        await bob.call("POST", "/account/deactivate", {"auth": login("bob", "of bob"), "erase": True})
        await home.wire.join("verona")

        async def given(event):
            status, found = await home.wire.ask("GET", f"/_matrix/federation/v1/event/{part(event)}")
            assert status == 200
            return found["pdus"][0]["content"].get("body")

        assert [await given(event) for event in said] == ["forget me", None, "stays"]
        target = f"/_matrix/federation/v1/backfill/{part(later)}?limit=50&v={part(said[2])}"
        _, found = await home.wire.ask("GET", target)
        bodies = [pdu["content"].get("body") for pdu in found["pdus"] if pdu["type"] == "m.room.message"]
        assert bodies == ["stays", None]


async def test_people_report(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, eve = await home.person("alice"), await home.person("eve")
        room = await alice.create()
        event = await alice.say(room, "fie")
        await alice.call("POST", f"/rooms/{room}/report", {"reason": "noise"})
        await alice.call("POST", f"/rooms/{room}/report/{event}", {"reason": "rude"})
        await alice.call("POST", f"/users/{eve.user}/report", {"reason": "strange"})
        assert (await eve.ask("POST", f"/rooms/{room}/report/{event}", {}))[0] == 404
        listed = await operate(home, "reports ls")
        assert [(r["reason"], r.get("event"), r.get("user")) for r in listed] == [
            ("noise", None, None), ("rude", event, None), ("strange", None, eve.user),
        ]  # fmt: skip


async def test_guesses_of_strangers_do_not_keep_the_owner_out(tmp_path):
    async with matrix_server(tmp_path, client_rate=0.05, client_burst=6) as home:
        alice = await home.person("alice")
        stranger = home.anybody
        for number in range(200):
            stranger.address = f"198.51.{number}.7"
            status, _ = await stranger.ask("POST", "/login", login("alice", "guess"))
            # By the name: strangers alone have to wait.
            assert status == (403 if number < 5 * ADDRESSES else 429)
        assert (await home.anybody.ask("POST", "/login", login("alice", "of alice")))[0] == 200
        proof = {"new_password": "new", "auth": login("alice", "of alice")}
        alice.address = "203.0.113.1"  # one of their devices may be anywhere
        assert (await alice.ask("POST", "/account/password", proof))[0] == 200
        stranger.address = "203.0.113.9"
        bob = login("bob", "guess")
        assert [(await stranger.ask("POST", "/login", bob))[0] for _ in range(6)] == [403] * 5 + [429]
        near = home.anybody
        near.address = "203.0.113.77"  # of the same /24
        assert (await near.ask("POST", "/login", login("carol", "guess")))[0] == 429


async def test_who_came_from_an_address_is_known_after_a_restart_too(tmp_path):
    async with matrix_server(tmp_path, client_rate=0.05, client_burst=6) as home:
        await home.person("alice")
        home.matrix.client_api._sessions._attempts._known.clear()  # what a restart forgets
        stranger = home.anybody
        for number in range(10):
            stranger.address = f"198.51.{number}.7"
            await stranger.ask("POST", "/login", login("alice", "guess"))
        assert (await home.anybody.ask("POST", "/login", login("alice", "of alice")))[0] == 200


async def test_guesses_from_the_owners_own_network_are_few_too(tmp_path):
    async with matrix_server(tmp_path, client_rate=0.05, client_burst=6) as home:
        await home.person("alice")
        answers = [await home.anybody.ask("POST", "/login", login("alice", "guess")) for _ in range(8)]
        assert [status for status, _ in answers] == [403] * 4 + [429] * 4


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.254", True), ("192.0.2.1", "192.0.3.1", False),
        ("2001:db8::1", "2001:db8::ffff:1", True), ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.9", True), ("fe80::1%eth0", "fe80::2%eth1", True), ("", "x", False),
    ],
)  # fmt: skip
def test_an_address_counts_as_its_network(one, other, same):
    assert (address_group(one) == address_group(other)) is same


async def test_nonces_of_strangers_do_not_push_out_the_administrators(tmp_path):
    async with matrix_server(tmp_path, registration="closed", registration_secret="hush") as home:
        path = "/_synapse/admin/v1/register"
        admin, stranger = home.anybody, home.anybody
        nonce = (await admin.call("GET", path))["nonce"]
        for number in range(1500):
            stranger.address = f"198.51.{number % 3}.7"
            assert (await stranger.ask("GET", path))[0] == 200
        said = b"\0".join([nonce.encode(), b"alice", b"pw", b"notadmin"])
        body = {"nonce": nonce, "username": "alice", "password": "pw", "admin": False}
        body["mac"] = hmac.new(b"hush", said, hashlib.sha1).hexdigest()
        assert (await admin.call("POST", path, body))["user_id"] == f"@alice:{OURS}"


class Time:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_shares_are_bounded_for_each_address_and_in_all():
    time = Time()
    shares = AddressShares(time, most=10, each=3, seconds=60)
    for number in range(5):
        shares.put(f"a{number}", "192.0.2.1", number)
    assert [n for n in range(5) if shares.get(f"a{n}") is not None] == [2, 3, 4]
    for number in range(7):
        shares.put(f"b{number}", f"198.51.{number}.1", number)
    assert len(shares) == 10
    shares.put("c", "203.0.113.1", 0)  # the address with the most makes room
    assert shares.get("a2") is None and shares.get("b0") == 0
    shares.put("d", "203.0.114.1", 0)
    with pytest.raises(Busy):
        shares.put("e", "203.0.115.1", 0)
    assert shares.pop("b0") == 0 and shares.pop("b0") is None
    time.now = 61.0
    assert shares.get("a4") is None
    shares.put("f", "203.0.115.1", 0)
    assert len(shares) == 1 and len(shares._of) == 1


async def test_nobody_is_told_that_an_account_is_closed(tmp_path):
    async with matrix_server(tmp_path) as home:
        await home.person("alice")
        await home.person("bob")
        await operate(home, "user deactivate", name="alice")
        for name, password, code in (
            ("alice", "guess", "M_FORBIDDEN"),
            ("alice", "", "M_FORBIDDEN"),
            ("nobody", "guess", "M_FORBIDDEN"),
            ("alice", "of alice", "M_FORBIDDEN"),
        ):
            status, found = await home.anybody.ask("POST", "/login", login(name, password))
            assert (status, found["errcode"]) == (403, code)
        bob = home.anybody
        bob.token = (await home.anybody.call("POST", "/login", login("bob", "of bob")))["access_token"]
        await bob.call("POST", "/account/deactivate", {"auth": login("bob", "of bob"), "erase": True})
        assert (await home.anybody.ask("POST", "/login", login("bob", "of bob")))[1][
            "errcode"
        ] == "M_FORBIDDEN"


async def test_every_login_looks_at_one_hash(tmp_path, monkeypatch):
    """So a wrong password takes the same time for an account, for an unused name and for a closed account."""
    async with matrix_server(tmp_path) as home:
        await home.person("alice")
        await home.person("bob")
        await operate(home, "user deactivate", name="bob")
        looked = []
        right = Passwords._verify_hash
        monkeypatch.setattr(
            Passwords, "_verify_hash", lambda *given: looked.append(given[1]) or right(*given)
        )
        for name in ("alice", "bob", "nobody"):
            assert (await home.anybody.ask("POST", "/login", login(name, "guess")))[0] == 403
        assert len(looked) == 3


@pytest.mark.parametrize("typed", ["@AA:127.0.0.1:1", "AA"])
async def test_who_has_a_name_of_before_logs_in_with_it(tmp_path, typed):
    """Large letters are in the names of old accounts; nobody gets a new one with them."""
    async with matrix_server(tmp_path) as home:
        accounts = home.matrix.client_api.accounts
        await accounts.create_account("@AA:127.0.0.1:1", "of AA")
        alice = await home.person("alice")
        room = await alice.create(preset="public_chat")

        async def logged_in(user, password):
            return await home.anybody.call("POST", "/login", login(user, password))

        found = await logged_in(typed, "of AA")
        assert found["user_id"] == "@AA:127.0.0.1:1"
        old = LocalUser(home.app, found["user_id"], found["access_token"], found["device_id"])
        await old.join(room)
        said = await old.say(room, "hello")
        events = (await alice.sync())["rooms"]["join"][room]["timeline"]["events"]
        assert (events[-1]["event_id"], events[-1]["sender"]) == (said, old.user)
        # A telephone begins a name with a large letter, where there is no such account.
        assert (await logged_in("Alice", "of alice"))["user_id"] == alice.user
        assert (await logged_in("@Alice:127.0.0.1:1", "of alice"))["user_id"] == alice.user
        status, refused = await home.anybody.ask("POST", "/register", {"username": "BB", "password": "x"})
        assert status in {400, 401} and "user_id" not in refused


async def test_who_guesses_from_one_place_keeps_nobody_out_of_a_new_one(tmp_path):
    async with matrix_server(tmp_path, client_rate=10, client_burst=50) as home:
        await home.person("alice")
        guesser = home.anybody
        guesser.address = "203.0.113.5"
        answers = [(await guesser.ask("POST", "/login", login("alice", "guess")))[0] for _ in range(40)]
        assert answers.count(403) == 5 and answers.count(429) == 35
        traveller = home.anybody
        traveller.address = "198.51.100.9"
        assert (await traveller.ask("POST", "/login", login("alice", "of alice")))[0] == 200
        # Many places together do not guess without end.
        tried = 0
        for number in range(40):
            guesser.address = f"203.0.{number}.5"
            tried += [
                (await guesser.ask("POST", "/login", login("alice", "guess")))[0] for _ in range(6)
            ].count(403)
        assert tried <= 5 * ADDRESSES
