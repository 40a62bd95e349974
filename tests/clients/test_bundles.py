"""Bundled data of an event is filtered for its reader as the event is: readers by endpoint."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part

SECRET = "sealed with wax"
LEFT_TOO = '{"room":{"include_leave":true,"timeline":{"limit":100}}}'


@dataclass
class Scene:
    """``early`` are events that the reader may read, ``late`` those that they may not, which relate to them."""

    alice: LocalUser
    reader: LocalUser
    room: str
    early: dict[str, str]
    late: dict[str, str]


def related(kind: str, event: str, text: str) -> dict:
    content = {"msgtype": "m.text", "body": text, "m.relates_to": {"rel_type": kind, "event_id": event}}
    if kind == "m.replace":
        content["m.new_content"] = {"msgtype": "m.text", "body": text}
    return content


async def added(alice: LocalUser, room: str, early: dict[str, str]) -> dict[str, str]:
    """Edits, answers in threads and the like, of events of before."""
    late = {
        "edit": await alice.say(room, **related("m.replace", early["said"], SECRET)),
        "answer": await alice.say(room, **related("m.thread", early["root"], SECRET)),
        "first answer": await alice.say(room, **related("m.thread", early["said"], SECRET)),
        "reference": await alice.say(room, **related("m.reference", early["said"], SECRET)),
        "annotation": await alice.say(room, type_="m.reaction", **{"m.relates_to": {"rel_type": "m.annotation", "event_id": early["said"], "key": SECRET}}),
    }  # fmt: skip
    await alice.call("PUT", f"/rooms/{part(room)}/redact/{part(early['gone'])}/r1", {"reason": SECRET})
    return late


async def scene(home: MatrixServer, who: str) -> Scene:
    alice, reader = await home.person("alice"), await home.person("reader")
    voice = "joined" if who == "later" else "shared"
    history = {"type": "m.room.history_visibility", "content": {"history_visibility": voice}}
    room = await alice.create(preset="public_chat", initial_state=[history])
    if who == "looker":  # may read what was said while every user could
        await alice.state(room, "m.room.history_visibility", {"history_visibility": "world_readable"})
    else:
        await reader.join(room)
    early = {name: await alice.say(room, name) for name in ("said", "root", "gone")}
    mine = await alice.say(room, **related("m.thread", early["root"], "in time"))
    early["in time"] = mine
    if who == "left":
        await reader.room(room, "leave")
    elif who in {"kicked", "banned"}:
        await alice.room(room, {"kicked": "kick", "banned": "ban"}[who], {"user_id": reader.user})
    elif who == "looker":
        await alice.state(room, "m.room.history_visibility", {"history_visibility": "joined"})
    elif who == "later":  # was away while it was said
        await reader.room(room, "leave")
    late = await added(alice, room, early)
    if who == "later":
        await reader.join(room)
    elif who == "ignoring":
        path = f"/user/{part(reader.user)}/account_data/m.ignored_user_list"
        await reader.call("PUT", path, {"ignored_users": {alice.user: {}}})
    return Scene(alice, reader, room, early, late)


def endpoints(scene: Scene) -> list[str]:
    room = f"/rooms/{part(scene.room)}"
    found = [
        f"{room}/messages?dir=b&limit=100", f"{room}/messages?dir=f&limit=100", f"{room}/initialSync?limit=100",
        f"/_matrix/client/v1{room}/threads", f"/_matrix/client/v1{room}/threads?include=participated",
        "/sync?full_state=true&filter=" + part(LEFT_TOO),
    ]  # fmt: skip
    for event in scene.early.values():
        found += [f"{room}/event/{part(event)}", f"{room}/context/{part(event)}?limit=100"]
        relations = f"/_matrix/client/v1{room}/relations/{part(event)}"
        found += [
            relations,
            f"{relations}/m.thread",
            f"{relations}/m.replace",
            f"{relations}/m.replace/m.room.message",
        ]
        found += [
            f"{relations}?dir=f&limit=1",
            f"{relations}/m.annotation/m.reaction",
            f"{relations}/m.reference",
        ]
    return found


@pytest.mark.parametrize("who", ["left", "kicked", "banned", "looker", "later", "ignoring"])
async def test_nothing_that_came_later_is_bundled_for_who_may_not_read_it(tmp_path, who):
    async with matrix_server(tmp_path) as home:
        at = await scene(home, who)
        read = 0
        for target in endpoints(at):
            answer = await at.reader.whole("GET", target)
            read += answer.status == 200
            assert SECRET.encode() not in answer.body, target
            for name, event in at.late.items():
                assert event.encode() not in answer.body, f"{name} at {target}"
        assert read > 15
        event = f"/rooms/{part(at.room)}/event/"
        if who == "ignoring":
            answers = [
                await at.reader.ask("GET", event + part(at.early[n])) for n in ("root", "said", "gone")
            ]
            assert [status for status, _ in answers] == [404] * 3
            return
        shown = await at.reader.get(event + part(at.early["root"]))
        thread = shown["unsigned"].get("m.relations", {}).get("m.thread")
        assert (thread["count"], thread["current_user_participated"]) == (1, False)
        assert thread["latest_event"]["event_id"] == at.early["in time"]
        assert "m.relations" not in (await at.reader.get(event + part(at.early["said"])))["unsigned"]
        gone = await at.reader.get(event + part(at.early["gone"]))
        assert gone["content"] == {}
        assert gone["unsigned"]["redacted_because"]["content"].get("reason") is None


async def test_whoever_may_read_it_has_it_bundled(tmp_path):
    """So the test above can fail."""
    async with matrix_server(tmp_path) as home:
        at = await scene(home, "here")
        for person in (at.reader, at.alice):
            bodies = {target: (await person.whole("GET", target)).body for target in endpoints(at)}
            for name, event in at.late.items():
                assert any(event.encode() in body for body in bodies.values()), name
            event = f"/rooms/{part(at.room)}/event/"
            said = (await person.get(event + part(at.early["said"])))["unsigned"]["m.relations"]
            assert said["m.replace"]["event_id"] == at.late["edit"]
            assert said["m.reference"]["chunk"] == [{"event_id": at.late["reference"]}]
            thread = (await person.get(event + part(at.early["root"])))["unsigned"]["m.relations"]["m.thread"]
            assert (thread["count"], thread["current_user_participated"]) == (2, person is at.alice)
            gone = (await person.get(event + part(at.early["gone"])))["unsigned"]["redacted_because"]
            assert gone["content"]["reason"] == SECRET


async def test_an_edit_by_who_erased_themselves_is_bundled_as_a_redaction_leaves_it(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, eve = await home.person("alice"), await home.person("bob"), await home.person("eve")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        said = await bob.say(room, "one")
        await bob.say(room, **related("m.replace", said, SECRET))
        who = {"type": "m.id.user", "user": "bob"}
        proof = {"type": "m.login.password", "identifier": who, "password": "of bob"}
        await bob.call("POST", "/account/deactivate", {"auth": proof, "erase": True})
        await eve.join(room)
        target = f"/rooms/{part(room)}/event/{part(said)}"
        assert SECRET in orjson.dumps(await alice.get(target)).decode()
        assert SECRET not in orjson.dumps(await eve.get(target)).decode()
