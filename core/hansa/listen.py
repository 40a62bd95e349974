"""Routers on sockets: TLS by the name that is asked for, bounded bodies, one answer to every failure."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl

import orjson
from aiohttp import web
from multidict import CIMultiDictProxy

from hansa.connection import Connection, Server, bound, fault, out_of_order
from hansa.contracts import Busy
from hansa.http import BodyTooLarge, Router
from hansa.pure.errors import RemoteProtocolError
from hansa.seams import Admitted, Request, Response
from hansa.store.faults import StoreFault

_BODY_WITHIN = 30.0
#: Seconds in which the next chunk of a long answer has to be made and taken.
_CHUNK_WITHIN = 60.0
_MOST_PARAMETERS = 200
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
        self.front = self._context(default)
        self.front.sni_callback = self._choose
        self.reload()

    @staticmethod
    def _context(files: Certificate) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(files.certificate, files.key)
        return context

    def reload(self) -> None:
        """Read every file again. Raises OSError or ssl.SSLError and changes nothing then."""
        fresh = {name: self._context(files) for name, files in self._named.items()}
        fresh[""] = self._context(self._default)
        self._contexts = fresh

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._contexts.get(name or "") or self._contexts[""]


class Dispatcher:
    """Finds the router of a host and the route in it, and turns every failure into an answer."""

    def __init__(
        self, routers: Mapping[str, Router], count: Callable[..., None], proxies: Sequence[str] = ()
    ) -> None:
        self._routers = routers
        self.count = count
        self._proxies = [ipaddress.ip_network(one, strict=False) for one in proxies]

    def address(self, peer: str, forwarded: Sequence[str]) -> str:
        """Whose request it is: the peer's, or where that is a proxy of ours, the last in ``X-Forwarded-For``
        that is none.
        """
        named = [one.strip() for header in forwarded for one in header.split(",")]
        while named and self._is_proxy(peer):
            peer = named.pop()
        return peer

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)

    def router(self, host: str) -> Router | None:
        """The router of a ``Host`` header; the only one there is serves every host."""
        found = self._routers.get(host) or self._routers.get("")
        if found is None and len(self._routers) == 1:
            return next(iter(self._routers.values()))
        return found

    async def answer(
        self,
        request: Request,
        read: Callable[[int], object],
        stream: Callable[[int], AsyncIterator[bytes]] | None = None,
    ) -> Response:
        """One request. ``read(limit)`` is awaited for the body and gives None if it is larger; ``stream``
        gives it as it comes.
        """
        router = self.router(request.host)
        always = router.headers_for(request.target) if router is not None else {}
        if always and request.method == "OPTIONS":
            return Response(headers=always)
        answer = await self._answer(router, request, read, stream)
        if answer.status >= 400:
            self.count("http_refused", status=str(answer.status))
        return replace(answer, headers={**always, **answer.headers}) if always else answer

    async def _answer(
        self,
        router: Router | None,
        request: Request,
        read: Callable[[int], object],
        stream: Callable[[int], AsyncIterator[bytes]] | None,
    ) -> Response:
        found = router.find(request) if router else None
        if found is None or not found.path_known:
            return fault(404, "M_UNRECOGNIZED", "there is nothing at this path")
        if found.route is None:
            return fault(405, "M_UNRECOGNIZED", f"{request.method} is not for this path")
        admitted: Admitted | None = None
        try:
            if found.route.admit is not None:
                admission = await found.route.admit(found.request)
                if isinstance(admission, Response):
                    return admission
                admitted = admission
            if found.route.streamed and stream is not None:
                chunks = stream(found.route.max_body)
                return await found.route.endpoint(replace(found.request, chunks=chunks, admitted=admitted))
            body = await read(found.route.max_body)  # type: ignore[misc]  # a coroutine of bytes | None
            if body is None:
                return fault(413, "M_TOO_LARGE", f"the body is over {found.route.max_body} bytes")
            return await found.route.endpoint(replace(found.request, body=body, admitted=admitted))
        except RemoteProtocolError as error:
            return fault(error.hint, error.code or "M_UNKNOWN", error.reason)
        except Busy as busy:
            self.count("http_busy")
            wait = {"Retry-After": str(max(1, round(busy.after)))}
            body = orjson.dumps(
                {
                    "errcode": "M_LIMIT_EXCEEDED",
                    "error": busy.reason,
                    "retry_after_ms": int(busy.after * 1000),
                }
            )
            return Response(status=429, body=body, headers=wait)
        except StoreFault:  # noted by the store's health, with its text
            self.count("http_store_faults")
            return out_of_order()
        except BodyTooLarge as error:
            return fault(413, "M_TOO_LARGE", str(error))
        except (ConnectionError, TimeoutError):
            return fault(408, "M_UNKNOWN", "the body did not come in time")
        except Exception:  # noqa: BLE001  # a bug here must be one answer and one log line, not a broken connection
            _log.exception("%s %s failed", request.method, request.target.partition("?")[0][:200])
            self.count("http_internal_errors")
            return fault(500, "M_UNKNOWN", "an internal error, which was logged")


def _headers(raw: CIMultiDictProxy[str]) -> dict[str, str]:
    return {name.lower(): value for name, value in raw.items()}


def _reads_only(raw: web.BaseRequest, *, on: bool) -> None:
    if isinstance(raw.protocol, Connection):
        raw.protocol.reads_only = on


class Listener:
    """One address. ``tls`` None serves plain HTTP, for a proxy in front. A host that begins with a slash
    is the path of a unix socket, which only its owner may use.
    """

    def __init__(self, dispatcher: Dispatcher, host: str, port: int, tls: TlsContexts | None = None) -> None:
        self._dispatcher = dispatcher
        self._host, self._port, self._tls = host, port, tls
        self._runner: web.ServerRunner | None = None
        self.port = port

    async def start(self) -> None:
        """Bind. Raises OSError."""
        server = Server(self._serve, self._dispatcher.count)
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=2.0)
        await self._runner.setup()
        if self._host.startswith("/"):
            await self._start_unix()
            return
        site = web.TCPSite(
            self._runner,
            self._host,
            self._port,
            ssl_context=self._tls.front if self._tls else None,
            backlog=1024,
        )
        await site.start()
        addresses = self._runner.addresses
        self.port = addresses[0][1] if addresses else self._port

    async def _start_unix(self) -> None:
        assert self._runner is not None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._host)  # noqa: PTH108  # one call, before anything else runs
        before = os.umask(0o177)
        try:
            await web.UnixSite(self._runner, self._host).start()
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Close, letting requests under way end within 2 s."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, raw: web.BaseRequest) -> web.StreamResponse:
        target = raw._message.path  # noqa: SLF001  # the only place with the target as it was on the wire
        query = target.partition("?")[2]
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
        except ValueError:
            self._dispatcher.count("http_refused", status="400")
            return bound(fault(400, "M_INVALID_PARAM", f"the query has over {_MOST_PARAMETERS} parameters"))
        request = Request(
            method=raw.method,
            target=target,
            host=raw.headers.get("Host", ""),
            query=pairs,
            headers=_headers(raw.headers),
            authorizations=raw.headers.getall("Authorization", []),
            remote=self._dispatcher.address(raw.remote or "", raw.headers.getall("X-Forwarded-For", [])),
            reads_only=lambda: _reads_only(raw, on=True),
        )
        try:
            answer = await self._dispatcher.answer(
                request, lambda limit: self._body(raw, limit), lambda limit: self._chunks(raw, limit)
            )
        finally:
            _reads_only(raw, on=False)
        if answer.chunks is not None:
            return await self._stream(raw, answer, answer.chunks)
        response = bound(answer)
        if isinstance(raw.protocol, Connection) and raw.protocol.broken:
            response.force_close()
        return response

    async def _stream(
        self, raw: web.BaseRequest, answer: Response, chunks: AsyncGenerator[bytes]
    ) -> web.StreamResponse:
        """An answer in chunks. A client that takes nothing for a while is let go; what fails after the head
        was sent can only be shown by breaking off.
        """
        headers = {**answer.headers, "Content-Type": answer.content_type}
        response = web.StreamResponse(status=answer.status, headers=headers)
        try:
            async with contextlib.aclosing(chunks):
                await response.prepare(raw)
                while True:
                    async with asyncio.timeout(_CHUNK_WITHIN):
                        chunk = await anext(chunks, None)
                        if chunk is None:
                            break
                        await response.write(chunk)
                await response.write_eof()
        except Exception as error:  # noqa: BLE001  # the answer has begun: it can only be broken off
            self._dispatcher.count("http_broken_off")
            _log.info("an answer to %s broke off: %s", raw.remote, str(error) or type(error).__name__)
            if raw.transport is not None:
                raw.transport.abort()
        return response

    @staticmethod
    async def _chunks(raw: web.BaseRequest, limit: int) -> AsyncIterator[bytes]:
        """A body as it comes, each piece of it in time."""
        if (raw.content_length or 0) > limit:
            raise BodyTooLarge(f"the body is over {limit} bytes")
        size = 0
        while raw.can_read_body or size:
            async with asyncio.timeout(_BODY_WITHIN):
                part = await raw.content.readany()
            if not part:
                break
            size += len(part)
            if size > limit:
                raise BodyTooLarge(f"the body is over {limit} bytes")
            yield part
        if isinstance(raw.protocol, Connection) and raw.protocol.broken:
            raise RemoteProtocolError("the body is not HTTP as it has to be", code="M_UNKNOWN")

    @staticmethod
    async def _body(raw: web.BaseRequest, limit: int) -> bytes | None:
        if (raw.content_length or 0) > limit:
            return None
        if not raw.can_read_body:
            return b""
        parts, size = [], 0
        async with asyncio.timeout(_BODY_WITHIN):
            async for part in raw.content.iter_any():
                size += len(part)
                if size > limit:
                    return None
                parts.append(part)
        if isinstance(raw.protocol, Connection) and raw.protocol.broken:
            raise RemoteProtocolError("the body is not HTTP as it has to be", code="M_UNKNOWN")
        return b"".join(parts)
