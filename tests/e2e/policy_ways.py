"""Ways to bring a word across: everything that a client can say, by every route that takes it.

Each way is asked with a text that holds the word and a tag of its own, so that what is read of it elsewhere tells
which way it came.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

WORD = "classified"
#: A status and the JSON of an answer.
Answer = tuple[int, Any]


def part(text: str) -> str:
    """One segment of a path."""
    return quote(text, safe="")


@dataclass(frozen=True, kw_only=True)
class Client:
    """A user with a device on a real server."""

    url: str
    server: str
    user: str
    name: str
    token: str
    device: str
    http: aiohttp.ClientSession

    async def whole(
        self, method: str, path: str, data: bytes | None = None, *, content: str = "application/json"
    ) -> tuple[int, dict[str, str], bytes]:
        """One request: status, headers, body."""
        target = path if path.startswith("/_") else f"/_matrix/client/v3{path}"
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content}
        url = URL(self.url + target, encoded=True)
        async with self.http.request(method, url, data=data, headers=headers) as answer:
            return answer.status, dict(answer.headers), await answer.read()

    async def ask(self, method: str, path: str, body: Any = None, *, data: bytes | None = None) -> Answer:
        """One request with JSON: status and JSON."""
        sent = data if data is not None else json.dumps(body).encode() if body is not None else None
        status, _, answer = await self.whole(method, path, sent)
        return status, json.loads(answer)

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """As ``ask``, of what has to be done."""
        status, answer = await self.ask(method, path, body)
        assert status == 200, (path, answer)
        return answer

    async def say(self, room: str, content: Any, kind: str = "m.room.message") -> Answer:
        """An event."""
        path = f"/rooms/{part(room)}/send/{part(kind)}/{secrets.token_hex(6)}"
        return await self.ask("PUT", path, content)

    async def state(self, room: str, kind: str, content: Any, key: str = "") -> Answer:
        """A state event."""
        return await self.ask("PUT", f"/rooms/{part(room)}/state/{part(kind)}/{part(key)}", content)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """``me`` says something in ``room``, where ``root`` is an event; ``others`` are those that read."""

    me: Client
    room: str
    root: str
    others: tuple[str, ...]

    @property
    def here(self) -> str:
        return f"/rooms/{part(self.room)}"


Way = Callable[[Scene, str], Awaitable[Answer]]
WAYS: dict[str, Way] = {}
FAIR = {"msgtype": "m.text", "body": "fair"}
TEXT: Callable[[str], dict[str, Any]] = lambda text: {"msgtype": "m.text", "body": text}  # noqa: E731


def squeezed(text: str) -> str:
    """The text where no blank may stand."""
    return text.replace(" ", "_")


def said(name: str, made: Callable[[Scene, str], Any], kind: str = "m.room.message") -> None:
    async def way(scene: Scene, text: str) -> Answer:
        return await scene.me.say(scene.room, made(scene, text), kind)

    WAYS[name] = way


def stated(
    name: str, kind: str, made: Callable[[str], Any], key: Callable[[Scene, str], str] | None = None
) -> None:
    async def way(scene: Scene, text: str) -> Answer:
        return await scene.me.state(scene.room, kind, made(text), key(scene, text) if key else "")

    WAYS[name] = way


def asked(
    name: str, method: str, path: Callable[[Scene, str], str], body: Callable[[Scene, str], Any]
) -> None:
    async def way(scene: Scene, text: str) -> Answer:
        return await scene.me.ask(method, path(scene, text), body(scene, text))

    WAYS[name] = way


def created(label: str, /, **options: Callable[[str], Any]) -> None:
    asked(
        f"a room: {label}",
        "POST",
        lambda s, t: "/createRoom",
        lambda s, t: (
            {"preset": "public_chat", "visibility": "public"} | {k: v(t) for k, v in options.items()}
        ),
    )


def html(name: str, made: Callable[[str], str]) -> None:
    said(f"html: {name}", lambda s, t: FAIR | {"format": "org.matrix.custom.html", "formatted_body": made(t)})


def disguised(name: str, made: Callable[[str], str]) -> None:
    said(f"disguised: {name}", lambda s, t: TEXT(t.replace(WORD, made(WORD))))


said("a message", lambda s, t: TEXT(t))
html("plain", lambda t: t)
html("within tags", lambda t: t.replace("ss", "s<b>s</b>"))
html("an entity", lambda t: t.replace("c", "&#99;", 1))
html("an entity without its end", lambda t: t.replace("fi", "&#102i"))
html("a comment", lambda t: t.replace("ss", "s<!-- x -->s"))
html("a script", lambda t: t.replace("ss", "s<script>z</script>s"))
html("an attribute", lambda t: f'<span data-mx-spoiler="{t}">x</span>')
html("a picture's text", lambda t: f"<img alt='{t}' src='mxc://x/y'>")
html("a link", lambda t: f"<a href='https://matrix.to/#/{part(t)}'>x</a>")
html("a place to break", lambda t: t.replace("ss", "s<wbr>s"))
html("a soft hyphen", lambda t: t.replace("ss", "s&shy;s"))
html("formula", lambda t: f'<span data-mx-maths="{t}">z</span>')
html("a reply", lambda t: f"<mx-reply>{t}</mx-reply>fair")
for _kind, _relation in (("m.replace", "an edit"), ("m.thread", "a thread"), ("m.reference", "a reference")):
    said(
        _relation,
        lambda s, t, kind=_kind: (
            FAIR | {"m.new_content": TEXT(t), "m.relates_to": {"rel_type": kind, "event_id": s.root}}
        ),
    )
said(
    "a reaction",
    lambda s, t: {"m.relates_to": {"rel_type": "m.annotation", "event_id": s.root, "key": t}},
    "m.reaction",
)
said("a relation's kind", lambda s, t: FAIR | {"m.relates_to": {"rel_type": t, "event_id": s.root}})
said("a relation's event", lambda s, t: FAIR | {"m.relates_to": {"rel_type": "m.thread", "event_id": t}})
said("a file's name", lambda s, t: {"msgtype": "m.file", "body": "x", "filename": t, "url": "mxc://a/b"})
said("a caption", lambda s, t: {"msgtype": "m.image", "filename": "x.png", "body": t, "url": "mxc://a/b"})
said("a type of media", lambda s, t: FAIR | {"info": {"mimetype": t}})
said("a place", lambda s, t: {"msgtype": "m.location", "body": "x", "geo_uri": f"geo:{t}"})
said(
    "a poll",
    lambda s, t: {"m.poll": {"question": {"m.text": [{"body": t}]}, "answers": []}},
    "m.poll.start",
)
said("extensible text", lambda s, t: {"m.text": [{"body": t, "mimetype": "text/plain"}]})
said("a key", lambda s, t: FAIR | {t: 1})
said("a key within", lambda s, t: FAIR | {"a": [[{"b": {t: True}}]]})
said("a kind of message", lambda s, t: {"msgtype": t, "body": "x"})
said("a mention", lambda s, t: FAIR | {"m.mentions": {"user_ids": [f"@{t}:x.example"]}})
said(
    "beside a ciphertext",
    lambda s, t: {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "A" * 40, "body": t},
    "m.room.encrypted",
)
said(
    "in a ciphertext", lambda s, t: {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": t}, "m.room.encrypted"
)
said("a call", lambda s, t: {"call_id": "1", "offer": {"type": "offer", "sdp": t}}, "m.call.invite")
said("a sticker", lambda s, t: {"body": t, "url": "mxc://a/b", "info": {}}, "m.sticker")


async def _of_its_own_type(scene: Scene, text: str) -> Answer:
    return await scene.me.say(scene.room, {"x": 1}, text.replace(" ", "."))


WAYS["an event's type"] = _of_its_own_type
for _name, _made in {
    "zero width": lambda w: w.replace("ss", "s\u200bs"),
    "wide": lambda w: "".join(chr(ord(c) + 0xFEE0) for c in w),
    "cyrillic": lambda w: "\u0441l\u0430ss\u0456fi\u0435d",
    "bold": lambda w: "".join(chr(ord(c) - 97 + 0x1D41A) for c in w),
    "in circles": lambda w: "".join(chr(ord(c) - 97 + 0x24D0) for c in w),
    "marks": lambda w: "\u0301".join(w),
    "blanks": lambda w: " ".join(w),
    "dots": lambda w: ".".join(w),
    "lines": lambda w: "\n".join(w),
    "digits for letters": lambda w: "c1455if13d",
    "signs for letters": lambda w: "cl@$$ified",
    "digits behind": lambda w: f"{w}7",
    "capitals": lambda w: w.upper(),
    "backwards": lambda w: f"\u202e{w[::-1]}\u202c",
    "a hair space": lambda w: w.replace("ss", "s\u200as"),
    "tag characters": lambda w: w.replace("ss", "s\U000e0061s"),
    "flags": lambda w: "".join(chr(ord(c) - 97 + 0x1F1E6) for c in w),
    "NUL": lambda w: w.replace("ss", "s\x00s"),
    "an emoji": lambda w: w.replace("ss", "s\U0001f600s"),
    "markdown": lambda w: w.replace("ss", "s**s**"),
}.items():
    disguised(_name, _made)

stated("a topic", "m.room.topic", lambda t: {"topic": t})
stated("a topic in parts", "m.room.topic", lambda t: {"topic": "x", "m.topic": {"m.text": [{"body": t}]}})
stated("a name", "m.room.name", lambda t: {"name": t})
stated("a state key", "test.x", lambda t: {}, lambda s, t: t)
stated("custom state", "test.y", lambda t: {"v": t})
stated("a picture's info", "m.room.avatar", lambda t: {"url": "mxc://a/b", "info": {"mimetype": t}})
stated("what is pinned", "m.room.pinned_events", lambda t: {"pinned": [t]})
stated("who is barred", "m.room.server_acl", lambda t: {"allow": ["*"], "deny": [t]})
stated("guests", "m.room.guest_access", lambda t: {"guest_access": t})
stated("history", "m.room.history_visibility", lambda t: {"history_visibility": "shared", "x": t})
stated("a rule to join", "m.room.join_rules", lambda t: {"join_rule": "public", "allow": [{"type": t}]})
stated("a space's order", "m.space.child", lambda t: {"via": ["x"], "order": t}, lambda s, t: "!a:x.example")
stated("a widget", "im.vector.modular.widgets", lambda t: {"name": t}, lambda s, t: "w")
stated("a rule of others", "m.policy.rule.user", lambda t: {"entity": "@x:*", "reason": t}, lambda s, t: "r")
stated("an address", "m.room.canonical_alias", lambda t: {"alt_aliases": [], "x": t})
for _field in ("displayname", "avatar_url", "reason", "x"):
    stated(
        f"one's own {_field}",
        "m.room.member",
        lambda t, field=_field: {"membership": "join", field: t},
        lambda s, t: s.me.user,
    )


def level(name: str, change: Callable[[str], dict[str, Any]]) -> None:
    async def way(scene: Scene, text: str) -> Answer:
        _, levels = await scene.me.ask("GET", f"{scene.here}/state/m.room.power_levels/")
        return await scene.me.state(scene.room, "m.room.power_levels", levels | change(text))

    WAYS[f"levels: {name}"] = way


level("types", lambda t: {"events": {t: 50}})
level("notifications", lambda t: {"notifications": {t: 50}})
level("more", lambda t: {"x": t})


def raw(name: str, made: Callable[[str], bytes], root: str = "/_matrix/client/v3", end: str = "") -> None:
    async def way(scene: Scene, text: str) -> Answer:
        path = f"{root}{scene.here}/send/m.room.message/{secrets.token_hex(6)}{end}"
        return await scene.me.ask("PUT", path, data=made(text))

    WAYS[f"written: {name}"] = way


raw("the old route", lambda t: json.dumps(TEXT(t)).encode(), "/_matrix/client/r0")
raw("a slash behind", lambda t: json.dumps(TEXT(t)).encode(), end="/")
raw("escapes", lambda t: json.dumps(TEXT(t)).replace("ss", "\\u0073\\u0073").encode())
raw("a key twice", lambda t: f'{{"msgtype":"m.text","body":"x","body":{json.dumps(t)}}}'.encode())
raw("half a character", lambda t: json.dumps(TEXT(t)).replace("ss", "s\\ud800s").encode())
raw("UTF-16", lambda t: json.dumps(TEXT(t)).encode("utf-16"))
raw("a byte order mark", lambda t: b"\xef\xbb\xbf" + json.dumps(TEXT(t)).encode())
asked(
    "written: the type in escapes",
    "PUT",
    lambda s, t: f"{s.here}/send/%6d.room%2Emessage/{secrets.token_hex(6)}",
    lambda s, t: TEXT(t),
)
asked("a ban", "POST", lambda s, t: f"{s.here}/ban", lambda s, t: {"user_id": "@a:x.example", "reason": t})
asked(
    "an unban", "POST", lambda s, t: f"{s.here}/unban", lambda s, t: {"user_id": "@b:x.example", "reason": t}
)
asked("a redaction", "PUT", lambda s, t: f"{s.here}/redact/{part(s.root)}/1", lambda s, t: {"reason": t})
asked(
    "typing", "PUT", lambda s, t: f"{s.here}/typing/{part(s.me.user)}", lambda s, t: {"typing": True, "x": t}
)
asked("a receipt", "POST", lambda s, t: f"{s.here}/receipt/m.read/{part('$' + t)}", lambda s, t: {})
asked("read markers", "POST", lambda s, t: f"{s.here}/read_markers", lambda s, t: {"m.read": f"$x {t}"})
asked("a report", "POST", lambda s, t: f"{s.here}/report/{part(s.root)}", lambda s, t: {"reason": t})
for _field in ("displayname", "m.tz", "m.status"):
    asked(
        f"a profile's {_field}",
        "PUT",
        lambda s, t, field=_field: f"/profile/{part(s.me.user)}/{field}",
        lambda s, t, field=_field: {field: t},
    )
asked(
    "a profile's key",
    "PUT",
    lambda s, t: f"/profile/{part(s.me.user)}/com.{squeezed(t)}",
    lambda s, t: {f"com.{squeezed(t)}": 1},
)
asked("a device's name", "PUT", lambda s, t: f"/devices/{s.me.device}", lambda s, t: {"display_name": t})
for _field in ("initial_device_display_name", "device_id"):
    asked(
        f"a login: {_field}",
        "POST",
        lambda s, t: "/login",
        lambda s, t, field=_field: {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": s.me.name},
            "password": "pw",
            field: t,
        },
    )
asked(
    "one-time keys",
    "POST",
    lambda s, t: "/keys/upload",
    lambda s, t: {
        "one_time_keys": {f"signed_curve25519:{secrets.token_hex(3)}": {"key": t, "signatures": {}}}
    },
)
asked(
    "the master key",
    "POST",
    lambda s, t: "/keys/device_signing/upload",
    lambda s, t: {
        "master_key": {
            "user_id": s.me.user,
            "usage": ["master"],
            "keys": {f"ed25519:{'A' * 43}": "A" * 43},
            "x": t,
        }
    },
)
for _type in ("m.x", ""):
    asked(
        f"to devices {_type or 'by type'}".strip(),
        "PUT",
        lambda s, t, type_=_type: f"/sendToDevice/{part(type_ or t)}/{secrets.token_hex(6)}",
        lambda s, t: {"messages": {user: {"*": {"x": t}} for user in s.others}},
    )
asked(
    "presence",
    "PUT",
    lambda s, t: f"/presence/{part(s.me.user)}/status",
    lambda s, t: {"presence": "online", "status_msg": t},
)
asked(
    "a public name",
    "PUT",
    lambda s, t: f"/directory/room/{part(f'#{squeezed(t)}:{s.me.server}')}",
    lambda s, t: {"room_id": s.room},
)


async def _uploaded(scene: Scene, text: str) -> Answer:
    path = f"/_matrix/media/v3/upload?filename={part(text)}"
    status, _, body = await scene.me.whole("POST", path, b"x", content="text/plain")
    answer = json.loads(body)
    if status == 200:
        await scene.me.say(scene.room, {"msgtype": "m.file", "body": "f", "url": answer["content_uri"]})
    return status, answer


WAYS["a file"] = _uploaded
created("name", name=lambda t: t)
created("topic", topic=lambda t: t)
created("address", room_alias_name=squeezed)
created("state", initial_state=lambda t: [{"type": "test.x", "content": {"x": t}}])
created("a state key", initial_state=lambda t: [{"type": "test.x", "state_key": t, "content": {}}])
created("its first event", creation_content=lambda t: {"x": t})
created("its type", creation_content=lambda t: {"type": t})
created("levels", power_level_content_override=lambda t: {"events": {t: 1}})
created("a version", room_version=lambda t: t)
