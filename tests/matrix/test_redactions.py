"""Redactions: what was said is stored, served and shown no more, in whichever order the two events come."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hansa import LocalProtocolError
from hansa.model.content import REDACTED, Custom
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from hansa_matrix.proto.redact import redact_event
from hansa_matrix.retention import purge_expired
from hansa_matrix.rooms.event_store import Status, StoredEvent, is_live
from hansa_matrix.rooms.redactions import PendingRedaction, PendingRedactions
from matrix.server_with_peer import OURS, THEIRS, V1, ServerWithPeer, server_with_peer

each_version = pytest.mark.parametrize("version", ["1", "9", "10", "11", "12"])


def redaction(house: ServerWithPeer, target: str, **over: Any) -> dict[str, Any]:
    content = {"redacts": target} if house.room.version.redacts_in_content else {}
    top = {} if house.room.version.redacts_in_content else {"redacts": target}
    draft = house.forger.draft(house.room, "m.room.redaction", content, **top, **over)
    return house.forger.finish(house.room, draft)


async def accepted(house: ServerWithPeer, raw: dict[str, Any]) -> str:
    assert await house.fate(raw) == "accepted"
    house.room.keep(pdu_from_raw(raw, house.room.version))
    return event_id(raw, house.room.version)


async def served(house: ServerWithPeer, name: str) -> Any:
    status, answer = await house.ask("GET", f"{V1}/event/{quote(name, safe='')}")
    assert status == 200, answer
    return answer["pdus"][0]


async def logged(house: ServerWithPeer, native: str) -> Any:
    """Returns the content of an event in the log."""
    event = await house.app.contexts["matrix"].event_by(native)
    return event.content if event else None


async def originals(house: ServerWithPeer) -> dict[str, Any]:
    rows = await house.matrix.store.scan("original", limit=100)
    return {str(r.key[0]): orjson.loads(r.body) for r in rows}


@each_version
async def test_what_was_said_is_served_and_logged_no_more_and_kept_for_a_while(tmp_path, version):
    async with server_with_peer(tmp_path, version, redacted_event_ttl=100) as house:
        said = house.forger.message(house.room, "secret")
        name = await accepted(house, said)
        assert (await logged(house, name)).text == "secret"
        await accepted(house, redaction(house, name))
        assert await served(house, name) == redact_event(said, house.room.version)
        assert await logged(house, name) == Custom(type=REDACTED)
        assert list(await originals(house)) == [name]
        assert (await originals(house))[name]["content"]["body"] == "secret"
        context = house.matrix.ctx
        await purge_expired(context)
        assert list(await originals(house)) == [name]
        later = context.clock.now() + 101_000
        context.clock = type("Later", (), {"now": lambda _: later})()
        await purge_expired(context)
        assert await originals(house) == {}


async def test_nothing_is_kept_where_nothing_may_be(tmp_path):
    async with server_with_peer(tmp_path, redacted_event_ttl=0) as house:
        name = await accepted(house, house.forger.message(house.room, "secret"))
        await accepted(house, redaction(house, name))
        assert await originals(house) == {}
        assert (await served(house, name))["content"] == {}


@each_version
async def test_a_redaction_that_comes_first_waits_for_its_target(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        said = house.forger.message(house.room, "secret")
        name = event_id(said, house.room.version)
        await accepted(house, redaction(house, name))
        room = house.matrix.get_room(house.room.room_id)
        assert list(room.awaited.by_target) == [name]
        await room.awaited.load(house.matrix.store)  # as after a restart
        assert list(room.awaited.by_target) == [name]
        assert await house.fate(said) == "accepted"
        assert await served(house, name) == redact_event(said, house.room.version)
        assert await logged(house, name) == Custom(type=REDACTED)
        assert room.awaited.by_target == {}
        assert await house.matrix.store.scan("redaction", limit=5) == []


async def test_who_may_not_redacts_nothing(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        administration = matrix.local_events
        ours = await administration.send_state(house.room.room_id, "m.room.message", None, {"body": "ours"})
        house.room.tips = {ours: 50}
        await accepted(house, redaction(house, ours))  # it is an event, and has no effect
        assert (await served(house, ours))["content"] == {"body": "ours"}
        other = await accepted(house, house.forger.message(house.room, "theirs"))
        there = house.other
        raw = house.forger.finish(
            there, house.forger.draft(there, "m.room.redaction", {"redacts": other})
        )  # of another room
        assert await house.fate(raw) == "accepted"
        assert (await served(house, other))["content"]["body"] == "theirs"


async def test_a_redacted_state_event_keeps_its_place_and_loses_its_words(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        await matrix.network.admin_commands()["rooms level"](
            {"room": house.room.room_id, "user": f"@m:{THEIRS}", "level": 100}
        )
        topic = await matrix.local_events.send_state(
            house.room.room_id, "m.room.topic", "", {"topic": "secret"}
        )
        view = house.app.contexts["matrix"].get_view(house.room.room_id)
        assert view.facts.topic == "secret"
        await matrix.network.admin_commands()["rooms redact"]({"room": house.room.room_id, "event": topic})
        room = matrix.get_room(house.room.room_id)
        assert (await room.state())["m.room.topic", ""] == topic
        assert view.facts.topic == ""


async def test_ours_are_redacted_by_command(tmp_path):
    async with server_with_peer(tmp_path) as house:
        name = await accepted(house, house.forger.message(house.room, "secret"))
        redact_one = house.matrix.network.admin_commands()["rooms redact"]
        await redact_one({"room": house.room.room_id, "event": name, "reason": "rude"})
        assert (await served(house, name))["content"] == {}
        assert await logged(house, name) == Custom(type=REDACTED)


async def visible(house: ServerWithPeer, setting: str, room_of: Any) -> None:
    content = orjson.dumps({"history_visibility": setting}).decode()
    named = {"room": room_of.room_id, "type": "m.room.history_visibility", "content": content}
    await house.matrix.network.admin_commands()["rooms set"](named)


@pytest.mark.parametrize(
    ("setting", "whole"), [("shared", True), ("world_readable", True), ("invited", False), ("joined", False)]
)
async def test_a_server_gets_what_its_people_could_read_and_the_bones_of_the_rest(tmp_path, setting, whole):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        await house.app.link_room(["matrix:#three"], create=True)
        room_id = await matrix.network.room_at(f"#three:{OURS}")
        room = matrix.get_room(room_id)
        await visible(house, setting, room)
        said = await matrix.local_events.send_state(room_id, "m.room.message", None, {"body": "before"})
        joined = await house.join("three")
        after = await matrix.local_events.send_state(room_id, "m.room.message", None, {"body": "after"})
        assert (await served(house, said))["content"] == ({"body": "before"} if whole else {})
        assert (await served(house, after))["content"] == {"body": "after"}
        where = quote(room_id, safe="")
        _, page = await house.ask("GET", f"{V1}/backfill/{where}?v={quote(after, safe='')}&limit=10")
        bodies = [p["content"].get("body") for p in page["pdus"] if p["type"] == "m.room.message"]
        assert bodies == ["after", "before" if whole else None]
        body = {"latest_events": [after], "earliest_events": [], "limit": 20}
        _, page = await house.ask("POST", f"{V1}/get_missing_events/{where}", body)
        bodies = [p["content"].get("body") for p in page["events"] if p["type"] == "m.room.message"]
        assert bodies == ["before" if whole else None]
        assert event_id((await served(house, said)), joined.version) == said


async def test_a_command_redacts_nothing_that_it_may_not(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        other = house.forger.message(house.other, "of another room")
        assert await house.fate(other) == "accepted"
        target = event_id(other, house.other.version)
        for one, why in ((target, "another room"), ("$none", "not here")):
            with pytest.raises(LocalProtocolError, match=why):
                await matrix.network.admin_commands()["rooms redact"](
                    {"room": house.room.room_id, "event": one}
                )
        assert (await served(house, target))["content"]["body"] == "of another room"


def test_what_waits_is_bounded_for_each_server():
    awaited = PendingRedactions("!r")
    for number in range(300):
        awaited.wait(f"$t{number}", PendingRedaction(f"$r{number}", "loud"))
    assert len(awaited.by_target) == 200
    assert awaited.wait("$t", PendingRedaction("$r", "loud")) == []
    assert awaited.wait("$t", PendingRedaction("$r", "quiet"))
    for number in range(2000):
        awaited.wait("$t", PendingRedaction(f"$q{number}", f"server{number}"))
    assert sum(map(len, awaited.by_target.values())) == 1000


async def test_a_redacted_event_keeps_its_place_in_the_timeline_if_the_redaction_came_first(tmp_path):
    async with server_with_peer(tmp_path) as house:
        room = house.matrix.get_room(house.room.room_id)
        room.attended = True
        said = house.forger.message(house.room, "secret")
        name = event_id(said, house.room.version)
        await accepted(house, redaction(house, name))
        assert await house.fate(said) == "accepted"
        row = await house.matrix.store.get("pdu", (name,))
        assert is_live(row)


async def test_what_was_taken_back_before_it_had_a_place_says_nothing_once_it_has_one(tmp_path):
    """It is stored as what others stand on; then it is redacted; then it comes as it was."""
    async with server_with_peer(tmp_path) as house:
        room = house.matrix.get_room(house.room.room_id)
        said = house.forger.message(house.room, "secret")
        pdu = pdu_from_raw(said, house.room.version)
        await room.events._all._store.commit([StoredEvent(pdu, Status.OUTLIER).put()])
        await accepted(house, redaction(house, pdu.event_id))
        assert room.awaited.by_target == {}
        assert (await house.send(said))[0] == 200
        async with asyncio.timeout(5):
            while not (await room.events.load([pdu.event_id], room.version))[pdu.event_id].after:
                await asyncio.sleep(0)
        found = (await room.events.load([pdu.event_id], room.version))[pdu.event_id]
        assert (found.status, found.redacted, found.pdu.content) == (Status.ACCEPTED, True, {})
        assert await logged(house, pdu.event_id) == Custom(type=REDACTED)
