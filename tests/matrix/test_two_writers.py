"""Two of each part over one store, as two processes would be: nothing that one was told it kept is lost.

Neither knows of the other, and their locks and memories are their own; what decides is the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import orjson
import pytest
from hansa import LocalProtocolError, NativeId
from hansa.environment import SystemRandom
from hansa.host.plugin_contexts import NetworkContextImpl
from hansa.store.base import Append, Conflict, Insert, ScopedStore
from hansa.store.memory import MemoryStore
from hansa.store.mongo import MongoStore
from hansa.store.postgres import PostgresStore
from hansa.store.sqlite import SqliteStore
from hansa.testing import until
from hansa_matrix.client_api.account.account_data import AccountData
from hansa_matrix.client_api.sync.stored_filters import StoredFilters
from hansa_matrix.federation.destination_queue import destination_set
from hansa_matrix.federation.key_store import KeyStore
from hansa_matrix.local.memberships import LocalMembership, LocalMemberships
from hansa_matrix.media.repository import MediaRepository
from hansa_matrix.proto.devices import Device
from hansa_matrix.proto.edus import ReceiptEdu
from hansa_matrix.proto.pdu import VerifyKey, parse_pdu
from hansa_matrix.rooms.directory.aliases import insert_alias_write
from hansa_matrix.rooms.typing_and_receipts import TypingAndReceipts
from hansa_matrix.users.key_backups import KeyBackups
from hansa_matrix.users.user_services import Users
from hansa_xmpp.occupant_store import SCHEMA as XMPP
from hansa_xmpp.occupant_store import OccupantStore
from matrix.server_with_peer import OURS, THEIRS, ServerWithPeer, server_with_peer
from matrix.test_devices import keys_of

US, THEM = f"@hansa:{OURS}", f"@m:{THEIRS}"
SIGNED = "signed_curve25519"


@pytest.fixture(params=["memory", "sqlite", "mongo", "postgres"])
async def house(request, tmp_path) -> AsyncIterator[ServerWithPeer]:
    stores = {
        "memory": MemoryStore,
        "sqlite": lambda: SqliteStore(tmp_path / "db", synchronous="OFF"),
        "mongo": lambda: MongoStore(request.getfixturevalue("mongo_url")),
        "postgres": lambda: PostgresStore(request.getfixturevalue("postgres_url")),
    }
    async with server_with_peer(tmp_path, store=stores[request.param]()) as made:
        yield made


async def at_once(*turns: Awaitable[Any]) -> list[Any]:
    """Returns the answers of all; none of them may fail."""
    return list(await asyncio.gather(*turns))


def known(house: Any) -> Users:
    """A further one of the parts that know of people."""
    home = house.matrix.network.homeserver
    return Users(house.app.contexts["matrix"], home.federation, home.local)


async def rows(house: Any, collection: str, *equal: Any) -> list[Any]:
    return await house.app.contexts["matrix"].store.scan(collection, equal=equal)


async def test_devices_and_the_numbers_of_their_changes(house):
    two = [known(house), known(house)]
    await at_once(
        *(two[n % 2].devices.put(US, Device(device_id=f"D{n}", keys=keys_of(US, f"D{n}"))) for n in range(6))
    )
    assert {str(row.key[1]) for row in await rows(house, "device", US)} == {f"D{n}" for n in range(6)}
    edus = [orjson.loads(row.body) for row in await rows(house, "lasting_edu")]
    told = [edu["content"] for edu in edus if edu.get("edu_type") == "m.device_list_update"]
    assert sorted(one["stream_id"] for one in told) == list(range(1, 7))
    assert sorted(one["prev_id"] for one in told) == [[], [1], [2], [3], [4], [5]]
    assert (await two[0].devices.get_all(US)).stream_id == 6


async def test_a_device_that_is_logged_out_does_not_come_back(house):
    two = [known(house), known(house)]
    await two[0].devices.put(US, Device(device_id="D", keys=keys_of(US, "D")))
    done = await asyncio.gather(
        two[0].devices.remove(US, ["D"]),
        two[1].devices.update_device(US, "D", lambda one: Device(device_id="D", keys=one.keys, name="new")),
        two[1].devices.add_one_time_keys(US, "D", {f"{SIGNED}:A": {"key": "k"}}),
        two[1].devices.set_fallback_keys(US, "D", {f"{SIGNED}:F": {"key": "k"}}),
        return_exceptions=True,
    )
    assert all(one is None or isinstance(one, LocalProtocolError) for one in done)
    for collection in ("device", "one_time_key", "fallback_key"):
        assert await rows(house, collection, US) == []


async def test_a_one_time_key_is_given_to_one(house):
    two = [known(house), known(house)]
    await two[0].devices.put(US, Device(device_id="D", keys=keys_of(US, "D")))
    given_out = {f"{SIGNED}:{n}": {"key": f"k{n}"} for n in range(6)}
    await two[0].devices.add_one_time_keys(US, "D", given_out)
    claims = await at_once(*(two[n % 2].devices.claim_keys({US: {"D": SIGNED}}) for n in range(6)))
    keys = [name for one in claims for name in one[US]["D"]]
    assert sorted(keys) == sorted(given_out)
    assert await rows(house, "one_time_key", US) == []


async def test_one_time_keys_are_added_and_a_fallback_key_is_used_by_both(house):
    two = [known(house), known(house)]
    await two[0].devices.put(US, Device(device_id="D", keys=keys_of(US, "D")))
    await two[0].devices.set_fallback_keys(US, "D", {f"{SIGNED}:F": {"key": "f"}})
    claims = await at_once(*(one.devices.claim_keys({US: {"D": SIGNED}}) for one in two))
    assert all(one[US]["D"] == {f"{SIGNED}:F": {"key": "f"}} for one in claims)
    assert await two[0].devices.unused_fallback(US, "D") == []
    done = await asyncio.gather(
        two[0].devices.add_one_time_keys(US, "D", {f"{SIGNED}:A": {"key": "1"}}),
        two[1].devices.add_one_time_keys(US, "D", {f"{SIGNED}:A": {"key": "2"}}),
        return_exceptions=True,
    )
    assert sorted(map(type, done), key=str) == sorted([type(None), LocalProtocolError], key=str)


async def test_a_list_of_devices_elsewhere_loses_no_change(house):
    two = [known(house), known(house)]
    one = {"user_id": THEM, "stream_id": 1, "devices": []}
    devices = house.matrix.users.remote
    house.peer.answer = lambda request: (200, one) if "/user/devices/" in request.target else None
    devices.schedule_fetch(THEM)
    while await devices.get_current(THEM) is None:
        await asyncio.sleep(0)
    update = {
        "user_id": THEM,
        "stream_id": 2,
        "prev_id": [1],
        "device_id": "D",
        "keys": keys_of(THEM, "D"),
    }
    master = {"user_id": THEM, "usage": ["master"], "keys": {"ed25519:M": "M"}}
    await at_once(
        two[0].remote.handle_updates(THEIRS, [update]),
        two[1].remote.handle_signing_keys(THEIRS, [{"user_id": THEM, "master_key": master}]),
    )
    kept = await two[0].remote.get_current(THEM)
    assert set(kept.devices) == {"D"} and set(kept.cross_signing) == {"master"}


async def test_fields_of_a_profile_and_values_of_account_data(house):
    two = [known(house), known(house)]
    await at_once(*(two[n % 2].profiles.set_field(US, f"x.{n}", n) for n in range(6)))
    assert {f"x.{n}" for n in range(6)} <= set(await two[0].profiles.local_profile(US))
    ctx = house.app.contexts["matrix"]
    data = [AccountData(ctx, house.matrix.memberships.news) for _ in range(2)]

    def counted(value: Any) -> dict[str, int]:
        return {"n": (value or {"n": 0})["n"] + 1}

    await at_once(*(data[n % 2].change_value(US, "", "count", counted) for n in range(6)))
    assert await data[0].get(US, "", "count") == {"n": 6}
    filters = [StoredFilters(ctx) for _ in range(2)]
    names = await at_once(*(filters[n % 2].add_filter(US, {"n": n % 3}) for n in range(6)))
    assert len(set(names)) == 3 and all([await filters[0].get(US, name) for name in names])


async def test_the_latest_receipt_stays(house):
    matrix = house.matrix
    two = [TypingAndReceipts(matrix.local_server) for _ in range(2)]
    room = house.room.room_id

    def receipt(n: int) -> ReceiptEdu:
        return ReceiptEdu(room_id=room, user=THEM, event_id=f"$e{n}", ts=n)

    await at_once(*(two[n % 2]._store_receipt(receipt(n)) for n in (3, 5, 6, 4, 2, 1)))
    (row,) = await rows(house, "receipt", room, THEM)
    assert orjson.loads(row.body) == ["$e6", 6]


async def test_backups_have_a_number_each_and_count_their_keys(house):
    two = [KeyBackups(house.app.contexts["matrix"]) for _ in range(2)]
    numbers = await at_once(*(two[n % 2].create_version(US, "a", {}) for n in range(4)))
    assert sorted(numbers) == [1, 2, 3, 4]
    session = {"is_verified": True, "first_message_index": 0, "forwarded_count": 0, "session_data": {}}
    await at_once(*(two[n % 2].add_keys(US, 4, {("!r", f"s{n}"): session}) for n in range(6)))
    backup = await two[0].get(US, 4)
    assert (backup.count, backup.etag) == (6, 6)
    assert len(await rows(house, "key_backup_key", US, 4)) == 6


async def test_a_ghost_is_given_to_one(house, monkeypatch):
    runner = house.app.runners["matrix"]
    two = [NetworkContextImpl(house.app, runner, house.app.contexts["matrix"].config) for _ in range(2)]
    monkeypatch.setattr(runner.network, "ghost_id", lambda _user: f"@ghost:{OURS}")
    people = NativeId("xmpp", "romeo@x.example"), NativeId("xmpp", "juliet@x.example")
    done = await asyncio.gather(
        *(ctx.get_ghost_id(user) for ctx, user in zip(two, people, strict=True)), return_exceptions=True
    )
    assert sorted(isinstance(one, LocalProtocolError) for one in done) == [False, True]
    whose = people[[isinstance(one, str) for one in done].index(True)]
    assert [await ctx.home_of(f"@ghost:{OURS}") for ctx in two] == [whose, whose]


async def test_occupant_ids_have_one_salt():
    store = MemoryStore()
    await store.open()
    await store.declare("x", XMPP)
    two = [OccupantStore(ScopedStore(store, "x")) for _ in range(2)]
    first, second = await at_once(*(one.salt(SystemRandom()) for one in two))
    assert first == second == (await store.get("x", "secret", ("occupant-id",))).body


async def test_a_stay_and_a_name_of_a_room(house):
    """An invite that is answered elsewhere ends in nothing but an invite."""
    ctx, room = house.app.contexts["matrix"], house.room.room_id
    two = [LocalMemberships(ctx) for _ in range(2)]
    for one in two:
        one.accounts.add(US)

    def stay(membership: str) -> LocalMembership:
        return LocalMembership(room_id=room, membership=membership, event_id="$e", sender=US)

    await two[0].store_membership(US, stay("invite"))
    await at_once(
        two[1].store_membership(US, stay("join"), over={"invite"}),
        two[0].store_membership(US, stay("leave"), over={"invite"}),
    )
    (row,) = await rows(house, "stay", US)
    first = orjson.loads(row.body)["membership"]
    await two[0].store_membership(US, stay("ban"), over={"invite"})
    (row,) = await rows(house, "stay", US)
    assert orjson.loads(row.body)["membership"] == first
    names = await asyncio.gather(
        *(ctx.store.commit([insert_alias_write(f"#a:{OURS}", room, by)]) for by in "xy"),
        return_exceptions=True,
    )
    assert sorted(isinstance(one, Conflict) for one in names) == [False, True]


async def test_an_account_that_was_made_elsewhere_is_known_by_its_row(house):
    ctx, user = house.app.contexts["matrix"], f"@new:{OURS}"
    here, there = LocalMemberships(ctx), house.matrix.client_api.accounts
    await there.create_account(user, "")
    other = LocalMembership(room_id="!other", membership="join", event_id="$e", sender=user)
    await house.matrix.memberships.store_membership(user, other)
    assert await here.affected_users([("m.room.member", user), ("m.room.member", f"@no:{OURS}")]) == [user]
    assert here.membership_of(user, "!other") == other
    late = LocalMemberships(ctx)
    invite = LocalMembership(room_id="!asked", membership="invite", event_id="$i", sender=THEM)
    await late.store_membership(user, invite)
    assert (await late.as_kept(user, ["!asked"]))["!asked"] == invite
    assert not await LocalMemberships(ctx).has_account(f"@no:{OURS}") and await LocalMemberships(
        ctx
    ).has_account(user)


async def test_an_id_of_a_server_s_key_is_never_given_to_another_key(house):
    two = [KeyStore(house.app.contexts["matrix"]) for _ in range(2)]
    keys = [{"ed25519:1": VerifyKey(public=name, valid_until=2**40)} for name in "ab"]
    await at_once(*(two[n].put("x.example", keys[n], {}, passing=False) for n in range(2)))
    (row,) = await rows(house, "key", "x.example")
    first = orjson.loads(row.body)[0]
    assert {
        one.at_hand("x.example", "ed25519:1").public for one in two if one.at_hand("x.example", "ed25519:1")
    } == {first}


def message(name: str) -> dict[str, Any]:
    return {"sender": THEM, "type": "t", "message_id": name, "messages": {US: {"D": {"n": name}}}}


async def test_messages_to_devices_are_all_kept_and_counted(house):
    two = [known(house), known(house)]
    await two[0].devices.put(US, Device(device_id="D", keys=keys_of(US, "D")))
    await at_once(*(two[n % 2].messages.receive_edus(THEIRS, [message(f"m{n}")]) for n in range(6)))
    assert len(await rows(house, "to_device")) == 6
    (row,) = await rows(house, "to_device_usage", US, "D")
    assert orjson.loads(row.body)[0] == 6


async def test_a_count_that_falls_to_nothing_loses_no_message_that_comes_then(house):
    two, store = [known(house), known(house)], house.app.contexts["matrix"].store
    await two[0].devices.put(US, Device(device_id="D", keys=keys_of(US, "D")))
    await two[0].messages.receive_edus(THEIRS, [message("a")])
    batch = two[0].messages.shares.start_batch()
    await batch.remove_messages(await store.scan("to_device"))
    await two[1].messages.receive_edus(THEIRS, [message("b")])
    with pytest.raises(Conflict):
        await store.commit(batch.all_writes())
    (row,) = await rows(house, "to_device_usage", US, "D")
    assert orjson.loads(row.body)[0] == 2


async def chunks(body: bytes) -> Any:
    yield body


async def test_what_files_take_is_counted_for_each(house):
    two = [MediaRepository(house.app.contexts["matrix"], OURS) for _ in range(2)]
    items = await at_once(
        *(two[n % 2].add_file(chunks(b"%d" % n * 9), "text/plain", "", owner=US) for n in range(6))
    )
    assert (await two[0].quotas.usage_of(US))[0].files == 6
    removed = await at_once(*(one.remove_file(item.mxc) for item in items for one in two))
    assert sum(removed) == 6
    assert await rows(house, "media_usage", US) == [] and await rows(house, "media") == []


async def test_bytes_that_one_removes_are_not_another_s_file(house, monkeypatch):
    """A user who uploads the same bytes while they are removed gets an error, and tries again."""
    ctx = house.app.contexts["matrix"]
    two = [MediaRepository(ctx, OURS) for _ in range(2)]
    first = await two[0].add_file(chunks(b"same"), "text/plain", "", owner=US)
    remove, given = type(ctx.blobs).remove, []

    async def late(blobs: Any, digest: str) -> None:
        monkeypatch.undo()
        given.extend(
            await asyncio.gather(
                two[1].add_file(chunks(b"same"), "text/plain", "", owner=US), return_exceptions=True
            )
        )
        await remove(blobs, digest)

    monkeypatch.setattr(type(ctx.blobs), "remove", late)
    assert await two[0].remove_file(first.mxc)
    (refused,) = given
    assert isinstance(refused, OSError)
    assert await rows(house, "media") == await rows(house, "media_going") == []
    again = await two[1].add_file(chunks(b"same"), "text/plain", "", owner=US)
    assert [part async for part in two[0].read_chunks(again)] == [b"same"]


async def test_bytes_that_went_before_a_commit_leave_nothing_of_the_file(house, monkeypatch):
    ctx = house.app.contexts["matrix"]
    files = MediaRepository(ctx, OURS)
    size, asked = type(ctx.blobs).size, []

    async def gone(blobs: Any, digest: str) -> int:
        found = await size(blobs, digest)
        if not asked:
            asked.append(digest)
            await blobs.remove(digest)
        return found

    monkeypatch.setattr(type(ctx.blobs), "size", gone)
    with pytest.raises(OSError, match="removed at this moment"):
        await files.add_file(chunks(b"same"), "text/plain", "", owner=US)
    assert await rows(house, "media") == await rows(house, "media_usage") == []


async def test_of_recipients_that_nobody_here_knows_nothing_is_swept(house, monkeypatch):
    """Another process sends to a set of servers: it is read, and until its row is there nobody has it."""
    ctx, sender = house.app.contexts["matrix"], house.matrix.sender
    set_id, names = destination_set(["far.example"])
    await ctx.store.commit([Append("lasting_edu", b"{}", {"recipients": set_id})])
    await sender._purge_stream("lasting_edu", None, lambda peer: peer.lasting)
    assert [row.fields["recipients"] for row in await rows(house, "lasting_edu")] == [set_id]
    assert house.counted("matrix_recipients_unknown")
    ran = []
    monkeypatch.setattr(
        "hansa_matrix.federation.destination_queue.DestinationQueue.run", lambda peer: ran.append(peer.server)
    )
    await ctx.store.commit([Insert("recipients", (set_id,), orjson.dumps(names))])
    await sender._purge_stream("lasting_edu", None, lambda peer: peer.lasting)
    assert [row.fields["recipients"] for row in await rows(house, "lasting_edu")] == [set_id]
    assert ran == ["far.example"]


@pytest.mark.parametrize("known", [False, True])
async def test_a_cursor_returns_to_the_first_row_of_a_set_that_another_process_stored(
    house, monkeypatch, known
):
    """The cursor of its server had passed the row when the set was not known here."""
    ctx, sender = house.app.contexts["matrix"], house.matrix.sender
    monkeypatch.setattr("hansa_matrix.federation.destination_queue.DestinationQueue.run", lambda peer: None)
    if known:  # it has another set, or a sweep would forget it
        house.matrix.destination_queue("far.example").sets.add(1)
    set_id, names = destination_set(["far.example"])
    event = {"recipients": set_id, "event_id": "$e", "room_id": "!r"}
    await ctx.store.commit([Append("lasting_edu", b"{}", {"recipients": set_id}), Append("out", b"", event)])
    if known:
        at = await ctx.store.position()
        house.matrix.destination_queues["far.example"].position = house.matrix.destination_queues[
            "far.example"
        ].lasting = at
    else:
        await sender.sweep()
    await ctx.store.commit([Insert("recipients", (set_id,), orjson.dumps(names))])
    await sender._purge_stream("lasting_edu", None, lambda peer: peer.lasting)
    await sender._purge_stream("out", None, lambda peer: peer.position)
    peer = house.matrix.destination_queues["far.example"]
    assert [row.fields["event_id"] for row in await peer.pending_rows()] == ["$e"]
    assert await peer.backlog_size() == 2
    assert [row.fields["recipients"] for row in await rows(house, "lasting_edu")] == [set_id]


async def test_a_pdu_of_a_room_that_is_not_in_memory_is_not_acknowledged(house):
    matrix, room = house.matrix, house.room
    gone = matrix.rooms[room.room_id]
    matrix.rooms.remove(room.room_id)
    raw = house.forger.message(room, "is not lost")
    status, answer = await house.send(raw)
    assert status == 429 and answer["errcode"] == "M_LIMIT_EXCEEDED"
    matrix.rooms.add(gone)
    assert await house.fate(raw) == "accepted"


async def test_two_who_stage_under_one_number_keep_both(house):
    matrix = house.matrix
    ingest, store = matrix.staging, house.app.contexts["matrix"].store
    taken = max(ingest._at + 1, house.app.contexts["matrix"].clock.now() * 1000 + 10**9)
    ingest._at = taken - 1
    await store.commit([Insert("staged", (house.room.room_id, taken), b"{}", {"origin": THEIRS})])
    room, raw = matrix.get_room(house.room.room_id), house.forger.message(house.room, "one")
    pdu = parse_pdu(raw, room.version)
    await ingest._stage_pdus(THEIRS, Insert("txn", (THEIRS, "t"), b"{}", {"ts": 0}), [(room, pdu)])
    assert await store.get("txn", (THEIRS, "t")) is not None
    assert (await store.get("staged", (house.room.room_id, taken))).body == b"{}"
    await until(lambda: room.events.load([pdu.event_id], room.version))
