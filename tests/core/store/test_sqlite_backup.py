"""Backups of SQLite: made while it is written to, verified, and put back without a loss of what was there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat

import pytest
from hansa.store.base import Append, Put, StoreError
from hansa.store.sqlite import SqliteStore
from hansa.store.sqlite_backup import back_up, check_file, restore
from hansa.testing import until
from hansa.testing.store_suite import SCHEMA


def _quiet(*_: object) -> None:
    pass


def _file(media, body: bytes) -> str:
    digest = hashlib.sha256(body).hexdigest()
    path = media / "matrix" / digest[:2] / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return digest


async def _store(path) -> SqliteStore:
    store = SqliteStore(path)
    await store.open()
    await store.declare("s", SCHEMA)
    return store


async def test_a_backup_made_under_writes_is_a_moment_of_the_database(tmp_path):
    store = await _store(tmp_path / "hansa.db")
    digest = _file(tmp_path / "media", b"picture")
    (tmp_path / "media" / "matrix" / "incoming").mkdir()
    (tmp_path / "media" / "matrix" / "incoming" / "half").write_bytes(b"ha")
    going = True
    acknowledged = 0

    async def write() -> None:
        nonlocal acknowledged
        while going:
            [at] = await store.commit("s", [Append("line", b"x" * 2000), Put("thing", ("a", acknowledged))])
            acknowledged = at

    writing = asyncio.get_running_loop().create_task(write())
    await until(lambda: acknowledged >= 50)
    before = acknowledged
    folder = tmp_path / "backup"
    found = await asyncio.to_thread(back_up, tmp_path / "hansa.db", tmp_path / "media", folder, "1.2", _quiet)
    going = False
    await writing
    assert before <= found.position <= acknowledged and found.hansa == "1.2"
    assert (found.files, found.damaged) == (1, ())
    assert (folder / "media" / "matrix" / digest[:2] / digest).read_bytes() == b"picture"
    assert not list(folder.glob("media/*/incoming/*"))
    for secret in (folder, folder / "hansa.db"):
        assert not stat.S_IMODE(secret.stat().st_mode) & 0o077, secret
    await store.close()

    restored = restore(
        folder, tmp_path / "new" / "hansa.db", tmp_path / "new" / "media", _quiet, replace=False
    )
    assert restored == found
    again = await _store(tmp_path / "new" / "hansa.db")
    assert await again.position() == found.position
    rows = await again.scan("s", "line", limit=10_000)
    assert [row.position for row in rows] == list(range(1, found.position + 1)), (
        "each batch whole or not at all"
    )
    assert await again.count("s", "thing") == found.position
    assert (tmp_path / "new" / "media" / "matrix" / digest[:2] / digest).read_bytes() == b"picture"
    await again.close()


async def test_a_database_that_is_there_is_kept_under_another_name(tmp_path):
    path, media = tmp_path / "hansa.db", tmp_path / "media"
    store = await _store(path)
    await store.commit("s", [Append("line", b"first")])
    back_up(path, media, tmp_path / "backup", "1", _quiet)
    await store.commit("s", [Append("line", b"second")])
    with pytest.raises(StoreError, match="in use: stop Hansa"):
        restore(tmp_path / "backup", path, media, _quiet, replace=True)
    await store.close()
    with pytest.raises(StoreError, match="--replace"):
        restore(tmp_path / "backup", path, media, _quiet, replace=False)
    restore(tmp_path / "backup", path, media, _quiet, replace=True)
    store = await _store(path)
    assert [row.body for row in await store.scan("s", "line")] == [b"first"]
    await store.close()
    [kept] = [one for one in tmp_path.glob("hansa.db.before-*") if not one.name.endswith(("-wal", "-shm"))]
    old = await _store(kept)
    assert [row.body for row in await old.scan("s", "line")] == [b"first", b"second"]
    await old.close()


async def test_the_log_of_a_process_that_was_killed_goes_with_its_database(tmp_path):
    """Rows that only the log holds are in the copy, and the log does not stay beside the restored
    database.
    """
    path, media = tmp_path / "hansa.db", tmp_path / "media"
    store = await _store(path)
    back_up(path, media, tmp_path / "backup", "1", _quiet)
    await store.commit("s", [Append("line", b"in the log")])
    for end in ("", "-wal"):  # as a kill leaves them
        (tmp_path / f"killed.db{end}").write_bytes((tmp_path / f"hansa.db{end}").read_bytes())
    await store.close()
    restore(tmp_path / "backup", tmp_path / "killed.db", media, _quiet, replace=True)
    fresh = await _store(tmp_path / "killed.db")
    assert await fresh.count("s", "line") == 0
    await fresh.close()
    [kept] = [one for one in tmp_path.glob("killed.db.before-*") if not one.name.endswith(("-wal", "-shm"))]
    old = await _store(kept)
    assert [row.body for row in await old.scan("s", "line")] == [b"in the log"]
    await old.close()


async def test_what_is_no_whole_backup_is_not_restored(tmp_path):
    path, media = tmp_path / "hansa.db", tmp_path / "media"
    store = await _store(path)
    await store.commit("s", [Append("line", b"x" * 100_000)])
    await store.close()
    folder, to = tmp_path / "backup", tmp_path / "to.db"
    back_up(path, media, folder, "1", _quiet)
    manifest = (folder / "backup.json").read_text()
    with pytest.raises(StoreError, match="not empty"):
        back_up(path, media, folder, "1", _quiet)
    (folder / "backup.json").unlink()
    with pytest.raises(StoreError, match="broken off"):
        restore(folder, to, media, _quiet, replace=False)
    for wrong in ("{", "[]", "{}", json.dumps({**json.loads(manifest), "more": 1})):
        (folder / "backup.json").write_text(wrong)
        with pytest.raises(StoreError, match="not what a backup writes"):
            restore(folder, to, media, _quiet, replace=False)
    (folder / "backup.json").write_text(manifest)
    with (folder / "hansa.db").open("r+b") as file:
        file.seek(50_000)
        file.write(b"\xff" * 100)
    with pytest.raises(StoreError, match="changed or damaged"):
        restore(folder, to, media, _quiet, replace=False)
    assert not to.exists()


async def test_damage_is_told_by_a_check_and_not_backed_up(tmp_path):
    path = tmp_path / "hansa.db"
    store = await _store(path)
    await store.commit("s", [Put("thing", ("a", n), b"x" * 1500, {"color": "red"}) for n in range(400)])
    await store.close()
    assert check_file(path) == []
    with path.open("r+b") as file:
        for page in range(20, 60):
            file.seek(page * 2048)
            file.write(b"\xff" * 2048)
    assert check_file(path)
    with pytest.raises(StoreError, match="damaged"):
        back_up(path, tmp_path / "media", tmp_path / "backup", "1", _quiet)
    assert not (tmp_path / "backup" / "backup.json").exists()


async def test_a_file_whose_bytes_are_others_is_named(tmp_path):
    store = await _store(tmp_path / "hansa.db")
    await store.close()
    digest = _file(tmp_path / "media", b"picture")
    path = tmp_path / "media" / "matrix" / digest[:2] / digest
    path.write_bytes(b"pictura")
    found = back_up(tmp_path / "hansa.db", tmp_path / "media", tmp_path / "backup", "1", _quiet)
    assert found.damaged == (f"matrix/{digest[:2]}/{digest}",)


async def _backed_up(tmp_path):
    store = await _store(tmp_path / "hansa.db")
    await store.commit("s", [Append("line", b"kept")])
    await store.close()
    digest = _file(tmp_path / "media", b"picture")
    folder = tmp_path / "backup"
    back_up(tmp_path / "hansa.db", tmp_path / "media", folder, "1", _quiet)
    return folder, folder / "media" / "matrix" / digest[:2] / digest


@pytest.mark.parametrize("what", ["hansa.db", "file", "folder"])
async def test_a_backup_with_a_symbolic_link_is_not_restored(what, tmp_path):
    folder, picture = await _backed_up(tmp_path)
    one = {"hansa.db": folder / "hansa.db", "file": picture, "folder": picture.parent}[what]
    one.rename(tmp_path / "elsewhere")
    one.symlink_to(tmp_path / "elsewhere")
    house = tmp_path / "house"
    with pytest.raises(StoreError, match="symbolic link"):
        restore(folder, house / "hansa.db", house / "media", _quiet, replace=False)
    assert not house.exists()


async def test_a_damaged_file_is_replaced_by_that_of_the_backup(tmp_path):
    folder, picture = await _backed_up(tmp_path)
    there = tmp_path / "media" / picture.relative_to(folder / "media")
    there.write_bytes(b"damaged")  # as long as the picture
    restore(folder, tmp_path / "hansa.db", tmp_path / "media", _quiet, replace=True)
    assert there.read_bytes() == b"picture"
