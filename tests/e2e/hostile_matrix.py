"""Hostile transactions, events and handshakes (server-server API; matrix.md 1.4, 1.5, 1.12)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import orjson
from e2e.siege import Case, Run, Siege, asked, escaped, pdu
from hansa_matrix.proto.canonical import dumps
from hansa_matrix.proto.hashing import event_id
from peers.forger import JoinedRoom
from peers.stranger import V1, V2

_BAD_JSON, _NOT_JSON, _INVALID = "400 M_BAD_JSON", "400 M_NOT_JSON", "400 M_INVALID_PARAM"
_FORBIDDEN, _NOT_FOUND = "403 M_FORBIDDEN", "404 M_NOT_FOUND"


def _txn(body: Any) -> Run:
    """A transaction of any body under an id of its own."""
    return asked("PUT", lambda _: f"/v1/send/{secrets.token_hex(8)}", body)


def _nested(depth: int) -> bytes:
    return b'{"pdus":[' + b"[" * depth + b"]" * depth + b"]}"


async def _replayed(siege: Siege) -> str:
    """The second time under one id nothing is looked at: the answer is the first one's."""
    target, fresh = f"{V1}/send/{secrets.token_hex(8)}", siege.mallory.message(siege.den, "once")
    first = await siege.mallory.request("PUT", siege.name, target, {"pdus": [fresh]})
    again = await siege.mallory.request("PUT", siege.name, target, {"pdus": [1, 2, 3]})
    return "replayed" if first.body == again.body and first.body["pdus"] else f"{first} {again}"


async def _one_bad_apple(siege: Siege) -> str:
    """An event that cannot be taken does not keep the others of its transaction out."""
    room, bad = siege.den, {"room_id": siege.den.room_id, "type": 1}
    good = siege.mallory.message(room, f"good {secrets.token_hex(4)}")
    answer = await siege.mallory.send(siege.name, bad, [], _deep(siege), good)
    assert answer.status == 200, answer
    assert event_id(good, room.version) in answer.body["pdus"], answer
    found = await pdu(lambda _: good)(siege)
    return f"{len(answer.body['pdus'])} answered, {found}"


def _deep(siege: Siege) -> dict[str, Any]:
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
    Case("send: lone surrogate", _txn(b'{"pdus":[],"x":"\\ud800"}'), _NOT_JSON),
    Case("send: NUL outside of a string", _txn(b'{"pdus":[]}\0'), _NOT_JSON),
    Case("send: NaN", _txn(b'{"pdus":[NaN]}'), _NOT_JSON),
    Case("send: Infinity", _txn(b'{"pdus":[],"x":-Infinity}'), _NOT_JSON),
    Case("send: a number that is infinite", _txn(b'{"pdus":[],"x":1e999}'), "200"),
    Case("send: a number of 5,000 digits", _txn(b'{"pdus":[],"x":' + b"9" * 5000 + b"}"), "200"),
    Case("send: 2,000 levels", _txn(_nested(2000)), _NOT_JSON),
    Case("send: 200,000 levels", _txn(_nested(200_000)), _NOT_JSON),
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
    Case("send: one bad apple", _one_bad_apple, "1 answered, accepted"),
]


def _event(**over: Any) -> Run:
    """A message in the den whose fields are replaced before it is hashed and signed; None takes one out."""

    def make(siege: Siege) -> Any:
        fields = {k: v(siege) if callable(v) else v for k, v in over.items()}
        draft = siege.mallory.draft(siege.den, "m.room.message", {"body": "x", "msgtype": "m.text"}) | fields
        gone = [k for k, v in fields.items() if v is None]
        return siege.mallory.finish(siege.den, {k: v for k, v in draft.items() if k not in gone})

    return pdu(make)


def _forged(change: Callable[[Siege, dict[str, Any]], Any]) -> Run:
    """A good message that is changed after it was signed."""
    return pdu(lambda siege: change(siege, siege.mallory.message(siege.den, "forged")))


def _state(kind: str, state_key: str, content: dict[str, Any], **over: Any) -> Run:
    def make(siege: Siege) -> Any:
        key = state_key.replace("MALLORY", siege.mallory.name).replace("FRIEND", siege.friend.name)
        fields = {k: v(siege) if callable(v) else v for k, v in over.items()}
        return siege.mallory.finish(siege.den, siege.mallory.draft(siege.den, kind, content, key, **fields))

    return pdu(make)


def _signed_by(key: Callable[[Siege], Any], server: Callable[[Siege], str] = lambda _: "") -> Run:
    def make(siege: Siege) -> Any:
        draft = siege.mallory.draft(siege.den, "m.room.message", {"body": "x"})
        return siege.mallory.finish(siege.den, draft, key=key(siege), server=server(siege))

    return pdu(make)


