"""Admin commands about whole rooms, and summaries of rooms for servers outside of them."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from hansa import CannotOpenRoom, Delete, LocalProtocolError, Put, pieces
from hansa_matrix.admin import rooms as care
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from hansa_matrix.rooms.create_room import RoomTemplate
from matrix.server_with_peer import OURS, THEIRS, V1, V2, ServerWithPeer, server_with_peer
from peers.event_forge import now


async def run(house: ServerWithPeer, words: str, **arguments: Any) -> Any:
    return await house.matrix.network.admin_commands()[words](arguments)


async def ask(house: ServerWithPeer, target: str, body: Any = None) -> Any:
    status, answer = await house.ask("POST" if body is not None else "GET", f"{V1}/{target}", body)
    assert status == 200, answer
    return answer


# Checking.


async def test_a_whole_room_is_found_whole_and_what_is_missing_is_named(tmp_path):
    async with server_with_peer(tmp_path) as house:
        raw = house.forger.message(house.room, "x")
        assert await house.fate(raw) == "accepted"
        house.room.keep(pdu_from_raw(raw, house.room.version))
        content = {"users": {}}
        bad = house.forger.finish(
            house.room, house.forger.draft(house.room, "m.room.power_levels", content, "")
        )
        assert await house.fate(bad) == "rejected"
        room = house.room.room_id
        async with asyncio.timeout(5):
            while "rejected" not in (found := await run(house, "rooms check", room=room))["statuses"]:
                await asyncio.sleep(0)
        assert found["statuses"]["rejected"] == 1 and found["statuses"]["accepted"] == found["events"] - 1
        assert [found[k] for k in ("missing_prev", "missing_auth", "missing_state")] == [[], [], []]
        ((rejected, why),) = found["rejected"].items()
        assert rejected == event_id(bad, house.room.version) and why.startswith("8.level: ")
        matrix = house.matrix
        rules = house.room.state["m.room.join_rules", ""]
        await matrix.store.commit([Delete("pdu", (rules,))])
        matrix.event_cache.pop(rules)
        found = await run(house, "rooms check", room=room)
        assert found["missing_auth"] == [rules] and found["missing_state"] == [rules]
        assert found["missing_prev"] == [rules]


async def test_more_events_of_one_depth_than_are_read_at_once_are_all_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(care, "_PAGE_SIZE", 5)
    async with server_with_peer(tmp_path) as house:
        house.matrix.keep_forward_extremities()
        before = (await run(house, "rooms check", room=house.room.room_id))["events"]
        forks = [house.forger.message(house.room, f"m{number}") for number in range(12)]
        for raw in forks:
            assert await house.fate(raw) == "accepted"
        last = house.forger.message(
            house.room, "after", prev_events=[event_id(raw, house.room.version) for raw in forks], depth=99
        )
        assert await house.fate(last) == "accepted"
        found = await run(house, "rooms check", room=house.room.room_id)
        assert found["events"] == before + 13
        assert found["missing_prev"] == []


async def test_what_is_missing_is_asked_for_and_kept(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix, room = house.matrix, house.room.room_id
        rules = house.room.state["m.room.join_rules", ""]
        stored = (await matrix.event_store.load([rules], house.room.version))[rules]
        await matrix.store.commit([Delete("pdu", (rules,))])
        matrix.event_cache.pop(rules)
        house.peer.answer = lambda r: (
            (200, {"auth_chain": [stored.pdu.raw]}) if "/event_auth/" in r.target else None
        )
        found = await run(house, "rooms check", room=room, repair=True)
        assert found["repaired"] == 1 and found["missing_auth"] == []


# Blocking, leaving, purging.


async def test_a_blocked_room_is_none_of_our_business(tmp_path):
    async with server_with_peer(tmp_path) as house:
        room = house.room.room_id
        await run(house, "rooms block", room=room)
        status, answer = await house.ask("GET", f"{V1}/state_ids/{quote(room, safe='')}?event_id=x")
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        assert await house.fate(house.forger.message(house.room, "x")) == "blocked"
        invite = house.forger.finish(
            house.room,
            house.forger.draft(house.room, "m.room.member", {"membership": "invite"}, f"@x:{OURS}"),
        )
        where = f"{quote(room, safe='')}/{quote(event_id(invite, house.room.version), safe='')}"
        create = house.forger.created[room]
        body = {"room_version": "12", "event": invite, "invite_room_state": [create]}
        assert (await house.ask("PUT", f"{V2}/invite/{where}", body))[0] == 403
        with pytest.raises(CannotOpenRoom, match="is blocked"):
            await house.matrix.network.open_room(f"{room}?via={THEIRS}", create=False)
        matrix = house.matrix
        matrix.rooms._blocked.clear()
        await matrix.rooms.load_blocked()  # as after a restart
        assert matrix.rooms.is_blocked(room)
        await run(house, "rooms unblock", room=room)
        assert await house.fate(house.forger.message(house.room, "y")) == "accepted"


async def test_a_room_is_left_and_then_purged_to_the_last_row(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix, room = house.matrix, house.room.room_id
        with pytest.raises(LocalProtocolError, match="still has local members"):
            await run(house, "rooms purge", room=room)
        assert (await run(house, "rooms leave", room=room))["left"] == 1
        assert not matrix.get_room(room).resident
        found = await run(house, "rooms purge", room=room)
        assert found["removed"] > 5 and matrix.get_room(room) is None
        store = matrix.store
        for collection in ("pdu", "state_group", "staged", "room"):
            index = ("room_id", "depth") if collection == "pdu" else ()
            assert await store.scan(collection, index=index, equal=(room,), limit=5) == [], collection
        assert house.app.contexts["matrix"].get_link(room) is None
        assert [await matrix.network.room_at(f"#{name}:{OURS}") for name in ("one", "two")] == [
            None,
            house.other.room_id,
        ]
        await house.app.link_room(["matrix:#one"], create=True)  # its name is free again
        assert await matrix.network.room_at(f"#one:{OURS}") not in {None, room}
        other = house.other.room_id
        assert (await run(house, "rooms check", room=other))["events"] > 5
        with pytest.raises(LocalProtocolError, match="there is no room"):
            await run(house, "rooms purge", room=room)


# The directory.


async def test_published_rooms_are_listed_paged_and_filtered(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        assert (await ask(house, "publicRooms"))["chunk"] == []
        for room, name in ((house.room, "Verona"), (house.other, "Mantua")):
            await matrix.local_events.send_state(room.room_id, "m.room.name", "", {"name": name})
            await run(house, "rooms publish", room=room.room_id)
        both = await ask(house, "publicRooms")
        assert {r["name"] for r in both["chunk"]} == {"Verona", "Mantua"}
        assert both["total_room_count_estimate"] == 2 and "next_batch" not in both
        (verona,) = (r for r in both["chunk"] if r["name"] == "Verona")
        assert verona["num_joined_members"] == 2 and verona["join_rule"] == "public"
        assert verona["canonical_alias"] == f"#one:{OURS}" and verona["world_readable"] is False
        first = await ask(house, "publicRooms?limit=1")
        second = await ask(house, f"publicRooms?limit=1&since={first['next_batch']}")
        assert [r["room_id"] for r in first["chunk"] + second["chunk"]] == [
            r["room_id"] for r in both["chunk"]
        ]
        assert second["prev_batch"] == "0" and "next_batch" not in second
        for wanted, names in (
            ({"generic_search_term": "veRO"}, ["Verona"]),
            ({"generic_search_term": "#TWO"}, ["Mantua"]),
            ({"room_types": ["m.space"]}, []),
            ({"room_types": [None], "generic_search_term": 7}, ["Verona", "Mantua"]),
        ):
            found = await ask(house, "publicRooms", {"filter": wanted})
            assert sorted(r["name"] for r in found["chunk"]) == sorted(names), wanted
        for odd in ({"limit": "x", "since": 7, "filter": []}, {"limit": -1}, {"since": "x"}):
            assert len((await ask(house, "publicRooms", odd))["chunk"]) == 2
        await run(house, "rooms unpublish", room=house.room.room_id)
        assert len((await ask(house, "publicRooms"))["chunk"]) == 1


# Spaces.


async def child(house: ServerWithPeer, space: str, room_id: str, **content: Any) -> None:
    say = house.matrix.local_events.send_state
    await say(space, "m.space.child", room_id, content)


async def test_a_space_shows_what_the_server_that_asks_may_know(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        say = matrix.local_events.send_state
        founding = RoomTemplate(create={"type": "m.space"})
        alias = f"#space:{OURS}"
        made = await matrix.room_creator.create(matrix.bridge_user, "12", alias, founding)
        await house.app.link_room(["matrix:#space"], create=False)
        space, rooms = made.room_id, {}
        for name, rule in (("open", "public"), ("closed", "invite"), ("kin", "restricted")):
            await house.app.link_room([f"matrix:#{name}"], create=True)
            rooms[name] = await matrix.network.room_at(f"#{name}:{OURS}")
            content: dict[str, Any] = {"join_rule": rule}
            if rule == "restricted":
                content["allow"] = [{"type": "m.room_membership", "room_id": house.other.room_id}]
            await say(rooms[name], "m.room.join_rules", "", content)
            await child(house, space, rooms[name], via=[OURS], suggested=name == "kin")
        await child(house, space, "!elsewhere:x", via=["x"])
        await child(house, space, "!novia:x", via=[])
        where = f"hierarchy/{quote(space, safe='')}"
        found = await ask(house, where)
        assert {c["room_id"] for c in found["children"]} == {rooms["open"], rooms["kin"]}
        assert found["inaccessible_children"] == [rooms["closed"]]
        listed = {c["state_key"] for c in found["room"]["children_state"]}
        assert listed == {*rooms.values(), "!elsewhere:x"}
        (kin,) = (c for c in found["children"] if c["room_id"] == rooms["kin"])
        assert kin["allowed_room_ids"] == [house.other.room_id]
        suggested = await ask(house, f"{where}?suggested_only=true")
        assert [c["room_id"] for c in suggested["children"]] == [rooms["kin"]]
        for hidden in (rooms["closed"], "!nothing"):
            status, answer = await house.ask("GET", f"{V1}/hierarchy/{quote(hidden, safe='')}")
            assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


# Times.


async def test_the_event_nearest_to_a_time(tmp_path):
    async with server_with_peer(tmp_path) as house:
        base, named = now() + 60_000, []
        for number in range(60):
            raw = house.forger.message(house.room, f"m{number}", origin_server_ts=base + number * 1000)
            assert await house.fate(raw) == "accepted"
            house.room.keep(pdu_from_raw(raw, house.room.version))
            named.append(event_id(raw, house.room.version))
        where = f"timestamp_to_event/{quote(house.room.room_id, safe='')}"
        for ts, direction, number in (
            (base + 30_000, "f", 30), (base + 30_001, "f", 31), (base + 30_999, "b", 30),
            (base + 30_000, "b", 30), (base + 99_000, "b", 59), (base, "f", 0),
        ):  # fmt: skip
            found = await ask(house, f"{where}?ts={ts}&dir={direction}")
            assert found == {"event_id": named[number], "origin_server_ts": base + number * 1000}, (
                ts,
                direction,
            )
        status, _ = await house.ask("GET", f"{V1}/{where}?ts={base + 60_000}&dir=f")
        assert status == 404
        for query in ("", "?ts=x&dir=f", "?ts=5", "?ts=5&dir=x", "?ts=-5&dir=f"):
            status, answer = await house.ask("GET", f"{V1}/{where}{query}")
            assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM"), query


async def test_every_blocked_room_is_known_after_a_restart(tmp_path):
    async with server_with_peer(tmp_path) as house:
        store, rooms = house.app.contexts["matrix"].store, house.matrix.rooms
        for piece in pieces([Put("blocked", (f"!{n}:x",)) for n in range(10_050)]):
            await store.commit(piece)
        await rooms.load_blocked()
        assert len(rooms._blocked) == 10_050


# A room that fails to be linked.


async def test_a_room_that_was_made_for_a_link_that_fails_is_removed_with_its_alias(tmp_path):
    async with server_with_peer(tmp_path) as house:
        before = {room.id for room in house.app.rooms}
        with pytest.raises(CannotOpenRoom):
            await house.app.link_room(["matrix:#fresh", "matrix:#nowhere:nowhere.example"], create=True)
        assert await house.matrix.network.room_at(f"#fresh:{OURS}") is None
        assert {room.id for room in house.app.rooms} == before
        await house.app.link_room(["matrix:#fresh"], create=True)
        assert await house.matrix.network.room_at(f"#fresh:{OURS}") is not None
