"""Rooms: made, entered, named, left; who may do what in them."""

from __future__ import annotations

import pytest
from clients.matrix_server import Refused, matrix_server, part
from hansa_matrix.proto.room_versions import VERSIONS
from matrix.server_with_peer import OURS, THEIRS


async def state(person, room):
    events = await person.get(f"/rooms/{part(room)}/state")
    return {(e["type"], e["state_key"]): e["content"] for e in events}


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_room_of_every_version(tmp_path, version):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(room_version=version, preset="public_chat", name="Verona", topic="a feud")
        await bob.join(room)
        await alice.say(room, "good morrow")
        seen = await state(bob, room)
        assert seen["m.room.create", ""].get("room_version") == version
        assert (seen["m.room.name", ""]["name"], seen["m.room.topic", ""]["topic"]) == ("Verona", "a feud")
        assert await bob.texts(room) == ["good morrow"]


@pytest.mark.parametrize(
    ("preset", "rule", "guests"),
    [("private_chat", "invite", "can_join"), ("trusted_private_chat", "invite", "can_join"), ("public_chat", "public", "forbidden")],
)  # fmt: skip
async def test_presets(tmp_path, preset, rule, guests):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset=preset, invite=[bob.user], is_direct=True)
        seen = await state(alice, room)
        assert seen["m.room.join_rules", ""] == {"join_rule": rule}
        assert seen["m.room.guest_access", ""] == {"guest_access": guests}
        assert seen["m.room.history_visibility", ""] == {"history_visibility": "shared"}
        assert seen["m.room.member", bob.user]["is_direct"] is True
        mighty = bob.user in seen["m.room.create", ""].get("additional_creators", [])
        assert mighty is (preset == "trusted_private_chat")
        await bob.join(room)
        if mighty:
            assert await bob.state(room, "m.room.name", {"name": "ours"})


async def test_what_a_creator_says_goes_before_what_a_preset_says(tmp_path):
    async with matrix_server(tmp_path, public_reading=True) as home:
        alice = await home.person("alice")
        room = await alice.create(
            preset="public_chat",
            initial_state=[
                {"type": "m.room.join_rules", "content": {"join_rule": "knock"}},
                {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}},
            ],
            power_level_content_override={"events_default": 25},
            creation_content={"type": "m.space", "room_version": "1", "m.federate": True},
            room_alias_name="verona",
            visibility="public",
        )
        seen = await state(alice, room)
        assert seen["m.room.join_rules", ""] == {"join_rule": "knock"}
        assert ("m.room.encryption", "") in seen
        assert seen["m.room.power_levels", ""]["events_default"] == 25
        assert (seen["m.room.create", ""]["type"], seen["m.room.create", ""]["room_version"]) == (
            "m.space",
            "12",
        )
        assert (await home.anybody.get(f"/directory/room/{part(f'#verona:{OURS}')}"))["room_id"] == room
        assert [r["room_id"] for r in (await home.anybody.get("/publicRooms"))["chunk"]] == [room]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"room_version": "99"}, "M_UNSUPPORTED_ROOM_VERSION"), ({"preset": "none"}, "M_INVALID_PARAM"),
        ({"preset": {}}, "M_INVALID_PARAM"),
        ({"preset": "trusted_private_chat", "creation_content": {"additional_creators": 7}}, "M_BAD_JSON"),
        ({"preset": "trusted_private_chat", "creation_content": {"additional_creators": ["nobody"]}}, "M_BAD_JSON"), ({"preset": ["private_chat"]}, "M_INVALID_PARAM"),
        ({"room_alias_name": "taken"}, "M_ROOM_IN_USE"), ({"room_alias_name": "a:b"}, "M_INVALID_PARAM"),
        ({"invite": ["nobody"]}, "M_INVALID_PARAM"), ({"invite": "x"}, "M_INVALID_PARAM"),
        ({"creation_content": 7}, "M_BAD_JSON"), ({"initial_state": [{"type": "a"}]}, "M_BAD_JSON"),
        ({"initial_state": [{"type": "m.room.member", "state_key": "@a:b", "content": {}}]}, "M_INVALID_PARAM"),
        ({"power_level_content_override": {"users": {"nobody": 100}}}, "M_INVALID_ROOM_STATE"),
        ({"room_version": 11}, "M_BAD_JSON"), ({"room_version": None}, "M_BAD_JSON"), ({"room_version": "none"}, "M_UNSUPPORTED_ROOM_VERSION"),
        ({"name": 7}, "M_BAD_JSON"), ({"power_level_content_override": {"ban": 2**60}}, "M_BAD_JSON"),
    ],
)  # fmt: skip
async def test_rooms_that_nobody_gets(tmp_path, options, code):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        await alice.create(room_alias_name="taken")
        before = await alice.get("/joined_rooms")
        status, found = await alice.ask("POST", "/createRoom", options)
        assert (status, found["errcode"]) == (400, code)
        assert await alice.get("/joined_rooms") == before


