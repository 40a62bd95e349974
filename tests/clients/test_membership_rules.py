"""Rules on invites, typing, names of rooms, and reading of spaces."""

from __future__ import annotations

from typing import Any

import pytest
from clients.matrix_server import OURS, Refused, matrix_server, part
from hansa_matrix.proto.hashing import event_id
from matrix.server_with_peer import THEIRS, V1
from matrix.two_servers import USER, at


@pytest.mark.parametrize("how", ["invite", "state", "create"])
async def test_nobody_of_ours_is_asked_in_who_is_not_there(tmp_path, how):
    async with matrix_server(tmp_path) as home:
        alice, ghost = await home.person("alice"), f"@nobody:{OURS}"
        room = await alice.create()
        ways = {
            "invite": lambda: alice.room(room, "invite", {"user_id": ghost}),
            "state": lambda: alice.state(room, "m.room.member", {"membership": "invite"}, ghost),
            "create": lambda: alice.create(invite=[ghost]),
        }
        with pytest.raises(Refused) as refused:
            await ways[how]()
        assert (refused.value.status, refused.value.code) == (404, "M_NOT_FOUND")
        bot = home.matrix.bridge_user
        await alice.room(room, "invite", {"user_id": bot})


async def test_a_room_of_this_server_alone_asks_nobody_else_in(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(creation_content={"m.federate": False})
        home.wire.peer.asked.clear()
        with pytest.raises(Refused) as refused:
            await alice.room(room, "invite", {"user_id": USER})
        assert (refused.value.status, refused.value.code) == (403, "M_FORBIDDEN")
        assert not any("/invite/" in one.target for one in home.wire.peer.asked)


async def test_only_new_names_of_a_room_are_looked_up(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(room_alias_name="verona")
        mine, other = f"#verona:{OURS}", f"#padua:{OURS}"
        await alice.state(room, "m.room.canonical_alias", {"alias": mine})
        await alice.call("PUT", f"/directory/room/{part(other)}", {"room_id": room})
        await alice.call("DELETE", f"/directory/room/{part(mine)}")
        kept = {"alias": mine, "alt_aliases": [other]}
        await alice.state(room, "m.room.canonical_alias", kept)
        for wrong in (f"#none:{OURS}", f"#none:{THEIRS}"):
            with pytest.raises(Refused) as refused:
                await alice.state(room, "m.room.canonical_alias", {**kept, "alt_aliases": [other, wrong]})
            assert (refused.value.status, refused.value.code) == (400, "M_BAD_ALIAS")


async def test_whoever_was_let_in_by_another_server_may_take_another_name(tmp_path):
    """A member event that says who let its person in takes the signature of that server."""
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        said = {"membership": "join", "displayname": "Bob", "join_authorised_via_users_server": USER}
        await bob.state(room, "m.room.member", said, bob.user)
        path = f"/rooms/{part(room)}/state/m.room.member/{part(bob.user)}"
        assert await alice.get(path) == {"membership": "join", "displayname": "Bob"}


async def test_who_left_does_not_type(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await bob.call("PUT", f"/rooms/{part(room)}/typing/{part(bob.user)}", {"typing": True})
        assert home.matrix.typing_and_receipts.typing_in(room) == [bob.user]
        await bob.room(room, "leave")
        assert home.matrix.typing_and_receipts.typing_in(room) == []


async def test_a_space_is_read_in_depth_before_the_next_of_its_rooms(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        space = {"preset": "public_chat", "creation_content": {"type": "m.space"}}
        names = {await alice.create(name=name, **space): name for name in ("top", "a", "b")}
        top, one, two = names
        deep = await alice.create(preset="public_chat", name="deep")
        names[deep] = "deep"
        for parent, child, order in ((top, one, "1"), (top, two, "2"), (one, deep, "1")):
            await alice.state(parent, "m.space.child", {"via": [OURS], "order": order}, child)
        found = await alice.get(f"/_matrix/client/v1/rooms/{part(top)}/hierarchy")
        assert [names[r["room_id"]] for r in found["rooms"]] == ["top", "a", "deep", "b"]


async def test_rooms_of_a_space_are_in_the_order_that_it_says(tmp_path):
    """A value that is not an order counts as missing; the older of two is first, and of one moment the lesser
    room id.
    """
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        space = await alice.create(preset="public_chat", creation_content={"type": "m.space"})
        orders = ["b", None, 7, "a", "~~", "\N{LATIN SMALL LETTER A WITH ACUTE}", "x" * 51, " ", "A"]
        rooms: dict[str, Any] = {}
        for number, order in enumerate(orders):
            room = await alice.create(preset="public_chat", name=f"{number}")
            rooms[room] = order
            content = {"via": [OURS]} | ({"order": order} if order is not None else {})
            await alice.state(space, "m.space.child", content, room)
        path = f"/_matrix/client/v1/rooms/{part(space)}/hierarchy"
        found = await alice.get(path)
        none = [
            order for order in orders if order in {None, 7, "\N{LATIN SMALL LETTER A WITH ACUTE}", "x" * 51}
        ]
        assert [rooms[r["room_id"]] for r in found["rooms"][1:]] == [" ", "A", "a", "b", "~~", *none]
        listed = [c["state_key"] for c in found["rooms"][0]["children_state"]]
        assert listed == [r["room_id"] for r in found["rooms"][1:]]
        # In pages, which are all of one question.
        paged, token = list[str](), ""
        for _ in range(4):
            page = await alice.get(f"{path}?limit=3{token}")
            paged += [r["room_id"] for r in page["rooms"]]
            token = f"&from={page.get('next_batch')}"
        assert paged == [space, *listed]
        first = (await alice.get(f"{path}?limit=3"))["next_batch"]
        for more in ("max_depth=1", "suggested_only=true"):
            status, answer = await alice.ask("GET", f"{path}?limit=3&from={first}&{more}")
            assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM")
        status, answer = await alice.ask("GET", f"{path}?from=3")
        assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM")
        assert [r["room_id"] for r in (await alice.get(f"{path}?max_depth=0"))["rooms"]] == [space]


async def test_nothing_is_in_a_room_that_is_no_space(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room, other = [await alice.create(preset="public_chat") for _ in range(2)]
        await alice.state(room, "m.space.child", {"via": [OURS]}, other)
        (only,) = (await alice.get(f"/_matrix/client/v1/rooms/{part(room)}/hierarchy"))["rooms"]
        assert only["children_state"] == []
        status, found = await home.wire.ask("GET", f"{V1}/hierarchy/{part(room)}")
        assert (status, found["room"]["children_state"], found["children"]) == (200, [], [])


@pytest.mark.parametrize("version", ["10", "12"])
async def test_joins_and_leaves_as_they_were_in_the_beginning(tmp_path, version):
    async with matrix_server(tmp_path, version) as home:
        wire, user = home.wire, f"@third:{THEIRS}"
        for membership in ("join", "leave"):
            status, made = await wire.ask(
                "GET", f"{V1}/make_{membership}/{at(wire.room.room_id, user)}?ver={version}"
            )
            assert status == 200, made
            raw = wire.forger.finish(wire.room, {**made["event"], "origin_server_ts": 1})
            name = event_id(raw, wire.room.version)
            status, answer = await wire.ask(
                "PUT", f"{V1}/send_{membership}/{at(wire.room.room_id, name)}", raw
            )
            assert (status, answer[0]) == (200, 200), answer
            assert (answer[1] == {}) is (membership == "leave")
            assert ("auth_chain" in answer[1]) is (membership == "join")
