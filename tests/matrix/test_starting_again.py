"""A network that is being started again judges nothing, and loses nothing that was acknowledged."""

from __future__ import annotations

import asyncio

from hansa.store.faults import FaultKind, StoreFault
from hansa.testing import until
from hansa_matrix.proto.hashing import event_id
from matrix.server_with_peer import V1, server_with_peer


async def test_what_comes_while_a_network_starts_again_is_to_come_again(tmp_path):
    async with server_with_peer(tmp_path) as house:
        runner = house.app.runners["matrix"]

        async def breaks() -> None:
            raise RuntimeError("out of luck")

        raw = house.forger.message(house.room, "said meanwhile")
        runner.spawn(breaks, "breaks")
        await until(lambda: runner.network is None)
        answer = await house.whole("PUT", f"{V1}/send/t1", {"pdus": [raw]})
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        await runner.wait_reconnected()
        assert await house.fate(raw) == "accepted"


async def test_what_was_acknowledged_is_not_refused_because_its_network_ended(tmp_path):
    """A refusal would be final, and what cites the event would pass it over."""
    async with server_with_peer(tmp_path) as house:
        runner, store = house.app.runners["matrix"], house.app.contexts["matrix"].store
        network, raw = runner.network, house.forger.message(house.room, "in the line")
        runner._network = None  # as between a crash and the next start
        status, _ = await house.send(raw)
        assert status == 200
        await until(lambda: house.app.pipeline.counts.get("busy"))
        assert await store.count("staged") == 1
        runner._network = network
        async with asyncio.timeout(10):
            while await store.count("staged"):
                await asyncio.sleep(0.05)
        assert not house.counted("matrix_pdus").get("refused")
        stored = await store.get("pdu", (event_id(raw, house.room.version),))
        assert stored is not None and stored.fields["status"] == "accepted"


async def test_keys_that_could_not_be_looked_up_drop_no_event(tmp_path):
    async with server_with_peer(tmp_path) as house:
        ingest = house.matrix.staging
        left = 2

        async def keyless(_room, entry):
            return not entry.keyed and left > 0

        class Failing:
            def __getattr__(self, name):
                return getattr(keyring, name)

            def at_hand(self, *wanted):
                return not left and keyring.at_hand(*wanted)

            async def ensure_keys(self, *args, **more):
                nonlocal left
                if left:
                    left -= 1
                    raise StoreFault(FaultKind.LOCKED, "a lock")
                await keyring.ensure_keys(*args, **more)

        keyring = ingest._keyring
        ingest._lacks_keys, ingest._keyring = keyless, Failing()
        assert await house.fate(house.forger.message(house.room, "signed well")) == "accepted"
        assert not left
