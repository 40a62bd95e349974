"""The cache of events is bounded by number and by size."""

from __future__ import annotations

import orjson
from hansa.store.base import ScopedStore
from hansa.store.memory import MemoryStore
from hansa_matrix.proto.pdu import pdu_from_raw
from hansa_matrix.proto.room_versions import VERSIONS
from hansa_matrix.rooms.event_store import EventStore, Status, StoredEvent
from memory import peak_memory


def event(number: int, size: int) -> StoredEvent:
    raw = {
        "type": "m.room.message",
        "sender": "@a:x",
        "room_id": "!r",
        "content": {"body": "x" * size},
        "prev_events": [],
        "auth_events": [],
        "depth": number,
        "origin_server_ts": number,
        "hashes": {"sha256": ""},
        "signatures": {},
    }
    return StoredEvent(pdu_from_raw(raw, VERSIONS["12"]), Status.ACCEPTED)


def test_many_small_and_few_large_events_are_kept_and_the_newest_last_longest():
    events = EventStore(ScopedStore(MemoryStore(), "m"))
    small = [event(n, 10) for n in range(6000)]
    events.keep(small)
    assert [s.pdu.event_id for s in small if events.at_hand(s.pdu.event_id)] == [
        s.pdu.event_id for s in small[1000:]
    ]
    large = [event(10_000 + n, 60_000) for n in range(300)]
    events.keep(large)
    kept = [s for s in large if events.at_hand(s.pdu.event_id)]
    assert kept == large[-len(kept) :]
    assert 7 * 2**20 < sum(len(s.pdu.wire) for s in kept) <= 8 * 2**20
    assert not any(events.at_hand(s.pdu.event_id) for s in small)
    for _ in range(3):  # repeated, it takes no more
        events.keep(kept)
    assert [s for s in large if events.at_hand(s.pdu.event_id)] == kept


def test_few_events_of_many_small_objects_are_kept():
    """64 KiB of these take 2 MiB once they are parsed: 8 MiB of them would be 270."""
    events = EventStore(ScopedStore(MemoryStore(), "m"))
    made = []
    with peak_memory() as peak:
        for number in range(200):
            one = event(number, 10)
            raw = {**one.pdu.raw, "content": orjson.loads(b'{"a":[' + b'{"":0},' * 8500 + b"0]}")}
            made.append(pdu_from_raw(raw, VERSIONS["12"]).event_id)
            events.keep([StoredEvent(pdu_from_raw(raw, VERSIONS["12"]), Status.ACCEPTED)])
    kept = [name for name in made if events.at_hand(name)]
    assert kept == made[-len(kept) :] and 3 <= len(kept) <= 8
    assert peak.bytes < 32 * 2**20
