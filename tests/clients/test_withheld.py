"""One event of every kind is withheld, and everything that can be asked is asked for what it says.

The routes are those that the routers have, so that a new one is asked without being named here. The same
search with nothing withheld shows that it would find the word.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from hansa import ALLOW, Action, EventIn, Reason, Verdict
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.http.router import Router
from hansa.testing import registered_routes, until
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from matrix.server_with_peer import OURS, THEIRS, V1, V2
from matrix.two_servers import at, levels_with

WORD = "classified"
#: What a withheld event's state key says: a redaction leaves it, so that other servers have it.
KEY = "sealed"
THEM, THIRD = f"@m:{THEIRS}", f"@n:{THEIRS}"


class Censor:
    """Nothing is shown that has the word in it."""

    async def check(self, crossing):
        if isinstance(crossing, EventIn) and any(WORD in text for text in crossing.facts.texts):
            return Verdict(Action.DENY, (Reason(code="GOV_TEST", policy="censor", text="not here"),))
        return ALLOW


def routes(router: Router) -> list[tuple[str, list[str]]]:
    """``(method, path segments)`` of what only reads."""
    return [(method, parts) for method, parts, _ in registered_routes(router)]


class Scene:
    """A local room in which a foreign user sends one event of each kind."""

    def __init__(self, home: MatrixServer, alice: LocalUser, bob: LocalUser) -> None:
        self.home, self.alice, self.bob = home, alice, bob
        self.wire = home.wire
        self.room = home.wire.room.room_id
        self.said: list[str] = []
        self.states: list[tuple[str, str]] = []

    async def tell(self, kind: str, content: dict[str, Any], key: str | None = None, **over: Any) -> str:
        """Sends one event of the foreign user."""
        wire = self.wire
        raw = wire.forger.finish(wire.room, wire.forger.draft(wire.room, kind, content, key, **over))
        assert await wire.fate(raw) == "accepted", kind
        pdu: Pdu = pdu_from_raw(raw, wire.room.version)
        wire.room.keep(pdu)
        self.said.append(event_id(raw, wire.room.version))
        if key is not None:
            self.states.append((kind, key))
        return self.said[-1]

    async def tell_all(self, root: str, target: str) -> None:
        text = {"msgtype": "m.text", "body": WORD}
        await self.tell("m.room.message", text)
        await self.tell("m.room.name", {"name": WORD}, "")
        await self.tell("m.room.topic", {"topic": WORD, "m.topic": {"m.text": [{"body": WORD}]}}, "")
        await self.tell("m.room.avatar", {"url": f"mxc://{THEIRS}/{WORD}?"}, "")
        await self.tell("m.room.canonical_alias", {"alt_aliases": [], "x": WORD}, "")
        await self.tell("m.room.join_rules", {"join_rule": "knock", "x": WORD}, "")
        await self.tell("m.space.child", {"via": [OURS], "order": WORD}, self.wire.other.room_id)
        await self.tell("test.custom", {"x": WORD}, KEY)
        await self.tell("test.custom", {"x": WORD}, "")
        await self.tell("test.plain", {"x": WORD}, None)
        relates = {"rel_type": "m.annotation", "event_id": root, "key": WORD}
        await self.tell("m.reaction", {"m.relates_to": relates})
        relates = {"rel_type": "m.replace", "event_id": target}
        await self.tell("m.room.message", {**text, "m.new_content": text, "m.relates_to": relates})
        relates = {"rel_type": "m.thread", "event_id": root}
        await self.tell("m.room.message", {**text, "m.relates_to": relates})
        relates = {"rel_type": "m.reference", "event_id": root}
        await self.tell("m.room.message", {**text, "m.relates_to": relates})
        redacts = {"redacts": target}
        new = self.wire.room.version.redacts_in_content
        content = {"reason": WORD, **(redacts if new else {})}
        await self.tell("m.room.redaction", content, None, **({} if new else redacts))
        member = {"membership": "join", "displayname": WORD, "avatar_url": f"mxc://{THEIRS}/{WORD}"}
        await self.tell("m.room.member", member, THEM)

    def requests(self, router: Router, federation: bool) -> Iterator[tuple[str, str, Any]]:
        """Every way to ask: ``(method, target, body)``."""
        values = {
            "room": [self.room, self.wire.other.room_id],
            "event": self.said,
            "user": [THEM, self.alice.user, THIRD],
            "type": sorted({one for one, _ in self.states}),
            "key": sorted({one for _, one in self.states if one}),
            "kind": ["m.thread", "m.annotation", "m.replace", "m.reference"],
            "field": ["displayname", "avatar_url"],
            "alias": [f"#one:{OURS}"],
        }
        for method, parts in routes(router):
            client = parts[:2] == ["_matrix", "client"] or parts[:2] == ["_matrix", "media"]
            if client is federation or parts[2:3] == ["r0"]:
                continue
            if method not in {"GET", "POST"} or (method == "POST" and not _READING & set(parts[-2:])):
                continue
            wild = [p[1:-1] for p in parts if p.startswith("{")]
            for given in itertools.product(*(values.get(name, ["x"]) for name in wild)):
                named = dict(zip(wild, given, strict=True))
                path = "/" + "/".join(part(named[p[1:-1]]) if p.startswith("{") else p for p in parts)
                body = None if method == "GET" else self.body(parts[-1] if parts[-1][0] != "{" else parts[-2])
                for query in self.queries(parts):
                    yield method, f"{path}?{query}" if query else path, body

    def body(self, last: str) -> Any:
        if last == "get_missing_events":
            return {"latest_events": self.said[-1:], "earliest_events": [], "limit": 20}
        if last == "search":
            return {"search_term": "", "limit": 50}
        return {}

    def queries(self, parts: list[str]) -> list[str]:
        last = parts[-1]
        if last == "sync":
            lazy = '{"room":{"state":{"lazy_load_members":true},"timeline":{"limit":3}}}'
            after = "timeout=0&use_state_after=true"
            return ["timeout=0&full_state=true", f"timeout=0&filter={part(lazy)}", after, *self.since()]
        if last in {"messages", "threads"} or "relations" in parts:
            return ["dir=b&limit=100", "dir=f&limit=100"]
        if "state_ids" in parts or "state" in parts:
            return ["format=event", *(f"event_id={part(one)}" for one in self.said)]
        if "backfill" in parts:
            return [f"v={part(self.said[-1])}&limit=100"]
        if "timestamp_to_event" in parts:
            return ["ts=0&dir=f", "ts=9999999999999&dir=b"]
        if last == "profile" and parts[2] == "v1":
            return [f"user_id={part(self.alice.user)}", f"user_id={part(THEM)}"]
        if last == "directory":
            return [f"room_alias={part(f'#one:{OURS}')}"]
        return ["limit=50"]

    def since(self) -> list[str]:
        return [f"timeout=0&since={self.bob.since}"] if self.bob.since else []


#: What is asked with POST and changes nothing.
_READING = {"publicRooms", "search", "query", "get_missing_events"}


async def scene(home: MatrixServer, *, censored: bool) -> Scene:
    alice, bob = await home.person("alice"), await home.person("bob")
    room = home.wire.room.room_id
    for person in (alice, bob):
        await person.join(f"#one:{OURS}")
        await person.sync()
    made = Scene(home, alice, bob)
    await levels_with(home.wire, users={THEM: 100} | ({} if home.wire.room.version.id == "12" else _LEVELS))
    await made.home.matrix.public_rooms.set_published(room, listed=True)
    state = await alice.get(f"/rooms/{part(room)}/state")
    for one in state:  # what the forger has to cite
        home.wire.room.state[one["type"], one["state_key"]] = one["event_id"]
    home.wire.room.tips = dict.fromkeys(home.matrix.get_room(room).head.extremities, 50)
    await made.tell("m.room.topic", {"topic": "weather"}, "")
    fair = {"msgtype": "m.text", "body": "fair"}
    root, target = await made.tell("m.room.message", fair), await made.tell("m.room.message", fair)
    if censored:
        home.app.decisions.replace([InstalledPolicy(name="censor", policy=Censor())])
    await made.tell_all(root, target)
    return made


_LEVELS = {f"@hansa:{OURS}": 100}


async def leaks(made: Scene) -> set[str]:
    """The patterns, or what is like one, of all answers with the word."""
    home = made.home
    found: set[str] = set()

    def look(name: str, body: Any, words: tuple[str, ...] = (WORD, KEY)) -> None:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        if any(word.encode() in raw for word in words):
            found.add(name)

    routers: list[Router] = list(_routers(home))
    for router in routers:
        for method, target, body in made.requests(router, federation=False):
            answer = await made.bob.whole(method, target, body)
            look(_name(method, target), answer.body)
            anonymous = await home.anybody.whole(method, target, body)
            look(f"anybody {_name(method, target)}", anonymous.body)
        for method, target, body in made.requests(router, federation=True):
            answer = await home.wire.whole(method, target, body)
            look(_name(method, target), answer.body, (WORD,))
    view = home.app.contexts["matrix"].get_view(made.room)
    look("view", [view.facts.name, view.facts.topic, *(p.name for p in view.people.values())])
    carol = await home.person("carol")
    await made.alice.room(made.room, "invite", {"user_id": carol.user})
    look("invite", (await carol.sync())["rooms"]["invite"])
    await carol.join(made.room)
    carol.since = ""
    look("join", await carol.sync())
    await carol.room(made.room, "leave")
    look("leave", await carol.sync())
    before = len(home.wire.peer.asked)
    await made.alice.ask("POST", f"/rooms/{part(made.room)}/invite", {"user_id": THIRD})
    look("invite out", b"".join(one.body or b"" for one in home.wire.peer.asked[before:]))
    where = f"{at(made.room, THIRD)}?ver={home.wire.room.version.id}"
    status, template = await home.wire.ask("GET", f"{V1}/make_knock/{where}")
    if status == 200:
        draft = {k: v for k, v in template["event"].items() if k != "origin"}
        knock = home.wire.forger.finish(home.wire.room, draft)
        path = at(made.room, event_id(knock, home.wire.room.version))
        answer = await home.wire.ask("PUT", f"{V1}/send_knock/{path}", knock)
        assert answer[0] == 200, answer
        look("knock", answer[1], (WORD,))
    await home.matrix.local_events.send_state(made.room, "m.room.join_rules", "", {"join_rule": "public"})
    _, template = await home.wire.ask("GET", f"{V1}/make_join/{where}")
    look("make_join", template, (WORD,))
    join = home.wire.forger.joining(template, "n")
    status, answer = await home.wire.ask("PUT", f"{V2}/send_join/{at(made.room, join.event_id)}", join.raw)
    assert status == 200, answer
    look("send_join", answer, (WORD,))
    return found


def _routers(home: MatrixServer) -> Iterator[Router]:
    yield from {id(one): one for one in home.app.routers.values()}.values()


def _name(method: str, target: str) -> str:
    """A route without what is asked of it."""
    path = target.partition("?")[0].removeprefix("/_matrix/")
    kept = [one for one in path.split("/") if not one.startswith(("%", "m.", "test.")) and one != KEY]
    return f"{method} {'/'.join(kept)}"


#: Where the word is found when nothing is withheld: a search that misses these misses more.
EVERYWHERE = {
    "GET client/v3/sync", "GET client/v3/rooms/messages", "GET client/v3/rooms/event", "GET client/v3/rooms/context",
    "GET client/v3/rooms/state", "GET client/v3/rooms/members", "GET client/v3/rooms/joined_members",
    "GET client/v3/rooms/initialSync", "GET client/v1/rooms/relations", "GET client/v1/rooms/threads",
    "GET client/v1/rooms/hierarchy", "GET client/v1/room_summary", "GET client/v3/publicRooms",
    "POST client/v3/publicRooms", "POST client/v3/user_directory/search",
    "GET federation/v1/event", "GET federation/v1/state", "GET federation/v1/event_auth", "GET federation/v1/backfill",
    "POST federation/v1/get_missing_events", "GET federation/v1/publicRooms", "POST federation/v1/publicRooms",
    "GET federation/v1/hierarchy", "view", "invite", "join", "invite out", "knock",
    "send_join",
}  # fmt: skip


@pytest.mark.parametrize("version", ["7", "12"])
async def test_the_search_finds_what_is_shown(tmp_path, version):
    async with matrix_server(tmp_path, version) as home:
        assert EVERYWHERE - await leaks(await scene(home, censored=False)) == set()


@pytest.mark.parametrize("version", ["7", "12"])
async def test_what_is_withheld_is_in_no_answer(tmp_path, version):
    async with matrix_server(tmp_path, version) as home:
        made = await scene(home, censored=True)
        assert await leaks(made) == set()


async def test_people_learn_what_it_did_to_the_room(tmp_path):
    """The members of the room, and the earlier value in the place of the withheld one."""
    async with matrix_server(tmp_path) as home:
        made = await scene(home, censored=True)
        await made.bob.sync()
        where = f"/rooms/{part(made.room)}"
        found = {(e["type"], e["state_key"]): e for e in await made.bob.get(f"{where}/state")}
        assert found["m.room.member", THEM]["content"] == {"membership": "join"}
        assert found["m.room.topic", ""]["content"] == {"topic": "weather"}
        assert found["m.room.join_rules", ""]["content"] == {"join_rule": "knock"}
        assert ("m.room.name", "") not in found and ("m.room.avatar", "") not in found
        assert await made.bob.get(f"{where}/state/m.room.topic/") == {"topic": "weather"}
        assert (await made.bob.ask("GET", f"{where}/state/m.room.name/"))[0] == 404
        leave = {"membership": "leave", "reason": WORD}
        wire = home.wire
        await wire.send(
            wire.forger.finish(wire.room, wire.forger.draft(wire.room, "m.room.member", leave, THEM))
        )
        news = (await made.bob.sync(timeout=10_000))["rooms"]["join"][made.room]
        assert news["timeline"]["events"] == []
        (left,) = [e for e in news["state"]["events"] if e["state_key"] == THEM]
        assert left["content"] == {"membership": "leave"}
        # Of what was fair one was taken back, though nobody may read why.
        assert news["unread_notifications"]["notification_count"] == 1


async def test_what_comes_after_says_what_was_shown_before(tmp_path):
    """``prev_content`` is what people saw, and an edit, an answer or a redaction does not bring it back."""
    async with matrix_server(tmp_path) as home:
        made = await scene(home, censored=True)
        home.app.decisions.replace([])
        await made.tell("m.room.topic", {"topic": "news"}, "")
        found = (await made.bob.get(f"/rooms/{part(made.room)}/event/{part(made.said[-1])}"))["unsigned"]
        assert found["prev_content"] == {"topic": "weather"}
        await made.tell("m.room.name", {"name": "Lobby"}, "")
        found = (await made.bob.get(f"/rooms/{part(made.room)}/event/{part(made.said[-1])}"))["unsigned"]
        assert not {"prev_content", "replaces_state"} & found.keys()


async def test_what_is_passed_on_to_a_server_is_what_a_redaction_would_leave(tmp_path):
    """We send on what came by a handshake, such as a leave with a reason."""
    async with matrix_server(tmp_path) as home:
        made = await scene(home, censored=True)
        sent: list[dict[str, Any]] = []

        def answer(request: Any) -> Any:
            if "/send/" in request.target:
                sent.extend(orjson.loads(request.body)["pdus"])
                return 200, {}
            return None

        home.wire.peer.answer = answer
        matrix = home.matrix
        for known in (True, False):
            if not known:
                matrix.event_cache.clear()
            sent.clear()
            writes = matrix.sender.event_writes(made.said[-1], made.room, {THEIRS})
            await matrix.store.commit(writes)
            matrix.sender.on_committed({THEIRS})
            await until(lambda: made.said[-1] in [event_id(raw, home.wire.room.version) for raw in sent])
            assert WORD not in str(sent)
