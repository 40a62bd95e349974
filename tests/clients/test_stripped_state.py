"""The claims of an inviting server about a room and about users: only its own are shown."""

from __future__ import annotations

from typing import Any

import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server
from clients.test_crossings import Forbid
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from matrix.server_with_peer import OURS, THEIRS, V2
from matrix.test_invites import foreign_room, invite_to
from matrix.two_servers import USER, at
from peers.event_forge import JoinedRoom

THIRD = "@third:elsewhere.example"
ADMIN = f"@hansa:{OURS}"


def stripped(type_: str, content: dict[str, Any], key: str = "", sender: str = USER) -> dict[str, Any]:
    return {"type": type_, "state_key": key, "sender": sender, "content": content}


async def asked(
    home: MatrixServer, who: LocalUser, room: JoinedRoom, state: list[Any], **more: Any
) -> tuple[int, Any, dict[tuple[str, str], Any]]:
    """An invite with this state: the answer, and what its person is shown."""
    raw = invite_to(home.wire, room, who.user)
    create = home.wire.forger.created[room.room_id]
    body = {
        "room_version": room.version.id,
        "event": raw,
        "invite_room_state": [create, *state],
        **more,
    }
    status, answer = await home.wire.ask(
        "PUT", f"{V2}/invite/{at(room.room_id, event_id(raw, room.version))}", body
    )
    invites = (await who.sync()).get("rooms", {}).get("invite", {})
    events = invites[room.room_id]["invite_state"]["events"] if room.room_id in invites else []
    return status, answer, {(e["type"], e["state_key"]): e for e in events}


@pytest.mark.parametrize("version", ["11", "12"])
async def test_nobody_is_given_a_name_by_somebody_else(tmp_path, version):
    """The administrator of this server asks nobody in by another server's word."""
    async with matrix_server(tmp_path, version) as home:
        alice, room = await home.person("alice"), foreign_room(home.wire, version)
        join = {"membership": "join"}
        state = [
            stripped("m.room.member", {**join, "displayname": "Hansa Administrator"}, ADMIN, ADMIN),
            stripped("m.room.member", {**join, "displayname": "Somebody"}, THIRD, THIRD),
            stripped("m.room.member", {**join, "displayname": "Hansa Administrator"}, USER, ADMIN),
            stripped("m.room.member", {**join, "displayname": "Mercutio", "x": "y", "avatar_url": 7}, USER),
            stripped("m.room.name", {"name": "Hansa: read this"}, sender=ADMIN),
            stripped("m.room.name", {"name": "Verona", "x": {"y": "z"}}, sender=THIRD),
            stripped("m.room.name", {"name": "second"}),
            stripped("m.room.topic", {"topic": "streets"}),
            stripped("m.room.pinned_events", {"pinned": ["x"]}),
            stripped("m.room.name", {"name": "elsewhere"}, "key"),
        ]
        status, _, shown = await asked(home, alice, room, state)
        assert status == 200
        assert shown.keys() == {
            ("m.room.create", ""), ("m.room.member", USER), ("m.room.name", ""), ("m.room.topic", ""),
            ("m.room.member", alice.user),
        }  # fmt: skip
        assert shown["m.room.member", USER]["content"] == {**join, "displayname": "Mercutio"}
        assert shown["m.room.name", ""]["content"] == {"name": "Verona"}


@pytest.mark.parametrize("version", ["11", "12"])
async def test_an_event_given_whole_has_a_signature_that_holds(tmp_path, version):
    async with matrix_server(tmp_path, version) as home:
        room, forger = foreign_room(home.wire, version), home.wire.forger

        def whole(name: str, **how: Any) -> dict[str, Any]:
            draft = forger.draft(room, "m.room.name", {"name": name}, "")
            return {**forger.finish(room, draft, **how), "room_id": room.room_id}

        good = whole("Verona")
        wrong_key = whole("forged", key=forger.secret)
        wrong_key["signatures"] = {THEIRS: {"ed25519:now": "A" * 86}}
        changed = {**whole("Verona"), "content": {"name": "forged"}}
        elsewhere = forger.finish(
            room, {**forger.draft(room, "m.room.name", {"name": "forged"}, ""), "room_id": "!x:y"}
        )
        for number, forged in enumerate((wrong_key, changed, elsewhere)):
            person = await home.person(f"p{number}")
            status, _, shown = await asked(home, person, room, [forged])
            assert status == 200 and ("m.room.name", "") not in shown, number
            other = await home.person(f"q{number}")
            status, _, shown = await asked(home, other, room, [forged, good])
            assert shown["m.room.name", ""]["content"] == {"name": "Verona"}, number


async def test_what_it_says_is_judged(tmp_path):
    async with matrix_server(tmp_path, "11") as home:
        alice, room = await home.person("alice"), foreign_room(home.wire, "11")
        policy = Forbid("classified")
        home.app.decisions.replace([InstalledPolicy(name="forbid", policy=policy)])
        status, answer, shown = await asked(
            home, alice, room, [stripped("m.room.topic", {"topic": "classified"})]
        )
        assert (status, answer["errcode"], shown) == (403, "M_FORBIDDEN", {})
        assert answer["dev.hansa.decision"].startswith("d-") and policy.denied == {"Invite"}


async def test_who_answers_a_knock_says_nothing_of_the_one_who_knocks(tmp_path):
    async with matrix_server(tmp_path, "11") as home:
        alice, room = await home.person("alice"), foreign_room(home.wire, "11")
        shown = [
            stripped("m.room.member", {"membership": "join", "displayname": "Fool"}, alice.user, alice.user),
            stripped("m.room.name", {"name": "Verona"}),
        ]
        matrix = home.matrix
        knock = home.wire.forger.draft(room, "m.room.member", {"membership": "knock"}, alice.user)
        event = pdu_from_raw(home.wire.forger.finish(room, {**knock, "sender": alice.user}), room.version)
        await matrix.pending_invites.keep(event, THEIRS, shown, "11", generation=0)
        found = (await alice.sync())["rooms"]["knock"][room.room_id]["knock_state"]["events"]
        assert [(e["type"], e["content"].get("displayname")) for e in found] == [
            ("m.room.name", None),
            ("m.room.member", None),
        ]


async def test_an_invite_that_waits_is_judged_by_the_policies_of_now(tmp_path):
    async with matrix_server(tmp_path, "11") as home:
        alice, room = await home.person("alice"), foreign_room(home.wire, "11")
        state = [stripped("m.room.name", {"name": "classified"})]
        assert (await asked(home, alice, room, state))[0] == 200
        alice.since = ""
        assert room.room_id in (await alice.sync())["rooms"]["invite"]
        policy = Forbid("classified")
        home.app.decisions.replace([InstalledPolicy(name="forbid", policy=policy)])
        for _ in range(2):
            alice.since = ""
            assert "rooms" not in await alice.sync()
        assert policy.denied == {"Invite"}
        home.app.decisions.replace([InstalledPolicy(name="forbid", policy=Forbid("else"))])
        alice.since = ""
        assert room.room_id in (await alice.sync())["rooms"]["invite"]
