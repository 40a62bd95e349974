"""Hostile transactions and events (server-server API, "Transactions", "PDUs")."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from e2e.hostile_suite import Case, HostileSuite, Run, asked, pdu
from hansa_matrix.proto.hashing import event_id
from peers.event_forge import JoinedRoom
from peers.fake_homeserver import V1

_BAD_JSON, _NOT_JSON, _INVALID = "400 M_BAD_JSON", "400 M_NOT_JSON", "400 M_INVALID_PARAM"
_FORBIDDEN, _NOT_FOUND = "403 M_FORBIDDEN", "404 M_NOT_FOUND"


def _txn(body: Any) -> Run:
    """A transaction of any body under an id of its own."""
    return asked("PUT", lambda _: f"/v1/send/{secrets.token_hex(8)}", body)


def _nested(depth: int) -> bytes:
    return b'{"pdus":[' + b"[" * depth + b"]" * depth + b"]}"


async def _replayed(siege: HostileSuite) -> str:
    """The second time under one id nothing is looked at: the answer is the first one's."""
    target, fresh = f"{V1}/send/{secrets.token_hex(8)}", siege.mallory.message(siege.den, "once")
    first = await siege.mallory.request("PUT", siege.name, target, {"pdus": [fresh]})
    again = await siege.mallory.request("PUT", siege.name, target, {"pdus": [1, 2, 3]})
    return "replayed" if first.body == again.body and first.body["pdus"] else f"{first} {again}"


async def _one_bad_apple(siege: HostileSuite) -> str:
    """An event that cannot be taken does not keep the others of its transaction out."""
    room, bad = siege.den, {"room_id": siege.den.room_id, "type": 1}
    good = siege.mallory.message(room, f"good {secrets.token_hex(4)}")
    answer = await siege.mallory.send(siege.name, bad, [], _deep(siege), good)
    assert answer.status == 200, answer
    assert event_id(good, room.version) in answer.body["pdus"], answer
    found = await pdu(lambda _: good)(siege)
    return f"{len(answer.body['pdus'])} answered, {found}"


def _deep(siege: HostileSuite) -> dict[str, Any]:
    raw: dict[str, Any] = siege.mallory.message(siege.den, "deep")
    content: Any = "end"
    for _ in range(150):
        content = {"a": content}
    return {**raw, "content": content}


TRANSACTIONS = [
    Case("send: as it should be", _txn({"pdus": []}), "200"),
    Case("send: no JSON", _txn(b"{"), _NOT_JSON),
    Case("send: a list", _txn(b"[]"), _BAD_JSON),
    Case("send: a string", _txn(b'"pdus"'), _BAD_JSON),
    Case("send: null", _txn(b"null"), _BAD_JSON),
    Case("send: an empty object", _txn(b"{}"), _BAD_JSON),
    Case("send: a comma too many", _txn(b'{"pdus":[],}'), _NOT_JSON),
    Case("send: two documents", _txn(b'{"pdus":[]}{"pdus":[]}'), _NOT_JSON),
    Case("send: byte order mark", _txn(b'\xef\xbb\xbf{"pdus":[]}'), _NOT_JSON),
    Case("send: bytes that are no UTF-8", _txn(b'{"pdus":[],"x":"\xff"}'), _NOT_JSON),
    Case("send: UTF-16", _txn('{"pdus":[]}'.encode("utf-16")), _NOT_JSON),
    Case("send: lone surrogate", _txn(b'{"pdus":[],"x":"\\ud800"}'), "200"),
    Case("send: NUL outside of a string", _txn(b'{"pdus":[]}\0'), _NOT_JSON),
    Case("send: NaN", _txn(b'{"pdus":[NaN]}'), "200"),
    Case("send: Infinity", _txn(b'{"pdus":[],"x":-Infinity}'), "200"),
    Case("send: a number that is infinite", _txn(b'{"pdus":[],"x":1e999}'), "200"),
    Case("send: a number of 5,000 digits", _txn(b'{"pdus":[],"x":' + b"9" * 5000 + b"}"), "200"),
    Case("send: 2,000 levels", _txn(_nested(2000)), "200"),
    Case("send: 200,000 levels", _txn(_nested(200_000)), "200"),
    Case("send: no pdus", _txn({}), _BAD_JSON),
    Case("send: pdus is no list", _txn({"pdus": {}}), _BAD_JSON),
    Case("send: edus is no list", _txn({"pdus": [], "edus": {}}), _BAD_JSON),
    Case("send: 51 PDUs", _txn({"pdus": [1] * 51}), "400 M_TOO_LARGE"),
    Case("send: 101 EDUs", _txn({"pdus": [], "edus": [{}] * 101}), "400 M_TOO_LARGE"),
    Case("send: another origin", _txn({"pdus": [], "origin": "elsewhere.example"}), _INVALID),
    Case("send: origin is a list", _txn({"pdus": [], "origin": []}), _INVALID),
    Case("send: 5 MiB", _txn(b'{"pdus":["' + b"a" * (5 << 20) + b'"]}'), "413 M_TOO_LARGE"),
    Case("send: an id of 256 bytes", asked("PUT", f"/v1/send/{'t' * 256}", {"pdus": []}), _INVALID),
    Case("send: the same id again", _replayed, "replayed"),
    Case("send: EDUs that nobody knows", _txn({"pdus": [], "edus": [{"edu_type": "x"}, 1, [], None]}), "200"),
    Case("send: a float in an EDU", _txn(b'{"edus":[{"content":{"x":1e22}}],"pdus":[]}'), "200"),
    Case(
        "send: 2^70 in an EDU", _txn(b'{"edus":[{"content":{"x":1180591620717411303424}}],"pdus":[]}'), "200"
    ),
    Case("send: 300 levels in an EDU", _txn(b'{"edus":[' + b"[" * 300 + b"]" * 300 + b'],"pdus":[]}'), "200"),
    Case("send: the same key twice, the last counts", _txn(b'{"pdus":7,"pdus":[]}'), "200"),
    Case("send: not in canonical form", _txn(b' { "pdus" : [ ] , "origin_server_ts" : 1 } '), "200"),
    Case("send: one bad apple", _one_bad_apple, "2 answered, accepted"),
]


