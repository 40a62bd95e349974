"""Files that the core keeps: quotas, what a broken upload leaves, what is deleted when."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from core.media_rig import BASE, MediaRig, media_rig, pieces
from hansa import Action, Busy, MediaUnavailable, MediaUpload, NativeId, Reason, RefusalCode, Verdict
from hansa.bus.schema import event_put
from hansa.config.reader import ConfigErrors, parse
from hansa.host.loader import load_plugin
from hansa.media.cleaning import ORPHAN_TTL_MS, UNNAMED_TTL_MS
from hansa.media.configured_limits import to_media_limits
from hansa.media.quotas import ALL, MediaUsage
from hansa.model.content import REDACTED, Custom
from hansa.store import open_store
from hansa.store.base import ScopedStore
from hansa.store.blobs import CHUNK, FileBlobs
from hansa.store.memory import MemoryStore
from hansa.testing import until

MIB = 1024 * 1024


@pytest.fixture
async def rig(tmp_path) -> AsyncIterator[MediaRig]:
    """Gives a running service with two networks."""
    async with media_rig(tmp_path / "media") as made:
        yield made


async def refused(work: Any) -> RefusalCode:
    with pytest.raises(MediaUnavailable) as caught:
        await work
    return caught.value.refusal.code


async def usage(rig: MediaRig, owner: str) -> MediaUsage:
    return (await rig.app.media.files.quotas.read_usage(owner))[0]


async def test_a_file_is_stored_by_its_content(rig):
    data = b"words" * 1000
    attachment = await rig.store(data, "../a.txt", sender="ann@x")
    assert attachment.sha256 == hashlib.sha256(data).hexdigest()
    assert (attachment.name, attachment.size, attachment.media_type) == ("a.txt", 5000, "text/plain")
    assert attachment.source is not None and attachment.source.network == "media"
    again = await rig.store(data, "b.txt", sender="ann@x")
    assert again.source != attachment.source and len(rig.files) == 1
    assert await usage(rig, "left:ann@x") == MediaUsage(10_000, 2)
    assert await usage(rig, ALL) == MediaUsage(10_000, 2)


async def test_the_bytes_stay_until_their_last_file_is_deleted(rig):
    one, two = await rig.store(b"same"), await rig.store(b"same")
    assert one.source is not None and two.source is not None
    assert await rig.app.media.files.remove_file(one.source.id)
    assert not await rig.app.media.files.remove_file(one.source.id)
    async with aclosing((await rig.left.ctx.media.open(two)).chunks) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"same"
    assert await rig.app.media.files.remove_file(two.source.id)
    assert rig.files == [] and await usage(rig, ALL) == MediaUsage()
    assert await refused(rig.left.ctx.media.open(two)) is RefusalCode.NOT_FOUND


@pytest.mark.parametrize("known", [True, False])
async def test_a_file_that_is_too_large_leaves_nothing(tmp_path, known):
    async with media_rig(tmp_path, max_file=5000) as rig:
        assert await refused(rig.store(b"x" * 5001, size=5001 if known else 0)) is RefusalCode.TOO_LARGE
        assert rig.files == []
        await rig.store(b"x" * 5000)
        assert rig.app.media.files.quotas.reserved == []


async def test_a_sender_has_a_quota_of_bytes_and_of_files(tmp_path):
    async with media_rig(tmp_path, quota_per_sender=1000, files_per_sender=3) as rig:
        await rig.store(b"a" * 900, sender="ann@x")
        assert await refused(rig.store(b"b" * 101, sender="ann@x")) is RefusalCode.TOO_LARGE
        await rig.store(b"b" * 50, sender="ann@x")
        await rig.store(b"c" * 50, sender="ann@x")
        await rig.store(b"b" * 900, sender="bob@x")
        await rig.store(b"b", sender="bob@x")
        await rig.store(b"b", sender="bob@x")
        assert await refused(rig.store(b"b", sender="bob@x")) is RefusalCode.TOO_LARGE


async def test_the_senders_of_one_server_have_a_quota_together(tmp_path):
    async with media_rig(tmp_path, quota_per_server=1000) as rig:
        for n in range(3):
            await rig.store(bytes([n]) * 300, sender=f"user{n}@x")
        assert await refused(rig.store(b"x" * 101, sender="user4@x")) is RefusalCode.TOO_LARGE
        await rig.store(b"y" * 101, sender="user4@y")
        assert (await usage(rig, "*left:x")).size == 900
        results = await asyncio.gather(
            *(rig.store(bytes([n]) * 60, sender=f"user{n}@x", size=60) for n in range(5)),
            return_exceptions=True,
        )
        assert sum(not isinstance(one, BaseException) for one in results) == 1
        assert (await usage(rig, "*left:x")).size == 960
        rig.clock.advance(2 * 86_400)
        for _ in range(2):  # it begins anywhere
            await rig.app.media.cleaner.sweep_files()
        assert (await usage(rig, "*left:x")).size == 0


async def test_many_uploads_at_once_keep_the_quota_that_each_would_keep(tmp_path):
    async with media_rig(tmp_path, quota_per_sender=1000) as rig:
        results = await asyncio.gather(
            *(rig.store(bytes([n]) * 400, sender="ann@x", size=400) for n in range(6)), return_exceptions=True
        )
        assert sum(not isinstance(one, BaseException) for one in results) == 2
        assert all(isinstance(one, MediaUnavailable) for one in results if isinstance(one, BaseException))
        assert (await usage(rig, "left:ann@x")).size == 800


async def test_an_upload_over_the_quota_is_not_read_to_its_end(tmp_path):
    read = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 10_000
            yield b"x" * 10_000

    async with media_rig(tmp_path, quota_per_sender=200_000) as rig:
        await rig.store(b"a" * 100_000, sender="ann@x")
        work = rig.left.ctx.media.store(source(), sender="ann@x")
        assert await refused(work) is RefusalCode.TOO_LARGE
        assert read <= 120_000


async def test_two_processes_keep_one_quota(tmp_path):
    """What is compared is in the store: a second writer that knew nothing of the first is refused."""
    store = MemoryStore()
    async with (
        media_rig(tmp_path, store=store, quota=1000) as one,
        media_rig(tmp_path, store=store, quota=1000) as two,
    ):
        results = await asyncio.gather(
            one.store(b"a" * 600, sender="ann@x"),
            two.store(b"b" * 600, sender="bob@x"),
            return_exceptions=True,
        )
        assert sum(isinstance(result, MediaUnavailable) for result in results) == 1
        assert await usage(one, ALL) == MediaUsage(600, 1)
        assert len(one.files) == 1


async def test_all_files_have_a_quota(tmp_path):
    async with media_rig(tmp_path, quota=1000) as rig:
        await rig.store(b"a" * 600, sender="ann@x")
        assert await refused(rig.store(b"b" * 600, sender="bob@x")) is RefusalCode.TOO_LARGE


async def test_a_policy_decides_about_an_upload_by_name_and_true_type(rig):
    judge = rig.judged()
    reason = Reason(code="NO", policy="judge", rule="r", text="no pages")
    judge.denies = lambda one: (
        Verdict(Action.DENY, (reason,)) if isinstance(one, MediaUpload) and one.type == "text/html" else None
    )
    assert await refused(rig.store(b"<html>", "a.png", "image/png", sender="ann@x")) is RefusalCode.POLICY
    asked = judge.asked[-1]
    assert (asked.network, asked.user, asked.name) == ("left", NativeId("left", "ann@x"), "a.png")
    assert rig.files == []
    await rig.store(b"words")


async def test_an_upload_that_breaks_off_leaves_nothing(rig):
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 200_000
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await rig.left.ctx.media.store(broken(), name="a")
    assert rig.files == [] and rig.app.media.opener.slots.taken == 0
    assert rig.app.media.files.quotas.reserved == []
    assert await ScopedStore(rig.app.store, "media").count("file") == 0


UPLOADER = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from core.media_rig import media_rig
from hansa.store import open_store

async def chunks():
    for _ in range(20):
        yield b"x" * 65536
    os.kill(os.getpid(), signal.SIGKILL)
    yield b"never"

async def main():
    folder = Path(sys.argv[1])
    async with media_rig(folder / "media", store=open_store("sqlite:hansa.db", folder)) as rig:
        await rig.left.ctx.media.store(chunks(), name="a", sender="ann@x")

asyncio.run(main())
"""


