"""Rooms with a policy server (P-1 to P-6): local events on their way out, events of others before they are
shown.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hansa import (
    Action,
    Member,
    Membership,
    Message,
    NativeId,
    RefusalCode,
    Role,
    Standing,
    SubmitResult,
    Verdict,
)
from hansa import Submission as Submitted
from hansa.testing import until
from hansa_matrix.crypto import SigningKey, verify_signature
from hansa_matrix.federation.client import RemoteError
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw, signing_key_ids
from hansa_matrix.proto.room_versions import VERSIONS
from hansa_matrix.proto.servers.policy_server import (
    KEY_ID,
    PolicyServer,
    add_policy_signature,
    is_signed,
    policy_server,
)
from hansa_matrix.proto.signing import event_signable, with_signature
from hansa_matrix.rooms.pdu_receipt import PduBatch
from hypothesis import given
from matrix.proto.json_values import json_values
from matrix.server_with_peer import OURS, THEIRS, V1, ServerWithPeer, server_with_peer
from matrix.two_servers import OTHER, at, invited

KEY = SigningKey.from_seed("ed25519:x", b"p" * 32)
USER = f"@m:{THEIRS}"


class PolicyServerStub:
    """The forger's server as the policy server of ``room``; ``says`` is what it answers to ``/sign``."""

    def __init__(self, house: ServerWithPeer) -> None:
        self.house = house
        self.says: Any = "good"
        self.asked: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []
        house.peer.answer = self._answer

    async def named(self, **over: Any) -> str:
        content = {"via": THEIRS, "public_keys": {"ed25519": KEY.public}, **over}
        state = self.house.matrix.local_events.send_state
        return await state(self.house.room.room_id, "m.room.policy", "", content)

    def sign(self, raw: dict[str, Any]) -> str:
        return KEY.sign(event_signable(raw, self.house.room.version))

    def _answer(self, request: Any) -> Any:
        if request.target == "/_matrix/policy/v1/sign":
            raw = orjson.loads(request.body)
            self.asked.append(raw)
            if self.says == "good":
                return 200, {THEIRS: {KEY_ID: self.sign(raw)}}
            if self.says == "bad signature":
                return 200, {THEIRS: {KEY_ID: KEY.sign(b"another")}}
            return self.says
        if "/send/" in request.target:
            self.sent += orjson.loads(request.body)["pdus"]
            return 200, {}
        if "/invite/" in request.target:
            raw = orjson.loads(request.body)["event"]
            self.sent.append(raw)
            key = self.house.forger.key
            signature = key.sign(event_signable(raw, self.house.room.version))
            return 200, {"event": with_signature(raw, THEIRS, key.key_id, signature)}
        return None

    def signed(self, raw: dict[str, Any]) -> dict[str, Any]:
        return with_signature(raw, THEIRS, KEY_ID, self.sign(raw))

    async def until_sent(self, type_: str) -> dict[str, Any]:
        return await until(lambda: next((raw for raw in self.sent if raw["type"] == type_), None))


def said(house: ServerWithPeer, text: str = "hello", sender: str = "") -> Submitted:
    user = sender or house.matrix.bridge_user
    return Submitted(
        origin=NativeId("matrix", f"said-{text}-{user}-{id(text)}"),
        room=NativeId("matrix", house.room.room_id),
        sender=NativeId("matrix", user),
        content=Message(text=text),
        ts=0,
    )


async def say(house: ServerWithPeer, text: str = "hello", sender: str = "") -> SubmitResult:
    return (await house.app.contexts["matrix"].submit([said(house, text, sender)]))[0]


def shown(house: ServerWithPeer) -> list[str]:
    room = house.app.rooms.room_of(NativeId("matrix", house.room.room_id))
    return [e.content.text for e in room.tail if isinstance(e.content, Message)]


