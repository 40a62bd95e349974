"""Rooms that are too large for one commit: what nobody sees is kept first, in pieces, and a process may die at
each of them. The bounds are lowered here, and every store refuses what is over them.
"""

from __future__ import annotations

import contextlib
import copy
import itertools

import hansa_matrix
import pytest
from hansa import NativeId, pieces
from hansa.bus import large_changes
from hansa.store import bounds
from hansa.store.base import Put
from hansa.store.faults import FaultKind, StoreFault
from hansa.store.memory import MemoryStore
from hansa.store.wrapper import StoreWrapper
from hansa.testing.harness import run_hansa
from hansa_matrix.admin import rooms
from hansa_matrix.config import Config
from hansa_matrix.rooms.membership import remote_membership
from hansa_matrix.rooms.state import state_groups
from hansa_matrix.testing import MatrixHarness
from matrix.server_with_peer import OURS, THEIRS, server_with_peer
from matrix.test_joining import ALIAS, Resident

PEOPLE, BOUND = 90, 40


class Dying(StoreWrapper):
    """Takes so many commits more, and nothing from then on; ``kept``: the next one is kept, and nobody knows."""

    def __init__(self, disk, left=None, *, kept=False):
        super().__init__(MemoryStore(disk))
        self.left, self.kept, self.sizes = left, kept, []

    async def commit(self, scope, writes, *, durability="full"):
        if self.left is not None:
            if not self.left and self.kept:
                self.kept = False
                await super().commit(scope, writes, durability=durability)
            if not self.left:
                raise StoreFault(FaultKind.AWAY, "the process is gone")
            self.left -= 1
        self.sizes.append(len(writes))
        return await super().commit(scope, writes, durability=durability)


@pytest.fixture
def lowered(monkeypatch) -> None:
    """Pieces of 20 rows, and a bound of 40 that no commit of a room of 90 people may pass."""
    monkeypatch.setattr(bounds, "MAX_WRITES", BOUND)
    monkeypatch.setattr(bounds, "MAX_WRITES_WHOLE", BOUND)
    monkeypatch.setattr(remote_membership, "_MAX_BATCH", 20)
    monkeypatch.setattr(state_groups, "_AHEAD", 20)
    monkeypatch.setattr(state_groups, "_ROW", 2)
    monkeypatch.setattr(bounds, "_PIECE", 20)
    monkeypatch.setattr(large_changes, "AT_ONCE", 20)
    monkeypatch.setattr(large_changes, "_PART", 20)


class World:
    """A Hansa that dies and starts again, and the resident of a room with many people."""

    def __init__(self):
        self._options = None
        self.house = None
        self.disk = None
        self.resident = None

    async def begin(self, folder, people):
        store = MemoryStore()
        async with server_with_peer(folder, store=store) as house:
            self.house = house
            self.resident = Resident(house, "12", rules={"join_rule": "public"})
            creator = self.resident.room.user
            for number in range(people):
                self.resident.room.user = user = f"@p{number}:{THEIRS}"
                self.resident._add("m.room.member", {"membership": "join"}, user)
            self.resident.room.user = creator
            named = [("m.room.join_rules", ""), ("m.room.member", creator)]
            cited = [self.resident.room.state[key] for key in named]
            self.resident.spoil_template = lambda answer: {
                **answer,
                "event": {**answer["event"], "auth_events": cited},
            }
        self._options = Config(server_name=OURS, signing_key=folder / "matrix.key", accept_invites=False)
        self.disk = store.disk
        house.peer.answer = self.resident
        return self

    @contextlib.asynccontextmanager
    async def running(self, store):
        networks = {"matrix": (hansa_matrix, self._options)}
        async with run_hansa(networks, store=store, http=self.house.peer) as app:
            self.house.app = app
            await app.link_room(["matrix:#two"], create=True)  # it has started
            yield app

    async def joined(self, app):
        link = await app.link_room([f"matrix:{ALIAS}"], create=True)
        assert link is not None
        return MatrixHarness(app.network("matrix")).get_room(self.resident.room.room_id)

    async def check(self, app):
        """The state is the resident's, and the core knows everybody."""
        room = MatrixHarness(app.network("matrix")).get_room(self.resident.room.room_id)
        found, ours = await room.state(), ("m.room.member", MatrixHarness(app.network("matrix")).bridge_user)
        assert {k: e for k, e in found.items() if k != ours} == self.resident.room.state and ours in found
        core = app.rooms.room_of(NativeId("matrix", room.room_id))
        assert len(core.view.people) == PEOPLE + 2 and core.kept.change is None
        assert await room.events.load(found.values(), room.version) != {}


