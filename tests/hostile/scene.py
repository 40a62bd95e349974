"""A Hansa under a meter, people who are what they seem, and servers that answer whatever a case wants."""

from __future__ import annotations

import asyncio
import io
import secrets
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import orjson
from aiohttp import web
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from hostile.inputs import zipped
from hostile.meter import Meter
from peers.ca import PrivateCA
from peers.event_forge import JoinedRoom, now
from peers.fake_homeserver import V1, V2, Answer, FakeHomeserver
from peers.hansa import Hansa
from peers.process import free_port
from peers.raw_xmpp_server import RawXmppLink, RawXmppServer
from peers.synapse import MatrixUser
from peers.waiting import until
from yarl import URL

#: The domain of a component whose XMPP server says whatever a case wants, and its room.
COMPONENT = "rogue.example"
MUC = f"square@{COMPONENT}"
_ROOMS = (
    '\n[networks.rogue]\nplugin = "xmpp"\ncomponent = "COMPONENT"\nport = PORT\nsecret = "SECRET"\n'
    '\n[[rooms]]\nlinks = ["matrix:#den"]\n\n[[rooms]]\nlinks = ["rogue:square"]\n'
)


def part(text: str) -> str:
    """One segment of a path."""
    return quote(text, safe="")


class Evil(FakeHomeserver):
    """``answers`` are by a piece of the request's path: a body that goes out zipped, or a function that answers.
    The others are answered as by any stranger.
    """

    def __init__(self, ca: PrivateCA) -> None:
        super().__init__(ca)
        self.answers: dict[str, bytes | Callable[[web.Request], Any]] = {}
        self.den: JoinedRoom
        self.asked: list[str] = []

    async def start(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{anything:.*}", self._any)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls).start()
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.trust))
        return self

    def says(self, piece: str, body: bytes) -> None:
        """Answer requests for a path with a body; it is zipped here, once."""
        self.answers[piece] = zipped(body)

    async def _any(self, request: web.Request) -> web.StreamResponse:
        for piece, answer in self.answers.items():
            if piece in request.path:
                self.asked.append(request.path)
                if callable(answer):
                    found: web.StreamResponse = await answer(request)
                    return found
                await request.read()
                headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
                return web.Response(body=answer, headers=headers)
        if request.path == "/_matrix/key/v2/server":
            return await self._keys(request)
        if "/send/" in request.path and request.method == "PUT" and V1 in request.path:
            return await self._receive(request)
        return await self._unknown(request)

    async def _receive(self, request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"pdus": {}})

    async def has_answered(self, piece: str) -> bool:
        """True if a request for that was answered with ``answers``."""
        return any(piece in path for path in self.asked)

    def template(self, room: JoinedRoom, user: str, step: str) -> Callable[[web.Request], Any]:
        """Answers ``make_join`` and ``make_knock`` as they should be."""
        around = JoinedRoom(room.room_id, room.version.id, user)
        around.state, around.tips = room.state, room.tips

        async def answer(request: web.Request) -> web.Response:
            del request
            event = self.draft(around, "m.room.member", {"membership": step}, user)
            body = {"room_version": room.version.id, "event": {**event, "origin": self.name}}
            return web.json_response(body)

        return answer

    def founded(self, user: str, rule: str = "public") -> tuple[JoinedRoom, list[dict[str, Any]]]:
        """A room of version 11 of this server's own, and its state as it goes into answers."""
        room = JoinedRoom(f"!{secrets.token_hex(8)}:{self.name}", "11", user)
        state: list[dict[str, Any]] = []
        steps: list[tuple[str, str, dict[str, Any]]] = [
            ("m.room.create", "", {"room_version": "11"}),
            ("m.room.member", user, {"membership": "join"}),
            ("m.room.power_levels", "", {"users": {user: 100}}),
            ("m.room.join_rules", "", {"join_rule": rule}),
        ]
        for kind, key, content in steps:
            raw = self.finish(room, self.draft(room, kind, content, key))
            state.append(raw)
            room.keep(pdu_from_raw(raw, room.version))
        return room, state


