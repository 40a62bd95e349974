"""Decisions of policies about local users: they get an error with the decision that explains it."""

from __future__ import annotations

import pytest
from clients.matrix_server import Refused, matrix_server, part
from hansa import ALLOW, Action, EventIn, Invite, Join, Message, Reason, Verdict
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa_matrix.proto.hashing import event_id
from matrix.server_with_peer import OURS, THEIRS


class Strict:
    """No foul words, nobody invited from elsewhere, and nobody into rooms whose name says so."""

    async def check(self, crossing):
        foul = (
            isinstance(crossing, EventIn)
            and isinstance(crossing.content, Message)
            and "foul" in crossing.content.text
        )
        abroad = isinstance(crossing, Invite) and crossing.outbound
        shut = isinstance(crossing, Join) and crossing.user.id.startswith("@eve")
        if foul or abroad or shut:
            return Verdict(Action.DENY, (Reason(code="GOV_TEST", policy="strict", text="not here"),))
        return ALLOW


async def test_policies_decide_about_clients_too(tmp_path):
    async with matrix_server(tmp_path) as home:
        home.app.decisions.replace([InstalledPolicy(name="strict", policy=Strict())])
        alice, eve = await home.person("alice"), await home.person("eve")
        room = await alice.create(preset="public_chat")
        await alice.say(room, "fair")
        for act in (
            alice.say(room, "foul"),
            alice.room(room, "invite", {"user_id": f"@m:{THEIRS}"}),
            eve.join(room),
        ):
            with pytest.raises(Refused) as refused:
                await act
            assert (refused.value.status, refused.value.code) == (403, "M_FORBIDDEN")
            assert refused.value.body["dev.hansa.decision"].startswith("d-")
        assert await alice.texts(room) == ["fair"]
        assert f"@m:{THEIRS}" not in str(await alice.get(f"/rooms/{room}/members"))
        assert OURS in alice.user


async def test_what_is_withheld_is_shown_to_no_client(tmp_path):
    """Another server's event stands in the room's history; here it is not shown."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.join(f"#one:{OURS}")
        home.app.decisions.replace([InstalledPolicy(name="strict", policy=Strict())])
        raw = home.wire.forger.message(home.wire.room, "foul play")
        assert await home.wire.fate(raw) == "accepted"
        assert await alice.texts(room) == []
        event = part(event_id(raw, home.wire.room.version))
        for path in (f"event/{event}", f"context/{event}"):
            assert (await alice.ask("GET", f"/rooms/{part(room)}/{path}"))[0] == 404
        assert "foul play" not in str(await alice.sync())
