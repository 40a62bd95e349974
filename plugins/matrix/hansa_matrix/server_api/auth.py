"""Authentication of other servers' requests. SPEC: server-server API, "Request Authentication"."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from hansa import (
    Admitted,
    Busy,
    NetworkContext,
    PeerConnect,
    RemoteProtocolError,
    Request,
    Response,
)
from hansa.model.bounded_json import Limits

from hansa_matrix.crypto import verify_signature
from hansa_matrix.errors import denial_error, error_response, json_response, matrix_error
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.proto.canonical_json import TRANSACTION, loads_json
from hansa_matrix.proto.servers.xmatrix import XMatrix, parse_header, signing_bytes
from hansa_matrix.ratelimit import RateLimiter
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.server_api.unproven_work import UnprovenWork

#: A body that is parsed to find out whether it is signed, as its sender did not write it in canonical form.
_UNPROVEN = Limits(bytes=TRANSACTION.bytes, values=50_000)
#: Bytes of a body whose signature is checked on the loop; 4 MiB take 20 ms.
_HASHED_AT_ONCE = 256 * 1024
_WITH_BODY = frozenset({"PUT", "POST"})

#: ``(origin, request, body) -> answer``.
FederationHandler = Callable[[str, Request, Any], Awaitable[Any]]


class FederationAuth:
    """Request authentication, cheapest first: the head, then the keys, then the body's signature, and only
    then what the body says.
    """

    def __init__(
        self,
        own: LocalServer,
        keyring: Keyring,
        strangers: UnprovenWork,
        is_ready: Callable[[], bool],
    ) -> None:
        self._ctx: NetworkContext = own.ctx
        self._server = own.server
        self._keyring = keyring
        self._heard = own.sender.heard_from
        self._strangers = strangers
        config = own.ctx.config
        self._allowance = RateLimiter(own.ctx.clock, config.federation_rate, config.federation_burst)
        self._most = config.federation_concurrency
        self._under_way: dict[str, int] = {}
        #: False while our rooms are not loaded: a room that we seem not to be in would be news to the peer.
        self._is_ready = is_ready

    def __call__(
        self, answerer: FederationHandler, limits: Limits | None
    ) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that lets only authenticated requests through, behind ``admit``. ``limits`` None leaves
        the body to the answerer, as bytes.
        """

        async def endpoint(request: Request) -> Response:
            try:
                origin = await self._authenticate(request, limits)
                with self._limit_origin(origin):
                    body = None
                    if limits is not None and request.method in _WITH_BODY:
                        body = _parse_object(request.body, limits)
                    answer = await answerer(origin, request, body)
                    return answer if isinstance(answer, Response) else json_response(answer)
            except RemoteProtocolError as problem:
                return error_response(problem)

        return endpoint

    async def admit(self, request: Request) -> Admitted | Response:
        """Admits or refuses a request by its head: no byte of the body is read before. See
        ``hansa.http.router.Route.admit``. Raises ``Busy``.
        """
        if not self._is_ready():
            raise Busy("this server is starting", after=1.0)
        try:
            claims = self._parse_claims(request)
            origin, now = claims[0].origin, self._ctx.clock.now()
            wanted = [(one.origin, one.key) for one in claims]
            if await self._keyring.has_keys(wanted, now):
                await self._require_peer_allowed(origin)
            elif not self._keyring.may_ask(wanted):
                raise _invalid_signature(claims[0])
            else:
                with self._strangers.work(request.remote) as group:
                    await self._require_peer_allowed(origin)
                    await self._keyring.ensure_keys(wanted, now, stranger=group)
            for one in claims:
                if (key := self._keyring.get(one.origin, one.key)) is None or key.valid_until < now:
                    raise _invalid_signature(one)
        except RemoteProtocolError as problem:
            return error_response(problem)
        return Admitted(share=origin, value=claims)

    def _parse_claims(self, request: Request) -> list[XMatrix]:
        headers = [h for h in request.authorizations if h[:8].lower() == "x-matrix"][:5]
        if not headers:
            raise matrix_error(401, "M_UNAUTHORIZED", "the request is not signed")
        claims = [parse_header(h) for h in headers]
        origin = claims[0].origin
        if any(one.origin != origin for one in claims):
            raise matrix_error(401, "M_UNAUTHORIZED", "the request claims several origins")
        for one in claims:
            if one.destination not in {None, self._server}:
                raise matrix_error(401, "M_UNAUTHORIZED", f"the request is for {str(one.destination)[:80]!r}")
        return claims

    async def _require_peer_allowed(self, origin: str) -> None:
        verdict = await self._ctx.check(PeerConnect(network=self._ctx.id, server=origin))
        if not verdict.allowed:
            raise denial_error(verdict)

    @contextmanager
    def _limit_origin(self, origin: str) -> Iterator[None]:
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

    async def _authenticate(self, request: Request, limits: Limits | None) -> str:
        """Returns the server that signed the request. A large body is hashed in a thread, so that other
        requests go on.
        """
        if request.admitted is None:
            raise matrix_error(401, "M_UNAUTHORIZED", "the request was not admitted")
        claims: list[XMatrix] = request.admitted.value
        now = self._ctx.clock.now()
        for one in claims:
            key = self._keyring.get(one.origin, one.key)
            if key is None or key.valid_until < now:
                raise _invalid_signature(one)
            if len(request.body or b"") <= _HASHED_AT_ONCE:
                signed = self._has_valid_signature(request, one, key.public, limits)
            else:
                loop = asyncio.get_running_loop()
                signed = await loop.run_in_executor(
                    None, self._has_valid_signature, request, one, key.public, limits
                )
            if not signed:
                raise _invalid_signature(one)
        origin = claims[0].origin
        self._keyring.heard_from(origin)
        self._heard(origin)
        return origin

    def _has_valid_signature(self, request: Request, by: XMatrix, public: str, limits: Limits | None) -> bool:
        """Over the body as it came, which senders write in canonical form, or else over the canonical form of
        what it says. The first holds also for numbers and depths that would not survive being read here, and
        nothing is parsed for it.
        """

        def verified(content: Any) -> bool:
            message = signing_bytes(request.method, request.target, by.origin, self._server, content)
            return verify_signature(public, by.sig, message)

        if request.method not in _WITH_BODY:
            return verified(None)
        return verified(request.body or b"{}") or verified(_parse_object(request.body, limits or _UNPROVEN))


def _invalid_signature(by: XMatrix) -> RemoteProtocolError:
    return matrix_error(401, "M_UNAUTHORIZED", f"the signature of {by.origin} by {by.key} is not valid")


def _parse_object(body: bytes, limits: Limits) -> dict[str, Any]:
    value = loads_json(body or b"{}", limits)
    if not isinstance(value, dict):
        raise matrix_error(400, "M_BAD_JSON", "the body must be an object")
    return value


class FederationEndpoints(Protocol):
    """A part of what a peer can ask."""

    def routes(self) -> Mapping[tuple[str, str], FederationHandler]:
        """``(method, pattern) -> answerer``, patterns below ``/_matrix/federation``."""
        ...
