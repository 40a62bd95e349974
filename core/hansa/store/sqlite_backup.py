"""A SQLite database and the files beside it, copied while Hansa runs, and put back.

A backup is a folder: ``hansa.db``, ``media/`` and, written last, ``backup.json`` with what they are verified
by. The database is copied first: a file that it names is on the disk by then, and files never change.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from hansa.store.base import HeldElsewhere, StoreError
from hansa.store.faults import FaultKind, StoreFault, sqlite_fault

_DATABASE, _MEDIA, _MANIFEST = "hansa.db", "media", "backup.json"
_CHUNK = 1024 * 1024
#: Faults that one check tells.
_MAX_FAULTS = 20

#: Told as it goes on: what is done now, and ``(bytes or files until now, in all)``.
Told = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteBackup:
    """The content of a backup. ``made`` is a time in UTC; ``damaged`` are files whose bytes do not match
    their names, which were copied as they are.
    """

    made: str
    hansa: str
    position: int
    size: int
    sha256: str
    files: int
    damaged: tuple[str, ...]


def check_file(path: Path) -> list[str]:
    """Returns the faults of a database file; a Hansa may use it at the same time. Raises StoreFault if it
    cannot be read for another reason than damage.
    """
    try:
        with _open_read_only(path) as db:
            rows = db.execute(f"PRAGMA integrity_check({_MAX_FAULTS})").fetchall()
    except StoreFault as fault:
        if fault.kind is not FaultKind.DAMAGED:
            raise
        return [str(fault)]
    return [str(row[0]) for row in rows if row[0] != "ok"]


def back_up(database: Path, media: Path, folder: Path, version: str, told: Told) -> SqliteBackup:
    """Copy a database and its files into a folder that is not there yet, or is empty, and verify the copy.
    Raises StoreError, OSError.
    """
    if folder.resolve().is_relative_to(media.resolve()):
        raise StoreError(
            f"{folder} is in the media folder, where only files of people are: name another folder"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise StoreError(f"{folder} is not empty: name another folder")
    copy = folder / _DATABASE
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    told("copying the database", 0, database.stat().st_size)
    with _open_read_only(database) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)  # in one step: what is written meanwhile does not make it begin again
    told("checking the copy", 0, copy.stat().st_size)
    wrong = check_file(copy)
    if wrong:
        raise StoreError(f"the database is damaged, and so is its copy: {wrong[0]}; see `hansa store check`")
    with _open_read_only(copy) as db:
        position = _read_position(db)
    files, damaged = _copy_files(media, folder / _MEDIA, lambda n, of: told("copying files", n, of))
    _sync_folder(copy)
    found = SqliteBackup(
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        hansa=version,
        position=position,
        size=copy.stat().st_size,
        sha256=_file_digest(copy),
        files=files,
        damaged=tuple(damaged),
    )
    manifest = folder / _MANIFEST
    manifest.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    _sync_folder(manifest)
    _sync_folder(folder)
    return found


def restore(folder: Path, database: Path, media: Path, told: Told, *, replace: bool) -> SqliteBackup:
    """Put a backup in its place, verified before anything is touched. A database that is there is kept beside
    it under another name. Raises StoreError, OSError.
    """
    found = _read_manifest(folder)
    copy = folder / _DATABASE
    _refuse_links(folder)
    told("checking the backup", 0, found.size)
    if _file_digest(copy) != found.sha256 or check_file(copy):
        raise StoreError(f"{copy} is not what was backed up: it was changed or damaged")
    database.parent.mkdir(parents=True, exist_ok=True)
    with _lock_database(database):
        if database.exists() and not replace:
            raise StoreError(f"{database} is there already: say --replace to keep it under another name")
        told("copying the database", 0, found.size)
        fresh = database.with_name(f"{database.name}.restored")
        fresh.unlink(missing_ok=True)
        shutil.copyfile(copy, fresh, follow_symlinks=False)
        fresh.chmod(0o600)
        _sync_folder(fresh)
        _copy_files(folder / _MEDIA, media, lambda n, of: told("copying files", n, of))
        if database.exists():
            _keep_old(database)
        fresh.rename(database)
        _sync_folder(database.parent)
    return found


def _refuse_links(folder: Path) -> None:
    """Raises StoreError for a backup with a symbolic link in it, which no backup has: what it points to would
    be read as the user who restores, and given out as a file of people.
    """
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            one = Path(parent, name)
            if one.is_symlink():
                raise StoreError(f"{one} is a symbolic link: a backup has files and folders alone")


def _keep_old(database: Path) -> None:
    """Give a database a second name, and its log, which must not stay beside another database, that name."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    kept = f"{database.name}.before-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    os.link(database, database.with_name(kept))
    for end in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            database.with_name(database.name + end).rename(database.with_name(kept + end))


def _read_manifest(folder: Path) -> SqliteBackup:
    try:
        data = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return SqliteBackup(**{**data, "damaged": tuple(data["damaged"])})
    except FileNotFoundError:
        raise StoreError(
            f"{folder} is not a backup, or is one that was broken off: it has no {_MANIFEST}"
        ) from None
    except (ValueError, TypeError, KeyError):
        raise StoreError(f"{folder / _MANIFEST} is not what a backup writes") from None


@contextmanager
def _open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes nothing. Raises StoreFault for what SQLite raises inside."""
    try:
        where = f"file:{quote(str(path.absolute()))}?mode=ro"
        with closing(sqlite3.connect(where, uri=True)) as db:
            db.execute("PRAGMA busy_timeout = 10000")
            yield db
    except sqlite3.Error as error:
        raise sqlite_fault(error) from error


@contextmanager
def _lock_database(database: Path) -> Iterator[None]:
    """Nobody else has the database. Raises StoreError."""
    handle = os.open(f"{database}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise HeldElsewhere(f"{database} is in use: stop Hansa first") from None
    try:
        yield
    finally:
        os.close(handle)


def _read_position(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT value FROM hansa_meta WHERE name = 'position'").fetchone()
    return int(row[0]) if row else 0


def _copy_files(source: Path, target: Path, told: Callable[[int, int], None]) -> tuple[int, list[str]]:
    """Copy the files that the target lacks; how many the source has, and those that are not what their names
    say.
    """
    every = sorted(one for one in source.glob("*/[0-9a-f][0-9a-f]/*") if one.is_file())
    damaged = []
    for at, one in enumerate(every):
        told(at, len(every))
        to = target / one.relative_to(source)
        if to.exists() and to.stat().st_size == one.stat().st_size and _file_digest(to) == one.name:
            continue
        try:
            if _copy_file(one, to) != one.name:
                damaged.append(str(one.relative_to(source)))
        except FileNotFoundError:
            continue  # removed since the database was copied: who asks for it is told that it is gone
    return len(every), damaged


def _copy_file(source: Path, target: Path) -> str:
    """Copy a file, whole or not at all; the SHA-256 of what was read."""
    hashing = hashlib.sha256()
    with source.open("rb") as reader:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        with part.open("wb") as writer:
            while chunk := reader.read(_CHUNK):
                hashing.update(chunk)
                writer.write(chunk)
            writer.flush()
            os.fsync(writer.fileno())
    part.chmod(0o600)
    part.rename(target)
    return hashing.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
