"""Presence of users, where an operator enables it."""

from __future__ import annotations

import pytest
from clients.matrix_server import Refused, matrix_server, part


def told(found):
    return {e["sender"]: e["content"]["presence"] for e in found.get("presence", {}).get("events", [])}


async def test_people_who_share_a_room_know_who_is_there(tmp_path):
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        alice, bob, eve = await home.person("alice"), await home.person("bob"), await home.person("eve")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await alice.sync()
        await eve.sync()
        assert told(await bob.sync()) == {alice.user: "online", bob.user: "online"}
        assert told(await alice.sync()) == {bob.user: "online"}
        away = {"presence": "unavailable", "status_msg": "at the ball"}
        await bob.call("PUT", f"/presence/{part(bob.user)}/status", away)
        (event,) = [e for e in (await alice.sync())["presence"]["events"] if e["sender"] == bob.user]
        assert (event["content"]["presence"], event["content"]["status_msg"]) == (
            "unavailable",
            "at the ball",
        )
        assert told(await alice.sync()) == {}
        status = f"/presence/{part(bob.user)}/status"
        assert (await alice.get(status))["presence"] == "unavailable"
        assert bob.user not in told(await eve.sync())
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await eve.get(status)
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await eve.call("PUT", status, away)
        with pytest.raises(Refused, match="M_BAD_JSON"):
            await bob.call("PUT", status, {"presence": "asleep"})
        assert told(await bob.sync("&set_presence=offline")) == {bob.user: "unavailable"}
        await bob.call("PUT", status, {"presence": "offline"})
        assert told(await alice.sync()) == {bob.user: "offline"}


async def test_whose_client_asks_no_more_is_gone(tmp_path, monkeypatch):
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await bob.sync()
        await alice.sync()
        sync = home.matrix.client_api._sync
        await sync.mark_offline()
        assert told(await alice.sync()) == {}
        monkeypatch.setattr("hansa_matrix.client_api.sync.sync._OFFLINE_AFTER_S", 0.0)
        await sync.mark_offline()
        assert told(await alice.sync("&set_presence=offline")) == {alice.user: "offline", bob.user: "offline"}


async def test_where_nobody_wants_it_told_it_is_not(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await alice.sync()
        assert "presence" not in await bob.sync()
        assert (await bob.get(f"/presence/{part(alice.user)}/status"))["presence"] == "offline"
        assert (await bob.ask("GET", "/sync?set_presence=asleep"))[0] == 400
