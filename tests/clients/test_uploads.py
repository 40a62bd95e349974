"""Files that people give: within what one person may, what the disk takes, and at addresses of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from clients.matrix_server import OURS, LocalUser, MatrixServer, matrix_server
from hansa import Action, MediaTransfer, MediaUpload, NativeId, Request, Verdict
from hansa.store.blobs import FileBlobs
from hansa.testing import until
from hansa_matrix.client_api import media
from hansa_matrix.media import quotas, repository
from hansa_matrix.proto.media import MxcUri
from hansa_matrix.retention import purge_expired
from matrix.server_with_peer import THEIRS

UPLOAD, CREATE = "/_matrix/media/v3/upload", "/_matrix/media/v1/create"


async def give(person: LocalUser, data: bytes, target: str = UPLOAD, **headers: str) -> tuple[int, Any]:
    method = "POST" if target.partition("?")[0] == UPLOAD else "PUT"
    answer = await person.whole(method, target, data=data, **headers)
    return answer.status, json.loads(answer.body)


def kept(home: MatrixServer) -> int:
    """Bytes that are on the disk."""
    return sum(map(len, home.app.setup.blobs.stored.values()))


def shelf(home: MatrixServer) -> Any:
    return home.matrix.media


async def copy(home: MatrixServer, name: str, data: bytes, server: str = THEIRS) -> Any:
    """A file of another server is fetched."""

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    return await shelf(home).add_file(chunks(), "a/b", "", mxc=MxcUri(server, name))


async def copies(home: MatrixServer) -> set[str]:
    return {item.mxc.media_id for item in await shelf(home).list_files() if item.mxc.server != OURS}


def at_times(home: MatrixServer, monkeypatch: Any) -> list[int]:
    """The time, as the test sets it."""
    clock = home.app.contexts["matrix"].clock
    now = [clock.now()]
    monkeypatch.setattr(type(clock), "now", lambda _: now[0])
    return now


# Quotas.


async def test_a_person_s_files_are_bounded_and_nobody_else_s_thereby(tmp_path):
    async with matrix_server(tmp_path, media_quota_per_user=2500) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        first = (await give(alice, b"a" * 1000))[1]["content_uri"]
        assert (await give(alice, b"b" * 1000))[0] == 200
        for length in ({"content_length": "1000"}, {}):
            status, found = await give(alice, b"c" * 1000, **length)
            assert (status, found["errcode"]) == (403, "M_FORBIDDEN")
        assert kept(home) == 2000
        assert (await give(bob, b"c" * 1000))[0] == 200
        assert (await give(alice, b"d" * 500))[0] == 200
        await home.matrix.network.admin_commands()["media rm"]({"media": first})
        assert (await give(alice, b"e" * 1000))[0] == 200


async def test_many_at_once_take_no_more_than_one_after_the_other(tmp_path):
    async with matrix_server(tmp_path, media_quota_per_user=2500) as home:
        alice = await home.person("alice")
        answers = await asyncio.gather(
            *(give(alice, bytes([n]) * 1000, content_length="1000") for n in range(10)),
            *(give(alice, bytes([n]) * 1001) for n in range(10, 20)),
        )
        assert sum(status == 200 for status, _ in answers) <= 2
        assert 1000 <= kept(home) <= 2500
        assert (await shelf(home).quotas.usage_of(alice.user))[0].size == kept(home)


async def test_what_is_being_given_counts_already(tmp_path):
    async with matrix_server(tmp_path, media_quota_per_user=2500) as home:
        alice, begun, go = await home.person("alice"), asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            begun.set()
            await go.wait()
            yield b"x" * 2000

        async with asyncio.TaskGroup() as group:
            first = group.create_task(unfinished(alice, slow, content_length="2000"))
            await begun.wait()
            assert (await give(alice, b"y" * 1000, content_length="1000"))[0] == 403
            assert (await give(alice, b"z" * 500, content_length="500"))[0] == 200
            go.set()
        assert first.result().status == 200 and kept(home) == 2500


async def test_two_processes_keep_one_quota(tmp_path):
    """A change that one process does not know of is in the store."""
    async with matrix_server(tmp_path, media_quota_per_user=2500) as home:
        alice = await home.person("alice")
        shelves = [repository.MediaRepository(home.app.contexts["matrix"], OURS) for _ in range(2)]

        async def chunks(number: int) -> AsyncIterator[bytes]:
            yield bytes([number]) * 1000

        answers = await asyncio.gather(
            *(shelves[n % 2].add_file(chunks(n), "a/b", "", owner=alice.user) for n in range(6)),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, repository.MediaItem) for answer in answers) == 2
        assert (await shelves[0].quotas.usage_of(alice.user))[0] == quotas.Usage(2000, 2)
        assert kept(home) == 2000
        given = [answer.mxc for answer in answers if isinstance(answer, repository.MediaItem)]
        removed = await asyncio.gather(*(shelf_.remove_file(mxc) for shelf_ in shelves for mxc in given))
        assert (await shelves[0].quotas.usage_of(alice.user))[0] == quotas.Usage(0, 0)
        assert sum(removed) == 2 and kept(home) == 0


async def test_a_person_s_files_are_counted(tmp_path):
    async with matrix_server(tmp_path, media_files_per_user=3) as home:
        alice = await home.person("alice")
        answers = await asyncio.gather(*(give(alice, bytes([n])) for n in range(8)))
        assert sorted(status for status, _ in answers) == [200] * 3 + [403] * 5


async def test_copies_of_a_server_s_files_give_way_to_its_own_only(tmp_path, monkeypatch):
    async with matrix_server(tmp_path, media_quota_per_server=2500) as home:
        now = at_times(home, monkeypatch)
        for name, server in (("old", THEIRS), ("older", "a.example"), ("used", THEIRS)):
            await copy(home, name, name.encode() * 250, server)
            now[0] += 5_000_000
        await shelf(home).get(MxcUri(THEIRS, "old"))  # so that "used" is what was unused for longest
        await copy(home, "new", b"n" * 1000)
        assert await copies(home) == {"old", "older", "new"}
        with pytest.raises(quotas.OverQuota):
            await copy(home, "huge", b"h" * 2501)
        assert await copies(home) == {"old", "older", "new"}
        assert (await shelf(home).quotas.usage_of(THEIRS))[0] == quotas.Usage(1750, 2)


async def test_copies_are_bounded_in_all_and_in_number(tmp_path, monkeypatch):
    monkeypatch.setattr(quotas, "MAX_COPIES_PER_SERVER", 3)
    async with matrix_server(tmp_path, media_quota_remote=1000) as home:
        now = at_times(home, monkeypatch)
        for n in range(5):
            await copy(home, f"a{n}", bytes([n]))
            now[0] += 1
        assert await copies(home) == {"a2", "a3", "a4"}
        await copy(home, "b", b"b" * 998, "b.example")
        assert await copies(home) == {"a3", "a4", "b"}
        assert home.app.gauges["matrix_media_copies_bytes", (("plugin", "matrix"),)] == 1000


# The disk.


async def test_a_full_disk_takes_no_files_and_goes_on_with_events(tmp_path, monkeypatch):
    async with matrix_server(
        tmp_path, media_reserve=10_000, admin_contact="mailto:root@hansa.example"
    ) as home:
        alice = await home.person("alice")
        room = await alice.create()
        blobs = home.app.setup.blobs
        blobs.disk = 200_000  # of which a twentieth, the reserve, is for everything else
        assert (await give(alice, b"a" * 150_000, content_length="150000"))[0] == 200
        monkeypatch.setattr(quotas, "_RESERVE_STEP", 1000)
        await copy(home, "copy", b"c" * 30_000)
        status, found = await give(alice, b"b" * 50_000, content_length="50000")
        assert (status, found["errcode"]) == (507, "M_RESOURCE_LIMIT_EXCEEDED")
        assert found["admin_contact"] == "mailto:root@hansa.example"
        assert await copies(home) == {"copy"}  # it would not have been enough
        assert (await give(alice, b"d" * 30_000, content_length="30000"))[0] == 200
        assert await copies(home) == set()  # what can be fetched again goes first
        assert kept(home) <= 190_000
        with pytest.raises(quotas.DiskFull):
            await copy(home, "more", b"c" * 30_000)
        await alice.say(room, "still here")
        assert await alice.texts(room) == ["still here"]


async def test_many_at_once_leave_the_reserve(tmp_path):
    async with matrix_server(tmp_path) as home:
        people = [await home.person(f"p{n}") for n in range(10)]
        blobs = home.app.setup.blobs
        blobs.disk = 100_000
        answers = await asyncio.gather(
            *(give(p, bytes([n]) * 20_000, content_length="20000") for n, p in enumerate(people))
        )
        assert sorted({status for status, _ in answers}) == [200, 507]
        assert sum(status == 200 for status, _ in answers) == 4
        assert kept(home) <= 95_000


async def test_a_disk_that_fills_meanwhile_is_no_internal_error(tmp_path, monkeypatch):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")

        async def put(*_: Any) -> Any:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(home.app.setup.blobs, "put", put)
        status, found = await give(alice, b"x")
        assert (status, found["errcode"]) == (507, "M_RESOURCE_LIMIT_EXCEEDED")
        assert "device" not in found["error"]


async def test_a_folder_that_is_not_there_yet_has_a_disk(tmp_path):
    space = await FileBlobs(tmp_path / "none" / "yet").space()
    assert 0 < space.free < space.total


# Addresses that were given out.


async def test_an_address_is_its_owner_s(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, mallory = await home.person("alice"), await home.person("mallory")
        mxc = (await alice.call("POST", CREATE, {}))["content_uri"].removeprefix("mxc://")
        status, found = await give(mallory, b"mine now", f"{UPLOAD}/{mxc}")
        assert (status, found["errcode"]) == (403, "M_FORBIDDEN")
        assert (await give(alice, b"hers", f"{UPLOAD}/{mxc}"))[0] == 200
        assert (await give(mallory, b"mine now", f"{UPLOAD}/{mxc}"))[0] == 403
        assert (await give(alice, b"x", f"{UPLOAD}/{OURS}/made-up"))[0] == 403
        assert (await give(alice, b"x", f"{UPLOAD}/{THEIRS}/made-up"))[0] == 403


async def test_of_many_at_once_one_fills_an_address(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        for _ in range(5):
            mxc = (await alice.call("POST", CREATE, {}))["content_uri"].removeprefix("mxc://")
            answers = await asyncio.gather(
                *(give(alice, bytes([n]) * 9, f"{UPLOAD}/{mxc}") for n in range(8))
            )
            assert sorted(status for status, _ in answers) == [200] + [409] * 7
            winner = next(n for n, (status, _) in enumerate(answers) if status == 200)
            item = await shelf(home).get(MxcUri(OURS, mxc.partition("/")[2]))
            assert b"".join([c async for c in shelf(home).read_chunks(item)]) == bytes([winner]) * 9
            assert kept(home) == 9
            await shelf(home).remove_file(item.mxc)
            assert (await give(alice, b"again", f"{UPLOAD}/{mxc}"))[0] == 409  # once, and never again


async def test_an_upload_that_ends_late_replaces_nothing(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, served = await home.person("alice"), asyncio.Event()
        mxc = (await alice.call("POST", CREATE, {}))["content_uri"].removeprefix("mxc://")
        begun = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            begun.set()
            yield b"late "
            await served.wait()
            yield b"file"

        late = Request(
            method="PUT",
            target=f"{UPLOAD}/{mxc}",
            host=OURS,
            authorizations=[f"Bearer {alice.token}"],
            remote="192.0.2.1",
        )

        async def body(_limit: int) -> bytes | None:
            return None

        async with asyncio.TaskGroup() as group:
            task = group.create_task(alice.dispatcher.answer(late, body, lambda _: slow()))
            await begun.wait()
            assert (await give(alice, b"in time", f"{UPLOAD}/{mxc}"))[0] == 200
            served.set()
        assert task.result().status == 409
        item = await shelf(home).get(MxcUri(OURS, mxc.partition("/")[2]))
        assert b"".join([c async for c in shelf(home).read_chunks(item)]) == b"in time"
        assert kept(home) == 7


async def test_an_address_waits_for_a_day(tmp_path, monkeypatch):
    async with matrix_server(tmp_path) as home:
        alice, now = await home.person("alice"), at_times(home, monkeypatch)
        found = await alice.call("POST", CREATE, {})
        now[0] = found["unused_expires_at"]
        mxc = found["content_uri"].removeprefix("mxc://")
        assert (await give(alice, b"x", f"{UPLOAD}/{mxc}"))[0] == 403


async def test_addresses_that_wait_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(repository, "MAX_PENDING_OF_USER", 3)
    monkeypatch.setattr(repository, "MAX_PENDING", 8)
    async with matrix_server(tmp_path) as home:
        alice, now = await home.person("alice"), at_times(home, monkeypatch)
        answers = await asyncio.gather(*(alice.ask("POST", CREATE, {}) for _ in range(6)))
        assert sorted(status for status, _ in answers) == [200] * 3 + [429] * 3
        given = next(found["content_uri"] for status, found in answers if status == 200)
        assert (await give(alice, b"x", f"{UPLOAD}/{given.removeprefix('mxc://')}"))[0] == 200
        assert (await alice.ask("POST", CREATE, {}))[0] == 200  # one is filled, and waits no more
        for name in ("bob", "carol"):
            person = await home.person(name)
            answers = [await person.ask("POST", CREATE, {}) for _ in range(3)]
        assert [status for status, _ in answers] == [200, 429, 429]
        now[0] += 86_400_000
        assert (await alice.ask("POST", CREATE, {}))[0] == 429  # until they are swept
        await purge_expired(home.app.contexts["matrix"])
        assert (await alice.ask("POST", CREATE, {}))[0] == 200


# Policies.


async def test_an_upload_that_a_rate_stops_may_come_again_later(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")

        async def check(_crossing: Any) -> Verdict:
            return Verdict(Action.DENY, retry_after=1.5)

        home.app.contexts["matrix"].check = check
        status, found = await give(alice, b"ok", f"{UPLOAD}?filename=a.txt", content_type="text/plain")
        assert (status, found["errcode"], found["retry_after_ms"]) == (429, "M_LIMIT_EXCEEDED", 1500)
        assert kept(home) == 0


async def test_policies_are_asked_about_what_is_given_and_read(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        asked: list[Any] = []

        async def check(crossing: Any) -> Verdict:
            asked.append(crossing)
            no = getattr(crossing, "name", "") == "bad.exe"
            return Verdict(Action.DENY if no else Action.ALLOW, decision="d-1" if no else "")

        home.app.contexts["matrix"].check = check
        status, found = await give(
            alice, b"MZ", f"{UPLOAD}?filename=bad.exe", content_type="application/x-dos", content_length="2"
        )
        assert (status, found["errcode"], found["dev.hansa.decision"]) == (403, "M_FORBIDDEN", "d-1")
        assert kept(home) == 0
        upload = asked.pop()
        assert upload == MediaUpload(
            network="matrix",
            user=NativeId("matrix", alice.user),
            user_server=OURS,
            media=upload.media,
            name="bad.exe",
            type="application/x-dos",
            size=2,
        )
        _, found = await give(alice, b"ok", f"{UPLOAD}?filename=good.txt", content_type="text/plain")
        path = found["content_uri"].removeprefix("mxc://")
        assert (await alice.whole("GET", f"/_matrix/client/v1/media/download/{path}")).status == 200
        assert asked[-1] == MediaTransfer(
            network="matrix",
            server=OURS,
            media=f"mxc://{path}",
            outbound=False,
            name="good.txt",
            type="text/plain",
            size=2,
        )
        bad = await copy(home, "bad", b"x")
        home.app.contexts["matrix"].check = lambda one: check(
            one if getattr(one, "media", "") != str(bad.mxc) else upload
        )
        status, found = await alice.ask("GET", f"/_matrix/client/v1/media/download/{THEIRS}/bad")
        assert (status, found["dev.hansa.decision"]) == (403, "d-1")


async def test_a_person_has_so_many_uploads_at_a_time_and_others_theirs(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, go = await home.person("alice"), await home.person("bob"), asyncio.Event()
        begun: list[str] = []

        def begin(person: LocalUser) -> Any:
            async def slow() -> AsyncIterator[bytes]:
                begun.append(person.user)
                await go.wait()
                yield b"file"

            return unfinished(person, slow)

        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(begin(alice)) for _ in range(12)]
            await until(lambda: len(begun) >= 8)
            answers.append(group.create_task(begin(bob)))
            await until(lambda: bob.user in begun)
            assert begun.count(alice.user) == 8
            go.set()
        assert {answer.result().status for answer in answers} == {200}


async def test_an_upload_that_does_not_come_loses_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(media, "_MIN_UPLOAD_RATE", (1000, 0.05))
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")

        async def never() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.Event().wait()

        assert (await unfinished(alice, never, content_length="50000")).status == 408
        assert kept(home) == 0 and not shelf(home).quotas._promises


async def unfinished(person: LocalUser, chunks: Any, **headers: str) -> Any:
    """An upload whose body comes as a test lets it."""
    request = Request(
        method="POST",
        target=UPLOAD,
        host=OURS,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        authorizations=[f"Bearer {person.token}"],
        remote="192.0.2.1",
    )

    async def body(_limit: int) -> bytes | None:
        return None

    return await person.dispatcher.answer(request, body, lambda _: chunks())
