"""Links to files: what a link names, its signature, its end. Nothing here waits or reads the store."""

from __future__ import annotations

import hashlib
import hmac
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from hansa.model.ref import NativeId

#: Characters of the longest token that is looked at, and of the longest event id in one.
MAX_TOKEN, _MAX_EVENT_ID = 512, 200
#: Characters of the longest name of a file.
MAX_SOURCE_NAME = 240
_VERSION = 1
#: Version, key, end in seconds since 1970, tags of the file and of the link; the event's id follows.
_HEAD = struct.Struct(">BHI8s8s")
_SIGNATURE_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkClaim:
    """What a link names: an event of the log, a file of it and a link of its room (by their tags), and its
    end in seconds since 1970.
    """

    event_id: str
    file_tag: bytes
    link_tag: bytes
    until: int


def file_tag(source: NativeId) -> bytes:
    """Eight bytes that stand for a file among those of one event."""
    return hashlib.sha256(f"{source.network}\0{source.id}".encode(errors="surrogatepass")).digest()[:8]


def link_tag(link_id: str, judged_from: int = 0) -> bytes:
    """Eight bytes that stand for a link among those of one room, as it is since the event ``judged_from``: a
    native room that is unlinked and linked again has another one.
    """
    if judged_from:
        link_id = f"{link_id}\0{judged_from}"
    return hashlib.sha256(link_id.encode(errors="surrogatepass")).digest()[:8]


def sign_claim(claim: LinkClaim, number: int, key: bytes) -> str:
    """The token of a claim, signed with the key of this number: letters, digits, ``-`` and ``_``."""
    head = _HEAD.pack(_VERSION, number, claim.until, claim.file_tag, claim.link_tag)
    body = head + claim.event_id.encode()
    return urlsafe_b64encode(body + _sign(body, key)).decode().rstrip("=")


def verify_token(token: str, keys: Mapping[int, bytes]) -> LinkClaim | None:
    """The claim of a token, None for one that none of the keys signed. The end is not looked at."""
    if len(token) > MAX_TOKEN or not token.isascii():
        return None
    try:
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except ValueError:
        return None
    # Other spellings of the same bytes are not links that this server made.
    if urlsafe_b64encode(raw).decode().rstrip("=") != token:
        return None
    body, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
    if not _HEAD.size < len(body) <= _HEAD.size + _MAX_EVENT_ID:
        return None
    version, number, until, file, link = _HEAD.unpack_from(body)
    key = keys.get(number)
    if version != _VERSION or key is None or not hmac.compare_digest(signature, _sign(body, key)):
        return None
    event_id = body[_HEAD.size :].decode(errors="replace")
    return LinkClaim(event_id=event_id, file_tag=file, link_tag=link, until=until)


def sign_source(source: NativeId, key: bytes) -> str:
    """A name for a file of any network, which only who has the key can make: letters, digits, ``-`` and
    ``_``, and ``MAX_SOURCE_NAME`` characters at most. Empty for an id that is too long.
    """
    body = f"{source.network}\0{source.id}".encode(errors="replace")
    name = urlsafe_b64encode(_sign(body, key) + body).decode().rstrip("=")
    return name if len(name) <= MAX_SOURCE_NAME else ""


def verify_source(name: str, key: bytes) -> NativeId | None:
    """The file with a name, None for a name that the key did not make."""
    if len(name) > MAX_SOURCE_NAME or not name.isascii():
        return None
    try:
        raw = urlsafe_b64decode(name + "=" * (-len(name) % 4))
    except ValueError:
        return None
    signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _sign(body, key)):
        return None
    network, _, native = body.decode(errors="replace").partition("\0")
    source = NativeId(network, native)
    return source if sign_source(source, key) == name else None


def _sign(body: bytes, key: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:_SIGNATURE_BYTES]
