"""Every request about a room or a user, by users who have no access."""

from __future__ import annotations

import orjson
import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.http.router import Router
from hansa.testing import registered_routes
from matrix.server_with_peer import OURS

SECRET = "sealed with wax"
#: What tells of a person by itself: profiles and whether they are there are for others to see.
FOR_OTHERS = ("/profile/", "/presence/", "/report")


def routes(router: Router) -> list[tuple[str, list[str]]]:
    found = [(method, parts) for method, parts, _ in registered_routes(router)]
    return [(m, p) for m, p in found if p[:2] == ["_matrix", "client"] and p[2] != "r0"]


def filled(parts: list[str], given: dict[str, str]) -> str:
    return "/" + "/".join(part(given.get(p[1:-1], "x")) if p.startswith("{") else p for p in parts)


async def scene(home: MatrixServer, who: str) -> tuple[LocalUser, LocalUser, str, str]:
    """A room with a secret message from after a user's membership: ``(owner, other, room, event)``."""
    alice, bob = await home.person("alice"), await home.person("bob")
    history = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    room = await alice.create(initial_state=[history])
    if who != "stranger":
        await alice.room(room, "invite", {"user_id": bob.user})
    if who not in {"stranger", "invited"}:
        await bob.join(room)
    if who == "left":
        await bob.room(room, "leave")
    elif who in {"kicked", "banned"}:
        await alice.room(room, {"kicked": "kick", "banned": "ban"}[who], {"user_id": bob.user})
    event = await alice.say(room, SECRET)
    await alice.state(room, "test.secret", {"text": SECRET})
    await alice.call(
        "PUT", f"/user/{part(alice.user)}/rooms/{part(room)}/account_data/test.note", {"text": SECRET}
    )
    await alice.call("PUT", f"/user/{part(alice.user)}/account_data/test.note", {"text": SECRET})
    await alice.call("PUT", f"/devices/{alice.device}", {"display_name": SECRET})
    return alice, bob, room, event


@pytest.mark.parametrize("who", ["stranger", "invited", "left", "kicked", "banned"])
async def test_nothing_that_is_not_theirs_is_told_to_anybody(tmp_path, who):
    async with matrix_server(tmp_path) as home:
        alice, bob, room, event = await scene(home, who)
        before = await alice.get(f"/rooms/{part(room)}/state")
        given = {
            "room": room, "event": event, "user": alice.user, "type": "test.note", "key": "", "device": alice.device,
            "kind": "m.read", "txn": "1", "alias": "#none:127.0.0.1:1", "field": "displayname", "filter": "x",
            "tag": "t", "rule": "r",
        }  # fmt: skip
        asked = 0
        for method, parts in routes(next(iter(home.app.routers.values()))):
            enters = "join" in parts or "knock" in parts  # by right, if they are asked in
            if not {"{room}", "{user}"} & set(parts) or enters:
                continue
            for type_ in ("test.note", "test.secret"):
                target = filled(parts, given | {"type": type_})
                answer = await bob.whole(method, target, {} if method != "GET" else None)
                asked += 1
                assert SECRET.encode() not in answer.body, f"{method} {target}"
                if "{user}" in parts and not any(name in target for name in FOR_OTHERS):
                    assert answer.status in {403, 404, 405}, f"{answer.status} to {method} {target}"
        assert asked > 60
        told = await bob.sync("&full_state=true&filter=" + part('{"room":{"include_leave":true}}'))
        assert SECRET not in orjson.dumps(told).decode()
        after = {
            (e["type"], e["state_key"]): e["content"] for e in await alice.get(f"/rooms/{part(room)}/state")
        }
        changed = {
            (e["type"], e["state_key"])
            for e in before
            if after.get((e["type"], e["state_key"])) != e["content"]
        }
        assert changed <= {("m.room.member", bob.user)}  # an invited person may come in, and go


#: What the specification has answered without a token: what leads to one, and what is published.
OPEN = {
    "GET v3/directory/list/room/{room}",
    "GET v3/profile/{user}",
    "GET v3/profile/{user}/{field}",
    "GET versions",
    "GET v3/login",
    "POST v3/login",
    "POST v3/register",
    "GET v3/register/available",
    "GET v1/register/m.login.registration_token/validity",
}


