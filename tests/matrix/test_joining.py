"""Joining a room that lives on another server: what is asked, and what of the answers is believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import orjson
import pytest
from hansa import CannotOpenRoom, HttpRequest, HttpResponse, NativeId
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from hansa_matrix.proto.signing import event_signable, with_signature
from matrix.server_with_peer import OURS, THEIRS, ServerWithPeer, server_with_peer
from peers.event_forge import JoinedRoom, cited

each_version = pytest.mark.parametrize("version", ["8", "9", "10", "11", "12"])
USER = f"@m:{THEIRS}"
ALIAS = f"#made:{THEIRS}"


class Resident:
    """The forger's server as the resident of a restricted room, unless ``rules`` are other ones. Functions set on
    it spoil its answers.
    """

    def __init__(
        self,
        house: ServerWithPeer,
        version: str,
        create: dict[str, Any] | None = None,
        rules: dict[str, Any] | None = None,
        name: str = "made",
    ) -> None:
        self.house, self.version = house, version
        self.room = JoinedRoom(f"!{name}:{THEIRS}", version, USER)
        self.events: list[dict[str, Any]] = []
        self.made: list[dict[str, Any]] = []
        self.spoil_template: Callable[[dict[str, Any]], Any] = lambda answer: answer
        self.spoil_answer: Callable[[dict[str, Any]], Any] = lambda answer: answer
        self.servers: list[str] = [THEIRS]
        self.sign = True
        #: What it answers to requests of version 2 of the last step, if it knows only version 1.
        self.old: HttpResponse | None = None
        self._add("m.room.create", create or {"room_version": version, "creator": USER}, "", prev_events=[])
        self._add("m.room.member", {"membership": "join"}, USER)
        allow = [{"type": "m.room_membership", "room_id": "!elsewhere:x"}]
        self._add("m.room.join_rules", rules or {"join_rule": "restricted", "allow": allow}, "")

    def _add(self, kind: str, content: dict[str, Any], key: str, **over: Any) -> None:
        forger, hashed = self.house.forger, kind == "m.room.create" and self.version == "12"
        draft = forger.draft(self.room, kind, content, key, **over)
        if hashed:
            del draft["room_id"]
        raw = forger.finish(self.room, draft)
        pdu = pdu_from_raw(raw, self.room.version)
        self.room.room_id = pdu.room_id
        self.room.keep(pdu)
        self.events.append(raw)

    def __call__(self, request: HttpRequest) -> tuple[int, Any] | HttpResponse | None:
        path = unquote(request.target)
        if self.old is not None and ("/v2/send_join/" in path or "/v2/send_leave/" in path):
            return self.old
        if "/make_leave/" in path:
            user = self.house.matrix.bridge_user
            content = {"membership": "leave"}
            draft = self.house.forger.draft(self.room, "m.room.member", content, user, sender=user)
            return 200, {"room_version": self.version, "event": draft}
        if "/send_leave/" in path:
            self.made.append(orjson.loads(request.body or b""))
            return 200, [200, {}] if "/v1/" in path else {}
        if "/query/directory" in path:
            return 200, {"room_id": self.room.room_id, "servers": self.servers}
        if "/make_join/" in path:
            user = path.partition("?")[0].rpartition("/")[2]
            content = {"membership": "join", "join_authorised_via_users_server": USER}
            draft = self.house.forger.draft(self.room, "m.room.member", content, user, sender=user)
            named = [k for k in self.room.state if k[0] != "m.room.create" or self.version != "12"]
            draft["auth_events"] = cited([self.room.state[key] for key in named], self.room.version)
            return 200, self.spoil_template({"room_version": self.version, "event": draft})
        if "/send_join/" in path:
            raw = orjson.loads(request.body or b"")
            self.made.append(raw)
            key = self.house.forger.key
            signature = key.sign(event_signable(raw, self.room.version))
            signed = with_signature(raw, THEIRS, key.key_id, signature) if self.sign else raw
            answer = {"state": self.events, "auth_chain": self.events, "event": signed}
            answer = self.spoil_answer({**answer, "servers_in_room": [THEIRS]})
            return 200, [200, answer] if "/v1/" in path else answer
        return None

    async def entered(self) -> str:
        """Let the house join; the id of its join as it is stored."""
        self.house.peer.answer = self
        matrix = self.house.matrix
        opened = await matrix.network.open_room(ALIAS, create=False)
        assert opened.native == NativeId("matrix", self.room.room_id)
        state = await matrix.get_room(self.room.room_id).state()
        return str(state["m.room.member", matrix.bridge_user])

    async def refused(self) -> None:
        self.house.peer.answer = self
        matrix = self.house.matrix
        with pytest.raises(CannotOpenRoom):
            await matrix.network.open_room(ALIAS, create=False)
        assert matrix.get_room(self.room.room_id) is None
        assert await matrix.store.get("room", (self.room.room_id,)) is None


@each_version
async def test_a_restricted_join_is_kept_with_the_resident_s_signature(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        resident = Resident(house, version)
        name = await resident.entered()
        assert name == event_id(resident.made[0], resident.room.version)
        matrix = house.matrix
        stored = (await matrix.event_store.load([name], resident.room.version))[name]
        assert stored.pdu.raw["signatures"].keys() == {OURS, THEIRS}
        asked = next(r.target for r in house.peer.asked if "/make_join/" in r.target)
        assert {"ver=10", "ver=11", "ver=12"} <= set(asked.partition("?")[2].split("&"))  # J-2


async def test_a_restricted_join_that_the_resident_did_not_sign_is_none(tmp_path):
    async with server_with_peer(tmp_path) as house:
        resident = Resident(house, "12")
        resident.sign = False
        await resident.refused()


async def test_a_restricted_join_with_a_wrong_signature_is_none(tmp_path):
    async with server_with_peer(tmp_path) as house:
        resident = Resident(house, "12")

        def wrong(answer: dict[str, Any]) -> dict[str, Any]:
            signatures = {**answer["event"]["signatures"], THEIRS: {"ed25519:now": "A" * 86}}
            return {**answer, "event": {**answer["event"], "signatures": signatures}}

        resident.spoil_answer = wrong
        await resident.refused()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: {**a, "room_version": "99"},
        lambda a: {**a, "room_version": ["12"]},
        lambda a: {"event": a["event"]},
        lambda a: {**a, "event": {**a["event"], "room_id": "!other:x"}},
        lambda a: {**a, "event": {**a["event"], "sender": "@other:x"}},
        lambda a: {**a, "event": {**a["event"], "state_key": "@other:x"}},
        lambda a: {**a, "event": {**a["event"], "type": "m.room.message"}},
        lambda a: {**a, "event": {**a["event"], "content": {"membership": "leave"}}},
        lambda a: {**a, "event": {**a["event"], "content": {"membership": "join", "x": 1.5}}},
        lambda a: [a],
        lambda a: None,
    ],
)
async def test_j3_a_template_of_something_else_is_not_signed(tmp_path, spoil):
    async with server_with_peer(tmp_path) as house:
        resident = Resident(house, "12")
        resident.spoil_template = spoil
        await resident.refused()
        assert resident.made == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: {**a, "state": a["state"][1:]},
        lambda a: {**a, "state": []},
        lambda a: {"event": a["event"]},
        lambda a: {**a, "event": a["state"][1]},
        lambda a: {**a, "event": {}},
        lambda a: [a],
    ],
)
async def test_j5_an_answer_without_the_room_s_create_event_or_about_another_is_no_room(tmp_path, spoil):
    async with server_with_peer(tmp_path) as house:
        resident = Resident(house, "12")
        resident.spoil_answer = spoil
        await resident.refused()


async def test_j6_bad_state_is_dropped_and_the_join_stands(tmp_path):
    """Mistake 31."""
    async with server_with_peer(tmp_path) as house:
        resident = Resident(house, "12")
        forger, room = house.forger, resident.room
        member = house.forger.draft(room, "m.room.member", {"membership": "join"}, f"@z:{THEIRS}")
        unsigned = forger.finish(room, {**member, "sender": f"@z:{THEIRS}"}, key=forger.secret)
        foreign = forger.finish(room, forger.draft(house.other, "m.room.topic", {"topic": "t"}, ""))
        bad = [unsigned, foreign, None, {}, {"type": "m.room.name"}]
        resident.spoil_answer = lambda a: {
            **a,
            "state": [*bad, *a["state"]],
            "auth_chain": [*bad, *a["auth_chain"]],
        }
        await resident.entered()
        state = await house.matrix.get_room(room.room_id).state()
        assert ("m.room.member", USER) in state
        assert ("m.room.member", f"@z:{THEIRS}") not in state
        assert ("m.room.topic", "") not in state


async def test_j1_the_next_server_is_asked_when_one_does_not_know_the_room(tmp_path):
    """Mistake 30."""
    async with server_with_peer(tmp_path) as house:
        resident = Resident(house, "12")
        resident.servers = ["127.0.0.1:3", "a b", 7, THEIRS]

        def answer(request: HttpRequest) -> tuple[int, Any] | None:
            if "/query/directory" not in request.target and request.port == 2:
                return 404, {"errcode": "M_NOT_FOUND", "error": "not here"}
            return resident(request)

        house.peer.answer = answer
        matrix = house.matrix
        await matrix.network.open_room(ALIAS, create=False)
        assert [r.port for r in house.peer.asked if "/make_join/" in r.target] == [2, 3]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, {"errcode": "M_UNABLE_TO_GRANT_JOIN", "error": "nobody of ours may invite"}),
        (400, {"errcode": "M_UNABLE_TO_AUTHORISE_JOIN", "error": "not in that space"}),
        (400, {"error": "no code at all"}),
        (403, {"error": "no code at all"}),
        (429, {"errorcode": "M_LIMIT_EXCEEDED"}),
        (500, []),
    ],
)
async def test_the_next_resident_is_asked_when_one_cannot_let_us_in(tmp_path, status, said):
    async with server_with_peer(tmp_path) as house:
        resident = Resident(house, "12")
        resident.servers = ["127.0.0.1:3", THEIRS]

        def answer(request: HttpRequest) -> tuple[int, Any] | None:
            if "/make_join/" in request.target and request.port == 2:
                return status, said
            return resident(request)

        house.peer.answer = answer
        opened = await house.matrix.network.open_room(ALIAS, create=False)
        assert opened.native == NativeId("matrix", resident.room.room_id)
        assert [r.port for r in house.peer.asked if "/make_join/" in r.target] == [2, 3]


UNKNOWN = [
    HttpResponse(status=404, headers={}, body=b'{"errcode":"M_UNRECOGNIZED","error":"no such thing"}'),
    HttpResponse(status=400, headers={}, body=b'{"errcode":"M_UNRECOGNIZED","error":"no such thing"}'),
    HttpResponse(status=405, headers={}, body=b'{"errcode":"M_UNRECOGNIZED","error":"not so"}'),
    HttpResponse(status=404, headers={}, body=b"404 page not found"),
]


def steps(house: ServerWithPeer, step: str) -> list[str]:
    return [r.target.split("/")[3] for r in house.peer.asked if f"/{step}/" in r.target]


@pytest.mark.parametrize("said", UNKNOWN, ids=["404", "400", "405", "text"])
@pytest.mark.parametrize("version", ["8", "11", "12"])
async def test_a_resident_that_knows_only_the_old_requests_is_asked_by_these(tmp_path, version, said):
    async with server_with_peer(tmp_path, version) as house:
        resident = Resident(house, version)
        resident.old = said
        name = await resident.entered()
        assert name == event_id(resident.made[0], resident.room.version)
        assert steps(house, "send_join") == ["v2", "v1"]
        membership = house.matrix.remote_membership
        user = house.matrix.bridge_user
        left = await membership.leave_remote(resident.room.room_id, user, [THEIRS], {"reason": "it is late"})
        assert left is not None
        assert resident.made[-1]["content"] == {"membership": "leave", "reason": "it is late"}
        assert steps(house, "send_leave") == ["v2", "v1"]


async def test_a_room_of_ours_is_entered_by_a_resident_of_old(tmp_path):
    """The signature that a restricted room asks for, in an answer of version 1."""
    async with server_with_peer(tmp_path, "12") as house:
        resident = Resident(house, "12")
        resident.old = UNKNOWN[0]
        house.peer.answer = resident
        membership = house.matrix.remote_membership
        user = house.matrix.bridge_user
        join, server = await membership.get_cosigned_join(resident.room.room_id, user, [THEIRS])
        assert (server, join.raw["signatures"].keys()) == (THEIRS, {OURS, THEIRS})
        assert steps(house, "send_join") == ["v2", "v1"]


@pytest.mark.parametrize(
    "said",
    [
        HttpResponse(status=403, headers={}, body=b'{"errcode":"M_FORBIDDEN","error":"no"}'),
        HttpResponse(status=404, headers={}, body=b'{"errcode":"M_NOT_FOUND","error":"no such room"}'),
        HttpResponse(status=400, headers={}, body=b'{"errcode":"M_BAD_JSON","error":"bad"}'),
    ],
    ids=["403", "404", "400"],
)
async def test_what_a_resident_refuses_it_is_not_asked_again_in_the_old_way(tmp_path, said):
    async with server_with_peer(tmp_path, "12") as house:
        resident = Resident(house, "12")
        resident.old = said
        await resident.refused()
        assert steps(house, "send_join") == ["v2"]


@pytest.mark.parametrize("body", [[200], [200, []], [], "x", {"state": []}, [200, {"state": []}, 1]])
async def test_an_old_answer_that_is_none_is_no_room(tmp_path, body):
    async with server_with_peer(tmp_path, "12") as house:
        resident = Resident(house, "12")
        resident.old = UNKNOWN[0]

        def answer(request: HttpRequest) -> Any:
            return (200, body) if "/v1/send_join/" in request.target else resident(request)

        house.peer.answer = answer
        with pytest.raises(CannotOpenRoom):
            await house.matrix.network.open_room(ALIAS, create=False)
        assert house.matrix.get_room(resident.room.room_id) is None


async def test_reasons_to_join_and_knock_reach_the_event(tmp_path):
    async with server_with_peer(tmp_path, "12") as house:
        resident = Resident(house, "12")

        def answer(request: HttpRequest) -> Any:
            if "/make_knock/" in request.target:
                user = house.matrix.bridge_user
                content = {"membership": "knock"}
                draft = house.forger.draft(resident.room, "m.room.member", content, user, sender=user)
                return 200, {"room_version": "12", "event": draft}
            if "/send_knock/" in request.target:
                resident.made.append(orjson.loads(request.body or b""))
                return 200, {"knock_room_state": []}
            return resident(request)

        house.peer.answer = answer
        matrix = house.matrix
        where = resident.room.room_id, matrix.bridge_user, [THEIRS], {"reason": "it is cold"}
        await matrix.remote_membership.knock(*where)
        await matrix.remote_membership.join(*where)
        assert [(e["content"]["membership"], e["content"]["reason"]) for e in resident.made] == [
            ("knock", "it is cold"),
            ("join", "it is cold"),
        ]