@pytest.mark.parametrize("version", ["1", "9", "12"])
async def test_p2_an_event_of_ours_is_signed_before_anybody_has_it(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        police = PolicyServerStub(house)
        await police.named()
        assert police.asked == []  # not about the event that names it
        outcome = await say(house)
        assert outcome.refusal is None
        sent = await police.until_sent("m.room.message")
        assert [raw["content"]["body"] for raw in police.asked] == ["hello"]
        assert police.asked[0]["signatures"].keys() == {OURS}
        assert sent["signatures"].keys() == {OURS, THEIRS}
        message = event_signable(sent, house.room.version)
        assert verify_signature(KEY.public, sent["signatures"][THEIRS][KEY_ID], message)
        name = event_id(sent, house.room.version)
        _, got = await house.ask("GET", f"{V1}/event/{at(name)}")
        assert got["pdus"][0]["signatures"] == sent["signatures"]
        assert shown(house) == ["hello"]


@pytest.mark.parametrize(
    ("says", "code", "text"),
    [
        ((400, {"errcode": "M_FORBIDDEN", "error": "that is spam"}), RefusalCode.FORBIDDEN, "that is spam"),
        ((404, {"errcode": "M_NOT_FOUND", "error": "not my room"}), RefusalCode.FORBIDDEN, "not my room"),
        ((200, {}), RefusalCode.FORBIDDEN, "no valid signature"),
        ((200, {OURS: {KEY_ID: "AAAA"}}), RefusalCode.FORBIDDEN, "no valid signature"),
        ("bad signature", RefusalCode.FORBIDDEN, "no valid signature"),
        ((503, {}), RefusalCode.UNREACHABLE, "does not answer"),
        ((429, {}), RefusalCode.UNREACHABLE, "does not answer"),
    ],
)
async def test_p4_what_it_refuses_never_was_and_the_sender_is_told_why(tmp_path, says, code, text):
    async with server_with_peer(tmp_path) as house:
        police = PolicyServerStub(house)
        await police.named()
        police.says = says
        outcome = await say(house)
        assert outcome.event is None and outcome.refusal is not None
        assert outcome.refusal.code is code and text in outcome.refusal.text
        assert shown(house) == []
        police.says = "good"
        await say(house, "better")
        await police.until_sent("m.room.message")
        bodies = [raw["content"].get("body") for raw in police.sent if raw["type"] == "m.room.message"]
        assert bodies == ["better"]


@pytest.mark.parametrize(
    "over",
    [
        {"via": OURS},  # P-6
        {"via": "absent.example"},
        {"via": 7},
        {"via": "no server name/"},
        {"public_keys": {}},
        {"public_keys": {"ed25519": 7}},
        {"public_keys": "x"},
    ],
)
async def test_p1_a_room_whose_policy_is_not_valid_has_none(tmp_path, over):
    async with server_with_peer(tmp_path) as house:
        police = PolicyServerStub(house)
        await police.named(**over)
        assert (await say(house)).refusal is None
        sent = await police.until_sent("m.room.message")
        assert sent["signatures"].keys() == {OURS} and police.asked == []
        assert await house.fate(house.forger.message(house.room, "theirs")) == "accepted"


async def test_p1_a_policy_server_that_has_left_is_none(tmp_path):
    async with server_with_peer(tmp_path) as house:
        police = PolicyServerStub(house)
        await police.named()
        leave = house.forger.draft(house.room, "m.room.member", {"membership": "leave"}, USER)
        await house.send(police.signed(house.forger.finish(house.room, leave)))
        view = house.app.contexts["matrix"].get_view(house.room.room_id)
        await until(lambda: ("matrix", THEIRS) not in view.joined_servers)
        police.says = (400, {"errcode": "M_FORBIDDEN"})
        assert (await say(house)).refusal is None
        assert police.asked == []


async def test_who_comes_in_with_a_word_is_seen_twice(tmp_path):
    async with server_with_peer(tmp_path) as house:
        police = PolicyServerStub(house)
        await police.named()
        person = f"@new:{OURS}"
        assert (await say(house, "first", person)).refusal is None
        assert [raw["type"] for raw in police.asked] == ["m.room.member", "m.room.message"]
        await police.until_sent("m.room.message")
        ours = [r for r in police.sent if r["sender"] == person]
        assert [r["type"] for r in ours] == ["m.room.member", "m.room.message"]
        assert all(KEY_ID in r["signatures"][THEIRS] for r in ours)
        police.says = (400, {"errcode": "M_FORBIDDEN", "error": "nobody more"})
        outcome = await say(house, "again", f"@other:{OURS}")
        assert outcome.refusal is not None and outcome.refusal.text == "nobody more"


async def test_an_invite_is_seen_before_the_invited_server_has_it(tmp_path):
    async with server_with_peer(tmp_path) as house:
        police = PolicyServerStub(house)
        await police.named()
        outcome = await invited(house, OTHER)
        assert outcome.refusal is None
        assert [raw["content"]["membership"] for raw in police.asked] == ["invite"]
        async with asyncio.timeout(5):  # once to countersign, once in a transaction
            while len(sent := [r for r in police.sent if r["content"].get("membership")]) < 2:
                await asyncio.sleep(0)
        assert all(KEY_ID in raw["signatures"][THEIRS] for raw in sent)
        police.says = (400, {"errcode": "M_FORBIDDEN"})
        police.sent.clear()
        assert (await invited(house, f"@third:{THEIRS}")).refusal is not None
        assert police.sent == []


async def test_nobody_is_kept_in_a_room(tmp_path):
    async with server_with_peer(tmp_path) as house:
        police, person = PolicyServerStub(house), f"@new:{OURS}"
        await police.named()
        await say(house, "first", person)
        police.says = (503, {})
        administration = house.matrix.local_events
        leave = Member(user=NativeId("matrix", person), membership=Membership.LEAVE)
        left = await administration.send_membership(
            person, house.room.room_id, leave, person, {"membership": "leave"}
        )
        assert left is None
        kicked = await administration.send_membership(
            house.matrix.bridge_user, house.room.room_id,
            Member(user=NativeId("matrix", USER), membership=Membership.LEAVE), USER, {"membership": "leave"},
        )  # fmt: skip
        assert kicked is not None


# Theirs.


async def until_shown(house: ServerWithPeer, text: str) -> None:
    await until(lambda: text in shown(house))


async def until_judged(house: ServerWithPeer) -> None:
    await until(lambda: not house.matrix.staging.waiting_count(house.room.room_id))


async def test_p3_an_event_with_its_signature_is_not_asked_about(tmp_path):
    async with server_with_peer(tmp_path) as house:
        police = PolicyServerStub(house)
        await police.named()
        raw = police.signed(house.forger.message(house.room, "fine"))
        assert await house.fate(raw) == "accepted"
        assert shown(house) == ["fine"] and police.asked == []


@pytest.mark.parametrize("how", ["missing", "invalid", "rotated"])
async def test_p4_an_event_without_is_asked_about_once_and_kept_with_it(tmp_path, how):
    async with server_with_peer(tmp_path) as house:
        police = PolicyServerStub(house)
        await police.named()
        raw = house.forger.message(house.room, "fine")
        if how == "invalid":
            raw = with_signature(raw, THEIRS, KEY_ID, KEY.sign(b"something else"))
        if how == "rotated":
            old = SigningKey.from_seed("ed25519:old", b"o" * 32)
            raw = with_signature(raw, THEIRS, KEY_ID, old.sign(event_signable(raw, house.room.version)))
        assert await house.fate(raw) == "accepted"
        assert shown(house) == ["fine"] and len(police.asked) == 1
        _, got = await house.ask("GET", f"{V1}/event/{at(event_id(raw, house.room.version))}")
        signatures = got["pdus"][0]["signatures"][THEIRS]
        assert signatures == {house.forger.key.key_id: raw["signatures"][THEIRS][house.forger.key.key_id],
                              KEY_ID: police.sign(raw)}  # fmt: skip


@pytest.mark.parametrize("says", [(400, {"errcode": "M_FORBIDDEN"}), (200, {}), "bad signature", (503, {})])
async def test_p4_what_is_not_recommended_is_soft_failed_and_the_room_goes_on(tmp_path, says):
    async with server_with_peer(tmp_path) as house:
        police = PolicyServerStub(house)
        await police.named()
        police.says = says
        raw = house.forger.message(house.room, "spam")
        assert await house.fate(raw) == "soft_failed"
        assert shown(house) == [] and len(police.asked) == 1
        follows = house.forger.message(
            house.room, "after", prev_events=[event_id(raw, house.room.version)], depth=raw["depth"] + 1
        )
        assert await house.fate(police.signed(follows)) == "accepted"
        assert shown(house) == ["after"]


async def test_p5_a_dead_policy_server_is_left_alone_for_a_while(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        police = PolicyServerStub(house)
        await police.named()
        clock = house.app.contexts["matrix"].clock
        start, at_ = clock.monotonic(), [0.0]
        monkeypatch.setattr(type(clock), "monotonic", lambda _: start + at_[0])
        police.says = (503, {})
        for number in range(5):
            assert await house.fate(house.forger.message(house.room, f"m{number}")) == "soft_failed"
        assert len(police.asked) == 3
        outcome = await say(house)
        assert outcome.refusal is not None and outcome.refusal.code is RefusalCode.UNREACHABLE
        assert len(police.asked) == 3
        at_[0] = 61.0
        police.says = "good"
        assert (await say(house)).refusal is None


async def test_p5_the_room_does_not_wait_for_an_answer(tmp_path):
    async with server_with_peer(tmp_path) as house:
        police = PolicyServerStub(house)
        await police.named()
        hold = asyncio.Event()
        request = house.peer.request

        async def slow(one: Any) -> Any:
            if one.target == "/_matrix/policy/v1/sign":
                await hold.wait()
            return await request(one)

        house.peer.request = slow  # type: ignore[method-assign]
        await house.send(house.forger.message(house.room, "asked about"))
        assert await house.fate(police.signed(house.forger.message(house.room, "signed"))) == "accepted"
        assert shown(house) == ["signed"]
        hold.set()
        await until_shown(house, "asked about")


async def test_of_two_changes_of_ranks_that_are_signed_at_once_none_takes_back_the_other(tmp_path):
    async with server_with_peer(tmp_path) as house:
        police = PolicyServerStub(house)
        await police.named()
        both, request = asyncio.Event(), house.peer.request

        async def slow(one: Any) -> Any:
            if one.target == "/_matrix/policy/v1/sign":
                waiting.append(one)
                if len(waiting) == len(users):
                    both.set()
                await both.wait()
            return await request(one)

        waiting, users = list[Any](), (f"@one:{THEIRS}", f"@two:{THEIRS}")
        house.peer.request = slow  # type: ignore[method-assign]
        changes = [
            Submitted(
                origin=NativeId("matrix", f"rank of {user}"),
                room=NativeId("matrix", house.room.room_id),
                sender=NativeId("matrix", house.matrix.bridge_user),
                content=Standing(user=NativeId("matrix", user), role=Role.MODERATOR),
                ts=0,
            )
            for user in users
        ]
        submit = house.app.contexts["matrix"].submit
        outcomes = [one for (one,) in await asyncio.gather(*(submit([change]) for change in changes))]
        room = house.matrix.get_room(house.room.room_id)
        assert room is not None
        key = ("m.room.power_levels", "")
        levels = (await room.events_of(await room.state(), [key]))[key]
        given = [user in levels.content["users"] for user in users]
        assert [one.refusal is None for one in outcomes] == given
        assert sorted(given) == [False, True]
        assert {one.refusal.code for one in outcomes if one.refusal is not None} == {RefusalCode.CONFLICT}
        (again,) = await submit([changes[given.index(False)]])
        assert again.refusal is None


async def refused(house: ServerWithPeer, text: str) -> tuple[PolicyServerStub, dict[str, Any]]:
    """An event that the policy server did not recommend, in its place and hidden."""
    police = PolicyServerStub(house)
    await police.named()
    police.says = (400, {"errcode": "M_FORBIDDEN"})
    raw = house.forger.message(house.room, text)
    assert await house.fate(raw) == "soft_failed"
    await until_judged(house)
    return police, raw


async def test_p5_what_comes_again_with_its_signature_is_shown_after_all(tmp_path):
    async with server_with_peer(tmp_path) as house:
        police, raw = await refused(house, "well after all")
        assert (await house.send(raw))[0] == 200  # as it was: it is asked about again, and stays hidden
        await until(lambda: len(police.asked) >= 2)
        await until_judged(house)
        assert shown(house) == []
        await house.send(police.signed(raw))
        await until_shown(house, "well after all")
        await until_judged(house)
        await house.send(police.signed(raw))
        assert await house.fate(police.signed(house.forger.message(house.room, "next"))) == "accepted"
        assert shown(house) == ["well after all", "next"]


async def test_p5_what_was_taken_back_meanwhile_says_nothing_when_it_comes_again(tmp_path):
    async with server_with_peer(tmp_path) as house:
        police, raw = await refused(house, "well after all")
        name = event_id(raw, house.room.version)
        police.says = "good"
        redact = house.matrix.network.admin_commands()["rooms redact"]
        await redact({"room": house.room.room_id, "event": name})
        await house.send(police.signed(raw))
        events = house.matrix.get_room(house.room.room_id).events
        async with asyncio.timeout(5):
            while not (found := (await events.load([name], house.room.version))[name]).shown:
                await asyncio.sleep(0)
        assert (found.redacted, found.pdu.content) == (True, {})
        assert shown(house) == []


@pytest.mark.parametrize("again", ["signed", "unsigned", "forged"])
async def test_what_comes_again_with_its_signature_while_it_is_asked_about_is_shown(
    tmp_path, monkeypatch, again
):
    async with server_with_peer(tmp_path) as house:
        police = PolicyServerStub(house)
        await police.named()
        matrix = house.matrix
        asked, decided = asyncio.Event(), asyncio.Event()
        request = matrix.federation_client.request

        async def stalls(method: str, server: str, target: str, *rest: Any, **more: Any) -> Any:
            if target != "/_matrix/policy/v1/sign":
                return await request(method, server, target, *rest, **more)
            asked.set()
            await decided.wait()
            raise RemoteError("not for me", hint=403, code="M_FORBIDDEN")

        monkeypatch.setattr(matrix.federation_client, "request", stalls)
        raw = house.forger.message(house.room, "twice")
        assert (await house.send(raw))[0] == 200
        async with asyncio.timeout(5):
            await asked.wait()
        copies = {
            "signed": police.signed(raw),
            "unsigned": raw,
            "forged": with_signature(raw, THEIRS, KEY_ID, KEY.sign(b"another")),
        }
        assert (await house.send(copies[again]))[0] == 200
        rows = await matrix.store.scan("staged", equal=(house.room.room_id,))
        assert [orjson.loads(row.body)["signatures"] for row in rows] == [
            copies["signed" if again == "signed" else "unsigned"]["signatures"]
        ]
        decided.set()
        await until_judged(house)
        assert shown(house) == (["twice"] if again == "signed" else [])
        assert await matrix.store.scan("staged", equal=(house.room.room_id,)) == []


@pytest.mark.parametrize("action", [Action.ALLOW, Action.WITHHOLD])
async def test_what_comes_again_with_its_signature_is_still_judged_by_our_policies(tmp_path, action):
    async with server_with_peer(tmp_path) as house:
        police, raw = await refused(house, "well after all")
        matrix = house.matrix
        room = matrix.get_room(house.room.room_id)
        again = pdu_from_raw(police.signed(raw), room.version)
        turn = PduBatch(room, matrix.local_server, matrix.policy_server)
        prepared = await turn.prepare_event(
            await matrix.submitter.build_submission(again, THEIRS), Verdict(action=action)
        )
        allowed = action is Action.ALLOW
        assert prepared.visible is allowed
        (write,) = (w for w in prepared.writes if w.collection.endswith("pdu"))
        assert write.fields["status"] == ("accepted" if allowed else "withheld")


async def test_p6_the_rules_judge_as_ever(tmp_path):
    async with server_with_peer(tmp_path) as house:
        police = PolicyServerStub(house)
        await police.named()
        raw = house.forger.draft(house.room, "m.room.server_acl", {"allow": ["mine"]}, "")
        raw = police.signed(house.forger.finish(house.room, raw))
        assert await house.fate(raw) == "rejected"


async def test_a_join_by_handshake_has_to_be_recommended_too(tmp_path):
    async with server_with_peer(tmp_path) as house:
        police = PolicyServerStub(house)
        await police.named()
        where = at(house.room.room_id, OTHER)
        _, template = await house.ask("GET", f"{V1}/make_join/{where}?ver=12")
        join = house.forger.joining(template, "n")
        path = f"/_matrix/federation/v2/send_join/{at(house.room.room_id, join.event_id)}"
        police.says = (400, {"errcode": "M_FORBIDDEN", "error": "no more"})
        status, answer = await house.ask("PUT", path, join.raw)
        assert (status, answer["errcode"], answer["error"]) == (403, "M_FORBIDDEN", "no more")
        police.says = "good"
        status, answer = await house.ask("PUT", path, join.raw)
        assert status == 200 and KEY_ID in answer["event"]["signatures"][THEIRS]


# Pure.


def test_k6_a_policy_servers_key_is_never_looked_up():
    version = VERSIONS["12"]
    raw = {"type": "m.room.message", "room_id": "!r", "sender": f"@a:{THEIRS}", "content": {}, "depth": 1,
           "prev_events": [], "auth_events": [], "origin_server_ts": 1, "hashes": {"sha256": "x"},
           "signatures": {THEIRS: {"ed25519:now": "AAAA", KEY_ID: "AAAA"}}}  # fmt: skip
    assert signing_key_ids(pdu_from_raw(raw, version), [THEIRS]) == {(THEIRS, "ed25519:now")}


@given(json_values)
def test_nothing_makes_it_raise(value: Any) -> None:
    version = VERSIONS["12"]
    if isinstance(value, dict):
        policy_server(value)
    policy_server({"via": THEIRS, "public_keys": value})
    raw = {"type": "m.room.message", "room_id": "!r", "sender": f"@a:{THEIRS}", "content": {}, "depth": 1,
           "prev_events": [], "auth_events": [], "origin_server_ts": 1, "hashes": {"sha256": "x"},
           "signatures": {}}  # fmt: skip
    pdu = pdu_from_raw(raw, version)
    for server in (PolicyServer(THEIRS, KEY.public), PolicyServer(THEIRS, "no key")):
        assert add_policy_signature(pdu, version, server, {THEIRS: value}) is None or isinstance(value, dict)
        assert add_policy_signature(pdu, version, server, value) is None or isinstance(value, dict)
        signed = with_signature(raw, THEIRS, KEY_ID, value) if isinstance(value, str) else raw
        assert not is_signed(pdu_from_raw(signed, version), version, server, verify_signature)