@pytest.mark.parametrize("who", ["nobody", "logged out", "closed", "erased"])
async def test_without_a_token_that_holds_there_is_nothing(tmp_path, who):
    async with matrix_server(tmp_path) as home:
        alice, bob, room, event = await scene(home, "joined")
        if who == "nobody":
            bob.token = ""
        elif who == "logged out":
            await bob.call("POST", "/logout")
        else:
            proof = {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": "bob"},
                "password": "of bob",
            }
            await bob.call("POST", "/account/deactivate", {"auth": proof, "erase": who == "erased"})
        given = {
            "room": room,
            "event": event,
            "user": alice.user,
            "device": alice.device,
            "type": "test.note",
        }
        code = "M_MISSING_TOKEN" if who == "nobody" else "M_UNKNOWN_TOKEN"
        opened = set()
        for method, parts in routes(next(iter(home.app.routers.values()))):
            answer = await bob.whole(method, filled(parts, given), {} if method != "GET" else None)
            assert SECRET.encode() not in answer.body, f"{method} {parts}"
            if answer.status == 401 and orjson.loads(answer.body)["errcode"] == code:
                continue
            opened.add(f"{method} {'/'.join(parts[2:])}")
        assert opened == OPEN


async def test_what_is_for_one_device_is_not_told_to_another(tmp_path):
    """Messages to a device and its transaction ids, with every endpoint asked by another device of the
    user.
    """
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create()
        other = await home.person("alice", "OTHER")
        number = "txn-of-the-first"
        sent = f"/rooms/{part(room)}/send/m.room.message/{number}"
        event = (await alice.call("PUT", sent, {"msgtype": "m.text", "body": "hark"}))["event_id"]
        messages = {alice.user: {alice.device: {"text": SECRET}}}
        await bob.call("PUT", "/sendToDevice/test.secret/1", {"messages": messages})
        given = {
            "room": room,
            "event": event,
            "user": alice.user,
            "device": alice.device,
            "type": "test.note",
        }
        asked = 0
        for method, parts in routes(next(iter(home.app.routers.values()))):
            if method != "GET" and parts[-1] not in {"query", "claim", "search"}:
                continue  # the others tell nothing, and would put an end to the device or the room
            answer = await other.whole(method, filled(parts, given), {} if method != "GET" else None)
            asked += 1
            assert SECRET.encode() not in answer.body, f"{method} {parts}"
            assert number.encode() not in answer.body, f"{method} {parts}"
        assert asked > 40
        for told in (await other.sync(), await other.sync("&full_state=true")):
            assert SECRET not in orjson.dumps(told).decode()
            assert number not in orjson.dumps(told).decode()
        told = orjson.dumps(await alice.sync()).decode()
        assert SECRET in told
        assert number in told


@pytest.mark.parametrize(("options", "governed"), [({}, False), ({}, True), ({"public_reading": True}, True)])
async def test_what_is_published_is_for_who_has_an_account_unless_an_operator_opens_it(
    tmp_path, options, governed
):
    """A server that a policy denies is nobody without a token: it reads what everybody may."""
    async with matrix_server(tmp_path, **options) as home:
        alice = await home.person("alice")
        await alice.create(room_alias_name="open", visibility="public", preset="public_chat")
        if governed:
            home.app.decisions.replace([InstalledPolicy(name="nothing", policy=Nothing())])
        opened = options.get("public_reading", False)
        for path, needs in (
            ("/publicRooms", not opened),
            (f"/profile/{part(alice.user)}", governed and not opened),
            (f"/profile/{part(alice.user)}/displayname", governed and not opened),
            (f"/directory/room/{part(f'#open:{OURS}')}", governed and not opened),
        ):
            status, answer = await home.anybody.ask("GET", path)
            assert (status, answer.get("errcode")) == ((401, "M_MISSING_TOKEN") if needs else (200, None)), (
                path
            )
            assert (await alice.ask("GET", path))[0] == 200


class Nothing:
    """A policy that has nothing against anything."""

    async def check(self, _crossing):
        return None
