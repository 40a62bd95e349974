"""Finding servers (mistake 7): each row of the specification's table, how long it is remembered, and where it may not lead."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hansa import Failure, HttpError, HttpRequest, HttpResponse, SrvRecord
from hansa_matrix.federation.server_discovery import ServerDiscovery
from hansa_matrix.proto.servers.discovery import ResolvedServer


class Clock:
    at = 0.0

    def monotonic(self) -> float:
        return self.at

    def now(self) -> int:
        return int(1_700_000_000_000 + self.at * 1000)


class Half:
    def uniform(self) -> float:
        return 0.5

    def bytes(self, count: int) -> bytes:
        return bytes(count)


class Net:
    """Well-known files by host and path, SRV records by name."""

    def __init__(self) -> None:
        self.files: dict[str, HttpResponse | None] = {}
        self.records: dict[str, list[SrvRecord]] = {}
        self.asked: list[str] = []

    async def request(self, request: HttpRequest) -> HttpResponse:
        url = f"{request.host}:{request.port}{request.target}"
        assert request.tls_name == request.host
        self.asked.append(url)
        found = self.files.get(url)
        if found is None:
            raise HttpError("refused")
        return found

    async def srv(self, name: str) -> list[SrvRecord]:
        self.asked.append(name)
        return self.records.get(name, [])


WELL_KNOWN = "/.well-known/matrix/server"


def names(server: str, **headers: str) -> HttpResponse:
    return HttpResponse(status=200, headers=headers, body=b'{"m.server": "%s"}' % server.encode())


def found(net: Net) -> tuple[ServerDiscovery, Clock]:
    clock = Clock()
    return ServerDiscovery(net, clock, Half()), clock


@pytest.mark.parametrize(
    ("row", "server", "file", "srv", "route"),
    [
        ("D-1", "1.2.3.4", None, {}, (("1.2.3.4", 8448), "1.2.3.4", "1.2.3.4")),
        ("D-1", "1.2.3.4:99", None, {}, (("1.2.3.4", 99), "1.2.3.4:99", "1.2.3.4")),
        ("D-1", "[2001:db8::1]", None, {}, (("2001:db8::1", 8448), "[2001:db8::1]", "2001:db8::1")),
        ("D-1", "[2001:db8::1]:99", None, {}, (("2001:db8::1", 99), "[2001:db8::1]:99", "2001:db8::1")),
        ("D-2", "a.example:99", "no.example", {}, (("a.example", 99), "a.example:99", "a.example")),
        ("D-3.1", "a.example", "1.2.3.4", {}, (("1.2.3.4", 8448), "1.2.3.4", "1.2.3.4")),
        ("D-3.2", "a.example", "b.example:99", {}, (("b.example", 99), "b.example:99", "b.example")),
        ("D-3.3", "a.example", "b.example", {"_matrix-fed._tcp.b.example": "c.example"},
         (("c.example", 7), "b.example", "b.example")),
        ("D-3.4", "a.example", "b.example", {"_matrix._tcp.b.example": "c.example"},
         (("c.example", 7), "b.example", "b.example")),
        ("D-3.5", "a.example", "b.example", {}, (("b.example", 8448), "b.example", "b.example")),
        ("D-4", "a.example", None, {"_matrix-fed._tcp.a.example": "c.example"},
         (("c.example", 7), "a.example", "a.example")),
        ("D-5", "a.example", None, {"_matrix._tcp.a.example": "c.example"},
         (("c.example", 7), "a.example", "a.example")),
        ("D-6", "a.example", None, {}, (("a.example", 8448), "a.example", "a.example")),
    ],
)  # fmt: skip
async def test_every_row_of_the_table(
    row: str, server: str, file: str | None, srv: dict[str, str], route: Any
):
    net = Net()
    if file is not None:
        net.files[f"a.example:443{WELL_KNOWN}"] = names(file)
    net.records = {name: [SrvRecord(0, 0, 7, target)] for name, target in srv.items()}
    target, host, tls = route
    assert await found(net)[0].resolve_server(server) == ResolvedServer(
        targets=(target,), host_header=host, tls_name=tls
    ), row
    assert not any(WELL_KNOWN in url for url in net.asked) or row not in {"D-1", "D-2"}


async def test_d9_every_target_by_priority_and_no_service_for_a_dot():
    net = Net()
    net.records["_matrix-fed._tcp.a.example"] = [
        SrvRecord(2, 0, 1, "late.example"), SrvRecord(1, 0, 2, "soon.example"), SrvRecord(0, 0, 3, "."),
    ]  # fmt: skip
    route = await found(net)[0].resolve_server("a.example")
    assert route.targets == (("soon.example", 2), ("late.example", 1))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 86_400), ({"cache-control": "max-age=4000"}, 4000), ({"cache-control": "public, MAX-AGE=4000"}, 4000),
        ({"cache-control": "max-age=1"}, 300), ({"cache-control": "max-age=99999999"}, 172_800),
        ({"cache-control": "no-store"}, 300), ({"cache-control": "max-age=x"}, 86_400),
        ({"expires": "Tue, 14 Nov 2023 23:13:20 GMT"}, 3600), ({"expires": "nonsense"}, 300),
        ({"cache-control": "max-age=5000", "expires": "nonsense"}, 5000),
    ],
)  # fmt: skip
async def test_d8_a_file_counts_as_long_as_its_headers_say(headers: dict[str, str], seconds: float):
    net = Net()
    url = f"a.example:443{WELL_KNOWN}"
    net.files[url] = names("b.example:1", **headers)
    routes, clock = found(net)
    await routes.resolve_server("a.example")
    clock.at = seconds - 1
    routes.invalidate_server("a.example")
    await routes.resolve_server("a.example")
    assert net.asked.count(url) == 1
    clock.at = seconds + 1
    routes.invalidate_server("a.example")
    await routes.resolve_server("a.example")
    assert net.asked.count(url) == 2


async def test_d8_a_file_that_was_good_lately_counts_on_and_one_that_never_was_is_asked_for_ever_less():
    net = Net()
    url = f"a.example:443{WELL_KNOWN}"
    net.files[url] = names("b.example:1", **{"cache-control": "max-age=600"})
    routes, clock = found(net)
    await routes.resolve_server("a.example")
    net.files[url] = None
    for at in (700.0, 900.0, 5000.0):
        clock.at = at
        assert (await routes.resolve_server("a.example")).host_header == "b.example:1"
    clock.at = 7300.0
    assert (await routes.resolve_server("a.example")).host_header == "a.example"
    asked = []
    for second in range(8000, 40_000, 10):
        clock.at = float(second)
        before = len(net.asked)
        routes.invalidate_server("a.example")
        await routes.resolve_server("a.example")
        if url in net.asked[before:]:
            asked.append(second)
    gaps = [b - a for a, b in pairwise(asked)]
    assert gaps == sorted(gaps) and gaps[-1] >= 3600


@pytest.mark.parametrize(
    ("hops", "works"),
    [
        (["https://b.example/x"], True), (["/other"], True), (["https://b.example:99/x?y=1"], True),
        (["http://b.example/x"], False), (["ftp://b.example/x"], False), ([""], False), (["https://"], False),
        (["https://b.example:x/"], False), (["//b.example/x"], True),
    ],
)  # fmt: skip
async def test_d3_redirects_are_followed_over_https_alone(hops: list[str], works: bool):
    net = Net()
    moved = HttpResponse(status=302, headers={"location": hops[0]})
    net.files[f"a.example:443{WELL_KNOWN}"] = moved
    for url in ("b.example:443/x", "a.example:443/other", "b.example:99/x?y=1"):
        net.files[url] = names("c.example:1")
    route = await found(net)[0].resolve_server("a.example")
    assert (route.host_header == "c.example:1") is works


async def test_d3_a_circle_of_redirects_ends():
    net = Net()
    net.files[f"a.example:443{WELL_KNOWN}"] = HttpResponse(status=302, headers={"location": WELL_KNOWN})
    assert (await found(net)[0].resolve_server("a.example")).host_header == "a.example"
    assert len([url for url in net.asked if WELL_KNOWN in url]) == 6


NOTHING = (b"", b"{}", b"[]", b'{"m.server": 7}', b'{"m.server": "a b"}', b"\xff", b"{" * 60_000)


@pytest.mark.parametrize("body", NOTHING)
async def test_d7_a_file_that_says_nothing_is_no_error(body: bytes):
    net = Net()
    net.files[f"a.example:443{WELL_KNOWN}"] = HttpResponse(status=200, body=body)
    assert (await found(net)[0].resolve_server("a.example")).host_header == "a.example"


async def test_of_a_file_only_the_name_is_kept():
    """2,000 files of 50 KiB were 100 MB."""
    net = Net()
    file = b'{"m.server":"b.example:1","x":"' + b"x" * 50_000 + b'"}'
    net.files[f"a.example:443{WELL_KNOWN}"] = HttpResponse(status=200, body=file)
    routes, _ = found(net)
    assert (await routes.resolve_server("a.example")).host_header == "b.example:1"
    known = routes._files.get("a.example")
    assert known is not None and len(known.body or b"") < 100


async def test_nobody_is_waited_for_at_five_hundred_addresses():
    net = Net()
    net.records["_matrix-fed._tcp.a.example"] = [SrvRecord(n, 0, n, "b.example") for n in range(1, 500)]
    routes, _ = found(net)
    targets = (await routes.resolve_server("a.example")).targets
    assert targets == tuple(("b.example", n) for n in range(1, 9))
    assert (await routes.resolve_server("a.example")).targets == targets


@pytest.mark.parametrize("redirected", [False, True])
async def test_a_file_that_was_not_asked_for_want_of_room_is_not_taken_for_absent(redirected: bool):
    """Strangers who used up their places made us lose servers that are known by their file alone."""
    net = Net()
    routes, clock = found(net)
    there = f"a.example:443{WELL_KNOWN}"
    net.files[there] = names("b.example:99")
    ask, crowded = net.request, [True]
    asked: list[tuple[str, bool]] = []

    async def request(request: HttpRequest) -> HttpResponse:
        asked.append((request.share, request.stranger))
        if crowded and redirected and request.target == WELL_KNOWN:
            return HttpResponse(status=302, headers={"location": "/elsewhere"})
        if crowded:
            raise HttpError("too many requests wait", Failure.BUSY)
        return await ask(request)

    net.request = request  # type: ignore[method-assign]
    with pytest.raises(HttpError) as refused:
        await routes.resolve_server("a.example", share="192.0.2.0/24", stranger=True)
    assert refused.value.kind is Failure.BUSY and set(asked) == {("192.0.2.0/24", True)}
    crowded.clear()
    asked.clear()
    route = await routes.resolve_server("a.example", share="peer.example")
    assert route.targets == (("b.example", 99),) and asked == [("peer.example", False)]
    clock.at = 1.0
    assert await routes.resolve_server("a.example") == route and len(asked) == 1