def _tampered(siege: Siege, raw: dict[str, Any]) -> dict[str, Any]:
    """The content is not covered by the signature, only by the hash, which then does not match."""
    return {**raw, "content": {"body": "something else", "msgtype": "m.text"}}


def _with_ids(siege: Siege, raw: dict[str, Any]) -> dict[str, Any]:
    return {**raw, "event_id": "$" + "A" * 43, "unsigned": {"age": 1, "transaction_id": "x"}}


async def _waits(siege: Siege) -> str:
    """What stands on an event that nobody has waits; the room goes on."""
    room, mallory = siege.pit, siege.mallory
    stuck = mallory.message(room, "stuck", prev_events=["$" + secrets.token_urlsafe(32)])
    assert (await mallory.send(siege.name, stuck)).status == 200
    return await _goes_on(siege, room)


async def _goes_on(siege: Siege, room: JoinedRoom) -> str:
    raw = siege.mallory.message(room, f"goes on {secrets.token_hex(4)}")
    return await pdu(lambda _: raw)(siege)


def _auth(change: Callable[[Siege, list[str]], list[str]]) -> Run:
    def make(siege: Siege) -> Any:
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
    Case("pdu: sender is no user id", _event(sender="mallory"), "dropped: sender is not a user id"),
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
    Case("pdu: 150 levels", pdu(_deep), "dropped: JSON nests deeper than 100"),
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
        "rejected: auth_events names $ID, which is of another room (3.room)",
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


def _at(pattern: str) -> Callable[[Siege], str]:
    """A path with the names of the siege in it."""

    def made(siege: Siege) -> str:
        names = {
            "DEN": siege.den.room_id,
            "LOBBY": siege.lobby.room_id,
            "ME": siege.den.user,
            "FRIEND": siege.lobby.user,
            "TIP": next(iter(siege.den.tips)),
            "FOREIGN": next(iter(siege.lobby.tips)),
        }
        path = pattern
        for name, value in names.items():
            path = path.replace("{" + name + "}", escaped(value))
        return path

    return made


def _make(path: str) -> Run:
    return asked("GET", _at(f"/v1/make_join/{path}"))


def _send_join(change: Callable[[Siege, dict[str, Any]], Any], *, path: str = "", step: str = "join") -> Run:
    """The second step of a join or leave of somebody new, changed before or after it is signed."""

    async def run(siege: Siege) -> str:
        mallory, room = siege.mallory, siege.den
        user = f"@new{secrets.token_hex(3)}:{mallory.name}"
        content = {"membership": step}
        made = JoinedRoom(room.room_id, room.version.id, user)
        made.state, made.tips = room.state, room.tips
        raw = mallory.finish(made, mallory.draft(made, "m.room.member", content, user))
        body = change(siege, raw)
        name = path or event_id({k: v for k, v in raw.items() if k != "unsigned"}, room.version)
        if isinstance(body, dict) and not path:
            try:
                name = event_id(body, room.version)
            except Exception:  # what has no id goes under that of the good one
                name = path or name
        target = f"/v2/send_{step}/{escaped(room.room_id)}/{escaped(name)}"
        return await asked("PUT", target, body)(siege)

    return run


def _again(**over: Any) -> Callable[[Siege, dict[str, Any]], Any]:
    """Change fields and sign anew."""

    def change(siege: Siege, raw: dict[str, Any]) -> Any:
        fields = {k: v(siege) if callable(v) else v for k, v in over.items()}
        bare = {k: v for k, v in raw.items() if k not in {"hashes", "signatures"}}
        return siege.mallory.finish(siege.den, bare | fields)

    return change


def _invite(change: Callable[[Siege, dict[str, Any]], Any] = lambda _, b: b, **over: Any) -> Run:
    """An invite to a room of Mallory's that nobody else is in."""

    async def run(siege: Siege) -> str:
        mallory = siege.mallory
        sender = f"@mallory:{mallory.name}"
        made = JoinedRoom("!" + secrets.token_urlsafe(32), "11", sender)
        fields = {k: v(siege) if callable(v) else v for k, v in over.items()}
        target = fields.pop("target", f"@somebody:{siege.name}")
        fields = {"prev_events": ["$" + "a" * 43], "auth_events": ["$" + "b" * 43]} | fields
        draft = mallory.draft(made, "m.room.member", {"membership": "invite"}, target, **fields)
        event = mallory.finish(made, draft)
        state = [{"type": "m.room.create", "state_key": "", "sender": sender, "content": {}}]
        body = change(siege, {"room_version": "11", "event": event, "invite_room_state": state})
        path = f"/v2/invite/{escaped(made.room_id)}/{escaped(event_id(event, made.version))}"
        return await asked("PUT", path, body)(siege)

    return run


