"""Floods of what people here and elsewhere can make this server keep, by the routes that they have."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from hansa import Delete, Insert
from hansa.store.blobs import FileBlobs, ScopedBlobs
from hansa.testing import until
from hansa_matrix.bounds.fair_shares import FairShares
from hansa_matrix.client_api.sync import stored_filters
from hansa_matrix.crypto import SigningKey
from hansa_matrix.media import repository
from hansa_matrix.proto.pdu import parse_pdu
from hansa_matrix.rooms.directory import public_rooms
from hansa_matrix.rooms.membership import ended_invites
from hansa_matrix.users import devices
from hansa_matrix.users.to_device_rate import BucketRate, ToDeviceRate
from matrix.server_with_peer import THEIRS, V1, server_with_peer
from matrix.test_forks import spoken

DAY = 86_400_000


async def rows(home: Any, collection: str) -> list[Any]:
    return list(await home.app.contexts["matrix"].store.scan(collection, limit=10_000))


def login(name: str, **more: Any) -> dict[str, Any]:
    who = {"type": "m.id.user", "user": name}
    return {"type": "m.login.password", "identifier": who, "password": f"of {name}", **more}


@pytest.fixture
def moved(monkeypatch) -> Callable[..., None]:
    """Moves the clock of a whole Hansa (ms)."""

    def move(home: Any, later: int) -> None:
        clock = home.app.contexts["matrix"].clock
        now, at = clock.now(), clock.monotonic()
        monkeypatch.setattr(type(clock), "now", lambda _: now + later)
        monkeypatch.setattr(type(clock), "monotonic", lambda _: at + later / 1000)

    return move


async def test_devices_and_tokens_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "MAX_DEVICES", 5)
    async with matrix_server(tmp_path, client_rate=10_000, client_burst=10_000) as home:
        await home.person("alice", "FIRST")
        answers = [(await home.anybody.ask("POST", "/login", login("alice")))[0] for _ in range(8)]
        assert answers == [200] * 4 + [400] * 4
        for _ in range(5):
            await home.anybody.call("POST", "/login", login("alice", device_id="FIRST"))
        assert len(await rows(home, "device")) == 5
        assert len(await rows(home, "access_token")) == 5


async def test_accounts_of_one_address_are_made_slowly(tmp_path):
    async with matrix_server(tmp_path, client_rate=1, client_burst=1) as home:
        answers = []
        for number in range(20):
            body = {"username": f"u{number}", "password": "pw", "auth": {"type": "m.login.dummy"}}
            answers.append((await home.anybody.ask("POST", "/register", body))[0])
        assert answers == [200] * answers.count(200) + [429] * answers.count(429)
        assert 0 < len(await rows(home, "account")) == answers.count(200) < 10
        elsewhere = home.anybody
        elsewhere.address = "198.51.100.7"
        body = {"username": "v", "password": "pw", "auth": {"type": "m.login.dummy"}}
        assert (await elsewhere.ask("POST", "/register", body))[0] == 200


async def test_a_profile_is_bounded(tmp_path):
    async with matrix_server(tmp_path, client_rate=10_000, client_burst=10_000) as home:
        alice = await home.person("alice")
        answers = [
            (await alice.ask("PUT", f"/profile/{part(alice.user)}/org.x{n}", {f"org.x{n}": "y" * 9000}))[0]
            for n in range(12)
        ]
        assert answers.count(200) == 7 and not set(answers[7:]) & {200, 500}
        (row,) = await rows(home, "profile")
        assert len(row.body) <= 64 * 1024


async def test_cross_signing_keys_are_bounded(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        path = "/keys/device_signing/upload"

        def key(**more: Any) -> dict[str, Any]:
            public = SigningKey.from_seed("ed25519:a", secrets.token_bytes(32)).public
            keys = {f"ed25519:{public}": public}
            return {"user_id": alice.user, "usage": ["master"], "keys": keys, **more}

        assert (await alice.ask("POST", path, {"master_key": key(junk="x" * 40_000)}))[0] == 400
        for _ in range(3):
            body = {"master_key": key(), "auth": login("alice")}
            assert (await alice.ask("POST", path, body))[0] == 200
        assert [row.key for row in await rows(home, "cross_signing_key")] == [(alice.user, "master")]


async def test_published_rooms_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(public_rooms, "MAX_PUBLISHED", 3)
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        before = len(await rows(home, "published"))
        answers = []
        for _ in range(5):
            room = await alice.create()
            listed = await alice.ask("PUT", f"/directory/list/room/{part(room)}", {"visibility": "public"})
            answers.append(listed[0])
        assert answers.count(200) == 3 - before and 200 not in answers[3 - before :]
        assert len(await rows(home, "published")) == 3


async def test_filters_give_way_by_their_last_use_and_never_in_use(tmp_path, monkeypatch, moved):
    monkeypatch.setattr(stored_filters, "MAX_FILTERS_OF_USER", 4)
    async with matrix_server(tmp_path, client_rate=10_000, client_burst=10_000) as home:
        alice = await home.person("alice")
        path = f"/user/{part(alice.user)}/filter"

        async def made(number: int) -> tuple[int, str]:
            status, found = await alice.ask("POST", path, {"room": {"timeline": {"limit": number}}})
            return status, found.get("filter_id", "")

        names = [(await made(n))[1] for n in range(1, 5)]
        assert (await made(9))[0] == 429  # all of them were made just now
        assert (await made(2)) == (200, names[1])
        moved(home, 3 * 3_600_000)
        await alice.sync(f"&filter={names[0]}")
        assert (await made(10))[0] == 200
        kept = {str(row.key[1]) for row in await rows(home, "filter")}
        assert len(kept) == 4 and names[0] in kept
        for number in range(20, 40):
            await made(number)
        assert len(await rows(home, "filter")) == 4
        await alice.sync(f"&filter={names[0]}")


async def leaves(home: MatrixServer, alice: LocalUser, count: int, size: int = 0) -> None:
    """As if so many invites had been taken back."""
    pending, version = home.matrix.pending_invites, home.wire.room.version
    for number in range(count):
        content = {"membership": "leave", "reason": "x" * size}
        raw = home.wire.forger.message(home.wire.room, "")
        raw |= {"type": "m.room.member", "state_key": alice.user, "content": content, "depth": number}
        pdu = parse_pdu(raw, version)
        await pending.drop(f"!{number}:{THEIRS}", alice.user, pdu)


async def test_the_ends_of_invites_are_bounded(tmp_path, monkeypatch, moved):
    monkeypatch.setattr(ended_invites, "MAX_OF_USER", 3)
    monkeypatch.setattr(ended_invites, "MAX_IN_ALL", 4)
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        await leaves(home, alice, 5)
        assert {row.key[1] for row in await rows(home, "left")} == {f"!{n}:{THEIRS}" for n in (2, 3, 4)}
        await leaves(home, bob, 3, size=20_000)
        kept = await rows(home, "left")
        assert len(kept) == 4 and max(len(row.body) for row in kept) < ended_invites.MAX_BYTES
        moved(home, ended_invites.KEPT_FOR + 1)
        await home.matrix.pending_invites.sweep()
        assert await rows(home, "left") == []


async def test_of_who_has_no_files_no_row_is_kept(tmp_path):
    async with matrix_server(tmp_path) as home:
        shelf = home.matrix.media

        async def chunks() -> AsyncIterator[bytes]:
            yield b"a file"

        for number in range(5):
            mxc = repository.MxcUri(f"s{number}.example", "a")
            await shelf.add_file(chunks(), "text/plain", "a", mxc=mxc)
        assert len(await rows(home, "media_usage")) == 6
        for number in range(5):
            await shelf.remove_file(repository.MxcUri(f"s{number}.example", "a"))
        assert await rows(home, "media_usage") == []
        store = home.app.contexts["matrix"].store
        await store.commit([Insert("media_usage", ("old.example",), b"[0,0]")])
        await shelf.sweep()
        assert await rows(home, "media_usage") == []


async def test_bytes_that_a_crash_left_without_an_address_go(tmp_path, monkeypatch, moved):
    async with matrix_server(tmp_path) as home:
        context, shelf = home.app.contexts["matrix"], home.matrix.media
        context.blobs = ScopedBlobs(FileBlobs(tmp_path / "files"), "matrix")

        async def chunks(data: bytes) -> AsyncIterator[bytes]:
            yield data

        kept = await shelf.add_file(chunks(b"kept"), "text/plain", "a", owner="@a:x")
        orphan = await context.blobs.put(chunks(b"orphan"), 100)
        monkeypatch.setattr(repository, "_FOLDERS_PER_SWEEP", 256)
        await shelf.sweep()
        assert await context.blobs.size(orphan.digest)  # it may be on its way to its address
        moved(home, repository.ORPHAN_TTL_MS + 60_000)
        await shelf.sweep()
        assert await context.blobs.size(kept.blob.digest)
        found = [one.name for one in Path(tmp_path / "files").rglob("*") if one.is_file()]
        assert found == [kept.blob.digest]


async def test_bytes_whose_removal_a_crash_cut_off_go_too(tmp_path, moved):
    async with matrix_server(tmp_path) as home:
        context, shelf = home.app.contexts["matrix"], home.matrix.media

        async def chunks() -> AsyncIterator[bytes]:
            yield b"a file"

        left = await context.blobs.put(chunks(), 100)
        at = {"at": context.clock.now()}
        await context.store.commit([Insert("media_going", (left.digest,), b"", at)])
        with pytest.raises(OSError, match="try again"):
            await shelf.add_file(chunks(), "text/plain", "a", owner="@a:x")
        await shelf.sweep()
        assert len(await rows(home, "media_going")) == 1  # it may be under way
        moved(home, repository.ORPHAN_TTL_MS + 60_000)
        await shelf.sweep()
        assert await rows(home, "media_going") == []
        kept = await shelf.add_file(chunks(), "text/plain", "a", owner="@a:x")
        assert await context.blobs.size(kept.blob.digest)


async def test_a_file_whose_bytes_are_lost_is_none_and_a_copy_is_fetched_again(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, shelf = await home.person("alice"), home.matrix.media

        async def chunks() -> AsyncIterator[bytes]:
            yield b"a file"

        ours = await shelf.add_file(chunks(), "text/plain", "a", owner=alice.user)
        copy = await shelf.add_file(chunks(), "text/plain", "a", mxc=repository.MxcUri(THEIRS, "b"))
        await home.app.contexts["matrix"].blobs.remove(ours.blob.digest)
        for mxc in (ours.mxc, copy.mxc):
            path = f"/_matrix/client/v1/media/download/{mxc.server}/{mxc.media_id}"
            assert (await alice.whole("GET", path)).status in {404, 502}
        assert [row.key[0] for row in await rows(home, "media")] == [ours.mxc.server]
        assert any("/media/download/" in request.target for request in home.wire.peer.asked)


async def test_servers_that_nothing_is_for_any_more_are_forgotten(tmp_path, moved):
    async with server_with_peer(tmp_path, delivery_status_ttl=10) as house_:
        house_.peer.answer = lambda request: (200, {"pdus": {}}) if "/send/" in request.target else None
        sender, store = house_.matrix.sender, house_.app.contexts["matrix"].store
        for number in range(30):  # as many servers, alone and together, for as long as they are in a room
            servers = [f"s{number}.example", THEIRS]
            edu = {"edu_type": "m.direct_to_device", "content": {}}
            for to in (servers[:1], servers):
                await store.commit(sender.durable_edu_writes(edu, to))
                sender.on_committed(to)
        assert await store.count("recipients") >= 60
        await until(lambda: all(peer.is_idle for peer in house_.matrix.destination_queues.values()))
        await sender.sweep()
        assert await store.count("recipients") >= 60  # they may be needed again soon
        await sender.save_cursors()
        moved(house_, DAY)
        await sender.sweep()
        moved(house_, DAY)
        await sender.sweep()
        assert (
            await store.count("recipients") == len(house_.matrix.destination_sets) == len(sender._stored) == 0
        )
        assert await store.count("destination") == 0
        assert house_.matrix.destination_queue("new.example").position == await store.position()
        # And what is for one of them again arrives, once.
        told = []
        house_.peer.answer = lambda request: (
            (told.append(orjson.loads(request.body)) or (200, {"pdus": {}}))
            if "/send/" in request.target
            else None
        )
        native = await spoken(house_, "again")
        await until(lambda: told)
        (sent,) = [pdu for body in told for pdu in body["pdus"]]
        assert sent["content"]["body"] == "again" and native
        assert await store.count("recipients") == 1


async def test_a_set_that_is_used_while_it_is_forgotten_is_kept(tmp_path, moved):
    async with server_with_peer(tmp_path) as house_:
        sender, store = house_.matrix.sender, house_.app.contexts["matrix"].store
        edu, to = {"edu_type": "m.direct_to_device", "content": {}}, ["s.example"]
        await store.commit(sender.durable_edu_writes(edu, to))
        sender.on_committed(to)
        (row,) = [row for row in await store.scan("lasting_edu") if row.fields["recipients"]]
        set_id = row.fields["recipients"]
        await store.commit([Insert("to_device_seen", ("x", "y"), b"", {"ts": 1})])
        await store.commit([Delete("lasting_edu", row.key)])
        moved(house_, DAY)
        first, late = sender._first_position, []

        async def first_row(stream: str, which: int) -> int | None:
            found = await first(stream, which)
            if which == set_id and stream == "lasting_edu":
                late.extend(sender.durable_edu_writes(edu, to))  # another writer has not committed yet
            return found

        sender._first_position = first_row
        await sender._forget_sets()
        await store.commit(late)
        assert await store.get("recipients", (set_id,)) is not None


async def test_messages_to_devices_have_a_rate(tmp_path, moved):
    """The issue's: 2,400 messages in 11 s."""
    async with matrix_server(tmp_path, client_rate=10_000, client_burst=10_000) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        of = home.matrix.users.messages
        clock = home.app.contexts["matrix"].clock
        moved(home, 0)  # it stands
        small = BucketRate(messages=10, messages_a_second=1.0, size=10_000, size_a_second=1000.0)
        of._of_person, of._of_server = ToDeviceRate(clock, small), ToDeviceRate(clock, small)

        async def sends(who: LocalUser, count: int, size: int = 1) -> list[int]:
            answers = []
            for _ in range(count):
                body = {"messages": {bob.user: {bob.device: {"x": "y" * size}}}}
                path = f"/sendToDevice/m.x/{secrets.token_hex(4)}"
                answers.append((await who.ask("PUT", path, body))[0])
            return answers

        assert await sends(alice, 12) == [200] * 10 + [429] * 2
        assert await sends(bob, 4, 4000) == [200] * 2 + [429] * 2

        async def heard(sender: str, count: int) -> int:
            edus = [
                {
                    "edu_type": "m.direct_to_device",
                    "content": {
                        "sender": sender, "type": "m.x", "message_id": secrets.token_hex(4),
                        "messages": {bob.user: {bob.device: {}}},
                    },
                }
                for _ in range(count)
            ]  # fmt: skip
            txn = {"pdus": [], "edus": edus}
            return (await home.wire.ask("PUT", f"{V1}/send/{secrets.token_hex(4)}", txn))[0]

        before = len(await rows(home, "to_device"))
        assert await heard(f"@m:{THEIRS}", 30) == 200  # the greedy person's are dropped
        assert len(await rows(home, "to_device")) == before + 10
        assert await heard(f"@n:{THEIRS}", 5) == 429  # the server is to send it again
        assert len(await rows(home, "to_device")) == before + 10
        moved(home, 20_000)
        assert await heard(f"@n:{THEIRS}", 5) == 200
        assert len(await rows(home, "to_device")) == before + 15


