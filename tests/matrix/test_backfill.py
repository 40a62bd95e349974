"""The past of a room that we came into late, fetched from who was there."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from hansa import HttpRequest, LocalProtocolError, Message, NativeId
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from matrix.server_with_peer import THEIRS, V1, ServerWithPeer, server_with_peer
from matrix.test_joining import ALIAS, Resident
from matrix.two_servers import at
from peers.event_forge import EventForge

each_version = pytest.mark.parametrize("version", ["8", "9", "10", "11", "12"])


class Past(Resident):
    """The forger's server, with a room in which something was said before we came."""

    def __init__(self, house: ServerWithPeer, version: str = "12") -> None:
        super().__init__(house, version)
        self.order: list[str] = [event_id(raw, self.room.version) for raw in self.events]
        self.by_id: dict[str, dict[str, Any]] = dict(zip(self.order, self.events, strict=True))
        self.before: dict[str, list[str]] = {}
        self.pages: list[tuple[int, int]] = []
        self.spoil_page: Any = lambda pdus: pdus
        self.no_state = False

    def say(self, text: str, **over: Any) -> str:
        return self.had(self.house.forger.message(self.room, text, **over))

    def sent(self, kind: str, content: dict[str, Any], key: str, **over: Any) -> str:
        draft = self.house.forger.draft(self.room, kind, content, key, **over)
        return self.had(self.house.forger.finish(self.room, draft))

    def had(self, raw: dict[str, Any]) -> str:
        pdu = pdu_from_raw(raw, self.room.version)
        self.before[pdu.event_id] = list(self.room.state.values())
        self.room.keep(pdu)
        self.by_id[pdu.event_id] = raw
        self.order.append(pdu.event_id)
        if pdu.state_key is not None:
            self.events = [self.by_id[e] for e in self.room.state.values()]
        return pdu.event_id

    def __call__(self, request: HttpRequest) -> tuple[int, Any] | None:
        path, _, query = request.target.partition("?")
        if "/backfill/" in path:
            asked = parse_qs(query)
            limit = int(asked["limit"][0])
            last = max((self.order.index(v) for v in asked["v"] if v in self.order), default=-1)
            page = [self.by_id[e] for e in self.order[max(0, last + 1 - limit) : last + 1]][::-1]
            self.pages.append((limit, len(page)))
            return 200, {"origin": THEIRS, "pdus": self.spoil_page(page)}
        if "/state_ids/" in path and not self.no_state:
            state = self.before[unquote(query.partition("=")[2])]
            return 200, {"pdu_ids": state, "auth_chain_ids": state}
        if "/event/" in path:
            return 200, {"pdus": [self.by_id[unquote(path.rpartition("/")[2])]]}
        if "/event_auth/" in path:
            return 200, {"auth_chain": [self.by_id[e] for e in self.order]}
        return super().__call__(request)

    async def entered(self) -> str:
        self.house.peer.answer = self
        await self.house.app.link_room([f"matrix:{ALIAS}"])
        matrix = self.house.matrix
        return str((await matrix.get_room(self.room.room_id).state())["m.room.member", matrix.bridge_user])

    async def fetched(self, **arguments: Any) -> dict[str, Any]:
        operation = self.house.matrix.network.admin_commands()["rooms backfill"]
        return await operation({"room": self.room.room_id, **arguments})

    async def statuses(self, ids: list[str]) -> list[str]:
        store = self.house.matrix.store
        rows = await store.get_many("pdu", [(e,) for e in ids])
        return [
            str(rows[e,].fields["status"]) if (e,) in rows and rows[e,].fields["after"] else "-" for e in ids
        ]


