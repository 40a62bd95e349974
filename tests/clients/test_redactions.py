"""Redactions as clients see them: shown where they apply, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from clients.matrix_server import LocalUser, MatrixServer, Refused, matrix_server, part
from hansa.testing import until
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from matrix.server_with_peer import OURS, V1

PLACES = ("messages?dir=b&limit=50", "context/{near}?limit=50", "relations/{target}", "initialSync")


def redaction(home: MatrixServer, target: str, **over: Any) -> dict[str, Any]:
    room = home.wire.room
    within = room.version.redacts_in_content
    content = {"redacts": target, "m.relates_to": {"rel_type": "x.y", "event_id": target}}
    draft = home.wire.forger.draft(
        room, "m.room.redaction", content, **({} if within else {"redacts": target}), **over
    )
    return home.wire.forger.finish(room, draft)


async def given(home: MatrixServer, raw: dict[str, Any]) -> str:
    """An event of the other server, which stands in the room's history afterwards."""
    assert await home.wire.fate(raw) == "accepted"
    home.wire.room.keep(pdu_from_raw(raw, home.wire.room.version))
    return event_id(raw, home.wire.room.version)


async def everywhere(home: MatrixServer, person: LocalUser, room: str, near: str, target: str) -> str:
    """Returns everything that one user reads of a room, by every endpoint that reads."""
    found = [await person.sync()]
    root = f"/_matrix/client/v1/rooms/{part(room)}"
    for place in PLACES:
        path = place.format(near=part(near), target=part(target))
        base = root if place.startswith("relations") else f"/rooms/{part(room)}"
        found.append((await person.ask("GET", f"{base}/{path}"))[1])
    return str(found)


@pytest.mark.parametrize("version", ["10", "12"])
async def test_a_redaction_that_does_not_apply_is_shown_nowhere_and_served_to_servers(tmp_path, version):
    async with matrix_server(tmp_path, version) as home:
        alice = await home.person("alice")
        room = await alice.join(f"#one:{OURS}")
        said = await alice.say(room, "fair")
        home.wire.room.tips = {said: 50}
        name = await given(home, redaction(home, said))
        assert name not in await everywhere(home, alice, room, said, said)
        assert (await alice.ask("GET", f"/rooms/{part(room)}/event/{part(name)}"))[0] == 404
        assert await alice.texts(room) == ["fair"]
        _, answer = await home.wire.ask("GET", f"{V1}/event/{part(name)}")
        assert answer["pdus"][0]["content"]["m.relates_to"]["event_id"] == said
        stored = (await home.matrix.event_store.load([name], home.wire.room.version))[name]
        assert stored.reason.startswith("redaction: @m:")


async def test_a_redaction_of_another_rooms_event_is_shown_nowhere(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.join(f"#one:{OURS}")
        said = home.wire.forger.message(home.wire.other, "theirs, elsewhere")
        assert await home.wire.fate(said) == "accepted"
        near = await alice.say(room, "here")
        target = event_id(said, home.wire.other.version)
        name = await given(home, redaction(home, target))
        assert name not in await everywhere(home, alice, room, near, target)


@pytest.mark.parametrize("version", ["10", "12"])
async def test_a_redaction_that_waits_is_shown_once_it_applies(tmp_path, version):
    async with matrix_server(tmp_path, version) as home:
        alice = await home.person("alice")
        room = await alice.join(f"#one:{OURS}")
        near = await alice.say(room, "near")
        late = home.wire.forger.message(home.wire.room, "secret")
        target = event_id(late, home.wire.room.version)
        name = await given(home, redaction(home, target))
        assert name not in await everywhere(home, alice, room, near, target)
        assert await home.wire.fate(late) == "accepted"
        shown: list[Any] = []

        async def told() -> bool:
            page = (await alice.sync())["rooms"].get("join", {}).get(room)
            shown.extend(page["timeline"]["events"] if page else ())
            return name in [e["event_id"] for e in shown]

        assert await until(told)
        (blank,) = [e for e in shown if e["event_id"] == target]
        assert blank["content"] == {}
        assert blank["unsigned"]["redacted_because"]["event_id"] == name
        assert "secret" not in await everywhere(home, alice, room, near, target)


async def test_a_redaction_that_waited_in_vain_stays_withheld(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.join(f"#one:{OURS}")
        near = await alice.say(room, "near")
        # The event that it names turns out to be of another room.
        elsewhere = home.wire.forger.message(home.wire.other, "elsewhere")
        other = event_id(elsewhere, home.wire.other.version)
        second = await given(home, redaction(home, other))
        awaited = home.matrix.get_room(room).awaited.by_target
        assert [(one.event_id, one.live) for one in awaited[other]] == [(second, True)]
        assert await home.wire.fate(elsewhere) == "accepted"
        assert second not in await everywhere(home, alice, room, near, other)


async def test_nobody_here_sends_a_redaction_that_does_not_apply(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        said, own = await alice.say(room, "hers"), await bob.say(room, "his")
        other = await alice.create()
        elsewhere = await alice.say(other, "elsewhere")
        for who, target, status in ((bob, said, 403), (alice, elsewhere, 404), (alice, "$none", 404)):
            path = f"/rooms/{part(room)}/redact/{part(target)}/1"
            assert (await who.ask("PUT", path, {}))[0] == status
            with pytest.raises(Refused) as refused:
                await who.say(room, type_="m.room.redaction", redacts=target)
            assert refused.value.status == status
        found = await bob.call("PUT", f"/rooms/{part(room)}/redact/{part(own)}/2", {})
        seen = await alice.get(f"/rooms/{part(room)}/messages?dir=b&limit=3")
        assert found["event_id"] in [e["event_id"] for e in seen["chunk"]]


async def test_nobody_takes_back_what_a_room_stands_on(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(preset="public_chat")
        acl = await alice.state(room, "m.room.server_acl", {"allow": ["*"], "deny": ["evil.example"]})
        events = await alice.get(f"/rooms/{part(room)}/state")
        create = next(e["event_id"] for e in events if e["type"] == "m.room.create")
        for target in (acl, create):
            path = f"/rooms/{part(room)}/redact/{part(target)}/1"
            assert (await alice.ask("PUT", path, {}))[1]["errcode"] == "M_FORBIDDEN"


@pytest.mark.parametrize("version", ["10", "12"])
async def test_a_redaction_names_no_other_event_in_the_place_that_its_version_does_not_read(
    tmp_path, version
):
    async with matrix_server(tmp_path, version) as home:
        alice = await home.person("alice")
        room = await alice.join(f"#one:{OURS}")
        said = await alice.say(room, "fair")
        home.wire.room.tips = {said: 50}
        own = await given(home, home.wire.forger.message(home.wire.room, "theirs"))
        draft = home.wire.forger.draft(home.wire.room, "m.room.redaction", {"redacts": said})
        draft["redacts"] = own
        if home.wire.room.version.redacts_in_content:
            draft["content"], draft["redacts"] = {"redacts": own}, said
        name = await given(home, home.wire.forger.finish(home.wire.room, draft))
        page = await alice.get(f"/rooms/{part(room)}/messages?dir=b&limit=10")
        (redaction_,) = [e for e in page["chunk"] if e["event_id"] == name]
        assert redaction_["redacts"] == redaction_["content"]["redacts"] == own
        (target,) = [e for e in page["chunk"] if e["event_id"] == own]
        assert target["unsigned"]["redacted_because"]["redacts"] == own
        assert await alice.texts(room) == ["fair", None]