ADDRESS = {"medium": "email", "address": "b@mail.example", "id_server": "id.example", "id_access_token": "x"}


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        (ADDRESS, 403, "M_THREEPID_DENIED"),
        *(
            ({k: v for k, v in ADDRESS.items() if k != gone}, 400, "M_MISSING_PARAM")
            for gone in ("address", "id_server", "id_access_token")
        ),
        (ADDRESS | {"address": 7}, 400, "M_BAD_JSON"),
    ],
)
async def test_nobody_is_invited_by_an_address_without_being_told(tmp_path, given, status, code):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(invite_3pid=[])
        for path, body in (("/createRoom", {"invite_3pid": [given]}), (f"/rooms/{part(room)}/invite", given)):
            answered, found = await alice.ask("POST", path, body)
            assert (answered, found["errcode"]) == (status, code)
        for odd in (given, "x", [7]):
            answered, found = await alice.ask("POST", "/createRoom", {"invite_3pid": odd})
            assert (answered, found["errcode"]) == (400, "M_BAD_JSON")
        assert await alice.get("/joined_rooms") == {"joined_rooms": [room]}


async def test_the_first_events_of_a_room_are_in_order(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(
            room_alias_name="verona",
            name="Verona",
            topic="x",
            initial_state=[{"type": "org.other", "content": {}}],
            invite=[bob.user],
        )
        found = (await alice.get(f"/rooms/{part(room)}/messages?dir=f&limit=50"))["chunk"]
        assert [e["type"].removeprefix("m.room.") for e in found] == [
            "create",
            "member",
            "power_levels",
            "canonical_alias",
            "join_rules",
            "history_visibility",
            "guest_access",
            "org.other",
            "name",
            "topic",
            "member",
        ]


async def test_invited_joined_kicked_banned_and_back(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="private_chat", name="balcony")
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await bob.join(room)
        await alice.room(room, "invite", {"user_id": bob.user, "reason": "come"})
        shown = (await bob.sync())["rooms"]["invite"][room]["invite_state"]["events"]
        kinds = {(e["type"], e["state_key"]): e["content"] for e in shown}
        assert kinds["m.room.name", ""] == {"name": "balcony"}
        assert kinds["m.room.member", bob.user]["reason"] == "come"
        assert all(set(e) <= {"type", "state_key", "content", "sender", "origin_server_ts"} for e in shown)
        await bob.join(room)
        assert (await bob.get("/joined_rooms"))["joined_rooms"] == [room]
        await alice.room(room, "kick", {"user_id": bob.user, "reason": "hush"})
        left = (await bob.sync())["rooms"]["leave"][room]["timeline"]["events"]
        assert left[-1]["content"] == {"membership": "leave", "reason": "hush"}
        for action in ("kick", "unban"):
            with pytest.raises(Refused, match="M_FORBIDDEN"):
                await alice.room(room, action, {"user_id": bob.user})
        await alice.room(room, "ban", {"user_id": bob.user})
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await alice.room(room, "invite", {"user_id": bob.user})
        await alice.room(room, "unban", {"user_id": bob.user})
        await alice.room(room, "invite", {"user_id": bob.user})
        await bob.room(room, "leave")
        assert room in (await bob.sync())["rooms"]["leave"]
        await bob.room(room, "forget")
        assert (await bob.ask("POST", f"/rooms/{part(room)}/leave", {}))[0] == 404


async def test_who_is_not_in_a_room_does_nothing_there(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, mallory = await home.person("alice"), await home.person("mallory")
        room = part(await alice.create(preset="public_chat"))
        for method, path, body in (
            ("PUT", f"/rooms/{room}/send/m.room.message/1", {"msgtype": "m.text", "body": "hi"}),
            ("PUT", f"/rooms/{room}/state/m.room.name/", {"name": "mine"}),
            ("PUT", f"/rooms/{room}/redact/$x/1", {}),
            ("POST", f"/rooms/{room}/invite", {"user_id": mallory.user}),
            ("POST", f"/rooms/{room}/kick", {"user_id": alice.user}),
            ("POST", f"/rooms/{room}/ban", {"user_id": alice.user}),
            ("PUT", f"/rooms/{room}/typing/{part(mallory.user)}", {"typing": True}),
            ("POST", f"/rooms/{room}/receipt/m.read/$x", {}),
            ("POST", f"/rooms/{room}/upgrade", {"new_version": "11"}),
            ("GET", f"/rooms/{room}/state", None),
            ("GET", f"/rooms/{room}/members", None),
            ("GET", f"/rooms/{room}/joined_members", None),
            ("GET", f"/rooms/{room}/messages?dir=b", None),
            ("GET", f"/rooms/{room}/state/m.room.name/", None),
        ):
            status, found = await mallory.ask(method, path, body)
            assert (status, found["errcode"]) == (403, "M_FORBIDDEN"), path


async def test_levels_decide(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await bob.state(room, "m.room.name", {"name": "mine"})
        levels = (await state(alice, room))["m.room.power_levels", ""]
        levels["users"][bob.user] = 50
        await alice.state(room, "m.room.power_levels", levels)
        await bob.state(room, "m.room.name", {"name": "ours"})
        assert (await state(alice, room))["m.room.name", ""] == {"name": "ours"}
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await bob.room(room, "kick", {"user_id": alice.user})


async def test_the_same_state_again_is_the_same_event(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        first = await alice.state(room, "m.room.name", {"name": "a"})
        assert await alice.state(room, "m.room.name", {"name": "a"}) == first
        assert await alice.state(room, "m.room.name", {"name": "b"}) != first


async def test_aliases_are_given_and_taken(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        name = f"/directory/room/{part(f'#plaza:{OURS}')}"
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await bob.call("PUT", name, {"room_id": room})
        await alice.call("PUT", name, {"room_id": room})
        with pytest.raises(Refused, match="409"):
            await alice.call("PUT", name, {"room_id": room})
        assert (await alice.get(f"/rooms/{part(room)}/aliases"))["aliases"] == [f"#plaza:{OURS}"]
        assert await bob.join(f"#plaza:{OURS}") == room
        await alice.state(room, "m.room.canonical_alias", {"alias": f"#plaza:{OURS}"})
        with pytest.raises(Refused, match="M_BAD_ALIAS"):
            await alice.state(room, "m.room.canonical_alias", {"alias": f"#none:{OURS}"})
        other = await alice.create(room_alias_name="other")
        with pytest.raises(Refused, match="M_BAD_ALIAS"):
            await alice.state(
                room, "m.room.canonical_alias", {"alias": f"#plaza:{OURS}", "alt_aliases": [f"#other:{OURS}"]}
            )
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await bob.call("DELETE", name)
        await alice.call("DELETE", name)
        assert (await bob.ask("GET", name))[0] == 404
        assert other != room


async def test_who_is_in_a_space_comes_into_its_rooms(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, eve = await home.person("alice"), await home.person("bob"), await home.person("eve")
        space = await alice.create(preset="public_chat", creation_content={"type": "m.space"}, name="Italy")
        allow = [{"type": "m.room_membership", "room_id": space}]
        rules = {"join_rule": "restricted", "allow": allow}
        room = await alice.create(
            name="Verona", initial_state=[{"type": "m.room.join_rules", "content": rules}]
        )
        await alice.state(space, "m.space.child", {"via": [OURS]}, room)
        hidden = await alice.create(name="crypt")
        await alice.state(space, "m.space.child", {"via": [OURS]}, hidden)
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await eve.join(room)
        await bob.join(space)
        await bob.join(room)
        assert (await state(bob, room))["m.room.member", bob.user][
            "join_authorised_via_users_server"
        ] == alice.user
        listed = await bob.get(f"/_matrix/client/v1/rooms/{part(space)}/hierarchy")
        assert [(r["name"], len(r["children_state"])) for r in listed["rooms"]] == [
            ("Italy", 2),
            ("Verona", 0),
        ]
        summary = await eve.get(f"/_matrix/client/v1/room_summary/{part(space)}")
        assert (summary["name"], summary["membership"], summary["num_joined_members"]) == (
            "Italy",
            "leave",
            2,
        )
        assert (await eve.ask("GET", f"/_matrix/client/v1/room_summary/{part(hidden)}"))[0] == 404


async def test_knocking(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        rules = [{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]
        room = await alice.create(initial_state=rules)
        await bob.call("POST", f"/knock/{part(room)}", {"reason": "it is cold"})
        assert room in (await bob.sync())["rooms"]["knock"]
        assert (await state(alice, room))["m.room.member", bob.user]["reason"] == "it is cold"
        await alice.room(room, "invite", {"user_id": bob.user})
        await bob.join(room)
        assert (await state(alice, room))["m.room.member", bob.user]["membership"] == "join"


async def test_a_room_is_replaced(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(
            room_version="10", preset="public_chat", name="Verona", room_alias_name="verona"
        )
        await bob.join(room)
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await bob.room(room, "upgrade", {"new_version": "12"})
        with pytest.raises(Refused, match="M_UNSUPPORTED_ROOM_VERSION"):
            await alice.room(room, "upgrade", {"new_version": "99"})
        new = (await alice.room(room, "upgrade", {"new_version": "12"}))["replacement_room"]
        old = await state(bob, room)
        assert old["m.room.tombstone", ""]["replacement_room"] == new
        assert await bob.join(f"#verona:{OURS}") == new
        seen = await state(bob, new)
        assert seen["m.room.name", ""] == {"name": "Verona"}
        assert seen["m.room.create", ""]["predecessor"]["room_id"] == room
        await bob.say(new, "here we are")
        assert await alice.texts(new) == ["here we are"]


async def test_a_name_shows_in_every_room(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        profile = f"/profile/{part(bob.user)}"
        assert await home.anybody.get(profile) == {"displayname": "bob"}
        await bob.call("PUT", f"{profile}/displayname", {"displayname": "Benvolio"})
        await bob.call("PUT", f"{profile}/m.tz", {"m.tz": "Europe/Rome"})
        assert await home.anybody.get(profile) == {"displayname": "Benvolio", "m.tz": "Europe/Rome"}
        assert (await state(alice, room))["m.room.member", bob.user]["displayname"] == "Benvolio"
        later = await alice.create(preset="public_chat")
        await bob.join(later)
        assert (await state(alice, later))["m.room.member", bob.user]["displayname"] == "Benvolio"
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await alice.call("PUT", f"{profile}/displayname", {"displayname": "x"})
        with pytest.raises(Refused, match="M_PROFILE_TOO_LARGE"):
            await bob.call("PUT", f"{profile}/big", {"big": "x" * 70_000})
        with pytest.raises(Refused, match="M_KEY_TOO_LARGE"):
            await bob.call("PUT", f"{profile}/{'k' * 300}", {"k" * 300: 1})
        await bob.call("DELETE", f"{profile}/displayname")
        assert "displayname" not in (await state(alice, room))["m.room.member", bob.user]
        assert (await home.anybody.ask("GET", f"/profile/{part(f'@none:{OURS}')}"))[0] == 404


async def test_strangers_do_not_make_this_server_ask_others(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        for path in (
            f"/profile/{part(f'@m:{THEIRS}')}", f"/profile/{part(f'@m:{THEIRS}')}/displayname",
            f"/publicRooms?server={part(THEIRS)}", f"/directory/room/{part(f'#a:{THEIRS}')}",
        ):  # fmt: skip
            before = len(home.wire.peer.asked)
            status, found = await home.anybody.ask("GET", path)
            assert (status, found["errcode"]) == (401, "M_MISSING_TOKEN")
            assert len(home.wire.peer.asked) == before
            assert (await alice.ask("GET", path))[0] in {404, 502}
            assert len(home.wire.peer.asked) > before


async def test_people_are_found(tmp_path):
    async with matrix_server(tmp_path, user_directory="accounts") as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        await bob.call("PUT", f"/profile/{part(bob.user)}/displayname", {"displayname": "Benvolio"})
        found = await alice.call("POST", "/user_directory/search", {"search_term": "benv"})
        assert found == {"results": [{"user_id": bob.user, "display_name": "Benvolio"}], "limited": False}
        room = await alice.create(preset="public_chat")
        await home.wire.join("one")
        assert (await alice.call("POST", "/user_directory/search", {"search_term": "zzz"}))["results"] == []
        assert room
