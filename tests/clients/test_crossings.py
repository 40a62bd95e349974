"""Every way in which people's clients change something, or have others asked: which crossing it is, and what
the client is told of a denial.

The routes are those of the router: a new one has to be in one of the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from clients.test_withheld import routes
from hansa import ALLOW, Action, NativeId, Reason, Verdict
from hansa.bus.policy_dispatch import InstalledPolicy
from matrix.server_with_peer import OURS

WORD, FAR = "classified", "far.example"


def strings(value: Any) -> Iterator[str]:
    """Yields the texts that a crossing itself carries: not those of its room and of the other users in it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, NativeId):
        yield value.id
    elif isinstance(value, tuple | frozenset):
        for one in value:
            yield from strings(one)
    elif is_dataclass(value):
        for field in fields(value):
            if field.name not in {"view", "link", "content", "room"}:
                yield from strings(getattr(value, field.name))


class Forbid:
    """Denies every crossing that names something."""

    def __init__(self, term: str) -> None:
        self.term = term
        self.denied: set[str] = set()

    async def check(self, crossing: Any) -> Verdict:
        if not any(self.term in text for text in strings(crossing)):
            return ALLOW
        self.denied.add(type(crossing).__name__)
        return Verdict(Action.DENY, (Reason(code="GOV_TEST", policy="forbid", text="not here"),))


@dataclass(frozen=True)
class Scene:
    """``room`` is one that mallory made, ``other`` one that is open, ``shut`` one to knock at."""

    home: MatrixServer
    alice: LocalUser
    mallory: LocalUser
    room: str
    other: str
    shut: str
    event: str

    @property
    def here(self) -> str:
        return f"/rooms/{part(self.room)}"


async def scene(home: MatrixServer) -> Scene:
    alice, mallory = await home.person("alice"), await home.person("mallory")
    await home.person("bob")
    room = await mallory.create(preset="public_chat")
    await alice.join(room)
    other = await alice.create(preset="public_chat")
    knocks = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    shut = await alice.create(initial_state=[knocks])
    event = await mallory.say(room, "fair")
    return Scene(home, alice, mallory, room, other, shut, event)


@dataclass(frozen=True)
class Act:
    """A request, the crossings at which a policy may deny it, and whether it carries texts."""

    target: Callable[[Scene], str]
    body: Callable[[Scene], Any]
    crossings: frozenset[str]
    worded: bool = True


def act(target: Callable[[Scene], str], body: Any, *crossings: str, worded: bool = True) -> Act:
    made = body if callable(body) else lambda _: body
    return Act(target, made, frozenset(crossings), worded)


def bob(scene: Scene, **more: Any) -> dict[str, Any]:
    return {"user_id": f"@bob:{OURS}", **more}


