"""Addresses of other servers, found by their names and remembered for as long as they say.

SPEC: server-server API, "Resolving server names": a missing well-known file is not an error, but makes the
next way of finding the server count, unless there was one until lately.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import orjson
from hansa import (
    Backoff,
    Clock,
    Failure,
    Http,
    HttpError,
    HttpRequest,
    HttpResponse,
    LruCache,
    Random,
    SrvRecord,
)

from hansa_matrix.proto.servers.discovery import (
    MAX_WELL_KNOWN,
    Discovery,
    FetchWellKnown,
    LookUpSrv,
    ResolvedServer,
    parse_well_known,
)

_MAX_CACHED = 2000
_ROUTE_TTL_S = 3600.0
_DEFAULT_TTL_S, _MIN_TTL_S, _MAX_TTL_S = 86_400.0, 300.0, 172_800.0
#: Seconds until a failed look-up is repeated, doubled each time.
_FAILED = Backoff(first=60.0, most=3600.0)
#: A file that was good so lately (s) still counts when it cannot be had, and is asked for again soon.
_STALE_TTL_S, _RETRY_AFTER_S = 7200.0, 120.0
_REDIRECTS = 5
#: Addresses that are tried of one server: a waiting request waits for each.
_MAX_TARGETS = 8


@dataclass(frozen=True, slots=True)
class _CachedWellKnown:
    body: bytes | None
    until: float
    failures: int = 0
    good_at: float = float("-inf")


class ServerDiscovery:
    """One cache of routes and of well-known files."""

    def __init__(self, http: Http, clock: Clock, random: Random) -> None:
        self._http = http
        self._clock = clock
        self._random = random
        self._routes: LruCache[str, tuple[float, ResolvedServer]] = LruCache(_MAX_CACHED)
        self._files: LruCache[str, _CachedWellKnown] = LruCache(_MAX_CACHED)

    async def resolve_server(
        self,
        server: str,
        told: Callable[[str], None] | None = None,
        *,
        share: str = "",
        stranger: bool = False,
    ) -> ResolvedServer:
        """The route to a server, ``told`` of each step to it, looked for as ``HttpRequest.share`` says.
        Raises RemoteProtocolError for a name that can have none, and ``HttpError`` of kind ``BUSY`` where
        nobody could be asked for want of room: that says nothing of the server, and is not remembered.
        """
        known, now = self._routes.get(server), self._clock.monotonic()
        if told is None and known is not None and known[0] > now:
            return known[1]
        say = told or (lambda _: None)
        discovery, until = Discovery(server, self._random.uniform), now + _ROUTE_TTL_S
        command = discovery.first_command()
        while not isinstance(command, ResolvedServer):
            if isinstance(command, FetchWellKnown):
                file = await self._well_known(command.host, share, stranger=stranger)
                until = min(until, file.until)
                name = parse_well_known(file.body)
                what = f"names {name}" if name else "names no server, which is not an error"
                say(f"https://{command.host}/.well-known/matrix/server {what}")
                command = discovery.on_well_known(file.body)
            else:
                found = await self._srv_records(command)
                listed = ", ".join(f"{r.target}:{r.port}" for r in found) or "none"
                say(f"SRV {command.name}: {listed}")
                command = discovery.on_srv(found)
        command = replace(command, targets=command.targets[:_MAX_TARGETS])
        self._routes.put(server, (until, command))
        return command

    def invalidate_server(self, server: str) -> None:
        """Forgets a route that leads nowhere, so that it is looked up again next time."""
        self._routes.pop(server)

    async def _well_known(self, host: str, share: str, *, stranger: bool) -> _CachedWellKnown:
        now = self._clock.monotonic()
        known = self._files.get(host)
        if known is not None and known.until > now:
            return known
        answer = await self._fetch_well_known(host, share, stranger=stranger)
        name = parse_well_known(answer.body) if answer is not None else None
        if answer is not None and name is not None:
            jitter = 0.9 + 0.2 * self._random.uniform()
            # Of up to 50 KiB what says something is kept.
            fresh = _CachedWellKnown(
                orjson.dumps({"m.server": name}), now + self._well_known_ttl(answer) * jitter, good_at=now
            )
        elif known is not None and now - known.good_at < _STALE_TTL_S:
            fresh = _CachedWellKnown(known.body, now + _RETRY_AFTER_S, known.failures + 1, known.good_at)
        else:
            failures = known.failures if known is not None else 0
            fresh = _CachedWellKnown(None, now + _FAILED.delay(failures + 1), failures + 1)
        self._files.put(host, fresh)
        return fresh

    async def _fetch_well_known(self, host: str, share: str, *, stranger: bool) -> HttpResponse | None:
        """The file's answer, redirects followed; each hop is guarded as any request is."""
        url = f"https://{host}/.well-known/matrix/server"
        for _ in range(_REDIRECTS + 1):
            parts = urlsplit(url)
            try:
                port = parts.port or 443
            except ValueError:
                return None
            if parts.scheme != "https" or not parts.hostname:
                return None
            target = parts.path or "/"
            request = HttpRequest(
                method="GET",
                host=parts.hostname,
                port=port,
                target=f"{target}?{parts.query}" if parts.query else target,
                host_header=parts.netloc.rpartition("@")[2],
                tls_name=parts.hostname,
                timeout=10.0,
                max_body=MAX_WELL_KNOWN,
                share=share,
                stranger=stranger,
            )
            try:
                answer = await self._http.request(request)
            except HttpError as error:
                if error.kind is Failure.BUSY:
                    raise
                return None
            if answer.status not in {301, 302, 303, 307, 308}:
                return answer if answer.status == 200 else None
            url = urljoin(url, answer.headers.get("location", ""))
        return None

    def _well_known_ttl(self, answer: HttpResponse) -> float:
        """For how long (s) a file counts, by its headers."""
        given = _DEFAULT_TTL_S
        control = answer.headers.get("cache-control", "").lower()
        if "no-store" in control or "no-cache" in control:
            return _MIN_TTL_S
        for part in control.split(","):
            name, _, value = part.strip().partition("=")
            if name == "max-age" and value.isdigit() and len(value) < 12:
                given = float(value)
                break
        else:
            expires = answer.headers.get("expires", "")
            if expires:
                try:
                    given = parsedate_to_datetime(expires).timestamp() - self._clock.now() / 1000
                except (ValueError, TypeError, OverflowError):
                    given = _MIN_TTL_S
        return max(_MIN_TTL_S, min(given, _MAX_TTL_S))

    async def _srv_records(self, command: LookUpSrv) -> Sequence[SrvRecord]:
        try:
            return await self._http.srv(command.name)
        except HttpError:
            return []
