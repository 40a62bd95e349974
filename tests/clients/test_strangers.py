"""Everything that can be asked of a room or a person, asked by those whom it is not for."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from clients.people import House, Person, house, part
from hansa.http import Router

SECRET = "sealed with wax"
#: What tells of a person by itself: profiles and whether they are there are for others to see.
FOR_OTHERS = ("/profile/", "/presence/", "/report")


def routes(router: Router) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []

    def walk(node: Any, parts: list[str]) -> None:
        found.extend((method, parts) for method in node.methods)
        for name, child in node.child.items():
            walk(child, [*parts, name])
        if node.wild is not None:
            walk(node.wild, [*parts, "{" + node.wild.name + "}"])

    walk(router._root, [])
    return [(m, p) for m, p in found if p[:2] == ["_matrix", "client"] and p[2] != "r0"]


def filled(parts: list[str], given: dict[str, str]) -> str:
    return "/" + "/".join(part(given.get(p[1:-1], "x")) if p.startswith("{") else p for p in parts)


async def scene(home: House, who: str) -> tuple[Person, Person, str, str]:
    """A room in which something secret is said after somebody's time: ``(owner, other, room, event)``."""
    alice, bob = await home.person("alice"), await home.person("bob")
    history = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    room = await alice.create(initial_state=[history])
    if who != "stranger":
        await alice.room(room, "invite", {"user_id": bob.user})
    if who not in {"stranger", "invited"}:
        await bob.join(room)
    if who == "left":
        await bob.room(room, "leave")
    elif who in {"kicked", "banned"}:
        await alice.room(room, {"kicked": "kick", "banned": "ban"}[who], {"user_id": bob.user})
    event = await alice.say(room, SECRET)
    await alice.state(room, "test.secret", {"text": SECRET})
    await alice.call(
        "PUT", f"/user/{part(alice.user)}/rooms/{part(room)}/account_data/test.note", {"text": SECRET}
    )
    await alice.call("PUT", f"/user/{part(alice.user)}/account_data/test.note", {"text": SECRET})
    await alice.call("PUT", f"/devices/{alice.device}", {"display_name": SECRET})
    return alice, bob, room, event


@pytest.mark.parametrize("who", ["stranger", "invited", "left", "kicked", "banned"])
async def test_nothing_that_is_not_theirs_is_told_to_anybody(tmp_path, who):
    async with house(tmp_path) as home:
        alice, bob, room, event = await scene(home, who)
        before = await alice.get(f"/rooms/{part(room)}/state")
        given = {
            "room": room, "event": event, "user": alice.user, "type": "test.note", "key": "", "device": alice.device,
            "kind": "m.read", "txn": "1", "alias": "#none:127.0.0.1:1", "field": "displayname", "filter": "x",
            "tag": "t", "rule": "r",
        }  # fmt: skip
        asked = 0
        for method, parts in routes(next(iter(home.app.routers.values()))):
            enters = "join" in parts or "knock" in parts  # by right, if they are asked in
            if not {"{room}", "{user}"} & set(parts) or enters:
                continue
            for type_ in ("test.note", "test.secret"):
                target = filled(parts, given | {"type": type_})
                answer = await bob.whole(method, target, {} if method != "GET" else None)
                asked += 1
                assert SECRET.encode() not in answer.body, f"{method} {target}"
                if "{user}" in parts and not any(name in target for name in FOR_OTHERS):
                    assert answer.status in {403, 404, 405}, f"{answer.status} to {method} {target}"
        assert asked > 60
        told = await bob.sync("&full_state=true&filter=" + part('{"room":{"include_leave":true}}'))
        assert SECRET not in orjson.dumps(told).decode()
        after = {
            (e["type"], e["state_key"]): e["content"] for e in await alice.get(f"/rooms/{part(room)}/state")
        }
        changed = {
            (e["type"], e["state_key"])
            for e in before
            if after.get((e["type"], e["state_key"])) != e["content"]
        }
        assert changed <= {("m.room.member", bob.user)}  # an invited person may come in, and go
