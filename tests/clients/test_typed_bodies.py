"""Bodies of clients and servers beside events, with a wrong JSON type at each place: the sender gets no 500,
and readers get their answers all the same.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from clients.test_typed_state import WRONG, timeless
from hansa_matrix.proto.pdu import pdu_from_raw
from matrix.server_with_peer import OURS, THEIRS, V1


def spoiled(value: Any) -> Iterator[Any]:
    """The value with something wrong at each place in turn."""
    yield from WRONG
    match value:
        case dict():
            for key, inner in value.items():
                yield from ({**value, key: other} for other in spoiled(inner))
        case list():
            for at, inner in enumerate(value):
                yield from ([*value[:at], other, *value[at + 1 :]] for other in spoiled(inner))


def said(alice: LocalUser, bob: LocalUser, room: str, event: str) -> dict[str, tuple[str, str, Any]]:
    """Returns the valid requests that a user sends to the server."""
    me, device = alice.user, alice.device
    mine, here = f"/user/{part(me)}", f"/user/{part(me)}/rooms/{part(room)}"
    key = {
        "user_id": me,
        "usage": ["master"],
        "keys": {"ed25519:K": "K"},
        "signatures": {me: {"ed25519:d": "s"}},
    }
    keys = {
        "user_id": me,
        "device_id": device,
        "algorithms": ["a"],
        "keys": {f"ed25519:{device}": "K"},
        "signatures": {me: {f"ed25519:{device}": "s"}},
    }
    rule = {"actions": ["notify", {"set_tweak": "sound", "value": "x"}]}
    conditions = [
        {"kind": "event_match", "key": "content.body", "pattern": "x*"},
        {"kind": "event_property_is", "key": "type", "value": "x"},
        {"kind": "event_property_contains", "key": "content.x", "value": "x"},
        {"kind": "room_member_count", "is": "2"},
        {"kind": "sender_notification_permission", "key": "room"},
    ]
    events = {
        "types": ["m.*"], "not_types": ["x"], "senders": [me], "not_senders": ["@x:y"], "rooms": [room],
        "not_rooms": ["!x:y"], "limit": 3, "lazy_load_members": True, "contains_url": False,
        "unread_thread_notifications": True, "include_redundant_members": False,
    }  # fmt: skip
    filter_ = {
        "event_format": "client", "event_fields": ["content.body"], "presence": events, "account_data": events,
        "room": {"include_leave": True, "timeline": events, "state": events, "ephemeral": events, "rooms": [room]},
    }  # fmt: skip
    message = {"messages": {bob.user: {bob.device: {"a": ["b"]}, "*": {}}}}
    once = {"signed_curve25519:A": {"key": "K", "signatures": {me: {f"ed25519:{device}": "s"}}}}
    return {
        "ignored": ("PUT", f"{mine}/account_data/m.ignored_user_list", {"ignored_users": {"@no:b": {}}}),
        "direct": ("PUT", f"{mine}/account_data/m.direct", {bob.user: [room]}),
        "data": ("PUT", f"{here}/account_data/m.tag", {"tags": {"m.favourite": {"order": 0.5}}}),
        "tag": ("PUT", f"{here}/tags/m.favourite", {"order": 0.5}),
        "receipt": ("POST", f"/rooms/{part(room)}/receipt/m.read/{part(event)}", {"thread_id": "main"}),
        "markers": ("POST", f"/rooms/{part(room)}/read_markers", {"m.fully_read": event, "m.read": event}),
        "typing": ("PUT", f"/rooms/{part(room)}/typing/{part(me)}", {"typing": True, "timeout": 5}),
        "presence": ("PUT", f"/presence/{part(me)}/status", {"presence": "online", "status_msg": "s"}),
        "message": ("PUT", f"/sendToDevice/m.x/{secrets.token_hex(4)}", message),
        "keys": ("POST", "/keys/upload", {"device_keys": keys}),
        "once": ("POST", "/keys/upload", {"one_time_keys": once, "fallback_keys": once}),
        "signing": ("POST", "/keys/device_signing/upload", {"master_key": key, "self_signing_key": key}),
        "signatures": ("POST", "/keys/signatures/upload", {me: {device: keys, "K": key}}),
        "query": ("POST", "/keys/query", {"device_keys": {me: [device]}, "timeout": 1}),
        "claim": ("POST", "/keys/claim", {"one_time_keys": {me: {device: "signed_curve25519"}}}),
        "name": ("PUT", f"/profile/{part(me)}/displayname", {"displayname": "alice"}),
        "picture": ("PUT", f"/profile/{part(me)}/avatar_url", {"avatar_url": "mxc://a/b"}),
        "zone": ("PUT", f"/profile/{part(me)}/m.tz", {"m.tz": "Europe/Berlin"}),
        "override": ("PUT", "/pushrules/global/override/x", {**rule, "conditions": conditions}),
        "content": ("PUT", "/pushrules/global/content/x", {**rule, "pattern": "x"}),
        "enabled": ("PUT", "/pushrules/global/override/.m.rule.master/enabled", {"enabled": False}),
        "actions": ("PUT", "/pushrules/global/override/.m.rule.tombstone/actions", rule),
        "filter": ("POST", f"{mine}/filter", filter_),
        "device": ("PUT", f"/devices/{part(device)}", {"display_name": "d"}),
        "listed": ("PUT", f"/directory/list/room/{part(room)}", {"visibility": "public"}),
        "search": (
            "POST",
            "/publicRooms",
            {"filter": {"generic_search_term": "x", "room_types": [None]}, "limit": 1},
        ),
        "people": ("POST", "/user_directory/search", {"search_term": "bob", "limit": 5}),
        "alias": ("PUT", f"/directory/room/{part(f'#x:{OURS}')}", {"room_id": room}),
        "relation": (
            "PUT",
            f"/rooms/{part(room)}/send/m.room.message/{secrets.token_hex(4)}",
            {
                "body": "b",
                "msgtype": "m.text",
                "m.mentions": {"user_ids": [bob.user], "room": True},
                "m.relates_to": {
                    "rel_type": "m.thread",
                    "event_id": event,
                    "m.in_reply_to": {"event_id": event},
                },
            },
        ),
    }


async def readers(home: MatrixServer, alice: LocalUser, bob: LocalUser, room: str, other: str) -> list[Any]:
    """Returns the answers that others read; they hold nothing of the room with the wrong types."""
    found = await bob.get("/sync?full_state=true")
    assert room in found["rooms"]["join"]
    for target in (
        f"/profile/{part(alice.user)}", f"/profile/{part(alice.user)}/displayname", "/notifications",
        f"/presence/{part(alice.user)}/status", f"/rooms/{part(room)}/joined_members", "/publicRooms",
        f"/rooms/{part(room)}/messages?dir=b", f"/_matrix/client/v1/rooms/{part(room)}/threads",
    ):  # fmt: skip
        status, answer = await bob.ask("GET", target)
        assert status == 200, (target, answer)
    for person in (alice, bob):
        await person.sync()
    keys = await bob.call("POST", "/keys/query", {"device_keys": {alice.user: [], bob.user: []}})
    assert bob.user in keys["device_keys"]
    people = await bob.call("POST", "/user_directory/search", {"search_term": "alice"})
    for target in (
        f"{V1}/user/devices/{part(alice.user)}", f"{V1}/query/profile?user_id={part(alice.user)}",
        f"{V1}/publicRooms?limit=5", f"{V1}/hierarchy/{part(room)}",
    ):  # fmt: skip
        assert (await home.wire.ask("GET", target))[0] < 500, target
    return [timeless(found["rooms"]["join"][other]), [one["user_id"] for one in people["results"]]]


async def begun(home: MatrixServer) -> tuple[LocalUser, LocalUser, str, str, str]:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = await alice.create(preset="public_chat", name="room", visibility="public")
    await bob.join(room)
    other = await bob.create(preset="public_chat", name="other")
    return alice, bob, room, other, await alice.say(room, "said")


#: What is refused for the signatures that it has not.
UNSIGNED = {"keys", "signatures", "signing"}
NOBODY: Any = SimpleNamespace(user="@a:b", device="D")


@pytest.mark.parametrize("what", said(NOBODY, NOBODY, "!a:b", "$a"))
async def test_what_clients_say_takes_no_answer_from_anybody(tmp_path, caplog, what):
    async with matrix_server(tmp_path, federation_rate=0) as home:
        alice, bob, room, other, event = await begun(home)
        told = await readers(home, alice, bob, room, other)
        method, target, sound = said(alice, bob, room, event)[what]
        for number, body in enumerate([sound, *spoiled(sound)]):
            txn = target if what not in {"message", "relation"} else f"{target}{number}"
            status, answer = await alice.ask(method, txn, body)
            assert status < 500, f"{status} to {body!r}: {answer}"
            assert number or status == 200 or what in UNSIGNED, answer
            if number % 4 == 0:
                assert await readers(home, alice, bob, room, other) == told, body
        assert await readers(home, alice, bob, room, other) == told
        assert not [record for record in caplog.records if record.exc_info]


def edus(alice: LocalUser, room: str, event: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns the valid EDUs that a server sends."""
    user = f"@m:{THEIRS}"
    keys = {
        "user_id": user,
        "device_id": "D",
        "algorithms": ["a"],
        "keys": {"ed25519:D": "K"},
        "signatures": {user: {}},
    }
    key = {"user_id": user, "usage": ["master"], "keys": {"ed25519:K": "K"}, "signatures": {}}
    entry = {"event_ids": [event], "data": {"ts": 1, "thread_id": "main"}}
    presence = {
        "user_id": user, "presence": "online", "last_active_ago": 1, "currently_active": True, "status_msg": "s",
    }  # fmt: skip
    update = {
        "user_id": user,
        "device_id": "D",
        "stream_id": 1,
        "prev_id": [],
        "device_display_name": "d",
        "keys": keys,
    }
    message = {
        "sender": user, "type": "m.x", "message_id": "1", "messages": {alice.user: {"*": {"a": "b"}, alice.device: {}}},
    }  # fmt: skip
    return [
        ("m.typing", {"room_id": room, "user_id": user, "typing": True}),
        ("m.receipt", {room: {"m.read": {user: entry}}}),
        ("m.presence", {"push": [presence]}),
        ("m.device_list_update", update),
        ("m.signing_key_update", {"user_id": user, "master_key": key, "self_signing_key": key}),
        ("m.direct_to_device", message),
    ]


