"""Relations and threads: pages that meet, from either end and from tokens of elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from clients.matrix_server import LocalUser, Refused, matrix_server, part
from hansa import Put
from hansa_matrix.rooms.relations import Relations

V1 = "/_matrix/client/v1"


def relates(kind: str, event: str, body: str = "x", **more: Any) -> dict[str, Any]:
    return {"msgtype": "m.text", "body": body, "m.relates_to": {"rel_type": kind, "event_id": event, **more}}


async def answers(person: LocalUser, room: str, root: str, count: int) -> list[str]:
    return [await person.say(room, **relates("m.thread", root, str(n))) for n in range(count)]


async def page(person: LocalUser, room: str, event: str, query: str = "", kind: str = "") -> Any:
    return await person.get(f"{V1}/rooms/{part(room)}/relations/{part(event)}{kind}?{query}")


def ids(answer: Any) -> list[str]:
    return [e["event_id"] for e in answer["chunk"]]


@asynccontextmanager
async def alone(folder: Path) -> AsyncIterator[tuple[LocalUser, str, str]]:
    async with matrix_server(folder) as home:
        alice = await home.person("alice")
        room = await alice.create(preset="public_chat")
        yield alice, room, await alice.say(room, "root")


@pytest.mark.parametrize("way", ["b", "f"])
@pytest.mark.parametrize("limit", [1, 3, 50])
async def test_pages_meet_in_either_direction(tmp_path, way, limit):
    async with alone(tmp_path) as (alice, room, root):
        said = await answers(alice, room, root, 10)
        found: list[str] = []
        token = ""
        while True:
            got = await page(alice, room, root, f"dir={way}&limit={limit}{token and f'&from={token}'}")
            found += ids(got)
            token = got.get("next_batch", "")
            if not token:
                break
        assert found == (said if way == "f" else said[::-1])


async def test_a_token_is_the_same_place_from_both_sides(tmp_path):
    async with alone(tmp_path) as (alice, room, root):
        said = await answers(alice, room, root, 8)
        first = await page(alice, room, root, "limit=3")
        assert "prev_batch" not in first
        assert ids(await page(alice, room, root, f"dir=f&from={first['next_batch']}")) == said[5:]
        second = await page(alice, room, root, f"limit=2&from={first['next_batch']}")
        assert ids(second) == [said[4], said[3]]
        assert ids(await page(alice, room, root, f"dir=f&from={second['prev_batch']}")) == said[5:]
        between = f"from={first['next_batch']}&to={second['next_batch']}"
        got = await page(alice, room, root, between)
        assert (ids(got), "next_batch" in got) == ([said[4], said[3]], False)
        back = f"dir=f&from={second['next_batch']}&to={first['next_batch']}"
        assert ids(await page(alice, room, root, back)) == [said[3], said[4]]
        nothing = f"from={second['next_batch']}&to={first['next_batch']}"
        assert ids(await page(alice, room, root, nothing)) == []


@pytest.mark.parametrize("kind", ["", "/m.thread", "/m.thread/m.room.message"])
async def test_tokens_of_a_sync_and_of_messages_mean_their_place_in_the_room(tmp_path, kind):
    async with alone(tmp_path) as (alice, room, root):
        first = await answers(alice, room, root, 4)
        sync = (await alice.sync())["next_batch"]
        second = await answers(alice, room, root, 3)
        start = (await alice.get(f"/rooms/{part(room)}/messages?dir=b&limit=1"))["end"]
        third = await answers(alice, room, root, 2)
        assert ids(await page(alice, room, root, f"from={sync}", kind)) == first[::-1]
        assert ids(await page(alice, room, root, f"to={sync}", kind)) == (second + third)[::-1]
        assert ids(await page(alice, room, root, f"dir=f&from={sync}", kind)) == second + third
        assert ids(await page(alice, room, root, f"dir=f&to={sync}", kind)) == first
        assert ids(await page(alice, room, root, f"from={start}&to={sync}", kind)) == second[1::-1]
        got = await page(alice, room, root, f"limit=3&from={sync}", kind)
        rest = await page(alice, room, root, f"limit=3&from={got['next_batch']}", kind)
        assert ids(got) + ids(rest) == first[::-1]


async def test_what_relates_to_relations(tmp_path):
    async with alone(tmp_path) as (alice, room, root):
        said = await answers(alice, room, root, 3)
        edit = await alice.say(room, **relates("m.replace", said[0]))
        liked = {"m.relates_to": {"rel_type": "m.annotation", "event_id": said[1], "key": "+1"}}
        like = await alice.say(room, type_="m.reaction", **liked)
        deep = [like]
        for _ in range(4):
            deep.append(await alice.say(room, **relates("m.reference", deep[-1])))
        got = await page(alice, room, root)
        assert (ids(got), "recursion_depth" in got) == (said[::-1], False)
        got = await page(alice, room, root, "recurse=true")
        assert ids(got) == [deep[2], deep[1], like, edit, *said[::-1]]
        assert got["recursion_depth"] == 3
        assert ids(await page(alice, room, root, "recurse=true&dir=f&limit=2")) == said[:2]
        assert ids(await page(alice, room, root, "recurse=true", "/m.annotation")) == [like]
        assert ids(await page(alice, room, root, "recurse=true", "/m.annotation/m.room.message")) == []
        found, token = [], ""
        while True:
            got = await page(alice, room, root, f"recurse=true&limit=2{token and f'&from={token}'}")
            found += ids(got)
            token = got.get("next_batch", "")
            if not token:
                break
        assert found == [deep[2], deep[1], like, edit, *said[::-1]]


async def test_one_person_gathers_what_relates_in_turn_once_at_a_time(tmp_path, monkeypatch):
    async with alone(tmp_path) as (alice, room, root):
        said = await answers(alice, room, root, 2)
        inner, under_way, most = Relations.targets, 0, 0

        async def counted(self, event_ids):
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            try:
                return await inner(self, event_ids)
            finally:
                under_way -= 1

        monkeypatch.setattr(Relations, "targets", counted)
        got = await asyncio.gather(*(page(alice, room, root, "recurse=true") for _ in range(5)))
        assert most == 1 and [ids(one) for one in got] == [said[::-1]] * 5


async def test_relations_that_go_round_in_a_circle_end(tmp_path):
    """Only who makes ids can say so: here the store does."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        root = await alice.say(room, "root")
        one = await alice.say(room, **relates("m.reference", root))
        two = await alice.say(room, **relates("m.reference", one))
        store = home.matrix.store
        (row,) = await store.scan("relation", equal=(one,), limit=2)
        await store.commit([Put("related", (two,)), Put("relation", (two, root), b"", dict(row.fields))])
        assert ids(await page(alice, room, root, "recurse=true")) == [two, one]


