"""The stream of our events does not grow for ever: what everybody has got is forgotten after a time."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hansa import HttpRequest
from hansa.testing import until
from matrix.server_with_peer import THEIRS, server_with_peer
from matrix.test_forks import spoken

DAY = 86_400


@pytest.mark.parametrize("taken", [True, False])
async def test_an_event_that_everybody_has_is_forgotten_after_the_time_that_is_set(
    tmp_path, monkeypatch, taken
):
    async with server_with_peer(tmp_path, delivery_status_ttl=10 * DAY) as house:

        def answer(request: HttpRequest) -> tuple[int, Any] | None:
            return (200 if taken else 502, {"pdus": {}}) if "/send/" in request.target else None

        house.peer.answer = answer
        sender, ctx = house.matrix.sender, house.app.contexts["matrix"]
        start = ctx.clock.now()
        native = await spoken(house, "hello")
        (row,) = await ctx.store.scan("out", index=("event_id",), equal=(native,))
        peer = house.matrix.destination_queues[THEIRS]
        await until(lambda: peer.position >= row.position if taken else peer.failures)

        async def known(days: float) -> list[str]:
            monkeypatch.setattr(type(ctx.clock), "now", lambda _: start + round(days * DAY * 1000))
            await sender.sweep()
            return [one.name for one in await sender.delivery_status(native)]

        assert await known(1) == [THEIRS]
        assert await known(10.9) == [THEIRS]
        later = await spoken(house, "a word of today")
        assert await known(11.1) == ([] if taken else [THEIRS])
        assert [one.name for one in await sender.delivery_status(later)] == [THEIRS]
        assert len(await ctx.store.scan("out_mark")) == 2
        waits = [str(row.fields["event_id"]) for row in await peer.pending_rows()]
        assert (native in waits) is not taken


async def test_t15_a_refused_event_is_found_by_halves_and_the_others_arrive(tmp_path):
    async with server_with_peer(tmp_path) as house:
        reachable, bodies = [False], list[list[str]]()

        def answer(request: HttpRequest) -> tuple[int, Any] | None:
            if "/send/" not in request.target:
                return None
            if not reachable[0]:
                return 503, {}
            texts = [pdu["content"]["body"] for pdu in orjson.loads(request.body)["pdus"]]
            bodies.append(texts)
            return (400, {"errcode": "M_BAD_JSON"}) if "refused" in texts else (200, {})

        house.peer.answer = answer
        sender = house.matrix.sender
        words = ["one", "two", "refused", "three", "four"]
        for word in words:
            await spoken(house, word)
        await until(lambda: house.matrix.destination_queues[THEIRS].failures)
        reachable[0] = True
        sender.heard_from(THEIRS)
        await until(lambda: "four" in [text for texts in bodies for text in texts if "refused" not in texts])
        arrived = [text for texts in bodies if "refused" not in texts for text in texts]
        assert arrived == ["one", "two", "three", "four"]
        assert ["refused"] in bodies
        assert house.app.counters["matrix_poison_events", (("plugin", "matrix"),)] == 1