ROOM = "/v3/rooms/{room}"
ACTS = {
    "PUT /v3/rooms/{room}/send/{type}/{txn}": act(
        lambda s: f"{s.here}/send/m.room.message/1", {"msgtype": "m.text", "body": WORD}, "EventIn"
    ),
    "PUT /v3/rooms/{room}/state/{type}": act(lambda s: f"{s.here}/state/m.room.name", {"name": WORD}, "EventIn"),
    "PUT /v3/rooms/{room}/state/{type}/{key}": act(lambda s: f"{s.here}/state/test.x/{WORD}", {}, "EventIn"),
    "PUT /v3/rooms/{room}/redact/{event}/{txn}": act(
        lambda s: f"{s.here}/redact/{part(s.event)}/1", {"reason": WORD}, "EventIn"
    ),
    "POST /v3/rooms/{room}/ban": act(lambda s: f"{s.here}/ban", lambda s: bob(s, reason=WORD), "EventIn"),
    "POST /v3/rooms/{room}/kick": act(
        lambda s: f"{s.here}/kick", lambda s: {"user_id": s.alice.user, "reason": WORD}, "EventIn"
    ),
    "POST /v3/rooms/{room}/invite": act(lambda s: f"{s.here}/invite", lambda s: bob(s, reason=WORD), "EventIn"),
    "POST /v3/rooms/{room}/leave": act(lambda s: f"{s.here}/leave", {"reason": WORD}, "EventIn"),
    "POST /v3/join/{room}": act(lambda s: f"/join/{part(s.other)}", {"reason": WORD}, "Join", "EventIn"),
    "POST /v3/rooms/{room}/join": act(
        lambda s: f"/rooms/{part(s.other)}/join", {"reason": WORD}, "Join", "EventIn"
    ),
    "POST /v3/knock/{room}": act(lambda s: f"/knock/{part(s.shut)}", {"reason": WORD}, "Knock", "EventIn"),
    "POST /v3/createRoom": act(lambda _: "/createRoom", {"name": WORD}, "RoomCreate", "ProfileChange"),
    "POST /v3/rooms/{room}/upgrade": act(
        lambda s: f"{s.here}/upgrade", {"new_version": "11"}, "RoomUpgrade", worded=False
    ),
    "PUT /v3/directory/list/room/{room}": act(
        lambda s: f"/directory/list/room/{part(s.room)}", {}, "DirectoryPublish", worded=False
    ),
    "PUT /v3/directory/room/{alias}": act(
        lambda _: f"/directory/room/{part(f'#{WORD}:{OURS}')}", lambda s: {"room_id": s.room}, "DirectoryPublish"
    ),
    "PUT /v3/rooms/{room}/typing/{user}": act(
        lambda s: f"{s.here}/typing/{part(s.mallory.user)}", {"typing": True}, "EphemeralIn", worded=False
    ),
    "POST /v3/rooms/{room}/receipt/{kind}/{event}": act(
        lambda s: f"{s.here}/receipt/m.read/{part(s.event)}", {}, "EphemeralIn", worded=False
    ),
    "POST /v3/rooms/{room}/read_markers": act(
        lambda s: f"{s.here}/read_markers", lambda s: {"m.read": s.event}, "EphemeralIn", worded=False
    ),
    "PUT /v3/presence/{user}/status": act(
        lambda s: f"/presence/{part(s.mallory.user)}/status",
        {"presence": "online", "status_msg": f"at {WORD}"},
        "Presence",
    ),
    "PUT /v3/profile/{user}/{field}": act(
        lambda s: f"/profile/{part(s.mallory.user)}/displayname", {"displayname": WORD}, "ProfileChange"
    ),
    "DELETE /v3/profile/{user}/{field}": act(
        lambda s: f"/profile/{part(s.mallory.user)}/{WORD}", None, "ProfileChange"
    ),
    "PUT /v3/devices/{device}": act(
        lambda s: f"/devices/{s.mallory.device}", {"display_name": WORD}, "ProfileChange"
    ),
    "PUT /v3/sendToDevice/{type}/{txn}": act(
        lambda _: "/sendToDevice/test.x/1",
        lambda s: {"messages": {s.alice.user: {"*": {"note": WORD}}}},
        "ToDevice",
    ),
}  # fmt: skip
#: What is asked nobody about, and why.
EXEMPT = {
    "POST /v3/rooms/{room}/unban": "takes back what was done to somebody; its words are those of a leave, in EventIn",
    "POST /v3/rooms/{room}/forget": "this person's own view",
    "DELETE /v3/directory/room/{alias}": "takes a name away, and says nothing",
    "POST /v3/publicRooms": "DirectoryQuery where another server is asked: see ABROAD",
    "POST /v3/keys/query": "KeysQuery where another server is asked: see ABROAD",
    "POST /v3/keys/claim": "KeysQuery where another server is asked: see ABROAD",
    "POST /v3/keys/upload": "kept here; servers that are told of it are asked about in KeysQuery",
    "POST /v3/keys/upload/{device}": "as keys/upload",
    "POST /v3/keys/device_signing/upload": "as keys/upload",
    "POST /v3/keys/signatures/upload": "as keys/upload",
    "POST /v3/user_directory/search": "reads what is here",
    "POST /v3/login": "an account of this server; a device's name goes through ProfileChange, and is left out",
    "POST /v3/register": "as login",
    "POST /v3/logout": "ends a session",
    "POST /v3/logout/all": "ends sessions",
    "POST /v3/delete_devices": "ends sessions",
    "DELETE /v3/devices/{device}": "ends a session",
    "POST /v3/account/password": "between a person and this server",
    "POST /v3/account/deactivate": "nobody is kept from leaving",
    "POST /v3/user/{user}/openid/request_token": "says who one is to whom one gives it",
    "POST /v3/user/{user}/filter": "kept for the person alone",
    "POST /v3/room_keys/version": "kept for the person alone, encrypted by their devices",
    "PUT /v3/room_keys/version/{version}": "kept for the person alone, encrypted by their devices",
    "DELETE /v3/room_keys/version/{version}": "kept for the person alone, encrypted by their devices",
    "PUT /v3/room_keys/keys": "kept for the person alone, encrypted by their devices",
    "PUT /v3/room_keys/keys/{room}": "kept for the person alone, encrypted by their devices",
    "PUT /v3/room_keys/keys/{room}/{session}": "kept for the person alone, encrypted by their devices",
    "DELETE /v3/room_keys/keys": "kept for the person alone, encrypted by their devices",
    "DELETE /v3/room_keys/keys/{room}": "kept for the person alone, encrypted by their devices",
    "DELETE /v3/room_keys/keys/{room}/{session}": "kept for the person alone, encrypted by their devices",
    "PUT /v3/user/{user}/account_data/{type}": "kept for the person alone",
    "PUT /v3/user/{user}/rooms/{room}/account_data/{type}": "kept for the person alone",
    "PUT /v3/user/{user}/rooms/{room}/tags/{tag}": "kept for the person alone",
    "DELETE /v3/user/{user}/rooms/{room}/tags/{tag}": "kept for the person alone",
    "PUT /v3/pushrules/global/{kind}/{rule}": "kept for the person alone",
    "DELETE /v3/pushrules/global/{kind}/{rule}": "kept for the person alone",
    "PUT /v3/pushrules/global/{kind}/{rule}/actions": "kept for the person alone",
    "PUT /v3/pushrules/global/{kind}/{rule}/enabled": "kept for the person alone",
    "POST /v3/rooms/{room}/report": "to the operator of this server",
    "POST /v3/rooms/{room}/report/{event}": "to the operator of this server",
    "POST /v3/users/{user}/report": "to the operator of this server",
}


