"""Server access control lists. SPEC: client-server API, "Server Access Control Lists (ACLs) for rooms".

An ACL is judged by the host part of a server name, without its port, in any case. It is not an auth rule: it
says which servers not to accept events from, and denied servers still get events.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hansa import glob_expression

_MAX_GLOB = 255


@dataclass(frozen=True, slots=True)
class ServerAcl:
    """One list, compiled. ``allow_ip_literals`` is true unless it says exactly false."""

    allow: re.Pattern[str]
    deny: re.Pattern[str]
    allow_ip_literals: bool

    def allows(self, server: str) -> bool:
        """True if a server may take part."""
        host = host_of(server)
        if not self.allow_ip_literals and _is_ip(host):
            return False
        if self.deny.fullmatch(host):
            return False
        return self.allow.fullmatch(host) is not None


def parse_acl(content: Mapping[str, Any]) -> ServerAcl:
    """Parses the list in the content of an ``m.room.server_acl`` event; malformed parts are ignored."""
    return ServerAcl(
        allow=_compile_globs(content.get("allow")),
        deny=_compile_globs(content.get("deny")),
        allow_ip_literals=content.get("allow_ip_literals") is not False,
    )


def host_of(server: str) -> str:
    """A server name without its port, in lower case; an IPv6 literal keeps its brackets."""
    if server.startswith("["):
        return server.partition("]")[0].lower() + "]"
    return server.partition(":")[0].lower()


def _is_ip(host: str) -> bool:
    if host.startswith("["):
        return True
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _compile_globs(globs: object) -> re.Pattern[str]:
    """One pattern for all globs of a list: ``*`` is any run and ``?`` one character."""
    listed = globs if isinstance(globs, list) else []
    taken = [g for g in listed if isinstance(g, str) and len(g) <= _MAX_GLOB]
    if "*" in taken:
        return re.compile(".*", re.DOTALL)
    parts = dict.fromkeys(glob_expression(glob.lower()) for glob in taken)
    return re.compile("|".join(parts) if parts else "(?!)", re.DOTALL)