async def test_a_kill_in_the_middle_of_an_upload_leaves_nothing(tmp_path):
    tests = Path(__file__).parents[1]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", UPLOADER, str(tmp_path), str(tests), cwd=tests.parent
    )
    assert await child.wait() == -9
    assert [path for path in (tmp_path / "media").rglob("*") if path.is_file()]
    FileBlobs(tmp_path / "media").remove_unfinished()  # as a process does when it starts
    async with media_rig(tmp_path / "media", store=open_store("sqlite:hansa.db", tmp_path)) as rig:
        assert rig.files == []
        assert await usage(rig, ALL) == MediaUsage() == await usage(rig, "left:ann@x")
        await rig.store(b"x", sender="ann@x")


async def test_uploads_of_one_sender_have_a_share(rig):
    go = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        await go.wait()
        yield b"y"

    waiting = [
        asyncio.ensure_future(rig.left.ctx.media.store(slow(), name="a", sender="ann@x")) for _ in range(8)
    ]
    await until(lambda: rig.app.media.opener.slots.taken == 8)
    with pytest.raises(Busy):
        await rig.store(b"x", sender="ann@x")
    await rig.store(b"x", sender="bob@x")
    go.set()
    await asyncio.gather(*waiting)
    assert rig.app.media.opener.slots.taken == 0


