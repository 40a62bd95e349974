"""What comes twice: a transaction is answered as before, an event happens once."""

from __future__ import annotations

import orjson
import pytest
from hansa_matrix.proto.hashing import event_id
from matrix.inbound import V1, inbound


def message(house, text):
    return house.forger.message(house.room, text)


async def seen(house):
    """The texts in the log, in order."""
    rows = await house.app.core.scan("event", limit=100)
    texts = [orjson.loads(row.body)["content"].get("text") for row in rows]
    return [text for text in texts if text]


async def test_a_repeated_transaction_is_answered_as_before_and_not_taken(tmp_path):
    async with inbound(tmp_path) as house:
        first, other = message(house, "first"), message(house, "other")
        target = f"{V1}/send/the-same"
        status, answer = await house.ask("PUT", target, {"pdus": [first]})
        assert (status, list(answer["pdus"])) == (200, [event_id(first, house.room.version)])
        assert await house.ask("PUT", target, {"pdus": [other]}) == (200, answer)
        assert await house.fate(message(house, "last")) == "accepted"
        assert await seen(house) == ["first", "last"]


@pytest.mark.parametrize("forgotten", [False, True])
async def test_an_event_in_two_transactions_happens_once(tmp_path, forgotten):
    async with inbound(tmp_path) as house:
        raw = message(house, "once")
        assert await house.fate(raw) == "accepted"
        if forgotten:
            house.app.runners["matrix"].network._events._kept.clear()
        status, answer = await house.send(raw)
        assert (status, list(answer["pdus"])) == (200, [event_id(raw, house.room.version)])
        assert await house.fate(message(house, "after")) == "accepted"
        assert await seen(house) == ["once", "after"]
        assert not await house.app.contexts["matrix"].store.scan("staged", limit=10)
