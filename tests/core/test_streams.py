"""Answers that are too large for memory: in chunks, both ways, and the files they come from and go to."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hansa import BlobNotFound, BlobTooLarge, Failure, HttpError, HttpRequest, Request, Response, Router
from hansa.http import listener as listen
from hansa.http.client import HttpClient
from hansa.http.listener import Dispatcher, Listener
from hansa.store.blobs import CHUNK, FileBlobs, MemoryBlobs
from hansa.testing import until


class Source:
    """Chunks of 64 KiB: ``count`` of them, then what ``after`` says."""

    def __init__(self, count: int, after: str = "end") -> None:
        self.count, self.after = count, after
        self.given = 0
        self.closed = asyncio.Event()

    async def chunks(self) -> Any:
        try:
            for _ in range(self.count):
                self.given += 1
                yield b"x" * CHUNK
            if self.after == "break":
                raise OSError("the disk is gone")
            if self.after == "hang":
                await asyncio.Event().wait()
        finally:
            self.closed.set()


@asynccontextmanager
async def giving(source: Source, counts: dict[str, int] | None = None) -> AsyncIterator[Any]:
    """``stream(max_body=..., timeout=...)`` of a server that gives the source."""
    router, counted = Router(), counts if counts is not None else {}

    async def give(_: Request) -> Response:
        return Response(chunks=source.chunks(), content_type="multipart/mixed; boundary=b")

    def count(name: str, **_: str) -> None:
        counted[name] = counted.get(name, 0) + 1

    router.add("GET", "/file", give)
    listener = Listener(Dispatcher({"": router}, count), "127.0.0.1", 0)
    await listener.start()
    http = HttpClient(private_networks=["127.0.0.0/8"])
    try:
        yield lambda **more: http.stream(
            HttpRequest(method="GET", host="127.0.0.1", port=listener.port, target="/file", **more)
        )
    finally:
        await http.close()
        await listener.stop()


async def taken(stream: Any, **more: Any) -> None:
    async with stream(**more) as answer:
        assert answer.status == 200
        async for _ in answer.chunks:
            pass


async def raising(stream: Any, error: Exception) -> None:
    async with stream():
        raise error


async def test_chunks_come_as_they_are_made():
    source = Source(400)
    async with giving(source) as stream, stream(max_body=CHUNK * 400) as answer:
        assert answer.headers["content-type"] == "multipart/mixed; boundary=b"
        size = 0
        async for chunk in answer.chunks:
            size += len(chunk)
            if size < CHUNK * 10:
                assert source.given < 200  # the sender waits for the receiver
        assert size == CHUNK * 400
        assert source.closed.is_set()


async def test_too_much_ends_it():
    source = Source(10_000)
    async with giving(source) as stream:
        with pytest.raises(HttpError) as raised:
            await taken(stream, max_body=100_000)
        assert raised.value.kind is Failure.TOO_LARGE and "over 100000 bytes" in raised.value.detail
        async with asyncio.timeout(5):
            await source.closed.wait()
    assert source.given < 10_000


async def test_an_answer_that_breaks_off_is_none():
    counts: dict[str, int] = {}
    async with giving(Source(3, "break"), counts) as stream:
        with pytest.raises(HttpError) as raised:
            await taken(stream)
    assert raised.value.kind is Failure.PROTOCOL and "broke off" in raised.value.detail
    assert counts["http_broken_off"] == 1


async def test_an_answer_that_does_not_end_in_time_is_none(monkeypatch):
    monkeypatch.setattr(listen, "_CHUNK_TIMEOUT_S", 0.5)
    source = Source(1, "hang")
    async with giving(source) as stream:
        with pytest.raises(HttpError) as raised:
            await taken(stream, timeout=0.2)
        assert raised.value.kind is Failure.TIMED_OUT and "no answer" in raised.value.detail
        async with asyncio.timeout(5):
            await source.closed.wait()


async def test_who_takes_nothing_is_let_go(monkeypatch):
    monkeypatch.setattr(listen, "_CHUNK_TIMEOUT_S", 0.1)
    source = Source(100_000)
    async with giving(source) as stream, stream(max_body=CHUNK * 100_000):
        async with asyncio.timeout(5):
            await source.closed.wait()
    assert source.given < 100_000


async def test_what_the_reader_raises_is_its_own():
    async with giving(Source(3)) as stream:
        for error in (OSError(errno.ENOSPC, "no space"), TimeoutError("mine"), ValueError("mine")):
            with pytest.raises(type(error)) as raised:
                await raising(stream, error)
            assert raised.value is error


# Files.


@pytest.fixture(params=["memory", "files"])
def blobs(request: Any, tmp_path: Path) -> Any:
    return MemoryBlobs() if request.param == "memory" else FileBlobs(tmp_path / "media")


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def whole(blobs: Any, scope: str, digest: str) -> bytes:
    return b"".join([chunk async for chunk in blobs.read(scope, digest)])


async def test_a_file_is_kept_by_what_is_in_it(blobs):
    large = bytes(range(256)) * 1024
    one = await blobs.put("a", pieces(large[:100_000], large[100_000:]), len(large))
    again = await blobs.put("a", pieces(large), len(large))
    assert one == again and one.size == len(large) == await blobs.size("a", one.digest)
    assert await whole(blobs, "a", one.digest) == large
    for scope, digest in (("b", one.digest), ("a", "0" * 64), ("a", "../" + one.digest), ("a", "")):
        with pytest.raises(BlobNotFound):
            await blobs.size(scope, digest)
        with pytest.raises(BlobNotFound):
            await whole(blobs, scope, digest)
    await blobs.remove("a", one.digest)
    await blobs.remove("a", one.digest)
    with pytest.raises(BlobNotFound):
        await blobs.size("a", one.digest)


async def test_of_what_is_too_large_or_breaks_off_nothing_stays(blobs, tmp_path):
    async def broken() -> AsyncIterator[bytes]:
        yield b"begun"
        raise HttpError("gone")

    with pytest.raises(BlobTooLarge):
        await blobs.put("a", pieces(b"12345", b"67890"), 9)
    with pytest.raises(HttpError):
        await blobs.put("a", broken(), 9)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert (await blobs.put("a", pieces(b"12345", b"6789"), 9)).size == 9


async def test_files_are_the_owners_alone_and_what_a_crash_left_is_removed(tmp_path):
    blobs = FileBlobs(tmp_path / "media")
    blob = await blobs.put("a", pieces(b"x"), 9)
    modes = {p.stat().st_mode & 0o077 for p in (tmp_path / "media" / "a").rglob("*")}
    assert modes == {0}
    left = tmp_path / "media" / "a" / "incoming" / "left"
    left.write_bytes(b"half")
    blobs.remove_unfinished()
    assert not left.exists() and await whole(blobs, "a", blob.digest) == b"x"


@pytest.mark.parametrize("reads_only", [True, False])
async def test_work_that_keeps_nothing_ends_when_the_client_hangs_up(reads_only):
    router, counted = Router(), []
    begun, go, ended = asyncio.Event(), asyncio.Event(), []

    async def work(request: Request) -> Response:
        if reads_only:
            request.reads_only()
        begun.set()
        try:
            await go.wait()
        except asyncio.CancelledError:
            ended.append("in vain")
            raise
        ended.append("done")
        return Response()

    router.add("GET", "/work", work)
    listener = Listener(Dispatcher({"": router}, lambda name, **_: counted.append(name)), "127.0.0.1", 0)
    await listener.start()
    try:
        for hangs_up in (True, False):
            begun.clear()
            go.clear()
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(b"GET /work HTTP/1.1\r\nHost: x\r\n\r\n")
            await begun.wait()
            if hangs_up:
                writer.transport.abort()
                async with asyncio.timeout(5):
                    await until(lambda: not (reads_only and not ended))
            go.set()
            if not hangs_up:
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
                writer.close()
        assert ended == (["in vain", "done"] if reads_only else ["done", "done"])
        assert ("http_abandoned" in counted) is reads_only
    finally:
        await listener.stop()
