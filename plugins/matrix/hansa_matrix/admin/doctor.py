"""The federation tester, for this server or another one: each finding says what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from hansa import (
    AdminCommand,
    Failure,
    HttpError,
    HttpResponse,
    LocalProtocolError,
    NetworkContext,
    RemoteProtocolError,
)
from hansa.model.commands import counted

from hansa_matrix.crypto import verify_signature
from hansa_matrix.federation.client import REQUEST_FAILURES, RemoteError
from hansa_matrix.federation.federation_services import Federation
from hansa_matrix.proto import ids
from hansa_matrix.proto.canonical_json import loads_json
from hansa_matrix.proto.servers.discovery import ResolvedServer
from hansa_matrix.proto.servers.key_document import check_key_document
from hansa_matrix.rooms.local_server import LocalServer

_HOUR = 3_600_000
_CLOCK_WARN, _CLOCK_FAIL = 10.0, 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """``state`` is ``ok``, ``warn`` or ``fail``; ``advice`` is empty where nothing has to be done."""

    check: str
    state: str
    text: str
    advice: str = ""


class Doctor:
    """``hansa matrix doctor [SERVER]``."""

    def __init__(
        self,
        own: LocalServer,
        federation: Federation,
    ) -> None:
        self._ctx: NetworkContext = own.ctx
        self._server = own.server
        self._keys = own.keys
        self._client = federation.client
        self._routes = federation.discovery

    def admin_commands(self) -> Mapping[str, AdminCommand]:
        """See ``hansa.HasAdminCommands.admin_commands``."""
        return {"doctor": self.examine_server}

    async def examine_server(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Look at a server, ours if none is named."""
        server = str(arguments.get("server") or self._server)
        if not ids.is_valid_server_name(server):
            raise LocalProtocolError(f"{server!r} is not a server name")
        found: list[Finding] = []
        route = await self._check_discovery(server, found)
        answer = await self._check_connection(server, route, found) if route is not None else None
        if answer is not None and route is not None:
            self._check_clock(answer, found)
            await self._check_keys(server, route, found)
            await self._check_signed_request(server, found)
        worst = max((("ok", "warn", "fail").index(f.state) for f in found), default=0)
        return {
            "server": server,
            "healthy": worst < 2,
            "findings": [asdict(finding) for finding in found],
        }

    async def _check_discovery(self, server: str, found: list[Finding]) -> ResolvedServer | None:
        steps: list[str] = []
        try:
            route = await self._routes.resolve_server(server, steps.append)
        except RemoteProtocolError as error:
            advice = "a server name is a host name that DNS can have, with a port that TCP has"
            found.append(Finding("name", "fail", error.reason, advice))
            return None
        except HttpError as error:
            found.append(Finding("discovery", "fail", error.detail, "ask again when less is under way"))
            return None
        found += [Finding("discovery", "ok", step) for step in steps]
        targets = ", ".join(f"{host}:{port}" for host, port in route.targets)
        text = f"connect to {targets}, Host {route.host_header}, certificate for {route.tls_name}"
        found.append(Finding("discovery", "ok", text))
        return route

    async def _check_connection(
        self, server: str, route: ResolvedServer, found: list[Finding]
    ) -> HttpResponse | None:
        good: HttpResponse | None = None
        for host, port in route.targets:
            where = f"{host}:{port}"
            try:
                answer = await self._client.get_unsigned(route, host, port, "/_matrix/federation/v1/version")
            except HttpError as error:
                found.append(Finding("connection", "fail", error.detail, _advice_for(error, server)))
                continue
            said = _server_version(answer)
            if said is None:
                advice = "something else answers there: a proxy without a route to the Matrix server?"
                text = f"{where} answers {answer.status} and no federation version"
                found.append(Finding("connection", "fail", text, advice))
                continue
            found.append(
                Finding("connection", "ok", f"{where}: {said}, certificate good for {route.tls_name}")
            )
            good = good or answer
        return good

    def _check_clock(self, answer: HttpResponse, found: list[Finding]) -> None:
        try:
            theirs = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
        except (ValueError, TypeError, OverflowError):
            found.append(Finding("clock", "warn", "the answer has no Date header to compare clocks by"))
            return
        apart = abs(theirs - self._ctx.clock.now() / 1000)
        state = "fail" if apart > _CLOCK_FAIL else "warn" if apart > _CLOCK_WARN else "ok"
        advice = "set both clocks by NTP: keys and events are judged by them" if state != "ok" else ""
        found.append(Finding("clock", state, f"{apart:.0f} s apart from ours", advice))

    async def _check_keys(self, server: str, route: ResolvedServer, found: list[Finding]) -> None:
        host, port = route.targets[0]
        try:
            answer = await self._client.get_unsigned(route, host, port, "/_matrix/key/v2/server")
            doc, now = loads_json(answer.body), self._ctx.clock.now()
            keys = check_key_document(doc, server, verify_signature, now)
        except (HttpError, RemoteProtocolError) as error:
            advice = "the key document must name the server and be signed by its own keys"
            found.append(Finding("keys", "fail", getattr(error, "detail", str(error)), advice))
            return
        left = (int(doc["valid_until_ts"]) - now) / _HOUR
        state = "ok" if left >= 1 else "warn"
        advice = "" if left >= 1 else "publish a document that is valid for longer: peers ask at each request"
        found.append(
            Finding(
                "keys",
                state,
                f"{counted(len(keys), 'key')}, self-signed, valid for {left:.0f} h more",
                advice,
            )
        )
        if server == self._server:
            mine = doc.get("verify_keys", {}).get(self._keys.current.key_id, {}).get("key")
            if mine != self._keys.current.public:
                text = f"what answers to {server} has other keys than this server"
                advice = "the name leads to another server, or to an earlier one of the same name"
                found.append(Finding("keys", "fail", text, advice))

    async def _check_signed_request(self, server: str, found: list[Finding]) -> None:
        if server == self._server:
            return
        target = f"/_matrix/federation/v1/query/profile?user_id=@hansa-doctor:{server}"
        try:
            await self._client.request("GET", server, target, seconds=15.0)
        except RemoteError as error:
            if error.hint == 401 or error.code == "M_UNAUTHORIZED":
                text = f"a signed request is refused: {error.reason}"
                advice = f"can {server} reach us to fetch our keys? run `hansa matrix doctor` without a name"
                found.append(Finding("signed request", "fail", text, advice))
                return
        except REQUEST_FAILURES as error:
            found.append(Finding("signed request", "fail", getattr(error, "detail", str(error))))
            return
        found.append(Finding("signed request", "ok", "taken as ours"))


def _server_version(answer: HttpResponse) -> str | None:
    try:
        value = loads_json(answer.body)
    except RemoteProtocolError:
        return None
    server = value.get("server") if isinstance(value, dict) else None
    if answer.status != 200 or not isinstance(server, dict):
        return None
    return f"{str(server.get('name', '?'))[:40]} {str(server.get('version', '?'))[:60]}"


def _advice_for(error: HttpError, server: str) -> str:
    lower = error.detail.lower()
    if error.kind is Failure.CERTIFICATE:
        return (
            f"the certificate must be valid, for {server}'s name and by an authority that we trust (ca_file)"
        )
    if error.kind is Failure.GUARDED:
        return "it resolves to a private address: name its network in private_networks if that is meant"
    if any(one in lower for one in ("name or service", "name not found", "resolve", "getaddrinfo")):
        return "the name is not in the DNS"
    return "is the server up, and does the firewall let its federation port through?"
