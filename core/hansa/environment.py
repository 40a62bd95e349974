"""Clock, randomness and network as values that are passed in, so that a simulation can replace them."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from socket import socket
from typing import Any, Protocol

from hansa.model.fast_dataclass import quick
from hansa.model.srv import SrvRecord


class Clock(Protocol):
    """The time. Waiting is the event loop's business (``asyncio.sleep``), which a simulation also owns."""

    def now(self) -> int:
        """Wall clock in ms since 1970."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards."""
        ...


class SystemClock:
    """The machine's own time."""

    def now(self) -> int:
        """See ``Clock.now``."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """See ``Clock.monotonic``."""
        return time.monotonic()


class Random(Protocol):
    """Randomness, fit for keys and ids in production, seeded in a simulation."""

    def bytes(self, count: int) -> bytes:
        """``count`` random bytes."""
        ...

    def uniform(self) -> float:
        """A number in [0, 1)."""
        ...


class SystemRandom:
    """The machine's own randomness."""

    def bytes(self, count: int) -> bytes:
        """See ``Random.bytes``."""
        return secrets.token_bytes(count)

    def uniform(self) -> float:
        """See ``Random.uniform``."""
        return secrets.randbits(53) / (1 << 53)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One outbound request. ``target`` is the exact request target, sent as it stands.

    ``host`` and ``port`` say where to connect (an address or a name), ``host_header`` is the requested host,
    and ``tls_name`` the name that the certificate must carry (SNI unless it is an address); no TLS if it is
    empty. ``timeout`` is in seconds for the whole exchange, ``max_body`` in bytes for the answer, unpacked.

    ``share`` names the cause of the request (a server, or the ``neighbourhood`` of an address), which it
    counts against. ``stranger``: the cause has proven nothing yet; all strangers share one small pool.
    """

    method: str
    host: str
    port: int
    target: str
    host_header: str = ""
    tls_name: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    timeout: float = 30.0
    max_body: int = 16 * 1024 * 1024
    share: str = ""
    stranger: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """The answer to an ``HttpRequest``. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpStream:
    """The answer to an ``HttpRequest`` whose body is read as it comes. ``chunks`` raises ``HttpError`` if it
    ends too early, takes too long or grows too large.
    """

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class Failure(StrEnum):
    """The reason for an incomplete answer, in words that any user may read: they have no address, port or
    error number.
    """

    UNREACHABLE = "cannot be reached"
    GUARDED = "is not at an address that may be connected to"
    TIMED_OUT = "did not answer in time"
    CERTIFICATE = "has no good certificate"
    PROTOCOL = "does not answer as it has to"
    TOO_LARGE = "answers with too much"
    BUSY = "cannot be asked now: too many requests are under way"


class HttpError(OSError):
    """There is no complete answer. ``str`` is the text of ``kind``, which any user may read; ``detail``, with
    addresses and system errors, is for logs and for operators.
    """

    def __init__(self, detail: str, kind: Failure = Failure.UNREACHABLE) -> None:
        super().__init__(detail)
        self.detail = detail
        self.kind = kind

    def __str__(self) -> str:
        return self.kind.value


class Http(Protocol):
    """The way out. Resolves names, refuses addresses that the operator did not allow, follows nothing."""

    async def request(self, request: HttpRequest) -> HttpResponse:
        """Raises ``HttpError``."""
        ...

    def stream(self, request: HttpRequest) -> AbstractAsyncContextManager[HttpStream]:
        """As ``request``, without holding the body. Raises ``HttpError`` on entering."""
        ...

    async def srv(self, name: str) -> Sequence[SrvRecord]:
        """SRV records of a name; empty if there are none. Raises ``HttpError`` if DNS failed."""
        ...

    async def connect(self, host: str, port: int) -> socket:
        """A connected TCP socket, without TLS, for a protocol that is not HTTP. The addresses of ``host`` are
        tried as RFC 8305 says, those that the operator did not allow are left out. Raises ``HttpError`` after
        10 seconds at most.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The claim of a request's head about its sender (``hansa.http.router.Route.admit``).

    ``share`` names the peer or account whose share of memory the body takes, e.g. ``@user:server``; empty for
    strangers, who all share one small pool. ``proven``: the head alone proves it, as a token does. A claim
    that is not proven (a server name whose signature covers the body) takes the share of the sender's
    address, so that no sender can use up the share of another. ``value`` is for the endpoint.
    """

    share: str = ""
    proven: bool = False
    value: Any = None


def _nothing() -> None:
    """The client cannot hang up."""


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One inbound request. ``target`` is the raw request target with its query; ``path`` are its
    percent-decoded segments that the route named; ``query`` is in order, decoded. Header names are lower
    case. ``remote`` is the peer's address. ``chunks`` is the body as it comes, instead of ``body``, where the
    route wants that: it raises ``hansa.http.router.BodyTooLarge`` and TimeoutError. ``admitted`` is what the
    route's ``admit`` found, None where the route has none. ``reads_only`` is called by an endpoint that keeps
    nothing: from then on its work ends, as by a cancelled task, when the client hangs up.
    """

    method: str
    target: str
    host: str
    path: Mapping[str, str] = field(default_factory=dict)
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    authorizations: Sequence[str] = ()
    body: bytes = b""
    remote: str = ""
    chunks: AsyncIterator[bytes] | None = None
    admitted: Admitted | None = None
    reads_only: Callable[[], None] = _nothing

    def first(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return next((v for k, v in self.query if k == name), default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The answer to a ``Request``. ``chunks``, if there are any, come instead of ``body``, and are closed
    whether the client stays or not.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    chunks: AsyncGenerator[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """Clock and randomness together, as the core's own parts take them."""

    clock: Clock
    random: Random
