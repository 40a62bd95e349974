"""A room after a commit whose result nobody knows, or that another writer was faster than: nothing that was kept
is written over, and memory is what the store holds before anything else happens.
"""

from __future__ import annotations

from contextlib import contextmanager
from urllib.parse import quote

import pytest
from hansa import Name, NativeId, StoreFault, Submission, Topic
from hansa.store.base import CompareAndSwap, Conflict
from hansa.store.faults import FaultKind
from hansa.store.memory import MemoryStore
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.rooms.event_store import EventStore
from hansa_matrix.rooms.room import MatrixRoom
from matrix.server_with_peer import OURS, THEIRS, V1, V2, server_with_peer


async def said(house, content, origin, native=None):
    """Sends an event as the bridge user; returns its Matrix id."""
    inbound = Submission(
        origin=NativeId("matrix", origin),
        room=NativeId("matrix", house.room.room_id),
        sender=NativeId("matrix", f"@hansa:{OURS}"),
        content=content,
        ts=0,
        native=native,
    )
    (outcome,) = await house.app.contexts["matrix"].submit([inbound])
    assert outcome.refusal is None, outcome
    return outcome.native_id


@contextmanager
def failing(monkeypatch, *, kept):
    """The next commit of a Matrix room's row fails, whether it was kept or not."""
    whole, failed = MemoryStore.commit, []

    async def commit(self, scope, writes, *, durability="full"):
        ours = (
            any(isinstance(w, CompareAndSwap) and w.collection.endswith("/room") for w in writes)
            and not failed
        )
        if ours:
            failed.append(True)
        if ours and not kept:
            raise StoreFault(FaultKind.AWAY, "nothing was kept")
        done = await whole(self, scope, writes, durability=durability)
        if ours:
            raise StoreFault(FaultKind.AWAY, "it is not known whether it was kept")
        return done

    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "commit", commit)
        yield
        assert failed


async def state_of(house, event_id):
    """The state before an event, as other servers are told."""
    target = f"{V1}/state/{quote(house.room.room_id, safe='')}?event_id={quote(event_id, safe='')}"
    _, answer = await house.ask("GET", target)
    return {pdu["type"]: pdu["content"] for pdu in answer["pdus"]}


async def as_kept(house):
    """The room as a process would find it that starts now."""
    store = house.app.contexts["matrix"].store
    row = await store.get("room", (house.room.room_id,))
    return MatrixRoom.load(house.room.room_id, row.body, store, EventStore(store))


@pytest.mark.parametrize("kept", [True, False])
async def test_what_an_unknown_commit_kept_stays_in_the_state_and_among_the_ends(tmp_path, monkeypatch, kept):
    async with server_with_peer(tmp_path) as house:
        with failing(monkeypatch, kept=kept), pytest.raises(StoreFault):
            await said(house, Name(text="kept"), "name")
        topic = await said(house, Topic(text="after it"), "topic")
        state = await state_of(house, topic)
        assert state.get("m.room.name", {}).get("name") == ("kept" if kept else None)
        room = await as_kept(house)
        present = await room.state()
        assert (("m.room.name", "") in present) is kept and present["m.room.topic", ""] == topic
        events = await room.events.load([topic, *present.values()], room.version)
        name = present.get(("m.room.name", ""))
        if kept:
            assert events[topic].pdu.prev_events == (name,)
            after = await room.groups.load(events[name].after)
            assert after["m.room.name", ""] == name and ("m.room.topic", "") not in after
        for one in events.values():
            assert await room.groups.load(one.after)


async def test_who_looks_after_an_unknown_result_is_told_what_was_kept(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        with failing(monkeypatch, kept=True), pytest.raises(StoreFault):
            await said(house, Name(text="kept"), "name")
        room = matrix.get_room(house.room.room_id)
        while room.stale:
            await matrix.rooms.refresh_room(room)
        assert ("m.room.name", "") in await room.state()
        assert room.kept == (await as_kept(house)).kept and not room.groups.drafts()


async def test_another_writer_is_noticed_and_its_event_is_followed(tmp_path, monkeypatch):
    """Two processes' memories of one room: the second finds its row changed, reads it, and goes on from there."""
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        room = matrix.get_room(house.room.room_id)
        before = await as_kept(house)
        name = await said(house, Name(text="of the first"), "name")
        # The other's memory is from before the first one's event.
        room.head, room.kept = before.head, before.kept
        room.groups.last = before.groups.last
        topic = await said(house, Topic(text="of the second"), "topic")
        events = await room.events.load([name, topic], room.version)
        assert events[topic].pdu.prev_events == (name,)
        present = await (await as_kept(house)).state()
        assert (present["m.room.name", ""], present["m.room.topic", ""]) == (name, topic)
        assert len({events[name].after, events[topic].after}) == 2


async def test_a_group_that_a_refused_event_made_is_kept_for_those_that_stand_on_it(tmp_path):
    """The resolution of some extremities is computed for the first event that follows them, which may be
    refused.
    """
    async with server_with_peer(tmp_path) as house:
        house.matrix.keep_forward_extremities()
        tips, ends = list(house.room.tips), []
        said = (
            ("m.room.name", {"name": "a"}),
            ("m.room.topic", {"topic": "b"}),
            ("m.room.name", {"name": "c"}),
        )
        for type_, content in said:
            draft = house.forger.draft(house.room, type_, content, "", prev_events=tips)
            ends.append(house.forger.finish(house.room, draft))
        for raw in ends:
            assert await house.fate(raw) == "accepted"
        two = [event_id(raw, house.room.version) for raw in ends[1:]]
        who = f"@nobody:{THEIRS}"
        draft = house.forger.draft(
            house.room, "m.room.member", {"membership": "leave"}, who, sender=who, prev_events=two
        )
        leave = house.forger.finish(house.room, draft)
        at = f"{quote(house.room.room_id, safe='')}/{quote(event_id(leave, house.room.version), safe='')}"
        assert (await house.ask("PUT", f"{V2}/send_leave/{at}", leave))[0] == 403
        word = house.forger.message(house.room, "over two", prev_events=two)
        assert await house.fate(word) == "accepted"
        kept = await as_kept(house)
        named = event_id(word, house.room.version)
        stored = (await kept.events.load([named], kept.version))[named]
        assert {("m.room.name", ""), ("m.room.topic", "")} <= set(await kept.groups.load(stored.before))


async def test_a_purge_takes_no_room_that_somebody_entered_meanwhile(tmp_path):
    async with server_with_peer(tmp_path) as house:
        room = await as_kept(house)
        store = house.app.contexts["matrix"].store
        await said(house, Topic(text="meanwhile"), "topic")
        with pytest.raises(Conflict):
            await store.commit([room.remove()])
