"""The worst inputs known, one row each: what is sent or answered, and what it may cost."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson
from aiohttp import web
from hostile.inputs import KIB, MIB, VALUES, pictures, repeated
from hostile.joins import JOINS
from hostile.scene import Evil, Scene, part, stamp
from hostile.stanzas import STANZAS
from peers.fake_homeserver import V1
from peers.waiting import until

Run = Callable[[Scene], Awaitable[object]]

#: No single request or answer takes more memory (MiB) over what it must return, nor holds the loop longer (ms).
MEMORY, HELD = 32.0, 20.0
#: Pictures have a bound of their own.
PICTURE = 128.0


@dataclass(frozen=True)
class Case:
    """``run`` does it. ``reads`` names the answers of other servers that it is about, as ``ANSWERS`` has them."""

    name: str
    run: Run
    reads: str = ""
    mib: float = MEMORY
    held: float = HELD


async def _trigger(scene: Scene, reads: str, body: bytes) -> None:
    """Have Hansa ask a server that nobody has met yet for what ``reads`` names, and get ``body``."""
    piece, act = ANSWERS[reads]
    evil = scene.notary if reads == "notary" else await scene.fresh()
    if reads in _IN_THE_DEN:
        await scene.meet(evil)
    evil.says(piece, body)
    evil.asked.clear()
    try:
        await act(scene, evil)
        await until(f"{evil.name} is asked for {piece}", lambda: evil.has_answered(piece), 60)
    finally:
        evil.answers.clear()


def _client(method: str, target: str, body: object = None) -> Callable[[Scene, Evil], Awaitable[object]]:
    """Romeo asks; ``EVIL`` in the target or the body is the server's name."""

    async def act(scene: Scene, evil: Evil) -> object:
        where = target.replace("EVIL", part(evil.name)).replace("N", str(scene.number()))
        data = None
        if body is not None:
            data = orjson.dumps(body).replace(b"EVIL", evil.name.encode())
        return await scene.as_romeo(method, where, data)

    return act


CLIENT, _MEDIA = "/_matrix/client/v3", "/_matrix/client/v1/media"


async def _ask_keys(scene: Scene, evil: Evil) -> object:
    return await scene.raw("GET", f"/_matrix/key/v2/query/{part(evil.name)}")


async def _make_join(scene: Scene, evil: Evil) -> object:
    room = f"!{secrets.token_hex(8)}:{evil.name}"
    return await scene.as_romeo("POST", f"{CLIENT}/join/{part(room)}?server_name={part(evil.name)}", b"{}")


async def _enter(scene: Scene, evil: Evil, step: str = "join") -> object:
    """``make_join`` is answered as it should be."""
    room, _ = evil.founded(f"@mallory:{evil.name}", "public" if step == "join" else "knock")
    evil.answers["/make_"] = evil.template(room, scene.romeo.id, step)
    try:
        way = "join" if step == "join" else "knock"
        return await scene.as_romeo(
            "POST", f"{CLIENT}/{way}/{part(room.room_id)}?server_name={part(evil.name)}", b"{}"
        )
    finally:
        del evil.answers["/make_"]


async def _enter_as_before(scene: Scene, evil: Evil) -> object:
    """Version 2 of ``send_join`` is not known there."""
    evil.answers["/v2/send_join/"] = lambda _: _no_such_endpoint()
    return await _enter(scene, evil)


async def _no_such_endpoint() -> web.Response:
    return web.json_response({"errcode": "M_UNRECOGNIZED", "error": "no such endpoint"}, status=404)


async def _knock(scene: Scene, evil: Evil) -> object:
    return await _enter(scene, evil, "knock")


async def _gap(scene: Scene, evil: Evil) -> object:
    """An event whose past that server alone has."""
    evil.answers.setdefault("/get_missing_events/", lambda _: _answered({"events": []}))
    evil.answers.setdefault("/state_ids/", lambda _: _answered({"pdu_ids": [], "auth_chain_ids": []}))
    return await evil.send(scene.name, evil.message(evil.den, "x", prev_events=[_unknown()]))


async def _auth_gap(scene: Scene, evil: Evil) -> object:
    return await evil.send(scene.name, evil.message(evil.den, "x", auth_events=[_unknown()]))


