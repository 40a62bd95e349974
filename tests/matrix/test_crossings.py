"""Every way in which another server asks, tells or is told something: which crossing it is, and what is answered
where a policy denies it.

Routes, kinds of EDU and calls of the sender are taken from the code: a new one has to be in a table.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import hansa_matrix
from hansa import ALLOW, Action, EphemeralOut, KeysQuery, PeerConnect, Presence, Reason, Verdict
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa_matrix.proto.devices import Device
from hansa_matrix.proto.edus import PresenceEdu, ReceiptEdu
from hansa_matrix.proto.hashing import event_id
from matrix.server_with_peer import OFFERED, OURS, THEIRS, V1, V2, ServerWithPeer, server_with_peer
from matrix.test_route_fuzz import routes
from matrix.test_third_party_invites import body as exchanged
from matrix.test_third_party_invites import exchange, opened
from matrix.two_servers import at

THEM, US = f"@m:{THEIRS}", f"@hansa:{OURS}"
OTHER = f"@n:{THEIRS}"


class Deny:
    """Denies the crossings that ``what`` picks."""

    def __init__(self, what: Callable[[Any], bool]) -> None:
        self.what = what
        self.denied: list[str] = []

    async def check(self, crossing: Any) -> Verdict:
        if not self.what(crossing):
            return ALLOW
        self.denied.append(type(crossing).__name__)
        return Verdict(Action.DENY, (Reason(code="GOV_TEST", policy="deny", text="not here"),))


def under(house: ServerWithPeer, what: Callable[[Any], bool]) -> Deny:
    policy = Deny(what)
    house.app.decisions.replace([InstalledPolicy(name="deny", policy=policy)])
    return policy


#: What no server signs: nobody knows who asks, so that no policy can be asked.
UNSIGNED = {
    "GET /_matrix/federation/v1/version": "the name and version of this software",
    "GET /_matrix/federation/v1/openid/userinfo": "whoever has a token that a person here gave away",
    "GET /_matrix/key/v2/server": "our keys, which everybody has",
    "GET /_matrix/key/v2/server/{key}": "our keys, which everybody has",
    "GET /_matrix/key/v2/query/{server}": "keys that we have already; another server is asked as in PeerConnect",
    "GET /_matrix/key/v2/query/{server}/{key}": "keys that we have already; another server is asked as in PeerConnect",
    "POST /_matrix/key/v2/query": "keys that we have already; another server is asked as in PeerConnect",
    "GET /.well-known/matrix/server": "where we are",
    "GET /_synapse/admin/v1/register": "administrators here, by a secret",
    "POST /_synapse/admin/v1/register": "administrators here, by a secret",
}
#: What PeerConnect alone decides, and why.
CONNECTED = {
    "PUT /v1/send/{txn}": "every event in it is an EventIn, every EDU has a crossing of its own",
    "GET /v1/event/{event}": "said in a room that it is in; what is withheld it gets redacted",
    "GET /v1/state/{room}": "as event",
    "GET /v1/state_ids/{room}": "as event",
    "GET /v1/event_auth/{room}/{event}": "as event",
    "GET /v1/backfill/{room}": "as event",
    "POST /v1/get_missing_events/{room}": "as event",
    "GET /v1/make_leave/{room}/{user}": "nobody is kept from leaving",
    "PUT /v1/send_leave/{room}/{event}": "as version 2",
    "PUT /v2/send_leave/{room}/{event}": "nobody is kept from leaving; its words are an EventIn",
}
#: The crossing of every other route.
ASKED = {
    "GET /v1/query/directory": "DirectoryQuery",
    "GET /v1/query/profile": "ProfileQuery",
    "GET /v1/user/devices/{user}": "KeysQuery",
    "POST /v1/user/keys/query": "KeysQuery",
    "POST /v1/user/keys/claim": "KeysQuery",
    "GET /v1/publicRooms": "DirectoryQuery",
    "POST /v1/publicRooms": "DirectoryQuery",
    "GET /v1/hierarchy/{room}": "DirectoryQuery",
    "GET /v1/timestamp_to_event/{room}": "DirectoryQuery",
    "GET /v1/make_join/{room}/{user}": "Join",
    "PUT /v1/send_join/{room}/{event}": "Join",
    "PUT /v2/send_join/{room}/{event}": "Join",
    "GET /v1/make_knock/{room}/{user}": "Knock",
    "PUT /v1/send_knock/{room}/{event}": "Knock",
    "PUT /v1/invite/{room}/{event}": "Invite",
    "PUT /v2/invite/{room}/{event}": "Invite",
    "PUT /v1/exchange_third_party_invite/{room}": "Invite",
    "GET /v1/media/download/{media}": "MediaTransfer",
    "GET /v1/media/thumbnail/{media}": "MediaTransfer",
}
#: Asked about elsewhere: they need a scene of their own.
ELSEWHERE = {
    "PUT /v1/exchange_third_party_invite/{room}": "below",
    "PUT /v1/invite/{room}/{event}": "below",
    "GET /v1/media/download/{media}": "test_media",
    "GET /v1/media/thumbnail/{media}": "test_media",
}


def found(house: ServerWithPeer) -> dict[str, list[str]]:
    """The routes of the Matrix server; ``tests/core/test_media_links.py`` has those of the core."""
    every = routes(house.app.routers[OURS])
    return {f"{method} /{'/'.join(parts)}": parts for method, parts in every}


def short(name: str) -> str:
    return name.replace("/_matrix/federation", "")


async def test_every_route_is_in_a_table(tmp_path):
    async with server_with_peer(tmp_path) as house:
        signed = {short(name) for name in found(house) if name not in UNSIGNED and "/client" not in name}
        assert signed == CONNECTED.keys() | ASKED.keys()


async def test_a_server_that_is_denied_is_answered_nothing(tmp_path):
    async with server_with_peer(tmp_path) as house:
        told = {"room": house.room.room_id, "user": US, "event": next(iter(house.room.tips))}
        policy = under(house, lambda c: isinstance(c, PeerConnect) and c.server == THEIRS)
        for name, parts in found(house).items():
            if name in UNSIGNED or "/client" in name:
                continue
            method = name.split(" ")[0]
            path = "/" + "/".join(quote(told.get(p[1:-1], "x"), safe="") if p[0] == "{" else p for p in parts)
            status, answer = await house.ask(method, path, {} if method != "GET" else None)
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), name
            assert answer["dev.hansa.decision"].startswith("d-"), name
        assert set(policy.denied) == {"PeerConnect"}


async def requests(house: ServerWithPeer) -> dict[str, tuple[str, Any]]:
    """A request for each route of ``ASKED`` that would be answered: ``(target, body)``."""
    room, version = house.room.room_id, house.room.version
    await house.matrix.local_events.send_state(room, "m.room.join_rules", "", {"join_rule": "knock"})
    _, knock = await house.ask("GET", f"{V1}/make_knock/{at(room, OTHER)}?{OFFERED}")
    knocking = house.forger.finish(house.room, {k: v for k, v in knock["event"].items() if k != "origin"})
    other = house.other.room_id
    _, template = await house.ask("GET", f"{V1}/make_join/{at(other, OTHER)}?{OFFERED}")
    join = house.forger.joining(template, "n")
    invite = house.forger.finish(
        house.room, house.forger.draft(house.room, "m.room.member", {"membership": "invite"}, f"@x:{OURS}")
    )
    name = event_id(invite, version)
    create = house.forger.created[room]
    return {
        "GET /v1/query/directory": (f"{V1}/query/directory?room_alias={at(f'#one:{OURS}')}", None),
        "GET /v1/query/profile": (f"{V1}/query/profile?user_id={at(US)}", None),
        "GET /v1/user/devices/{user}": (f"{V1}/user/devices/{at(US)}", None),
        "POST /v1/user/keys/query": (f"{V1}/user/keys/query", {"device_keys": {US: []}}),
        "POST /v1/user/keys/claim": (f"{V1}/user/keys/claim", {"one_time_keys": {US: {"D": "x"}}}),
        "GET /v1/publicRooms": (f"{V1}/publicRooms", None),
        "POST /v1/publicRooms": (f"{V1}/publicRooms", {}),
        "GET /v1/hierarchy/{room}": (f"{V1}/hierarchy/{at(room)}", None),
        "GET /v1/timestamp_to_event/{room}": (f"{V1}/timestamp_to_event/{at(room)}?ts=0&dir=f", None),
        "GET /v1/make_join/{room}/{user}": (f"{V1}/make_join/{at(other, OTHER)}?{OFFERED}", None),
        "PUT /v1/send_join/{room}/{event}": (f"{V1}/send_join/{at(other, join.event_id)}", join.raw),
        "PUT /v2/send_join/{room}/{event}": (f"{V2}/send_join/{at(other, join.event_id)}", join.raw),
        "GET /v1/make_knock/{room}/{user}": (f"{V1}/make_knock/{at(room, OTHER)}?{OFFERED}", None),
        "PUT /v1/send_knock/{room}/{event}": (
            f"{V1}/send_knock/{at(room, event_id(knocking, version))}",
            knocking,
        ),
        "PUT /v2/invite/{room}/{event}": (
            f"{V2}/invite/{at(room, name)}",
            {"room_version": version.id, "event": invite, "invite_room_state": [create]},
        ),
    }


async def test_what_a_policy_denies_a_server_is_answered_with_its_decision(tmp_path):
    async with server_with_peer(tmp_path, "7") as house:
        asked = await requests(house)
        assert asked.keys() | ELSEWHERE.keys() == ASKED.keys()
        for name, (target, body) in asked.items():
            policy = under(house, lambda c: not isinstance(c, PeerConnect))
            status, answer = await house.ask(name.split(" ")[0], target, body)
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), (name, answer)
            assert policy.denied == [ASKED[name]], name
            decision = await house.app.decisions.explain(answer["dev.hansa.decision"])
            assert decision["facts"]["crossing"] == ASKED[name]
        house.app.decisions.replace([])
        for name, (target, body) in asked.items():  # none was refused for another reason
            status, answer = await house.ask(name.split(" ")[0], target, body)
            assert status == 200, (name, answer)


async def test_an_invite_by_an_address_is_asked_about(tmp_path):
    async with server_with_peer(tmp_path) as house:
        sender = await opened(house)
        policy = under(house, lambda c: type(c).__name__ == "Invite")
        status, answer = await exchange(house, exchanged(house, sender))
        assert (status, answer["errcode"], policy.denied) == (403, "M_FORBIDDEN", ["Invite"])
        assert answer["dev.hansa.decision"].startswith("d-")
        house.app.decisions.replace([])
        assert await exchange(house, exchanged(house, sender)) == (200, {})


async def test_an_invite_as_it_was_done_in_the_beginning_is_asked_about(tmp_path):
    async with server_with_peer(tmp_path, "1") as house:
        draft = house.forger.draft(house.room, "m.room.member", {"membership": "invite"}, f"@x:{OURS}")
        raw = house.forger.finish(house.room, draft)
        path = f"{V1}/invite/{at(house.room.room_id, raw['event_id'])}"
        policy = under(house, lambda c: not isinstance(c, PeerConnect))
        status, answer = await house.ask("PUT", path, raw)
        assert (status, answer["errcode"], policy.denied) == (403, "M_FORBIDDEN", ["Invite"])
        assert answer["dev.hansa.decision"].startswith("d-")
        house.app.decisions.replace([])
        assert (await house.ask("PUT", path, raw))[0] == 200


def edus(house: ServerWithPeer) -> dict[str, tuple[dict[str, Any], str]]:
    """One EDU of each kind, and its crossing."""
    room, event = house.room.room_id, next(iter(house.room.tips))
    read = {room: {"m.read": {THEM: {"event_ids": [event], "data": {"ts": 1}}}}}
    message = {
        "sender": THEM,
        "type": "test.x",
        "message_id": "1",
        "messages": {US: {"*": {"x": "classified"}}},
    }
    push = [{"user_id": THEM, "presence": "online", "status_msg": "classified"}]
    device = {"user_id": THEM, "device_id": "D", "stream_id": 3, "prev_id": [], "device_display_name": "x"}
    key = {"user_id": THEM, "usage": ["master"], "keys": {"ed25519:AAAA": "AAAA"}}
    return {
        "m.typing": ({"room_id": room, "user_id": THEM, "typing": True}, "EphemeralIn"),
        "m.receipt": (read, "EphemeralIn"),
        "m.presence": ({"push": push}, "Presence"),
        "m.direct_to_device": (message, "ToDevice"),
        "m.device_list_update": (device, "KeysQuery"),
        "m.signing_key_update": ({"user_id": THEM, "master_key": key}, "KeysQuery"),
    }


async def test_an_edu_that_a_policy_denies_is_let_fall_and_counted(tmp_path):
    async with server_with_peer(tmp_path, presence_enabled=True) as house:
        matrix = house.matrix
        known = matrix.users
        every = edus(house)
        assert every.keys() == {"m.typing", "m.receipt"} | known.edu_handlers().keys()
        for kind, (content, crossing) in every.items():
            policy = under(house, lambda c: not isinstance(c, PeerConnect))
            body = {"pdus": [], "edus": [{"edu_type": kind, "content": content}]}
            assert await house.ask("PUT", f"{V1}/send/{kind}", body) == (200, {"pdus": {}})
            assert set(policy.denied) == {crossing}, kind
            named = tuple(sorted({"plugin": "matrix", "crossing": crossing}.items()))
            assert house.app.counters["matrix_crossings_denied", named] >= 1, kind
        signals = matrix.typing_and_receipts
        assert signals.typing_in(house.room.room_id) == []
        assert await signals.get_receipts(house.room.room_id) == {}
        assert known.presences.get(THEM) is None
        assert await known.messages.queued_messages(US, "D") == []
        news = await matrix.store.scan("news", index=("topic", "position"), equal=("*",), limit=10)
        assert news == []


#: Every call that tells a server something beside events, and the crossing that it waits for.
TOLD = {
    "rooms/typing_and_receipts.py _send_to_servers": "EphemeralOut",
    "rooms/typing_and_receipts.py send": "EphemeralOut, asked by the core",
    "users/presence.py set_local": "Presence",
    "users/presence.py set_ghost": "Presence, and EphemeralOut, asked by the core",
    "users/presence.py announce_presence": "Presence",
    "users/presence.py _send_presences": "Presence",
    "users/to_device.py send_message": "ToDevice",
    "users/devices.py _commit_with_edus": "KeysQuery",
    "users/devices.py announce_devices": "KeysQuery",
    "users/devices.py set_cross_signing": "KeysQuery",
}


def test_every_edu_of_ours_waits_for_a_crossing():
    root = Path(hansa_matrix.__file__).parent
    calls = set()
    for file in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and ast.unparse(call.func) in {
                    "self._sender.send_ephemeral",
                    "self._sender.durable_edu_writes",
                    "self._own.sender.send_ephemeral",
                    "self._own.sender.durable_edu_writes",
                }:
                    calls.add(f"{file.relative_to(root)} {node.name}")
    assert calls == TOLD.keys()


def reaches_them(crossing: Any) -> bool:
    """True if a crossing would reach their server."""
    match crossing:
        case EphemeralOut():
            return THEIRS in crossing.view.servers()
        case Presence():
            return THEIRS in crossing.servers
        case KeysQuery():
            return not crossing.outbound and crossing.server == THEIRS
    return False


async def test_nothing_is_told_to_a_server_that_a_policy_denies(tmp_path):
    async with server_with_peer(tmp_path, presence_enabled=True) as house:
        matrix = house.matrix
        room = matrix.get_room(house.room.room_id)
        sender, told = matrix.sender, list[tuple[str, frozenset[str]]]()
        tell, lasting = sender.send_ephemeral, sender.durable_edu_writes
        names = iter("AB")

        def telling(servers: Any, name: Any, edu: Any) -> None:
            told.append((edu["edu_type"], frozenset(servers)))
            tell(servers, name, edu)

        def writing(edu: Any, servers: Any) -> Any:
            told.append((edu["edu_type"], frozenset(servers)))
            return lasting(edu, servers)

        sender.send_ephemeral, sender.durable_edu_writes = telling, writing

        async def everything() -> dict[str, frozenset[str]]:
            told.clear()
            event = next(iter(house.room.tips))
            await matrix.typing_and_receipts.type(US, room, typing=True, seconds=5)
            read = ReceiptEdu(room_id=room.room_id, user=US, event_id=event, ts=1, thread="")
            await matrix.typing_and_receipts.read(read, private=False)
            await matrix.users.presences.set_local(PresenceEdu(user=US, presence="online"))
            await matrix.users.devices.put(US, Device(device_id=next(names)))
            return dict(told)

        shown = await everything()
        assert shown.keys() == {"m.typing", "m.receipt", "m.presence", "m.device_list_update"}
        assert set(shown.values()) == {frozenset({THEIRS})}
        await matrix.typing_and_receipts.type(US, room, typing=False, seconds=5)
        under(house, reaches_them)
        assert set((await everything()).values()) <= {frozenset()}
