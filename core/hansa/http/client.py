"""The way out: names resolved, addresses guarded, certificates checked, answers bounded in size and time."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiodns
import aiohappyeyeballs
import aiohttp
from aiohttp.abc import AbstractResolver, AbstractStreamWriter, ResolveResult
from aiohttp.resolver import AsyncResolver
from yarl import URL

from hansa.environment import Failure, HttpError, HttpRequest, HttpResponse, HttpStream
from hansa.http.client_slots import Cause, SlotLimits, Slots
from hansa.model.addresses import Network, address_allowed, parse
from hansa.model.srv import SrvRecord
from hansa.pacing.log_limit import LogLimit

#: A body has to come at ``_LEAST_SPEED`` (bytes a second) once ``_GRACE`` seconds were waited for it.
_LEAST_SPEED, _GRACE = 1024, 10.0
#: Bytes of an answer that are unpacked at a time; twice as many wait to be taken, then reading pauses.
_BUFFER = 64 * 1024
#: Seconds for a connection and its handshake.
_CONNECT_TIMEOUT_S = 10.0
#: Seconds after which the next address of a name is tried too: RFC 8305 section 5.
_NEXT_ADDRESS_S = 0.25
#: Seconds that a connection is kept for the next request, and to how many destinations at a time.
_KEPT_FOR, _KEPT = 30, 256
#: Seconds for an answer of a name server, and how often it is asked.
_NAME_TIMEOUT_S, _NAME_TRIES = 3.0, 2
#: Seconds for which the addresses of a name are kept.
_NAMES_KEPT_FOR_S = 60
#: Longest answer to a lookup of SRV records, lookups at a time, and seconds for one.
_MAX_RECORDS, _LOOKUPS, _LOOKUP_TIMEOUT_S = 100, 128, 10.0
_log = logging.getLogger("hansa.http")


class _GuardedResolver(AbstractResolver):
    """Gives only addresses that may be connected to. It asks the system's name servers without the system's
    resolver: that takes a thread for each name, and a few name servers that keep silent would have them all.
    """

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed
        self._names = AsyncResolver(timeout=_NAME_TIMEOUT_S, tries=_NAME_TRIES)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._names.resolve(host, port, family)
        results = [one for one in found if address_allowed(one["host"], self._allowed)]
        if not results:
            raise _Guarded(f"{host} has no address that may be connected to")
        return results

    async def close(self) -> None:
        """Ask no more."""
        await self._names.close()


class _Guarded(OSError):
    """The guard lets nobody connect there."""


class _Silenced(aiohttp.ClientError):
    """The process stood still, and another may have taken it over since."""

    def __init__(self) -> None:
        super().__init__("this process stood still, and does not know whether its database is still its own")


def _request_class(may_speak: Callable[[], Awaitable[bool]]) -> type[aiohttp.ClientRequest]:
    """Requests that ask ``may_speak`` right before their bytes are written. An answer from before the process
    connects is too old: it may have stood still in between.
    """

    class _CheckedRequest(aiohttp.ClientRequest):
        async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
            """Write the head of a request without a body; any other is written by ``write_bytes``."""
            if not await may_speak():
                raise _Silenced
            return await super().send(conn)

        async def write_bytes(
            self,
            writer: AbstractStreamWriter,
            conn: aiohttp.connector.Connection,
            content_length: int | None = None,
        ) -> None:
            """Write head and body, in a task of their own."""
            if await may_speak():
                await super().write_bytes(writer, conn, content_length)
                return
            if conn.protocol is not None:
                conn.protocol.set_exception(_Silenced())
            conn.close()

    return _CheckedRequest


async def _always() -> bool:
    return True


class HttpClient:
    """See ``hansa.environment.Http``. ``count`` is told what is refused and what fails. ``may_speak`` is
    asked whether this process may speak to others, right before the bytes of each request are written.
    """

    def __init__(
        self,
        *,
        ca_file: Path | None = None,
        private_networks: Sequence[str] = (),
        limits: SlotLimits | None = None,
        count: Callable[..., None] = lambda _name, **_labels: None,
        may_speak: Callable[[], Awaitable[bool]] = _always,
    ) -> None:
        self._allowed = [ipaddress.ip_network(n, strict=False) for n in private_networks]
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None
        self._count = count
        self._slots = Slots(limits or SlotLimits(), count)
        self._lookups = asyncio.Semaphore(_LOOKUPS)
        self._services: aiodns.DNSResolver | None = None
        self._names: _GuardedResolver | None = None
        self._kept: dict[str, float] = {}
        self._told = LogLimit(_log)
        self._may_speak = may_speak

    def measures(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Gauges: requests that have a place and that wait for one, by pool."""
        for pool in ("known", "strangers"):
            yield "http_out_open", {"pool": pool}, self._slots.open(pool)
            yield "http_out_waiting", {"pool": pool}, self._slots.waiting(pool)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._tls = ssl.create_default_context()
            if self._ca_file is not None:
                self._tls.load_verify_locations(self._ca_file)
            self._names = _GuardedResolver(self._allowed)
            connector = aiohttp.TCPConnector(
                resolver=self._names,
                ssl=self._tls,
                limit=0,  # the slots bound it, with shares
                keepalive_timeout=_KEPT_FOR,
                ttl_dns_cache=_NAMES_KEPT_FOR_S,
                socket_factory=self._guarded_socket,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=True,
                cookie_jar=aiohttp.DummyCookieJar(),
                request_class=_request_class(self._may_speak),
                timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_TIMEOUT_S),
                read_bufsize=_BUFFER,
                headers={"Accept-Encoding": "gzip, deflate", "User-Agent": "Hansa"},
            )
        return self._session

    def _guarded_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """The last guard, right before connecting: by whatever way an address came here."""
        family, kind, proto, _, where = address
        if not address_allowed(str(where[0]), self._allowed):
            raise _Guarded(f"{where[0]} is not an address that may be connected to")
        return socket.socket(family=family, type=kind, proto=proto)

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._names is not None:
            await self._names.close()
            self._names = None
        if self._services is not None:
            await self._services.close()
            self._services = None

    async def request(self, request: HttpRequest) -> HttpResponse:
        """See ``Http.request``."""
        async with self.stream(request) as answer:
            body = b"".join([part async for part in answer.chunks])
            return HttpResponse(status=answer.status, headers=answer.headers, body=body)

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[HttpStream]:
        """See ``Http.stream``."""
        host = request.host
        shown = f"[{host}]" if ":" in host else host
        where = f"{shown}:{request.port}"
        try:
            async with asyncio.timeout(request.timeout) as within, AsyncExitStack() as stack:
                if parse(host) is not None and not address_allowed(host, self._allowed):
                    text = f"{host} is not an address that may be connected to"
                    raise self._http_error(where, text, Failure.GUARDED)
                cause = Cause(destination=where, share=request.share, stranger=request.stranger)
                await stack.enter_async_context(self._slots.place(cause))
                answer = await self._send_request(stack, request, shown)
                found = {k.lower(): v for k, v in answer.headers.items()}
                chunks = self._read_bounded(answer, request.max_body, where)
                yield HttpStream(status=answer.status, headers=found, chunks=chunks)
        except TimeoutError:
            if not within.expired():
                raise
            text = f"no answer from {where} in {request.timeout:g} s"
            raise self._http_error(where, text, Failure.TIMED_OUT) from None

    def _http_error(self, where: str, detail: str, kind: Failure) -> HttpError:
        """The error of a failure, counted by its kind; its detail goes to the log, seldom for one place."""
        if kind is Failure.TIMED_OUT:
            self._slots.heard(where, in_time=False)
        self._count("http_out_failed", kind=kind.name.lower())
        self._told.info(where, "a request to %s failed: %s", where, detail)
        return HttpError(detail, kind)

    async def _send_request(
        self, stack: AsyncExitStack, request: HttpRequest, shown: str
    ) -> aiohttp.ClientResponse:
        """The head of the answer. Whatever is not read of it when the stack ends is not waited for."""
        scheme = "https" if request.tls_name else "http"
        where = f"{shown}:{request.port}"
        headers = {"Host": request.host_header or shown, **request.headers}
        try:
            url = URL(f"{scheme}://{where}{request.target}", encoded=True)
            answer = await self._open_session().request(
                request.method,
                url,
                data=request.body,
                headers=headers,
                allow_redirects=False,
                server_hostname=_tls_name(request.tls_name),
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._http_error(
                where, f"{where}: {_describe_failure(error)}", _failure_kind(error)
            ) from error
        stack.callback(self._release_answer, answer, where, stranger=request.stranger)
        return answer

    def _release_answer(self, answer: aiohttp.ClientResponse, where: str, *, stranger: bool) -> None:
        """The connection is kept for the next request if there are not too many, else closed."""
        now = asyncio.get_running_loop().time()
        if where not in self._kept and len(self._kept) >= _KEPT:
            self._kept = {one: until for one, until in self._kept.items() if until > now}
        if stranger or (where not in self._kept and len(self._kept) >= _KEPT):
            answer.close()
            return
        self._kept[where] = now + _KEPT_FOR
        answer.release()

    async def _read_bounded(
        self, answer: aiohttp.ClientResponse, limit: int, where: str
    ) -> AsyncIterator[bytes]:
        """The body, unpacked as it comes. Only the time that is waited for the peer counts, not what is done
        with its bytes.
        """
        size, waited = 0, 0.0
        time = asyncio.get_running_loop().time
        try:
            while True:
                begun = time()
                async with asyncio.timeout_at(begun + _GRACE + size / _LEAST_SPEED - waited) as within:
                    part = await answer.content.readany()
                waited += time() - begun
                if not part:
                    break
                size += len(part)
                if size > limit:
                    text = f"the answer of {where} is over {limit} bytes"
                    raise self._http_error(where, text, Failure.TOO_LARGE)
                yield part
        except TimeoutError:
            if not within.expired():
                raise
            self._count("http_out_slow")
            text = f"the answer of {where} comes at under {_LEAST_SPEED} bytes a second"
            raise self._http_error(where, text, Failure.TIMED_OUT) from None
        except (aiohttp.ClientError, ValueError) as error:
            text = f"the answer of {where} broke off: {error!r}"
            raise self._http_error(where, text, Failure.PROTOCOL) from error
        self._slots.heard(where, in_time=True)

    async def srv(self, name: str) -> Sequence[SrvRecord]:
        """See ``Http.srv``."""
        if self._services is None:
            self._services = aiodns.DNSResolver(timeout=_NAME_TIMEOUT_S, tries=_NAME_TRIES)
        try:
            async with asyncio.timeout(_LOOKUP_TIMEOUT_S), self._lookups:
                found = await self._services.query(name, "SRV")
        except TimeoutError as error:
            raise HttpError(f"SRV {name}: no answer", Failure.TIMED_OUT) from error
        except aiodns.error.DNSError as error:
            if error.args and error.args[0] in {
                aiodns.error.ARES_ENOTFOUND,
                aiodns.error.ARES_ENODATA,
            }:
                return []
            raise HttpError(f"SRV {name}: {error.args[-1]}") from error
        return [SrvRecord(r.priority, r.weight, r.port, r.host) for r in found[:_MAX_RECORDS]]

    async def connect(self, host: str, port: int) -> socket.socket:
        """See ``Http.connect``."""
        self._open_session()
        assert self._names is not None
        where = f"{host}:{port}"
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                if not await self._may_speak():
                    raise _Silenced
                found = await self._names.resolve(host, port)
                infos = [
                    (one["family"], socket.SOCK_STREAM, one["proto"], "", _socket_address(one))
                    for one in found
                ]
                return await aiohappyeyeballs.start_connection(
                    infos, happy_eyeballs_delay=_NEXT_ADDRESS_S, socket_factory=self._guarded_socket
                )
        except TimeoutError:
            text = f"no connection to {where} within {_CONNECT_TIMEOUT_S:g} s"
            raise self._http_error(where, text, Failure.TIMED_OUT) from None
        except (OSError, aiohttp.ClientError) as error:
            kind = Failure.GUARDED if isinstance(error, _Guarded) else Failure.UNREACHABLE
            raise self._http_error(where, f"{where}: {error}", kind) from error


def _socket_address(found: ResolveResult) -> tuple[str, int] | tuple[str, int, int, int]:
    host, port = found["host"], found["port"]
    return (host, port) if found["family"] == socket.AF_INET else (host, port, 0, 0)


def _failure_kind(error: BaseException) -> Failure:
    """The word for a failure to connect or to read a head."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, _Guarded):
            return Failure.GUARDED
        if isinstance(seen, _Silenced):
            return Failure.BUSY
        if isinstance(seen, ssl.SSLError | aiohttp.ClientSSLError):
            return Failure.CERTIFICATE
        if isinstance(seen, TimeoutError):
            return Failure.TIMED_OUT
        seen = seen.__cause__ or (seen.os_error if isinstance(seen, aiohttp.ClientConnectorError) else None)
    if isinstance(error, aiohttp.ClientConnectionError) and not isinstance(
        error, aiohttp.ServerDisconnectedError
    ):
        return Failure.UNREACHABLE
    return Failure.PROTOCOL


def _describe_failure(error: BaseException) -> str:
    """A failure to connect in the system's words, anything else as Python shows it."""
    if isinstance(error, _Silenced):
        return str(error)
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    said = (
        cause.strerror or next((one for one in reversed(cause.args) if isinstance(one, str)), "")
        if isinstance(cause, OSError)
        else ""
    )
    return said or repr(error)


def _tls_name(name: str) -> str | None:
    """The name of a certificate: without a port and without brackets."""
    if not name:
        return None
    if name.startswith("["):
        return name[1:].partition("]")[0]
    host, colon, port = name.rpartition(":")
    return host if colon and port.isdigit() and ":" not in host else name