@pytest.mark.parametrize("kept", [False, True])
async def test_a_process_may_die_at_each_commit_of_a_join(tmp_path, lowered, kept):
    world = await World().begin(tmp_path, PEOPLE)
    for left in itertools.count():
        disk = copy.deepcopy(world.disk)
        dying = Dying(disk)
        with contextlib.suppress(Exception):
            async with world.running(dying) as app:
                dying.left, dying.kept = left, kept
                try:
                    await world.joined(app)
                    done = dying.left > 0
                except Exception:
                    done = False
                    raise
        async with world.running(again := Dying(disk)) as app:
            await world.joined(app)
            await world.check(app)
        assert max(again.sizes) <= BOUND
        async with world.running(Dying(disk)) as app:
            await world.joined(app)
            await world.check(app)
        if done:
            break
    assert left > 10


async def test_a_purge_that_was_cut_off_goes_on(tmp_path, lowered, monkeypatch):
    """In the same process, and after a crash; the room's own row is the last."""
    monkeypatch.setattr(rooms, "_PAGE_SIZE", 20)
    world = await World().begin(tmp_path, PEOPLE)
    async with world.running(Dying(world.disk)) as app:
        room = (await world.joined(app)).room_id
        await MatrixHarness(app.network("matrix")).network.admin_commands()["rooms leave"]({"room": room})
    for left, crash in ((n // 2, bool(n % 2)) for n in itertools.count()):
        disk = copy.deepcopy(world.disk)
        dying = Dying(disk)
        with contextlib.suppress(StoreFault):
            async with world.running(dying) as app:
                purge = MatrixHarness(app.network("matrix")).network.admin_commands()["rooms purge"]
                dying.left = left
                try:
                    await purge({"room": room})
                    done = True
                except StoreFault:
                    done, dying.left = False, None if not crash else 0
                    if not crash:
                        await purge({"room": room})
        if not done and crash:
            async with world.running(Dying(disk)) as app:
                await MatrixHarness(app.network("matrix")).network.admin_commands()["rooms purge"](
                    {"room": room}
                )
        for collection in ("pdu", "state_group", "room"):
            rows = disk.tables["matrix", collection].values()
            assert not [r for r in rows if room in (r.key[0], r.fields.get("room_id"))], collection
        if done:
            break
    assert left > 5


async def test_many_state_groups_are_kept_before_what_names_them(tmp_path):
    """Of 20,000 people by their longest ids: the last commit is small, and what it names is there."""
    disk = MemoryStore().disk
    store = Dying(disk)
    await store.open()
    async with server_with_peer(tmp_path, store=store) as house:
        room = house.matrix.get_room(house.room.room_id)
        people = {("m.room.member", f"@{n:0240d}:x.example"): f"${n:043d}" for n in range(20_000)}
        before = len(room.groups.drafts())
        group = room.groups.grow(0, {}, people)
        assert before == 0 and len(room.groups.drafts()) > 10
        await room.groups.ahead()
        assert room.groups.drafts() == [] and await room.groups.load(group) == people
        room.groups._kept.clear()
        room.groups._kept[0] = {}
        assert await room.groups.load(group) == people
        few = room.groups.after(group, people, ("m.room.topic", ""), "$t")
        await room.groups.ahead()
        assert [w.key[1] for w in room.groups.drafts()] == [few]


def test_pieces_are_all_of_it_in_order():
    large = b"x" * 3_000_000
    writes = [Put("a", (n,), large if n % 1000 < 5 else b"") for n in range(5000)]
    found = list(pieces(writes))
    assert [w for piece in found for w in piece] == writes
    for piece in found:
        size = sum(len(w.body) for w in piece)
        assert len(piece) <= 2000 and (size <= 8 * 1024 * 1024 or len(piece) == 1)
    assert list(pieces([])) == []
