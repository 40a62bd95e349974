"""Signed requests to other servers, by the route that discovery finds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from hansa import (
    DirectoryQuery,
    Failure,
    HansaError,
    HttpError,
    HttpRequest,
    HttpResponse,
    HttpStream,
    NetworkContext,
    PeerConnect,
    RemoteProtocolError,
    Verdict,
)
from hansa.model.bounded_json import Limits
from hansa.model.lenient_json import MENDED_AT_ONCE

from hansa_matrix.federation.server_discovery import ServerDiscovery
from hansa_matrix.federation.signing_keys import SigningKeys
from hansa_matrix.proto.canonical_json import DOCUMENT, ERROR_ANSWER, dumps_canonical, loads_json
from hansa_matrix.proto.servers.discovery import ResolvedServer
from hansa_matrix.proto.servers.xmatrix import format_header, signing_bytes
from hansa_matrix.proto.streaming.json_stream import Piece, Splitter

#: Bytes of an answer that holds a room's whole state, which is read as it comes.
LARGE_ANSWER = 128 * 1024 * 1024
#: Bytes of one event in it, as it is on the wire, and of everything that is not an event.
_MAX_MEMBER, _REST = 256 * 1024, Limits(bytes=4 * 1024 * 1024)
_READ_AT_ONCE = 128 * 1024
#: Where an error says what it is.
_CODES = ("errcode", "errorcode")
#: The room version that an error may name. SPEC: appendices, "Room Versions".
_VERSION = re.compile(r"[a-z0-9.-]{1,32}", re.ASCII)


class RemoteError(HansaError):
    """The other server answered with an error. ``hint`` is its status, ``code`` its errcode, and
    ``room_version`` what it says that one must speak, where it says so. ``coded``: it gave an errcode itself.

    It is not an error answer of this server (``errors.MatrixError``): its errcode is about this server, and
    would tell a client to log out or to wait. ``client_api.remote_refusals`` says what a client is told.
    """

    def __init__(
        self, reason: str, *, hint: int = 400, code: str = "", room_version: str = "", coded: bool = True
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.code = code
        self.room_version = room_version
        self.coded = coded


def is_unrecognized(error: RemoteError) -> bool:
    """True if a server does not know an endpoint, so that an older one may be tried."""
    return error.hint in {400, 404, 405} and (not error.coded or error.code == "M_UNRECOGNIZED")


class ServerUnreachable(OSError):
    """There is no answer from the other server, or one that says that it cannot answer now: ``status``, 0
    without an answer. ``retry_after`` in seconds if it asked for patience (429).

    Any user may read ``str``: it has the words of ``hansa.Failure``. ``detail``, with addresses and system
    errors, is for logs and for operators.
    """

    def __init__(self, reason: str, retry_after: float = 0.0, *, detail: str = "", status: int = 0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.status = status
        self.detail = detail or reason


def unreachable_error(server: str, error: HttpError | None) -> ServerUnreachable:
    """Returns the error for a server that could not be reached by any address of its route."""
    if error is None:
        return ServerUnreachable(f"{server} has no address")
    return ServerUnreachable(f"{server} {error}", detail=f"{server}: {error.detail}")


class TooManyRequests(ServerUnreachable):
    """There was room for no more requests here: the other server was not asked."""


#: All that a request to another server may raise: it answers with an error, not at all, or not as it must.
REQUEST_FAILURES = (RemoteError, ServerUnreachable, RemoteProtocolError)


def build_path(*parts: str) -> str:
    """A request path of percent-encoded segments."""
    return "/" + "/".join(quote(part, safe="") if part[:1] != "_" else part for part in parts)


class FederationClient:
    """Requests in the name of one server."""

    def __init__(self, ctx: NetworkContext, server: str, keys: SigningKeys, routes: ServerDiscovery) -> None:
        self._network, self._check = ctx.id, ctx.check
        self._server = server
        self._keys = keys
        self._http = ctx.http
        self._routes = routes

    @property
    def server(self) -> str:
        """In whose name it asks."""
        return self._server

    async def _require_peer_allowed(self, server: str) -> None:
        verdict: Verdict = await self._check(PeerConnect(network=self._network, server=server, outbound=True))
        if not verdict.allowed:
            raise RemoteError(verdict.text, hint=403, code="M_FORBIDDEN")

    async def get_unsigned(self, route: ResolvedServer, host: str, port: int, target: str) -> HttpResponse:
        """One unsigned GET to one place of a route, whatever it answers. Raises ``HttpError``."""
        return await self._http.request(
            HttpRequest(
                method="GET",
                host=host,
                port=port,
                target=target,
                host_header=route.host_header,
                tls_name=route.tls_name,
                headers={"User-Agent": "Hansa"},
                timeout=15.0,
                max_body=ERROR_ANSWER.bytes,
            )
        )

    async def request(
        self,
        method: str,
        server: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        *,
        seconds: float = 30.0,
        limits: Limits = DOCUMENT,
        signed: bool = True,
        stranger: str = "",
        share: str = "",
    ) -> Any:
        """Returns the parsed answer of a 2xx, within ``limits``. Raises ``RemoteError`` for another status,
        ``ServerUnreachable`` without an answer. ``stranger``: the share that the request counts against
        (``HttpRequest.share``), if its cause has proven nothing; ``share``, if its cause is a server that has
        proven its name.
        """
        if server == self._server:
            raise RemoteError("a server sends no requests to itself", hint=400)
        await self._require_peer_allowed(server)
        content = dumps_canonical(body) if body is not None else None
        answer = await self._send_to_any_address(
            server,
            HttpRequest(
                method=method,
                host="",
                port=0,
                target=target,
                headers=self._request_headers(method, server, target, content, signed=signed),
                body=content,
                timeout=seconds,
                max_body=limits.bytes,
                share=stranger or share,
                stranger=bool(stranger),
            ),
        )
        return await self._require_2xx(server, answer, await self._parse_answer(server, answer, limits))

    async def request_members(
        self,
        method: str,
        server: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        *,
        names: Collection[str],
        take: Callable[[str, list[Any]], None],
        between: Callable[[], Awaitable[None]] | None = None,
        seconds: float,
        numbered: bool = False,
    ) -> Any:
        """As ``request``, for an answer of up to 128 MiB that is read as it comes: ``take`` is given the
        members of the arrays ``names``, some at a time, in a thread, and what it raises ends the reading.
        ``between`` is awaited between two such steps. The rest of the answer has these arrays empty.
        ``numbered``: it is ``[200, {...}]``, as answers of version 1 are.
        """
        splitter = Splitter(names, most_element=_MAX_MEMBER, rest=_REST, numbered=numbered)
        loop = asyncio.get_running_loop()

        def taken(pieces: Sequence[Piece]) -> None:
            for piece in pieces:
                take(piece.name, piece.parse_values())

        def fed(chunk: bytes) -> None:
            taken(splitter.feed(chunk))

        def finished() -> Any:
            pieces, rest = splitter.finish()
            taken(pieces)
            return rest

        asked = self.stream(server, target, most=LARGE_ANSWER, seconds=seconds, method=method, body=body)
        try:
            async with asked as answer:
                parts, size = [], 0
                async for chunk in answer.chunks:
                    parts.append(chunk)
                    size += len(chunk)
                    if size >= _READ_AT_ONCE:
                        await loop.run_in_executor(None, fed, b"".join(parts))
                        parts, size = [], 0
                        if between is not None:
                            await between()
                await loop.run_in_executor(None, fed, b"".join(parts))
                return await loop.run_in_executor(None, finished)
        except HttpError as error:
            raise unreachable_error(server, error) from error

    def _request_headers(
        self, method: str, server: str, target: str, content: bytes | None, *, signed: bool
    ) -> dict[str, str]:
        headers = {"User-Agent": "Hansa"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if signed:
            message = signing_bytes(method, target, self._server, server, content)
            key = self._keys.current
            headers["Authorization"] = format_header(self._server, server, key.key_id, key.sign(message))
        return headers

    @asynccontextmanager
    async def stream(
        self,
        server: str,
        target: str,
        *,
        most: int,
        seconds: float,
        signed: bool = True,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[HttpStream]:
        """The 2xx answer to a request, of at most ``most`` bytes, as it comes. Raises as ``request``, and
        ``HttpError`` where it breaks off.
        """
        if server == self._server:
            raise RemoteError("a server sends no requests to itself", hint=400)
        await self._require_peer_allowed(server)
        content = dumps_canonical(body) if body is not None else None
        route = await self._resolve_server(server)
        async with AsyncExitStack() as stack:
            problem: HttpError | None = None
            for host, port in route.targets:
                request = HttpRequest(
                    method=method,
                    host=host,
                    port=port,
                    target=target,
                    host_header=route.host_header,
                    tls_name=route.tls_name,
                    headers=self._request_headers(method, server, target, content, signed=signed),
                    body=content,
                    timeout=seconds,
                    max_body=most,
                )
                try:
                    answer = await stack.enter_async_context(self._http.stream(request))
                except HttpError as error:
                    if error.kind is Failure.BUSY:
                        raise TooManyRequests(str(error)) from error
                    problem = error
                    continue
                if not 200 <= answer.status < 300:
                    said = await _error_body(answer)
                    whole = HttpResponse(status=answer.status, headers=answer.headers, body=said)
                    await self._require_2xx(
                        server, whole, await self._parse_answer(server, whole, ERROR_ANSWER)
                    )
                yield answer
                return
            self._routes.invalidate_server(server)
            raise unreachable_error(server, problem)

    async def _resolve_server(
        self, server: str, share: str = "", *, stranger: bool = False
    ) -> ResolvedServer:
        try:
            return await self._routes.resolve_server(server, share=share, stranger=stranger)
        except HttpError as error:
            raise TooManyRequests(str(error)) from error

    async def _send_to_any_address(self, server: str, request: HttpRequest) -> HttpResponse:
        """To the first address of the server that answers."""
        route = await self._resolve_server(server, request.share, stranger=request.stranger)
        problem: HttpError | None = None
        for host, port in route.targets:
            there = replace(
                request, host=host, port=port, host_header=route.host_header, tls_name=route.tls_name
            )
            try:
                return await self._http.request(there)
            except HttpError as error:
                if error.kind is Failure.BUSY:
                    raise TooManyRequests(str(error)) from error
                problem = error
        self._routes.invalidate_server(server)
        raise unreachable_error(server, problem)

    async def _parse_answer(self, server: str, answer: HttpResponse, limits: Limits) -> Any:
        """The JSON of an answer; a large one is read in a thread. A blank one is an empty object, and of an
        error the status says enough.
        """
        body, good = answer.body or b"", 200 <= answer.status < 300
        if not body.strip() or (not good and len(body) > ERROR_ANSWER.bytes):
            return {}
        try:
            if len(body) <= MENDED_AT_ONCE:
                return loads_json(body, limits)
            return await asyncio.get_running_loop().run_in_executor(
                None, loads_json, body, limits, limits.bytes
            )
        except RemoteProtocolError as error:
            if not good:
                return {}
            self._routes.invalidate_server(server)
            raise ServerUnreachable(
                f"{server} answered {answer.status} and cannot be read: {error}"
            ) from error

    async def _may_read_error(self, server: str, text: str) -> bool:
        """True if policies let local users read a server's error text."""
        if not text:
            return True
        said = DirectoryQuery(network=self._network, server=server, address="", outbound=True, texts=(text,))
        verdict: Verdict = await self._check(said)
        return verdict.allowed

    async def _require_2xx(self, server: str, answer: HttpResponse, value: Any) -> Any:
        """The value of a 2xx. Raises as ``request`` for anything else, in the server's words if these may be
        read.
        """
        if 200 <= answer.status < 300:
            return value
        fields = value if isinstance(value, dict) else {}
        code, text = _error_code(answer.status, fields), str(fields.get("error", ""))[:500]
        coded = any(isinstance(fields.get(name), str) for name in _CODES)
        if not await self._may_read_error(server, code):
            code = _error_code(answer.status, {})
        if not await self._may_read_error(server, text):
            text = ""
        if answer.status == 429 or answer.status >= 500:
            patience = _retry_after(answer, fields)
            raise ServerUnreachable(
                f"{server} answered {answer.status} {code}", patience, status=answer.status
            )
        said = fields.get("room_version")
        version = said if isinstance(said, str) and _VERSION.fullmatch(said) else ""
        if not await self._may_read_error(server, version):
            version = ""
        reason = text or f"{server} answered {answer.status}"
        raise RemoteError(reason, hint=answer.status, code=code, room_version=version, coded=coded)


async def _error_body(answer: HttpStream) -> bytes:
    """Reads the body of an error answer, if it is short."""
    body = b""
    async for chunk in answer.chunks:
        body += chunk
        if len(body) > ERROR_ANSWER.bytes:
            return b""
    return body


def _error_code(status: int, fields: Mapping[str, Any]) -> str:
    """The error code of an answer.

    COMPAT: some servers call it ``errorcode``, or give none, where the status says what is meant. A 403
    without any says less than ``M_FORBIDDEN``, upon which nobody else is asked.
    """
    for name in _CODES:
        if isinstance(fields.get(name), str):
            return str(fields[name])[:100]
    return {401: "M_UNAUTHORIZED", 404: "M_NOT_FOUND", 429: "M_LIMIT_EXCEEDED"}.get(status, "M_UNKNOWN")


def _retry_after(answer: HttpResponse, fields: Mapping[str, Any]) -> float:
    given = fields.get("retry_after_ms")
    if type(given) is int and 0 < given < 86_400_000:
        return given / 1000
    header_value = answer.headers.get("retry-after", "")
    return float(header_value) if header_value.isdigit() and len(header_value) < 6 else 0.0
