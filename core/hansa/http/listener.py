"""Routers on sockets: TLS by the name that is asked for, bounded bodies, one answer to every failure."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar, cast
from urllib.parse import parse_qsl

import orjson
from aiohttp import web
from multidict import CIMultiDictProxy

from hansa.environment import Admitted, Request, Response
from hansa.http.acceptor import Acceptor, AcceptRules
from hansa.http.connection import (
    Connection,
    HttpProtocolFactory,
    bind_protocol,
    come_again,
    error_response,
    out_of_order,
)
from hansa.http.connection_limits import ConnectionLimiter, ConnectionLimits, RequestShares
from hansa.http.detached_requests import DetachedRequests, Late
from hansa.http.request_bodies import Body, BodyBudget, BodyLimits
from hansa.http.router import BodyTooLarge, Route, RouteMatch, Router
from hansa.model.addresses import networks
from hansa.model.errors import Busy, RemoteProtocolError
from hansa.model.verdict import decision_fields
from hansa.pacing.log_limit import LogLimit
from hansa.store.base import Conflict
from hansa.store.faults import StoreFault

T = TypeVar("T")

#: Seconds in which the next chunk of a long answer has to be made and taken.
_CHUNK_TIMEOUT_S = 60.0
#: Bytes of an answer that are given to a connection at once. Over TLS one large write never counts as waiting
#: to be taken: a larger answer goes in pieces of a quarter of that, each once those before it left.
_AT_ONCE = 256 * 1024
_MAX_PARAMETERS = 200
#: Seconds that requests under way have at the end.
_STOP_TIMEOUT_S = 2.0
#: Seconds in which connections take the rest of their answers and the end of TLS at the end.
_LEAVE_TIMEOUT_S = 1.0
_log = logging.getLogger("hansa.http")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate chain and its key, as PEM files."""

    certificate: Path
    key: Path


class TlsContexts:
    """Server contexts by name; ``reload`` reads the files again without touching a socket."""

    def __init__(self, default: Certificate, named: Mapping[str, Certificate]) -> None:
        self._default, self._named = default, dict(named)
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.front = self._load_front(default)
        self.reload()

    def _load_front(self, files: Certificate) -> ssl.SSLContext:
        """The context of every handshake until the client has named a server."""
        context = self._load_context(files)
        context.sni_callback = self._select_by_sni
        return context

    @staticmethod
    def _load_context(files: Certificate) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(files.certificate, files.key)
        return context

    def reload(self) -> None:
        """Read every file again. Raises OSError or ssl.SSLError and changes nothing then."""
        fresh = {name: self._load_context(files) for name, files in self._named.items()}
        fresh[""] = self._load_context(self._default)
        self._contexts = fresh

    def _select_by_sni(
        self, connection: ssl.SSLObject, name: str | None, _load_context: ssl.SSLContext
    ) -> None:
        connection.context = self._contexts.get(name or "") or self._contexts[""]


class Wire(Protocol):
    """The connection of a request, which is told how far the request has come. Each method may raise
    ``Busy``.
    """

    def routed(self, route: Route) -> None:
        """The route is known; nothing was decided yet."""
        ...

    def admitted(self, admitted: Admitted) -> None:
        """The route's ``admit`` let it in."""
        ...