def _unknown() -> str:
    return "$" + secrets.token_urlsafe(32)


async def _device_list(scene: Scene, evil: Evil) -> object:
    """A change that comes after others which were missed: the whole list has to be asked for."""
    evil.answers["/user/keys/query"] = lambda _: _answered({"device_keys": {}})
    user = evil.den.user
    await scene.as_romeo("POST", f"{CLIENT}/keys/query", orjson.dumps({"device_keys": {user: []}}))
    content = {"user_id": user, "device_id": "D", "stream_id": 1000, "prev_id": [500], "deleted": False}
    await evil.send(scene.name, edus=[{"edu_type": "m.device_list_update", "content": content}])
    return await scene.as_romeo("POST", f"{CLIENT}/keys/query", orjson.dumps({"device_keys": {user: []}}))


async def _answered(body: object) -> web.Response:
    return web.json_response(body)


async def _deliver(scene: Scene, evil: Evil) -> object:
    """Something that goes to that server."""
    return await scene.romeo.say(evil.den.room_id, "x")


async def _invite_out(scene: Scene, evil: Evil) -> object:
    room = await scene.romeo.create_room("11")
    body = orjson.dumps({"user_id": f"@x:{evil.name}"})
    return await scene.as_romeo("POST", f"{CLIENT}/rooms/{part(room)}/invite", body)


async def _backfill(scene: Scene, evil: Evil) -> object:
    room = part(await scene.enter_elsewhere(evil))
    return await scene.as_romeo("GET", f"{CLIENT}/rooms/{room}/messages?dir=b&limit=100")


async def _notary(scene: Scene, evil: Evil) -> object:
    """A request of a server that does not answer: the notary is asked for its keys."""
    unknown = f"127.0.0.1:{10 + scene.number()}"
    target = f"{V1}/publicRooms"
    signed = evil.signed("GET", scene.name, target, origin=unknown)
    return await scene.raw("GET", target, None, {"Authorization": signed})


async def _policy_server(scene: Scene, evil: Evil) -> object:
    content = {"via": evil.name, "public_keys": {"ed25519": "A" * 43}}
    await scene.romeo.set_state(evil.den.room_id, "m.room.policy", content)
    body = orjson.dumps({"msgtype": "m.text", "body": "x"})
    target = f"{CLIENT}/rooms/{part(evil.den.room_id)}/send/m.room.message/{secrets.token_hex(4)}"
    return await scene.as_romeo("PUT", target, body)


#: What other servers answer: a piece of the path, and how Hansa comes to ask.
ANSWERS: dict[str, tuple[str, Callable[[Scene, Evil], Awaitable[object]]]] = {
    "keys": ("/key/v2/server", _ask_keys),
    "make_join": ("/make_join/", _make_join),
    "send_join": ("/v2/send_join/", _enter),
    "old send_join": ("/v1/send_join/", _enter_as_before),
    "make_knock": (
        "/make_knock/",
        _client("POST", f"{CLIENT}/knock/%21roomN%3AEVIL?server_name=EVIL", {}),
    ),
    "send_knock": ("/send_knock/", _knock),
    "missing events": ("/get_missing_events/", _gap),
    "state ids": ("/state_ids/", _gap),
    "event": ("/v1/event/", _gap),
    "event auth": ("/event_auth/", _auth_gap),
    "backfill": ("/backfill/", _backfill),
    "profile": ("/query/profile", _client("GET", f"{CLIENT}/profile/%40aN%3AEVIL")),
    "directory": ("/query/directory", _client("GET", f"{CLIENT}/directory/room/%23aN%3AEVIL")),
    "public rooms": ("/publicRooms", _client("GET", f"{CLIENT}/publicRooms?server=EVIL&limit=1N")),
    "hierarchy": (
        "/hierarchy/",
        _client("GET", "/_matrix/client/v1/room_summary/%21aN%3AEVIL?via=EVIL"),
    ),
    "devices": ("/user/devices/", _device_list),
    "key query": (
        "/user/keys/query",
        _client("POST", f"{CLIENT}/keys/query", {"device_keys": {"@x:EVIL": []}}),
    ),
    "key claim": (
        "/user/keys/claim",
        _client("POST", f"{CLIENT}/keys/claim", {"one_time_keys": {"@x:EVIL": {"D": "signed_curve25519"}}}),
    ),
    "transaction": (f"{V1}/send/", _deliver),
    "invite": ("/invite/", _invite_out),
    "policy": ("/policy/", _policy_server),
    "media": ("/media/download/", _client("GET", f"{_MEDIA}/download/EVIL/aN")),
    "thumbnail": ("/media/", _client("GET", f"{_MEDIA}/thumbnail/EVIL/aN?width=64&height=64")),
    "notary": ("/key/v2/query", _notary),
}

