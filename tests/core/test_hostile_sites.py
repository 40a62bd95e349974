"""Sites that attack who fetches a file: answers that unpack to a thousand times their size, and names whose
addresses change between the look at them and the connection.
"""

from __future__ import annotations

import gzip
import socket
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiohttp import web
from core.media_rig import MediaRig, media_rig
from core.test_media_fetch import Web, refused, rig, site  # noqa: F401  # fixtures
from hansa import RefusalCode
from hansa.http.client import HttpClient

_ZEROS = bytes(64 * 1024 * 1024)


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip": ("gzip", lambda: gzip.compress(_ZEROS, 9)),
    "many members": ("gzip", lambda: gzip.compress(_ZEROS[: 1 << 20], 9) * 64),
    "deflate": ("deflate", lambda: zlib.compress(_ZEROS, 9)),
    "raw deflate": ("deflate", lambda: _raw_deflate(_ZEROS)),
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_an_answer_that_unpacks_to_too_much_is_refused_and_takes_little_memory(
    rig: MediaRig,  # noqa: F811
    site: Web,  # noqa: F811
    bomb: str,
):
    encoding, make = BOMBS[bomb]
    packed = make()

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=packed, headers={"Content-Encoding": encoding, "Content-Type": "image/png"})

    site.answers["/bomb"] = answer
    tracemalloc.start()
    try:
        assert await refused(rig.left.ctx.media.fetch(f"{site.base}/bomb")) is RefusalCode.TOO_LARGE
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024, f"{peak} bytes"
    assert rig.files == []


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd", "compress", "x" * 5000])
async def test_an_encoding_that_was_not_asked_for_is_refused(
    rig: MediaRig,  # noqa: F811
    site: Web,  # noqa: F811
    encoding: str,
):
    site.file("/packed", gzip.compress(gzip.compress(_ZEROS, 9), 9)[:90_000], Content_Encoding=encoding)
    assert await refused(rig.left.ctx.media.fetch(f"{site.base}/packed")) is RefusalCode.UNREACHABLE
    assert rig.files == []


class Names:
    """A name server of the attacker's: ``answers`` are the addresses of each look, the last one for ever."""

    answers: ClassVar[list[list[str]]] = []
    looks: ClassVar[int] = 0

    def __init__(self, **_: Any) -> None:
        pass

    async def resolve(self, host: str, port: int, _family: int) -> list[dict[str, Any]]:
        found = self.answers[min(Names.looks, len(self.answers) - 1)]
        Names.looks += 1
        return [
            {"hostname": host, "host": one, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            for one in found
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([["127.0.0.2"]], RefusalCode.FORBIDDEN),
        ([["127.0.0.1"], ["127.0.0.2"]], RefusalCode.FORBIDDEN),
        ([["127.0.0.2", "127.0.0.1"]], None),
        ([["127.0.0.1"], ["127.0.0.2", "127.0.0.1"]], None),
        ([["127.0.0.1"], []], RefusalCode.FORBIDDEN),
    ],
)
async def test_a_name_that_is_bound_again_reaches_no_guarded_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[list[str]], outcome: RefusalCode | None
):
    """127.0.0.1 stands for a public address here, and 127.0.0.2 for one of the house."""
    inside, outside = Web(), Web()
    runners = [web.ServerRunner(web.Server(one.answer), shutdown_timeout=0.1) for one in (inside, outside)]
    for runner in runners:
        await runner.setup()
    await web.TCPSite(runners[1], "127.0.0.1", 0).start()
    port = runners[1].addresses[0][1]
    await web.TCPSite(runners[0], "127.0.0.2", port).start()
    inside.file("/f", b"secret", Connection="close")
    outside.file("/f", b"public", Connection="close")
    monkeypatch.setattr("hansa.http.client.AsyncResolver", Names)
    monkeypatch.setattr("hansa.http.client._NAMES_KEPT_FOR_S", 0)
    monkeypatch.setattr(Names, "answers", answers)
    monkeypatch.setattr(Names, "looks", 0)
    http = HttpClient(private_networks=["127.0.0.1/32"])
    try:
        async with media_rig(tmp_path / "media", http=http) as house:
            fetch = house.left.ctx.media.fetch
            for _ in answers[1:]:
                assert (await fetch(f"http://rebind.example:{port}/f")).size == 6
            if outcome is None:
                assert (await fetch(f"http://rebind.example:{port}/f")).size == 6
            else:
                assert await refused(fetch(f"http://rebind.example:{port}/f")) is outcome
        assert Names.looks == len(answers)
        assert inside.asked == []
    finally:
        await http.close()
        for runner in runners:
            await runner.cleanup()
