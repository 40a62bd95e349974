"""Clients that follow rooms by nothing but their syncs end with what the server has: state, and every event once."""

from __future__ import annotations

import os
import random
from typing import Any

import orjson
import pytest
from clients.matrix_server import LocalUser, MatrixServer, Refused, matrix_server, part

SEED = int(os.environ.get("HANSA_SEED", "1"))
ROUNDS = int(os.environ.get("HANSA_FOLLOW_ROUNDS", "12"))
STEPS = 120


class Follower:
    """The knowledge of one client about one room; ``after``: by ``state_after``, ``lazy``: only of the
    members that it needs, ``only``: with that filter of the timeline.
    """

    def __init__(
        self,
        person: LocalUser,
        room: str,
        limit: int,
        *,
        after: bool,
        lazy: bool = False,
        only: dict[str, Any] | None = None,
    ) -> None:
        self.person, self.room, self.after, self.lazy, self.only = person, room, after, lazy, only
        wanted = {"timeline": {"limit": limit, **(only or {})}, "state": {"lazy_load_members": lazy}}
        self.filter = part(orjson.dumps({"room": wanted}).decode())
        self.joined = False
        self.state: dict[tuple[str, str], str] = {}
        self.seen: list[str] = []

    async def sync(self) -> None:
        before = self.person.since
        found = await self.person.sync(
            f"&filter={self.filter}" + ("&use_state_after=true" if self.after else "")
        )
        rooms = found.get("rooms", {})
        if self.room in rooms.get("invite", {}):  # asked in again, so out meanwhile
            self.joined = False
        if self.room in rooms.get("leave", {}):
            self.joined = False
        if self.room in rooms.get("join", {}):
            given = rooms["join"][self.room]
            fresh = not self.joined
            if fresh:  # it began again: earlier events are reached by paging back
                self.state, self.seen = {}, []
            self.joined = True
            await self._timeline(given["timeline"], "" if fresh else before)
            if self.after:
                self._apply(given["state_after"]["events"])
            else:
                self._apply(given.get("state", {}).get("events", []))
                for event in given["timeline"]["events"]:
                    if event["type"] != "m.room.create" and event.get("state_key") != event["sender"]:
                        self.knows(event)
                    self._apply([event] if "state_key" in event else [])
            for event in given["timeline"]["events"]:
                self.knows(event)

    def _apply(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            self.state[event["type"], event["state_key"]] = event["event_id"]

    def knows(self, event: dict[str, Any]) -> None:
        """Requires that the sender of an event is known by then."""
        member = ("m.room.member", event["sender"])
        assert member in self.state, f"{event['sender']} is unknown who said {event}"

    async def _timeline(self, timeline: dict[str, Any], before: str) -> None:
        """Take what is new, and fetch what was left out between the last time and now."""
        missed: list[str] = []
        token = timeline.get("prev_batch") if timeline["limited"] and before else None
        while token:
            page = await self.person.get(
                f"/rooms/{part(self.room)}/messages?dir=b&limit=5&from={token}&to={before}"
            )
            missed += [e["event_id"] for e in page["chunk"]]
            token = page.get("end")
        self.seen += [e for e in missed[::-1] if e not in self.seen]
        self.seen += [e["event_id"] for e in timeline["events"] if e["event_id"] not in self.seen]


async def act(choice: random.Random, room: str, owner: LocalUser, person: LocalUser, said: list[str]) -> None:
    """Something that may be refused."""
    kind = choice.choice(
        ["say"] * 6
        + ["state", "state", "name", "join", "join", "leave", "kick", "ban", "unban", "invite", "redact"]
    )
    try:
        match kind:
            case "say":
                said.append(await person.say(room, f"{choice.random()}"))
            case "state":
                await person.state(room, "test.note", {"n": choice.random()}, choice.choice(["", "a", "b"]))
            case "name":
                name = {"displayname": f"n{choice.randint(0, 99)}"}
                await person.call("PUT", f"/profile/{part(person.user)}/displayname", name)
            case "join":
                await person.join(room)
            case "leave" if person is not owner:
                await person.room(room, "leave")
            case "kick" | "ban" | "unban" | "invite" if person is not owner:
                await owner.room(room, kind, {"user_id": person.user})
            case "redact" if said:
                path = f"/rooms/{part(room)}/redact/{part(choice.choice(said))}/{choice.randint(0, 10**9)}"
                await person.call("PUT", path, {})
    except Refused as refused:
        if refused.status not in {400, 403, 404}:
            raise


#: Filters of a timeline: what they leave out is in the state, or is not asked for.
FILTERS: list[dict[str, Any] | None] = [
    None,
    {"types": ["m.room.message"]},
    {"not_types": ["m.room.member"]},
    {"types": ["m.room.member", "test.*"]},
    {"types": []},
    {"contains_url": True},
]


async def everything(home: MatrixServer, seed: int, *, filtered: bool = False) -> None:
    choice = random.Random(seed)
    people = [await home.person(name) for name in ("alice", "bob", "eve")]
    levels = {"state_default": 0, "users_default": 0, "redact": 50}
    room = await people[0].create(preset="public_chat", power_level_content_override=levels)
    followers = [
        Follower(
            p,
            room,
            choice.choice([0, 1, 3, 10] if filtered else [1, 3, 10]),
            after=choice.random() < 0.5,
            lazy=filtered and choice.random() < 0.7,
            only=choice.choice(FILTERS) if filtered else None,
        )
        for p in people
    ]
    for one in followers:
        await one.sync()
    said: list[str] = []
    for _ in range(STEPS):
        await act(choice, room, people[0], choice.choice(people), said)
        if choice.random() < 0.3:
            await choice.choice(followers).sync()
    for one in followers:
        await one.sync()
        await one.sync()
        inside = room in (await one.person.get("/joined_rooms"))["joined_rooms"]
        assert one.joined is inside, f"{one.person.user}"
        if not inside:
            continue
        state = {
            (e["type"], e["state_key"]): e["event_id"]
            for e in await one.person.get(f"/rooms/{part(room)}/state")
        }
        if one.lazy:  # of users it must know the senders, and the current profile of those that it knows
            state = {k: e for k, e in state.items() if k[0] != "m.room.member" or k in one.state}
        assert one.state == state, {
            k: (one.state.get(k), state.get(k))
            for k in {*state, *one.state}
            if one.state.get(k) != state.get(k)
        }
        if filtered:
            continue
        events, token = [], ""
        while token is not None:
            page = await one.person.get(
                f"/rooms/{part(room)}/messages?dir=b&limit=50{'&from=' + token if token else ''}"
            )
            events += [e["event_id"] for e in page["chunk"]]
            token = page.get("end")
        wanted = [e for e in events[::-1] if e in set(one.seen)]
        assert one.seen == wanted, "in order"
        if one.person is people[0]:  # who was always there has missed nothing
            first = events[::-1].index(one.seen[0])
            assert one.seen == events[::-1][first:]


@pytest.mark.parametrize("number", range(ROUNDS))
async def test_who_follows_ends_with_what_is(tmp_path, number):
    seed = SEED * 1000 + number
    print(f"HANSA_SEED={SEED}, round {number}")
    async with matrix_server(tmp_path, "11" if number % 2 else "12") as home:
        await everything(home, seed)


@pytest.mark.parametrize("number", range(2 * ROUNDS))
async def test_who_follows_by_a_filter_ends_with_the_state_that_is(tmp_path, number):
    seed = SEED * 1000 + number + 500
    print(f"HANSA_SEED={SEED}, round {number}")
    async with matrix_server(tmp_path, "11" if number % 2 else "12") as home:
        await everything(home, seed, filtered=True)
