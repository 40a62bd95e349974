"""Allow and deny lists of globs, matched in linear time."""

from __future__ import annotations

from collections.abc import Iterable

#: A name longer than this matches what denies and nothing that allows.
MAX_NAME = 1024


def host_of(server: str) -> str:
    """A server name without its port, lower case: the form that globs are matched against too."""
    name = server.lower()
    if name.startswith("["):
        return name.partition("]")[0].removeprefix("[")
    host, colon, port = name.rpartition(":")
    return host if colon and port.isdigit() else name


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
        lower = [g.lower() for g in globs]
        self._plain = {g for g in lower if not set(g) & set("*?")}
        self._wild = [g for g in lower if set(g) & set("*?")]

    def __bool__(self) -> bool:
        return bool(self._plain or self._wild)

    def hit(self, *names: str) -> str:
        """The first glob that covers one of the names (forms of one identity), empty if none does."""
        for name in names:
            lower = name.lower()
            if lower in self._plain:
                return lower
            for glob in self._wild:
                if matches(glob, lower[:MAX_NAME]):
                    return glob
        return ""
