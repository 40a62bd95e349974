"""Rooms that replace others: who may, and what nobody may claim."""

from __future__ import annotations

import hansa_governance
import pytest
from hansa import (
    ALLOW,
    Action,
    CannotOpenRoom,
    Custom,
    EventIn,
    EventOut,
    LocalProtocolError,
    Membership,
    NativeId,
    Reason,
    RoomMember,
    RoomUpgrade,
    Verdict,
    ViewDelta,
)
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.setup import PolicySetup
from hansa_matrix.proto.pdu import pdu_from_raw
from hansa_matrix.rooms.create_room import RoomTemplate
from matrix.server_with_peer import OURS, THEIRS, server_with_peer


async def test_who_may_not_replace_a_room_makes_none(tmp_path):
    async with server_with_peer(tmp_path, "11") as house:
        matrix = house.matrix
        upgrade = matrix.network.admin_commands()["rooms upgrade"]
        with pytest.raises(LocalProtocolError, match="no room version"):
            await upgrade({"room": house.room.room_id, "version": "13"})
        with pytest.raises(LocalProtocolError, match="not in !none"):
            await upgrade({"room": "!none", "version": "12"})
        levels = {"users": {matrix.bridge_user: 60}, "events": {"m.room.tombstone": 100}}
        await matrix.local_events.send_state(house.room.room_id, "m.room.power_levels", "", levels)
        before = set(matrix.rooms)
        with pytest.raises(LocalProtocolError, match="may not replace"):
            await upgrade({"room": house.room.room_id, "version": "12"})
        assert set(matrix.rooms) == before
        assert await matrix.network.room_at(f"#one:{OURS}") == house.room.room_id


async def test_a_room_is_replaced_once_and_its_links_move_with_its_alias(tmp_path):
    async with server_with_peer(tmp_path, "11") as house:
        matrix = house.matrix
        upgrade = matrix.network.admin_commands()["rooms upgrade"]
        core = house.app.contexts["matrix"].get_link(house.room.room_id).room
        made = (await upgrade({"room": house.room.room_id, "version": "12"}))["room"]
        assert await matrix.network.room_at(f"#one:{OURS}") == made
        assert house.app.contexts["matrix"].get_link(made).room == core
        assert house.app.contexts["matrix"].get_link(house.room.room_id).room != core
        with pytest.raises(LocalProtocolError, match="replaced already"):
            await upgrade({"room": house.room.room_id, "version": "12"})
        # The one left is closed: what was said beside that is taken, and shown to nobody.
        assert await house.fate(house.forger.message(house.room, "x")) == "soft_failed"


