"""Rooms that one is not in: who may know of them, here and on other servers."""

from __future__ import annotations

import pytest
from clients.matrix_server import matrix_server, part
from matrix.server_with_peer import THEIRS

FAR, SPACE = f"!far:{THEIRS}", f"!space:{THEIRS}"
V1 = "/_matrix/client/v1"


def said(room_id: str, **more) -> dict:
    return {
        "room_id": room_id, "name": "the far room", "num_joined_members": 3, "world_readable": False,
        "guest_can_join": False, "join_rule": "restricted", "children_state": [], "room_version": "12", **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "alice", "eve"),
    [
        ({"join_rule": "public"}, True, True),
        ({"join_rule": "knock"}, True, True),
        ({"join_rule": "invite"}, False, False),
        ({"join_rule": "private"}, False, False),
        ({"join_rule": 7}, False, False),
        ({"join_rule": "invite", "world_readable": True}, True, True),
        ({"join_rule": "invite", "world_readable": "yes"}, False, False),
        ({}, False, False),
        ({"allowed_room_ids": "SHARED"}, True, False),
        ({"allowed_room_ids": "LEFT"}, False, False),
        ({"allowed_room_ids": "ASKED"}, False, False),
        ({"allowed_room_ids": "ALONE"}, False, False),
        ({"join_rule": "knock_restricted", "allowed_room_ids": "SHARED"}, True, True),
        ({"join_rule": "invite", "allowed_room_ids": "SHARED"}, False, False),
    ],
)  # fmt: skip
async def test_a_room_of_another_server_is_shown_to_whom_its_rules_let_know(tmp_path, more, alice, eve):
    async with matrix_server(tmp_path) as home:
        here, stranger = await home.person("alice"), await home.person("eve")
        owner = await home.person("owner")
        shared = await owner.create(preset="public_chat")
        left = await owner.create(preset="public_chat")
        asked = await owner.create(invite=[here.user])
        for room in (shared, left):
            await here.join(room)
        await here.room(left, "leave")
        allowed = {
            "SHARED": [7, "!nowhere:x", shared],
            "LEFT": [left],
            "ASKED": [asked],
            "ALONE": ["!nowhere:x"],
        }
        if "allowed_room_ids" in more:
            more = more | {"allowed_room_ids": allowed[more["allowed_room_ids"]]}

        def answer(request):
            if f"/hierarchy/{part(SPACE)}" in request.target:
                child = {
                    "type": "m.space.child",
                    "state_key": FAR,
                    "content": {"via": [THEIRS]},
                    "sender": "@x:y",
                    "origin_server_ts": 1,
                }
                space = said(SPACE, join_rule="public", room_type="m.space", children_state=[child])
                return 200, {"room": space, "children": [], "inaccessible_children": []}
            if f"/hierarchy/{part(FAR)}" in request.target:
                return 200, {"room": said(FAR, **more), "children": [], "inaccessible_children": []}
            return None

        home.wire.peer.answer = answer
        for person, may in ((here, alice), (stranger, eve)):
            status, found = await person.ask("GET", f"{V1}/room_summary/{part(FAR)}?via={THEIRS}")
            assert (status == 200) is may, found
            assert ("the far room" in str(found)) is may
            status, found = await person.ask("GET", f"{V1}/rooms/{part(FAR)}/hierarchy")
            assert (status, found["errcode"]) == (403, "M_FORBIDDEN")  # nobody says who could be asked


async def test_a_far_space_is_walked_as_far_as_one_may_know(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, eve = await home.person("alice"), await home.person("eve")
        member = await alice.create()
        space = await alice.create(preset="public_chat", creation_content={"type": "m.space"})
        await alice.state(space, "m.space.child", {"via": [THEIRS]}, FAR)
        room = {"room": said(FAR, allowed_room_ids=[member], topic=7, more="x")}
        home.wire.peer.answer = lambda request: (200, room) if "/hierarchy/" in request.target else None
        listed = (await alice.get(f"{V1}/rooms/{part(space)}/hierarchy"))["rooms"]
        assert [r["room_id"] for r in listed] == [space, FAR]
        assert "topic" not in listed[1] and "more" not in listed[1]
        listed = (await eve.get(f"{V1}/rooms/{part(space)}/hierarchy"))["rooms"]
        assert [r["room_id"] for r in listed] == [space]


async def test_who_is_asked_into_a_far_room_may_know_of_it(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        stay = type("S", (), {"membership": "invite"})
        home.matrix.memberships._stays.setdefault(alice.user, {})[FAR] = stay
        room = {"room": said(FAR, join_rule="invite")}
        home.wire.peer.answer = lambda request: (200, room) if "/hierarchy/" in request.target else None
        found = await alice.get(f"{V1}/room_summary/{part(FAR)}?via={THEIRS}")
        assert (found["name"], found["membership"]) == ("the far room", "invite")


async def test_other_servers_are_told_whose_members_may_know(tmp_path):
    """Also where they are in the room, as not all of their people are."""
    async with matrix_server(tmp_path) as home:
        wire = home.wire
        alice = await home.person("alice")
        room, member = await alice.create(preset="public_chat"), await alice.create()
        rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": member}]}
        await alice.state(room, "m.room.join_rules", rules)
        status, _ = await wire.ask("GET", f"/_matrix/federation/v1/hierarchy/{part(room)}")
        assert status == 404
        await alice.state(room, "m.room.history_visibility", {"history_visibility": "world_readable"})
        status, found = await wire.ask("GET", f"/_matrix/federation/v1/hierarchy/{part(room)}")
        assert (status, found["room"]["allowed_room_ids"]) == (200, [member])


async def test_strangers_do_not_learn_which_rooms_are_here_from_the_list(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, eve = await home.person("alice"), await home.person("eve")
        private, public = await alice.create(), await alice.create(visibility="public")
        path = "/directory/list/room/"
        unknown = [await who.ask("GET", path + part("!none:127.0.0.1:1")) for who in (home.anybody, eve)]
        hidden = [await who.ask("GET", path + part(private)) for who in (home.anybody, eve)]
        assert unknown == hidden
        assert {status for status, _ in hidden} == {404}
        assert await home.anybody.get(path + part(public)) == {"visibility": "public"}
        assert await eve.get(path + part(public)) == {"visibility": "public"}
        assert await alice.get(path + part(private)) == {"visibility": "private"}
