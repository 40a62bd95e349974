"""Members, names and rates that a policy withholds as they arrive by federation."""

from __future__ import annotations

from typing import Any

import hansa_governance
import pytest
from hansa import Membership, NativeId
from hansa.setup import PolicySetup
from hansa.testing import until
from hansa_matrix.proto.pdu import pdu_from_raw
from hansa_matrix.rooms.pdu_receipt import PduBatch
from matrix.server_with_peer import THEIRS, ServerWithPeer, server_with_peer

WORD = "classified"
M = NativeId("matrix", f"@m:{THEIRS}")


def policy(**config: Any) -> PolicySetup:
    options = hansa_governance.Config.model_validate(config)
    return PolicySetup(name="gov", module=hansa_governance, options=options)


async def member(house: ServerWithPeer, content: dict[str, Any]) -> None:
    user = f"@m:{THEIRS}"
    raw = house.forger.finish(house.room, house.forger.draft(house.room, "m.room.member", content, user))
    assert await house.fate(raw) == "accepted"
    house.room.keep(pdu_from_raw(raw, house.room.version))


def view(house: ServerWithPeer) -> Any:
    found = house.app.contexts["matrix"].get_view(house.room.room_id)
    assert found is not None
    return found


async def shown(house: ServerWithPeer) -> list[Any]:
    return await house.app.contexts["matrix"].read_history(house.room.room_id, limit=50)


async def test_a_leave_with_a_forbidden_reason_takes_effect_and_is_not_shown(tmp_path) -> None:
    async with server_with_peer(tmp_path, policies=[policy(words=[WORD])]) as house:
        assert view(house).membership(M) is Membership.JOIN
        before = len(await shown(house))
        user = f"@m:{THEIRS}"
        leave = {"membership": "leave", "reason": f"it is {WORD}"}
        raw = house.forger.finish(house.room, house.forger.draft(house.room, "m.room.member", leave, user))
        assert (await house.send(raw))[0] == 200
        await until(lambda: view(house).membership(M) is not Membership.JOIN)
        assert view(house).membership(M) is Membership.LEAVE
        assert len(await shown(house)) == before


@pytest.mark.parametrize("key", ["displayname", "avatar_url", "org.example.note"])
async def test_a_forbidden_name_is_not_in_the_view(tmp_path, key) -> None:
    async with server_with_peer(tmp_path, policies=[policy(words=[WORD])]) as house:
        await member(house, {"membership": "join", "displayname": "Em"})
        assert view(house).person(M).name == "Em"
        await member(house, {"membership": "join", "displayname": "Em", key: f"it is {WORD}"})
        assert view(house).membership(M) is Membership.JOIN
        assert WORD not in (view(house).person(M).name or "")


async def test_messages_of_an_hour_that_arrive_together_are_shown(tmp_path) -> None:
    async with server_with_peer(tmp_path, policies=[policy(rate={"events": 5, "seconds": 60})]) as house:
        now = house.app.seams.clock.now()
        for n in range(12):
            raw = house.forger.message(house.room, f"m{n}", origin_server_ts=now - (12 - n) * 300_000)
            assert await house.fate(raw) == "accepted"
        said = [e.content.text for e in await shown(house) if hasattr(e.content, "text")]
        assert [text for text in said if text.startswith("m")] == [f"m{n}" for n in range(12)]
        for n in range(12):
            raw = house.forger.message(house.room, f"n{n}", origin_server_ts=now)
            assert await house.fate(raw) == "accepted"
        said = [e.content.text for e in await shown(house) if hasattr(e.content, "text")]
        assert len([text for text in said if text.startswith("n")]) <= 5


async def test_an_event_keeps_the_generation_that_judged_it_however_the_policies_change(
    tmp_path, monkeypatch
) -> None:
    async with server_with_peer(tmp_path, policies=[policy(words=[WORD])]) as house:
        prepare, judged = PduBatch.prepare_event, house.app.decisions.generation

        async def late(self: PduBatch, *args: Any) -> Any:
            house.app.decisions.generation = judged + 1
            return await prepare(self, *args)

        monkeypatch.setattr(PduBatch, "prepare_event", late)
        raw = house.forger.message(house.room, "x")
        assert await house.fate(raw) == "accepted"
        room = house.matrix.get_room(house.room.room_id)
        event = pdu_from_raw(raw, room.version).event_id
        assert (await room.events.load([event], room.version))[event].generation == judged
