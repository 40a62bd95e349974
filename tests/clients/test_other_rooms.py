"""An event of one room never shows in another room that it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from hansa import Put
from hansa_matrix.rooms.relations import Relations

SECRET, FOREIGN = "sealed with wax", "from outside"
KINDS = ("m.thread", "m.replace", "m.reference", "m.annotation")


def relating(kind: str, event: str, text: str) -> dict:
    content = {
        "msgtype": "m.text",
        "body": text,
        "m.relates_to": {"rel_type": kind, "event_id": event, "key": text},
    }
    return content | ({"m.new_content": {"msgtype": "m.text", "body": text}} if kind == "m.replace" else {})


async def two_rooms(home: MatrixServer) -> tuple[LocalUser, LocalUser, str, str]:
    """Alice has a private room, and is with Eve in another that has more states."""
    alice, eve = await home.person("alice"), await home.person("eve")
    private = await alice.create(preset="private_chat")
    public = await eve.create(preset="public_chat")
    await alice.join(public)
    for number in range(30):
        await eve.state(public, "m.room.topic", {"topic": str(number)})
    return alice, eve, private, public


@pytest.mark.parametrize("kind", KINDS)
async def test_an_event_relates_to_nothing_of_another_room(tmp_path: Path, kind: str) -> None:
    async with matrix_server(tmp_path) as home:
        alice, eve, private, public = await two_rooms(home)
        root = await alice.say(private, SECRET)
        said = await eve.say(public, **relating(kind, root, FOREIGN))
        await alice.say(public, **relating(kind, root, FOREIGN))
        await alice.say(private, **relating(kind, said, "an answer"))
        for who, room, event, words in ((alice, private, root, FOREIGN), (eve, public, said, SECRET)):
            here = f"rooms/{part(room)}"
            shown = [
                await who.get(f"/{here}/messages?dir=b&limit=100"),
                await who.get(f"/{here}/event/{part(event)}"),
                await who.get(f"/_matrix/client/v1/{here}/relations/{part(event)}"),
                await who.get(f"/_matrix/client/v1/{here}/threads"),
                (await who.sync())["rooms"]["join"][room],
            ]
            assert words not in str(shown)
            assert "m.relations" not in str(shown)


async def test_relations_of_elsewhere_hide_none_of_the_room(tmp_path: Path) -> None:
    """They were looked at first, up to a thousand of them."""
    async with matrix_server(tmp_path) as home:
        alice, eve, private, public = await two_rooms(home)
        root = await alice.say(private, "root")
        for _ in range(1050):
            await eve.say(public, **relating("m.thread", root, FOREIGN))
        answer = await alice.say(private, **relating("m.thread", root, "answer"))
        thread = (await alice.get(f"/rooms/{part(private)}/event/{part(root)}"))["unsigned"]["m.relations"][
            "m.thread"
        ]
        assert (thread["count"], thread["latest_event"]["event_id"]) == (1, answer)
        found = await alice.get(f"/_matrix/client/v1/rooms/{part(private)}/relations/{part(root)}")
        assert [e["event_id"] for e in found["chunk"]] == [answer]
        assert "next_batch" not in found


async def test_every_answer_in_a_thread_is_found(tmp_path: Path) -> None:
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(preset="private_chat")
        root = await alice.say(room, "root")
        answers = [await alice.say(room, **relating("m.thread", root, str(n))) for n in range(1100)]
        thread = (await alice.get(f"/rooms/{part(room)}/event/{part(root)}"))["unsigned"]["m.relations"][
            "m.thread"
        ]
        assert (thread["count"], thread["latest_event"]["event_id"]) == (1100, answers[-1])
        found, token = list[str](), ""
        base = f"/_matrix/client/v1/rooms/{part(room)}/relations/{part(root)}/m.thread"
        while True:
            page = await alice.get(f"{base}?limit=100{token}")
            found += [e["event_id"] for e in page["chunk"]]
            if len(found) == 300:  # what comes meanwhile moves no page
                await alice.say(room, **relating("m.thread", root, "late"))
            if "next_batch" not in page:
                break
            token = "&from=" + part(page["next_batch"])
        assert found == answers[::-1]


async def test_the_newest_edit_is_found_among_reactions(tmp_path: Path) -> None:
    async with matrix_server(tmp_path) as home:
        alice, eve = await home.person("alice"), await home.person("eve")
        room = await alice.create(preset="public_chat")
        await eve.join(room)
        event = await alice.say(room, "first")
        for number in range(600):
            await eve.say(
                room,
                type_="m.reaction",
                **{"m.relates_to": {"rel_type": "m.annotation", "event_id": event, "key": str(number)}},
            )
            await eve.say(room, **relating("m.replace", event, FOREIGN))  # no edit: it is not hers
        edit = await alice.say(room, **relating("m.replace", event, "second"))
        shown = await alice.get(f"/rooms/{part(room)}/event/{part(event)}")
        assert shown["unsigned"]["m.relations"]["m.replace"]["event_id"] == edit


async def test_relations_that_were_kept_without_a_room_get_theirs(tmp_path: Path) -> None:
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(preset="private_chat")
        root = await alice.say(room, "root")
        answers = [await alice.say(room, **relating("m.thread", root, str(n))) for n in range(3)]
        store = home.app.contexts["matrix"].store
        rows = await store.scan("relation")
        await store.commit(
            [Put("relation", row.key, b"", {**row.fields, "room_id": None, "place": None}) for row in rows]
        )
        await store.commit(
            [Put("relation", (root, "$gone"), b"", {**rows[0].fields, "room_id": None, "place": None})]
        )
        await Relations(store).move()
        thread = (await alice.get(f"/rooms/{part(room)}/event/{part(root)}"))["unsigned"]["m.relations"][
            "m.thread"
        ]
        assert (thread["count"], thread["latest_event"]["event_id"]) == (3, answers[-1])
        assert len(await store.scan("relation")) == 3
