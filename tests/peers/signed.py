"""Requests between homeservers, signed with a server's own key: what only another server may ask."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from hansa_matrix.crypto import SigningKey
from hansa_matrix.proto.canonical_json import dumps_canonical
from hansa_matrix.proto.servers.xmatrix import format_header, signing_bytes
from yarl import URL


class Signer:
    """Speaks as ``server`` with the key in ``key_file``, which is that server's real one."""

    def __init__(self, server: str, key_file: Path, ca: Path) -> None:
        self.server = server
        self._key = SigningKey.from_line(key_file.read_text().strip())
        self._tls = ssl.create_default_context(cafile=str(ca))

    async def request(
        self, method: str, destination: str, target: str, body: Any = None
    ) -> tuple[int, dict[str, Any]]:
        """``(status, JSON)``. ``destination`` has its port."""
        message = signing_bytes(method, target, self.server, destination, body)
        headers = {
            "Authorization": format_header(
                self.server, destination, self._key.key_id, self._key.sign(message)
            )
        }
        data = dumps_canonical(body) if body is not None else None
        async with (
            aiohttp.ClientSession() as http,
            http.request(
                method,
                URL(f"https://{destination}{target}", encoded=True),
                data=data,
                headers=headers,
                ssl=self._tls,
            ) as answer,
        ):
            return answer.status, await answer.json(content_type=None)

    async def state_ids(self, destination: str, room: str, event: str) -> set[str]:
        """The ids of the state before an event, as ``destination`` has it."""
        target = f"/_matrix/federation/v1/state_ids/{quote(room, safe='')}?event_id={quote(event, safe='')}"
        status, answer = await self.request("GET", destination, target)
        assert status == 200, answer
        return set(answer["pdu_ids"])
