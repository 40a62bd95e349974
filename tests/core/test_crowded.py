"""A real process under load: other requests are answered, and the operator's always."""

from __future__ import annotations

import asyncio
import logging
import resource
import ssl
from contextlib import AsyncExitStack

import aiohttp
import pytest
from hansa import file_descriptors
from hansa.file_descriptors import RESERVED, connections_within, raise_limit


@pytest.mark.timeout(120)
@pytest.mark.parametrize("shakes_hands", [False, True])
async def test_a_thousand_idle_connections_keep_neither_people_nor_the_operator_out(hansa, ca, shakes_hands):
    """1,000 idle connections of one address kept everybody out, the admin socket too."""
    server = await hansa("")
    trust = ssl.create_default_context(cafile=str(ca.certificate))
    writers: list[asyncio.StreamWriter] = []
    async with AsyncExitStack() as stack:
        for _ in range(1000 if not shakes_hands else 400):
            more = {"ssl": trust, "server_hostname": "127.0.0.1"} if shakes_hands else {}
            _, writer = await asyncio.open_connection("127.0.0.1", server.port, **more)
            writers.append(writer)
            stack.callback(writer.transport.abort)
        async with asyncio.timeout(20):
            status = await server.run("status")
            assert status["networks"]
            url = f"https://127.0.0.1:{server.port}/_matrix/federation/v1/version"
            async with aiohttp.ClientSession() as http:
                for _ in range(5):  # a connection for each
                    async with http.get(url, ssl=trust, headers={"Connection": "close"}) as answer:
                        assert answer.status == 200
            local = aiohttp.UnixConnector(str(server.folder / "hansa.sock"))
            async with (
                aiohttp.ClientSession(connector=local) as http,
                http.get("http://localhost/metrics") as answer,
            ):
                counted = await answer.text()
    assert "hansa_http_let_go_total" in counted
    (crowd,) = (line for line in counted.splitlines() if line.startswith("hansa_http_connections "))
    assert float(crowd.split()[1]) <= 256


def test_the_limit_of_descriptors_is_raised(monkeypatch):
    now = [1024, 8192]

    def change(_which: int, limits: tuple[int, int]) -> None:
        now[:] = limits

    monkeypatch.setattr(file_descriptors.resource, "getrlimit", lambda _: tuple(now))
    monkeypatch.setattr(file_descriptors.resource, "setrlimit", change)
    assert raise_limit() == 8192 and now == [8192, 8192]
    now[:] = [resource.RLIM_INFINITY, resource.RLIM_INFINITY]
    assert raise_limit() >= 100_000 + RESERVED


def test_a_limit_that_is_too_low_is_told_with_what_to_do(caplog):
    caplog.set_level(logging.WARNING)
    assert connections_within(1024, 4096) == 1024 - RESERVED
    (line,) = caplog.messages
    assert "1024" in line and f"LimitNOFILE={4096 + RESERVED}" in line and "[server] connections" in line
    caplog.clear()
    assert connections_within(4096 + RESERVED, 4096) == 4096 and not caplog.messages
    assert connections_within(100, 4096) == 16