def _event(**over: Any) -> Run:
    """A message in the den whose fields are replaced before it is hashed and signed; None takes one out."""

    def make(siege: HostileSuite) -> Any:
        fields = {k: v(siege) if callable(v) else v for k, v in over.items()}
        draft = siege.mallory.draft(siege.den, "m.room.message", {"body": "x", "msgtype": "m.text"}) | fields
        gone = [k for k, v in fields.items() if v is None]
        return siege.mallory.finish(siege.den, {k: v for k, v in draft.items() if k not in gone})

    return pdu(make)


def _forged(change: Callable[[HostileSuite, dict[str, Any]], Any]) -> Run:
    """A good message that is changed after it was signed."""
    return pdu(lambda siege: change(siege, siege.mallory.message(siege.den, "forged")))


def _state(kind: str, state_key: str, content: dict[str, Any], **over: Any) -> Run:
    def make(siege: HostileSuite) -> Any:
        key = state_key.replace("MALLORY", siege.mallory.name).replace("FRIEND", siege.friend.name)
        fields = {k: v(siege) if callable(v) else v for k, v in over.items()}
        return siege.mallory.finish(siege.den, siege.mallory.draft(siege.den, kind, content, key, **fields))

    return pdu(make)


def _signed_by(
    key: Callable[[HostileSuite], Any], server: Callable[[HostileSuite], str] = lambda _: ""
) -> Run:
    def make(siege: HostileSuite) -> Any:
        draft = siege.mallory.draft(siege.den, "m.room.message", {"body": "x"})
        return siege.mallory.finish(siege.den, draft, key=key(siege), server=server(siege))

    return pdu(make)


def _tampered(siege: HostileSuite, raw: dict[str, Any]) -> dict[str, Any]:
    """The content is not covered by the signature, only by the hash, which then does not match."""
    return {**raw, "content": {"body": "something else", "msgtype": "m.text"}}


def _with_ids(siege: HostileSuite, raw: dict[str, Any]) -> dict[str, Any]:
    return {**raw, "event_id": "$" + "A" * 43, "unsigned": {"age": 1, "transaction_id": "x"}}


async def _waits(siege: HostileSuite) -> str:
    """An event whose predecessors no server has waits; the room goes on."""
    room, mallory = siege.pit, siege.mallory
    stuck = mallory.message(room, "stuck", prev_events=["$" + secrets.token_urlsafe(32)])
    assert (await mallory.send(siege.name, stuck)).status == 200
    return await _goes_on(siege, room)


async def _goes_on(siege: HostileSuite, room: JoinedRoom) -> str:
    raw = siege.mallory.message(room, f"goes on {secrets.token_hex(4)}")
    return await pdu(lambda _: raw)(siege)


def _auth(change: Callable[[HostileSuite, list[str]], list[str]]) -> Run:
    def make(siege: HostileSuite) -> Any:
        draft = siege.mallory.draft(siege.den, "m.room.message", {"body": "x"})
        return siege.mallory.finish(siege.den, {**draft, "auth_events": change(siege, draft["auth_events"])})

    return pdu(make)


