"""People with an account on a Hansa in memory, who ask as their clients do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import orjson
from hansa import Request, Response
from hansa.app import App
from hansa.http.listener import Dispatcher
from hansa_matrix.testing import MatrixHarness
from matrix.server_with_peer import OURS, ServerWithPeer, server_with_peer

ROOT = "/_matrix/client/v3"


def part(text: str) -> str:
    """One segment of a path."""
    return quote(text, safe="")


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status} {body}")
        self.status, self.body = status, body
        self.code = body.get("errcode") if isinstance(body, dict) else None


class AnonymousClient:
    """A client without a token."""

    def __init__(self, app: App) -> None:
        self.dispatcher = Dispatcher(app.routers, app.count)
        self.token = ""
        self.address = "192.0.2.1"

    async def whole(
        self, method: str, target: str, body: Any = None, *, data: bytes | None = None, **headers: str
    ) -> Response:
        """One request; ``target`` is below ``/_matrix/client/v3`` unless it begins with ``/_``."""
        content = data if data is not None else orjson.dumps(body) if body is not None else b""
        target = target if target.startswith(("/_", "/.")) else ROOT + target
        query = [
            (unquote(k), unquote(v.replace("+", " ")))
            for k, _, v in (p.partition("=") for p in target.partition("?")[2].split("&") if p)
        ]
        request = Request(
            method=method,
            target=target,
            host=OURS,
            query=query,
            headers={k.replace("_", "-"): v for k, v in headers.items()},
            authorizations=[f"Bearer {self.token}"] if self.token else [],
            remote=self.address,
        )

        async def read(limit: int) -> bytes | None:
            return content if len(content) <= limit else None

        async def stream(limit: int) -> AsyncIterator[bytes]:
            for at in range(0, len(content), 1000):
                yield content[at : at + 1000]

        return await self.dispatcher.answer(request, read, stream)

    async def ask(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON."""
        answer = await self.whole(method, target, body)
        if answer.chunks is not None:
            return answer.status, orjson.loads(b"".join([chunk async for chunk in answer.chunks]))
        return answer.status, orjson.loads(answer.body)

    async def call(self, method: str, target: str, body: Any = None) -> Any:
        """Returns the JSON of a successful answer. Raises ``Refused``."""
        status, found = await self.ask(method, target, body)
        if status != 200:
            raise Refused(status, found)
        return found

    async def get(self, target: str) -> Any:
        return await self.call("GET", target)


class LocalUser(AnonymousClient):
    """A user with a device; ``since`` is the position of the client."""

    def __init__(self, app: App, user: str, token: str, device: str) -> None:
        super().__init__(app)
        self.user, self.token, self.device = user, token, device
        self.since = ""
        self._txn = 0

    async def sync(self, more: str = "", *, timeout: int = 0) -> Any:
        """Syncs once and returns the answer."""
        since = f"&since={self.since}" if self.since else ""
        found = await self.get(f"/sync?timeout={timeout}{since}{more}")
        self.since = found["next_batch"]
        return found

    async def create(self, **options: Any) -> str:
        return str((await self.call("POST", "/createRoom", options))["room_id"])

    async def join(self, room: str) -> str:
        return str((await self.call("POST", f"/join/{part(room)}", {}))["room_id"])

    async def say(self, room: str, text: str = "", type_: str = "m.room.message", **content: Any) -> str:
        self._txn += 1
        body = content or {"msgtype": "m.text", "body": text}
        path = f"/rooms/{part(room)}/send/{type_}/{self._txn}"
        return str((await self.call("PUT", path, body))["event_id"])

    async def state(self, room: str, type_: str, content: Any, key: str = "") -> str:
        path = f"/rooms/{part(room)}/state/{type_}/{part(key)}"
        return str((await self.call("PUT", path, content))["event_id"])

    async def room(self, room: str, action: str, body: Any = None) -> Any:
        return await self.call("POST", f"/rooms/{part(room)}/{action}", body or {})

    async def texts(self, room: str) -> list[str]:
        """Returns the messages that this user may read, oldest first."""
        found = await self.get(f"/rooms/{part(room)}/messages?dir=b&limit=100")
        return [e["content"].get("body") for e in found["chunk"][::-1] if e["type"] == "m.room.message"]


class MatrixServer:
    """``wire`` is the same Hansa as other servers meet it."""

    def __init__(self, wire: ServerWithPeer) -> None:
        self.wire = wire
        self.app = wire.app

    @property
    def matrix(self) -> MatrixHarness:
        """The parts of the network."""
        return MatrixHarness(self.app.network("matrix"))

    @property
    def anybody(self) -> AnonymousClient:
        return AnonymousClient(self.app)

    async def person(self, name: str, device: str = "") -> LocalUser:
        """A new account, or another device of one."""
        body = {"username": name, "password": f"of {name}", "auth": {"type": "m.login.dummy"}}
        if device:
            body["device_id"] = device
        status, found = await self.anybody.ask("POST", "/register", body)
        if status != 200:
            who = {"type": "m.id.user", "user": name}
            login = {"type": "m.login.password", "identifier": who, "password": f"of {name}"}
            found = await self.anybody.call(
                "POST", "/login", login | ({"device_id": device} if device else {})
            )
        return LocalUser(self.app, found["user_id"], found["access_token"], found["device_id"])


@asynccontextmanager
async def matrix_server(folder: Path, version: str = "12", **options: Any) -> AsyncIterator[MatrixServer]:
    """Open to everybody, with passwords that cost nothing."""
    cheap = {"argon2_memory_kib": 8, "argon2_time_cost": 1, "client_rate": 0, "registration": "open"}
    async with server_with_peer(folder, version, **(cheap | options)) as wire:
        yield MatrixServer(wire)
