"""Allow and deny lists of globs, matched in linear time.

One server has many spellings (case, a port, a trailing dot, an IDN in either form, an IPv6 address with its
zeros). A name is tried in all of them, so that none gets past a list.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

#: A longer name than this is covered by everything that denies and by nothing that allows.
MAX_NAME = 1024


def host_of(server: str) -> str:
    """A server name in the form that globs are matched against too: lower case, without port and trailing
    dot, IDN labels decoded, addresses compressed.
    """
    name = server.lower()
    if name.startswith("["):
        name = name.partition("]")[0].removeprefix("[")
    else:
        host, colon, port = name.rpartition(":")
        if colon and port.isdigit() and ":" not in host:
            name = host
    try:
        return ipaddress.ip_address(name).compressed
    except ValueError:
        return ".".join(_label(label) for label in name.rstrip(".").split("."))


def _label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label.encode().decode("idna")
    except UnicodeError:
        return label


def _form(glob: str) -> str:
    if glob.startswith("[") and glob.endswith("]"):
        return host_of(glob)
    return ".".join(_label(label) for label in glob.split("."))


def matches(glob: str, name: str) -> bool:
    """True if the glob covers the whole name. No backtracking: at most one return to the last star."""
    at = star = mark = 0
    back = -1
    while at < len(name):
        if star < len(glob) and (glob[star] == "?" or glob[star] == name[at]) and glob[star] != "*":
            at += 1
            star += 1
        elif star < len(glob) and glob[star] == "*":
            back, mark = star, at
            star += 1
        elif back >= 0:
            mark += 1
            at, star = mark, back + 1
        else:
            return False
    return all(c == "*" for c in glob[star:])


class Globs:
    """A list of globs; plain names are looked up, the others tried in turn."""

    def __init__(self, globs: Iterable[str]) -> None:
        lower = [_form(g.lower()) for g in globs]
        self._plain = {g for g in lower if not set(g) & set("*?")}
        self._wild = [g for g in lower if set(g) & set("*?")]

    def __bool__(self) -> bool:
        return bool(self._plain or self._wild)

    def denies(self, *names: str) -> str:
        """The first glob that covers one of the names (forms of one identity), empty if none does."""
        if self and any(len(name) > MAX_NAME for name in names):
            return f"(longer than {MAX_NAME} characters)"
        return self._hit(names)

    def allows(self, *names: str) -> bool:
        """True if a glob covers one of the names. A name that is not known is not covered."""
        return all(0 < len(name) <= MAX_NAME for name in names) and bool(self._hit(names))

    def _hit(self, names: Iterable[str]) -> str:
        for name in names:
            lower = name.lower()
            if lower in self._plain:
                return lower
            for glob in self._wild:
                if matches(glob, lower):
                    return glob
        return ""
