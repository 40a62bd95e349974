"""Texts of an event outside its content, which servers and some clients get as they were signed."""

from __future__ import annotations

from typing import Any

import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from clients.test_withheld import Censor
from clients.test_words_elsewhere import WORD
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa_matrix.proto.hashing import content_hash, event_id
from hansa_matrix.texts import texts_of_pdu
from matrix.server_with_peer import OURS, THEIRS, V1
from matrix.two_servers import at

FORMAT = part('{"event_format":"federation","room":{"timeline":{"limit":100}}}')


async def told(home: MatrixServer, alice: LocalUser, **beside: Any) -> str:
    """Sends an event of the other server with more members than required; returns its id."""
    wire = home.wire
    draft = wire.forger.draft(wire.room, "m.room.message", {"msgtype": "m.text", "body": "fair"}, **beside)
    hashes = draft.pop("hashes", None)
    if hashes is not None:
        hashes = {"sha256": content_hash(draft, wire.room.version), **hashes}
    raw = wire.forger.finish(wire.room, draft, hashes=hashes)
    assert await wire.fate(raw) == "accepted"
    return event_id(raw, wire.room.version)


@pytest.mark.parametrize(
    "beside",
    [{"note": f"it is {WORD}"}, {f"it is {WORD}": 1}, {"hashes": {"note": f"it is {WORD}"}}],
    ids=str,
)
async def test_what_stands_beside_the_content_is_read_too(tmp_path, beside):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        await alice.join(f"#one:{OURS}")

        async def everywhere(name: str) -> str:
            alice.since = ""
            whole = str(await alice.sync(f"&filter={FORMAT}"))
            if "hashes" in beside:  # a redaction leaves them, as the event's id is made of them
                return whole
            return whole + str(await home.wire.ask("GET", f"{V1}/event/{at(name)}"))

        before = await told(home, alice, **beside)
        assert WORD in await everywhere(before), "with no policy it is handed on as it came"
        home.app.decisions.replace([InstalledPolicy(name="censor", policy=Censor())])
        assert WORD not in await everywhere(before)
        assert WORD not in await everywhere(await told(home, alice, **beside))
        fair = await told(home, alice, origin=THEIRS)
        alice.since = ""
        assert fair in str(await alice.sync("&full_state=true"))


def test_an_event_as_servers_make_it_says_its_content_alone():
    raw = {
        "type": "m.room.message", "room_id": "!a:x", "sender": "@a:x", "content": {"body": "hello", "msgtype": "m.text"},
        "origin": "x.example", "origin_server_ts": 1, "depth": 2, "hashes": {"sha256": "A" * 43},
        "signatures": {"x": {"ed25519:a": "A" * 86}}, "prev_events": ["$a"], "auth_events": ["$b"],
        "unsigned": {"age": 1}, "event_id": "$c:x",
    }  # fmt: skip
    assert texts_of_pdu("m.room.message", None, raw) == ("hello",)
    assert set(texts_of_pdu("m.room.redaction", None, {**raw, "redacts": "no id"})) == {"hello", "no id"}
    assert texts_of_pdu("m.room.redaction", None, {**raw, "redacts": "$" + "a" * 43}) == ("hello",)
