"""A Matrix network in memory, with a room that a forger is in: what comes in by its routes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote

import hansa_matrix
import orjson
from hansa import HttpError, HttpRequest, HttpResponse, Request, Response
from hansa.app import App
from hansa.http.listener import Dispatcher
from hansa.setup import PolicySetup
from hansa.store.base import Store
from hansa.testing.harness import UnreachableHttp, run_hansa
from hansa_matrix.config import Config
from hansa_matrix.crypto import SigningKey
from hansa_matrix.proto.canonical_json import dumps_canonical
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.room_versions import VERSIONS
from hansa_matrix.testing import MatrixHarness
from peers.event_forge import EventForge, JoinedRoom

OURS, THEIRS = "127.0.0.1:1", "127.0.0.2:2"
#: Every room version, as make_join asks for them.
OFFERED = "&".join(f"ver={version}" for version in VERSIONS)
V1, V2 = "/_matrix/federation/v1", "/_matrix/federation/v2"


#: What the forger's server answers to a request, if anything: ``(status, JSON)``, or more than JSON.
Answer = Callable[[HttpRequest], tuple[int, Any] | HttpResponse | None]


class _ScriptedPeer(UnreachableHttp):
    """Everybody answers with the forger's keys, and with nothing else but what ``answer`` says."""

    def __init__(self, forger: EventForge) -> None:
        self.answer: Answer = lambda _: None
        self.keys: Answer = lambda _: (200, forger.keys())
        self.asked: list[HttpRequest] = []

    async def request(self, request: HttpRequest) -> HttpResponse:
        self.asked.append(request)
        if request.target == "/_matrix/key/v2/server":
            found = self.keys(request)
            if not isinstance(found, tuple):
                raise HttpError(f"{request.host_header} is not there")
            return HttpResponse(status=found[0], body=orjson.dumps(found[1]))
        given = self.answer(request) or (404, {"errcode": "M_NOT_FOUND", "error": "no"})
        if isinstance(given, HttpResponse):
            return given
        return HttpResponse(status=given[0], body=dumps_canonical(given[1]))


class ServerWithPeer:
    """``room`` and ``other`` are local rooms that the forger's user is in."""

    def __init__(self, app: App, forger: EventForge, peer: _ScriptedPeer) -> None:
        self.app, self.forger, self.peer = app, forger, peer
        self.dispatcher = Dispatcher(app.routers, app.count)
        self.room: JoinedRoom
        self.other: JoinedRoom

    @property
    def matrix(self) -> MatrixHarness:
        """The parts of the network."""
        return MatrixHarness(self.app.network("matrix"))

    async def ask(self, method: str, target: str, body: Any = None, **signing: Any) -> tuple[int, Any]:
        """One signed request; the status and the JSON of its answer."""
        answer = await self.whole(method, target, body, **signing)
        return answer.status, orjson.loads(answer.body)

    async def whole(self, method: str, target: str, body: Any = None, **signing: Any) -> Response:
        """One signed request; its answer."""
        content = body if isinstance(body, bytes) else dumps_canonical(body) if body is not None else None
        authorization = self.forger.signed(method, OURS, target, content, **signing)
        request = Request(
            method=method,
            target=target,
            host=OURS,
            query=[
                (k, unquote(v)) for k, _, v in (p.partition("=") for p in target.partition("?")[2].split("&"))
            ],
            headers={},
            authorizations=[authorization],
        )

        async def read(_limit: int) -> bytes:
            return content or b""

        return await self.dispatcher.answer(request, read)

    async def send(self, *pdus: Any) -> tuple[int, Any]:
        """One transaction."""
        return await self.ask("PUT", f"{V1}/send/{secrets.token_hex(8)}", {"pdus": list(pdus)})

    def counted(self, name: str) -> dict[str, int]:
        """A counter by its label ``status``."""
        return {
            " ".join(v for k, v in labels if k == "status"): count
            for (counter, labels), count in self.app.counters.items()
            if counter == name
        }

    async def fate(self, raw: dict[str, Any]) -> str:
        """Send one event; the counter that rose, or ``accepted``."""
        before = self.counted("matrix_pdus")
        status, answer = await self.send(raw)
        assert status == 200, answer
        async with asyncio.timeout(5):
            while True:
                risen = [k for k, v in self.counted("matrix_pdus").items() if v > before.get(k, 0)]
                if risen:
                    return risen[0]
                target = f"{V1}/event/{quote(event_id(raw, self.room.version), safe='')}"
                if (await self.ask("GET", target))[0] == 200:
                    return "accepted"
                await asyncio.sleep(0)

    async def join(self, alias: str) -> JoinedRoom:
        """Joins the forger's user to a local room."""
        _, found = await self.ask("GET", f"{V1}/query/directory?room_alias=#{alias}:{OURS}")
        where = f"{quote(found['room_id'], safe='')}/{quote(f'@m:{THEIRS}', safe='')}"
        _, template = await self.ask("GET", f"{V1}/make_join/{where}?{OFFERED}")
        join = self.forger.joining(template, "m")
        path = f"{V2}/send_join/{quote(join.room_id, safe='')}/{quote(join.event_id, safe='')}"
        status, answer = await self.ask("PUT", path, join.raw)
        assert status == 200, answer
        return self.forger.entered(join, template["room_version"], answer["state"])


@asynccontextmanager
async def server_with_peer(
    folder: Path,
    version: str = "12",
    policies: Sequence[PolicySetup] = (),
    beside: Mapping[str, Any] = MappingProxyType({}),
    linked: Sequence[str] = (),
    *,
    store: Store | None = None,
    **options: Any,
) -> AsyncIterator[ServerWithPeer]:
    """Two rooms, the forger in both; ``beside`` are further networks, and ``linked`` what the first room is
    linked to there. ``options`` are further ones of the network.
    """
    key = folder / "matrix.key"
    key.touch(0o600)
    key.write_text(SigningKey.from_seed("ed25519:a", secrets.token_bytes(32)).line())
    options = {"naming_level": 0, **options}  # people of other servers change names and topics as an example
    config = Config(server_name=OURS, signing_key=key, room_version=version, **options)
    forger = EventForge(THEIRS)
    rooms = (["matrix:#one", *linked], ["matrix:#two"])
    peer = _ScriptedPeer(forger)
    networks = {"matrix": (hansa_matrix, config), **beside}
    async with run_hansa(networks, rooms=rooms, policies=policies, store=store, http=peer) as app:
        made = ServerWithPeer(app, forger, peer)
        made.room, made.other = await made.join("one"), await made.join("two")
        yield made