@pytest.mark.parametrize("kind", [kind for kind, _ in edus(NOBODY, "!a:b", "$a")])
async def test_what_servers_say_takes_no_answer_from_anybody(tmp_path, caplog, kind):
    async with matrix_server(tmp_path, federation_rate=0) as home:
        alice, bob, room, other, event = await begun(home)
        theirs = home.wire.room.room_id
        for person in (alice, bob):
            await person.join(theirs)
        told = await readers(home, alice, bob, room, other)
        content = dict(edus(alice, theirs, event))[kind]
        listed = [content, *spoiled(content)]
        wrong: list[Any] = [{"edu_type": kind, "content": one} for one in listed]
        wrong += [{"edu_type": one, "content": content} for one in WRONG] + list(WRONG)
        for at in range(0, len(wrong), 20):
            said_ = home.wire.forger.message(home.wire.room, f"beside {at}")
            body = {"pdus": [said_], "edus": wrong[at : at + 20]}
            status, answer = await home.wire.ask("PUT", f"{V1}/send/{secrets.token_hex(8)}", body)
            assert (status, list(answer["pdus"].values())) == (200, [{}]), answer
            assert await home.wire.fate(said_) == "accepted"
            home.wire.room.keep(pdu_from_raw(said_, home.wire.room.version))
            assert await readers(home, alice, bob, room, other) == told
        assert home.app.counters.get(("matrix_edus_failed", ()), 0) == 0
        assert not [record for record in caplog.records if record.exc_info]


async def test_a_profile_of_another_server_says_of_its_names_what_is_a_text(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        for value in WRONG:
            given = {"displayname": value, "avatar_url": value, "m.tz": value}
            home.wire.peer.answer = lambda request, given=given: (
                (200, given) if "/query/profile" in request.target else None
            )
            found = await alice.get(f"/profile/{part(f'@m:{THEIRS}')}")
            assert found == {k: v for k, v in given.items() if k == "m.tz" or isinstance(v, str)}
            for field in ("displayname", "avatar_url"):
                status, found = await alice.ask("GET", f"/profile/{part(f'@m:{THEIRS}')}/{field}")
                assert (status, found) == (200, {field: value} if isinstance(value, str) else {})