#: The forms in which the worst comes, by the value that it is made of: 16 MiB, which are some KiB on the wire.
_FORMS = ("objects", "deep", "keys", "1e999", "escapes", "no end")


#: These are sent to a server that is in one of our rooms.
_IN_THE_DEN = frozenset(
    {"missing events", "state ids", "event", "event auth", "devices", "transaction", "policy"}
)


def _whole(reads: str, kind: str, size: int = 16 * MIB) -> Case:
    async def run(scene: Scene) -> None:
        await _trigger(scene, reads, VALUES[kind](size))

    return Case(f"answer to {reads}: {size // MIB} MiB of {kind}", run, reads)


def _inside(reads: str, name: str, form: str, kind: str, size: int) -> Case:
    """An answer of the right shape, with the worst where its list is."""

    async def run(scene: Scene) -> None:
        before, after = form.encode().split(b"LIST")
        await _trigger(scene, reads, before + VALUES[kind](size) + after)

    return Case(f"answer to {reads}: {size // MIB} MiB of {kind} as {name}", run, reads)


_JOIN = '{"event":{},"members_omitted":false,"servers_in_room":[],"auth_chain":[],"state":LIST}'

OUT: list[Case] = [
    *(_whole(reads, "objects") for reads in ANSWERS),
    *(_whole("keys", kind) for kind in _FORMS[1:]),
    *(_whole("send_join", kind, 48 * MIB) for kind in ("objects", "numbers", "a string")),
    _inside("send_join", "state", _JOIN, "objects", 48 * MIB),
    _inside("send_join", "state", _JOIN, "keys", 48 * MIB),
    _inside("old send_join", "state", f"[200,{_JOIN}]", "objects", 48 * MIB),
    _inside("old send_join", "state", f"[200,{_JOIN}]", "keys", 48 * MIB),
    _inside("send_join", "state", _JOIN, "deep", 16 * MIB),
    _inside(
        "send_join", "servers", '{"state":[],"auth_chain":[],"servers_in_room":LIST}', "strings", 48 * MIB
    ),
    _inside("state ids", "ids", '{"auth_chain_ids":[],"pdu_ids":LIST}', "strings", 48 * MIB),
    _inside("event auth", "chain", '{"auth_chain":LIST}', "objects", 48 * MIB),
    _inside("missing events", "events", '{"events":LIST}', "objects", 15 * MIB),
    _inside("backfill", "events", '{"pdus":LIST}', "objects", 15 * MIB),
    _inside("public rooms", "chunk", '{"chunk":LIST}', "objects", 15 * MIB),
    _inside("hierarchy", "children", '{"room":{},"children":LIST}', "objects", 15 * MIB),
    _inside("key query", "keys", '{"device_keys":LIST}', "keys", 15 * MIB),
    _inside("devices", "devices", '{"user_id":"@x:y","stream_id":1,"devices":LIST}', "objects", 15 * MIB),
]


async def _six_key_documents(scene: Scene) -> None:
    servers = [await scene.fresh() for _ in range(6)]
    for evil in servers:
        evil.says("/key/v2/server", VALUES["objects"](16 * MIB))
    await asyncio.gather(*(_ask_keys(scene, evil) for evil in servers))
    for evil in servers:
        evil.answers.clear()


def _unsigned_bodies(kind: str) -> Run:
    """64 MiB of transactions under the names of servers that never give their keys."""

    async def run(scene: Scene) -> None:
        body = b'{"pdus":[],"edus":' + VALUES[kind](4 * MIB - KIB) + b"}"

        async def one(number: int) -> None:
            target = f"{V1}/send/{secrets.token_hex(6)}"
            origin = scene.silent if number % 2 else f"127.0.0.{number + 2}:{scene.silent_port}"
            signed = scene.evil.signed("PUT", scene.name, target, b"{}", origin=origin)
            await scene.raw("PUT", target, body, {"Authorization": signed})

        await asyncio.gather(*(one(number) for number in range(16)))
        await scene.healthy()

    return run


