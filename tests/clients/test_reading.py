"""The past and the present of rooms, and who may read how much of them."""

from __future__ import annotations

import pytest
from clients.matrix_server import Refused, matrix_server, part
from hansa_matrix.proto.pdu import parse_pdu
from matrix.server_with_peer import OURS


async def pages(person, room, query="", limit=7):
    """Everything that /messages gives, page by page."""
    found, token = [], ""
    while True:
        more = f"&from={token}" if token else ""
        answer = await person.get(f"/rooms/{part(room)}/messages?limit={limit}{query}{more}")
        found += answer["chunk"]
        token = answer.get("end")
        if token is None:
            return found


@pytest.mark.parametrize("limit", [1, 3, 50])
async def test_the_past_is_the_same_in_pages_of_any_size_and_both_ways(tmp_path, limit):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        sent = [await alice.say(room, str(n)) for n in range(20)]
        back = [e["event_id"] for e in await pages(alice, room, "&dir=b", limit)]
        forth = [e["event_id"] for e in await pages(alice, room, "&dir=f", limit)]
        assert back == forth[::-1]
        assert forth[-20:] == sent
        assert len(set(back)) == len(back)


@pytest.mark.parametrize("limit", [1, 4, 50])
async def test_what_was_before_anybody_here_came_is_there_too(tmp_path, limit):
    """The forger's room of before: its events were told to nobody, and are paged by depth."""
    async with matrix_server(tmp_path) as home:
        room = home.wire.room.room_id
        for number in range(9):
            raw = home.wire.forger.message(home.wire.room, f"old {number}")
            assert await home.wire.fate(raw) == "accepted"
            home.wire.room.keep(parse_pdu(raw, home.wire.room.version))
        alice = await home.person("alice")
        await alice.join(f"#one:{OURS}")
        for number in range(3):
            await alice.say(room, f"new {number}")
        back = await pages(alice, room, "&dir=b", limit)
        texts = [e["content"]["body"] for e in back if e["type"] == "m.room.message"]
        assert texts == [f"new {n}" for n in (2, 1, 0)] + [f"old {n}" for n in range(8, -1, -1)]
        assert back[-1]["type"] == "m.room.create"
        forth = await pages(alice, room, "&dir=f", limit)
        assert [e["event_id"] for e in forth] == [e["event_id"] for e in back[::-1]]


@pytest.mark.parametrize("limit", [50, 1000])
async def test_a_crowd_at_one_depth_is_there_whole(tmp_path, limit):
    """More events of before on one depth than are read at once: the page grows instead of leaving any out."""
    async with matrix_server(tmp_path) as home:
        wire, crowd = home.wire, 230
        for number in range(crowd):
            raw = wire.forger.message(wire.room, f"old {number}")
            assert await wire.fate(raw) == "accepted"
        wire.room.keep(parse_pdu(raw, wire.room.version))
        assert await wire.fate(wire.forger.message(wire.room, "after them")) == "accepted"
        alice = await home.person("alice")
        await alice.join(f"#one:{OURS}")
        back = await pages(alice, wire.room.room_id, "&dir=b", limit)
        texts = [e["content"]["body"] for e in back if e["type"] == "m.room.message"]
        assert texts[0] == "after them"
        assert len(texts) == crowd + 1
        assert set(texts[1:]) == {f"old {number}" for number in range(crowd)}
        assert back[-1]["type"] == "m.room.create"
        forth = await pages(alice, wire.room.room_id, "&dir=f", limit)
        assert [e["event_id"] for e in forth] == [e["event_id"] for e in back[::-1]]


