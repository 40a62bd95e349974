"""Request authentication. SPEC: server-server API, "Request Authentication"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson
from hansa.model.errors import RemoteProtocolError

from hansa_matrix.proto import ids
from hansa_matrix.proto.canonical_json import dumps_canonical

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAM = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^",\s]*))[ \t]*(?:,[ \t,]*|$)')
_ESCAPED = re.compile(r"\\(.)")
_MAX_HEADER = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class XMatrix:
    """One ``Authorization: X-Matrix`` header. ``destination`` is None where the peer left it out."""

    origin: str
    destination: str | None
    key: str
    sig: str


def _unauthorized_error(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(reason, hint=401, code="M_UNAUTHORIZED")


def parse_header(value: str) -> XMatrix:
    """Parse one header's value. Raises RemoteProtocolError (401 M_UNAUTHORIZED)."""
    scheme, _, rest = value.partition(" ")
    if scheme.lower() != "x-matrix" or len(value) > _MAX_HEADER:
        raise _unauthorized_error("the Authorization header is not X-Matrix")
    params: dict[str, str] = {}
    rest, at = rest.strip(" \t,"), 0
    while at < len(rest):
        match = _PARAM.match(rest, at)
        if match is None:
            raise _unauthorized_error("the X-Matrix header cannot be parsed")
        name, quoted, bare = match.groups()
        if name.lower() in params:  # RFC 9110 section 11.2: each name once
            raise _unauthorized_error(f"the X-Matrix header has {name[:20]} twice")
        if quoted is not None and "\\" in quoted:
            quoted = _ESCAPED.sub(r"\1", quoted)
        params[name.lower()] = bare if quoted is None else quoted
        at = match.end()
    origin, key, sig = params.get("origin", ""), params.get("key", ""), params.get("sig", "")
    if not ids.is_valid_server_name(origin) or not ids.is_valid_key_id(key) or not sig:
        raise _unauthorized_error("the X-Matrix header lacks a good origin, key or sig")
    return XMatrix(origin=origin, destination=params.get("destination"), key=key, sig=sig)


def signing_bytes(method: str, uri: str, origin: str, destination: str, content: Any = None) -> bytes:
    """Returns the bytes to be signed. ``uri`` is the raw request target; ``content`` is None where there is
    no body, and bytes where it is JSON already, which is taken as it stands.
    """
    signed = {"method": method, "uri": uri, "origin": origin, "destination": destination}
    if content is None:
        return dumps_canonical(signed)
    return dumps_canonical(
        {**signed, "content": orjson.Fragment(content) if isinstance(content, bytes) else content}
    )


def format_header(origin: str, destination: str, key: str, sig: str) -> str:
    """The header's value as we send it."""
    return f'X-Matrix origin="{origin}",destination="{destination}",key="{key}",sig="{sig}"'
