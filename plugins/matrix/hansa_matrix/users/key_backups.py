"""Backups of the keys to encrypted rooms, which this server cannot read. SPEC: client-server API,
"Server-side key backups".

A row counts what is in a backup, in the same commit as what it counts. Numbers of backups are never given
again: the row of the last one stays until there is another, also where it was deleted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from hansa import (
    CompareAndSwap,
    Conflict,
    Delete,
    Insert,
    NetworkContext,
    Put,
    RemoteProtocolError,
    Row,
    Write,
)

from hansa_matrix.bounds.key_locks import KeyLocks
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto.key_backup import is_better_key

#: Backups of one person, and bytes of all keys in them: each takes some beside its own.
MAX_BACKUPS, MAX_BACKUP_BYTES, _ROW_OVERHEAD = 10, 64 * 1024 * 1024, 300
_PAGE_SIZE = 500
_MAX_ATTEMPTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """One backup. ``etag`` is another after each change of its keys, ``size`` the bytes of them."""

    version: int
    algorithm: str = ""
    auth_data: Mapping[str, Any] = field(default_factory=dict)
    etag: int = 0
    count: int = 0
    size: int = 0
    deleted: bool = False

    def encode_body(self) -> bytes:
        """As it is kept."""
        names = ("algorithm", "auth_data", "etag", "count", "size", "deleted")
        return orjson.dumps({name: getattr(self, name) for name in names})


class KeyBackups:
    """Of all people with an account."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx
        self._locks = KeyLocks()

    async def get_all(self, user: str) -> list[Backup]:
        """Returns all backups of a user, the newest first, deleted ones too."""
        rows = await self._ctx.store.scan("key_backup", equal=(user,), limit=2 * MAX_BACKUPS, reverse=True)
        return [_backup_from_row(row) for row in rows]

    async def get_latest(self, user: str) -> Backup | None:
        """The newest one that is not deleted."""
        return next((one for one in await self.get_all(user) if not one.deleted), None)

    async def get(self, user: str, version: int) -> Backup:
        """One backup. Raises the error answer of one that is not there."""
        row = await self._ctx.store.get("key_backup", (user, version))
        found = _backup_from_row(row) if row is not None else None
        if found is None or found.deleted:
            raise matrix_error(404, "M_NOT_FOUND", "there is no such backup")
        return found

    async def create_version(self, user: str, algorithm: str, auth_data: Mapping[str, Any]) -> int:
        """A new backup, to which keys are added from now on. Raises the error answer of who has too many."""
        async with self._locks.hold_key(user):
            for _ in range(_MAX_ATTEMPTS):
                known = await self.get_all(user)
                gone = [one for one in known if one.deleted]
                if len(known) - len(gone) >= MAX_BACKUPS:
                    raise matrix_error(
                        400, "M_TOO_LARGE", f"there are {MAX_BACKUPS} backups: delete one first"
                    )
                for one in gone:
                    await self._remove_all_keys(user, one.version)
                made = Backup(version=max((o.version for o in known), default=0) + 1, algorithm=algorithm)
                made = replace(made, auth_data=auth_data)
                writes: list[Write] = [Delete("key_backup", (user, one.version)) for one in gone]
                writes.append(Insert("key_backup", (user, made.version), made.encode_body()))
                try:
                    await self._ctx.store.commit(writes)
                except Conflict:  # another process
                    continue
                return made.version
        raise Conflict("key_backup", (user,))

    async def update_version(self, user: str, version: int, change: Callable[[Backup], Backup]) -> None:
        """Make a backup otherwise, whatever becomes of it at the same time. Raises what ``update_version``
        raises, and the error answer of one that is not there.
        """
        async with self._locks.hold_key(user):
            for _ in range(_MAX_ATTEMPTS):
                known = await self.get(user, version)
                try:
                    await self._ctx.store.commit([_backup_write(user, known, change(known))])
                except Conflict:
                    continue
                return
        raise Conflict("key_backup", (user, version))

    async def delete_version(self, user: str, version: int) -> None:
        """A backup with all its keys. Raises the error answer of one that is not there."""
        await self.update_version(user, version, lambda one: Backup(version=one.version, deleted=True))
        await self._remove_all_keys(user, version)

    async def purge_user(self, user: str) -> None:
        """Removes everything of a user who closes their account."""
        for one in await self.get_all(user):
            if not one.deleted:
                with suppress(RemoteProtocolError):  # it was deleted at this moment
                    await self.delete_version(user, one.version)

    async def _remove_all_keys(self, user: str, version: int) -> None:
        while rows := await self._ctx.store.scan("key_backup_key", equal=(user, version), limit=_PAGE_SIZE):
            await self._ctx.store.commit([Delete("key_backup_key", row.key) for row in rows])

    async def add_keys(
        self, user: str, version: int, keys: Mapping[tuple[str, str], Mapping[str, Any]]
    ) -> Backup:
        """Add keys by room and session; of two of one session the better stays. Raises the error answer of a
        backup that is not there, or not the newest, and of too much.
        """
        async with self._locks.hold_key(user):
            for _ in range(_MAX_ATTEMPTS):
                backup = await self.get(user, version)
                newest = await self.get_latest(user)
                if newest is not None and newest.version != version:
                    why, more = "there is a newer backup", {"current_version": str(newest.version)}
                    raise matrix_error(403, "M_WRONG_ROOM_KEYS_VERSION", why, **more)
                try:
                    return await self._try_add_keys(user, backup, keys)
                except Conflict:
                    continue
        raise Conflict("key_backup", (user, version))

    async def _try_add_keys(
        self, user: str, backup: Backup, keys: Mapping[tuple[str, str], Mapping[str, Any]]
    ) -> Backup:
        named = {(user, backup.version, *name): data for name, data in keys.items()}
        writes: list[Put] = []
        counted: list[tuple[int, int]] = []
        every = list(named)
        for at in range(0, len(every), _PAGE_SIZE):  # what is there may be much larger than what is said
            known = await self._ctx.store.get_many("key_backup_key", every[at : at + _PAGE_SIZE])
            for key in every[at : at + _PAGE_SIZE]:
                data, before = named[key], known.get(key)
                if before is not None and not is_better_key(data, orjson.loads(before.body)):
                    continue
                body = orjson.dumps(data)
                writes.append(Put("key_backup_key", key, body))
                more = len(body) - len(before.body) if before is not None else len(body) + _ROW_OVERHEAD
                counted.append((int(before is None), more))
        if not writes:
            return backup
        others = sum(one.size for one in await self.get_all(user) if one.version != backup.version)
        size = backup.size + sum(more for _, more in counted)
        if size > backup.size and size + others > MAX_BACKUP_BYTES:
            raise matrix_error(413, "M_TOO_LARGE", f"backups have at most {MAX_BACKUP_BYTES} bytes")
        for at in range(0, len(writes), _PAGE_SIZE):  # a client that was cut off says all of them again
            part = counted[at : at + _PAGE_SIZE]
            after = replace(
                backup,
                etag=backup.etag + 1,
                count=backup.count + sum(new for new, _ in part),
                size=backup.size + sum(more for _, more in part),
            )
            await self._ctx.store.commit([*writes[at : at + _PAGE_SIZE], _backup_write(user, backup, after)])
            backup = after
        return backup

    async def read_keys(
        self, user: str, version: int, place: Sequence[str] = ()
    ) -> AsyncGenerator[tuple[str, str, bytes]]:
        """The keys of a backup, of a room, or of one session in it: ``(room, session, JSON)``."""
        after: str | None = None
        if len(place) == 2:  # a room and a session
            row = await self._ctx.store.get("key_backup_key", (user, version, *place))
            if row is not None:
                yield place[0], place[1], row.body
            return
        rooms = list(place) or [""]
        while rooms:
            room = rooms.pop(0)
            if not place:  # the next room
                rows = await self._ctx.store.scan(
                    "key_backup_key", equal=(user, version), after=room, limit=1
                )
                if not rows:
                    return
                room = str(rows[0].key[2])
                rooms.append(room)
            after = None
            while True:
                rows = await self._ctx.store.scan(
                    "key_backup_key", equal=(user, version, room), after=after, limit=_PAGE_SIZE
                )
                for row in rows:
                    yield room, str(row.key[3]), row.body
                if len(rows) < _PAGE_SIZE:
                    break
                after = str(rows[-1].key[3])

    async def remove_keys(self, user: str, version: int, place: Sequence[str] = ()) -> Backup:
        """Remove the keys of a backup, of a room, or of one session in it."""
        async with self._locks.hold_key(user):
            for _ in range(_MAX_ATTEMPTS):
                backup = await self.get(user, version)
                try:
                    return await self._try_remove_keys(user, backup, place)
                except Conflict:
                    continue
        raise Conflict("key_backup", (user, version))

    async def _try_remove_keys(self, user: str, backup: Backup, place: Sequence[str]) -> Backup:
        while True:
            rows = await self._ctx.store.scan(
                "key_backup_key", equal=(user, backup.version, *place), limit=_PAGE_SIZE
            )
            if not rows:
                return backup
            size = backup.size - sum(len(row.body) + _ROW_OVERHEAD for row in rows)
            after = replace(backup, etag=backup.etag + 1, count=backup.count - len(rows), size=max(0, size))
            gone: list[Write] = [Delete("key_backup_key", row.key) for row in rows]
            await self._ctx.store.commit([*gone, _backup_write(user, backup, after)])
            backup = after


def _backup_from_row(row: Row) -> Backup:
    return Backup(version=int(str(row.key[1])), **orjson.loads(row.body))


def _backup_write(user: str, before: Backup, after: Backup) -> CompareAndSwap:
    return CompareAndSwap("key_backup", (user, before.version), before.encode_body(), after.encode_body())
