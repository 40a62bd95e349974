"""Hostile handshakes and queries (server-server API, "Joining rooms", "Inviting", "Retrieving events")."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import orjson
from e2e.hostile_suite import Case, HostileSuite, Run, asked, escaped
from hansa_matrix.proto.canonical_json import dumps_canonical
from hansa_matrix.proto.hashing import event_id
from peers.event_forge import JoinedRoom
from peers.fake_homeserver import V1, V2

_BAD_JSON, _NOT_JSON, _INVALID = "400 M_BAD_JSON", "400 M_NOT_JSON", "400 M_INVALID_PARAM"
_FORBIDDEN, _NOT_FOUND = "403 M_FORBIDDEN", "404 M_NOT_FOUND"


def _at(pattern: str) -> Callable[[HostileSuite], str]:
    """A path with the names of the siege in it."""

    def made(siege: HostileSuite) -> str:
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


def _send_join(
    change: Callable[[HostileSuite, dict[str, Any]], Any], *, path: str = "", step: str = "join"
) -> Run:
    """The second step of a join or leave of a new user, changed before or after it is signed."""

    async def run(siege: HostileSuite) -> str:
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


def _again(**over: Any) -> Callable[[HostileSuite, dict[str, Any]], Any]:
    """Changes fields and signs again."""

    def change(siege: HostileSuite, raw: dict[str, Any]) -> Any:
        fields = {k: v(siege) if callable(v) else v for k, v in over.items()}
        bare = {k: v for k, v in raw.items() if k not in {"hashes", "signatures"}}
        return siege.mallory.finish(siege.den, bare | fields)

    return change


def _invite(change: Callable[[HostileSuite, dict[str, Any]], Any] = lambda _, b: b, **over: Any) -> Run:
    """An invite to a room of Mallory's that nobody else is in."""

    async def run(siege: HostileSuite) -> str:
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


def _body(**over: Any) -> Callable[[HostileSuite, dict[str, Any]], Any]:
    return lambda _, body: {k: v for k, v in {**body, **over}.items() if v is not None}


def _another_create(siege: HostileSuite, body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "room_version": "12", "invite_room_state": [siege.mallory.created[siege.den.room_id]]}


def _missing(room: str, **over: Any) -> Run:
    def body(siege: HostileSuite) -> Any:
        full = {"latest_events": list(siege.den.tips), "earliest_events": [], "limit": 10} | over
        return {k: v for k, v in full.items() if v is not None}

    return asked("POST", _at(f"/v1/get_missing_events/{room}"), body)


HANDSHAKES = [
    Case("make_join: no version offered", _make("{DEN}/{ME}"), "400 M_INCOMPATIBLE_ROOM_VERSION"),
    Case("make_join: another version", _make("{DEN}/{ME}?ver=1&ver=99"), "400 M_INCOMPATIBLE_ROOM_VERSION"),
    Case("make_join: 300 versions", _make("{DEN}/{ME}?" + "ver=12&" * 300), _INVALID),
    Case("make_join: no such room", _make("!nowhere%3Ax.example/{ME}?ver=12"), _NOT_FOUND),
    Case("make_join: a room this is not a room ID", _make("den/{ME}?ver=12"), _NOT_FOUND),
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
        _invite(
            lambda _, b: dumps_canonical({**b, "invite_room_state": orjson.Fragment(b"[" * 300 + b"]" * 300)})
        ),
        "200",
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

CASES = [*HANDSHAKES, *QUERIES]
__all__ = ["CASES", "V1", "V2", "dumps_canonical"]
