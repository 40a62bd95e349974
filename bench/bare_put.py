"""The least cost of one request to another server: a client's PUT over an open connection, and the signature
of the request.

    python -m bench.bare_put CA.pem ROUNDS NAME...
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import sys
import time

import aiohttp
import orjson
import uvloop
from hansa_matrix.crypto import SigningKey
from hansa_matrix.proto.servers.xmatrix import format_header
from yarl import URL

_BODY = orjson.dumps({"origin": "floor", "origin_server_ts": 1, "pdus": [], "padding": "x" * 800})


async def _put(http: aiohttp.ClientSession, key: SigningKey, name: str, number: int) -> None:
    target = f"/_matrix/federation/v1/send/{number}"
    signed = {"content": orjson.Fragment(_BODY), "destination": name, "method": "PUT", "origin": "floor"}
    signature = key.sign(orjson.dumps({**signed, "uri": target}))
    headers = {"Authorization": format_header("floor", name, key.key_id, signature)}
    async with http.put(URL(f"https://{name}{target}", encoded=True), data=_BODY, headers=headers) as answer:
        assert answer.status == 200, answer.status
        await answer.read()


async def _run(ca: str, rounds: int, names: list[str]) -> None:
    key = SigningKey.from_seed("ed25519:f", secrets.token_bytes(32))
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ca), limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        await asyncio.gather(*(_put(http, key, name, 0) for name in names))
        before = time.process_time()
        for number in range(rounds):
            await asyncio.gather(*(_put(http, key, name, number + 1) for name in names))
        print((time.process_time() - before) / (rounds * len(names)))


if __name__ == "__main__":
    uvloop.run(_run(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
