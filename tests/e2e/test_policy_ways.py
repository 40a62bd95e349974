"""A word goes by no way from one person to another, over real HTTP: not here, not out to another server, not in."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from e2e.policy_ways import FAIR, WAYS, WORD, Client, Scene, part
from peers.hansa import Hansa

pytestmark = pytest.mark.e2e

_OPEN = "registration = 'open'\nargon2_memory_kib = 8\nargon2_time_cost = 1\nclient_rate = 0\npresence_enabled = true\n"
_WORDS = f'\n[policies.words]\nplugin = "governance"\nwords = ["{WORD}"]\n'
_TAG = re.compile(rb"zq\d{3}")
#: What is said to oneself, to this server or to its operator, or is not said at all: it is taken, and goes nowhere.
_FREE = {
    "typing": "what an EDU says beside what it has to is not sent",
    "a report": "to the operator of this server",
    "a login: initial_device_display_name": "the device goes without its name",
}


async def person(server: Hansa, name: str, http: aiohttp.ClientSession) -> Client:
    body = {"username": name, "password": "pw", "auth": {"type": "m.login.dummy"}}
    async with http.post(f"{server.url}/_matrix/client/v3/register", json=body) as answer:
        found = await answer.json()
        assert answer.status == 200, found
    return Client(
        url=server.url,
        server=server.name,
        user=found["user_id"],
        name=name,
        token=found["access_token"],
        device=found["device_id"],
        http=http,
    )


@asynccontextmanager
async def town(folder: Any, ca: Any) -> AsyncIterator[tuple[Hansa, Hansa, aiohttp.ClientSession]]:
    """A server with a policy, and one without any."""
    strict, free = Hansa(folder / "strict", ca, _OPEN + _WORDS), Hansa(folder / "free", ca, _OPEN)
    tls = ssl.create_default_context(cafile=str(ca.certificate))
    try:
        await asyncio.gather(strict.start(), free.start())
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as http:
            yield strict, free, http
    finally:
        await asyncio.gather(strict.stop(), free.stop())


async def sees(reader: Client, room: str, event: str) -> None:
    async with asyncio.timeout(30):
        while (await reader.ask("GET", f"/rooms/{part(room)}/event/{part(event)}"))[0] != 200:
            await asyncio.sleep(0.05)


async def read(reader: Client, rooms: list[str], author: Client, event: str) -> dict[str, set[str]]:
    """Returns the tags in everything that a user can request, and where."""
    found: dict[str, set[str]] = {}

    async def look(method: str, path: str, body: bytes | None = None) -> bytes:
        _, headers, answer = await reader.whole(method, path, body)
        for tag in _TAG.findall(answer + repr(headers).encode()):
            found.setdefault(tag.decode(), set()).add(path[:60])
        return answer

    for path in ("/sync?timeout=0&full_state=true", "/publicRooms", "/notifications?limit=1000"):
        await look("GET", path)
    await look("GET", "/sync?timeout=0&filter=" + part('{"room":{"timeline":{"limit":500}}}'))
    await look("POST", "/user_directory/search", b'{"search_term":"","limit":50}')
    for path in ("", "/displayname"):
        await look("GET", f"/profile/{part(author.user)}{path}")
    await look("GET", f"/presence/{part(author.user)}/status")
    await look("POST", "/keys/query", f'{{"device_keys":{{"{author.user}":[]}}}}'.encode())
    wanted = f'{{"one_time_keys":{{"{author.user}":{{"{author.device}":"signed_curve25519"}}}}}}'
    await look("POST", "/keys/claim", wanted.encode())
    for room in rooms:
        here = f"/rooms/{part(room)}"
        for path in ("messages?dir=b&limit=1000", "state", "members", "initialSync", "aliases"):
            await look("GET", f"{here}/{path}")
        for path in (f"v1{here}/hierarchy", f"v1/room_summary/{part(room)}", f"v1{here}/threads"):
            await look("GET", f"/_matrix/client/{path}")
    here = f"/rooms/{part(rooms[0])}"
    await look("GET", f"/_matrix/client/v1{here}/relations/{part(event)}?limit=100")
    for path in ("event", "context"):
        await look("GET", f"{here}/{path}/{part(event)}")
    files = await look("GET", f"{here}/messages?dir=b&limit=1000")
    for file in re.findall(rb"mxc://127[^\"]+", files):
        await look("GET", f"/_matrix/client/v1/media/download/{file[6:].decode()}")
    return found


async def tried(scene: Scene) -> tuple[dict[str, tuple[str, int, Any]], list[str]]:
    """Every way, by its tag: what was answered; and the rooms that were made."""
    answers: dict[str, tuple[str, int, Any]] = {}
    rooms: list[str] = []
    for number, (name, way) in enumerate(WAYS.items()):
        tag = f"zq{number:03d}"
        status, answer = await way(scene, f"{WORD} {tag}")
        answers[tag] = (name, status, answer)
        if status == 200 and "room_id" in answer:
            rooms.append(answer["room_id"])
    return answers, rooms


async def scene(author: Client, readers: list[Client]) -> Scene:
    room = (await author.call("POST", "/createRoom", {"preset": "public_chat", "visibility": "public"}))[
        "room_id"
    ]
    for reader in readers:
        await reader.call("POST", f"/join/{part(room)}?via={author.server}", {})
    root = (await author.say(room, FAIR))[1]["event_id"]
    for other in ("@a:x.example", "@b:x.example"):
        await author.call("POST", f"/rooms/{part(room)}/ban", {"user_id": other})
    for reader in readers:
        await sees(reader, room, root)
    return Scene(me=author, room=room, root=root, others=tuple(reader.user for reader in readers))


async def settled(made: Scene, readers: list[Client]) -> None:
    """Waits until the last message has arrived, and the queues for other servers are empty."""
    for _ in range(2):
        _, answer = await made.me.say(made.room, FAIR)
        for reader in readers:
            await sees(reader, made.room, answer["event_id"])


async def test_a_word_does_not_leave_who_says_it(tmp_path, ca):
    """A local user sends the word: no other local user reads it, and no user of another server."""
    async with town(tmp_path, ca) as (strict, free, http):
        mallory, alice = await person(strict, "mallory", http), await person(strict, "alice", http)
        bert = await person(free, "bert", http)
        made = await scene(mallory, [alice, bert])
        answers, rooms = await tried(made)
        for name, status, answer in answers.values():
            if name in _FREE:
                assert status == 200, (name, answer)
            elif status == 403:
                assert answer["dev.hansa.decision"].startswith("d-"), (name, answer)
            else:
                assert status == 400, (name, status, answer)
        assert rooms == []
        await settled(made, [alice, bert])
        for reader in (alice, bert):
            found = await read(reader, [made.room], mallory, made.root)
            assert {answers[tag][0]: where for tag, where in found.items()} == {}, reader.user


async def test_a_word_does_not_come_in(tmp_path, ca):
    """A user of another server sends the word, where no policy forbids it: users there read it, and no local
    user.
    """
    async with town(tmp_path, ca) as (strict, free, http):
        alice, bob = await person(strict, "alice", http), await person(strict, "bob", http)
        bert, berta = await person(free, "bert", http), await person(free, "berta", http)
        made = await scene(bert, [alice, bob, berta])
        answers, rooms = await tried(made)
        for room in rooms:
            for reader in (alice, berta):
                await reader.ask("POST", f"/join/{part(room)}?via={free.name}", {})
        await settled(made, [alice, bob, berta])
        there = await read(berta, [made.room, *rooms], bert, made.root)
        assert len(there) > len(WAYS) // 2, "or this search finds nothing"
        for reader in (alice, bob):
            found = await read(reader, [made.room, *rooms], bert, made.root)
            assert {answers[tag][0]: where for tag, where in found.items()} == {}, reader.user
        assert "Traceback" not in strict.log()
