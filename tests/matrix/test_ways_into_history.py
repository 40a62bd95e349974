"""An event passes the same checks on every way in before it is shown."""

from __future__ import annotations

import ast
import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import hansa_governance
import hansa_matrix
import pytest
from hansa import HttpRequest
from hansa.setup import PolicySetup
from hansa.testing import until
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from matrix.server_with_peer import THEIRS, ServerWithPeer, server_with_peer
from matrix.two_servers import each_version
from peers.event_forge import JoinedRoom

#: Every call that can put an event into the store, and why what it puts is checked. One more needs a reason.
CHECKED = {
    "rooms/create_room.py _draft_events": "first events: `_judge` asks policies, then each is held against the rules",
    "rooms/inbound/fetched_events.py _insert_new": "outliers of `checked`: signature, hash, size, room and own auth; shown to nobody",
    "rooms/membership/remote_membership.py _try_persist_join": "the state of a join: signature, hash, size, room and own auth; no timeline",
    "rooms/state/depth_migration.py _write_depths": "an event that is stored, with another depth",
    "rooms/state/state_propagation.py go": "an event that is stored, with another state at it",
    "rooms/pdu_receipt.py _accept_with_remote_state": "`checked`, then own auth, the state given, the present, policies",
    "rooms/pdu_receipt.py _receive": "`verified` or `checked`, then checks 4 to 6 and policies",
    "rooms/pdu_receipt.py _accept_backfilled": "`checked`, then checks 4 and 5 and policies",
    "rooms/room_draft.py _redaction_writes": "an event that is stored, with less in it",
    "rooms/room_draft.py append": "the caller judged it: `_arrived`, and what our own people say",
    "rooms/room_draft.py late": "an event that is stored, with another status",
}
#: Every call that says something in the name of our people beside the pipeline, and who asks the policies.
BESIDE = {
    "rooms/create_room.py _draft_events": "`RoomCreator._require_allowed`, before anything is made",
    "rooms/upgrade/upgrade_room.py _join_ghosts": "`PolicyChecks.drafts`, for each person",
    "rooms/membership/unlinked_rooms.py _remove": "nobody is kept from leaving",
    "rooms/upgrade/upgrade_room.py _undo_upgrade": "nobody is kept from leaving, and nobody else is in the room",
}
#: What makes the write that others ask for.
MADE = {
    ("rooms/event_store.py", "put"),
    ("rooms/event_store.py", "insert"),
    ("rooms/room_draft.py", "store_write"),
}
SOURCE = Path(hansa_matrix.__file__).parent


def _puts_an_event(call: ast.Call) -> bool:
    match call.func:
        case ast.Attribute(attr="put" | "insert"):
            return not call.args and not call.keywords
        case ast.Attribute(attr="store_write"):  # ``RoomDraft.store_write``, which is one of both
            return True
        case ast.Name(id="Put" | "Insert"):
            first = call.args[0] if call.args else None
            return isinstance(first, ast.Constant) and first.value == "pdu"
    return False