def _body(**over: Any) -> Callable[[Siege, dict[str, Any]], Any]:
    return lambda _, body: {k: v for k, v in {**body, **over}.items() if v is not None}


def _another_create(siege: Siege, body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "room_version": "12", "invite_room_state": [siege.mallory.created[siege.den.room_id]]}


def _missing(room: str, **over: Any) -> Run:
    def body(siege: Siege) -> Any:
        full = {"latest_events": list(siege.den.tips), "earliest_events": [], "limit": 10} | over
        return {k: v for k, v in full.items() if v is not None}

    return asked("POST", _at(f"/v1/get_missing_events/{room}"), body)


HANDSHAKES = [
    Case("make_join: no version offered", _make("{DEN}/{ME}"), "400 M_INCOMPATIBLE_ROOM_VERSION"),
    Case("make_join: another version", _make("{DEN}/{ME}?ver=1&ver=99"), "400 M_INCOMPATIBLE_ROOM_VERSION"),
    Case("make_join: 300 versions", _make("{DEN}/{ME}?" + "ver=12&" * 300), _INVALID),
    Case("make_join: no such room", _make("!nowhere%3Ax.example/{ME}?ver=12"), _NOT_FOUND),
    Case("make_join: a room that is no room id", _make("den/{ME}?ver=12"), _NOT_FOUND),
    Case("make_join: a room with a slash", _make("!a%2Fb/{ME}?ver=12"), _NOT_FOUND),
    Case("make_join: a room with NUL", _make("!a%00b/{ME}?ver=12"), _NOT_FOUND),
    Case("make_join: a user of another server", _make("{DEN}/{FRIEND}?ver=12"), _FORBIDDEN),
    Case("make_join: no user id", _make("{DEN}/mallory?ver=12"), _FORBIDDEN),
    Case(
        "make_leave: who is not there",
        asked("GET", _at("/v1/make_leave/{DEN}/%40nobody%3A127.0.0.1?ver=12")),
        _FORBIDDEN,
    ),
    Case("send_join: a list", _send_join(lambda *_: []), _BAD_JSON),
    Case("send_join: an empty object", _send_join(lambda *_: {}), _BAD_JSON),
    Case(
        "send_join: another event than the path's", _send_join(lambda _, r: r, path="$" + "a" * 43), _INVALID
    ),
    Case(
        "send_join: another room than the path's", _send_join(_again(room_id="!else:where.example")), _INVALID
    ),
    Case("send_join: a leave", _send_join(_again(content={"membership": "leave"})), _INVALID),
    Case("send_join: a message", _send_join(_again(type="m.room.message")), _INVALID),
    Case("send_join: for somebody else", _send_join(_again(state_key="@x:y.example")), _INVALID),
    Case(
        "send_join: by a user of another server",
        _send_join(_again(sender=lambda s: s.lobby.user, state_key=lambda s: s.lobby.user)),
        _FORBIDDEN,
    ),
    Case("send_join: not signed", _send_join(lambda _, r: {**r, "signatures": {}}), _FORBIDDEN),
    Case("send_join: unknown prev_events", _send_join(_again(prev_events=["$" + "a" * 43])), _INVALID),
    Case("send_join: unknown auth_events", _send_join(_again(auth_events=["$" + "a" * 43])), _INVALID),
    Case(
        "send_join: prev_events of another room",
        _send_join(_again(prev_events=lambda s: list(s.pit.tips))),
        _INVALID,
    ),
    Case("send_join: nothing before it", _send_join(_again(prev_events=[])), _FORBIDDEN),
    Case("send_join: a float", _send_join(_again(content={"membership": "join", "x": 0.5})), _BAD_JSON),
    Case("send_leave: who was never there", _send_join(lambda _, r: r, step="leave"), _FORBIDDEN),
    Case("invite: not one of ours", _invite(target="@x:elsewhere.example"), _FORBIDDEN),
    Case("invite: version unknown", _invite(_body(room_version="99")), "400 M_INCOMPATIBLE_ROOM_VERSION"),
    Case("invite: version is a list", _invite(_body(room_version=["11"])), "400 M_INCOMPATIBLE_ROOM_VERSION"),
    Case("invite: no version", _invite(_body(room_version=None)), "400 M_INCOMPATIBLE_ROOM_VERSION"),
    Case(
        "invite: version 12 without a create event",
        _invite(_body(room_version="12", invite_room_state=[])),
        "400 M_MISSING_PARAM",
    ),
    Case("invite: version 12 with a create event of another room", _invite(_another_create), _INVALID),
    Case("invite: no event", _invite(_body(event=None)), _INVALID),
    Case("invite: event is a list", _invite(_body(event=[])), _INVALID),
    Case("invite: state is an object", _invite(_body(invite_room_state={})), _INVALID),
    Case("invite: state of numbers", _invite(_body(invite_room_state=[1, 2])), _INVALID),
    Case(
        "invite: state 300 levels deep",
        _invite(lambda _, b: dumps({**b, "invite_room_state": orjson.Fragment(b"[" * 300 + b"]" * 300)})),
        _BAD_JSON,
    ),
    Case("invite: 101 events of state", _invite(_body(invite_room_state=[{}] * 101)), _INVALID),
    Case("invite: sender of another server", _invite(sender=lambda s: s.lobby.user), _INVALID),
    Case(
        "invite: not signed",
        _invite(lambda _, b: {**b, "event": {**b["event"], "signatures": {}}}),
        _FORBIDDEN,
    ),
]

