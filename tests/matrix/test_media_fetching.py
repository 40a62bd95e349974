"""Files of other servers: shares of what is fetched at a time, a least speed, and nothing for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from clients.matrix_server import matrix_server
from hansa import (
    Action,
    HttpRequest,
    HttpResponse,
    HttpStream,
    MediaTransfer,
    PeerConnect,
    RemoteProtocolError,
    SlotShares,
    Verdict,
)
from hansa.http.listener import Dispatcher, Listener
from hansa.testing import until
from hansa_matrix.errors import MatrixError
from hansa_matrix.federation.client import ServerUnreachable
from hansa_matrix.media import remote
from hansa_matrix.proto.media import MxcUri, multipart_head, multipart_tail
from matrix.server_with_peer import OURS, THEIRS, ServerWithPeer, server_with_peer
from matrix.test_media import MXC, bytes_of, fetcher, in_parts, targets

HEAD = b"--bound\r\nContent-Type: application/json\r\n\r\n{}\r\n--bound\r\nLocation: "


class Slow:
    """Servers whose files come when they are let go; ``open`` are the requests that are answered now."""

    def __init__(self, house: ServerWithPeer) -> None:
        self.open: list[str] = []
        self.go = asyncio.Event()
        self.pieces: Callable[[], AsyncIterator[bytes]] = self._file
        house.peer.stream = self.stream

    async def _file(self) -> AsyncIterator[bytes]:
        await self.go.wait()
        yield b"file"

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[HttpStream]:
        self.open.append(request.target.rpartition("/")[2])

        async def chunks() -> AsyncIterator[bytes]:
            yield multipart_head("bound", "a/b", "n")
            async for piece in self.pieces():
                yield piece
            yield multipart_tail("bound")

        try:
            headers = {"content-type": "multipart/mixed; boundary=bound"}
            yield HttpStream(status=200, headers=headers, chunks=chunks())
        finally:
            self.open.remove(request.target.rpartition("/")[2])


async def test_one_server_s_slow_files_hold_up_nobody_else_s(tmp_path):
    async with server_with_peer(tmp_path) as house:
        slow = Slow(house)
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(fetcher(house).get(MxcUri(THEIRS, f"slow{number}"), f"@{number}:x"))
            await until(lambda: len(slow.open) == 4)
            other = group.create_task(fetcher(house).get(MxcUri("127.0.0.3:3", "other"), "@a:x"))
            await until(lambda: "other" in slow.open)
            assert len(slow.open) == 5
            slow.go.set()
        assert other.result().blob.size == 4
        assert house.matrix.download_shares.taken == 0


async def test_one_person_s_files_hold_up_nobody_else(tmp_path):
    async with server_with_peer(tmp_path) as house:
        slow = Slow(house)
        async with asyncio.TaskGroup() as group:
            for number in range(14):
                group.create_task(fetcher(house).get(MxcUri(f"127.0.1.{number}:1", f"a{number}"), "@a:x"))
            await until(lambda: len(slow.open) == 10)
            group.create_task(fetcher(house).get(MxcUri("127.0.2.1:1", "b"), "@b:x"))
            await until(lambda: "b" in slow.open)
            slow.go.set()


async def test_a_fetch_ends_when_the_last_reader_hangs_up(tmp_path):
    async with server_with_peer(tmp_path) as house:
        slow = Slow(house)
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(fetcher(house).get(MXC, f"@{n}:x")) for n in range(2)]
            await until(lambda: slow.open == ["abc_DEF-1"])
            readers[0].cancel()
            await until(readers[0].done)
            for _ in range(50):
                await asyncio.sleep(0)
            assert slow.open == ["abc_DEF-1"]  # one caller still waits
            readers[1].cancel()
            await until(lambda: not slow.open)
        assert fetcher(house)._under_way == {} and house.matrix.download_shares.taken == 0
        slow.go.set()
        assert (await fetcher(house).get(MXC, "@c:x")).blob.size == 4  # it begins again


async def test_a_file_that_comes_too_slowly_loses_its_slot(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "RATE_WINDOW_S", 0.05)
    async with server_with_peer(tmp_path) as house:
        slow = Slow(house)

        async def drops() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0.01)

        slow.pieces = drops
        with pytest.raises(ServerUnreachable, match="too slowly"):
            await fetcher(house).get(MXC, "@a:x")
        assert (slow.open, house.matrix.download_shares.taken) == ([], 0)
        assert house.app.setup.blobs.stored == {}


async def test_a_file_of_some_speed_may_take_longer(tmp_path, monkeypatch):
    """Time is the loop's here: a window passes with each piece, and each is large enough."""
    async with server_with_peer(tmp_path) as house:
        slow, ends = Slow(house), []
        plain = asyncio.Timeout.reschedule
        monkeypatch.setattr(
            asyncio.Timeout, "reschedule", lambda self, when: (ends.append(when), plain(self, when))[1]
        )

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield b"x" * remote.MIN_WINDOW_BYTES
            yield b"x" * (remote.MIN_WINDOW_BYTES - 1)

        slow.pieces = pieces
        assert (await fetcher(house).get(MXC, "@a:x")).blob.size == 6 * remote.MIN_WINDOW_BYTES - 1
        assert len([when for when in ends if when is not None]) >= 5


