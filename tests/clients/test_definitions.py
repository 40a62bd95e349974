"""The endpoints of the specification's own definitions: there, or absent on purpose; and nonsense asked of each.

``vectors/client_api.json`` has of each its path, whether it takes a token, and the types of what it takes,
out of matrix-org/matrix-spec, ``data/api/client-server``.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from cpu_reference import reference_cpu_s
from hansa import Request
from matrix.server_with_peer import OURS

DEFINED = json.loads((Path(__file__).parents[1] / "vectors" / "client_api.json").read_text())
SEED = os.environ.get("HANSA_SEED", "1")
ROUNDS = int(os.environ.get("HANSA_FUZZ_ROUNDS", "4"))
#: CPU time that one request may take, in units of ``cpu_reference``.
MOST = 20

#: What comes later, or never: parts of paths, and why.
ABSENT = {
    "/.well-known/matrix/policy_server": "this server is none",
    "/.well-known/matrix/support": "later",
    "/admin/lock": "later",
    "/admin/suspend": "later",
    "/appservice": "application services come later",
    "auth_metadata": "OAuth comes later",
    "/login/get_token": "later",
    "/login/sso": "single sign-on comes later",
    "preview_url": "what others' pages say is not fetched",
    "/3pid/": "nobody is known by an address here",
    "/requestToken": "nobody is known by an address here",
    "/events/": "of an event without its room: nobody asks",
    "v3/initialSync": "removed from the specification",
    "/pushers/set": "push comes later",
    "/refresh": "tokens last until they are given back",
    "/search": "later",
    "/thirdparty/location": "there are none",
    "/thirdparty/user": "there are none",
    "/thirdparty/protocol/": "there are none",
}


def known(home: MatrixServer, method: str, path: str) -> bool:
    router = next(iter(home.app.routers.values()))
    target = re.sub(r"\{[^}]*\}", "x", path.strip())
    return router.find(Request(method=method, target=target, host=OURS)).route is not None


def absent(method: str, path: str) -> bool:
    if path.endswith(("/user_directory/search", "/threads")):
        return False
    alone = {("POST", "/_matrix/client/v3/account/3pid")}
    twice = path != path.strip()  # a second definition of a path that is there
    return twice or (method, path) in alone or any(name in path for name in ABSENT)


async def test_everything_that_is_defined_is_there_or_absent_on_purpose(tmp_path):
    async with matrix_server(tmp_path) as home:
        for one in DEFINED:
            path = one["path"].strip()
            if absent(one["method"], one["path"]):
                continue
            assert known(home, one["method"], path), one
        for path in (
            "/_matrix/client/v3/search",
            "/_matrix/client/v3/refresh",
            "/_matrix/client/v1/auth_metadata",
        ):
            status, found = await home.anybody.ask("POST", path, {})
            assert (status, found["errcode"]) == (404, "M_UNRECOGNIZED")


async def test_what_takes_a_token_takes_one(tmp_path):
    async with matrix_server(tmp_path) as home:
        for one in DEFINED:
            path = re.sub(r"\{[^}]*\}", "x", one["path"].strip())
            if not one["token"] or not known(home, one["method"], one["path"]):
                continue
            mays = (
                "/_matrix/client/v3/profile",
                "/_matrix/client/v3/publicRooms",
                "/_matrix/client/versions",
            )
            if path.startswith(mays) and one["method"] == "GET":
                continue
            status, found = await home.anybody.ask(
                one["method"], path, {} if one["method"] != "GET" else None
            )
            assert (status, found["errcode"]) == (401, "M_MISSING_TOKEN"), one


VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**53, 2**70, 1.5, "", "x", "!a:b", "@a:b", "$x", "\0", "\ud7ff", "a" * 3000, [], {}, [[]], [{}],
    [None] * 30, {"a": {}}, {"@a:b": {"D": {}}}, {"@a:b": []}, [1, "x", {}], {"": [0] * 100}, {"limit": -1}, "m.text",
)  # fmt: skip
BODIES = (
    b"", b"[]", b"null", b"7", b"{", b"\xff", b'{"a":NaN}', b'{"a":1e999}', b'{"a":' * 900 + b"1" + b"}" * 900,
    b'{"a":"\\ud800"}', b'{"x":"' + b"y" * 200_000 + b'"}', b'{"x":"' + b"y" * 300_000 + b'"}',
)  # fmt: skip
WORDS = (
    "x",
    "!",
    "$",
    "@",
    "#",
    "!a:b",
    "@a:b",
    "a" * 300,
    "\0",
    "é",
    "%",
    "/",
    "..",
    "\ud7ff",
    "0",
    "-1",
    "m.room.member",
)


class Nonsense:
    """Requests out of one seed, some of them nearly right."""

    def __init__(self, seed: str, person: LocalUser, other: LocalUser, room: str, event: str) -> None:
        self._random = random.Random(seed)
        self._good = {
            "roomId": room, "roomIdOrAlias": room, "userId": person.user, "eventId": event, "eventType": "m.room.message",
            "stateKey": "", "txnId": "t", "roomAlias": f"#a:{OURS}", "type": "test.note", "receiptType": "m.read",
            "deviceId": person.device, "serverName": OURS, "mediaId": "abc", "keyName": "displayname", "kind": "override",
            "ruleId": "rule", "relType": "m.thread", "filterId": "f", "tag": "m.low", "version": "1", "user_id": other.user,
            "room_id": room, "dir": "b", "limit": "5", "ts": "1700000000000", "from": "s5", "to": "s1", "since": "s3_0_0",
        }  # fmt: skip

    def word(self, name: str) -> str:
        return self._random.choice(WORDS) if self._random.random() < 0.35 else str(self._good.get(name, "x"))

    def target(self, one: dict[str, Any]) -> str:
        path = re.sub(r"\{([^}]*)\}", lambda m: part(self.word(m[1])) or "x", one["path"].strip())
        names = [n for n in one["query"] if self._random.random() < 0.6 and n != "timeout"]
        query = "&".join(f"{quote(n)}={quote(self.word(n), safe='')}" for n in names)
        return f"{path}?{query}" if query else path

    def body(self, one: dict[str, Any]) -> bytes | None:
        if one["method"] == "GET":
            return None
        if self._random.random() < 0.25:
            return self._random.choice(BODIES)
        body: dict[str, Any] = {}
        for name, kind in one["body"].items():
            if self._random.random() < 0.8:
                good = {
                    "string": self._good.get(name, "x"),
                    "object": {},
                    "array": [],
                    "boolean": True,
                    "integer": 1,
                }
                right = self._random.random() < 0.5
                body[name] = good.get(kind, {}) if right else self._random.choice(VALUES)
        body.pop("auth", None)
        try:
            return orjson.dumps(body)
        except TypeError:  # an integer beyond 64 bits
            return json.dumps(body).encode()


@pytest.mark.parametrize("number", range(ROUNDS))
async def test_no_endpoint_fails_at_nonsense(tmp_path, number):
    seed = f"{SEED}-{number}"
    print(f"HANSA_SEED={SEED}, round {number}")
    unit = reference_cpu_s()
    async with matrix_server(tmp_path) as home:
        person, other = await home.person("alice"), await home.person("bob")
        room = await person.create(preset="public_chat")
        await other.join(room)
        nonsense = Nonsense(seed, person, other, room, await person.say(room, "hello"))
        served = [o for o in DEFINED if known(home, o["method"], o["path"])]
        random.Random(seed).shuffle(served)
        for one in served * 3:
            if one["path"].endswith(("/logout", "/logout/all", "/deactivate")):
                continue
            target, body = nonsense.target(one), nonsense.body(one)
            before = time.process_time()
            answer = await person.whole(one["method"], target, data=body or b"")
            took = time.process_time() - before
            where = f"{one['method']} {target[:300]} {(body or b'')[:300]!r}"
            assert answer.status < 500 or answer.status in {502, 504}, (
                f"{answer.status} to {where}: {answer.body[:300]!r}"
            )
            assert took < MOST * unit, f"{took:.3f} s, {took / unit:.1f} units of ``cpu_reference``: {where}"
            if answer.status >= 400:
                assert orjson.loads(answer.body)["errcode"].startswith("M_"), where
            if answer.chunks is not None:
                await answer.chunks.aclose()
        assert (await person.get("/account/whoami"))["user_id"] == person.user
        assert not [c for c in home.app.counters if c[0] == "http_internal_errors"]
        await other.sync()
        await person.sync()
