"""Signed requests to other servers, by the route that discovery finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from hansa import Http, HttpError, HttpRequest, HttpResponse, PeerConnect, RemoteProtocolError, Verdict

from hansa_matrix.federation.routes import Routes
from hansa_matrix.own_keys import OwnKeys
from hansa_matrix.proto.canonical import dumps, parse
from hansa_matrix.proto.discovery import Route
from hansa_matrix.proto.xmatrix import header, signing_bytes

_MAX_ANSWER = 128 * 1024 * 1024


class Refused(RemoteProtocolError):
    """The other server answered with an error. ``hint`` is its status, ``code`` its errcode."""


class Unreachable(OSError):
    """No answer from the other server. ``retry_after`` in seconds if it asked for patience (429)."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


def path(*parts: str) -> str:
    """A request path of percent-encoded segments."""
    return "/" + "/".join(quote(part, safe="") if part[:1] != "_" else part for part in parts)


class Client:
    """Requests in the name of one server."""

    def __init__(self, server: str, keys: OwnKeys, http: Http, routes: Routes) -> None:
        self._server = server
        self._keys = keys
        self._http = http
        self._routes = routes
        self.check: Callable[[PeerConnect], Any] | None = None
        self.network = ""

    @property
    def server(self) -> str:
        """In whose name it asks."""
        return self._server

    async def _allowed(self, server: str) -> None:
        if self.check is None:
            return
        verdict: Verdict = await self.check(PeerConnect(network=self.network, server=server, outbound=True))
        if not verdict.allowed:
            raise Refused(verdict.text, hint=403, code="M_FORBIDDEN")

    async def ask(self, route: Route, host: str, port: int, target: str) -> HttpResponse:
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
                max_body=1024 * 1024,
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
        signed: bool = True,
    ) -> Any:
        """The parsed answer of a 2xx. Raises ``Refused`` for another status, ``Unreachable`` for none."""
        if server == self._server:
            raise Refused("a server sends no requests to itself", hint=400)
        await self._allowed(server)
        headers = {"User-Agent": "Hansa"}
        content = dumps(body) if body is not None else None
        if content is not None:
            headers["Content-Type"] = "application/json"
        if signed:
            message = signing_bytes(method, target, self._server, server, body)
            key = self._keys.current
            headers["Authorization"] = header(self._server, server, key.key_id, key.sign(message))
        answer = await self._send(method, server, target, headers, content, seconds)
        return self._parsed(server, answer)

    async def _send(  # noqa: PLR0917  # the parts of one request, in its order
        self,
        method: str,
        server: str,
        target: str,
        headers: Mapping[str, str],
        content: bytes | None,
        seconds: float,
    ) -> HttpResponse:
        route = await self._routes.find(server)
        problem = "no address"
        for host, port in route.targets:
            request = HttpRequest(
                method=method,
                host=host,
                port=port,
                target=target,
                host_header=route.host_header,
                tls_name=route.tls_name,
                headers=headers,
                body=content,
                timeout=seconds,
                max_body=_MAX_ANSWER,
            )
            try:
                return await self._http.request(request)
            except HttpError as error:
                problem = str(error) or type(error).__name__
        self._routes.forget(server)
        raise Unreachable(f"{server}: {problem}")

    def _parsed(self, server: str, answer: HttpResponse) -> Any:
        try:
            value = parse(answer.body or b"{}")
        except RemoteProtocolError as error:
            self._routes.forget(server)
            raise Unreachable(f"{server} answered {answer.status} with no JSON") from error
        if 200 <= answer.status < 300:
            return value
        fields = value if isinstance(value, dict) else {}
        code, text = str(fields.get("errcode", "M_UNKNOWN"))[:100], str(fields.get("error", ""))[:500]
        if answer.status == 429 or answer.status >= 500:
            raise Unreachable(f"{server} answered {answer.status} {code}", _patience(answer, fields))
        raise Refused(text or f"{server} answered {answer.status}", hint=answer.status, code=code)


def _patience(answer: HttpResponse, fields: Mapping[str, Any]) -> float:
    given = fields.get("retry_after_ms")
    if type(given) is int and 0 < given < 86_400_000:
        return given / 1000
    header_value = answer.headers.get("retry-after", "")
    return float(header_value) if header_value.isdigit() and len(header_value) < 6 else 0.0
