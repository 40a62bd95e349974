"""The listener against raw bytes: bytes that are not HTTP, slow clients, hidden parts of paths."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from hansa import Request, Response, Router
from hansa.http import connection
from hansa.http.listener import Dispatcher, Listener


class Counts(dict):
    def __call__(self, name: str, **labels: str) -> None:
        key = " ".join([name, *labels.values()])
        self[key] = self.get(key, 0) + 1


@asynccontextmanager
async def listening(counts):
    router = Router()

    async def echo(request: Request) -> Response:
        return Response(body=request.body or b"{}")

    async def named(request: Request) -> Response:
        return Response(body=request.path["name"].encode())

    router.add("GET", "/here", echo)
    router.add("PUT", "/here", echo, max_body=100)
    router.add("GET", "/named/{name}", named)
    listener = Listener(Dispatcher({"": router}, counts), "127.0.0.1", 0)
    await listener.start()
    yield listener.port
    await listener.stop()


async def said(port: int, *parts: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.02)  # another segment, or it would not be another call of the parser
    async with asyncio.timeout(5):
        got = await reader.read()
    writer.close()
    return got


_END = b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/here", 200),
        (b"/here/", 200),
        (b"//here", 404),
        (b"/here//", 404),
        (b"/named/a%2Fb", 200),
        (b"/named//", 404),
        (b"/named/%FF", 404),
        (b"/", 404),
        (b"http://h/here", 404),
    ],
)
async def test_paths(target, status):
    counts = Counts()
    async with listening(counts) as port:
        got = await said(port, b"GET " + target + _END)
    assert got.startswith(b"HTTP/1.1 %d " % status)
    assert counts == ({f"http_refused {status}": 1} if status >= 400 else {})


async def test_what_is_no_http_is_answered_in_json_and_counted_without_a_traceback(caplog):
    counts = Counts()
    async with listening(counts) as port:
        got = await said(port, b"hello\r\n\r\n")
    assert got.startswith(b"HTTP/1.0 400 ")
    assert b"application/json" in got and b'"errcode":"M_UNKNOWN"' in got and b"hello" not in got
    assert counts == {"http_malformed": 1}
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_body_that_stops_being_http_ends_its_request_at_once(caplog):
    counts = Counts()
    async with listening(counts) as port:
        head = b"PUT /here HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
        got = await said(port, head, b"zz\r\n")
    assert got.count(b"HTTP/1.") == 1 and got.startswith(b"HTTP/1.1 400 ")
    assert counts == {"http_refused 400": 1}
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_head_has_to_end_in_time(monkeypatch):
    monkeypatch.setattr(connection, "_HEAD_TIMEOUT_S", 0.2)
    counts = Counts()
    async with listening(counts) as port:
        assert await said(port, b"GET /here", b" HTTP/1.1\r\n", b"X: ", b"a") == b""
    assert counts == {"http_slow": 1}


async def test_a_second_head_has_to_end_in_time_too(monkeypatch):
    monkeypatch.setattr(connection, "_HEAD_TIMEOUT_S", 0.2)
    counts = Counts()
    async with listening(counts) as port:
        got = await said(port, b"GET /here HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /here")
    assert got.startswith(b"HTTP/1.1 200 ") and counts == {"http_slow": 1}


async def test_nothing_is_unpacked():
    async with listening(Counts()) as port:
        head = b"PUT /here HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Encoding: gzip\r\n"
        got = await said(port, head + b"Content-Length: 3\r\n\r\nabc")
    assert got.startswith(b"HTTP/1.1 200 ") and got.endswith(b"abc")


@pytest.mark.parametrize(
    ("peer", "forwarded", "whose"),
    [
        ("192.0.2.1", ["10.0.0.1"], "192.0.2.1"),  # not a trusted proxy: its header is ignored
        ("127.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("127.0.0.1", ["192.0.2.66, 192.0.2.7"], "192.0.2.7"),  # the first was said by the client
        ("127.0.0.1", ["192.0.2.7, 10.1.2.3"], "192.0.2.7"),
        ("127.0.0.1", ["192.0.2.66", "192.0.2.7"], "192.0.2.7"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["nonsense"], "nonsense"),
        ("", ["192.0.2.7"], ""),
    ],
)
def test_whose_request_it_is_behind_a_proxy(peer, forwarded, whose):
    dispatcher = Dispatcher({}, lambda *_: None, ["127.0.0.0/8", "10.0.0.0/8"])
    assert dispatcher.address(peer, forwarded) == whose


async def test_who_may_get_something_may_ask_for_its_head():
    counts, closed = Counts(), []

    async def chunks():
        try:
            yield b"never sent"
        finally:
            closed.append(True)

    router = Router()

    async def streamed(_request: Request) -> Response:
        return Response(headers={"Content-Length": "10"}, content_type="video/mp4", chunks=chunks())

    async def plain(_request: Request) -> Response:
        return Response(body=b"plain")

    router.add("GET", "/streamed", streamed)
    router.add("GET", "/plain", plain)
    router.add("POST", "/given", plain)
    listener = Listener(Dispatcher({"": router}, counts), "127.0.0.1", 0)
    await listener.start()
    try:
        for path, length in ((b"/streamed", b"10"), (b"/plain", b"5")):
            head, _, body = (await said(listener.port, b"HEAD " + path + _END)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert b"Content-Length: " + length in head
            assert body == b""
        assert (await said(listener.port, b"HEAD /given" + _END)).startswith(b"HTTP/1.1 405")
        assert counts.get("http_broken_off") is None
    finally:
        await listener.stop()


async def test_a_bug_is_told_once_a_minute_however_often_it_is_found(caplog):
    """A traceback for each request was 3 KiB of log for each."""
    counts, router = Counts(), Router()

    async def faulty(request: Request) -> Response:
        if request.target.endswith("b"):
            raise ValueError("another bug")
        raise KeyError("a bug")

    router.add("GET", "/faulty/{name}", faulty)
    listener = Listener(Dispatcher({"": router}, counts), "127.0.0.1", 0)
    await listener.start()
    try:
        for n in range(20):
            await said(listener.port, b"GET /faulty/%da" % n + _END)
        await said(listener.port, b"GET /faulty/b" + _END)
    finally:
        await listener.stop()
    told = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage() for record in told] == ["GET /faulty/0a failed", "GET /faulty/b failed"]
    assert counts["http_internal_errors"] == 21


async def test_the_socket_of_a_process_that_answers_is_left_to_it(tmp_path):
    """A standby with the same ``admin`` took the commands of the process that serves."""
    path = str(tmp_path / "socket")
    first, second = (Listener(Dispatcher({"": Router()}, Counts()), path, 0) for _ in range(2))
    await first.start()
    try:
        with pytest.raises(OSError, match="another process answers there"):
            await second.start()
        assert (tmp_path / "socket").is_socket()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /" + _END)
        assert (await reader.read()).startswith(b"HTTP/1.1 404")
        writer.close()
    finally:
        await first.stop()
    await second.start()  # what the first one left behind is in nobody's way
    await second.stop()
