"""Hostile requests: authentication (server-server API, "Request Authentication"), paths, broken HTTP."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable

from e2e.hostile_suite import Case, HostileSuite, Run, asked, escaped, raw_http, shown, status_of
from peers.fake_homeserver import V1, Answer, plain_http

_BAD_HTTP = "400 M_UNKNOWN"
_UNAUTHORIZED = "401 M_UNAUTHORIZED"
_VERSION = f"{V1}/version"


def _alias(siege: HostileSuite) -> str:
    return f"{V1}/query/directory?room_alias={escaped(f'#den:{siege.name}')}"


def _header(change: Callable[[str, HostileSuite], str | list[str] | None]) -> Run:
    """A good request with its Authorization header changed."""

    async def run(siege: HostileSuite) -> str:
        mallory, target = siege.mallory, _alias(siege)
        changed = change(mallory.signed("GET", siege.name, target), siege)
        values = [changed] if isinstance(changed, str) else changed or []
        headers = [("Authorization", value) for value in values]
        return shown(await mallory.raw("GET", siege.name, target, headers=headers))

    return run


def _without(name: str) -> Run:
    return _header(lambda h, _: re.sub(rf',?\b{name}="[^"]*"', "", h).replace("X-Matrix ,", "X-Matrix "))


def _with(name: str, value: str) -> Run:
    return _header(lambda h, _: re.sub(rf'\b{name}="[^"]*"', f'{name}="{value}"', h))


async def _other_body(siege: HostileSuite) -> str:
    target, mallory = f"{V1}/send/otherbody", siege.mallory
    signed = mallory.signed("PUT", siege.name, target, b'{"pdus":[]}')
    answer = await mallory.raw("PUT", siege.name, target, b'{"pdus":[1]}', {"Authorization": signed})
    return shown(answer)


def _signed_as(**signing: object) -> Run:
    return asked("GET", lambda s: _alias(s).removeprefix("/_matrix/federation"), **signing)


AUTH = [
    Case("auth: as it should be", _header(lambda h, _: h), "200"),
    Case("auth: none", _header(lambda _h, _: None), _UNAUTHORIZED),
    Case("auth: another scheme", _header(lambda _h, _: "Bearer abc"), _UNAUTHORIZED),
    Case("auth: scheme only", _header(lambda _h, _: "X-Matrix"), _UNAUTHORIZED),
    Case("auth: scheme glued to the next word", _header(lambda h, _: h.replace(" ", "", 1)), _UNAUTHORIZED),
    Case("auth: scheme in lower case", _header(lambda h, _: h.replace("X-Matrix", "x-matrix")), "200"),
    Case("auth: blanks around commas", _header(lambda h, _: h.replace(",", " \t, ")), "200"),
    Case("auth: unknown parameter", _header(lambda h, _: h + ',more="1"'), "200"),
    Case("auth: no origin", _without("origin"), _UNAUTHORIZED),
    Case("auth: no key", _without("key"), _UNAUTHORIZED),
    Case("auth: no signature", _without("sig"), _UNAUTHORIZED),
    Case("auth: no destination is let pass", _without("destination"), "200"),
    Case("auth: origin is not a server name", _with("origin", "a b"), _UNAUTHORIZED),
    Case("auth: origin is longer than any name", _with("origin", "a" * 300), _UNAUTHORIZED),
    Case("auth: another algorithm", _with("key", "curve25519:now"), _UNAUTHORIZED),
    Case("auth: key id with a slash", _with("key", "ed25519:n/w"), _UNAUTHORIZED),
    Case("auth: another destination", _with("destination", "elsewhere.example"), _UNAUTHORIZED),
    Case("auth: destination that is not UTF-8", _with("destination", "\udcff\udcfe"), _UNAUTHORIZED),
    Case("auth: signature is no base64", _with("sig", "!!!"), _UNAUTHORIZED),
    Case("auth: signature too short", _with("sig", "AAAA"), _UNAUTHORIZED),
    Case("auth: signature is all zeros", _with("sig", "A" * 86), _UNAUTHORIZED),
    Case("auth: a parameter twice", _header(lambda h, _: h + ',origin="x.example"'), _UNAUTHORIZED),
    Case("auth: quote without end", _header(lambda h, _: h[:-1]), _UNAUTHORIZED),
    Case("auth: 5,000 characters", _header(lambda h, _: h + f',x="{"y" * 5000}"'), _UNAUTHORIZED),
    Case("auth: the same header twice", _header(lambda h, _: [h, h]), "200"),
    Case("auth: a good and a bad header", _header(lambda h, _: [h, h[:-6] + 'AAAA"']), _UNAUTHORIZED),
    Case(
        "auth: two headers by two origins",
        _header(lambda h, s: [h, h.replace(s.mallory.name, s.friend.name)]),
        _UNAUTHORIZED,
    ),
    Case(
        "auth: another query was signed",
        _header(lambda h, s: s.mallory.signed("GET", s.name, "/x")),
        _UNAUTHORIZED,
    ),
    Case(
        "auth: another method was signed",
        _header(lambda h, s: s.mallory.signed("PUT", s.name, _alias(s))),
        _UNAUTHORIZED,
    ),
    Case("auth: another body was signed", _other_body, _UNAUTHORIZED),
    Case("auth: key that is not published", _signed_as(key=lambda s: s.mallory.secret), _UNAUTHORIZED),
    Case("auth: key that has expired", _signed_as(key=lambda s: s.mallory.retired), _UNAUTHORIZED),
    Case("auth: origin spoofed", _signed_as(origin=lambda s: s.friend.name), _UNAUTHORIZED),
    Case("auth: origin is ourselves", _signed_as(origin=lambda s: s.name), _UNAUTHORIZED),
    Case("auth: origin that nobody answers for", _signed_as(origin="127.0.0.1:1"), _UNAUTHORIZED),
    Case(
        "auth: origin in a network that is not for peers", _signed_as(origin="169.254.169.254"), _UNAUTHORIZED
    ),
    Case("auth: origin in such a network by 6to4", _signed_as(origin="[2002:a9fe:a9fe::1]"), _UNAUTHORIZED),
    Case("auth: origin in such a network by NAT64", _signed_as(origin="[64:ff9b::a9fe:a9fe]"), _UNAUTHORIZED),
    Case(
        "auth: origin in such a network by an IPv4-mapped address",
        _signed_as(origin="[::ffff:169.254.169.254]"),
        _UNAUTHORIZED,
    ),
    Case("auth: origin is an address as one number", _signed_as(origin="2852039166"), _UNAUTHORIZED),
]


def _path(method: str, target: str) -> Run:
    return raw_http(f"{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())


PATHS = [
    Case("path: nothing there", _path("GET", "/_matrix/federation/v1/nothing"), "404 M_UNRECOGNIZED"),
    Case("path: root", _path("GET", "/"), "404 M_UNRECOGNIZED"),
    Case("path: as it should be", _path("GET", _VERSION), "200"),
    Case("path: parent folder", _path("GET", "/_matrix/federation/v1/../v1/version"), "404 M_UNRECOGNIZED"),
    Case("path: encoded slash", _path("GET", "/_matrix/federation/v1%2Fversion"), "404 M_UNRECOGNIZED"),
    Case("path: two slashes first", _path("GET", f"/{_VERSION}"), "404 M_UNRECOGNIZED"),
    Case("path: two slashes within", _path("GET", "/_matrix//federation/v1/version"), "404 M_UNRECOGNIZED"),
    Case("path: two slashes last", _path("GET", f"{_VERSION}//"), "404 M_UNRECOGNIZED"),
    Case("path: backslash", _path("GET", "/_matrix\\federation\\v1\\version"), "404 M_UNRECOGNIZED"),
    Case("path: semicolon", _path("GET", f"{_VERSION};x=1"), "404 M_UNRECOGNIZED"),
    Case("path: NUL", _path("GET", f"{_VERSION}%00"), "404 M_UNRECOGNIZED"),
    Case("path: escapes that are no UTF-8", _path("GET", f"{V1}/event/%FF%FE"), "404 M_UNRECOGNIZED"),
    Case("path: 9,000 characters", _path("GET", f"{V1}/event/{'a' * 9000}"), "404 M_UNRECOGNIZED"),
    Case(
        "path: absolute, of another host", _path("GET", f"http://x.example{_VERSION}"), "404 M_UNRECOGNIZED"
    ),
    Case("path: asterisk", _path("OPTIONS", "*"), "404 M_UNRECOGNIZED"),
    Case(
        "path: empty segment where a room belongs",
        _path("GET", f"{V1}/make_join//@a:b"),
        "404 M_UNRECOGNIZED",
    ),
    Case("method: POST where GET belongs", _path("POST", _VERSION), "405 M_UNRECOGNIZED"),
    Case("method: GET where PUT belongs", _path("GET", f"{V1}/send/1"), "405 M_UNRECOGNIZED"),
    Case("method: of another protocol", _path("PROPFIND", _VERSION), "405 M_UNRECOGNIZED"),
    Case("method: one nobody knows", _path("BREW", _VERSION), _BAD_HTTP),
    Case("method: TRACE", _path("TRACE", _VERSION), "405 M_UNRECOGNIZED"),
]

_PUT = f"PUT {V1}/send/http HTTP/1.1\r\nHost: h\r\n"


def _put(headers: str, body: str = "") -> Run:
    return raw_http(f"{_PUT}{headers}\r\n\r\n{body}".encode())


def _get(headers: str) -> Run:
    return raw_http(f"GET {_VERSION} HTTP/1.1\r\n{headers}\r\n\r\n".encode())


def _known(siege: HostileSuite) -> str:
    """Returns a request head of a server whose keys are known: otherwise no byte of the body would be
    read.
    """
    signed = siege.mallory.signed("PUT", siege.name, f"{V1}/send/http", b"{}")
    return f"{_PUT}Authorization: {signed}\r\n"


async def _long(siege: HostileSuite) -> str:
    head = f"{_known(siege)}Content-Length: 999999999\r\n\r\n".encode()
    return status_of(await plain_http(siege.hansa.port, head, siege.mallory.trust))


async def _bad_chunk_later(siege: HostileSuite) -> str:
    """A chunked body that goes wrong after its request has begun to be answered."""
    head = f"{_known(siege)}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n".encode()
    return status_of(await plain_http(siege.hansa.port, head, siege.mallory.trust, later=b"zz\r\n"))


async def _bomb(siege: HostileSuite) -> str:
    """1 MiB of blanks in 1 KiB, which nobody asked us to unpack."""
    target, mallory = f"{V1}/send/bomb", siege.mallory
    content = gzip.compress(b'{"pdus":[]' + b" " * (1 << 20) + b"}")
    headers = {"Authorization": mallory.signed("PUT", siege.name, target, b"{}"), "Content-Encoding": "gzip"}
    answer: Answer = await mallory.raw("PUT", siege.name, target, content, headers)
    return shown(answer)


HTTP = [
    Case("http: no HTTP at all", raw_http(b"hello, is there anybody?\r\n\r\n"), _BAD_HTTP),
    Case(
        "http: TLS within TLS",
        raw_http(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64 + b"\r\n\r\n"),
        _BAD_HTTP,
    ),
    Case("http: HTTP/2 preface", raw_http(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), _BAD_HTTP),
    Case("http: version 9.9", raw_http(f"GET {_VERSION} HTTP/9.9\r\nHost: h\r\n\r\n".encode()), _BAD_HTTP),
    Case(
        "http: bytes over 127 in the target",
        raw_http(b"GET /_matrix/\xff\xfe HTTP/1.1\r\nHost: h\r\n\r\n"),
        _BAD_HTTP,
    ),
    Case(
        "http: bytes over 127 where a room belongs",
        raw_http(b"GET /_matrix/federation/v1/event/\xff\xfe HTTP/1.1\r\nHost: h\r\n\r\n"),
        _BAD_HTTP,
    ),
    Case(
        "http: length and chunks",
        _put("Content-Length: 4\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        _BAD_HTTP,
    ),
    Case(
        "http: chunks and length",
        _put("Transfer-Encoding: chunked\r\nContent-Length: 4", "0\r\n\r\n"),
        _BAD_HTTP,
    ),
    Case("http: two lengths", _put("Content-Length: 2\r\nContent-Length: 3", "{} "), _BAD_HTTP),
    Case("http: a negative length", _put("Content-Length: -1"), _BAD_HTTP),
    Case("http: a length with a sign", _put("Content-Length: +2", "{}"), _BAD_HTTP),
    Case("http: a length in hexadecimal", _put("Content-Length: 0x2", "{}"), _BAD_HTTP),
    Case("http: an encoding nobody knows", _put("Transfer-Encoding: xchunked", "0\r\n\r\n"), _BAD_HTTP),
    Case("http: chunked twice", _put("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"), _BAD_HTTP),
    Case("http: chunked, but not last", _put("Transfer-Encoding: chunked, gzip", "0\r\n\r\n"), _BAD_HTTP),
    Case(
        "http: a chunk size that is none",
        _put("Transfer-Encoding: chunked", "zz\r\nab\r\n0\r\n\r\n"),
        _BAD_HTTP,
    ),
    Case(
        "http: a chunk longer than it says",
        _put("Transfer-Encoding: chunked", "1\r\nabcdef\r\n0\r\n\r\n"),
        _BAD_HTTP,
    ),
    Case("http: a blank before the colon", _get("Host : h"), _BAD_HTTP),
    Case("http: a folded header", _get("Host: h\r\nX: a\r\n b"), _BAD_HTTP),
    Case("http: NUL in a header", _get("Host: h\r\nX: a\0b"), _BAD_HTTP),
    Case("http: a lone carriage return in a header", _get("Host: h\r\nX: a\rb"), _BAD_HTTP),
    Case("http: a header of 20,000 bytes", _get(f"Host: h\r\nX: {'a' * 20_000}"), _BAD_HTTP),
    Case("http: 1,000 headers", _get("Host: h" + "\r\nX: a" * 1000), _BAD_HTTP),
    Case("http: two hosts", _get("Host: h\r\nHost: i"), _BAD_HTTP),
    Case("http: a target of 20,000 bytes", _path("GET", "/" + "a" * 20_000), _BAD_HTTP),
    Case("http: a length over the limit", _long, "413 M_TOO_LARGE"),
    Case("http: a length over the limit, of nobody", _put("Content-Length: 999999999"), _UNAUTHORIZED),
    Case(
        "http: a body of nobody that is announced and never comes",
        _put("Content-Length: 4000000"),
        _UNAUTHORIZED,
    ),
    Case(
        "http: a body of nobody in chunks that never end",
        _put("Transfer-Encoding: chunked", "1000\r\n" + "a" * 0x1000 + "\r\n"),
        _UNAUTHORIZED,
    ),
    Case("http: a length no number holds", _put(f"Content-Length: {'9' * 30}"), _BAD_HTTP),
    Case(
        "http: a body on GET",
        raw_http(f"GET {V1}/event/$x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{{}}".encode()),
        _UNAUTHORIZED,
    ),
    Case("http: a later chunk size that is none", _bad_chunk_later, _BAD_HTTP),
    Case("http: a packed body", _bomb, "400 M_NOT_JSON"),
]

CASES = [*AUTH, *PATHS, *HTTP]