QUERIES = [
    Case("get_missing_events: as it should be", _missing("{DEN}"), "200"),
    Case("get_missing_events: no latest", _missing("{DEN}", latest_events=None), _BAD_JSON),
    Case("get_missing_events: latest is a string", _missing("{DEN}", latest_events="$a"), _BAD_JSON),
    Case("get_missing_events: latest of lists", _missing("{DEN}", latest_events=[[]]), _BAD_JSON),
    Case("get_missing_events: 101 events", _missing("{DEN}", earliest_events=["$a"] * 101), _BAD_JSON),
    Case("get_missing_events: limit below 0", _missing("{DEN}", limit=-5), "200"),
    Case("get_missing_events: limit is a word", _missing("{DEN}", limit="ten", min_depth=[]), "200"),
    Case("get_missing_events: a room that the asker is not in", _missing("{LOBBY}"), _FORBIDDEN),
    Case("get_missing_events: no such room", _missing("!nowhere"), _NOT_FOUND),
    Case(
        "backfill: a limit of another script",
        asked("GET", _at("/v1/backfill/{DEN}?v={TIP}&limit=%C2%B2")),
        "200",
    ),
    Case("backfill: a limit below 0", asked("GET", _at("/v1/backfill/{DEN}?v={TIP}&limit=-1")), "200"),
    Case(
        "backfill: a limit of 30 digits",
        asked("GET", _at(f"/v1/backfill/{{DEN}}?v={{TIP}}&limit={'9' * 30}")),
        "200",
    ),
    Case(
        "backfill: a room that the asker is not in",
        asked("GET", _at("/v1/backfill/{LOBBY}?v={FOREIGN}&limit=5")),
        _FORBIDDEN,
    ),
    Case("event: of a room that the asker is not in", asked("GET", _at("/v1/event/{FOREIGN}")), _FORBIDDEN),
    Case("event: none such", asked("GET", "/v1/event/%24a"), _NOT_FOUND),
    Case("event: with NUL", asked("GET", "/v1/event/%24a%00"), _NOT_FOUND),
    Case("state: no event named", asked("GET", _at("/v1/state/{DEN}")), _NOT_FOUND),
    Case(
        "state: an event of another room", asked("GET", _at("/v1/state/{DEN}?event_id={FOREIGN}")), _NOT_FOUND
    ),
    Case(
        "state: a room that the asker is not in",
        asked("GET", _at("/v1/state/{LOBBY}?event_id={FOREIGN}")),
        _FORBIDDEN,
    ),
    Case(
        "state_ids: a room that the asker is not in",
        asked("GET", _at("/v1/state_ids/{LOBBY}?event_id={FOREIGN}")),
        _FORBIDDEN,
    ),
    Case(
        "event_auth: an event of another room",
        asked("GET", _at("/v1/event_auth/{DEN}/{FOREIGN}")),
        _NOT_FOUND,
    ),
    Case("directory: no alias", asked("GET", "/v1/query/directory"), _NOT_FOUND),
    Case(
        "directory: an alias that is none",
        asked("GET", "/v1/query/directory?room_alias=%23%00%3Ax"),
        _NOT_FOUND,
    ),
    Case(
        "directory: escapes that are no UTF-8",
        asked("GET", "/v1/query/directory?room_alias=%FF%FE"),
        _NOT_FOUND,
    ),
    Case("profile: no user", asked("GET", "/v1/query/profile"), _NOT_FOUND),
    Case(
        "profile: a user of another server", asked("GET", _at("/v1/query/profile?user_id={ME}")), _NOT_FOUND
    ),
    Case("devices: a user of another server", asked("GET", _at("/v1/user/devices/{ME}")), _NOT_FOUND),
    Case("keys: a list", asked("POST", "/v1/user/keys/query", {"device_keys": []}), _BAD_JSON),
]

CASES = [*TRANSACTIONS, *PDUS, *HANDSHAKES, *QUERIES]
__all__ = ["CASES", "V1", "V2", "dumps"]
