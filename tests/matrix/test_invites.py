"""Invites to local users and by local users: signatures, refusals, and the old requests."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hansa_matrix.crypto import SigningKey, verify_signature
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from hansa_matrix.proto.signing import event_signable, signatures_of, with_signature
from matrix.server_with_peer import OURS, THEIRS, V1, V2, ServerWithPeer, server_with_peer
from matrix.two_servers import (
    OTHER,
    USER,
    at,
    each_version,
    invited,
    refused,
)
from peers.event_forge import JoinedRoom


def foreign_room(house: ServerWithPeer, version: str) -> JoinedRoom:
    """A room of the forger's own, its person the creator."""
    room = JoinedRoom("!made:" + THEIRS, version, USER)
    draft = house.forger.draft(
        room, "m.room.create", {"room_version": version, "creator": USER}, "", prev_events=[]
    )
    if version == "12":
        del draft["room_id"]
    create = pdu_from_raw(house.forger.finish(room, draft), room.version)
    room.room_id = create.room_id
    room.keep(create)
    house.forger.created[room.room_id] = dict(create.raw)
    member = house.forger.draft(room, "m.room.member", {"membership": "join"}, USER)
    room.keep(pdu_from_raw(house.forger.finish(room, member), room.version))
    return room


def invite_to(house: ServerWithPeer, room: JoinedRoom, user: str, **over: Any) -> dict[str, Any]:
    draft = house.forger.draft(room, "m.room.member", {"membership": "invite"}, user, **over)
    return house.forger.finish(room, draft)


