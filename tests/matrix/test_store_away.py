"""Events that were acknowledged before the database went away are judged when it is back, without a restart."""

from __future__ import annotations

import asyncio

from hansa.store.memory import MemoryStore
from hansa.testing.faulty_store import FaultyStore, InjectedFault
from hansa_matrix.proto.hashing import event_id
from matrix.server_with_peer import server_with_peer


async def test_what_was_acknowledged_is_judged_once_the_database_is_back(tmp_path, monkeypatch):
    """Fault G: it stayed where it was until the next start."""
    monkeypatch.setattr("hansa_matrix.rooms.inbound.pdu_staging._FAULT_WAIT", 0.001)
    store = FaultyStore(MemoryStore())
    async with server_with_peer(tmp_path, store=store) as house:
        failed = []

        def choose(writes):
            if len(failed) < 20 and any(write.collection == "event" for write in writes):
                failed.append(writes)
                return InjectedFault.AWAY
            return None

        store.choose = choose
        # Of two rooms, so that they are kept before they are judged.
        words = [house.forger.message(room, "while it goes away") for room in (house.room, house.other)]
        status, answer = await house.send(*words)
        assert (status, list(answer["pdus"].values())) == (200, [{}, {}])
        scope = house.app.contexts["matrix"].store
        named = [event_id(word, house.room.version) for word in words]

        async def judged():
            rows = await scope.get_many("pdu", [(one,) for one in named])
            return [row.fields["status"] for row in rows.values() if row.fields["after"]]

        async with asyncio.timeout(20):
            while len(failed) < 20 or len(await judged()) < 2 or await scope.scan("staged"):
                await asyncio.sleep(0)
        assert await judged() == ["accepted", "accepted"]
        assert house.app.runners["matrix"].restarts == 0
        assert not house.matrix.staging._left