def _speaks_beside(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "local_event"


def ways(source: Path = SOURCE, what: Callable[[ast.Call], bool] = _puts_an_event) -> set[str]:
    """``module function`` of every call that can put an event into the store."""
    found: set[str] = set()
    for module in sorted(source.rglob("*.py")):
        name = str(module.relative_to(source))
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (name, node.name) not in MADE:
                calls = (one for one in ast.walk(node) if isinstance(one, ast.Call))
                found |= {f"{name} {node.name}" for call in calls if what(call)}
    return found


def test_every_call_that_stores_an_event_says_why_it_is_checked():
    assert ways() == set(CHECKED)


def test_every_call_beside_the_pipeline_says_who_asks_the_policies():
    assert ways(what=_speaks_beside) == set(BESIDE)


def test_a_new_way_into_history_is_seen(tmp_path):
    (tmp_path / "new.py").write_text(
        "def a(x):\n    return x.put()\nasync def b(x):\n    return Insert('pdu', (x,))\ndef c(x):\n    return x.put(1)\n"
    )
    assert ways(tmp_path) == {"new.py a", "new.py b"}


#: Who reads events without saying of which room: the others ask ``room.events``, where another room's event is
#: not found whatever id a peer names.
UNBOUND = {
    "rooms/event_store.py load_foreign": "it is what tells them apart",
    "rooms/event_store.py load": "it leaves out those of other rooms",
    "rooms/event_store.py taken_ids": "it says which ids are those of other events, of whatever room",
    "rooms/membership/remote_membership.py _try_persist_join": "the room is not here yet: `_placeless` looks at the room of each",
}


def unbound(source: Path = SOURCE) -> set[str]:
    """``module function`` of every read of events that is bound to no room."""
    found: set[str] = set()
    for module in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for call in (one.func for one in ast.walk(node) if isinstance(one, ast.Call)):
                match call:
                    case ast.Attribute(attr="load", value=ast.Attribute(attr="_events" | "_all")):
                        found.add(f"{module.relative_to(source)} {node.name}")
    return found


def test_who_reads_events_by_the_ids_of_peers_is_bound_to_a_room():
    assert unbound() == set(UNBOUND)


def test_a_new_unbound_read_is_seen(tmp_path):
    (tmp_path / "new.py").write_text("async def a(self):\n    await self._events.load(ids, v)\n")
    assert unbound(tmp_path) == {"new.py a"}


class Teller:
    """The forger's server with an event whose past it does not give, and a state that it claims for it."""

    def __init__(self, house: ServerWithPeer, edge: dict[str, Any], state: list[str]) -> None:
        self.house, self.edge, self.state = house, edge, state
        self.known = {event_id(edge, house.room.version): edge}
        house.peer.answer = self

    def has(self, raw: dict[str, Any]) -> str:
        name = event_id(raw, self.house.room.version)
        self.known[name] = raw
        return name

    def __call__(self, request: HttpRequest) -> tuple[int, Any] | None:
        path = unquote(request.target)
        if "/get_missing_events/" in path:
            return 200, {"events": []}
        if "/state_ids/" in path:
            return 200, {"pdu_ids": self.state, "auth_chain_ids": self.state}
        if "/event/" in path and (raw := self.known.get(path.rpartition("/event/")[2])) is not None:
            return 200, {"pdus": [raw]}
        return None

    async def adopted(self) -> dict[str, Any]:
        """Send what follows the event, and say what was stored of the event itself."""
        house, edge = self.house, event_id(self.edge, self.house.room.version)
        following = house.forger.message(
            house.room, "following", prev_events=[edge], depth=self.edge["depth"] + 1
        )
        name = event_id(following, house.room.version)
        assert (await house.send(following))[0] == 200
        store = house.matrix.store
        async with asyncio.timeout(10):
            while True:
                row = await store.get("pdu", (name,))
                if row is not None and row.fields["after"]:
                    break
                await asyncio.sleep(0.01)
        found = await store.get("pdu", (edge,))
        assert found is not None
        return dict(found.fields)


def unknown() -> list[str]:
    return ["$" + secrets.token_urlsafe(32)]


def old(house: ServerWithPeer, text: str, **over: Any) -> dict[str, Any]:
    """A message whose past nobody has."""
    prev = unknown() if not house.room.version.server_made_event_ids else [f"$gone:{THEIRS}"]
    return house.forger.message(house.room, text, prev_events=prev, **{"depth": 50, **over})


@each_version
async def test_an_event_at_the_edge_of_a_gap_is_accepted_where_it_holds(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        teller = Teller(house, old(house, "m"), list(house.room.state.values()))
        found = await teller.adopted()
        assert (found["status"], found["reason"]) == ("accepted", "")


@each_version
async def test_words_of_somebody_who_is_not_in_the_room_are_no_history(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        edge = old(house, "I was never here", sender=f"@stranger:{THEIRS}")
        found = await Teller(house, edge, list(house.room.state.values())).adopted()
        assert found["status"] == "rejected"


async def test_a_forged_ban_at_the_edge_of_a_gap_is_no_history(tmp_path):
    async with server_with_peer(tmp_path) as house:
        matrix = house.matrix
        draft = house.forger.draft(
            house.room, "m.room.member", {"membership": "ban"}, matrix.bridge_user, prev_events=unknown()
        )
        edge = house.forger.finish(house.room, {**draft, "depth": 50})
        found = await Teller(house, edge, list(house.room.state.values())).adopted()
        assert (found["status"], found["before"]) == ("rejected", found["after"])


async def test_who_has_left_says_nothing_at_the_edge_of_a_gap(tmp_path):
    """The claimed state is an old one, in which they were still there."""
    async with server_with_peer(tmp_path) as house:
        edge = old(house, "still here")
        state = list(house.room.state.values())
        leave = house.forger.draft(house.room, "m.room.member", {"membership": "leave"}, f"@m:{THEIRS}")
        other = await another(house, "n")
        assert await house.fate(house.forger.finish(house.room, leave)) == "accepted"
        house.room.user = other
        found = await Teller(house, edge, state).adopted()
        assert found["status"] == "soft_failed"


async def another(house: ServerWithPeer, local: str) -> str:
    """One more person of the forger's server joins ``room``."""
    user = f"@{local}:{THEIRS}"
    guest = JoinedRoom(house.room.room_id, house.room.version.id, user)
    guest.state, guest.tips = house.room.state, house.room.tips
    raw = house.forger.finish(guest, house.forger.draft(guest, "m.room.member", {"membership": "join"}, user))
    assert await house.fate(raw) == "accepted"
    house.room.keep(pdu_from_raw(raw, house.room.version))
    return user


@pytest.mark.parametrize("way", ["sent", "adopted"])
async def test_a_forbidden_word_is_withheld_whatever_way_it_comes(tmp_path, way):
    options = hansa_governance.Config(words=("classified",))
    policy = PolicySetup(name="gov", module=hansa_governance, options=options)
    async with server_with_peer(tmp_path, policies=[policy]) as house:
        if way == "sent":
            raw = house.forger.message(house.room, "this is classified")
            name = event_id(raw, house.room.version)
            assert await house.fate(raw) == "accepted"
            row = await house.matrix.store.get("pdu", (name,))
            fields = dict(row.fields)
        else:
            edge = old(house, "this is classified")
            fields = await Teller(house, edge, list(house.room.state.values())).adopted()
        assert fields["status"] == "withheld" and str(fields["reason"]).startswith("decision: d-")


@each_version
async def test_state_from_a_gap_is_of_the_room_alone(tmp_path, version):
    """A peer names a join that we have, but in another room."""
    async with server_with_peer(tmp_path, version) as house:
        stranger = f"@n:{THEIRS}"
        guest = JoinedRoom(house.other.room_id, version, stranger)
        guest.state, guest.tips = house.other.state, house.other.tips
        raw = house.forger.finish(
            guest, house.forger.draft(guest, "m.room.member", {"membership": "join"}, stranger)
        )
        assert (await house.send(raw))[0] == 200
        foreign = event_id(raw, house.other.version)
        matrix = house.matrix
        async with asyncio.timeout(5):
            while await matrix.store.get("pdu", (foreign,)) is None:
                await asyncio.sleep(0)
        state = [*house.room.state.values(), foreign]
        found = await Teller(house, old(house, "m"), state).adopted()
        room = matrix.get_room(house.room.room_id)
        for group in (int(found["before"]), int(found["after"]), room.head.group):
            assert ("m.room.member", stranger) not in await room.groups.load(group)
        named = await room.events.load((await room.state()).values(), room.version)
        assert {one.pdu.room_id for one in named.values()} == {room.room_id}


@pytest.mark.parametrize("version", ["1", "2"])
async def test_an_event_does_not_take_the_id_of_another_rooms(tmp_path, version):
    """Where servers make ids, one id may be given twice: the first event stays."""
    async with server_with_peer(tmp_path, version) as house:
        first = house.forger.message(house.other, "first")
        matrix, name = house.matrix, first["event_id"]
        assert (await house.send(first))[0] == 200
        async with asyncio.timeout(5):
            while (row := await matrix.store.get("pdu", (name,))) is None:
                await asyncio.sleep(0)
        again = house.forger.message(house.room, "second", event_id=name)
        assert (await house.send(again))[0] == 200
        await until(lambda: not matrix.staging.waiting_count(house.room.room_id))
        assert await matrix.store.get("pdu", (name,)) == row
