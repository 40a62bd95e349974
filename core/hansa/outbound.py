"""The way out: names resolved, addresses guarded, certificates checked, answers bounded."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from hansa.seams import HttpError, HttpRequest, HttpResponse, HttpStream, SrvRecord

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def address_allowed(text: str, allowed: Sequence[_Network]) -> bool:
    """True for a public unicast address, or one in a network that the operator allowed (SSRF guard)."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    if any(address in network for network in allowed if network.version == address.version):
        return True
    return address.is_global and not address.is_multicast and not address.is_reserved


class _GuardedResolver(AbstractResolver):
    """Resolves by the system, and gives only addresses that may be connected to."""

    def __init__(self, allowed: Sequence[_Network]) -> None:
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        results: list[ResolveResult] = []
        for kind, _, proto, _, address in found:
            if address_allowed(str(address[0]), self._allowed):
                results.append(
                    ResolveResult(
                        hostname=host,
                        host=str(address[0]),
                        port=port,
                        family=kind,
                        proto=proto,
                        flags=socket.AI_NUMERICHOST,
                    )
                )
        if not results:
            raise OSError(f"{host} has no address that may be connected to")
        return results

    async def close(self) -> None:
        """Nothing is held."""


class Outbound:
    """See ``hansa.seams.Http``."""

    def __init__(self, *, ca_file: Path | None = None, private_networks: Sequence[str] = ()) -> None:
        self._allowed = [ipaddress.ip_network(n, strict=False) for n in private_networks]
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._tls = ssl.create_default_context()
            if self._ca_file is not None:
                self._tls.load_verify_locations(self._ca_file)
            connector = aiohttp.TCPConnector(
                resolver=_GuardedResolver(self._allowed),
                ssl=self._tls,
                limit=256,
                limit_per_host=8,
                keepalive_timeout=30,
                ttl_dns_cache=60,
            )
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=True, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(self, request: HttpRequest) -> HttpResponse:
        """See ``Http.request``."""
        async with self.stream(request) as answer:
            body = b"".join([part async for part in answer.chunks])
            return HttpResponse(status=answer.status, headers=answer.headers, body=body)

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[HttpStream]:
        """See ``Http.stream``."""
        host = request.host
        literal = _literal(host)
        if literal and not address_allowed(host, self._allowed):
            raise HttpError(f"{host} is not an address that may be connected to")
        scheme = "https" if request.tls_name else "http"
        shown = f"[{host}]" if ":" in host else host
        url = URL(f"{scheme}://{shown}:{request.port}{request.target}", encoded=True)
        headers = {"Host": request.host_header or shown, **request.headers}
        try:
            async with asyncio.timeout(request.timeout) as within, AsyncExitStack() as stack:
                try:
                    asked = self._open().request(
                        request.method,
                        url,
                        data=request.body,
                        headers=headers,
                        allow_redirects=False,
                        server_hostname=_tls_name(request.tls_name),
                    )
                    answer = await stack.enter_async_context(asked)
                except (aiohttp.ClientError, OSError, ValueError) as error:
                    raise HttpError(f"{shown}:{request.port}: {error}") from error
                found = {k.lower(): v for k, v in answer.headers.items()}
                chunks = self._bounded(answer, request.max_body)
                yield HttpStream(status=answer.status, headers=found, chunks=chunks)
        except TimeoutError:
            if not within.expired():
                raise
            raise HttpError(f"no answer from {shown}:{request.port} in {request.timeout:g} s") from None

    @staticmethod
    async def _bounded(answer: aiohttp.ClientResponse, limit: int) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for part in answer.content.iter_any():
                size += len(part)
                if size > limit:
                    raise HttpError(f"the answer is over {limit} bytes")
                yield part
        except (aiohttp.ClientError, ValueError) as error:
            raise HttpError(f"the answer broke off: {error}") from error

    async def srv(self, name: str) -> Sequence[SrvRecord]:
        """See ``Http.srv``."""
        import aiodns  # noqa: PLC0415  # only networks that look names up need it

        resolver = aiodns.DNSResolver()
        try:
            found = await resolver.query(name, "SRV")
        except aiodns.error.DNSError as error:
            if error.args and error.args[0] in {
                aiodns.error.ARES_ENOTFOUND,
                aiodns.error.ARES_ENODATA,
            }:
                return []
            raise HttpError(f"SRV {name}: {error.args[-1]}") from error
        return [SrvRecord(r.priority, r.weight, r.port, r.host) for r in found]


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _tls_name(name: str) -> str | None:
    """The name of a certificate: without a port and without brackets."""
    if not name:
        return None
    if name.startswith("["):
        return name[1:].partition("]")[0]
    host, colon, port = name.rpartition(":")
    return host if colon and port.isdigit() and ":" not in host else name
