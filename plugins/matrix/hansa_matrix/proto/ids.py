"""The grammar of identifiers. SPEC: Matrix v1.19, appendices, "Identifier Grammar"."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

from hansa.model.errors import RemoteProtocolError

MAX_BYTES = 255
_SERVER = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.\-]{1,255})(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?", re.ASCII)
_MAX_DNS_NAME = 253
#: The longest host, a colon and a port.
_MAX_SERVER_NAME = 261
_KEY_ID = re.compile(r"ed25519:[A-Za-z0-9_]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerName:
    """A server name taken apart. ``host`` has no brackets; ``ip`` tells a literal from a DNS name.

    More names identify a server than can be connected to: ``is_reachable`` is false for a port that TCP has
    not, and for a host that cannot be in the DNS. Such a name may stand in an event like any other.
    """

    host: str
    port: int | None
    ip: bool

    @property
    def is_reachable(self) -> bool:
        """True if the name can have a host and port to connect to."""
        if self.port is not None and not 0 < self.port < 65536:
            return False
        name = self.host.removesuffix(".")
        return self.ip or (
            len(name) <= _MAX_DNS_NAME and all(_LABEL.fullmatch(label) for label in name.split("."))
        )


def parse_server_name(name: str) -> ServerName:
    """Take a server name apart. Raises RemoteProtocolError."""
    match = _SERVER.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise RemoteProtocolError(f"not a server name: {str(name)[:80]!r}", code="M_INVALID_PARAM")
    host, port = match["host"], match["port"]
    bracketed = host.startswith("[")
    try:
        ip = ipaddress.IPv6Address(host[1:-1]) if bracketed else ipaddress.IPv4Address(host)
    except ValueError:
        if bracketed:
            raise RemoteProtocolError(f"not a server name: {name[:80]!r}", code="M_INVALID_PARAM") from None
        ip = None
    return ServerName(
        host=host[1:-1] if bracketed else host, port=int(port) if port else None, ip=ip is not None
    )


def is_valid_server_name(name: object) -> bool:
    """True for what ``parse_server_name`` takes."""
    return isinstance(name, str) and len(name) <= _MAX_SERVER_NAME and _is_server_name(name)


@lru_cache(maxsize=4096)
def _is_server_name(name: str) -> bool:
    # Every event names a server, and those of a room are few.
    try:
        parse_server_name(name)
    except RemoteProtocolError:
        return False
    return True


def fits_255_bytes(value: str) -> bool:
    """True within 255 bytes of UTF-8."""
    return len(value) <= MAX_BYTES and len(value.encode(errors="replace")) <= MAX_BYTES


def domain_of(identifier: str) -> str:
    """Returns the part after the first colon; empty if there is no colon."""
    return identifier.partition(":")[2]


def is_valid_user_id(value: object) -> bool:
    """A user id, historical localparts included: any text but ``:`` and NUL, even none."""
    return isinstance(value, str) and fits_255_bytes(value) and is_user_id_any_length(value)


def is_user_id_any_length(value: str) -> bool:
    """A user id that may have over 255 bytes, as the sender of an event that is kept to be rejected."""
    local, colon, domain = value[1:].partition(":")
    return value[:1] == "@" and bool(colon) and "\0" not in local and is_valid_server_name(domain)


def is_valid_room_id(value: object) -> bool:
    """A room id: ``!`` and something, with or without a domain."""
    return (
        isinstance(value, str)
        and len(value) > 1
        and value[0] == "!"
        and fits_255_bytes(value)
        and "\0" not in value
    )


def is_valid_event_id(value: object) -> bool:
    """An event id: ``$`` and a hash, or up to version 2 any text and a domain."""
    return isinstance(value, str) and len(value) > 1 and value[0] == "$" and fits_255_bytes(value)


def is_valid_alias(value: object) -> bool:
    """A room alias."""
    if not isinstance(value, str) or not value.startswith("#") or not fits_255_bytes(value):
        return False
    local, colon, domain = value[1:].partition(":")
    return bool(local and colon) and "\0" not in local and is_valid_server_name(domain)


def is_valid_key_id(value: object) -> bool:
    """An ed25519 key id."""
    return isinstance(value, str) and fits_255_bytes(value) and _KEY_ID.fullmatch(value) is not None