def named(method: str, parts: list[str]) -> str:
    return f"{method} /{'/'.join(parts[2:])}"


async def test_every_route_that_changes_something_is_in_a_table(tmp_path):
    async with matrix_server(tmp_path) as home:
        found = {
            named(method, parts)
            for router in home.app.routers.values()
            for method, parts in routes(router)
            if method != "GET" and parts[:2] == ["_matrix", "client"] and parts[2] != "r0"
        }
        assert found == ACTS.keys() | EXEMPT.keys()


@pytest.mark.parametrize("what", ["person", "word"])
async def test_what_a_policy_denies_is_answered_with_its_decision(tmp_path, what):
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        made = await scene(home)
        for name, one in ACTS.items():
            if what == "word" and not one.worded:
                continue
            policy = Forbid("@mallory:" if what == "person" else WORD)
            home.app.decisions.replace([InstalledPolicy(name="forbid", policy=policy)])
            status, answer = await made.mallory.ask(name.split(" ", 1)[0], one.target(made), one.body(made))
            assert (status, answer.get("errcode")) == (403, "M_FORBIDDEN"), (name, answer)
            # What is said leaves by the speaker's own link too, which is asked about as well.
            ways = one.crossings | ({"EventOut"} if "EventIn" in one.crossings else set())
            assert policy.denied & one.crossings and policy.denied <= ways, (name, policy.denied)
            decision = answer["dev.hansa.decision"]
            facts = (await home.app.decisions.explain(decision))["facts"]
            assert facts["crossing"] in policy.denied, name