def test_the_oldest_of_whoever_has_most_gives_way():
    shares: FairShares[str, int] = FairShares(10, lambda user: user.partition(":")[2])
    assert shares.put("@honest:a", 1) is None
    gone = [shares.put(f"@u{n}:greedy", n) for n in range(40)]
    assert len(shares) == 10 and shares.get("@honest:a") == 1
    assert gone[-1] == "@u30:greedy" and gone[:9] == [None] * 9
    assert shares.pop("@honest:a") == 1 and shares.get("@honest:a") is None and len(shares) == 9


def test_whoever_has_most_is_known_whatever_comes_and_goes():
    """As by a look at all peers, which each of very many entries would cost."""
    chance, most = random.Random(7), 40
    shares: FairShares[str, int] = FairShares(most, lambda user: user.partition(":")[2])
    for number in range(3000):
        key = f"@u{chance.randrange(60)}:s{chance.randrange(12)}"
        if chance.random() < 0.3:
            shares.pop(key)
            continue
        before = Counter(user.partition(":")[2] for user in shares if user != key)
        before[key.partition(":")[2]] += 1
        gone = shares.put(key, number)
        if gone is not None:
            assert before.total() == most + 1
            assert before[gone.partition(":")[2]] == max(before.values())
        assert len(shares) == len(list(shares)) <= most


