"""Events that arrive after others which we do not have: asked for, a thousand at most, the rest skipped."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import orjson
from hansa import HttpRequest
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from hansa_matrix.rooms.inbound import missing_events
from matrix.server_with_peer import ServerWithPeer, server_with_peer


class History:
    """A chain of messages that the forger's server has; it answers what is asked about them."""

    def __init__(self, house: ServerWithPeer, count: int) -> None:
        self.house, self.asked = house, list[str]()
        self.by_id: dict[str, dict[str, Any]] = {}
        for number in range(count):
            raw = house.forger.message(house.room, f"m{number}")
            house.room.keep(pdu_from_raw(raw, house.room.version))
            self.by_id[event_id(raw, house.room.version)] = raw
        self.ids = list(self.by_id)
        house.peer.answer = self

    def __call__(self, request: HttpRequest) -> tuple[int, Any] | None:
        path = unquote(request.target)
        kind = next((one for one in ("get_missing_events", "state_ids", "/event/") if one in path), "")
        self.asked.append(kind)
        if kind == "get_missing_events":
            return 200, {"events": self.missing(orjson.loads(request.body or b""))}
        if kind == "state_ids":
            state = list(self.house.room.state.values())
            return 200, {"pdu_ids": state, "auth_chain_ids": state}
        if kind == "/event/":
            return 200, {"pdus": [self.by_id[path.rpartition("/")[2]]]}
        return None

    def missing(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        assert body["limit"] <= 20
        assert body["earliest_events"]
        found: list[dict[str, Any]] = []
        edge = [e for name in body["latest_events"] for e in self.by_id[name]["prev_events"]]
        while edge and len(found) < body["limit"]:
            edge = [name for name in edge if name in self.by_id and name not in body["earliest_events"]]
            found += [self.by_id[name] for name in edge]
            edge = [e for name in edge for e in self.by_id[name]["prev_events"]]
        return found[::-1]

    async def arrived(self) -> dict[str, str]:
        """Send the last one and wait for it; the status of everything that has a place."""
        assert (await self.house.send(self.by_id[self.ids[-1]]))[0] == 200
        store = self.house.matrix.store
        async with asyncio.timeout(60):
            while True:
                row = await store.get("pdu", (self.ids[-1],))
                if row is not None and row.fields["after"]:
                    break
                await asyncio.sleep(0.01)
        rows = await store.get_many("pdu", [(name,) for name in self.ids])
        return {name: str(rows[name,].fields["status"]) for name in self.ids if (name,) in rows}


async def test_a_gap_of_more_than_one_answer_is_filled(tmp_path):
    async with server_with_peer(tmp_path) as house:
        history = History(house, 45)
        assert await history.arrived() == dict.fromkeys(history.ids, "accepted")
        assert set(history.asked) == {"get_missing_events"}
        assert house.counted("matrix_gaps_skipped") == {}


async def test_a_gap_of_more_than_a_thousand_events_is_skipped_and_counted(tmp_path, monkeypatch):
    assert missing_events._MAX_EVENTS == 1_000
    monkeypatch.setattr(missing_events, "_MAX_EVENTS", 100)
    async with server_with_peer(tmp_path) as house:
        history = History(house, 130)
        found = await history.arrived()
        assert house.counted("matrix_gaps_skipped") == {"": 1}
        assert 100 <= len(found) < 130
        assert list(found) == history.ids[-len(found) :]
        assert set(found.values()) == {"accepted"}
        assert history.asked.count("get_missing_events") <= 6


async def test_a_gap_that_nobody_fills_now_is_not_forgotten(tmp_path):
    async with server_with_peer(tmp_path) as house:
        history = History(house, 3)
        tries: list[str] = []

        def answer(request: HttpRequest) -> tuple[int, Any] | None:
            tries.append(request.target)
            return (502, {}) if len(tries) < 2 else history(request)

        house.peer.answer = answer
        assert await history.arrived() == dict.fromkeys(history.ids, "accepted")
        assert len(tries) > 1
