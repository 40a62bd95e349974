"""Routes, as data: which endpoint answers which request. The listeners bind this to sockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote_to_bytes

from hansa.environment import Admitted, Request, Response

#: Answers one request. May raise ``RemoteProtocolError``: its hint and code become the answer.
Endpoint = Callable[[Request], Awaitable[Response]]
#: Sees the head of a request (``body`` is empty, ``chunks`` None) and decides before a byte of the body is
#: read. Refuses it by a ``Response`` or by what an endpoint may raise; then nothing of the body is read.
Admit = Callable[[Request], Awaitable[Admitted | Response]]

_MAX_TARGET = 8192


class BodyTooLarge(OSError):
    """A body is over what its route takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint; ``max_body`` in bytes. ``streamed``: the body is not read before the endpoint is asked,
    which has it as ``Request.chunks``. ``admit`` is asked before that; the endpoint has what it found as
    ``Request.admitted``. ``cancel_on_disconnect``: the endpoint is cancelled when the client hangs up. It may
    be at any await of it then, so it is for endpoints that only read, or whose writes do not mind.
    """

    endpoint: Endpoint
    max_body: int
    streamed: bool = False
    admit: Admit | None = None
    cancel_on_disconnect: bool = False


class _Node:
    __slots__ = ("child", "methods", "name", "wild")

    def __init__(self) -> None:
        self.child: dict[str, _Node] = {}
        self.wild: _Node | None = None
        self.name = ""
        self.methods: dict[str, Route] = {}


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """The result of routing a request: the route, or whether the path or only the method is unknown."""

    route: Route | None
    request: Request
    path_known: bool = False


class Router:
    """Patterns such as ``/_matrix/key/v2/query/{server}``; a segment in braces takes one path segment,
    percent-decoded after splitting, so that an encoded slash stays inside its segment.
    """

    def __init__(self) -> None:
        self._root = _Node()
        #: Headers that every answer below a path has, errors too: ``prefix -> headers``.
        self._headers: dict[str, Mapping[str, str]] = {}
        #: False while the network that answers is being started again.
        self.answering = True

    def close(self) -> None:
        """Answer nothing more: every request is to come again."""
        self.answering = False

    def headers(self, prefix: str, headers: Mapping[str, str]) -> None:
        """Sets headers for every answer to a request below ``prefix``, by any endpoint. There, ``OPTIONS`` is
        answered with these and nothing else.
        """
        self._headers[prefix] = headers

    def headers_for(self, target: str) -> Mapping[str, str]:
        """The headers of every answer to a request."""
        return next((h for prefix, h in self._headers.items() if target.startswith(prefix)), {})

    def add(
        self,
        method: str,
        pattern: str,
        endpoint: Endpoint,
        *,
        max_body: int = 65_536,
        streamed: bool = False,
        admit: Admit | None = None,
        cancel_on_disconnect: bool = False,
    ) -> None:
        """Register one endpoint. Without ``admit`` its bodies are those of strangers. The same method and
        pattern twice raises ValueError.
        """
        node = self._root
        for part in pattern.strip("/").split("/"):
            if part.startswith("{") and part.endswith("}"):
                if node.wild is None:
                    node.wild = _Node()
                    node.wild.name = part[1:-1]
                node = node.wild
            else:
                node = node.child.setdefault(part, _Node())
        if method in node.methods:
            msg = f"{method} {pattern} is registered twice"
            raise ValueError(msg)
        node.methods[method] = Route(
            endpoint=endpoint,
            max_body=max_body,
            streamed=streamed,
            admit=admit,
            cancel_on_disconnect=cancel_on_disconnect,
        )

    def find(self, request: Request) -> RouteMatch:
        """The route of a request, with the request's ``path`` filled in."""
        if len(request.target) > _MAX_TARGET:
            return RouteMatch(None, request)
        node, values = self._root, {}
        first, *parts = request.target.partition("?")[0].split("/")
        if parts and not parts[-1]:  # one slash at the end is let pass, empty segments are nowhere else
            parts.pop()
        if first or not all(parts):
            return RouteMatch(None, request)
        for part in parts:
            following = node.child.get(part)
            if following is None:
                following = node.wild
                if following is None:
                    return RouteMatch(None, request)
                try:
                    values[following.name] = unquote_to_bytes(part).decode()
                except UnicodeError:  # bytes that are not UTF-8, escaped or as they are
                    return RouteMatch(None, request)
            node = following
        # A route for GET also answers HEAD: RFC 9110, 9.3.2.
        route = node.methods.get("GET" if request.method == "HEAD" else request.method)
        if not node.methods:
            return RouteMatch(None, request)
        return RouteMatch(route, replace(request, path=values), path_known=True)


__all__ = ["Admit", "BodyTooLarge", "Endpoint", "Route", "RouteMatch", "Router"]