class Scene:
    """``evil`` and its person are in the room ``den`` with ``romeo``, who has an account. ``friend`` is a server
    that does no harm.
    """

    def __init__(self, folder: Path, ca: PrivateCA) -> None:
        self.ca = ca
        self.cleanup = AsyncExitStack()
        self.evil, self.friend, self.notary = Evil(ca), Evil(ca), Evil(ca)
        self.silent_port = free_port()
        self.rogue = RawXmppServer(free_port())
        rooms = _ROOMS.replace("COMPONENT", COMPONENT).replace("PORT", str(self.rogue.port))
        self.hansa = Hansa(
            folder,
            ca,
            f'trusted_key_servers = ["{self.notary.name}"]\nclient_rate = 100000\nclient_burst = 100000\n'
            + rooms.replace("SECRET", self.rogue.secret),
        )
        self.meter = Meter(self.hansa)
        self.romeo: MatrixUser
        self._number = 0

    async def start(self) -> Self:
        undo = self.cleanup.push_async_callback
        for peer in (self.evil, self.friend, self.notary, self.rogue):
            undo(peer.stop)
            await peer.start()
        silent = await asyncio.start_server(self._silent, "127.0.0.1", self.silent_port)
        self.cleanup.callback(silent.close)
        undo(self.hansa.stop)
        await self.hansa.start()
        self.romeo = await self.hansa.user("romeo")
        undo(self.romeo.close)
        alias = f"#den:{self.name}"
        self.evil.den = await self.evil.join(self.name, alias, "mallory")
        await self.romeo.join(alias)
        await until("the component is connected", self._linked)
        self.admin = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self.hansa.folder / "hansa.sock"))
        )
        undo(self.admin.close)
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=ssl.create_default_context(cafile=str(self.ca.certificate)), limit=0
            )
        )
        undo(self.http.close)
        return self

    @property
    def name(self) -> str:
        return self.hansa.name

    @property
    def link(self) -> RawXmppLink:
        """The stream of our component."""
        return self.rogue.links[COMPONENT]

    async def _linked(self) -> bool:
        return COMPONENT in self.rogue.links and self.link.up

    @property
    def den(self) -> JoinedRoom:
        return self.evil.den

    async def fresh(self) -> Evil:
        """A server that nobody has met."""
        evil = Evil(self.ca)
        self.cleanup.push_async_callback(evil.stop)
        return await evil.start()

    async def meet(self, evil: Evil) -> None:
        """A room of Romeo's that a server's person enters: its ``den``."""
        alias = f"den{secrets.token_hex(4)}"
        await self.romeo.create_room("12", room_alias_name=alias)
        evil.den = await evil.join(self.name, f"#{alias}:{self.name}", "mallory")

    @property
    def silent(self) -> str:
        """A server that takes connections and says nothing."""
        return f"127.0.0.1:{self.silent_port}"

    async def _silent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65_536):
                pass
        finally:
            writer.close()

    async def enter_elsewhere(self, evil: Evil) -> str:
        """Romeo enters a room of a server's, whose past that server alone has; its id."""
        room, state = evil.founded(f"@mallory:{evil.name}")
        last = evil.message(room, "the last")
        room.keep(pdu_from_raw(last, room.version))
        evil.answers["/make_join/"] = evil.template(room, self.romeo.id, "join")
        whole = {"state": state, "auth_chain": state, "servers_in_room": [evil.name]}
        evil.says("/send_join/", orjson.dumps(whole))
        target = f"/_matrix/client/v3/join/{part(room.room_id)}?server_name={part(evil.name)}"
        try:
            assert await self.as_romeo("POST", target, b"{}") == 200
        finally:
            del evil.answers["/make_join/"], evil.answers["/send_join/"]
        return room.room_id

    def number(self) -> int:
        """One that nobody had."""
        self._number += 1
        return self._number

    async def raw(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        seconds: float = 60.0,
    ) -> int:
        """The status of one request, 0 where the connection was closed."""
        url = URL(f"https://127.0.0.1:{self.hansa.port}{target}", encoded=True)
        try:
            async with (
                asyncio.timeout(seconds),
                self.http.request(
                    method, url, data=io.BytesIO(body) if body is not None else None, headers=headers
                ) as answer,
            ):
                async for _ in answer.content.iter_chunked(65_536):
                    pass
                return answer.status
        except (aiohttp.ClientError, ConnectionError):
            return 0

    async def as_romeo(self, method: str, target: str, body: bytes | None = None) -> int:
        """The status of a request with Romeo's token."""
        return await self.raw(method, target, body, {"Authorization": f"Bearer {self.romeo.token}"})

    async def signed(self, method: str, target: str, content: bytes | None = None) -> int:
        """The status of a request that the evil server signs."""
        authorization = self.evil.signed(method, self.name, target, content)
        return await self.raw(method, target, content, {"Authorization": authorization})

    async def send(self, *pdus: Any, edus: Any = ()) -> Answer:
        """A transaction of the evil server's."""
        return await self.evil.send(self.name, *pdus, edus=list(edus))

    async def invite(self, room: JoinedRoom, state: list[dict[str, Any]], user: str) -> int:
        """The evil server invites a local user into a room of its own."""
        draft = self.evil.draft(room, "m.room.member", {"membership": "invite"}, user)
        event = self.evil.finish(room, draft)
        stripped = [{k: e[k] for k in ("type", "state_key", "sender", "content")} for e in state]
        body = orjson.dumps({"room_version": room.version.id, "event": event, "invite_room_state": stripped})
        name = event_id(event, room.version)
        return await self.signed("PUT", f"{V2}/invite/{part(room.room_id)}/{part(name)}", body)

    def message(self, text: str = "x", **over: Any) -> dict[str, Any]:
        """A message of the evil server's person in the den."""
        return self.evil.message(self.den, text, **over)

    async def healthy(self) -> None:
        """The administrator is answered, and Romeo is."""
        async with asyncio.timeout(20), self.admin.get("http://localhost/health") as answer:
            assert answer.status == 200, await answer.text()
        assert await self.as_romeo("GET", "/_matrix/client/v3/account/whoami") == 200


def stamp() -> int:
    """Milliseconds since 1970."""
    return now()