@pytest.mark.parametrize(
    "query", ["dir=x", "recurse=yes", "from=nonsense", "to=nonsense", "limit=x", "from=1_2_3"]
)
async def test_questions_that_are_none(tmp_path, query):
    async with alone(tmp_path) as (alice, room, root):
        with pytest.raises(Refused, match="M_INVALID_PARAM"):
            await page(alice, room, root, query)


async def threads(person: LocalUser, room: str, query: str = "") -> list[Any]:
    """All pages."""
    found: list[Any] = []
    token = ""
    while True:
        base = f"{V1}/rooms/{part(room)}/threads?x=1{query and f'&{query}'}"
        got = await person.get(base + (f"&from={token}" if token else ""))
        if "limit" in query:
            assert len(got["chunk"]) <= int(query.rpartition("=")[2])
        found += got["chunk"]
        token = got.get("next_batch", "")
        if not token:
            return found


@pytest.mark.parametrize("limit", [1, 2, 50])
async def test_threads_are_in_the_order_of_their_newest_answers(tmp_path, limit):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        roots = [await alice.say(room, str(n)) for n in range(5)]
        for at in (0, 1, 2, 3, 4, 2, 0, 2):
            await alice.say(room, **relates("m.thread", roots[at]))
        await bob.say(room, **relates("m.thread", roots[1]))
        found = await threads(bob, room, f"limit={limit}")
        assert [e["event_id"] for e in found] == [roots[at] for at in (1, 2, 0, 4, 3)]
        assert found[1]["unsigned"]["m.relations"]["m.thread"]["count"] == 3
        mine = await threads(bob, room, f"include=participated&limit={limit}")
        assert [e["event_id"] for e in mine] == [roots[1]]
        mine = await threads(alice, room, f"include=participated&limit={limit}")
        assert len(mine) == 5


async def test_the_ignored_are_in_no_thread(tmp_path):
    """Neither in relations nor in summaries; a root of an ignored user is shown without its content."""
    async with matrix_server(tmp_path) as home:
        alice, bob, eve = await home.person("alice"), await home.person("bob"), await home.person("eve")
        room = await alice.create(preset="public_chat")
        for one in (bob, eve):
            await one.join(room)
        root, theirs = await alice.say(room, "root"), await eve.say(room, "their root")
        kept = await alice.say(room, **relates("m.thread", root, "kept"))
        await eve.say(room, **relates("m.thread", root, "not heard"))
        await eve.say(room, **relates("m.replace", root, "not heard"))
        await alice.say(room, **relates("m.thread", theirs, "to eve"))
        alone = await alice.say(room, "eve's alone")
        await eve.say(room, **relates("m.thread", alone, "not heard"))
        data = f"/user/{part(bob.user)}/account_data/m.ignored_user_list"
        await bob.call("PUT", data, {"ignored_users": {eve.user: {}}})
        found = await threads(bob, room, "limit=1")
        assert [e["event_id"] for e in found] == [theirs, root]
        assert found[0]["content"] == {}
        assert found[0]["unsigned"]["m.relations"]["m.thread"]["count"] == 1
        summary = found[1]["unsigned"]["m.relations"]["m.thread"]
        assert (summary["count"], summary["latest_event"]["event_id"]) == (1, kept)
        assert ids(await page(bob, room, root)) == [kept]
        assert ids(await page(bob, room, root, "recurse=true")) == [kept]
        assert len(await threads(alice, room)) == 3


async def test_an_edit_is_not_edited(tmp_path):
    async with alone(tmp_path) as (alice, room, root):
        edit = await alice.say(room, **relates("m.replace", root, "first"))
        await alice.say(room, **relates("m.replace", edit, "of the edit"))
        found = await alice.get(f"/rooms/{part(room)}/event/{part(edit)}")
        assert "m.replace" not in found["unsigned"].get("m.relations", {})
        found = await alice.get(f"/rooms/{part(room)}/event/{part(root)}")
        assert found["unsigned"]["m.relations"]["m.replace"]["event_id"] == edit
