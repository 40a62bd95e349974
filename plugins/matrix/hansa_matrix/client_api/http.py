"""Authentication of clients, and the form of answers and errors. SPEC: client-server API, "Client
authentication", "Standard error response".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hansa import (
    Admit,
    Admitted,
    Busy,
    InternalError,
    LocalProtocolError,
    NetworkContext,
    Refusal,
    RefusalCode,
    RemoteProtocolError,
    Request,
    Response,
    Router,
    decision_fields,
)

from hansa_matrix.client_api.account.accounts import Accounts, Requester
from hansa_matrix.client_api.request_slots import RequestSlots
from hansa_matrix.errors import error_response, json_response, matrix_error
from hansa_matrix.federation.client import RemoteError
from hansa_matrix.proto.canonical_json import CLIENT_BODY, CLIENT_DEPTH, check_depth, loads_lenient
from hansa_matrix.ratelimit import RateLimiter

#: ``(who, request, body) -> answer``.
Handler = Callable[[Requester, Request, Any], Awaitable[Any]]
#: The same for an endpoint that needs no token.
PublicHandler = Callable[[Request, Any], Awaitable[Any]]

ROOT = "/_matrix/client"
#: Keys and messages for the devices of a large room come at once.
_MAX_BODY = CLIENT_BODY.bytes
#: Bytes of a request without a token: a login, a registration, a search of the public list.
_MAX_PUBLIC_BODY = 64 * 1024
#: Routes that may wait for other servers and keep nothing: they end when their client hangs up.
CANCELLED_ON_DISCONNECT = frozenset(
    {
        ("GET", "/v1/rooms/{room}/hierarchy"),
        ("GET", "/v3/profile/{user}"),
        ("GET", "/v3/profile/{user}/{field}"),
        ("GET", "/v3/publicRooms"),
        ("POST", "/v3/publicRooms"),
        ("POST", "/v3/keys/query"),
    }
)
#: Routes that wait until there is news.
LONG_POLLS = frozenset({("GET", "/v3/sync"), ("GET", "/v3/events")})
#: Requests of one person that are worked on at once: what only reads, and what says something, which waits
#: for a commit that many share; and those that wait behind them.
MAX_PARALLEL_READS, MAX_PARALLEL_WRITES, MAX_WAITING = 4, 50, 1000
_WITH_BODY = frozenset({"PUT", "POST", "DELETE"})
_CORS_HEADERS: Mapping[str, str] = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "X-Requested-With, Content-Type, Authorization",
    "Access-Control-Expose-Headers": "Retry-After",
}

_STATUS = {
    RefusalCode.NOT_FOUND: (404, "M_NOT_FOUND"),
    RefusalCode.INVALID: (400, "M_BAD_JSON"),
    RefusalCode.TOO_LARGE: (413, "M_TOO_LARGE"),
    RefusalCode.UNSUPPORTED: (400, "M_UNKNOWN"),
    RefusalCode.UNREACHABLE: (502, "M_UNKNOWN"),
    RefusalCode.CONFLICT: (409, "M_UNKNOWN"),
}


def error_from_refusal(refusal: Refusal) -> RemoteProtocolError:
    """A refusal as an error answer."""
    if refusal.code in {RefusalCode.RATE, RefusalCode.BUSY}:
        raise Busy(refusal.text, after=refusal.retry_after or 1.0, decision=refusal.decision)
    status, code = _STATUS.get(refusal.code, (403, "M_FORBIDDEN"))
    return matrix_error(status, code, refusal.text, **decision_fields(refusal.decision))


@dataclass(frozen=True, slots=True)
class RateLimited:
    """A handler whose callers may not ask as often as they like."""

    handler: Handler


class EndpointGroup(Protocol):
    """A part of the client API."""

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """``(method, pattern) -> handler``, patterns below ``/_matrix/client``."""
        ...


class PublicEndpointGroup(Protocol):
    """A part of the client API some of which takes no token."""

    def public_routes(self) -> Mapping[tuple[str, str], PublicHandler]:
        """``(method, pattern) -> handler``, patterns below ``/_matrix/client``."""
        ...


class ClientHttp:
    """Requires a token, and a body that is an object."""

    def __init__(self, ctx: NetworkContext, accounts: Accounts, is_ready: Callable[[], bool]) -> None:
        self._ctx = ctx
        self._accounts = accounts
        config = ctx.config
        self._acts = RateLimiter(ctx.clock, config.client_rate, config.client_burst)
        self._reads = RequestSlots(each=MAX_PARALLEL_READS, waiting=MAX_WAITING)
        self._writes = RequestSlots(each=MAX_PARALLEL_WRITES, waiting=MAX_WAITING)
        #: False while the rooms are not loaded.
        self._is_ready = is_ready

    def add_authenticated(self, router: Router, parts: Sequence[EndpointGroup]) -> None:
        """Every endpoint of some parts, those of ``v3`` under their name of before too."""
        for part in parts:
            for (method, pattern), handler in part.routes().items():
                admit = self.admit_body if method in _WITH_BODY else None
                endpoint = self.authenticated_endpoint(handler, self._slots_of(method, pattern))
                self._add_route(router, method, pattern, endpoint, most=_MAX_BODY, admit=admit)

    def _slots_of(self, method: str, pattern: str) -> RequestSlots | None:
        """The places for requests of a route; None for one that waits for others, and keeps no place."""
        if (method, pattern) in LONG_POLLS | CANCELLED_ON_DISCONNECT:
            return None
        return self._reads if method == "GET" else self._writes

    def add_media_route(
        self, router: Router, method: str, path: str, handler: Handler | RateLimited, *, max_file: int = 0
    ) -> None:
        """Adds a route at a path of its own. It passes the same checks as a route of ``add_authenticated``:
        token, rate, slots. ``max_file``: the body is a file of at most so many bytes, which is streamed.
        """
        if method == "GET":
            endpoint = self.authenticated_endpoint(handler, self._reads)
            router.add(method, path, endpoint, cancel_on_disconnect=True)
            return
        endpoint = self.authenticated_endpoint(handler, self._writes)
        most = max_file or _MAX_PUBLIC_BODY
        router.add(method, path, endpoint, max_body=most, streamed=bool(max_file), admit=self.admit_body)

    def add_public(self, router: Router, table: Mapping[tuple[str, str], PublicHandler]) -> None:
        """Endpoints for everybody."""
        for (method, pattern), handler in table.items():
            self._add_route(router, method, pattern, self.public_endpoint(handler), most=_MAX_PUBLIC_BODY)

    @staticmethod
    def _add_route(
        router: Router,
        method: str,
        pattern: str,
        endpoint: Callable[[Request], Awaitable[Response]],
        *,
        most: int,
        admit: Admit | None = None,
    ) -> None:
        names = [ROOT + pattern]
        if pattern.startswith("/v3/"):
            names.append(f"{ROOT}/r0/{pattern[4:]}")
        for name in names:
            router.add(
                method,
                name,
                endpoint,
                max_body=most,
                admit=admit,
                cancel_on_disconnect=(method, pattern) in CANCELLED_ON_DISCONNECT,
            )

    @staticmethod
    def enable_cors(router: Router) -> None:
        """Pages of any origin may ask, as no cookie says who they are."""
        for prefix in ("/_matrix/client", "/_matrix/media", "/.well-known/matrix/client"):
            router.headers(prefix, _CORS_HEADERS)

    def public_endpoint(self, handler: PublicHandler) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that asks for no token."""

        async def handle_request(request: Request) -> Response:
            return await self._to_response(lambda: handler(request, _parse_body(request)))

        return handle_request

    def authenticated_endpoint(
        self, handler: Handler | RateLimited, places: RequestSlots | None = None
    ) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that does; with ``places`` a few requests of one person at a time."""
        inner = handler.handler if isinstance(handler, RateLimited) else handler
        limited = isinstance(handler, RateLimited)

        async def answer_request(request: Request) -> Any:
            caller = await self.authenticate(request)
            if limited and (wait := self._acts.take(caller.user)):
                self._ctx.count("matrix_client_limited", what="request")
                raise Busy("too many requests", after=max(1.0, wait))
            if places is None:
                return await inner(caller, request, _parse_body(request))
            try:
                place = await places.acquire_slot(caller.user)
            except Busy:
                self._ctx.count("matrix_client_limited", what="waiting")
                raise
            try:
                return await inner(caller, request, _parse_body(request))
            finally:
                places.release_slot(caller.user, place)

        async def handle_request(request: Request) -> Response:
            return await self._to_response(lambda: answer_request(request))

        return handle_request

    async def admit_body(self, request: Request) -> Admitted | Response:
        """Returns the account that a body counts against, by the token: without a valid token none of the
        body is read. The endpoint authenticates again, since the token may have been revoked by then. See
        ``hansa.http.router.Route.admit``.
        """
        try:
            caller = await self.authenticate(request)
        except RemoteProtocolError as problem:
            return error_response(problem)
        return Admitted(share=caller.user, proven=True)

    async def authenticate(self, request: Request) -> Requester:
        """Returns the user and device of the request's token. Raises the error answer if the token is missing
        or not valid.
        """
        if not self._is_ready():
            raise Busy("this server is starting", after=1.0)
        token = ""
        for value in request.authorizations[:1]:
            kind, _, rest = value.partition(" ")
            token = rest.strip() if kind.lower() == "bearer" else ""
        if not token and self._ctx.config.allow_query_access_token:
            token = request.first("access_token")
        if not token:
            raise matrix_error(401, "M_MISSING_TOKEN", "the request has no access token")
        caller = await self._accounts.get_by_token(token)
        if caller is None:
            raise matrix_error(401, "M_UNKNOWN_TOKEN", "unknown access token", soft_logout=False)
        self._accounts.last_seen.note_request(caller.user, caller.device, request.remote)
        return caller

    async def require_token_for_remote(self, request: Request, server: str) -> None:
        """Everybody may ask about this server if no policy could deny that to their server. About another
        server (empty: this one), and where a policy could, a token is needed: raises the error answer of a
        request without a good one.
        """
        config = self._ctx.config
        is_open = config.public_reading or not self._ctx.has_policies
        if not is_open or (server and server != config.server_name):
            await self.authenticate(request)

    async def _to_response(self, work: Callable[[], Awaitable[Any]]) -> Response:
        try:
            answer = await work()
        except RemoteProtocolError as problem:
            return error_response(problem)
        except RemoteError as problem:  # of which no endpoint has said what a client is told
            self._ctx.log.warning("a refusal of another server is not passed on to a client: %s", problem)
            return error_response(matrix_error(502, "M_UNKNOWN", "another server refused the request"))
        except InternalError:  # logged, and answered as any bug is
            raise
        except LocalProtocolError as problem:
            return json_response({"errcode": "M_INVALID_PARAM", "error": str(problem)}, 400)
        return answer if isinstance(answer, Response) else json_response(answer)


def _parse_body(request: Request) -> Any:
    """The object that a request says. Raises the error answer of what is none."""
    if request.method not in _WITH_BODY or not request.body:
        return {}
    value = loads_lenient(request.body, CLIENT_BODY)
    if value is None and request.method == "POST":  # COMPAT: nheko logs out with ``null``
        return {}
    if not isinstance(value, dict):
        raise matrix_error(400, "M_BAD_JSON", "the body must be an object")
    check_depth(value, CLIENT_DEPTH)
    return value


def get_string(body: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """A string of a body. Raises the error answer of one that is missing, unless there is a default."""
    value = body.get(key, default)
    if value is None:
        raise matrix_error(400, "M_MISSING_PARAM", f"{key} is missing")
    if not isinstance(value, str):
        raise matrix_error(400, "M_BAD_JSON", f"{key} must be a string")
    return value


def get_reason(body: Mapping[str, Any]) -> dict[str, str]:
    """Returns the reason that a user gives for an action, if there is one."""
    return {"reason": get_string(body, "reason")} if "reason" in body else {}


def require_own_user(caller: Requester, request: Request) -> str:
    """Returns the user of a path that is for the caller alone. Raises the error answer for any other user."""
    if request.path["user"] != caller.user:
        raise matrix_error(403, "M_FORBIDDEN", "this belongs to another user")
    return caller.user


def get_int(request: Request, key: str, default: int, most: int) -> int:
    """A number from 0 of a query, never over ``most``. Raises the error answer of what is none."""
    value = request.first(key)
    if not value:
        return default
    if not value.isascii() or not value.isdigit() or len(value) > 15:
        raise matrix_error(400, "M_INVALID_PARAM", f"{key} must be a number")
    return min(int(value), most)