async def test_too_many_of_one_server_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        remote, "DOWNLOAD_LIMITS", SlotShares(in_all=2, each={"server": 1, "person": 2}, waiting=1)
    )
    async with server_with_peer(tmp_path) as house:
        slow = Slow(house)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(fetcher(house).get(MxcUri(THEIRS, f"f{n}"), f"@{n}:x")) for n in range(2)
            ]
            await until(lambda: len(slow.open) == 1 and house.matrix.download_shares.waiting == 1)
            with pytest.raises(Exception, match="waiting already"):
                await fetcher(house).get(MxcUri(THEIRS, "more"), "@c:x")
            slow.go.set()
        assert all(task.result().blob.size == 4 for task in tasks)


async def test_a_client_that_hangs_up_ends_the_fetch(tmp_path):
    """The whole way: a socket, the client API, the fetch."""
    async with matrix_server(tmp_path) as home:
        alice, slow = await home.person("alice"), Slow(home.wire)
        listener = Listener(Dispatcher(home.app.routers, home.app.count), "127.0.0.1", 0)
        await listener.start()
        try:
            writers = []
            for kind in ("download", "thumbnail"):
                _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
                target = f"/_matrix/client/v1/media/{kind}/{THEIRS}/{MXC.media_id}?width=9&height=9"
                head = f"GET {target} HTTP/1.1\r\nHost: {OURS}\r\nAuthorization: Bearer {alice.token}\r\n\r\n"
                writer.write(head.encode())
                writers.append(writer)
            await until(lambda: readers(home.wire) == 2)
            writers[0].transport.abort()
            await until(lambda: readers(home.wire) == 1)
            assert slow.open == [MXC.media_id]
            writers[1].transport.abort()
            await until(lambda: not slow.open)
        finally:
            await listener.stop()


def readers(house: ServerWithPeer) -> int:
    return sum(one.readers for one in fetcher(house)._under_way.values())


# Policies.


def deciding(house: ServerWithPeer, deny: Callable[[Any], bool]) -> list[Any]:
    """Policies that say no to some; what they were asked."""
    asked: list[Any] = []

    async def check(crossing: Any) -> Verdict:
        asked.append(crossing)
        no = deny(crossing)
        return Verdict(Action.DENY if no else Action.ALLOW, decision="d-1" if no else "")

    house.app.contexts["matrix"].check = check
    house.matrix.federation_client._check = check
    return asked


@pytest.mark.parametrize("kind", [PeerConnect, MediaTransfer])
@pytest.mark.parametrize("name", ["cdn.example", "cdn.example:444"])
async def test_another_host_is_judged_as_a_peer(tmp_path, kind, name):
    async with server_with_peer(tmp_path) as house:
        house.peer.answer = lambda _: in_parts(
            body=HEAD + b"https://cdn.example:444/f\r\n\r\n\r\n--bound--\r\n"
        )
        asked = deciding(house, lambda one: isinstance(one, kind) and one.server == name)
        with pytest.raises(MatrixError) as refused:
            await fetcher(house).get(MXC, "@a:x")
        assert refused.value.hint == 403
        assert refused.value.more == {"dev.hansa.decision": "d-1"}
        assert all(request.host != "cdn.example" for request in house.peer.asked)
        assert asked[-1].server == name


@pytest.mark.parametrize(
    "place",
    [
        b"https://user:secret@cdn.example/f",
        b"https://@cdn.example/f",
        b"https://cdn.example/a b",
        b"https://127.0.0.1:1/f",
        b"ftp://cdn.example/f",
    ],
)
async def test_places_that_are_none(tmp_path, place):
    async with server_with_peer(tmp_path) as house:
        house.peer.answer = lambda _: in_parts(body=HEAD + place + b"\r\n\r\n\r\n--bound--\r\n")
        with pytest.raises(
            RemoteProtocolError,
            match=r"the (address in the answer is not|place that the answer names is this server)",
        ):
            await fetcher(house).get(MXC, "@a:x")
        assert len(targets(house)) == 1


async def test_a_place_that_names_another_place_is_not_followed(tmp_path):
    async with server_with_peer(tmp_path) as house:

        def answer(request: Any) -> Any:
            if request.host == "cdn.example":
                return HttpResponse(status=302, headers={"location": "https://other.example/f"}, body=b"")
            return in_parts(body=HEAD + b"https://cdn.example/f\r\n\r\n\r\n--bound--\r\n")

        house.peer.answer = answer
        with pytest.raises(ServerUnreachable, match="has no file"):
            await fetcher(house).get(MXC, "@a:x")
        assert {r.host for r in house.peer.asked if r.host.endswith("example")} == {"cdn.example"}


async def test_policies_are_asked_again_once_type_and_name_are_known(tmp_path):
    async with server_with_peer(tmp_path) as house:
        house.peer.answer = lambda _: in_parts(name="offer.exe")
        asked = deciding(house, lambda one: isinstance(one, MediaTransfer) and one.name == "offer.exe")
        with pytest.raises(MatrixError):
            await fetcher(house).get(MXC, "@a:x")
        assert [one.name for one in asked if isinstance(one, MediaTransfer)] == ["", "offer.exe"]
        assert (asked[-1].type, asked[-1].server, asked[-1].outbound) == ("image/png", THEIRS, False)
        assert house.app.setup.blobs.stored == {}
        deciding(house, lambda _: False)
        assert await bytes_of(house, await fetcher(house).get(MXC, "@a:x"))