async def test_a_file_that_no_event_names_is_deleted_after_a_day(rig):
    unnamed, named = await rig.store(b"unnamed"), await rig.store(b"named")
    await rig.send(named)
    rig.app.media.cleaner.position = ""
    assert await rig.app.media.cleaner.sweep_files() == 0
    rig.clock.advance(UNNAMED_TTL_MS / 1000 + 1)
    assert await rig.app.media.cleaner.sweep_files() == 1
    assert await refused(rig.left.ctx.media.open(unnamed)) is RefusalCode.NOT_FOUND
    await (await rig.left.ctx.media.open(named)).chunks.aclose()


async def test_a_crash_between_a_retraction_and_the_deletion_is_made_good(rig):
    attachment = await rig.store(b"secret")
    event = await rig.send(attachment)
    # A process that ended before it deleted: the row of the reference stands, the event names nothing.
    await rig.app.core.commit([event_put(replace(event, content=Custom(type=REDACTED)))])
    assert (await rig.get(rig.right.ctx.media.link(attachment, "b", event.id))).status == 410
    rig.clock.advance(UNNAMED_TTL_MS / 1000 + 1)
    rig.app.media.cleaner.position = ""
    assert await rig.app.media.cleaner.sweep_files() == 1
    assert rig.files == []


async def test_bytes_without_a_file_are_deleted(rig):
    """A crash between the bytes and their row, and one within a removal."""
    lost = await rig.app.media.files.blobs.put(pieces(b"lost"), 100)
    later = round(rig.files[0].stat().st_mtime * 1000) + ORPHAN_TTL_MS
    assert (
        await rig.app.media.files.remove_orphan_bytes(int(lost.digest[:2], 16), later - 2 * ORPHAN_TTL_MS)
        == 0
    )
    assert await rig.app.media.files.remove_orphan_bytes(int(lost.digest[:2], 16), later) == 1
    assert rig.files == []


async def test_a_transfer_holds_less_than_8_mib_whatever_the_size(tmp_path):
    """64 MiB in, through the store, and out over HTTP: a chunk at a time."""
    size = 64 * MIB

    async def source() -> AsyncIterator[bytes]:
        for n in range(size // CHUNK):
            yield bytes([n % 251]) * CHUNK

    async with media_rig(tmp_path / "media", max_file=size) as rig:
        tracemalloc.start()
        try:
            attachment = await rig.left.ctx.media.store(source(), name="big", sender="ann@x")
            event = await rig.send(attachment)
            url = rig.right.ctx.media.link(attachment, "b", event.id)
            got = 0
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{rig.port}{url.removeprefix(BASE)}") as answer,
            ):
                async for chunk in answer.content.iter_chunked(CHUNK):
                    got += len(chunk)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert got == size == attachment.size
    assert peak < 8 * MIB


def read_config(**media: Any) -> Any:
    return parse({"server": {"listen": ["http://127.0.0.1:1"]}, "media": media}, Path("/"), load_plugin)


def test_the_limits_come_from_the_configuration():
    limits = to_media_limits(
        read_config(max_file=2048, quota=4096, link_days=2, public_url="https://a.example/x")
    )
    assert (limits.max_file, limits.quota, limits.link_ttl_s) == (2048, 4096, 172_800)
    assert limits.public_url == "https://a.example/x"
    assert to_media_limits(read_config()).public_url == ""
    with pytest.raises(ConfigErrors):
        read_config(public_url="https://a.example/?x")


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"public_base_url": "https://chat.example", "server_name": "example"}, "https://chat.example"),
        ({"well_known_server": "m.example:443", "server_name": "example"}, "https://m.example:443"),
        ({"server_name": "example"}, "https://example:8448"),
        ({"server_name": "example:9000"}, "https://example:9000"),
        ({"server_name": "[2001:db8::1]"}, "https://[2001:db8::1]:8448"),
        ({}, ""),
    ],
)
def test_links_begin_as_a_server_is_reached(options, url):
    config = replace(read_config(), networks=(SimpleNamespace(options=SimpleNamespace(**options)),))
    assert to_media_limits(config).public_url == url


def test_no_network_is_called_as_the_service_is():
    with pytest.raises(ConfigErrors, match="reserved"):
        parse({"networks": {"media": {"plugin": "absent"}}}, Path("/"), load_plugin)