class Dispatcher:
    """Finds the router of a host and the route in it, and turns every failure into an answer."""

    def __init__(
        self,
        routers: Mapping[str, Router],
        count: Callable[..., None],
        proxies: Sequence[str] = (),
        away: Callable[[], bool] | None = None,
    ) -> None:
        """``away``: whether the database is, so that what waits for it is answered in time."""
        self._routers = routers
        self._in_time = DetachedRequests(away) if away is not None else None
        self.count = count
        self._told = LogLimit(_log)
        self._proxies = [ipaddress.ip_network(one, strict=False) for one in proxies]

    def address(self, peer: str, forwarded: Sequence[str]) -> str:
        """Returns the address that a request comes from: the peer's, or, if that is a trusted proxy, the last
        address in ``X-Forwarded-For`` that is not a trusted proxy.
        """
        named = [one.strip() for header in forwarded for one in header.split(",")]
        while named and self.is_proxy(peer):
            peer = named.pop()
        return peer

    def is_proxy(self, address: str) -> bool:
        """True if the address is one of a trusted proxy."""
        if not self._proxies:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)

    def _find_route(self, request: Request) -> tuple[Router | None, RouteMatch | None]:
        """Finds the router and route that answer: the router of the ``Host`` header, else that of networks
        without a server name, else the only named one, which serves every host. The first of them that knows
        the path answers.
        """
        named = self._routers.get(request.host)
        routers = [named, self._routers.get("") if request.host else None]
        if named is None:
            names = [name for name in self._routers if name]
            routers.append(self._routers[names[0]] if len(names) == 1 else None)
        present = [router for router in routers if router is not None]
        for router in present:
            found = router.find(request)
            if found.path_known:
                return router, found
        return (present[0], None) if present else (None, None)

    async def answer(
        self,
        request: Request,
        read: Callable[[int], object],
        stream: Callable[[int], AsyncIterator[bytes]] | None = None,
        wire: Wire | None = None,
    ) -> Response:
        """Answers one request. ``read(limit)`` is awaited for the body and gives None if it is larger;
        ``stream`` gives it as it arrives; ``wire`` is told of the route and of the admitted sender.
        """
        router, found = self._find_route(request)
        always = router.headers_for(request.target) if router is not None else {}
        if always and request.method == "OPTIONS":
            return Response(headers=always)
        if found is not None and found.route is not None and router is not None and not router.answering:
            answer = come_again("this server is starting again", 5)
        else:
            answer = await self._answer_route(found, request, read, stream, wire)
        if answer.status >= 400:
            self.count("http_refused", status=str(answer.status))
        return replace(answer, headers={**always, **answer.headers}) if always else answer

    async def _answer_route(
        self,
        found: RouteMatch | None,
        request: Request,
        read: Callable[[int], object],
        stream: Callable[[int], AsyncIterator[bytes]] | None,
        wire: Wire | None,
    ) -> Response:
        if found is None:
            return error_response(404, "M_UNRECOGNIZED", "there is nothing at this path")
        if found.route is None:
            return error_response(405, "M_UNRECOGNIZED", f"{request.method} is not for this path")
        admitted: Admitted | None = None
        try:
            if wire is not None:
                wire.routed(found.route)
            if found.route.admit is not None:
                admission = await self._run_handler(found.route.admit(found.request))
                if isinstance(admission, Response):
                    return admission
                admitted = admission
                if wire is not None:
                    wire.admitted(admitted)
            if found.route.streamed and stream is not None:
                chunks = stream(found.route.max_body)
                return await found.route.endpoint(replace(found.request, chunks=chunks, admitted=admitted))
            body = await read(found.route.max_body)  # type: ignore[misc]  # a coroutine of bytes | None
            if body is None:
                return error_response(413, "M_TOO_LARGE", f"the body is over {found.route.max_body} bytes")
            asked = replace(found.request, body=body, admitted=admitted)
            return await self._run_handler(found.route.endpoint(asked))
        except RemoteProtocolError as error:
            return error_response(error.hint, error.code or "M_UNKNOWN", error.reason)
        except Busy as busy:
            self.count("http_busy")
            wait = {"Retry-After": str(max(1, round(busy.after)))}
            said = {
                "errcode": "M_LIMIT_EXCEEDED",
                "error": busy.reason,
                "retry_after_ms": int(busy.after * 1000),
            }
            why = decision_fields(busy.decision)
            return Response(status=429, body=orjson.dumps(said | why), headers=wait)
        except Late:
            self.count("http_late")
            return out_of_order()
        except StoreFault:  # noted by the store's health, with its text
            self.count("http_store_faults")
            return out_of_order()
        except Conflict:  # what was read changed before it was written, as often as that was tried
            self.count("http_conflicts")
            text = "the same was changed by another request at the same time"
            return error_response(503, "M_UNKNOWN", text, {"Retry-After": "1"})
        except BodyTooLarge as error:
            return error_response(413, "M_TOO_LARGE", str(error))
        except (ConnectionError, TimeoutError):
            return error_response(408, "M_UNKNOWN", "the body did not come in time")
        except Exception as error:  # noqa: BLE001  # a bug here must be one answer and one log line, not a broken connection
            target = request.target.partition("?")[0][:200]
            self._told.exception(error, "%s %s failed", request.method, target)
            self.count("http_internal_errors")
            return error_response(500, "M_UNKNOWN", "an internal error, which was logged")

    async def _run_handler(self, work: Awaitable[T]) -> T:
        return await (work if self._in_time is None else self._in_time.of(work))


def _lower_headers(raw: CIMultiDictProxy[str]) -> dict[str, str]:
    return {name.lower(): value for name, value in raw.items()}


async def _read_nothing(_limit: int) -> bytes:
    return b""


async def _no_chunks(_limit: int) -> AsyncIterator[bytes]:
    return
    yield b""


async def _in_pieces(raw: web.BaseRequest, connection: Connection, answer: Response) -> web.StreamResponse:
    """A large answer that is whole already. It counts as held while its client lets it wait."""
    headers = {**answer.headers, "Content-Type": answer.content_type}
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = len(answer.body)
    if connection.broken:
        response.force_close()
    connection.answering = len(answer.body)
    try:
        await response.prepare(raw)
        if raw.method != "HEAD":
            size = _AT_ONCE // 4
            for start in range(0, len(answer.body), size):
                await response.write(answer.body[start : start + size])
        await response.write_eof()
    except ConnectionError:
        pass  # the client is gone, or was let go: the library ends the connection
    finally:
        connection.answering = 0
    return response