_BAD_SIGNATURE = "dropped: the signature of MALLORY by ed25519:now does not match"
_NO_SIGNATURE = "dropped: no signature of {} by a known key that was valid then"
_LEVELS = ("m.room.power_levels", "")
PDUS = [
    Case("pdu: as it should be", _event(), "accepted"),
    Case("pdu: a number", pdu(lambda _: 42), "unknown_room"),
    Case("pdu: a list", pdu(lambda _: [[]]), "unknown_room"),
    Case("pdu: no room_id", _event(room_id=None), "unknown_room"),
    Case("pdu: room_id is a list", _event(room_id=["!a"]), "unknown_room"),
    Case("pdu: room_id is an object", _event(room_id={}), "unknown_room"),
    Case("pdu: room_id of no room", _event(room_id="!nowhere:x.example"), "unknown_room"),
    Case("pdu: no type", _event(type=None), "dropped: type is not a string"),
    Case("pdu: type of 256 bytes", _event(type="t" * 256), "dropped: type is longer than 255"),
    Case(
        "pdu: type of 130 characters, 260 bytes", _event(type="é" * 130), "dropped: type is longer than 255"
    ),
    Case("pdu: sender is not a user ID", _event(sender="mallory"), "dropped: sender is not a user id"),
    Case("pdu: sender of no server", _event(sender="@m:"), "dropped: sender is not a user id"),
    Case("pdu: sender with NUL", _event(sender="@m\0:x.example"), "dropped: sender is not a user id"),
    Case(
        "pdu: sender of 256 bytes", _event(sender=f"@{'m' * 250}:x.ex"), "dropped: sender is longer than 255"
    ),
    Case(
        "pdu: state_key is null",
        _forged(lambda _, r: {**r, "state_key": None}),
        "dropped: state_key is not a string",
    ),
    Case("pdu: state_key of 256 bytes", _event(state_key="k" * 256), "dropped: state_key is longer than 255"),
    Case(
        "pdu: content is a list",
        _forged(lambda _, r: {**r, "content": []}),
        "dropped: content is not an object",
    ),
    Case(
        "pdu: no hashes",
        _forged(lambda _, r: {**r, "hashes": None}),
        "dropped: hashes or signatures are not objects",
    ),
    Case(
        "pdu: signatures is a list",
        _forged(lambda _, r: {**r, "signatures": []}),
        "dropped: hashes or signatures are not objects",
    ),
    Case(
        "pdu: 21 prev_events",
        _event(prev_events=["$" + "a" * 43] * 21),
        "dropped: event has 21 prev_events, at most 20",
    ),
    Case(
        "pdu: 11 auth_events",
        _event(auth_events=["$" + "a" * 43] * 11),
        "dropped: event has 11 auth_events, at most 10",
    ),
    Case(
        "pdu: prev_events in the form of version 1",
        _event(prev_events=[["$a:b", {}]]),
        "dropped: prev_events is not a list of event ids",
    ),
    Case(
        "pdu: prev_events is an object",
        _event(prev_events={"a": 1}),
        "dropped: prev_events is not a list of event ids",
    ),
    Case(
        "pdu: auth_events that are no event ids",
        _event(auth_events=["!a"]),
        "dropped: auth_events is not a list of event ids",
    ),
    Case("pdu: depth below 0", _event(depth=-1), "dropped: depth is not an integer in range"),
    Case("pdu: depth of 2^53", _event(depth=2**53), "dropped: integer 9007199254740992 is out of range"),
    Case("pdu: depth is true", _event(depth=True), "dropped: depth is not an integer in range"),
    Case("pdu: depth is a string", _event(depth="1"), "dropped: depth is not an integer in range"),
    Case("pdu: time is a float", _event(origin_server_ts=1.5), "dropped: a number is not an integer"),
    Case("pdu: a float in the content", _event(content={"x": 0.5}), "dropped: a number is not an integer"),
    Case("pdu: a whole float", _event(content={"x": 1.0}), "dropped: a number is not an integer"),
    Case("pdu: -2^53", _event(content={"x": -(2**53)}), "dropped: integer -9007199254740992 is out of range"),
    Case("pdu: 150 levels", pdu(_deep), "accepted redacted"),
    Case(
        "pdu: 66,000 bytes",
        _event(content={"body": "x" * 66_000}),
        "dropped: event has N bytes, at most 65536",
    ),
    Case(
        "pdu: NUL and bidi overrides in the text",
        _event(content={"body": "a\0b\u202ec", "msgtype": "m.text"}),
        "accepted",
    ),
    Case("pdu: content of another shape", _event(content={"body": ["x"], "msgtype": {}}), "accepted"),
    Case("pdu: no content at all", _event(content={}), "accepted redacted"),
    Case("pdu: wrong hash", _forged(_tampered), "accepted redacted"),
    Case(
        "pdu: hash is a number",
        _forged(lambda s, r: s.mallory.finish(s.den, r, hashes={"sha256": 7})),
        "accepted redacted",
    ),
    Case(
        "pdu: hash of another algorithm",
        _forged(lambda s, r: s.mallory.finish(s.den, r, hashes={"md5": "x"})),
        "accepted redacted",
    ),
    Case(
        "pdu: hash changed after it was signed",
        _forged(lambda _, r: {**r, "hashes": {"sha256": 7}}),
        _BAD_SIGNATURE,
    ),
    Case("pdu: event_id and unsigned are the peer's own affair", _forged(_with_ids), "accepted"),
    Case("pdu: not signed", _forged(lambda _, r: {**r, "signatures": {}}), _NO_SIGNATURE.format("MALLORY")),
    Case(
        "pdu: signed by another key", _signed_by(lambda s: s.mallory.secret), _NO_SIGNATURE.format("MALLORY")
    ),
    Case(
        "pdu: signed by an expired key",
        _signed_by(lambda s: s.mallory.retired),
        _NO_SIGNATURE.format("MALLORY"),
    ),
    Case(
        "pdu: signed for another server",
        _signed_by(lambda s: s.mallory.key, lambda s: s.friend.name),
        _NO_SIGNATURE.format("MALLORY"),
    ),
    Case(
        "pdu: signature of another event",
        _forged(
            lambda s, r: {
                **r,
                "signatures": s.mallory.message(s.den, "other")["signatures"],
                "depth": r["depth"] + 1,
            }
        ),
        _BAD_SIGNATURE,
    ),
    Case(
        "pdu: signature is a number",
        _forged(lambda s, r: {**r, "signatures": {s.mallory.name: {"ed25519:now": 1}}}),
        _NO_SIGNATURE.format("MALLORY"),
    ),
    Case(
        "pdu: sender of another server", _event(sender=lambda s: s.lobby.user), _NO_SIGNATURE.format("FRIEND")
    ),
    Case(
        "pdu: sender is one of ours",
        _event(sender=lambda s: f"@hansa:{s.name}"),
        _NO_SIGNATURE.format("HANSA"),
    ),
    Case(
        "pdu: sender who is not in the room",
        _event(sender=lambda s: f"@nobody:{s.mallory.name}"),
        "rejected: auth_events names $ID, a m.room.member, for no reason (3.unselected)",
    ),
    Case(
        "pdu: the create event again",
        _state("m.room.create", "", {"room_version": "12"}, prev_events=[], auth_events=[]),
        "dropped: a create event of this room version has no room_id",
    ),
    Case(
        "pdu: a create event that is none",
        _state("m.room.create", "x", {"room_version": "12"}),
        "dropped: a room is created once",
    ),
    Case(
        "pdu: nothing before it",
        _event(prev_events=[]),
        "rejected: DEN is not the id of an accepted create event (2.room_id)",
    ),
    Case(
        "pdu: no authority cited",
        _event(auth_events=[]),
        "rejected: @mallory:MALLORY is not in the room (6.not_joined)",
    ),
    Case(
        "pdu: authority that has nothing to do with it",
        _auth(lambda s, a: [*a, s.den.state["m.room.history_visibility", ""]]),
        "rejected: auth_events names $ID, a m.room.history_visibility, for no reason (3.unselected)",
    ),
    Case(
        "pdu: the same authority twice",
        _auth(lambda _, a: [*a, a[0]]),
        "rejected: auth_events names two events of one type and state key (3.duplicate)",
    ),
    Case(
        "pdu: authority of another room",
        _auth(lambda s, a: [s.pit.state[_LEVELS] if one == s.den.state[_LEVELS] else one for one in a]),
        "rejected: $ID belongs to another room, or cannot be fetched (2.auth_events)",
    ),
    Case(
        "pdu: after an event of another room",
        _event(prev_events=lambda s: list(s.pit.tips)),
        "refused: prev_events names $ID, which is of another room",
    ),
    Case("pdu: after an event that nobody has", _waits, "accepted"),
    Case(
        "pdu: power that the sender does not have",
        _state(*_LEVELS, {"users_default": 100}),
        "rejected: @mallory:MALLORY may not send m.room.power_levels (8.level)",
    ),
    Case(
        "pdu: membership of another shape",
        _state("m.room.member", "@mallory:MALLORY", {"membership": ["join"]}),
        "rejected: unknown membership ['join'] (5.membership)",
    ),
    Case(
        "pdu: somebody else joined",
        _state("m.room.member", "@friend:FRIEND", {"membership": "join"}),
        "rejected: @mallory:MALLORY cannot join for @friend:FRIEND (5.join.sender)",
    ),
    Case("pdu: a member of no user", _state("m.room.member", "x", {"membership": "invite"}), "accepted"),
]


CASES = [*TRANSACTIONS, *PDUS]
