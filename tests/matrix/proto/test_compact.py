"""A stored event takes as much memory as its bytes say."""

from __future__ import annotations

import tracemalloc

import orjson
import pytest
from hansa_matrix.proto.pdu import hash_and_sign, parse_pdu, pdu_from_raw, pdu_from_wire, redact_pdu
from hansa_matrix.proto.room_versions import VERSIONS

COUNT = 200


def drafts():
    for number in range(COUNT):
        yield {
            "type": "m.room.message",
            "room_id": "!a:x",
            "sender": "@a:x",
            "content": {"msgtype": "m.text", "body": f"{number} " + "words " * 20},
            "prev_events": [],
            "auth_events": [],
            "depth": number,
            "origin_server_ts": number,
        }


def finished(version):
    return [hash_and_sign(draft, version, "x", ("ed25519:a", lambda _: "s" * 86)) for draft in drafts()]


@pytest.mark.parametrize(
    "made",
    [
        lambda pdu, version: parse_pdu(orjson.loads(pdu.wire), version),
        lambda pdu, version: pdu_from_raw(pdu.raw, version),
        redact_pdu,
    ],
)
def test_the_bytes_of_an_event_take_what_they_are_long(made):
    """The output of orjson takes 4 KiB: of 5,000 events in memory that was twice all else."""
    version = VERSIONS["11"]
    events = finished(version)
    tracemalloc.start()
    try:
        kept = [(pdu.wire, pdu.signable) for pdu in (made(one, version) for one in events)]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 2 * sum(len(part) for pair in kept for part in pair) + COUNT * 200


def test_the_bytes_of_an_event_of_ours_take_what_they_are_long():
    tracemalloc.start()
    try:
        kept = [pdu.wire for pdu in finished(VERSIONS["11"])]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 2 * sum(map(len, kept)) + COUNT * 200


def test_the_type_of_every_event_is_one_string():
    """It stands in the key of every piece of state: a member event's in that of every person."""
    version = VERSIONS["11"]
    events = [parse_pdu(orjson.loads(pdu.wire), version) for pdu in finished(version)]
    assert len({id(pdu.type) for pdu in events}) == 1
    assert len({id(pdu_from_wire(one.event_id, one.wire, version).type) for one in events}) == 1
