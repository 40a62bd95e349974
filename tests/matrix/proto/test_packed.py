"""Events of a large answer are held as their bytes, and are the same events when they are read."""

from __future__ import annotations

import gc
import secrets
from typing import Any

import pytest
from hansa_matrix.crypto import SigningKey
from hansa_matrix.proto.pdu import hash_and_sign, parse_pdu
from hansa_matrix.proto.room_versions import VERSIONS
from hansa_matrix.proto.streaming.gathered_pdus import GatheredPdus
from hansa_matrix.proto.streaming.packed_pdus import Unpacking, pack_pdu, unpack_pdu

KEY = SigningKey.from_seed("ed25519:a", secrets.token_bytes(32))
V11 = VERSIONS["11"]


def event(version: str = "11", **over: Any) -> dict[str, Any]:
    draft = {
        "type": "m.room.member",
        "state_key": "@a:x",
        "sender": "@a:x",
        "room_id": "!r:x",
        "content": {"membership": "join"},
        "prev_events": [],
        "auth_events": [],
        "depth": 3,
        "origin_server_ts": 1,
        **over,
    }
    if VERSIONS[version].server_made_event_ids:
        draft["event_id"] = f"${secrets.token_hex(8)}:x"
    return dict(hash_and_sign(draft, VERSIONS[version], "x", (KEY.key_id, KEY.sign)).raw)


@pytest.mark.parametrize("version", list(VERSIONS))
def test_a_packed_event_says_what_it_said(version):
    raw = event(version, content={"membership": "join", "displayname": "\u00e9", "n": {"deep": [1, None]}})
    whole = parse_pdu(raw, VERSIONS[version])
    held = pack_pdu(whole)
    assert held.raw == whole.raw
    assert dict(held.content) == whole.content
    assert held.membership == "join"
    assert (held.event_id, held.key, held.wire) == (whole.event_id, whole.key, whole.wire)
    assert len(held.raw) == len(whole.raw)
    assert set(held.content) == set(whole.content)
    again = unpack_pdu(held, VERSIONS[version])
    assert type(again.raw) is type(again.content) is dict
    assert (again.raw, again.event_id, again.room_id) == (whole.raw, whole.event_id, whole.room_id)
    assert unpack_pdu(whole, VERSIONS[version]) is whole


def test_what_many_cite_is_unpacked_once_and_few_are_kept():
    pdus = [pack_pdu(parse_pdu(event(depth=n, content={"x": "y" * 1000}), V11)) for n in range(20)]
    unpacking = Unpacking(V11, most=5 * len(pdus[0].wire))
    first = unpacking(pdus[0])
    assert unpacking(pdus[0]) is first
    for pdu in pdus[1:4]:
        unpacking(pdu)
    assert unpacking(pdus[0]) is first  # the last that was used is kept
    for pdu in pdus[4:]:
        unpacking(pdu)
    assert unpacking(pdus[0]) is not first
    assert len(unpacking._kept) <= 5


def test_an_event_that_is_larger_than_all_that_may_be_kept_is_unpacked_too():
    pdu = pack_pdu(parse_pdu(event(content={"x": "y" * 1000}), V11))
    unpacking = Unpacking(V11, most=10)
    assert unpacking(pdu).content == {"x": "y" * 1000}
    assert unpacking(pdu) is unpacking(pdu)


def _parsed(held: object) -> list[object]:
    """Returns the objects within an object that parsed JSON can consist of."""
    found, edge, seen = [], [held], set[int]()
    while edge:
        one = edge.pop()
        if id(one) in seen or isinstance(one, type):
            continue
        seen.add(id(one))
        found += [one] if isinstance(one, dict | list) else []
        edge += gc.get_referents(one)
    return found


def test_what_is_gathered_is_held_as_bytes():
    """Parsed, 60 KiB of empty objects take thirty times that."""
    whole = parse_pdu(event(content={"x": [{} for _ in range(20_000)]}), V11)
    assert len(_parsed(whole)) > 20_000
    gathered = GatheredPdus("!r:x", V11)
    gathered.add_values("pdus", [dict(whole.raw), event(), event(room_id="!other:x")])
    assert len(gathered.pdus) == 2
    assert gathered.pdus.keys() == {pdu.event_id for pdu in gathered.fresh}
    for pdu in gathered.pdus.values():
        assert _parsed(pdu) == []
    assert unpack_pdu(gathered.pdus[whole.event_id], V11).raw == whole.raw
