"""A PostgreSQL whose disk is really full: what is refused is told to come again, what was acknowledged is kept,
and everything goes on when there is room.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from core.test_real_faults import Scene, scene  # noqa: F401  # a fixture
from peers.postgres import Postgres
from peers.require import absent
from peers.waiting import until

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def disk() -> Iterator[Path]:
    """A disk of 160 MiB that PostgreSQL's own user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="hansa-disk-"))
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(folder)]
    try:
        if mount is None or os.geteuid() or subprocess.run(command, check=False).returncode:
            absent("a small disk", "run this as somebody who may mount a tmpfs")
        folder.chmod(0o755)
        yield folder
        subprocess.run(["umount", "-l", str(folder)], check=True)
    finally:
        folder.rmdir()


class Filler:
    """A file that takes what is left of a disk."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "filler").open("wb", buffering=0)
        self._folder = folder

    def fill(self) -> None:
        self._file.write(bytes(shutil.disk_usage(self._folder).free))
        with pytest.raises(OSError, match="No space"):
            self._file.write(bytes(1))

    def free(self) -> None:
        self._file.truncate(0)
        self._file.close()


class OnDisk(Postgres):
    """All of it is on one disk, its log too."""

    def __init__(self, disk: Path) -> None:
        super().__init__("max_wal_size=32MB", "min_wal_size=32MB", "wal_recycle=off")
        self._disk = disk

    def folder(self) -> Path:
        made = self._disk / "server"
        made.mkdir(mode=0o700)
        shutil.chown(made, "postgres", "postgres")
        return made

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def use_up_its_log(self) -> None:
        """Begin new files of the log until there is no room for one, and PostgreSQL gives up."""
        for _ in range(10):
            try:
                self.sql("SELECT pg_current_xact_id(), pg_switch_wal()")
            except RuntimeError:
                return
        raise AssertionError("the log has room")


def database_on(server: Postgres, disk: Path) -> str:
    """The URL of a database whose tables are on a disk, and whose log is not."""
    place = disk / "tables"
    place.mkdir(mode=0o700)
    shutil.chown(place, "postgres", "postgres")
    server.sql(f"CREATE TABLESPACE small LOCATION '{place}'")
    server.sql("CREATE DATABASE small ENCODING 'UTF8' TEMPLATE template0 TABLESPACE small")
    return urlsplit(server.base)._replace(path="/small").geturl()


async def talks(s: Scene, kept: set[str], size: int) -> int:
    """Both sides speak while nothing fits; how often Alice was told to come again."""
    refused = 0
    for number in range(10):
        text = f"full {number} " + "x" * size
        status, body, after = await s.say(text)
        assert status in {200, 503}, body
        kept |= {text} if status == 200 else set()
        refused += status == 503 and body["errcode"] == "M_UNKNOWN" and int(after) > 0
        assert not {"sql", "disk", "database", "postgresql"} & set(str(body).lower().split())
    for number in range(10):
        kept.add(f"from afar {number}")
        await s.bob.say(s.room, f"from afar {number}")
    return refused


async def goes_on(s: Scene, kept: set[str]) -> None:
    async def taken() -> bool:
        return (await s.say("after"))[0] == 200

    await until("something is taken again", taken, 60)
    await s.everybody_has(kept | {"before", "after"})
    for person in (s.alice, s.bob):
        bodies = await person.bodies(s.room)
        assert len(bodies) == len(set(bodies))
    await s.nothing_restarted()
    await s.ours.stop()


async def test_tables_that_have_no_room_are_said_to_be_full(scene: Any, disk: Path, tmp_path: Path) -> None:  # noqa: F811
    server = Postgres()
    try:
        await asyncio.to_thread(server.start)
        s = await scene(tmp_path, database_on(server, disk))
        assert (await s.say("before"))[0] == 200
        filler = Filler(disk)
        filler.fill()
        kept: set[str] = set()
        assert await talks(s, kept, 20_000) >= 5
        found = await s.ours.run("status")
        assert (found["state"], found["store"]["kind"]) == ("degraded", "full")
        assert (await s.health())[0] == 503
        filler.free()
        await goes_on(s, kept)
    finally:
        server.stop()


async def test_a_server_that_its_full_disk_ended_is_started_again(
    scene: Any,  # noqa: F811
    disk: Path,
    tmp_path: Path,
) -> None:
    """PostgreSQL ends when its log does not fit: an operator makes space and starts it."""
    server = OnDisk(disk)
    try:
        await asyncio.to_thread(server.start)
        s = await scene(tmp_path, server.database())
        assert (await s.say("before"))[0] == 200
        filler = Filler(disk)
        filler.fill()
        await asyncio.to_thread(server.use_up_its_log)
        kept: set[str] = set()
        assert await talks(s, kept, 60_000) >= 5
        found = await s.ours.run("status")
        assert found["state"] == "degraded"
        assert found["store"]["kind"] in {"full", "away"}
        print(f"the database is {found['store']['kind']}, PostgreSQL runs: {server.running}")
        filler.free()
        if not server.running:
            await asyncio.to_thread(server.start)
        await goes_on(s, kept)
    finally:
        server.stop()