@pytest.mark.parametrize("visibility", ["world_readable", "shared"])
async def test_a_look_into_a_room_before_one_joins(tmp_path, visibility):
    """The requests of Element about a room that it is not in; a user who may not look is told to join."""
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        history = {"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}
        room = await alice.create(preset="public_chat", initial_state=[history], visibility="public")
        said = [await alice.say(room, str(n)) for n in range(12)]
        look = f"/rooms/{part(room)}/initialSync?limit=5"
        if visibility == "shared":
            with pytest.raises(Refused) as refused:
                await bob.get(look)
            assert (refused.value.status, refused.value.code) == (403, "M_FORBIDDEN")
            await bob.join(room)
            assert (await bob.get(look))["membership"] == "join"
            await bob.room(room, "leave")
            await alice.say(room, "after him")
        found = await bob.get(look)
        kinds = {(e["type"], e["state_key"]) for e in found["state"]}
        assert kinds >= {("m.room.create", ""), ("m.room.member", alice.user)}
        assert found["room_id"] == room
        assert found["visibility"] == "public"
        chunk = [e["event_id"] for e in found["messages"]["chunk"]]
        back = f"/rooms/{part(room)}/messages?dir=b&limit=4&from={found['messages']['start']}"
        more = (await bob.get(back))["chunk"]
        if visibility == "shared":
            assert found["membership"] == "leave"
            assert "after him" not in [e["content"].get("body") for e in found["messages"]["chunk"]]
        else:
            assert "membership" not in found
            assert chunk == said[-5:]
            assert [e["event_id"] for e in more] == said[-6:-10:-1]
        await alice.say(room, "news")
        forth = f"/rooms/{part(room)}/messages?dir=f&from={found['messages']['end']}"
        news = [e["content"]["body"] for e in (await bob.get(forth))["chunk"]]
        assert news == (["news"] if visibility == "world_readable" else [])


async def test_around_an_event(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(name="Verona")
        sent = [await alice.say(room, str(n)) for n in range(9)]
        found = await alice.get(f"/rooms/{part(room)}/context/{part(sent[4])}?limit=4")
        assert found["event"]["event_id"] == sent[4]
        assert [e["event_id"] for e in found["events_before"]] == [sent[3], sent[2]]
        assert [e["event_id"] for e in found["events_after"]] == [sent[5], sent[6]]
        assert ("m.room.name", "") in {(e["type"], e["state_key"]) for e in found["state"]}
        alone = await alice.get(f"/rooms/{part(room)}/context/{part(sent[4])}?limit=0")
        assert (alone["events_before"], alone["events_after"]) == ([], [])
        earlier = await alice.get(f"/rooms/{part(room)}/messages?dir=b&limit=1&from={found['start']}")
        later = await alice.get(f"/rooms/{part(room)}/messages?dir=f&limit=1&from={found['end']}")
        assert [earlier["chunk"][0]["event_id"], later["chunk"][0]["event_id"]] == [sent[1], sent[7]]
        one = await alice.get(f"/rooms/{part(room)}/event/{part(sent[4])}")
        assert (one["content"]["body"], one["room_id"]) == ("4", room)


_WHEN = ("before", "invited", "joined", "left")


@pytest.mark.parametrize(
    ("visibility", "who", "seen"),
    [
        ("world_readable", "stranger", _WHEN), ("world_readable", "invited", _WHEN), ("world_readable", "left", _WHEN),
        ("world_readable", "member", _WHEN),
        ("shared", "stranger", None), ("shared", "invited", None), ("shared", "left", ("before", "invited", "joined")),
        ("shared", "banned", ("before", "invited", "joined")), ("shared", "kicked", ("before", "invited", "joined")),
        ("shared", "member", _WHEN),
        ("invited", "stranger", None), ("invited", "invited", None), ("invited", "left", ("invited", "joined")),
        ("invited", "member", ("invited", "joined", "left")),
        ("joined", "stranger", None), ("joined", "invited", None), ("joined", "left", ("joined",)),
        ("joined", "kicked", ("joined",)), ("joined", "member", ("joined", "left")),
    ],
)  # fmt: skip
async def test_who_may_read_what_was_said_when(tmp_path, visibility, who, seen):
    """Said ``before`` the person was asked in, while they were ``invited``, ``joined``, and after they had
    ``left``, which a ``member`` never did.
    """
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        history = {"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}
        room = await alice.create(initial_state=[history])
        events = {"before": await alice.say(room, "before")}
        if who != "stranger":
            await alice.room(room, "invite", {"user_id": bob.user})
        events["invited"] = await alice.say(room, "invited")
        if who not in {"stranger", "invited"}:
            await bob.join(room)
        events["joined"] = await alice.say(room, "joined")
        if who in {"left", "banned", "kicked"}:
            action = {"banned": "ban", "kicked": "kick"}.get(who)
            await (alice.room(room, action, {"user_id": bob.user}) if action else bob.room(room, "leave"))
        events["left"] = await alice.say(room, "left")
        for when, event in events.items():
            status, found = await bob.ask("GET", f"/rooms/{part(room)}/event/{part(event)}")
            assert (status == 200) is (when in (seen or ())), (when, found)
            for path in (f"context/{part(event)}", f"relations/{part(event)}"):
                root = f"/_matrix/client/{'v1' if path.startswith('rel') else 'v3'}/rooms/{part(room)}/"
                assert ((await bob.ask("GET", root + path))[0] == 200) is (when in (seen or ()))
        if seen is None:
            with pytest.raises(Refused, match="M_FORBIDDEN"):
                await bob.texts(room)
        else:
            assert await bob.texts(room) == [when for when in _WHEN if when in seen]
            told = await bob.sync(
                "&filter=" + part('{"room":{"include_leave":true,"timeline":{"limit":50}}}')
            )
            rooms = {
                k: v for kind in ("join", "leave") for k, v in told.get("rooms", {}).get(kind, {}).items()
            }
            events = rooms.get(room, {"timeline": {"events": []}})["timeline"]["events"]
            bodies = [e["content"]["body"] for e in events if e["type"] == "m.room.message"]
            inside = _WHEN if who == "member" else ("before", "invited", "joined")
            told_of = () if who in {"stranger", "invited"} else inside
            assert bodies == [when for when in told_of if when in seen]


async def test_the_present_of_who_left_is_that_of_when_they_did(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, eve = await home.person("alice"), await home.person("bob"), await home.person("eve")
        room = await alice.create(preset="public_chat", name="then")
        await bob.join(room)
        await bob.room(room, "leave")
        await alice.state(room, "m.room.name", {"name": "now"})
        await eve.join(room)
        assert await bob.get(f"/rooms/{part(room)}/state/m.room.name/") == {"name": "then"}
        members = (await bob.get(f"/rooms/{part(room)}/members"))["chunk"]
        assert {m["state_key"] for m in members} == {alice.user, bob.user}
        assert (await bob.ask("GET", f"/rooms/{part(room)}/joined_members"))[0] == 403
        assert set((await eve.get(f"/rooms/{part(room)}/joined_members"))["joined"]) == {alice.user, eve.user}
        banned = await alice.create(preset="public_chat")
        await alice.room(banned, "ban", {"user_id": bob.user})
        assert (await bob.ask("GET", f"/rooms/{part(banned)}/state"))[0] == 403
        assert (await bob.ask("GET", f"/rooms/{part(banned)}/members"))[0] == 403


async def test_members_of_then_and_of_some_kind(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await alice.sync()
        before = alice.since
        await bob.join(room)
        then = (await alice.get(f"/rooms/{part(room)}/members?at={before}"))["chunk"]
        assert [m["state_key"] for m in then] == [alice.user]
        await bob.room(room, "leave")
        base = f"/rooms/{part(room)}/members?"
        assert [m["state_key"] for m in (await alice.get(f"{base}membership=leave"))["chunk"]] == [bob.user]
        assert [m["state_key"] for m in (await alice.get(f"{base}not_membership=leave"))["chunk"]] == [
            alice.user
        ]


async def test_what_was_taken_back_is_gone_for_all_readers(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, eve = await home.person("alice"), await home.person("bob"), await home.person("eve")
        room = await alice.create(preset="public_chat")
        for one in (bob, eve):
            await one.join(room)
        said = await bob.say(room, "a secret")
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await eve.call("PUT", f"/rooms/{part(room)}/redact/{part(said)}/1", {})
        await alice.sync()
        path = f"/rooms/{part(room)}/redact/{part(said)}/1"
        first = (await bob.call("PUT", path, {"reason": "oops"}))["event_id"]
        assert (await bob.call("PUT", path, {"reason": "oops"}))["event_id"] == first
        (event,) = (await alice.sync())["rooms"]["join"][room]["timeline"]["events"]
        assert (event["redacts"], event["content"]["redacts"]) == (said, said)
        for reader in (alice, bob, eve):
            found = await reader.get(f"/rooms/{part(room)}/event/{part(said)}")
            assert found["content"] == {}
            assert found["unsigned"]["redacted_because"]["content"]["reason"] == "oops"
            assert "a secret" not in str(await reader.get(f"/rooms/{part(room)}/messages?dir=b"))


@pytest.mark.parametrize("version", ["10", "11"])
async def test_a_redaction_is_sent_like_an_event_too(tmp_path, version):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(room_version=version)
        said = await alice.say(room, "a secret")
        await alice.say(room, type_="m.room.redaction", redacts=said)
        assert (await alice.get(f"/rooms/{part(room)}/event/{part(said)}"))["content"] == {}


async def test_edits_reactions_and_threads(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        root = await alice.say(room, "first")
        edited = {
            "msgtype": "m.text",
            "body": "* better",
            "m.new_content": {"msgtype": "m.text", "body": "better"},
        }
        edit = await alice.say(
            room, **edited, **{"m.relates_to": {"rel_type": "m.replace", "event_id": root}}
        )
        await bob.say(
            room, **edited, **{"m.relates_to": {"rel_type": "m.replace", "event_id": root}}
        )  # not his
        reaction = {"m.relates_to": {"rel_type": "m.annotation", "event_id": root, "key": "+1"}}
        liked = await bob.say(room, type_="m.reaction", **reaction)
        inside = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
        answers = [await bob.say(room, msgtype="m.text", body=str(n), **inside) for n in range(3)]
        relations = (await alice.get(f"/rooms/{part(room)}/event/{part(root)}"))["unsigned"]["m.relations"]
        assert relations["m.replace"]["event_id"] == edit
        assert relations["m.thread"]["count"] == 3
        assert relations["m.thread"]["latest_event"]["event_id"] == answers[-1]
        assert relations["m.thread"]["current_user_participated"] is True
        base = f"/_matrix/client/v1/rooms/{part(room)}/relations/{part(root)}"
        assert [e["event_id"] for e in (await bob.get(f"{base}/m.annotation"))["chunk"]] == [liked]
        assert [
            e["event_id"] for e in (await bob.get(f"{base}/m.thread/m.room.message"))["chunk"]
        ] == answers[::-1]
        first = await bob.get(f"{base}/m.thread?limit=2")
        rest = await bob.get(f"{base}/m.thread?limit=2&from={first['next_batch']}")
        assert [e["event_id"] for e in first["chunk"] + rest["chunk"]] == answers[::-1]
        other = await alice.say(room, "elsewhere")
        await alice.say(
            room, msgtype="m.text", body="x", **{"m.relates_to": {"rel_type": "m.thread", "event_id": other}}
        )
        threads = f"/_matrix/client/v1/rooms/{part(room)}/threads"
        assert [e["event_id"] for e in (await bob.get(threads))["chunk"]] == [other, root]
        assert [e["event_id"] for e in (await bob.get(f"{threads}?include=participated"))["chunk"]] == [root]
        await bob.call("PUT", f"/rooms/{part(room)}/redact/{part(liked)}/1", {})
        assert (await bob.get(f"{base}/m.annotation"))["chunk"] == []


async def test_an_event_at_a_time(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        said = await alice.say(room, "now")
        ts = (await alice.get(f"/rooms/{part(room)}/event/{part(said)}"))["origin_server_ts"]
        base = f"/_matrix/client/v1/rooms/{part(room)}/timestamp_to_event?"
        assert (await alice.get(f"{base}ts={ts + 1000}&dir=b"))["event_id"] == said
        assert (await alice.ask("GET", f"{base}ts={ts + 1000}&dir=f"))[0] == 404
        assert (await alice.ask("GET", f"{base}ts=x&dir=f"))[0] == 400


@pytest.mark.parametrize(
    "query", ["dir=x", "from=nonsense", "to=x", "limit=x", "filter=%7B", "filter=7", "from=s1_x"]
)
async def test_questions_that_are_none(tmp_path, query):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        status, found = await alice.ask("GET", f"/rooms/{part(room)}/messages?{query}")
        assert (status, found["errcode"]) == (400, "M_INVALID_PARAM")