@each_version
async def test_the_whole_past_gets_its_place(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        past = Past(house, version)
        said = [past.say(f"m{number}") for number in range(230)]
        topic = past.sent("m.room.topic", {"topic": "old"}, "")
        said.append(past.say("after the topic"))
        join = await past.entered()
        room = house.matrix.get_room(past.room.room_id)
        head = room.head
        answer = await past.fetched()
        assert answer == {"room": past.room.room_id, "events": 235, "complete": True, "failed": {}}
        assert past.pages == [(100, 100), (100, 100), (100, 35)]
        assert await past.statuses(past.order) == ["accepted"] * 235
        # The present is what it was, and nobody is shown anything.
        assert (room.head.extremities, room.head.group, room.head.depth) == (
            head.extremities, head.group, head.depth,
        )  # fmt: skip
        assert list(room.head.extremities) == [join] and room.head.behind == ()
        core = house.app.rooms.room_of(NativeId("matrix", past.room.room_id))
        assert [e for e in core.tail if isinstance(e.content, Message)] == []
        assert core.view.facts.topic == "old"
        # Each knows the state before it.
        found = await room.events.load([said[0], said[-1]], room.version)
        early, late = [await room.groups.load(found[e].before) for e in (said[0], said[-1])]
        assert ("m.room.topic", "") not in early and late["m.room.topic", ""] == topic
        # And others get it from us.
        status, page = await house.ask(
            "GET", f"{V1}/backfill/{at(past.room.room_id)}?v={at(said[-1])}&limit=3"
        )
        assert status == 200
        assert [event_id(raw, room.version) for raw in page["pdus"]] == [said[-1], topic, said[-2]]
        assert (await past.fetched())["events"] == 0


@each_version
@pytest.mark.parametrize("how", ["unsigned", "keyless"])
async def test_the_past_behind_what_cannot_be_verified_is_had(tmp_path, version, how):
    async with server_with_peer(tmp_path, version, gap_patience=0.0) as house:
        past = Past(house, version)
        said = [past.say(f"m{number}") for number in range(120)]
        mute = EventForge("127.0.0.3:3")
        house.peer.keys = lambda r: (200, house.forger.keys()) if r.host_header == THEIRS else None
        lost = []
        for _ in range(2):
            draft = house.forger.draft(past.room, "m.room.message", {"body": "x"}, sender=f"@x:{mute.name}")
            raw = mute.finish(past.room, draft)
            lost.append(past.had({**raw, "signatures": {}} if how == "unsigned" else raw))
        said += [past.say(f"n{number}") for number in range(120)]
        await past.entered()
        answer = await past.fetched()
        assert answer["complete"] is True
        assert await past.statuses(said) == ["accepted"] * 240
        assert await past.statuses(lost) == ["-", "-"]


async def test_what_is_there_already_is_not_asked_for_and_a_limit_is_kept(tmp_path):
    async with server_with_peer(tmp_path) as house:
        past = Past(house)
        said = [past.say(f"m{number}") for number in range(30)]
        await past.entered()
        answer = await past.fetched(limit=10)
        assert (answer["events"], answer["complete"]) == (10, False)
        assert await past.statuses(said) == ["-"] * 20 + ["accepted"] * 10
        assert past.pages == [(10, 10)]
        answer = await past.fetched(limit=100)
        assert (answer["events"], answer["complete"]) == (23, True)
        assert await past.statuses(said) == ["accepted"] * 30


async def test_it_is_all_there_after_a_restart(tmp_path):
    async with server_with_peer(tmp_path) as house:
        past = Past(house)
        said = [past.say(f"m{number}") for number in range(5)]
        await past.entered()
        await past.fetched(limit=2)
        row = await house.matrix.store.get("room", (past.room.room_id,))
        room = house.matrix.get_room(past.room.room_id)
        again = type(room).load(past.room.room_id, row.body, room.groups._store, house.matrix.event_store)
        assert again.head == room.head and list(again.head.behind) == [said[2]]


async def test_each_is_judged_by_the_state_of_its_time(tmp_path):
    async with server_with_peer(tmp_path) as house:
        past = Past(house)
        past.say("first")
        stranger = f"@stranger:{THEIRS}"
        bad = past.say("I am not in here", sender=stranger)
        good = past.say("second")
        await past.entered()
        answer = await past.fetched()
        assert answer["complete"] is True
        assert await past.statuses([bad, good]) == ["rejected", "accepted"]


async def test_redactions_of_the_past_hold(tmp_path):
    async with server_with_peer(tmp_path) as house:
        past = Past(house)
        secret = past.say("a secret")
        draft = house.forger.draft(past.room, "m.room.redaction", {"redacts": secret})
        past.had(house.forger.finish(past.room, draft))
        await past.entered()
        await past.fetched()
        room = house.matrix.get_room(past.room.room_id)
        assert (await room.events.load([secret], room.version))[secret].pdu.content == {}


@pytest.mark.parametrize(
    "how", ["unsigned", "of another room", "unconnected", "no list", "nothing", "no state"]
)
async def test_nothing_comes_of_what_proves_nothing(tmp_path, how):
    async with server_with_peer(tmp_path) as house:
        past = Past(house)
        over = {"room_id": house.room.room_id} if how == "of another room" else {}
        said = [past.say("m0"), past.say("m1"), past.say("m2", **over)]
        await past.entered()
        room = house.matrix.get_room(past.room.room_id)
        head = room.head
        spoiled: dict[str, Any] = {
            "unsigned": [{**past.by_id[said[-1]], "signatures": {}}],
            "of another room": [past.by_id[said[-1]]],
            "unconnected": [past.by_id[said[0]]],
            "no list": "nonsense",
            "nothing": [],
            "no state": [past.by_id[said[-1]]],
        }
        past.no_state = how == "no state"
        past.spoil_page = lambda _: spoiled[how]
        answer = await past.fetched()
        assert (answer["events"], answer["complete"]) == (0, False)
        assert await past.statuses(said) == ["-"] * 3
        assert room.head == head
        assert bool(answer["failed"]) is (how in {"no list", "no state"})


async def test_another_server_is_asked_where_one_has_nothing(tmp_path):
    async with server_with_peer(tmp_path) as house:
        past = Past(house)
        said = [past.say(f"m{number}") for number in range(3)]
        await past.entered()
        house.peer.answer = lambda request: (
            (403, {"errcode": "M_FORBIDDEN", "error": "not you"})
            if request.host_header == "127.0.0.3:3"
            else past(request)
        )
        answer = await past.fetched(server="127.0.0.3:3")
        assert answer["failed"].keys() == {"127.0.0.3:3"} and "not you" in answer["failed"]["127.0.0.3:3"]
        assert await past.statuses(said) == ["accepted"] * 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"limit": 0}, "from 1 to"), ({"limit": 10**9}, "from 1 to"), ({"room": "!no:where"}, "not in")],
)
async def test_what_cannot_be_is_said(tmp_path, arguments, says):
    async with server_with_peer(tmp_path) as house:
        past = Past(house)
        await past.entered()
        with pytest.raises(LocalProtocolError, match=says):
            await past.fetched(**arguments)


async def test_it_is_fetched_once_at_a_time(tmp_path):
    async with server_with_peer(tmp_path) as house:
        past = Past(house)
        past.say("m")
        await past.entered()
        both = await asyncio.gather(past.fetched(), past.fetched(), return_exceptions=True)
        assert [type(one) for one in both] == [dict, LocalProtocolError]
        assert "already" in str(both[1])