class Listener:
    """One address. ``tls`` None serves plain HTTP, for a proxy in front. A host that begins with a slash
    is the path of a unix socket, which only its owner may use. Listeners with one ``intake`` or one
    ``budget`` share what those bound; without, a listener has its own.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        host: str,
        port: int,
        tls: TlsContexts | None = None,
        *,
        intake: ConnectionLimiter | None = None,
        budget: BodyBudget | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._host, self._port, self._tls = host, port, tls
        self._intake = intake or ConnectionLimiter(ConnectionLimits(), dispatcher.count)
        self._budget = budget or BodyBudget(BodyLimits(), dispatcher.count)
        self._forwarded = RequestShares(self._intake.limits, dispatcher.count)
        self._told = LogLimit(_log)
        self._server: HttpProtocolFactory | None = None
        self._acceptor: Acceptor | None = None
        self.port = port

    async def start(self) -> None:
        """Bind. Raises OSError."""
        self._server = HttpProtocolFactory(self._serve_request, self._dispatcher.count, self._intake)
        self._acceptor = Acceptor(
            self._intake,
            self._server.connection,
            self._dispatcher.count,
            AcceptRules(is_proxy=self._dispatcher.is_proxy, tls=self._tls.front if self._tls else None),
        )
        self._acceptor.start(self._host, self._port)
        self.port = self._acceptor.port or self._port

    async def stop(self) -> None:
        """Close, letting requests under way end within 2 s, and connections leave within 1 s more. Their
        sockets are closed when it returns.
        """
        if self._acceptor is not None:
            await self._acceptor.stop()
        if self._server is not None:
            self._server.pre_shutdown()
            await self._server.shutdown(_STOP_TIMEOUT_S)
            await self._server.wait_closed(_LEAVE_TIMEOUT_S)

    async def _serve_request(self, raw: web.BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", raw.protocol)
        connection.reads_only = False
        remote = self._dispatcher.address(raw.remote or "", raw.headers.getall("X-Forwarded-For", []))
        if not connection.entry.trusted:
            return await self._dispatch_request(raw, connection, remote)
        if not self._forwarded.enter(remote):
            return bind_protocol(
                error_response(429, "M_LIMIT_EXCEEDED", "too many requests are under way from your address")
            )
        try:
            return await self._dispatch_request(raw, connection, remote)
        finally:
            self._forwarded.leave(remote)

    async def _dispatch_request(
        self, raw: web.BaseRequest, connection: Connection, remote: str
    ) -> web.StreamResponse:
        target = raw._message.path  # noqa: SLF001  # the only place with the target as it was on the wire
        query = target.partition("?")[2]
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
        except ValueError:
            self._dispatcher.count("http_refused", status="400")
            return bind_protocol(
                error_response(400, "M_INVALID_PARAM", f"the query has over {_MAX_PARAMETERS} parameters")
            )
        request = Request(
            method=raw.method,
            target=target,
            host=raw.headers.get("Host", ""),
            query=pairs,
            headers=_lower_headers(raw.headers),
            authorizations=raw.headers.getall("Authorization", []),
            remote=remote,
            reads_only=connection.read_only,
        )
        if raw.can_read_body or raw.content_length:
            entry = connection.entry
            around = entry.networks if remote == entry.address else networks(remote)
            body = Body(raw, self._budget, around)
            try:
                answer = await self._dispatcher.answer(request, body.whole, body.chunks, body)
            finally:
                body.release()
        else:
            answer = await self._dispatcher.answer(request, _read_nothing, _no_chunks, connection)
        if answer.chunks is not None:
            return await self._stream_response(raw, connection, answer, answer.chunks)
        if len(answer.body) > _AT_ONCE:
            return await _in_pieces(raw, connection, answer)
        response = bind_protocol(answer)
        if connection.broken:
            response.force_close()
        return response

    async def _stream_response(
        self,
        raw: web.BaseRequest,
        connection: Connection,
        answer: Response,
        chunks: AsyncGenerator[bytes],
    ) -> web.StreamResponse:
        """An answer in chunks. A client that takes nothing for a while is let go; what fails after the head
        was sent can only be shown by breaking off.
        """
        headers = {**answer.headers, "Content-Type": answer.content_type}
        response = web.StreamResponse(status=answer.status, headers=headers)
        try:
            async with contextlib.aclosing(chunks):
                await response.prepare(raw)
                while raw.method != "HEAD":
                    async with asyncio.timeout(_CHUNK_TIMEOUT_S):
                        chunk = await anext(chunks, None)
                        if chunk is None:
                            break
                        await response.write(chunk)
                await response.write_eof()
        except Exception as error:  # noqa: BLE001  # the answer has begun: it can only be broken off
            self._dispatcher.count("http_broken_off")
            group, why = connection.entry.group, str(error) or type(error).__name__
            self._told.info(group, "an answer to %s broke off: %s", raw.remote, why)
            if raw.transport is not None:
                raw.transport.abort()
        return response