async def test_presence_of_very_many_strangers_keeps_nobody_waiting(tmp_path):
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        presences = home.matrix.users.presences
        push = [{"user_id": f"@u{n}:{THEIRS}", "presence": "online"} for n in range(500)]
        turns, over = 0, False

        async def others() -> None:
            nonlocal turns
            while not over:
                await asyncio.sleep(0)
                turns += 1

        home.app.contexts["matrix"].spawn(others, "others")
        await presences.handle_edus(THEIRS, [{"push": push}] * 10)
        taken, turns = turns, 0
        assert taken >= 10 * 500 / 25
        await presences.apply_early("!nowhere:x")
        assert turns >= 500 / 25
        over = True


async def test_presence_of_one_server_takes_nobody_else_s_place(tmp_path, monkeypatch):
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        presences = home.matrix.users.presences
        presences._known = FairShares(5, presences._known._peer_of)
        monkeypatch.setattr(presences._company, "is_tracked", lambda _user: True)

        def said(user: str) -> dict[str, Any]:
            return {"push": [{"user_id": user, "presence": "online"}]}

        await presences.handle_edus("honest.example", [said("@h:honest.example")])
        for number in range(30):
            await presences.handle_edus(THEIRS, [said(f"@u{number}:{THEIRS}")])
        assert presences.get("@h:honest.example") is not None
        assert len(presences.get_all()) == 5