async def test_a_room_that_does_not_say_so_replaces_nothing(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        old, other = matrix.get_room(house.room.room_id), matrix.get_room(house.other.room_id)
        with pytest.raises(LocalProtocolError, match="does not say that it replaces"):
            await matrix.upgrades.follow(old, other, f"@m:{THEIRS}")


async def test_bans_and_levels_go_along_and_creators_are_not_among_the_levels(tmp_path):
    async with server_with_peer(tmp_path, "10") as house:
        matrix = house.matrix
        say = matrix.local_events.send_state
        room = house.room.room_id
        levels = {"users": {matrix.bridge_user: 100, "@mod:x": 50}, "ban": 77}
        await say(room, "m.room.power_levels", "", levels)
        await say(room, "m.room.member", "@bad:x", {"membership": "ban"})
        for version in ("12", "10"):
            made = (
                await matrix.network.admin_commands()["rooms upgrade"]({"room": room, "version": version})
            )["room"]
            new = matrix.get_room(made)
            state = {p.key: p for p in await new.state_events(await new.state())}
            assert state["m.room.member", "@bad:x"].membership == "ban"
            users = state["m.room.power_levels", ""].content["users"]
            assert users == {"@mod:x": 50} | ({matrix.bridge_user: 100} if version == "10" else {})
            assert state["m.room.power_levels", ""].content["ban"] == 77
            assert (state["m.room.create", ""].content["predecessor"].get("event_id") is None) is (
                version == "12"
            )
            room = made


class Denies:
    """Nothing of some people crosses."""

    def __init__(self, *denied: str) -> None:
        self._denied = denied
        self.ways: list[tuple[type, str, str]] = []

    async def check(self, crossing):
        if isinstance(crossing, EventIn | EventOut):
            self.ways.append((type(crossing), crossing.sender.id, crossing.facts.sender_server))
            if crossing.sender.id in self._denied:
                return Verdict(Action.DENY, (Reason(code="GOV_TEST", policy="denies", text="not here"),))
        return ALLOW


async def test_people_of_other_networks_come_along_as_far_as_policies_let_them(tmp_path):
    async with server_with_peer(tmp_path, "11") as house:
        matrix, context = house.matrix, house.app.contexts["matrix"]
        juliet, paris = NativeId("xmpp", "juliet@example.org"), NativeId("xmpp", "paris@example.org")
        people = tuple(
            RoomMember(user=user, membership=Membership.JOIN, server="x") for user in (juliet, paris)
        )
        await context.reconcile_view(house.room.room_id, ViewDelta(upserts=people))
        policy = Denies(paris.id)
        house.app.decisions.replace([InstalledPolicy(name="denies", policy=policy)])
        made = await matrix.network.admin_commands()["rooms upgrade"](
            {"room": house.room.room_id, "version": "12"}
        )
        state = await matrix.get_room(made["room"]).state()
        assert ("m.room.member", await context.get_ghost_id(juliet)) in state
        assert ("m.room.member", await context.get_ghost_id(paris)) not in state
        ways = {(way, server) for way, sender, server in policy.ways if sender == juliet.id}
        assert ways == {(EventIn, "x"), (EventOut, "x")}


async def test_a_room_that_no_server_would_take_is_not_made(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        before, kept = set(matrix.rooms), await matrix.store.scan("pdu", limit=100)
        founding = RoomTemplate(create={"additional_creators": ["nobody"]})
        with pytest.raises(LocalProtocolError, match=r"m\.room\.create: "):
            await matrix.room_creator.create(matrix.bridge_user, "12", "", founding)
        assert set(matrix.rooms) == before
        assert len(await matrix.store.scan("pdu", limit=100)) == len(kept)


async def test_a_server_acl_that_bars_this_server_does_not_go_along(tmp_path):
    async with server_with_peer(tmp_path, "11") as house:
        matrix, room = house.matrix, house.room.room_id
        acl = {"allow": ["*"], "deny": ["127.0.0.1"], "allow_ip_literals": True}
        refusal = await matrix.local_events.send(
            matrix.bridge_user, room, Custom(type="m.room.server_acl"), ("m.room.server_acl", "", acl)
        )
        assert refusal is None
        made = await matrix.network.admin_commands()["rooms upgrade"]({"room": room, "version": "11"})
        assert ("m.room.server_acl", "") not in await matrix.get_room(made["room"]).state()


async def test_a_policy_may_deny_that_others_replace_a_room(tmp_path):
    async with server_with_peer(tmp_path, "11") as house:
        matrix, asked = house.matrix, []

        class Stays:
            async def check(self, crossing):
                if isinstance(crossing, RoomUpgrade):
                    asked.append(crossing)
                    return Verdict(Action.DENY, (Reason(code="GOV_TEST", policy="stays", text="no"),))
                return ALLOW

        old = matrix.get_room(house.room.room_id)
        founding = RoomTemplate(create={"predecessor": {"room_id": old.room_id}})
        new = await matrix.room_creator.create(matrix.bridge_user, "11", "", founding)
        home = house.app.contexts["matrix"].get_link(old.room_id).room
        house.app.decisions.replace([InstalledPolicy(name="stays", policy=Stays())])
        with pytest.raises(CannotOpenRoom, match="no"):
            await matrix.upgrades.follow(old, new, f"@m:{THEIRS}")
        assert house.app.contexts["matrix"].get_link(old.room_id).room == home
        assert [(c.user.id, c.user_server, c.version) for c in asked] == [(f"@m:{THEIRS}", THEIRS, "11")]


async def test_what_is_withheld_in_the_old_room_is_not_said_in_the_new_one(tmp_path):
    word = "classified"
    options = hansa_governance.Config.model_validate({"words": [word]})
    gov = PolicySetup(name="gov", module=hansa_governance, options=options)
    async with server_with_peer(tmp_path, "11", policies=[gov]) as house:
        matrix, forger, room = house.matrix, house.forger, house.room
        for kind, content in (
            ("m.room.topic", {"topic": "open to all"}),
            ("m.room.topic", {"topic": f"it is {word}"}),
            ("m.room.name", {"name": word}),
        ):
            raw = forger.finish(room, forger.draft(room, kind, content, ""))
            await house.fate(raw)
            room.keep(pdu_from_raw(raw, room.version))
        made = (
            await matrix.network.admin_commands()["rooms upgrade"]({"room": room.room_id, "version": "12"})
        )["room"]
        new = matrix.get_room(made)
        state = {p.key: p for p in await new.state_events(await new.state())}
        assert state["m.room.topic", ""].content == {"topic": "open to all"}
        assert ("m.room.name", "") not in state
