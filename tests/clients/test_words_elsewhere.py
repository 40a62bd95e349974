"""Words where only identifiers belong: keys, ids of devices, receipts, what a redaction leaves of a rule."""

from __future__ import annotations

import secrets

import pytest
from clients.matrix_server import LocalUser, matrix_server, part
from clients.test_crypto import b64, cross, keys_of, sign
from clients.test_withheld import WORD, Censor, scene
from hansa import ALLOW, Action, Reason, Verdict, texts_of
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa_matrix.texts import texts_of_keys, without_texts
from matrix.server_with_peer import OURS, THEIRS, V1
from matrix.two_servers import at
from nacl.signing import SigningKey


class Forbid:
    """Denies every crossing that says the word."""

    async def check(self, crossing):
        if not any(WORD in text for text in texts_of(crossing)):
            return ALLOW
        return Verdict(Action.DENY, (Reason(code="GOV_TEST", policy="forbid", text="not here"),))


FORBID = [InstalledPolicy(name="forbid", policy=Forbid())]


def with_word(person: LocalUser, key: SigningKey) -> dict:
    keys = {k: v for k, v in keys_of(person, key).items() if k != "signatures"}
    return sign({**keys, "note": f"it is {WORD}"}, person.user, f"ed25519:{person.device}", key)


async def test_keys_that_say_more_than_keys_are_asked_about(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        master = SigningKey.generate()
        signing = {"master_key": {**cross(alice, "master", master), "note": WORD}}
        bodies = {
            "/keys/upload": [
                {"device_keys": with_word(alice, SigningKey.generate())},
                {"one_time_keys": {"signed_curve25519:a": {"key": "x" * 43, "note": WORD}}},
                {"one_time_keys": {f"signed_curve25519:{WORD}": {"key": "x" * 43}}},
                {"fallback_keys": {"signed_curve25519:a": {"key": WORD}}},
            ],
            "/keys/device_signing/upload": [signing],
        }
        home.app.decisions.replace(FORBID)
        for path, each in bodies.items():
            for body in each:
                status, answer = await alice.ask("POST", path, body)
                assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), body
                assert answer["dev.hansa.decision"].startswith("d-")
        fair = {"device_keys": keys_of(alice, SigningKey.generate())}
        await alice.call("POST", "/keys/upload", fair)
        found = await bob.call("POST", "/keys/query", {"device_keys": {alice.user: []}})
        assert found["device_keys"][alice.user].keys() == {alice.device}


async def test_keys_of_other_policies_are_given_to_nobody(tmp_path):
    """Uploaded before the policy: left out for people here and for other servers."""
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        await alice.call("POST", "/keys/upload", {"device_keys": with_word(alice, SigningKey.generate())})
        once = {f"signed_curve25519:{n}": {"key": f"{WORD} {n}"} for n in range(4)}
        await alice.call("POST", "/keys/upload", {"one_time_keys": once})
        signing = {"master_key": {**cross(alice, "master", SigningKey.generate()), "note": WORD}}
        await alice.call("POST", "/keys/device_signing/upload", signing)
        wanted = {"device_keys": {alice.user: []}}
        claimed = {"one_time_keys": {alice.user: {alice.device: "signed_curve25519"}}}

        async def every() -> list[str]:
            asked = [
                await bob.ask("POST", "/keys/query", wanted),
                await bob.ask("POST", "/keys/claim", claimed),
                await home.wire.ask("POST", f"{V1}/user/keys/query", wanted),
                await home.wire.ask("POST", f"{V1}/user/keys/claim", claimed),
                await home.wire.ask("GET", f"{V1}/user/devices/{at(alice.user)}"),
            ]
            assert [status for status, _ in asked] == [200] * len(asked)
            return [str(answer) for _, answer in asked]

        assert all(WORD in answer for answer in await every())
        once = {f"signed_curve25519:b{n}": {"key": f"{WORD} {n}"} for n in range(4)}
        await alice.call("POST", "/keys/upload", {"one_time_keys": once})
        home.app.decisions.replace(FORBID)
        assert not any(WORD in answer for answer in await every())


def test_keys_as_clients_make_them_say_nothing():
    alice = LocalUser.__new__(LocalUser)
    alice.user, alice.device = f"@alice:{OURS}", "ABCDEFGHIJ"
    key, master = SigningKey.generate(), SigningKey.generate()
    once = {
        "signed_curve25519:AAAAAAAAAA0": sign(
            {"key": b64(secrets.token_bytes(32))}, alice.user, "ed25519:ABCDEFGHIJ", key
        )
    }
    documents = [
        keys_of(alice, key),
        cross(alice, "master", master),
        cross(alice, "self_signing", key, master),
        once,
    ]
    assert texts_of_keys(*documents) == ()
    assert set(texts_of_keys({**documents[0], "x": WORD, "algorithms": [f"m.{WORD}"]})) == {
        "x",
        WORD,
        f"m.{WORD}",
    }