#: Another server is asked: ``(method, target, body)``, and the crossing that says no first.
ABROAD = {
    "profile": ("GET", f"/profile/{part(f'@a:{FAR}')}", None, "ProfileQuery"),
    "field": ("GET", f"/profile/{part(f'@a:{FAR}')}/displayname", None, "ProfileQuery"),
    "alias": ("GET", f"/directory/room/{part(f'#a:{FAR}')}", None, "DirectoryQuery"),
    "join": ("POST", f"/join/{part(f'#a:{FAR}')}", {}, "DirectoryQuery"),
    "knock": ("POST", f"/knock/{part(f'#a:{FAR}')}", {}, "DirectoryQuery"),
    "joined by id": ("POST", f"/join/{part(f'!a:{FAR}')}?via={FAR}", {}, "Join"),
    "knocked by id": ("POST", f"/knock/{part(f'!a:{FAR}')}?via={FAR}", {}, "Knock"),
    "public": ("GET", f"/publicRooms?server={FAR}", None, "DirectoryQuery"),
    "search": ("POST", f"/publicRooms?server={FAR}", {}, "DirectoryQuery"),
}  # fmt: skip


async def test_no_other_server_is_asked_where_a_policy_says_no(tmp_path):
    async with matrix_server(tmp_path) as home:
        made = await scene(home)
        policy = Forbid(FAR)
        home.app.decisions.replace([InstalledPolicy(name="forbid", policy=policy)])
        for name, (method, target, body, crossing) in ABROAD.items():
            policy.denied.clear()
            status, answer = await made.alice.ask(method, target, body)
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), (name, answer)
            assert policy.denied == {crossing}, name
            assert answer["dev.hansa.decision"].startswith("d-"), name
        for what, key in (("query", "device_keys"), ("claim", "one_time_keys")):
            wanted = {f"@a:{FAR}": {"D": "signed_curve25519"} if what == "claim" else []}
            answer = await made.alice.call("POST", f"/keys/{what}", {key: wanted})
            failed = answer["failures"][FAR]
            assert (failed["status"], failed["errcode"]) == (403, "M_FORBIDDEN")
            assert failed["dev.hansa.decision"].startswith("d-") and answer[key] == {}
        for path in (f"/v1/room_summary/{part('!a:b')}?via={FAR}", f"/v1/rooms/{part('!a:b')}/hierarchy"):
            assert (await made.alice.ask("GET", f"/_matrix/client{path}"))[0] in {403, 404}
        assert not [one for one in home.wire.peer.asked if FAR in one.host]


async def test_a_message_goes_to_those_whom_a_policy_lets_have_it(tmp_path):
    async with matrix_server(tmp_path) as home:
        made = await scene(home)
        told: list[tuple[str, ...]] = []
        sender = home.matrix.users.messages._sender
        lasting = sender.durable_edu_writes
        sender.durable_edu_writes = lambda edu, servers: told.append(tuple(servers)) or lasting(edu, servers)
        home.app.decisions.replace([InstalledPolicy(name="forbid", policy=Forbid(FAR))])
        messages = {f"@a:{FAR}": {"*": {}}, "@a:near.example": {"*": {}}, made.alice.user: {"*": {"x": 1}}}
        await made.mallory.call("PUT", "/sendToDevice/test.x/7", {"messages": messages})
        assert told == [("near.example",)]
        assert (await made.alice.sync())["to_device"]["events"][0]["content"] == {"x": 1}
        denied = {"plugin": "matrix", "crossing": "ToDevice"}
        assert home.app.counters["matrix_crossings_denied", tuple(sorted(denied.items()))] == 1