async def _invented_origins(scene: Scene) -> None:
    """300 unsigned requests under names that nobody has: others are asked and answered meanwhile."""

    async def one(number: int) -> None:
        target = f"{V1}/publicRooms"
        origin = f"127.0.{number // 250}.{number % 250 + 2}:{scene.silent_port}"
        signed = scene.evil.signed("GET", scene.name, target, origin=origin)
        await scene.raw("GET", target, None, {"Authorization": signed})

    asking = asyncio.gather(*(one(number) for number in range(300)))
    answered = await _client("GET", f"{CLIENT}/profile/%40aN%3AEVIL")(scene, scene.friend)
    assert answered in {200, 404}, answered
    await scene.healthy()
    await asking


async def _idle_connections(scene: Scene) -> None:
    """1,000 connections of one address on which nothing is ever said."""
    writers: list[asyncio.StreamWriter] = []
    try:
        for _ in range(1000):
            try:
                async with asyncio.timeout(5):
                    _, writer = await asyncio.open_connection("127.0.0.1", scene.hansa.port)
            except (OSError, TimeoutError):
                continue
            writers.append(writer)
        await scene.healthy()
    finally:
        for writer in writers:
            writer.transport.abort()


def transaction(kind: str, size: int = 4 * MIB - KIB, where: str = "edus") -> Run:
    """The largest of the evil server's."""

    async def run(scene: Scene) -> None:
        other = "pdus" if where == "edus" else "edus"
        body = f'{{"{other}":[],"origin":"x","origin_server_ts":1,"{where}":'.encode()
        body += VALUES[kind](size - len(body) - 1) + b"}"
        await scene.signed("PUT", f"{V1}/send/{secrets.token_hex(6)}", body)

    return run


def _edu(kind: str, content: Callable[[Scene], object]) -> Run:
    async def run(scene: Scene) -> None:
        await scene.send(edus=[{"edu_type": kind, "content": content(scene)}] * 20)

    return run


def _receipts(scene: Scene) -> object:
    read = {
        scene.den.user: {"event_ids": ["$" + "e" * 43] * 500, "data": {"ts": stamp(), "thread_id": "t" * 200}}
    }
    return {scene.den.room_id: {"m.read": read}}


def _device(scene: Scene) -> object:
    keys = {f"k:{number}": "x" * 200 for number in range(200)}
    number = scene.number()
    return {
        "user_id": scene.den.user,
        "device_id": f"D{number}",
        "stream_id": number + 10_000,
        "keys": {"keys": keys},
    }


def _to_device(scene: Scene) -> object:
    return {
        "sender": scene.den.user,
        "type": "m.x",
        "message_id": secrets.token_hex(8),
        "messages": {scene.romeo.id: {"*": {"body": "x" * 50_000}}},
    }


async def _invites(scene: Scene) -> None:
    """One server's 300 invites with much that is said of each room."""
    for _ in range(300):
        room, state = scene.evil.founded(scene.den.user)
        state.append(
            {"type": "m.room.topic", "state_key": "", "sender": room.user, "content": {"topic": "x" * 50_000}}
        )
        await scene.invite(room, state, scene.romeo.id)
    assert await scene.as_romeo("GET", f"{CLIENT}/sync") == 200


async def _to_devices(scene: Scene) -> None:
    for _ in range(60):
        edus = [{"edu_type": "m.direct_to_device", "content": _to_device(scene)} for _ in range(40)]
        await scene.send(edus=edus)


def _client_body(method: str, target: str, body: Callable[[int], bytes], size: int = MIB - KIB) -> Run:
    async def run(scene: Scene) -> None:
        where = target.replace("DEN", part(scene.den.room_id)).replace("ROMEO", part(scene.romeo.id))
        await scene.as_romeo(method, where, body(size))

    return run


def _state(size: int) -> bytes:
    one = b'{"type":"m.x","state_key":"","content":{}},'
    return b'{"initial_state":' + repeated(one, size).replace(b"0]", one[:-1] + b"]") + b"}"