async def test_a_closed_account_leaves_nothing_that_was_for_its_person_alone(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        me = part(alice.user)
        await alice.call("PUT", f"/user/{me}/account_data/m.x", {"secret": 1})
        await alice.call("POST", f"/user/{me}/filter", {"room": {}})
        given = await alice.call("POST", f"/user/{me}/openid/request_token", {})
        info = f"{V1}/openid/userinfo?access_token={given['access_token']}"
        assert (await home.anybody.whole("GET", info)).status == 200
        public = SigningKey.from_seed("ed25519:a", secrets.token_bytes(32)).public
        key = {"user_id": alice.user, "usage": ["master"], "keys": {f"ed25519:{public}": public}}
        await alice.call("POST", "/keys/device_signing/upload", {"master_key": key})
        openid = await rows(home, "openid")
        await alice.call("POST", "/account/deactivate", {"auth": login("alice")})
        (account,) = [row for row in await rows(home, "account") if row.key == (alice.user,)]
        assert orjson.loads(account.body)["password"] == ""
        for collection in (
            "device",
            "access_token",
            "account_data",
            "account_data_usage",
            "filter",
            "openid",
        ):
            assert await rows(home, collection) == [], collection
        assert await rows(home, "cross_signing_key") == await rows(home, "vouched") == []
        assert len(await rows(home, "profile")) == 1  # others see it still
        # A token that was made at that moment is nobody's either.
        store = home.app.contexts["matrix"].store
        await store.commit([Insert("openid", row.key, row.body, row.fields) for row in openid])
        assert (await home.anybody.whole("GET", info)).status == 401


async def test_an_event_of_whom_somebody_ignores_is_given_by_no_way(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        event = part(await bob.say(room, "unheard"))
        topic = part(await alice.say(room, "heard"))
        before = [f"/rooms/{part(room)}/{way}/{event}" for way in ("event", "context")]
        for path in before:
            assert (await alice.ask("GET", path))[0] == 200
        ignored = {"ignored_users": {bob.user: {}}}
        await alice.call("PUT", f"/user/{part(alice.user)}/account_data/m.ignored_user_list", ignored)
        for path in before:
            assert (await alice.ask("GET", path))[0] == 404
        around = await alice.get(f"/rooms/{part(room)}/context/{topic}")
        assert "unheard" not in str(around)
        assert (await bob.ask("GET", before[0]))[0] == 200
