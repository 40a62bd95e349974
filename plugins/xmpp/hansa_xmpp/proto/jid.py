r"""Reversible addresses: how a person of another network is written as a JID on our component.

A user id of the shape ``@local:server`` becomes ``esc(local)%esc(server)@gateway``; that short form belongs
to the network called ``matrix``. People of every other network carry its id as a third part, and an id of
another shape stands whole between an empty part and its network's id. The parts are escaped so that no
server's nodeprep (RFC 6122 appendix A) can change them or make two of them one:

* ``^x`` is the upper-case letter X, ``^^`` the marker itself;
* nine of the ten characters that a localpart must not hold are written as in XEP-0106, ``\40`` for ``@``;
* everything else outside printable ASCII, the space (which XEP-0106 forbids at either end) and ``%`` is
  ``^0`` + hexadecimal code point + ``;``.

A localpart has at most 1023 bytes. A longer one is a hash, ``^-`` + base32(SHA-256), which only the table of
ghosts turns back into a person.

SPEC: RFC 6122 section 2 and appendix A (nodeprep); XEP-0106 section 3 (escaping).
"""

from __future__ import annotations

import base64
import hashlib
import re

from hansa import NativeId

SHORT_FORM = "matrix"
MAX_PART = 1023

_XEP_0106 = {c: f"\\{ord(c):02x}" for c in "\"&'/:<>@\\"}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789!#$()*+,-.;=?[]_`{|}~")
_TOKEN = re.compile(r"\^\^|\^([a-z])|\^0([0-9a-f]{1,6});|\\(22|26|27|2f|3a|3c|3e|40|5c)|([^\^\\%])")
_USER = re.compile(r"@([^:]+):(.+)", re.DOTALL)


def escape(part: str) -> str:
    """One part of an address, in lower-case ASCII that every nodeprep leaves alone."""
    return "".join(_escape_one(c) for c in part)


def _escape_one(char: str) -> str:
    if char in _PLAIN:
        return char
    if "A" <= char <= "Z":
        return "^" + char.lower()
    if char == "^":
        return "^^"
    return _XEP_0106.get(char) or f"^0{ord(char):x};"


def unescape(text: str) -> str | None:
    """The part that was escaped; None for what ``escape`` never writes."""
    found: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return None
        at = match.end()
        upper, code, forbidden, plain = match.groups()
        if upper:
            found.append(upper.upper())
        elif code:
            if int(code, 16) > 0x10FFFF:
                return None
            found.append(chr(int(code, 16)))
        elif forbidden:
            found.append(chr(int(forbidden, 16)))
        else:
            found.append(plain or "^")
    part = "".join(found)
    return part if escape(part) == text else None


def puppet(user: NativeId, gateway: str) -> str:
    """The bare JID of a person of another network. Injective, and the same for ever."""
    match = _USER.fullmatch(user.id)
    if match is None:
        parts = ["", user.id, user.network]
    else:
        parts = [match[1], match[2]]
        if user.network != SHORT_FORM:
            parts.append(user.network)
    local = "%".join(escape(part) for part in parts)
    if len(local) > MAX_PART:
        digest = hashlib.sha256("%".join(parts).encode(errors="surrogatepass")).digest()
        local = "^-" + base64.b32encode(digest).decode().lower().rstrip("=")
    return f"{local}@{gateway}"


def address_of(user: NativeId, network: str, gateway: str) -> str:
    """The bare JID of a person: their own if they are of ``network``, else that of their puppet."""
    return user.id if user.network == network else puppet(user, gateway)


def person(jid: str, gateway: str) -> NativeId | None:
    """The person behind a puppet's bare JID; None for a hash and for what ``puppet`` never writes."""
    local, at, domain = jid.rpartition("@")
    if not at or domain != gateway:
        return None
    parts = [unescape(part) for part in local.split("%")]
    match parts:
        case [str(name), str(server)]:
            user = NativeId(SHORT_FORM, f"@{name}:{server}")
        case ["", str(whole), str(network)]:
            user = NativeId(network, whole)
        case [str(name), str(server), str(network)]:
            user = NativeId(network, f"@{name}:{server}")
        case _:
            return None
    return user if puppet(user, gateway) == jid else None


def domain_of(jid: str) -> str:
    """The domain of a JID, without its localpart and resource."""
    return jid.partition("/")[0].rpartition("@")[2]