def _picture(kind: str, make: Callable[[], bytes]) -> Run:
    async def run(scene: Scene) -> None:
        data = await asyncio.to_thread(make)
        mxc = await scene.romeo.upload(data, kind, "picture")
        where = f"{_MEDIA}/thumbnail/{mxc.removeprefix('mxc://')}?width=64&height=64"
        await scene.as_romeo("GET", where)

    return run


async def _slow_files(scene: Scene) -> None:
    """Twenty files that one server gives by the byte: those of another come all the same."""
    started = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "multipart/mixed; boundary=b"})
        await answer.prepare(request)
        await answer.write(b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\n\r\n")
        started.set()
        try:
            while True:
                await answer.write(b"x")
                await asyncio.sleep(0.5)
        except (ConnectionError, asyncio.CancelledError):
            return answer

    async def quick(request: web.Request) -> web.Response:
        del request
        whole = b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b--\r\n"
        return web.Response(body=whole, headers={"Content-Type": "multipart/mixed; boundary=b"})

    bad, good = await scene.fresh(), await scene.fresh()
    bad.answers["/media/download/"], good.answers["/media/download/"] = slow, quick
    fetch = _client("GET", f"{_MEDIA}/download/EVIL/sN")
    fetching = [asyncio.ensure_future(fetch(scene, bad)) for _ in range(20)]
    try:
        await started.wait()
        async with asyncio.timeout(20):
            assert await fetch(scene, good) == 200
    finally:
        for one in fetching:
            one.cancel()
        await asyncio.gather(*fetching, return_exceptions=True)
        bad.answers.clear()
        good.answers.clear()


IN: list[Case] = [
    Case("six key documents at once, asked for without a signature", _six_key_documents),
    Case("64 MiB of unsigned transactions of objects", _unsigned_bodies("objects")),
    Case("64 MiB of unsigned transactions of numbers", _unsigned_bodies("numbers")),
    Case("300 requests of invented origins", _invented_origins),
    Case("1,000 idle connections of one address", _idle_connections, mib=64),
    *(Case(f"a transaction of {kind} as EDUs", transaction(kind)) for kind in VALUES),
    *(Case(f"a transaction of {kind} as PDUs", transaction(kind, where="pdus")) for kind in VALUES),
    Case("receipts of many events", _edu("m.receipt", _receipts)),
    Case("a device of many keys", _edu("m.device_list_update", _device)),
    Case("messages to a device", _edu("m.direct_to_device", _to_device)),
    Case("300 invites of one server", _invites, mib=64),
    Case("2,400 messages to a device", _to_devices, mib=64),
    Case("twenty slow files of one server", _slow_files),
    *(
        Case(f"a client's {kind}", _client_body("PUT", f"{CLIENT}/user/ROMEO/account_data/m.x", make))
        for kind, make in VALUES.items()
    ),
    Case("createRoom of a megabyte of state", _client_body("POST", f"{CLIENT}/createRoom", _state)),
    Case(
        "a query for the keys of many",
        _client_body(
            "POST",
            f"{CLIENT}/keys/query",
            lambda size: (
                b'{"device_keys":{'
                + b",".join(b'"@%x:127.0.0.1:9":[]' % n for n in range(size // 22))
                + b"}}"
            ),
        ),
    ),
    Case(
        "a filter of many rooms",
        _client_body(
            "POST",
            f"{CLIENT}/user/ROMEO/filter",
            lambda size: b'{"room":{"rooms":' + VALUES["strings"](size - 32) + b"}}",
        ),
    ),
    *(
        Case(f"a thumbnail of a {name}", _picture(kind, make), mib=PICTURE)
        for name, (kind, make) in pictures().items()
    ),
]

#: 30 people are shown up to 4 MiB of history each.
_HISTORIES = 64.0
XMPP: list[Case] = [
    Case(f"stanzas: {name}", run, mib=_HISTORIES if "history" in name else MEMORY)
    for name, run in STANZAS.items()
]

ROOMS: list[Case] = [
    Case(f"a join of {name}", run, mib=mib, held=held) for name, (run, mib, held) in JOINS.items()
]

CASES: list[Case] = [*IN, *XMPP, *ROOMS, *OUT]
