"""A server that is denied after it came into a room: it is told nothing more, and is answered nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from clients.matrix_server import Refused, matrix_server, part
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.testing import until
from hansa_governance.config import Config
from hansa_governance.policy import GovernancePolicy
from hansa_matrix.proto.hashing import event_id
from matrix.server_with_peer import OURS, THEIRS, V1
from matrix.two_servers import at


async def test_nothing_reaches_a_server_that_is_denied_later(tmp_path):
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        alice = await home.person("alice")
        room = await alice.join(f"#one:{OURS}")
        sent: list[dict[str, Any]] = []

        def answer(request: Any) -> Any:
            if "/send/" in request.target:
                sent.append(orjson.loads(request.body))
                return 200, {}
            return None

        home.wire.peer.answer = answer
        first = await alice.say(room, "fair")
        async with asyncio.timeout(10):
            await until(
                lambda: any(
                    event_id(raw, home.wire.room.version) == first for one in sent for raw in one["pdus"]
                )
            )
        policy = GovernancePolicy(
            Config(deny_servers=["127.0.0.2:*"]), "gov", home.app.contexts["matrix"].clock
        )
        home.app.decisions.replace([InstalledPolicy(name="gov", policy=policy)])
        sent.clear()
        before = len(home.wire.peer.asked)
        with pytest.raises(Refused) as refused:
            await alice.say(room, "for their eyes")
        assert (refused.value.status, refused.value.code) == (403, "M_FORBIDDEN")
        assert refused.value.body["dev.hansa.decision"].startswith("d-")
        typing = f"/rooms/{part(room)}/typing/{part(alice.user)}"
        assert (await alice.ask("PUT", typing, {"typing": True}))[0] == 200  # the others here see it
        await alice.call("PUT", f"/presence/{part(alice.user)}/status", {"presence": "online"})
        await alice.call("PUT", f"/devices/{alice.device}", {"display_name": "phone"})
        messages = {"messages": {f"@m:{THEIRS}": {"*": {}}}}
        assert (await alice.ask("PUT", "/sendToDevice/test.x/1", messages))[0] == 403
        for target in (f"{V1}/event/{at(first)}", f"{V1}/backfill/{at(room)}?v={at(first)}&limit=10"):
            status, answered = await home.wire.ask("GET", target)
            assert (status, answered["errcode"]) == (403, "M_FORBIDDEN")
        outbox = home.matrix.destination_queue(THEIRS)
        assert not outbox.edus and sent == []
        assert [r for r in home.wire.peer.asked[before:] if r.host == "127.0.0.2"] == []
