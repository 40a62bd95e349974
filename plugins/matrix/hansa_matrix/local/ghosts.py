"""Ids of people of other networks here, and who may be behind one that nobody had yet."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

from hansa import NativeId

_PLAIN = frozenset(string.ascii_lowercase + string.digits + "._-/+")
_ESCAPED = re.compile(r"(?:[a-z0-9._/+-]|=[0-9a-f]{2})+")


def escape_localpart(text: str) -> str:
    """Text in the grammar of localparts, injectively: other bytes as ``=hh``."""
    return "".join(c if c in _PLAIN else "".join(f"={b:02x}" for b in c.encode()) for c in text)


def ghost_localpart(user: NativeId, prefix: str) -> str:
    """Returns the localpart of a person's ghost."""
    return f"{prefix}{escape_localpart(user.network)}_{escape_localpart(user.id)}"


def people_behind(local: str, prefix: str) -> Iterator[NativeId]:
    """Yields the people that may have a ghost with a localpart: one, or one for each place at which the
    network id may end.
    """
    rest = local.removeprefix(prefix)
    for match in re.finditer("_", rest):
        network, person = _unescape(rest[: match.start()]), _unescape(rest[match.end() :])
        if network and person and ghost_localpart(NativeId(network, person), prefix) == local:
            yield NativeId(network, person)


def _unescape(text: str) -> str:
    """Returns the text before it was escaped; empty if the text is not an escaped one."""
    if not _ESCAPED.fullmatch(text):
        return ""
    try:
        return re.sub(r"(?:=[0-9a-f]{2})+", lambda m: bytes.fromhex(m[0].replace("=", "")).decode(), text)
    except UnicodeDecodeError:
        return ""
