"""The floor: a server that does only what no inbound path can leave out, on the fastest parts we know.

TLS and HTTP (aiohttp, uvloop), the request's signature, parsing, canonical form, both hashes and a signature
per event (orjson, hashlib, pynacl), one fully synced SQLite commit per transaction. It judges nothing.

    python -m bench.baseline PORT CHAIN KEY KEYS.json DATABASE
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sqlite3
import ssl
import sys
from base64 import b64decode, b64encode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import orjson
import uvloop
from aiohttp import web
from nacl.bindings import crypto_sign_open

_KEPT = {"m.room.member": ("membership",)}
_HEADER = re.compile(r'(\w+)="([^"]*)"')


def _sorted(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _decoded(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4))


class Floor:
    def __init__(self, name: str, keys: dict[str, dict[str, str]], path: str) -> None:
        self._name = name
        self._keys = {(s, k): _decoded(p) for s, found in keys.items() for k, p in found.items()}
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(
            "CREATE TABLE pdu (event_id TEXT PRIMARY KEY, room_id TEXT, body BLOB) WITHOUT ROWID"
        )

    async def send(self, request: web.BaseRequest) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        given = dict(_HEADER.findall(request.headers["Authorization"]))
        origin = given["origin"]
        signed = {"method": "PUT", "uri": request.path, "origin": origin, "destination": self._name}
        message = _sorted({**signed, "content": body})
        crypto_sign_open(_decoded(given["sig"]) + message, self._keys[origin, given["key"]])
        rows = [self._row(event) for event in body["pdus"]]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO pdu VALUES (?, ?, ?)", rows)
        self._db.execute("COMMIT")
        return web.Response(body=orjson.dumps({"pdus": {row[0]: {} for row in rows}}))

    def _row(self, event: dict[str, Any]) -> tuple[str, str, bytes]:
        wire = _sorted(event)
        hashed = {k: v for k, v in event.items() if k not in {"hashes", "signatures", "unsigned"}}
        digest = b64encode(hashlib.sha256(_sorted(hashed)).digest()).decode().rstrip("=")
        if digest != event["hashes"]["sha256"]:
            raise ValueError(digest)
        content = event["content"]
        kept = {k: content[k] for k in _KEPT.get(event["type"], ()) if k in content}
        bare = {**event, "content": kept}
        signatures = bare.pop("signatures")
        redacted = _sorted(bare)
        name = "$" + urlsafe_b64encode(hashlib.sha256(redacted).digest()).decode().rstrip("=")
        server = event["sender"].partition(":")[2]
        for key_id, signature in signatures[server].items():
            crypto_sign_open(_decoded(signature) + redacted, self._keys[server, key_id])
        return name, event["room_id"], wire


async def _serve(port: int, chain: str, key: str, keys: str, path: str) -> None:
    floor = Floor(f"127.0.0.1:{port}", orjson.loads(Path(keys).read_bytes()), path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain, key)
    runner = web.ServerRunner(web.Server(floor.send, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    port, *rest = sys.argv[1:]
    uvloop.run(_serve(int(port), *rest))
