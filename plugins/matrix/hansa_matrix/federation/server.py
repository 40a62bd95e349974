"""What other servers may ask of us. SPEC: server-server API; the table is section by section the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import orjson
from hansa import Busy, NetworkContext, PeerConnect, RemoteProtocolError, Request, Response, Router

from hansa_matrix.crypto import verify
from hansa_matrix.federation.allowance import Allowance
from hansa_matrix.keyring import Keyring
from hansa_matrix.proto.canonical import decode
from hansa_matrix.proto.xmatrix import XMatrix, parse_header, signing_bytes

_BODY = 64 * 1024
_TRANSACTION = 4 * 1024 * 1024

#: ``(origin, request, body) -> answer``.
Answerer = Callable[[str, Request, Any], Awaitable[Any]]


class Heard(Protocol):
    """Who is told that a server is alive."""

    def __call__(self, server: str) -> None:
        """``server`` made an authenticated request."""
        ...


def error(status: int, code: str, text: str, **more: Any) -> RemoteProtocolError:
    """An error answer; ``more`` are further keys of its body."""
    problem = RemoteProtocolError(text, hint=status, code=code)
    problem.more = more  # type: ignore[attr-defined]
    return problem


def json_response(value: Any, status: int = 200) -> Response:
    """An answer."""
    return Response(status=status, body=value if isinstance(value, bytes) else orjson.dumps(value))


def error_response(problem: RemoteProtocolError) -> Response:
    """An error as the answer that says so. SPEC: client-server API, "Standard error response"."""
    more = getattr(problem, "more", {})
    value = {"errcode": problem.code or "M_UNKNOWN", "error": problem.reason, **more}
    return json_response(value, problem.hint)


class Gate:
    """Request authentication: before any work, and before the body is parsed where policy denies."""

    def __init__(self, ctx: NetworkContext, server: str, keyring: Keyring, heard: Heard) -> None:
        self._ctx = ctx
        self._server = server
        self._keyring = keyring
        self._heard = heard
        config = ctx.config
        self._allowance = Allowance(ctx.clock, config.origin_rate, config.origin_burst)
        self._most = config.origin_concurrency
        self._under_way: dict[str, int] = {}
        #: False while our rooms are not loaded: a room that we seem not to be in would be news to the peer.
        self.opened: Callable[[], bool] = lambda: True

    def __call__(self, answerer: Answerer) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that lets only authenticated requests through."""

        async def endpoint(request: Request) -> Response:
            if not self.opened():
                raise Busy("this server is starting", after=1.0)
            try:
                origin, body = await self._authenticate(request)
                with self._admitted(origin):
                    answer = await answerer(origin, request, body)
                    return answer if isinstance(answer, Response) else json_response(answer)
            except RemoteProtocolError as problem:
                return error_response(problem)

        return endpoint

    @contextmanager
    def _admitted(self, origin: str) -> Iterator[None]:
        """One of the requests that a server may make at a time and in a while. Raises ``Busy``."""
        wait = self._allowance.take(origin)
        under_way = self._under_way.get(origin, 0)
        if wait or under_way >= self._most:
            self._ctx.count("matrix_requests_limited")
            raise Busy(f"{origin} asks too much at a time", after=max(wait, 1.0))
        self._under_way[origin] = under_way + 1
        try:
            yield
        finally:
            left = self._under_way.pop(origin) - 1
            if left:
                self._under_way[origin] = left

    async def _authenticate(self, request: Request) -> tuple[str, Any]:
        headers = [h for h in request.authorizations if h[:8].lower() == "x-matrix"][:5]
        if not headers:
            raise error(401, "M_UNAUTHORIZED", "the request is not signed")
        parsed = [parse_header(h) for h in headers]
        origin = parsed[0].origin
        if any(one.origin != origin for one in parsed):
            raise error(401, "M_UNAUTHORIZED", "the request claims several origins")
        verdict = await self._ctx.check(PeerConnect(network=self._ctx.id, server=origin))
        if not verdict.allowed:
            raise error(403, "M_FORBIDDEN", verdict.text, **{"dev.hansa.decision": verdict.decision})
        body = None
        if request.method in {"PUT", "POST"}:
            body = decode(request.body or b"{}")
            if not isinstance(body, dict):
                raise error(400, "M_BAD_JSON", "the body is no object")
        now = self._ctx.clock.now()
        await self._keyring.need([(one.origin, one.key) for one in parsed], now)
        for one in parsed:
            if one.destination not in {None, self._server}:
                raise error(401, "M_UNAUTHORIZED", f"the request is for {str(one.destination)[:80]!r}")
            key = self._keyring.get(one.origin, one.key)
            if key is None or key.valid_until < now or not self._signed(request, one, key.public, body):
                raise error(401, "M_UNAUTHORIZED", f"the signature of {origin} by {one.key} does not do")
        self._keyring.heard_from(origin)
        self._heard(origin)
        return origin, body

    def _signed(self, request: Request, by: XMatrix, public: str, body: Any) -> bool:
        """Over the body as it came, which senders write in canonical form, or else over the canonical form of
        what it says. The first holds also for numbers and depths that would not survive being read here.
        """

        def verified(content: Any) -> bool:
            message = signing_bytes(request.method, request.target, by.origin, self._server, content)
            return verify(public, by.sig, message)

        if body is None:
            return verified(None)
        return verified(request.body or b"{}") or verified(body)


class Answers(Protocol):
    """A part of what a peer can ask."""

    def table(self) -> Mapping[tuple[str, str], Answerer]:
        """``(method, pattern) -> answerer``, patterns below ``/_matrix/federation``."""
        ...


def add_routes(
    router: Router, gate: Gate, answers: Iterable[Answers], keyring: Keyring, delegate: str
) -> None:
    """Everything that this network serves."""

    async def version(_: Request) -> Response:
        return json_response({"server": {"name": "Hansa", "version": "0.1.0"}})

    async def keys(_: Request) -> Response:
        return json_response(keyring.document())

    async def well_known(_: Request) -> Response:
        if not delegate:
            raise error(404, "M_NOT_FOUND", "this server is not delegated")
        return json_response({"m.server": delegate})

    router.add("GET", "/_matrix/federation/v1/version", version)
    router.add("GET", "/_matrix/key/v2/server", keys)
    router.add("GET", "/_matrix/key/v2/server/{key}", keys)
    router.add("GET", "/.well-known/matrix/server", well_known)
    for part in answers:
        for (method, pattern), answerer in part.table().items():
            size = _TRANSACTION if "/send/" in pattern else _BODY * 2
            router.add(method, f"/_matrix/federation{pattern}", gate(answerer), max_body=size)
