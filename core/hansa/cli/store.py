"""`hansa store`: check, back up, restore and copy a database. These work on the database itself, not on a
running Hansa.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hansa import __version__, terminal
from hansa.config.reader import Config, ConfigErrors, load
from hansa.model.commands import counted
from hansa.model.errors import ConfigError, LocalProtocolError
from hansa.store import check_url, open_store
from hansa.store.base import HeldElsewhere, InUse, Store

if TYPE_CHECKING:
    from hansa.bus.integrity_check import Findings

#: Seconds between two lines of progress.
_EVERY = 2.0
_SAME = "FROM and TO are the same database under two names: use another database for TO"


def run(args: argparse.Namespace) -> int:
    """Carry out one of the actions; the exit code: 1 if something is wrong with the database."""
    os.umask(0o077)
    if args.action == "copy":
        return _copy_between(args)
    config = _load_config(args.config)
    if args.action == "check":
        return _check_store(args, config)
    database = _sqlite_file(config)
    if database is None:
        text = (
            f"`hansa store {args.action}` is for SQLite. Other databases have tools of their own: mongodump "
            f"and mongorestore, pg_dump and pg_restore. `hansa store copy` copies any store while Hansa is "
            f"stopped"
        )
        raise LocalProtocolError(text)
    return _move_backup(args, config, database)


def _move_backup(args: argparse.Namespace, config: Config, database: Path) -> int:
    from hansa.store import sqlite_backup  # noqa: PLC0415  # only for who asks

    media, told = config.folder / config.media.folder, _progress_printer()
    if args.action == "backup":
        found = sqlite_backup.back_up(database, media, args.folder, __version__, told)
        said = f"backed up to {args.folder}"
    else:
        found = sqlite_backup.restore(args.folder, database, media, told, replace=args.replace)
        said = f"restored {database}"
    if args.json:
        terminal.show_json(asdict(found))
        return 0
    terminal.say(
        f"{said}: position {found.position}, {_format_mib(found.size)} and {counted(found.files, 'file')}, "
        f"of {found.made}"
    )
    for name in found.damaged:
        terminal.say(f"warning: {name} is damaged: its content does not match the hash in its name")
    if args.action == "backup":
        terminal.say(
            f"{args.config} and the keys that it names are not in the backup: keep a copy of them too"
        )
    return 0


def _check_store(args: argparse.Namespace, config: Config) -> int:
    from hansa.store.sqlite_backup import check_file  # noqa: PLC0415  # only for who asks

    wrong: list[str] = []
    database = _sqlite_file(config)
    if database is not None:
        if not database.exists():
            raise LocalProtocolError(f"there is no {database}: `hansa run` creates it")
        wrong += [f"{database}: {text}" for text in check_file(database)]
    found, notes = None, list[str]()
    if not wrong:
        try:
            found = asyncio.run(_run_check(open_store(config.store.url, config.folder)))
            wrong += found.wrong
            notes += found.notes
        except HeldElsewhere:
            if database is None:
                raise
            notes.append("Hansa runs: only the file was checked. Stop Hansa to check the rows too")
    if args.json:
        rows, size = (found.rows, found.size) if found is not None else (None, None)
        terminal.show_json({"ok": not wrong, "wrong": wrong, "rows": rows, "bytes": size, "notes": notes})
        return 1 if wrong else 0
    for text in wrong:
        terminal.say(text)
    for note in notes:
        terminal.say(note)
    if not wrong:
        terminal.say(
            "good" if found is None else f"good: {counted(found.rows, 'row')}, {_format_mib(found.size)}"
        )
    return 1 if wrong else 0


async def _run_check(store: Store) -> Findings:
    from hansa.bus.integrity_check import check_rows  # noqa: PLC0415  # only for who asks

    told = _progress_printer()
    await store.open()
    try:
        return await check_rows(store, lambda done, of: told("rows read", done, of))
    finally:
        await store.close()


def _copy_between(args: argparse.Namespace) -> int:
    from hansa.store.store_copy import Copied, copy_store  # noqa: PLC0415  # only for who asks

    source, target = _open_both(_locate_store(args.source), _locate_store(args.target))
    told = _progress_printer()

    async def copied() -> Copied:
        await source.open()
        try:
            try:
                await target.open()
            except InUse as taken:
                if taken.own:
                    raise LocalProtocolError(_SAME) from taken
                raise
            try:
                return await copy_store(source, target, lambda done, of: told("rows copied", done, of))
            finally:
                await target.close()
        finally:
            await source.close()

    found = asyncio.run(copied())
    if args.json:
        terminal.show_json(asdict(found))
        return 0
    begun = "continued an interrupted copy, and " if found.resumed else ""
    terminal.say(
        f"{begun}copied {counted(found.rows, 'row')} of {counted(found.collections, 'collection')}, "
        f"each read back and compared; "
        f"position {found.position}"
    )
    terminal.say("the media folder and the configuration are not in a store: they stay where they are")
    return 0


def _locate_store(named: str) -> tuple[str, Path]:
    """The store that a URL or a configuration names, as its URL and the folder of a file. Raises
    LocalProtocolError.
    """
    if named.endswith(".toml"):
        if not Path(named).exists():
            raise LocalProtocolError(f"there is no configuration {named}")
        config = _load_config(Path(named))
        return config.store.url, config.folder
    try:
        check_url(named)
    except ConfigError as error:
        shown = "a URL" if "://" in named else named  # which may hold a password
        raise LocalProtocolError(
            f"{shown}: {error.reason}. A configuration (FILE.toml) is accepted too"
        ) from error
    return named, Path()


def _open_both(source: tuple[str, Path], target: tuple[str, Path]) -> tuple[Store, Store]:
    """Both sides of a copy, not opened yet. Raises LocalProtocolError where they are one, or where there is
    nothing to copy: an empty file would be made for a name that was mistyped.
    """
    if _store_place(*source) == _store_place(*target):
        raise LocalProtocolError(_SAME)
    place, other = _store_place(*source), _store_place(*target)
    if isinstance(place, Path) and isinstance(other, Path) and _is_one(place, other):
        raise LocalProtocolError(_SAME)
    if isinstance(place, Path) and not place.exists():
        raise LocalProtocolError(f"there is no {place} to copy from")
    return open_store(*source), open_store(*target)


def _is_one(file: Path, other: Path) -> bool:
    """True if two names are names of one file."""
    return file.exists() and other.exists() and file.samefile(other)


def _store_place(url: str, folder: Path) -> Path | tuple[str, str]:
    """Where a store is: SQLite's file, or the hosts and the name of a database."""
    kind, _, rest = url.partition(":")
    if kind == "sqlite":
        return (folder / rest).resolve()
    split = urlsplit(url)
    return split.netloc.rpartition("@")[2].lower(), split.path


def _load_config(path: Path) -> Config:
    from hansa.host import loader  # noqa: PLC0415  # only for who asks

    try:
        return load(path, loader.load_plugin)
    except ConfigErrors as mistakes:
        text = "; ".join(str(error) for error in mistakes.errors)
        raise LocalProtocolError(f"{path}: {text}") from mistakes


def _sqlite_file(config: Config) -> Path | None:
    kind, _, file = config.store.url.partition(":")
    return config.folder / file if kind == "sqlite" else None


def _format_mib(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB"


def _progress_printer() -> Callable[[str, int, int], None]:
    """Says now and then how far a thing is, where errors go, so that an answer stays an answer."""
    last = [time.monotonic()]

    def told(what: str, done: int, of: int) -> None:
        now = time.monotonic()
        if now - last[0] < _EVERY:
            return
        last[0] = now
        terminal.say(f"{what}: {done} of {of}" if done else f"{what} ...", error=True)

    return told
