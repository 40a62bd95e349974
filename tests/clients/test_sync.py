"""The sync of clients: all events, once, in order, and nothing that is not for them."""

from __future__ import annotations

import asyncio

import pytest
from clients.matrix_server import Refused, matrix_server, part
from hansa.testing import until
from hansa_matrix.proto.pdu import parse_pdu
from matrix.server_with_peer import OURS, THEIRS


def timeline(found, room, kind="join"):
    return found.get("rooms", {}).get(kind, {}).get(room, {}).get("timeline", {}).get("events", [])


def bodies(events):
    return [e["content"].get("body") for e in events if e["type"] == "m.room.message"]


async def test_a_first_sync_has_the_state_and_what_was_said_last(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat", name="Verona")
        for number in range(15):
            await alice.say(room, str(number))
        await bob.join(room)
        found = (await bob.sync())["rooms"]["join"][room]
        assert bodies(found["timeline"]["events"]) == [str(n) for n in range(6, 15)]
        assert found["timeline"]["limited"] is True
        keys = {(e["type"], e["state_key"]) for e in found["state"]["events"]}
        assert keys >= {("m.room.create", ""), ("m.room.name", ""), ("m.room.member", alice.user)}
        assert ("m.room.member", bob.user) not in keys  # that is in the timeline
        assert "room_id" not in found["timeline"]["events"][0]
        before = await bob.get(
            f"/rooms/{part(room)}/messages?dir=b&limit=6&from={found['timeline']['prev_batch']}"
        )
        assert bodies(before["chunk"]) == [str(n) for n in range(5, -1, -1)]


async def test_news_come_once_and_in_order(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await bob.sync()
        got: list[str] = []
        for number in range(30):
            await alice.say(room, str(number))
            if number % 7 == 0:
                got += bodies(timeline(await bob.sync(), room))
        got += bodies(timeline(await bob.sync(), room))
        assert got == [str(n) for n in range(30)]
        quiet = await bob.sync()
        assert "rooms" not in quiet


async def test_a_gap_is_said_to_be_one_and_can_be_filled(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat", name="first")
        await bob.join(room)
        before = (await bob.sync())["next_batch"]
        await alice.state(room, "m.room.name", {"name": "second"})
        for number in range(30):
            await alice.say(room, str(number))
        found = (await bob.sync())["rooms"]["join"][room]
        assert found["timeline"]["limited"] is True
        assert bodies(found["timeline"]["events"]) == [str(n) for n in range(20, 30)]
        assert [e["content"] for e in found["state"]["events"]] == [{"name": "second"}]
        back = (
            f"/rooms/{part(room)}/messages?dir=b&limit=100&from={found['timeline']['prev_batch']}&to={before}"
        )
        chunk = (await bob.get(back))["chunk"]
        assert bodies(chunk) == [str(n) for n in range(19, -1, -1)]
        assert chunk[-1]["type"] == "m.room.name"
        assert chunk[-1]["unsigned"]["prev_content"] == {"name": "first"}


@pytest.mark.parametrize("name", ["use_state_after", "org.matrix.msc4222.use_state_after"])
async def test_the_state_behind_a_timeline(tmp_path, name):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(name="first")
        found = (await alice.sync(f"&{name}=true"))["rooms"]["join"][room]
        assert "state" not in found
        assert {(e["type"], e["state_key"]) for e in found["state_after"]["events"]} >= {("m.room.name", "")}
        await alice.state(room, "m.room.name", {"name": "second"})
        found = (await alice.sync(f"&{name}=true"))["rooms"]["join"][room]
        for key in ("state_after", "org.matrix.msc4222.state_after"):
            assert [e["content"] for e in found[key]["events"]] == [{"name": "second"}]


@pytest.mark.parametrize("after", [False, True])
async def test_state_that_only_a_resolution_changed_is_told(tmp_path, after):
    """A user changes the topic; on another branch they had been banned: the topic before comes back, and no
    event of any timeline says so.
    """
    how = "&use_state_after=true" if after else ""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        ruler, changer = f"@m:{THEIRS}", f"@n:{THEIRS}"
        power = {"users": {ruler: 100, changer: 50}}
        room_id = await alice.create(
            preset="public_chat", topic="first", room_alias_name="verona", power_level_content_override=power
        )
        forger, room = home.wire.forger, await home.wire.join("verona")

        async def done(user, kind, content, key, **over):
            room.user = user
            raw = forger.finish(room, forger.draft(room, kind, content, key, sender=user, **over))
            assert await home.wire.fate(raw) == "accepted"
            pdu = parse_pdu(raw, room.version)
            room.keep(pdu)
            return pdu

        joined = await done(changer, "m.room.member", {"membership": "join"}, changer)
        fork = [joined.event_id]
        await alice.sync(how)
        topic = await done(changer, "m.room.topic", {"topic": "changed"}, "")
        told = timeline(await alice.sync(how), room_id)
        assert [e["event_id"] for e in told] == [topic.event_id]
        word = await alice.say(room_id, "on the branch that loses")
        ban = await done(ruler, "m.room.member", {"membership": "ban"}, changer, prev_events=fork)
        found = (await alice.sync(how))["rooms"]["join"][room_id]
        assert [e["event_id"] for e in found["timeline"]["events"]] == [word, ban.event_id]
        state = found["state_after" if after else "state"]["events"]
        assert ("m.room.topic", "first") in {(e["type"], e["content"].get("topic")) for e in state}
        now = await alice.get(f"/rooms/{part(room_id)}/state/m.room.topic")
        assert now["topic"] == "first"


async def test_a_gap_tells_the_state_before_its_timeline(tmp_path):
    """Also what the timeline then changes, so that a client can say what it was."""
    short = "&filter=" + part('{"room":{"timeline":{"limit":1}}}')
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(name="first")
        await alice.sync(short)
        for name in ("second", "third"):
            await alice.state(room, "m.room.name", {"name": name})
        found = (await alice.sync(short))["rooms"]["join"][room]
        assert found["timeline"]["limited"] is True
        assert [e["content"]["name"] for e in found["timeline"]["events"]] == ["third"]
        assert [e["content"]["name"] for e in found["state"]["events"]] == ["second"]


async def test_of_two_topics_the_one_that_holds_is_told_behind_the_timeline(tmp_path):
    """The one of the other branch comes later and does not hold: ``state_after`` does not name it."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        power = {"users": {f"@m:{THEIRS}": 100}}
        room_id = await alice.create(
            preset="public_chat", room_alias_name="verona", power_level_content_override=power
        )
        forger, room = home.wire.forger, await home.wire.join("verona")
        await alice.sync("&use_state_after=true")
        drafts = [forger.draft(room, "m.room.topic", {"topic": text}, "") for text in ("newer", "older")]
        drafts[1]["origin_server_ts"] = drafts[0]["origin_server_ts"] - 1000
        told = []
        for draft in drafts:
            assert await home.wire.fate(forger.finish(room, draft)) == "accepted"
            found = (await alice.sync("&use_state_after=true"))["rooms"]["join"][room_id]
            topics = [e["content"]["topic"] for e in found["timeline"]["events"]]
            told.append((topics, [e["content"]["topic"] for e in found["state_after"]["events"]]))
        assert told == [(["newer"], ["newer"]), (["older"], [])]


async def test_a_sync_waits_for_news_and_not_longer(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        other = await alice.create()
        await bob.join(room)
        await bob.sync()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(bob.sync(timeout=60_000))

            async def listens():
                return bob.user in home.matrix.stream_waiters

            await until(listens)
            await alice.say(other, "not for bob")
            await alice.say(room, "for bob")
        assert bodies(timeline(waiting.result(), room)) == ["for bob"]
        assert not home.matrix.stream_waiters  # nobody is left waiting
        assert "rooms" not in await bob.sync(timeout=20)


async def test_a_sync_again_gives_the_same_again(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        await alice.sync()
        since = alice.since
        await alice.say(room, "one")
        first = timeline(await alice.sync(), room)
        alice.since = since
        assert [e["event_id"] for e in timeline(await alice.sync(), room)] == [e["event_id"] for e in first]


async def test_own_words_come_with_their_transaction_id(tmp_path):
    async with matrix_server(tmp_path) as home:
        phone, laptop = await home.person("alice", "PHONE"), await home.person("alice", "LAPTOP")
        room = await phone.create()
        await phone.sync()
        await laptop.sync()
        path = f"/rooms/{part(room)}/send/m.room.message/txn 1"
        first = await phone.call("PUT", path.replace(" ", "%20"), {"msgtype": "m.text", "body": "once"})
        again = await phone.call("PUT", path.replace(" ", "%20"), {"msgtype": "m.text", "body": "once"})
        assert first == again
        (mine,) = timeline(await phone.sync(), room)
        assert mine["unsigned"]["transaction_id"] == "txn 1"
        (other,) = timeline(await laptop.sync(), room)
        assert "transaction_id" not in other["unsigned"]
        elsewhere = await laptop.call("PUT", path.replace(" ", "%20"), {"msgtype": "m.text", "body": "twice"})
        assert elsewhere != first  # a transaction id is a device's own


async def test_coming_in_gives_the_whole_room(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        await bob.sync()
        room = await alice.create(preset="public_chat", name="Verona")
        await alice.say(room, "before")
        await bob.join(room)
        found = (await bob.sync())["rooms"]["join"][room]
        keys = {
            (e["type"], e["state_key"])
            for e in [*found["state"]["events"], *found["timeline"]["events"]]
            if "state_key" in e
        }
        assert keys >= {("m.room.create", ""), ("m.room.name", ""), ("m.room.member", bob.user)}
        assert bodies(found["timeline"]["events"]) == ["before"]
        await bob.call("PUT", f"/profile/{part(bob.user)}/displayname", {"displayname": "Benvolio"})
        found = (await bob.sync())["rooms"]["join"][room]
        assert len(found["timeline"]["events"]) == 1  # a changed name is not a join
        await bob.room(room, "leave")
        await alice.say(room, "behind his back")
        gone = await bob.sync()
        events = timeline(gone, room, "leave")
        assert events[-1]["content"]["membership"] == "leave"
        assert bodies(events) == []
        await bob.join(room)
        found = (await bob.sync())["rooms"]["join"][room]
        assert found["timeline"]["limited"] or bodies(found["timeline"]["events"])


async def test_members_are_loaded_as_they_speak(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(preset="public_chat")
        people = [await home.person(f"p{n}") for n in range(4)]
        for one in people:
            await one.join(room)
        lazy = '{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":1}}}'
        named = (
            await alice.call(
                "POST",
                f"/user/{part(alice.user)}/filter",
                {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 1}}},
            )
        )["filter_id"]
        await people[2].say(room, "hello")
        for chosen in (part(lazy), named):
            alice.since = ""
            found = (await alice.sync(f"&filter={chosen}"))["rooms"]["join"][room]
            members = {e["state_key"] for e in found["state"]["events"] if e["type"] == "m.room.member"}
            assert found["summary"]["m.joined_member_count"] == 5
            assert len(found["summary"]["m.heroes"]) == 4
            assert members == {alice.user, *found["summary"]["m.heroes"]}  # who name the room
        await alice.state(room, "m.room.name", {"name": "Verona"})
        await people[2].say(room, "hello")
        alice.since = ""
        found = (await alice.sync(f"&filter={named}"))["rooms"]["join"][room]
        members = {e["state_key"] for e in found["state"]["events"] if e["type"] == "m.room.member"}
        assert members == {alice.user, people[2].user}
        await people[1].say(room, "and me")
        found = (await alice.sync(f"&filter={named}"))["rooms"]["join"][room]
        assert {e["state_key"] for e in found["state"]["events"]} >= {people[1].user}


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        ({"room": {"timeline": {"types": ["m.room.message"]}}}, ["m.room.message"]),
        ({"room": {"timeline": {"not_types": ["m.room.message"]}}}, ["test.note"]),
        ({"room": {"timeline": {"types": ["test.*"]}}}, ["test.note"]),
        ({"room": {"timeline": {"not_senders": ["@alice:127.0.0.1:1"]}}}, []),
        ({"room": {"timeline": {"limit": 1}}}, ["test.note"]),
    ],
)  # fmt: skip
async def test_filters(tmp_path, wanted, seen):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        await alice.sync()
        await alice.say(room, "hello")
        await alice.say(room, type_="test.note", text="x")
        named = (await alice.call("POST", f"/user/{part(alice.user)}/filter", wanted))["filter_id"]
        assert await alice.get(f"/user/{part(alice.user)}/filter/{named}") == wanted
        found = timeline(await alice.sync(f"&filter={named}"), room)
        assert [e["type"] for e in found] == seen


@pytest.mark.parametrize("how", ["left", "banned", "declined"])
async def test_what_is_kept_of_a_room_that_one_is_out_of_is_told(tmp_path, how):
    """By another device, as a tag or as any data; and nothing else is told of the room."""
    async with matrix_server(tmp_path) as home:
        alice, phone = await home.person("alice"), await home.person("bob", "PHONE")
        laptop = await home.person("bob", "LAPTOP")
        room = await alice.create(preset="public_chat")
        if how == "declined":
            await alice.room(room, "invite", {"user_id": phone.user})
            await phone.room(room, "leave")
        else:
            await phone.join(room)
            await (
                phone.room(room, "leave")
                if how == "left"
                else alice.room(room, "ban", {"user_id": phone.user})
            )
        await laptop.sync()
        await alice.say(room, "x")
        base = f"/user/{part(phone.user)}/rooms/{part(room)}"
        await phone.call("PUT", f"{base}/tags/m.favourite", {"order": 0.5})
        tags = {"type": "m.tag", "content": {"tags": {"m.favourite": {"order": 0.5}}}}
        shown = (await laptop.sync())["rooms"]
        assert shown.keys() == {"leave"}
        assert shown["leave"][room]["account_data"]["events"] == [tags]
        assert shown["leave"][room]["timeline"]["events"] == shown["leave"][room]["state"]["events"] == []
        await phone.call("PUT", f"{base}/account_data/test.note", {"a": 1})
        await phone.call("DELETE", f"{base}/tags/m.favourite")
        narrow = part('{"room":{"account_data":{"types":["test.note"]}}}')
        before = laptop.since
        kept = (await laptop.sync(f"&filter={narrow}"))["rooms"]["leave"][room]["account_data"]["events"]
        assert kept == [{"type": "test.note", "content": {"a": 1}}]
        laptop.since = before
        kept = (await laptop.sync())["rooms"]["leave"][room]["account_data"]["events"]
        assert {e["type"]: e["content"] for e in kept} == {"test.note": {"a": 1}, "m.tag": {"tags": {}}}
        assert "rooms" not in await laptop.sync()
        changing = phone.call("PUT", f"{base}/account_data/test.note", {"a": 2})
        woken, _ = await asyncio.gather(laptop.sync(timeout=5000), changing)
        kept = woken["rooms"]["leave"][room]["account_data"]["events"]
        assert kept == [{"type": "test.note", "content": {"a": 2}}]


async def test_what_is_kept_of_a_room_is_told_with_the_end_of_a_short_stay(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room, other = [await alice.create(preset="public_chat") for _ in range(2)]
        for one in (room, other):
            path = f"/user/{part(bob.user)}/rooms/{part(one)}/account_data/test.note"
            await bob.call("PUT", path, {"a": 1})
        await bob.sync()
        await bob.join(room)
        await bob.room(room, "leave")
        await alice.room(other, "invite", {"user_id": bob.user})
        await bob.room(other, "leave")
        left = (await bob.sync())["rooms"]["leave"]
        for one in (room, other):
            assert left[one]["account_data"]["events"] == [{"type": "test.note", "content": {"a": 1}}]


async def test_rooms_that_a_filter_leaves_out(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        one, two = await alice.create(), await alice.create()
        wanted = {"room": {"not_rooms": [one]}}
        named = (await alice.call("POST", f"/user/{part(alice.user)}/filter", wanted))["filter_id"]
        assert set((await alice.sync(f"&filter={named}"))["rooms"]["join"]) == {two}


@pytest.mark.parametrize(
    "bad",
    [
        "&since=nonsense",
        "&since=s",
        "&filter=none",
        "&filter=%7B",
        "&filter=%7B%22room%22:7%7D",
        "&timeout=-1",
        "&timeout=x",
    ],
)
async def test_syncs_that_are_none(tmp_path, bad):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        status, found = await alice.ask("GET", f"/sync?x=1{bad}")
        assert status == 400, found
        assert found["errcode"] in {"M_INVALID_PARAM", "M_BAD_JSON"}


async def test_what_one_keeps_for_oneself(tmp_path):
    async with matrix_server(tmp_path) as home:
        phone, laptop, bob = (
            await home.person("alice", "A"),
            await home.person("alice", "B"),
            await home.person("bob"),
        )
        room = await phone.create(preset="public_chat")
        await bob.join(room)
        for one in (phone, laptop, bob):
            await one.sync()
        base = f"/user/{part(phone.user)}"
        await phone.call("PUT", f"{base}/account_data/m.direct", {bob.user: [room]})
        await phone.call("PUT", f"{base}/rooms/{part(room)}/account_data/test.note", {"a": 1})
        await phone.call("PUT", f"{base}/rooms/{part(room)}/tags/m.favourite", {"order": 0.5})
        found = await laptop.sync()
        assert found["account_data"]["events"] == [{"type": "m.direct", "content": {bob.user: [room]}}]
        kept = {e["type"]: e["content"] for e in found["rooms"]["join"][room]["account_data"]["events"]}
        assert kept == {"test.note": {"a": 1}, "m.tag": {"tags": {"m.favourite": {"order": 0.5}}}}
        assert "rooms" not in await bob.sync()
        assert await laptop.get(f"{base}/account_data/m.direct") == {bob.user: [room]}
        assert (await laptop.get(f"{base}/rooms/{part(room)}/tags"))["tags"] == {
            "m.favourite": {"order": 0.5}
        }
        await laptop.call("DELETE", f"{base}/rooms/{part(room)}/tags/m.favourite")
        assert (await laptop.get(f"{base}/rooms/{part(room)}/tags"))["tags"] == {}
        for method, path in (
            ("GET", "account_data/m.direct"),
            ("PUT", "account_data/m.direct"),
            ("POST", "filter"),
            ("GET", "filter/x"),
        ):
            with pytest.raises(Refused, match="M_FORBIDDEN"):
                await bob.call(method, f"{base}/{path}", {} if method != "GET" else None)
        with pytest.raises(Refused, match="M_NOT_FOUND"):
            await phone.get(f"{base}/account_data/none")
        with pytest.raises(Refused, match="405"):
            await phone.call("PUT", f"{base}/account_data/m.push_rules", {})
        with pytest.raises(Refused, match="M_TOO_LARGE"):
            await phone.call("PUT", f"{base}/account_data/big", {"x": "y" * 70_000})
        phone.since = ""
        whole = await phone.sync()
        assert {e["type"] for e in whole["account_data"]["events"]} == {"m.direct", "m.push_rules"}


async def test_the_ignored_are_not_heard(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        ignored = {"ignored_users": {bob.user: {}}}
        await alice.call("PUT", f"/user/{part(alice.user)}/account_data/m.ignored_user_list", ignored)
        await alice.sync()
        await bob.say(room, "tut")
        await alice.say(room, "mine")
        assert bodies(timeline(await alice.sync(), room)) == ["mine"]
        assert await alice.texts(room) == ["mine"]
        assert await bob.texts(room) == ["tut", "mine"]
        asked = await bob.create(invite=[alice.user])
        found = await alice.sync()
        assert asked not in found.get("rooms", {}).get("invite", {})


async def test_who_is_ignored_is_not_seen_to_type_and_asks_again_when_they_are_heard_again(tmp_path):
    """Other invites are told again with theirs, once."""
    async with matrix_server(tmp_path) as home:
        alice, bob, carol = [await home.person(n) for n in ("alice", "bob", "carol")]
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await carol.join(room)
        path = f"/user/{part(alice.user)}/account_data/m.ignored_user_list"
        await alice.call("PUT", path, {"ignored_users": {bob.user: {}}})
        await alice.sync()
        for one in (bob, carol):
            await one.call(
                "PUT", f"/rooms/{part(room)}/typing/{part(one.user)}", {"typing": True, "timeout": 20_000}
            )
        asks = await bob.create(invite=[alice.user])
        found = (await alice.sync())["rooms"]
        (typing,) = found["join"][room]["ephemeral"]["events"]
        assert typing["content"]["user_ids"] == [carol.user]
        assert "invite" not in found
        await alice.call("PUT", path, {"ignored_users": {}})
        assert list((await alice.sync())["rooms"]["invite"]) == [asks]
        assert "rooms" not in await alice.sync()


async def test_who_types(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await alice.sync()
        typing = f"/rooms/{part(room)}/typing/{part(bob.user)}"
        await bob.call("PUT", typing, {"typing": True, "timeout": 20_000})
        (event,) = (await alice.sync())["rooms"]["join"][room]["ephemeral"]["events"]
        assert event == {"type": "m.typing", "content": {"user_ids": [bob.user]}}
        assert "rooms" not in await alice.sync()
        await bob.call("PUT", typing, {"typing": False})
        (event,) = (await alice.sync())["rooms"]["join"][room]["ephemeral"]["events"]
        assert event["content"] == {"user_ids": []}
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await alice.call("PUT", typing, {"typing": True})


async def test_who_has_read_and_how_much_is_left(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await alice.sync()
        await bob.sync()
        events = [await alice.say(room, text) for text in ("one", "two", "bob: three")]
        counts = (await bob.sync())["rooms"]["join"][room]["unread_notifications"]
        assert counts == {"notification_count": 3, "highlight_count": 1}
        await bob.call("POST", f"/rooms/{part(room)}/receipt/m.read/{part(events[1])}", {})
        found = (await bob.sync())["rooms"]["join"][room]
        assert found["unread_notifications"] == {"notification_count": 1, "highlight_count": 1}
        (receipt,) = (await alice.sync())["rooms"]["join"][room]["ephemeral"]["events"]
        assert list(receipt["content"][events[1]]["m.read"]) == [bob.user]
        marks = {"m.fully_read": events[2], "m.read.private": events[2]}
        await bob.call("POST", f"/rooms/{part(room)}/read_markers", marks)
        found = (await bob.sync())["rooms"]["join"][room]
        assert found["unread_notifications"] == {"notification_count": 0, "highlight_count": 0}
        assert found["account_data"]["events"] == [
            {"type": "m.fully_read", "content": {"event_id": events[2]}}
        ]
        assert bob.user in str(found["ephemeral"])
        private = await alice.sync()
        assert bob.user not in str(
            private.get("rooms", {}).get("join", {}).get(room, {}).get("ephemeral", {})
        )
        alice.since = ""
        assert "m.read.private" not in str(await alice.sync())
        assert "m.read.private" in str(await bob.sync("&full_state=true"))


async def test_messages_to_devices_stay_until_they_are_acknowledged(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, phone, laptop = (
            await home.person("alice"),
            await home.person("bob", "P"),
            await home.person("bob", "L"),
        )
        for number in range(250):
            body = {"messages": {phone.user: {"P": {"n": number}}}}
            await alice.call("PUT", f"/sendToDevice/test.ping/{number}", body)
            await alice.call("PUT", f"/sendToDevice/test.ping/{number}", body)  # a repeat
        first = await phone.sync()
        assert [e["content"]["n"] for e in first["to_device"]["events"]] == list(range(100))
        phone.since = ""
        again = await phone.sync()
        assert again["to_device"] == first["to_device"]
        got = [e["content"]["n"] for e in again["to_device"]["events"]]
        while "to_device" in (found := await phone.sync()):
            got += [e["content"]["n"] for e in found["to_device"]["events"]]
        assert got == list(range(250))
        assert "to_device" not in await laptop.sync()
        await alice.call("PUT", "/sendToDevice/test.all/1", {"messages": {phone.user: {"*": {"to": "all"}}}})
        for device in (phone, laptop):
            (event,) = (await device.sync())["to_device"]["events"]
            assert event == {"type": "test.all", "sender": alice.user, "content": {"to": "all"}}


async def test_events_of_other_servers_arrive(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = home.wire.room.room_id
        await alice.join(f"#one:{OURS}")
        await alice.sync()
        raw = home.wire.forger.message(home.wire.room, "from afar")
        assert await home.wire.fate(raw) == "accepted"
        assert bodies(timeline(await alice.sync(), room)) == ["from afar"]
