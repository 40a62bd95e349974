"""A transaction is parsed once, on its way from the request to the store."""

from __future__ import annotations

import json
from typing import Any

import orjson
from matrix.server_with_peer import V1, server_with_peer

MARK = "said to be read once"


async def test_a_transaction_is_parsed_once(tmp_path, monkeypatch):
    """Its signature is checked over the bytes that came, and every PDU and EDU is taken out of one document."""
    async with server_with_peer(tmp_path) as house:
        typing = {"room_id": house.room.room_id, "user_id": house.room.user, "typing": True}
        pdus = [house.forger.message(house.room, f"{MARK} {number}") for number in range(3)]
        body = {"pdus": pdus, "edus": [{"edu_type": "m.typing", "content": typing}]}
        parsed: list[bytes] = []
        loads = orjson.loads

        def counted(text: Any) -> Any:
            if MARK.encode() in (text if isinstance(text, bytes) else str(text).encode()):
                parsed.append(text)
            return loads(text)

        monkeypatch.setattr(orjson, "loads", counted)
        monkeypatch.setattr(json, "loads", counted)
        status, answer = await house.ask("PUT", f"{V1}/send/once", body)
        assert (status, answer) == (200, {"pdus": {one: {} for one in answer["pdus"]}})
        assert len(answer["pdus"]) == 3
        assert len(parsed) == 1
        assert house.matrix.typing_and_receipts.typing_in(house.room.room_id) == [house.room.user]
