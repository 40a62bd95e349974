"""One fake homeserver on loopback: serves its keys and its rooms, sends transactions with signed events."""

from __future__ import annotations

import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp
import orjson
from aiohttp import web
from hansa_matrix.crypto import SigningKey
from hansa_matrix.proto.canonical_json import dumps_canonical
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.servers.key_document import DAY, key_document
from hansa_matrix.proto.servers.xmatrix import format_header
from hansa_matrix.proto.signing import signable_bytes, with_signature
from peers.ca import PrivateCA
from peers.process import free_port
from yarl import URL

from bench.room import FakeRoom, FakeServer


class NotTaken(Exception):
    """A transaction was not answered with 200, or the peer complains of one of its events."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status


class Origin(FakeServer):
    """``rooms`` are found by id and alias; ``heard`` is told every event that a peer sends."""

    def __init__(self, ca: PrivateCA) -> None:
        self.port = free_port()
        super().__init__(f"127.0.0.1:{self.port}", SigningKey.from_seed("ed25519:b", secrets.token_bytes(32)))
        self.rooms: list[FakeRoom] = []
        self.heard: Callable[[Pdu], None] = lambda _: None
        chain, key = ca.issue(f"origin-{self.port}", "127.0.0.1")
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(chain, key)
        self._trust = ssl.create_default_context(cafile=str(ca.certificate))
        self._runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None
        self._sent = 0

    async def start(self) -> Self:
        app = web.Application(client_max_size=16 * 1024 * 1024)
        v1, v2 = "/_matrix/federation/v1", "/_matrix/federation/v2"
        app.router.add_get("/_matrix/key/v2/server", self._keys)
        app.router.add_get(f"{v1}/query/directory", self._directory)
        app.router.add_get(f"{v1}/make_join/{{room}}/{{user}}", self._make_join)
        app.router.add_put(f"{v2}/send_join/{{room}}/{{event}}", self._send_join)
        app.router.add_put(f"{v1}/send/{{txn}}", self._receive)
        app.router.add_post(f"{v1}/get_missing_events/{{room}}", self._missing)
        app.router.add_get(f"{v1}/event/{{event}}", self._event)
        app.router.add_get(f"{v1}/state/{{room}}", self._state)
        app.router.add_get(f"{v1}/state_ids/{{room}}", self._state)
        app.router.add_route("*", "/{anything:.*}", self._nothing)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls).start()
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._trust))
        return self

    async def stop(self) -> None:
        if self._http is not None:
            await self._http.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _room(self, room_id: str) -> FakeRoom:
        found = next((room for room in self.rooms if room_id in {room.room_id, room.alias}), None)
        if found is None:
            raise web.HTTPNotFound(text='{"errcode": "M_NOT_FOUND", "error": "no such room"}')
        return found

    async def _keys(self, _: web.Request) -> web.Response:
        until = time.time_ns() // 1_000_000 + DAY
        doc = key_document(self.name, {self.key.key_id: self.key.public}, until)
        signed = with_signature(doc, self.name, self.key.key_id, self.key.sign(signable_bytes(doc)))
        return _json(signed)

    async def _directory(self, request: web.Request) -> web.Response:
        room = self._room(request.query.get("room_alias", ""))
        return _json({"room_id": room.room_id, "servers": [self.name]})

    async def _make_join(self, request: web.Request) -> web.Response:
        return _json(self._room(request.match_info["room"]).template(request.match_info["user"]))

    async def _send_join(self, request: web.Request) -> web.Response:
        room = self._room(request.match_info["room"])
        return _json(room.join(self.name, orjson.loads(await request.read())))

    async def _receive(self, request: web.Request) -> web.Response:
        answer = {}
        for raw in orjson.loads(await request.read())["pdus"]:
            pdu = self._room(raw["room_id"]).received(raw)
            answer[pdu.event_id] = {}
            self.heard(pdu)
        return _json({"pdus": answer})

    async def _missing(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        room = self._room(request.match_info["room"])
        found = room.missing(asked["earliest_events"], asked["latest_events"], asked.get("limit", 10))
        return _json({"events": [pdu.raw for pdu in found]})

    async def _event(self, request: web.Request) -> web.Response:
        event_id = request.match_info["event"]
        found = [room.events[event_id].raw for room in self.rooms if event_id in room.events]
        return _json({"origin": self.name, "origin_server_ts": 0, "pdus": found[:1]})

    async def _state(self, request: web.Request) -> web.Response:
        room = self._room(request.match_info["room"])
        state = room.before.get(request.query.get("event_id", ""), room.state).values()
        if "/state_ids/" in request.path:
            return _json({"pdu_ids": [p.event_id for p in state], "auth_chain_ids": list(room.auth)})
        chain = room.auth.values()
        return _json({"pdus": [p.raw for p in state], "auth_chain": [p.raw for p in chain]})

    async def _nothing(self, request: web.Request) -> web.Response:
        await request.read()
        return web.Response(
            status=404,
            body=b'{"errcode": "M_UNRECOGNIZED", "error": "not here"}',
            content_type="application/json",
        )

    async def send(self, destination: str, pdus: Sequence[Pdu]) -> float:
        """One transaction; the seconds until its 200. Raises ``NotTaken``."""
        self._sent += 1
        target = f"/_matrix/federation/v1/send/{secrets.token_hex(4)}{self._sent}"
        body = {
            "origin": self.name,
            "origin_server_ts": time.time_ns() // 1_000_000,
            "pdus": [pdu.raw for pdu in pdus],
        }
        got, took = await self.request("PUT", destination, target, body)
        problems = {e: p for e, p in orjson.loads(got)["pdus"].items() if p}
        if problems:
            raise NotTaken(200, f"the peer complains: {problems}")
        return took

    async def request(
        self, method: str, destination: str, target: str, body: Any = None
    ) -> tuple[bytes, float]:
        """One signed request: the answer, and the seconds until it was there. Raises ``NotTaken``."""
        assert self._http is not None
        signed = {"method": method, "uri": target, "origin": self.name, "destination": destination}
        content = dumps_canonical(body) if body is not None else None
        whole = {**signed, "content": orjson.Fragment(content)} if content is not None else signed
        headers = {
            "Authorization": format_header(
                self.name, destination, self.key.key_id, self.key.sign(dumps_canonical(whole))
            ),
            "Content-Type": "application/json",
        }
        url = URL(f"https://{destination}{target}", encoded=True)
        began = time.perf_counter()
        async with self._http.request(method, url, data=content, headers=headers) as answer:
            got = await answer.read()
            took = time.perf_counter() - began
        if answer.status != 200:
            raise NotTaken(answer.status, repr(got[:300]))
        return got, took


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


async def origins(ca: PrivateCA, count: int) -> list[Origin]:
    """``count`` servers, started."""
    return [await Origin(ca).start() for _ in range(count)]


def keys_file(found: Sequence[Origin], folder: Path) -> Path:
    """Their public keys as the floor server reads them."""
    path = folder / "keys.json"
    path.write_bytes(orjson.dumps({o.name: {o.key.key_id: o.key.public} for o in found}))
    return path
