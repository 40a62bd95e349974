"""A homeserver that is only a key and a sharp tongue: it joins a room, signs whatever it is told to sign, and
sends bytes that no real server would.
"""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import orjson
from aiohttp import web
from hansa_matrix.proto.canonical_json import dumps_canonical
from hansa_matrix.proto.pdu import pdu_from_raw
from yarl import URL

from peers.ca import PrivateCA
from peers.event_forge import EventForge, JoinedRoom, now
from peers.process import free_port

V1, V2 = "/_matrix/federation/v1", "/_matrix/federation/v2"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer. ``body`` is its JSON, or ``{}`` where it has none."""

    status: int
    body: Any

    def __str__(self) -> str:
        code = self.body.get("errcode", "") if isinstance(self.body, dict) else ""
        return f"{self.status} {code}".strip()


class FakeHomeserver(EventForge):
    """``heard`` are the texts of the messages that it was sent."""

    def __init__(self, ca: PrivateCA) -> None:
        self.port = free_port()
        super().__init__(f"127.0.0.1:{self.port}")
        self.rooms: dict[str, JoinedRoom] = {}
        self.heard: list[str] = []
        chain, key = ca.issue(f"stranger-{self.port}", "127.0.0.1")
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(chain, key)
        self.trust = ssl.create_default_context(cafile=str(ca.certificate))
        self._runner: web.AppRunner | None = None
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> Self:
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_get("/_matrix/key/v2/server", self._keys)
        app.router.add_put(f"{V1}/send/{{txn}}", self._receive)
        app.router.add_post(f"{V1}/get_missing_events/{{room}}", self._nothing_missing)
        app.router.add_route("*", "/{anything:.*}", self._unknown)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls).start()
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.trust))
        return self

    async def stop(self) -> None:
        if self._http is not None:
            await self._http.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _keys(self, _: web.Request) -> web.Response:
        return _json(self.keys())

    async def _receive(self, request: web.Request) -> web.Response:
        answer = {}
        for raw in orjson.loads(await request.read())["pdus"]:
            room = self.rooms[raw["room_id"]]
            pdu = pdu_from_raw({k: v for k, v in raw.items() if k != "unsigned"}, room.version)
            room.keep(pdu)
            answer[pdu.event_id] = {}
            if pdu.type == "m.room.message":
                self.heard.append(str(pdu.content.get("body")))
        return _json({"pdus": answer})

    async def _nothing_missing(self, _: web.Request) -> web.Response:
        return _json({"events": []})

    async def _unknown(self, request: web.Request) -> web.Response:
        await request.read()
        return _json({"errcode": "M_NOT_FOUND", "error": "not here"}, 404)

    async def raw(
        self,
        method: str,
        destination: str,
        target: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    ) -> Answer:
        """One request with exactly these headers and this body."""
        assert self._http is not None
        url = URL(f"https://{destination}{target}", encoded=True)
        data = io.BytesIO(content) if content is not None else None
        async with self._http.request(method, url, data=data, headers=headers) as answer:
            got = await answer.read()
            assert answer.content_type == "application/json", got[:200]
            return Answer(answer.status, json.loads(got or b"{}"))

    async def request(
        self, method: str, destination: str, target: str, body: Any = None, **signing: Any
    ) -> Answer:
        """One signed request. ``body`` is sent as canonical JSON, or as it stands if it is bytes."""
        content = body if isinstance(body, bytes) else dumps_canonical(body) if body is not None else None
        authorization = self.signed(method, destination, target, content, **signing)
        return await self.raw(method, destination, target, content, {"Authorization": authorization})

    async def send(self, destination: str, *pdus: Any, edus: Any = None, **more: Any) -> Answer:
        """One transaction."""
        body = {"origin": self.name, "origin_server_ts": now(), "pdus": list(pdus), **more}
        if edus is not None:
            body["edus"] = edus
        return await self.request("PUT", destination, f"{V1}/send/{secrets.token_hex(8)}", body)

    async def join(self, destination: str, alias: str, localpart: str) -> JoinedRoom:
        """Enter a room as ``localpart``."""
        found = await self.request(
            "GET", destination, f"{V1}/query/directory?room_alias={quote(alias, safe='')}"
        )
        room_id, user = found.body["room_id"], f"@{localpart}:{self.name}"
        where = f"{quote(room_id, safe='')}/{quote(user, safe='')}"
        made = await self.request("GET", destination, f"{V1}/make_join/{where}?ver=12&ver=11&ver=10")
        join = self.joining(made.body, localpart)
        target = f"{V2}/send_join/{quote(room_id, safe='')}/{quote(join.event_id, safe='')}"
        joined = await self.request("PUT", destination, target, join.raw)
        assert joined.status == 200, joined
        room = self.entered(join, made.body["room_version"], joined.body["state"])
        self.rooms[room_id] = room
        return room

    async def say(self, destination: str, room: JoinedRoom, text: str) -> Answer:
        """A message as it should be."""
        raw = self.message(room, text)
        answer = await self.send(destination, raw)
        if answer.status == 200:
            room.keep(pdu_from_raw(raw, room.version))
        return answer


async def plain_http(
    port: int, data: bytes, trust: ssl.SSLContext, *, later: bytes = b"", seconds: float = 40.0
) -> bytes:
    """Returns the answer of a server to these bytes over TLS: one whole answer, or the bytes until it closed.
    ``later`` goes out a moment after ``data``, as another segment.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="127.0.0.1")
    got = b""
    try:
        writer.write(data)
        if later:
            await asyncio.sleep(0.1)
            writer.write(later)
        async with asyncio.timeout(seconds):
            while part := await reader.read(65_536):
                got += part
                if _whole(got):
                    break
    except ConnectionError:
        return got
    finally:
        writer.transport.abort()
    return got


def _whole(got: bytes) -> bool:
    head, split, body = got.partition(b"\r\n\r\n")
    if not split:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return False


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")