async def test_a_device_is_called_by_no_word(tmp_path):
    async with matrix_server(tmp_path) as home:
        await home.person("alice")
        home.app.decisions.replace(FORBID)
        who = {"type": "m.id.user", "user": "alice"}
        login = {"type": "m.login.password", "identifier": who, "password": "of alice"}
        status, answer = await home.anybody.ask("POST", "/login", login | {"device_id": f"my {WORD} device"})
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        assert answer["dev.hansa.decision"].startswith("d-")
        found = await home.anybody.call("POST", "/login", login | {"device_id": "mine"})
        assert found["device_id"] == "mine"


@pytest.mark.parametrize("body", [{"thread_id": f"$a {WORD} thread"}, {}])
async def test_a_receipt_says_no_word(tmp_path, body):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        event = await alice.say(room, "fair")
        named = f"${'a' * 43}" if body else f"$a {WORD} event"
        home.app.decisions.replace(FORBID)
        target = f"/rooms/{part(room)}/receipt/m.read/{part(named)}"
        status, answer = await alice.ask("POST", target, body)
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        assert answer["dev.hansa.decision"].startswith("d-")
        await alice.call("POST", f"/rooms/{part(room)}/receipt/m.read/{part(event)}", {"thread_id": "main"})
        assert WORD not in str(await alice.sync())


async def test_a_receipt_of_theirs_says_no_word(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        await alice.join(f"#one:{OURS}")
        home.app.decisions.replace(FORBID)
        room, them = home.wire.room.room_id, f"@m:{THEIRS}"
        plain = f"${'c' * 43}"
        each = ((f"$a {WORD}", "main"), (plain, f"$a {WORD}"), (plain, "main"))
        for number, (event, thread) in enumerate(each):
            read = {"event_ids": [event], "data": {"ts": number + 1, "thread_id": thread}}
            edu = {"edu_type": "m.receipt", "content": {room: {"m.read": {them: read}}}}
            assert (await home.wire.ask("PUT", f"{V1}/send/{number}", {"pdus": [], "edus": [edu]}))[0] == 200
        found = str((await alice.sync())["rooms"]["join"][room]["ephemeral"])
        assert WORD not in found and plain in found


async def test_receipts_and_names_of_before_are_shown_without_words(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        for name in (WORD, "fair"):
            await alice.call("PUT", f"/directory/room/{part(f'#{name}:{OURS}')}", {"room_id": room})
        await alice.call("POST", f"/rooms/{part(room)}/receipt/m.read/{part(f'$a {WORD}')}", {})
        assert WORD in str(await alice.sync())
        assert WORD in str(await alice.get(f"/rooms/{part(room)}/aliases"))
        home.app.decisions.replace(FORBID)
        alice.since = ""
        assert WORD not in str(await alice.sync())
        assert await alice.get(f"/rooms/{part(room)}/aliases") == {"aliases": [f"#fair:{OURS}"]}


async def test_what_a_redaction_leaves_of_a_rule_says_nothing_to_people(tmp_path):
    """The types that have a level, and the conditions of a join rule, are chosen by who sends them."""
    async with matrix_server(tmp_path) as home:
        home.app.decisions.replace([InstalledPolicy(name="censor", policy=Censor())])
        made = await scene(home, censored=True)
        where = f"/rooms/{part(made.room)}"
        levels = await made.alice.get(f"{where}/state/m.room.power_levels/")
        worded = {**levels, "events": {**levels.get("events", {}), f"my.{WORD}": 3, "m.room.topic": 7}}
        await made.tell("m.room.power_levels", worded, "")
        allow = [{"type": f"{WORD} thing", "room_id": made.room}]
        await made.tell("m.room.join_rules", {"join_rule": "restricted", "allow": allow}, "")
        state = {(e["type"], e["state_key"]): e["content"] for e in await made.bob.get(f"{where}/state")}
        shown = state["m.room.power_levels", ""]
        assert shown["events"].get("m.room.topic") == 7 and shown["users"] == levels["users"]
        assert state["m.room.join_rules", ""] == {
            "join_rule": "restricted",
            "allow": [{"room_id": made.room}],
        }
        assert WORD not in str(await made.bob.sync("&full_state=true"))


def test_without_texts_leaves_what_a_rule_is():
    content = {
        "users": {f"@a:{OURS}": 100, "a name": 1},
        "events": {"m.room.name": 50, "a type": 1},
        "ban": 50,
        "join_rule": "invite",
        "x": {"ban": 1},
        "via": [OURS, "not a server"],
    }
    assert without_texts(content) == {
        "users": {f"@a:{OURS}": 100},
        "events": {"m.room.name": 50},
        "ban": 50,
        "join_rule": "invite",
        "via": [OURS],
    }