@each_version
async def test_an_invite_is_countersigned_and_nothing_else(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        room = foreign_room(house, version)
        raw = invite_to(house, room, house.matrix.bridge_user)
        name = event_id(raw, room.version)
        state = [house.forger.created[room.room_id]]
        body = {"room_version": version, "event": {**raw, "unsigned": {"age": 1}}, "invite_room_state": state}
        status, answer = await house.ask("PUT", f"{V2}/invite/{at(room.room_id, name)}", body)
        assert status == 200, answer
        signed = answer["event"]
        assert {k: v for k, v in signed.items() if k != "signatures"} == {
            k: v for k, v in raw.items() if k != "signatures"
        }
        assert signed["signatures"][THEIRS] == raw["signatures"][THEIRS]
        key = house.matrix.signing_keys.current
        assert verify_signature(
            key.public, signatures_of(signed, OURS)[key.key_id], event_signable(signed, room.version)
        )
        assert event_id(signed, room.version) == name


async def test_invites_that_are_refused(tmp_path):
    async with server_with_peer(tmp_path) as house:
        room = foreign_room(house, "12")
        bot = house.matrix.bridge_user
        good = invite_to(house, room, bot)
        create = house.forger.created[room.room_id]
        whole = {"room_version": "12", "event": good, "invite_room_state": [create]}

        async def no(status: int, code: str, where: str = "", **change: Any) -> None:
            body = {k: v for k, v in {**whole, **change}.items() if v is not ...}
            name = event_id(body["event"], room.version) if isinstance(body.get("event"), dict) else "$x"
            await refused(house, status, code, "PUT", f"{V2}/invite/{where or at(room.room_id, name)}", body)

        await no(400, "M_INCOMPATIBLE_ROOM_VERSION", room_version="99")
        await no(400, "M_INCOMPATIBLE_ROOM_VERSION", room_version=...)
        await no(400, "M_INVALID_PARAM", event=...)
        await no(400, "M_INVALID_PARAM", where=at(room.room_id, "$other"))
        await no(400, "M_INVALID_PARAM", where=at("!other", event_id(good, room.version)))
        await no(400, "M_MISSING_PARAM", invite_room_state=[])
        await no(400, "M_INVALID_PARAM", invite_room_state=[house.forger.created[house.room.room_id]])
        await no(400, "M_INVALID_PARAM", invite_room_state="x")
        await no(403, "M_FORBIDDEN", event=invite_to(house, room, OTHER))
        await no(403, "M_FORBIDDEN", event={**good, "signatures": {THEIRS: {"ed25519:now": "AAAA"}}})
        await no(400, "M_INVALID_PARAM", event=invite_to(house, room, bot, sender="@a:elsewhere"))
        join = house.forger.draft(room, "m.room.member", {"membership": "join"}, USER)
        await no(400, "M_INVALID_PARAM", event=house.forger.finish(room, join))
        assert await house.matrix.store.count("invite") == 0


def stripped(raw: dict[str, Any]) -> dict[str, Any]:
    return {name: raw[name] for name in ("type", "state_key", "sender", "content")}


async def test_what_is_shown_of_a_room_may_be_stripped_events(tmp_path):
    """Dendrite sends these, and Synapse takes them."""
    async with server_with_peer(tmp_path) as house:
        room = foreign_room(house, "12")
        raw = invite_to(house, room, house.matrix.bridge_user)
        where = f"{V2}/invite/{at(room.room_id, event_id(raw, room.version))}"
        create = stripped(house.forger.created[room.room_id])
        name = {"type": "m.room.name", "state_key": "", "sender": USER, "content": {"name": "Verona"}}
        body = {"room_version": "12", "event": raw, "invite_room_state": [name, create]}
        status, answer = await house.ask("PUT", where, body)
        assert status == 200, answer
        assert set(answer["event"]["signatures"]) == {OURS, THEIRS}
        waiting = await house.matrix.pending_invites.get(room.room_id, house.matrix.bridge_user)
        assert {one["type"] for one in waiting.shown} >= {"m.room.create", "m.room.name"}


@pytest.mark.parametrize(
    "spoil",
    [
        {"type": 7},
        {"type": None},
        {"state_key": None},
        {"sender": "nobody"},
        {"content": []},
        {"hashes": {"sha256": "x"}},
        {"signatures": {}, "hashes": {}, "auth_events": []},
        {"auth_events": "x"},
    ],
)
async def test_what_is_shown_of_a_room_and_malformed_is_refused(tmp_path, spoil):
    async with server_with_peer(tmp_path) as house:
        room = foreign_room(house, "12")
        raw = invite_to(house, room, house.matrix.bridge_user)
        where = f"{V2}/invite/{at(room.room_id, event_id(raw, room.version))}"
        create = {**stripped(house.forger.created[room.room_id]), **spoil}
        for state in ([create], [stripped(house.forger.created[room.room_id]), create]):
            body = {"room_version": "12", "event": raw, "invite_room_state": state}
            await refused(house, 400, "M_INVALID_PARAM", "PUT", where, body)
        assert await house.matrix.store.count("invite") == 0


@each_version
async def test_an_invite_of_ours_goes_out_and_is_kept_with_their_signature(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        room, seen = house.room, []

        def answer(request):
            if "/v2/invite/" not in request.target:
                return None
            body = orjson.loads(request.body)
            seen.append(body)
            raw = body["event"]
            signature = house.forger.key.sign(event_signable(raw, room.version))
            changed = {**raw, "unsigned": {"x": 1}}
            changed = with_signature(changed, "third.example", "ed25519:x", "AAAA")
            return 200, {"event": with_signature(changed, THEIRS, house.forger.key.key_id, signature)}

        house.peer.answer = answer
        outcome = await invited(house, OTHER)
        assert outcome.refusal is None
        assert seen[0]["room_version"] == version
        shown = {(e["type"], e["state_key"]): e for e in seen[0]["invite_room_state"]}
        assert event_id(shown["m.room.create", ""], room.version) == room.state["m.room.create", ""]
        assert {"m.room.join_rules", "m.room.member"} <= {kind for kind, _ in shown}
        name = event_id(seen[0]["event"], room.version)
        status, got = await house.ask("GET", f"{V1}/event/{at(name)}")
        assert status == 200
        assert got["pdus"][0]["signatures"].keys() == {OURS, THEIRS}
        assert "unsigned" not in got["pdus"][0]


@pytest.mark.parametrize("how", ["refused", "unsigned", "another event", "a wrong signature", "gone"])
async def test_an_invite_of_ours_that_is_not_taken_never_was(tmp_path, how):
    async with server_with_peer(tmp_path) as house:
        room = house.room

        def answer(request):
            if "/v2/invite/" not in request.target:
                return None
            raw = orjson.loads(request.body)["event"]
            if how == "refused":
                return 403, {"errcode": "M_FORBIDDEN", "error": "no thanks"}
            if how == "gone":
                return 502, {}
            if how == "unsigned":
                return 200, {"event": raw}
            if how == "another event":
                raw = {**raw, "depth": raw["depth"] + 1}
            key: SigningKey = house.forger.secret if how == "a wrong signature" else house.forger.key
            signature = key.sign(event_signable(raw, room.version))
            return 200, {"event": with_signature(raw, THEIRS, house.forger.key.key_id, signature)}

        house.peer.answer = answer
        outcome = await invited(house, OTHER)
        assert outcome.refusal is not None
        state = await house.matrix.get_room(room.room_id).state()
        assert ("m.room.member", OTHER) not in state


def by_hand(house: ServerWithPeer, body: Any, room: JoinedRoom) -> dict[str, Any]:
    signature = house.forger.key.sign(event_signable(body, room.version))
    return with_signature(body, THEIRS, house.forger.key.key_id, signature)


@pytest.mark.parametrize("version", ["1", "2"])
async def test_an_invite_as_it_was_done_in_the_beginning(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        room = foreign_room(house, version)
        raw = invite_to(house, room, house.matrix.bridge_user)
        shown = [house.forger.created[room.room_id]]
        path = f"{V1}/invite/{at(room.room_id, event_id(raw, room.version))}"
        status, answer = await house.ask("PUT", path, {**raw, "unsigned": {"invite_room_state": shown}})
        assert status == 200
        assert answer[0] == 200 and answer[1]["event"]["signatures"].keys() == {OURS, THEIRS}
        assert await house.matrix.store.count("invite") == 1
        await refused(
            house, 400, "M_INVALID_PARAM", "PUT", path, {**raw, "unsigned": {"invite_room_state": 7}}
        )


@pytest.mark.parametrize(("version", "taken"), [("1", True), ("2", True), ("3", False), ("12", False)])
async def test_a_server_that_knows_only_that_is_invited_so(tmp_path, version, taken):
    async with server_with_peer(tmp_path, version) as house:
        asked: list[str] = []

        def answer(request: Any) -> Any:
            if "/invite/" not in request.target:
                return None
            asked.append(request.target.split("/")[3])
            if "/v2/" in request.target:
                return 404, {"errcode": "M_UNRECOGNIZED"}
            body = orjson.loads(request.body)
            assert body["unsigned"]["invite_room_state"]
            del body["unsigned"]
            return 200, [200, {"event": by_hand(house, body, house.room)}]

        house.peer.answer = answer
        outcome = await invited(house, OTHER)
        assert (outcome.refusal is None) is taken
        assert asked == (["v2", "v1"] if taken else ["v2"])


@pytest.mark.parametrize("odd", [["leave"], {"leave": 1}, 7, None], ids=repr)
async def test_what_takes_an_invite_back_and_is_no_membership_takes_nothing_along(tmp_path, odd):
    async with server_with_peer(tmp_path, accept_invites=False) as house:
        room, bot = foreign_room(house, "12"), house.matrix.bridge_user
        raw = invite_to(house, room, bot)
        name = event_id(raw, room.version)
        body = {
            "room_version": "12",
            "event": raw,
            "invite_room_state": [house.forger.created[room.room_id]],
        }
        assert (await house.ask("PUT", f"{V2}/invite/{at(room.room_id, name)}", body))[0] == 200
        draft = house.forger.draft(room, "m.room.member", {"membership": odd}, bot, auth_events=[name])
        beside = house.forger.message(house.room, "beside")
        assert (await house.send(house.forger.finish(room, draft), beside))[0] == 200
        assert await house.fate(beside) == "accepted"
        assert await house.matrix.store.count("invite") == 1
