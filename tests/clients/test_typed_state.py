"""State of every wrong JSON type, from a server with the power to set it: after each event every reader is asked,
answers, and has all of what is told of other rooms.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clients.matrix_server import MatrixServer, matrix_server, part
from clients.test_strangers import filled, routes
from hansa import Response, hookimpl
from hansa.testing import until
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from hansa_matrix.rooms.event_store import Status
from hansa_xmpp import Config as XmppConfig
from hansa_xmpp.network import XmppNetwork
from matrix.server_with_peer import OURS, THEIRS, V1
from matrix.test_joining import ALIAS, Resident
from matrix.test_route_fuzz import routes as federation_routes
from xmpp.stanzas import GW
from xmpp.xmpp_server import ScriptedLink

VERSIONS = ("1", "6", "10", "12")
MUC, ANN = f"one@{GW}", "ann@x.example/desk"
MEMBER, LEVELS, ACL, RULES = "m.room.member", "m.room.power_levels", "m.room.server_acl", "m.room.join_rules"
OTHER = "@other:x"
DEEP: Any = "x"
for _ in range(30):
    DEEP = [{"a": DEEP}]
#: A field meets every other of these, one in each version: half of them cannot be a key of a dictionary.
WRONG: tuple[Any, ...] = (["x"], {"x": {}}, 7, [["x"]], None, "x", DEEP, True)

Path_ = tuple[str | int, ...]
#: Where something wrong is put, by type, with what has to stand beside it for it to be read. Members come first
#: and join rules last: without the ones, or with the others wrong, nothing more is taken.
FIELDS: tuple[tuple[str, dict[str, Any], tuple[Path_, ...]], ...] = (
    (
        MEMBER,
        {"membership": "join", "displayname": "m"},
        (
            ("membership",), ("displayname",), ("avatar_url",), ("reason",), ("is_direct",), ("third_party_invite",),
            ("third_party_invite", "signed"), ("third_party_invite", "signed", "token"),
            ("join_authorised_via_users_server",),
        ),
    ),
    ("m.room.name", {}, (("name",),)),
    ("m.room.topic", {"topic": "t"}, (("topic",), ("m.topic",), ("m.topic", "m.text"), ("m.topic", "m.text", 0))),
    ("m.room.avatar", {"url": "mxc://a/b"}, (("url",), ("info",), ("info", "thumbnail_url"))),
    (
        "m.room.canonical_alias",
        {"alias": f"#one:{OURS}"},
        (("alias",), ("alt_aliases",), ("alt_aliases", 0)),
    ),
    ("m.room.guest_access", {}, (("guest_access",),)),
    ("m.room.history_visibility", {}, (("history_visibility",),)),
    ("m.room.pinned_events", {}, (("pinned",), ("pinned", 0))),
    ("m.room.aliases", {}, (("aliases",), ("aliases", 0))),
    ("m.room.policy", {"via": "of no server"}, (("via",), ("public_keys",), ("public_keys", "ed25519"))),
    (
        "m.room.third_party_invite",
        {"display_name": "d"},
        (("display_name",), ("public_key",), ("public_keys",), ("public_keys", 0), ("public_keys", 0, "public_key")),
    ),
    ("m.space.child", {"via": [OURS]}, (("via",), ("via", 0), ("order",), ("suggested",))),
    ("m.space.parent", {"via": [OURS]}, (("via",), ("canonical",))),
    ("m.policy.rule.user", {"entity": "@a:b"}, (("entity",), ("recommendation",), ("reason",))),
    (
        LEVELS,
        {},
        (
            ("notifications",), ("notifications", "room"), ("events",), ("events", "m.room.message"),
            ("events", "m.room.encrypted"), ("users",), ("users", OTHER), ("users_default",), ("events_default",),
            ("state_default",), ("ban",), ("invite",), ("kick",), ("redact",),
        ),
    ),
    ("m.room.tombstone", {"body": "b"}, (("replacement_room",), ("body",))),
    (
        "m.room.encryption",
        {"algorithm": "m.megolm.v1.aes-sha2"},
        (("algorithm",), ("rotation_period_ms",), ("rotation_period_msgs",)),
    ),
    (ACL, {"allow": ["*"]}, (("allow",), ("allow", 0), ("deny",), ("deny", 0), ("allow_ip_literals",))),
    (
        RULES,
        {"join_rule": "restricted"},
        (("allow",), ("allow", 0), ("allow", 0, "type"), ("allow", 0, "room_id"), ("join_rule",)),
    ),
)  # fmt: skip
#: Fields of a create event: a room is made with each.
CREATE: tuple[Path_, ...] = (
    ("type",), ("m.federate",), ("predecessor",), ("predecessor", "room_id"), ("predecessor", "event_id"),
    ("creator",), ("additional_creators",), ("additional_creators", 0), ("room_version",),
)  # fmt: skip


def put(base: Mapping[str, Any], path: Path_, value: Any) -> dict[str, Any]:
    """Returns a content with ``value`` at ``path``: a number in the path is an index of a list."""
    head, *rest = path

    def inner(here: Path_) -> Any:
        if not here:
            return value
        first, *more = here
        return [inner(tuple(more))] if isinstance(first, int) else {first: inner(tuple(more))}

    known: dict[str, Any] = {"type": "m.room_membership"} if path[:2] == ("allow", 0) else {}
    made = inner(tuple(rest))
    if known and isinstance(made, list) and isinstance(made[0], dict) and len(path) == 3:
        made = [known | made[0]]
    return {**base, str(head): made}


def wrong(number: int, version: str) -> Any:
    """Returns the value of the field with that number in a version."""
    return WRONG[(number + 2 * VERSIONS.index(version)) % len(WRONG)]


def broken(version: str) -> Iterator[tuple[str, Path_, dict[str, Any]]]:
    """``(type, path, content)`` of every event that is sent in a room of that version."""
    fields = [(type_, base, path) for type_, base, paths in FIELDS for path in paths]
    for number, (type_, base, path) in enumerate(fields):
        value = wrong(number, version)
        sound = 0 if type_ == LEVELS and value == 7 else value  # as a level, 7 keeps people out
        yield type_, path, put(base, path, sound)


class Scene:
    """A room in which the stranger ``m`` sets the state, with two local users and one of XMPP, and a valid
    room and a valid space beside it.
    """

    def __init__(self, home: MatrixServer, link: ScriptedLink) -> None:
        self.home, self.link = home, link
        self.wire, self.room = home.wire, home.wire.room
        self.asked = self._said = 0

    async def begin(self) -> None:
        self.alice, self.bob = await self.home.person("alice"), await self.home.person("bob")
        for person in (self.alice, self.bob):
            await person.join(self.room.room_id)
            await person.join(self.wire.other.room_id)
        self.sound = await self.alice.create(
            preset="public_chat", name="sound", visibility="public", room_alias_name="sound"
        )
        await self.bob.join(self.sound)
        self.space = await self.alice.create(
            preset="public_chat", creation_content={"type": "m.space"}, visibility="public", name="space"
        )
        for child in (self.room.room_id, self.sound):
            await self.alice.state(self.space, "m.space.child", {"via": [OURS]}, child)
        await self.home.matrix.public_rooms.set_published(self.room.room_id, listed=True, by=self.alice.user)
        levels = {"users": self.users, "notifications": {"room": 0}}
        await self.ours(LEVELS, levels)
        self.link.up()
        self.link.online.add(ANN)
        self.link.receive(
            f"<presence from='{ANN}' to='{MUC}/ann'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
        )
        await self.link.until(lambda: any(e.find("{*}subject") is not None for e in self.link.sent))

    @property
    def users(self) -> dict[str, int]:
        """Returns the users who may set the state: the stranger, and in versions without creators the bridge
        user.
        """
        owner = {} if self.room.version.privileged_creators else {f"@hansa:{OURS}": 100}
        return {self.room.user: 100, **owner}

    async def ours(self, type_: str, content: dict[str, Any], key: str = "") -> None:
        """State that our side sets, which the stranger learns of."""
        made = await self.home.matrix.local_events.send_state(self.room.room_id, type_, key, content)
        status, answer = await self.wire.ask("GET", f"{V1}/event/{part(made)}")
        assert status == 200, answer
        self.room.keep(pdu_from_raw(answer["pdus"][0], self.room.version))

    def finished(self, type_: str, content: Any, key: str) -> dict[str, Any]:
        forger = self.wire.forger
        drafted = forger.draft(self.room, type_, content if isinstance(content, dict) else {}, key)
        return forger.finish(self.room, {**drafted, "content": content})

    async def set(self, type_: str, content: dict[str, Any]) -> bool:
        """State by the stranger; whether it was taken."""
        keys = {MEMBER: self.room.user, "m.space.child": self.sound, "m.space.parent": self.space}
        key = {**keys, "m.room.aliases": THEIRS}.get(type_, "")
        if type_ == LEVELS:
            users = content.get("users", {})
            mended = isinstance(users, dict) and users.keys() <= {OTHER}
            content = {**content, "users": {**self.users, **users} if mended else users}
        raw = self.finished(type_, content, key)
        taken = await self.taken(raw)
        if taken:
            self.room.keep(pdu_from_raw(raw, self.room.version))
        return taken

    async def taken(self, raw: dict[str, Any]) -> bool:
        """Send one event; whether it became a part of the room, as our own rows say: an ACL may keep the
        stranger from asking.
        """
        matrix, name = self.home.matrix, event_id(raw, self.room.version)
        before = self.wire.counted("matrix_pdus")
        status, answer = await self.wire.send(raw)
        assert status == 200, answer

        async def fate() -> Any:
            kept = (await matrix.event_store.load([name], self.room.version)).get(name)
            return kept.status if kept is not None else self.wire.counted("matrix_pdus") != before

        return await until(fate) is Status.ACCEPTED

    async def sound_again(self, type_: str) -> None:
        """Let the stranger go on after an event of that type."""
        if type_ == ACL:
            await self.ours(ACL, {"allow": ["*"]})
        elif type_ == RULES:
            assert await self.set(RULES, {"join_rule": "public"})
        elif type_ in {MEMBER, LEVELS}:
            assert await self.set(type_, {"membership": "join"} if type_ == MEMBER else {})

    async def read(self, type_: str, where: str) -> None:
        """Ask everybody for everything."""
        room, tip = self.room.room_id, next(iter(self.room.tips))
        given = {
            "room": room, "event": tip, "event_id": tip, "v": tip, "user": self.room.user, "type": type_, "key": "",
            "user_id": self.room.user, "device": self.alice.device, "kind": "m.read", "alias": f"#one:{OURS}",
            "server": OURS,
        }  # fmt: skip
        router = self.home.app.routers[OURS]
        for method, parts in routes(router):
            if method == "GET" and {"{room}", "{alias}", "{user}", "publicRooms", "joined_rooms"} & set(
                parts
            ):
                await self.whole(self.alice.whole(method, filled(parts, given)), parts, where)
        for method, parts in federation_routes(router):
            if method == "GET" and "key" not in parts and "media" not in parts:
                target = filled(parts, given) + f"?event_id={part(tip)}&v={part(tip)}&ver=12&limit=10"
                await self.whole(self.wire.whole(method, target), parts, where)
        for person in (self.alice, self.bob):
            for target in ("/notifications", "/joined_rooms", "/events?from=s0&timeout=0"):
                await self.whole(person.whole("GET", target), target, where)
        query = {"device_keys": {self.room.user: []}}
        await self.whole(self.alice.whole("POST", "/keys/query", query), "keys", where)
        assert await self.elsewhere() == self.told, where

    def unharmed(self, caplog: pytest.LogCaptureFixture) -> None:
        assert self.home.app.counters.get(("http_internal_errors", ()), 0) == 0
        assert [self.home.app.runners[name].restarts for name in ("matrix", "xmpp")] == [0, 0]
        assert not [record for record in caplog.records if record.exc_info]

    async def whole(self, answer: Awaitable[Response], what: object, where: str) -> None:
        found = await answer
        self.asked += 1
        assert found.status < 500, f"{found.status} to {what} with {where}: {found.body[:300]!r}"

    async def speak(self, where: str) -> None:
        """Both sides of the bridge hear each other, and a client is told of it."""
        self._said += 1
        ours, theirs = f"@room ours {self._said}", f"theirs {self._said}"
        await self.alice.say(self.room.room_id, ours)
        await self.link.until(lambda: ours in self.link.bodies(ANN))
        body = f"<body>{theirs}</body>"
        self.link.receive(
            f"<message from='{ANN}' to='{MUC}' id='{self._said}' type='groupchat'>{body}</message>"
        )

        async def heard() -> bool:
            found = (await self.bob.sync()).get("rooms", {}).get("join", {}).get(self.room.room_id, {})
            news.extend(e["content"].get("body") for e in found.get("timeline", {}).get("events", ()))
            return ours in news and theirs in news

        news: list[Any] = []
        assert await until(heard), where
        self.link.sent.clear()

    async def elsewhere(self) -> list[Any]:
        """Returns the answers about other rooms and their users."""
        sync = (await self.alice.get("/sync?full_state=true&timeout=0"))["rooms"]["join"]
        assert sync.keys() >= {self.room.room_id, self.wire.other.room_id, self.sound, self.space}
        lists = await self.alice.get("/publicRooms")
        searched = await self.alice.call("POST", "/publicRooms", {"filter": {"generic_search_term": "sound"}})
        theirs = (await self.wire.ask("GET", f"{V1}/publicRooms?limit=10"))[1]
        space = await self.alice.get(f"/_matrix/client/v1/rooms/{part(self.space)}/hierarchy")
        served = (await self.wire.ask("GET", f"{V1}/hierarchy/{part(self.space)}"))[1]
        people = await self.alice.call("POST", "/user_directory/search", {"search_term": "bob"})
        profile = await self.alice.get(f"/profile/{part(self.bob.user)}")
        found: list[Any] = [sync[one] for one in (self.wire.other.room_id, self.sound, self.space)]
        for rooms in (lists["chunk"], searched["chunk"], theirs["chunk"], space["rooms"], served["children"]):
            found.append([one for one in rooms if one["room_id"] == self.sound])
            assert found[-1]
        return [timeless(found), people, profile]


def timeless(value: Any) -> Any:
    """Without what grows with time."""
    match value:
        case dict():
            return {k: timeless(v) for k, v in value.items() if k not in {"age", "prev_batch", "ephemeral"}}
        case list():
            return [timeless(one) for one in value]
    return value


@asynccontextmanager
async def scene(folder: Path, version: str) -> AsyncIterator[Scene]:
    link = ScriptedLink()

    @hookimpl
    def open_network(ctx: Any) -> Any:
        return XmppNetwork(ctx, link)

    plugin = SimpleNamespace(__name__="xmpp", open_network=open_network)
    beside = {"xmpp": (plugin, XmppConfig(component=GW, secret="s"))}
    async with matrix_server(folder, version, federation_rate=0, beside=beside, linked=["xmpp:one"]) as home:
        made = Scene(home, link)
        await made.begin()
        made.told = await made.elsewhere()
        yield made


def refused(type_: str, path: Path_, content: Any, version: str) -> bool:
    """True if the authorization rules refuse an event for its wrong content."""
    strict, value = version in {"10", "12"}, content
    for step in path:
        value = value[step]
    if type_ == LEVELS and (strict or path[0] == "users"):
        return type(value) is not int or path in {("events",), ("users",), ("notifications",)}
    return path == ("membership",) or (path == ("join_authorised_via_users_server",) and strict)


@pytest.mark.parametrize("version", VERSIONS)
async def test_no_type_of_state_takes_an_answer_from_anybody(tmp_path, caplog, version):
    async with scene(tmp_path, version) as made:
        for type_, path, content in broken(version):
            where = f"{type_} {content!r}"[:200]
            taken = await made.set(type_, content)
            assert taken is not refused(type_, path, content, version), where
            await made.read(type_, where)
            await made.speak(where)
            await made.sound_again(type_)
        made.unharmed(caplog)


@pytest.mark.parametrize("version", VERSIONS)
async def test_no_create_event_takes_an_answer_from_anybody(tmp_path, caplog, version):
    async with scene(tmp_path, version) as made:
        for number, path in enumerate(CREATE):
            value = wrong(number, version)
            content = put({"room_version": version, "creator": made.room.user}, path, value)
            where = f"m.room.create {content!r}"[:200]
            resident = Resident(made.wire, version, content, {"join_rule": "public"}, f"made{number}")
            made.wire.peer.answer = resident
            if path == ("room_version",) or (version == "12" and path[0] == "additional_creators"):
                assert (await made.alice.ask("POST", f"/join/{part(ALIAS)}", {}))[0] in {400, 403, 502}, where
                continue
            await made.alice.join(ALIAS)
            room = made.room = resident.room
            await made.alice.say(room.room_id, "here")
            await made.read("m.room.create", where)
            assert await made.alice.texts(room.room_id) == ["here"]
        made.unharmed(caplog)


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_event_whose_content_is_no_object_takes_nothing_along(tmp_path, caplog, version):
    async with scene(tmp_path, version) as made:
        for number, (type_, _, _) in enumerate(FIELDS):
            raw = made.finished(type_, WRONG[2 * number % len(WRONG)] if number % 4 != 3 else "x", "")
            beside = made.wire.forger.message(made.wire.room, f"beside {number}")
            status, answer = await made.wire.send(raw, beside)
            assert status == 200
            assert not answer["pdus"][event_id(beside, made.room.version)]
            assert await made.wire.fate(beside) == "accepted"
            made.room.keep(pdu_from_raw(beside, made.room.version))
            await made.speak(type_)
        assert await made.elsewhere() == made.told
        made.unharmed(caplog)


@pytest.mark.parametrize("value", [["x"], {"x": {}}, 7, DEEP], ids=["list", "object", "number", "deep"])
@pytest.mark.parametrize("version", ["6", "10", "12"])
async def test_a_room_with_such_state_is_replaced(tmp_path, caplog, version, value):
    """Wrong state of a room has no effect in the new room, and does not prevent the upgrade."""
    async with scene(tmp_path, version) as made:
        for type_, base, paths in FIELDS:
            if type_ in {MEMBER, LEVELS, ACL, RULES, "m.room.tombstone"}:
                continue
            content = base
            for path in paths:
                content = put(content, path[:1], value)
            assert await made.set(type_, content), type_
        matrix = made.home.matrix
        new = await matrix.upgrades.upgrade({"room": made.room.room_id, "version": "12"})
        await made.bob.join(new["room"])
        await made.bob.say(new["room"], "here")
        assert await made.bob.texts(new["room"]) == ["here"]
        assert await made.elsewhere() == made.told
        made.unharmed(caplog)
