"""From a server name to where its federation port is, as a small machine.

SPEC: server-server API, "Resolving server names", steps 1 to 6. The caller runs each command and gives the
answer back: ``FetchWellKnown`` -> the body or None, ``LookUpSrv`` -> the records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hansa.model.errors import RemoteProtocolError
from hansa.model.srv import SrvRecord, order_srv

from hansa_matrix.proto.canonical_json import CLIENT_DEPTH, check_depth, loads_lenient
from hansa_matrix.proto.ids import parse_server_name

MAX_WELL_KNOWN = 50 * 1024
_PORT = 8448


@dataclass(frozen=True, slots=True)
class FetchWellKnown:
    """GET ``https://HOST/.well-known/matrix/server``; anything but a good answer is given back as None."""

    host: str


@dataclass(frozen=True, slots=True)
class LookUpSrv:
    """Look up the SRV records of a name; none is an empty list."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedServer:
    """Where to connect, in order; the ``Host`` header; the name the certificate must carry."""

    targets: tuple[tuple[str, int], ...]
    host_header: str
    tls_name: str


Command = FetchWellKnown | LookUpSrv | ResolvedServer


class Discovery:
    """One resolution of one server name."""

    def __init__(self, server: str, chance: Callable[[], float]) -> None:
        self._name = server
        self._chance = chance
        self._services: list[str] = []

    def first_command(self) -> Command:
        """The first command. Raises RemoteProtocolError if the name is none, or none that can be reached."""
        parsed = parse_server_name(self._name)
        if not parsed.is_reachable:
            raise RemoteProtocolError(f"{self._name!r} cannot be connected to", code="M_INVALID_PARAM")
        if parsed.ip or parsed.port is not None:
            return self._resolve_directly(self._name)
        return FetchWellKnown(parsed.host)

    def on_well_known(self, body: bytes | None) -> Command:
        """The answer to ``FetchWellKnown``."""
        delegated = parse_well_known(body)
        if delegated is not None:
            self._name = delegated
            parsed = parse_server_name(delegated)
            if parsed.ip or parsed.port is not None:
                return self._resolve_directly(delegated)
        self._services = ["_matrix-fed._tcp", "_matrix._tcp"]
        return self._next_command()

    def on_srv(self, records: Sequence[SrvRecord]) -> Command:
        """The answer to ``LookUpSrv``."""
        usable = [r for r in records if r.target not in {".", ""} and 0 < r.port < 65536]
        if not usable:
            return self._next_command()
        ordered = order_srv(usable, self._chance)
        targets = tuple((r.target.rstrip("."), r.port) for r in ordered)
        return ResolvedServer(targets=targets, host_header=self._name, tls_name=self._name)

    def _next_command(self) -> Command:
        if self._services:
            return LookUpSrv(f"{self._services.pop(0)}.{self._name}")
        return ResolvedServer(targets=((self._name, _PORT),), host_header=self._name, tls_name=self._name)

    @staticmethod
    def _resolve_directly(name: str) -> ResolvedServer:
        parsed = parse_server_name(name)
        return ResolvedServer(
            targets=((parsed.host, parsed.port or _PORT),), host_header=name, tls_name=parsed.host
        )


def parse_well_known(body: bytes | None) -> str | None:
    """The delegated server name in a well-known document; None for whatever is wrong with it."""
    if body is None or len(body) > MAX_WELL_KNOWN:
        return None
    try:
        value = loads_lenient(body)
        check_depth(value, CLIENT_DEPTH)
        name = value.get("m.server") if isinstance(value, dict) else None
        parsed = parse_server_name(name if isinstance(name, str) else "")
    except RemoteProtocolError:
        return None
    return str(name) if parsed.is_reachable else None
