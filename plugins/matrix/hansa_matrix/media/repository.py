"""The files of this server, which stay, and copies of other servers' files, which stay while users look at
them.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass

import orjson
from hansa import (
    Blob,
    BlobNotFound,
    BlobTooLarge,
    Busy,
    CompareAndSwap,
    Conflict,
    Delete,
    Insert,
    NetworkContext,
    Remove,
    Row,
    Value,
    Write,
    pages,
    scan_all,
)
from hansa.model.media_types import parse_media_type, sanitise_name

from hansa_matrix.conversion.native_ids import FOREIGN_PREFIX
from hansa_matrix.media.foreign_files import ForeignFiles
from hansa_matrix.media.quotas import COPIES, OverQuota, Quotas
from hansa_matrix.proto.media import MxcUri, charset_of

_PAGE_SIZE = 500
#: A remote file's last use is noted once in so many ms.
_LAST_USED_STEP_MS = 3_600_000
#: Addresses that wait for their file, of one person and of all.
MAX_PENDING_OF_USER, MAX_PENDING = 100, 50_000
_FILLED, _REMOVING = b"filled", "media_going"
#: How long bytes stay that no address has (ms), and parts of the folder (of 256) that an hour looks through.
ORPHAN_TTL_MS, _FOLDERS_PER_SWEEP = 3_600_000, 11
_MAX_ATTEMPTS = 5


class NotReserved(Exception):
    """An address waits for no file of this person."""


class HasFile(NotReserved):
    """An address has its file already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaItem:
    """A file that is here. ``last_used`` is when it was asked for last (ms), ``owner`` who gave it: a person
    here, empty for an operator, another server for a copy.
    """

    mxc: MxcUri
    blob: Blob
    type: str
    name: str
    last_used: int
    owner: str = ""
    #: Of a text, if the uploader named it.
    charset: str = ""


class MediaRepository:
    """Files by their address; the bytes are in ``ctx.blobs``, once however many addresses they have."""

    def __init__(self, ctx: NetworkContext, server: str) -> None:
        self._ctx = ctx
        self.server = server
        self._server = server
        self.quotas = Quotas(ctx, self._evict_copies)
        self.foreign = ForeignFiles(ctx, server)
        self._part = -1
        self._one = asyncio.Lock()

    async def add_file(
        self,
        chunks: AsyncIterator[bytes],
        content_type: str,
        name: str,
        *,
        mxc: MxcUri | None = None,
        reserved: bool = False,
        owner: str = "",
        size: int | None = None,
    ) -> MediaItem:
        """Keep a file, of this server if no other address is given, of ``owner``, a person here.

        ``is_pending``: the address was given out before. ``size`` in bytes where it is known before. Raises
        ``BlobTooLarge``, ``OverQuota``, ``DiskFull``, OSError; ``NotReserved`` for an address that was not
        given out to the owner, ``HasFile`` for one that has one.
        """
        mxc = mxc or self.new_address()
        owner = owner if mxc.server == self._server else mxc.server
        most = self._ctx.config.max_upload_size
        if size is not None and size > most:
            raise BlobTooLarge(f"over {most} bytes")
        if reserved:
            await self._pending_row(mxc, owner)
        async with self.quotas.reserve_space(owner, most, size) as place:
            try:
                blob = await self._ctx.blobs.put(
                    place.count_chunks(chunks, self.quotas.require_disk_space), place.size
                )
            except BlobTooLarge:
                if place.size < min(most, size or most):
                    raise OverQuota("the files of this person take as much as they may") from None
                raise
        kind, name = parse_media_type(content_type), sanitise_name(name)
        item = MediaItem(
            mxc=mxc,
            blob=blob,
            type=kind,
            name=name,
            last_used=self._ctx.clock.now(),
            owner=owner,
            charset=charset_of(content_type),
        )
        async with self._one:
            try:
                return await self._commit_file(item, reserved=reserved)
            except (NotReserved, OverQuota):
                await self._release_blob(blob.digest)
                raise

    async def _commit_file(self, item: MediaItem, *, reserved: bool) -> MediaItem:
        """Make a stored blob a file, if it still may be one; copies that are in its way go."""
        for _ in range(_MAX_ATTEMPTS):
            await self._require_blob(item)
            copy = item.mxc.server != self._server
            if copy:
                await self._make_room(item)
            # Of who gives bytes an address and who removes them as nobody's one is first.
            going = (item.blob.digest,)
            writes: list[Write] = [
                Insert(_REMOVING, going),
                Remove(_REMOVING, going),
                _media_write(item, self._server),
            ]
            owners = (item.owner, COPIES) if copy else (item.owner,)
            for one in owners:
                writes += await self.quotas.usage_writes(one, item.blob.size, 1)
            if item.owner.startswith("@"):
                await self.quotas.require_within(item.owner, item.blob.size)
            if reserved:
                row = await self._pending_row(item.mxc, item.owner)
                writes.append(CompareAndSwap("media_reserved", row.key, row.body, _FILLED, row.fields))
            try:
                await self._ctx.store.commit(writes)
            except Conflict as conflict:
                if conflict.collection != "media":
                    continue
                if copy and (known := await self._find_item(item.mxc)) is not None:
                    await self._release_blob(item.blob.digest)
                    return known
                raise HasFile("that address has a file already") from None
            try:
                await self._require_blob(item)
            except OSError:
                await self._remove_rows([item.mxc])
                raise
            return item
        raise OSError("files are being changed by too many at once: try again")

    async def _require_blob(self, item: MediaItem) -> None:
        """Raises OSError where the bytes were removed since they came."""
        try:
            await self._ctx.blobs.size(item.blob.digest)
        except BlobNotFound as error:
            raise OSError("the same file was removed at this moment: try again") from error

    async def _pending_row(self, mxc: MxcUri, owner: str) -> Row:
        """Returns the row of an address that is reserved for a user's file. Raises ``NotReserved``,
        ``HasFile``.
        """
        row = await self._ctx.store.get("media_reserved", (mxc.media_id,))
        if row is None or row.fields["owner"] != owner:
            raise NotReserved("that address was not given out to you")
        if row.body == _FILLED:
            raise HasFile("that address has a file already")
        if int(row.fields["until"] or 0) <= self._ctx.clock.now():
            raise NotReserved("that address waited too long for its file")
        return row

    def new_address(self) -> MxcUri:
        """A new one of this server."""
        return MxcUri(self._server, urlsafe_b64encode(self._ctx.random.bytes(18)).decode())

    async def create_pending(self, owner: str, until: int) -> MxcUri:
        """An address of this server for a file that a person gives before a time (ms). Raises ``Busy`` where
        too many wait for theirs.
        """
        mxc = self.new_address()
        async with self._one:
            now = self._ctx.clock.now()
            index = ("owner", "until")
            mine = await self._ctx.store.scan(
                "media_reserved", index=index, equal=(owner,), after=now, limit=MAX_PENDING_OF_USER * 2
            )
            waiting = [row for row in mine if row.body != _FILLED]
            in_all = await self._ctx.store.count("media_reserved")
            self._ctx.set_gauge("matrix_media_reserved", in_all)
            if len(waiting) >= MAX_PENDING_OF_USER or len(mine) >= MAX_PENDING_OF_USER * 2:
                raise Busy(f"{len(waiting)} of your reserved addresses wait for their file", after=60.0)
            if in_all >= MAX_PENDING:
                raise Busy("too many addresses wait for their file", after=600.0)
            fields: dict[str, Value] = {"until": until, "owner": owner}
            await self._ctx.store.commit([Insert("media_reserved", (mxc.media_id,), b"", fields)])
        return mxc

    async def is_pending(self, mxc: MxcUri) -> bool:
        """True if an address is reserved for a file that has not arrived yet."""
        row = await self._ctx.store.get("media_reserved", (mxc.media_id,))
        return (
            row is not None and row.body != _FILLED and int(row.fields["until"] or 0) > self._ctx.clock.now()
        )

    async def get(self, mxc: MxcUri) -> MediaItem | None:
        """A file if it is here. A row whose bytes a disk has lost is none, and that of a copy goes: it can be
        fetched again.
        """
        found = await self._find_item(mxc)
        if found is None:
            return None
        source = self.foreign.find_source(mxc)
        if source is not None and await self.foreign.is_gone(source):
            await self.remove_file(mxc)
            return None
        try:
            await self._ctx.blobs.size(found.blob.digest)
        except BlobNotFound:
            self._ctx.count("matrix_media_lost")
            if mxc.server != self._server or source is not None:
                await self.remove_file(mxc)
            return None
        return found

    async def _find_item(self, mxc: MxcUri) -> MediaItem | None:
        row = await self._ctx.store.get("media", (mxc.server, mxc.media_id))
        if row is None:
            return None
        now = self._ctx.clock.now()
        if now - int(row.fields["used"] or 0) > _LAST_USED_STEP_MS:
            noted = CompareAndSwap("media", row.key, row.body, row.body, {**row.fields, "used": now})
            try:
                await self._ctx.store.commit([noted], durability="lazy")
            except Conflict:  # it is gone, or noted already
                row = await self._ctx.store.get("media", row.key)
        return _item_from_row(row) if row is not None else None

    def read_chunks(self, item: MediaItem, start: int = 0) -> AsyncGenerator[bytes]:
        """Its bytes from the one at ``start`` on. Raises ``BlobNotFound``."""
        return self._ctx.blobs.read(item.blob.digest, start)

    async def list_files(self, server: str = "") -> list[MediaItem]:
        """Those here, of one server or of all."""
        rows = scan_all(self._ctx.store, "media", equal=(server,) if server else ())
        return [_item_from_row(row) async for row in rows]

    async def remove_file(self, mxc: MxcUri) -> bool:
        """Removes a file; True if it was here. The bytes are removed with the last address that refers to
        them.
        """
        async with self._one:
            return await self._remove_rows([mxc]) > 0

    async def _remove_rows(self, addresses: Sequence[MxcUri]) -> int:
        """How many of some files were here."""
        removed = 0
        for mxc in addresses:
            for _ in range(_MAX_ATTEMPTS):
                row = await self._ctx.store.get("media", (mxc.server, mxc.media_id))
                if row is None:
                    break
                item = _item_from_row(row)
                owners = (item.owner, COPIES) if mxc.server != self._server else (item.owner,)
                writes: list[Write] = [Remove("media", row.key, row.body)]
                for owner in owners:
                    writes += await self.quotas.usage_writes(owner, -item.blob.size, -1)
                try:
                    await self._ctx.store.commit(writes)
                except Conflict:
                    continue
                removed += 1
                await self._release_blob(item.blob.digest)
                break
        return removed

    async def _release_blob(self, digest: str) -> bool:
        """Bytes that no address has are removed; whether they were. Nobody begins to refer to them between
        the last look at who does and their removal: a row says that they are going.
        """
        if await self._ctx.store.count("media", equal={"digest": digest}):
            return False
        try:
            await self._ctx.store.commit([Insert(_REMOVING, (digest,), b"", {"at": self._ctx.clock.now()})])
        except Conflict:  # another removes them
            return False
        return await self._finish_removal(digest)

    async def _finish_removal(self, digest: str) -> bool:
        """Finishes the removal once the row is gone; True if the bytes were removed."""
        nobodys = not await self._ctx.store.count("media", equal={"digest": digest})
        if nobodys:
            await self._ctx.blobs.remove(digest)
        await self._ctx.store.commit([Delete(_REMOVING, (digest,))])
        return nobodys

    async def _make_room(self, item: MediaItem) -> None:
        """Copies that a new one is one too many with go, those unused for longest first. Raises ``OverQuota``
        for a file that is larger than all may be together.
        """
        for owner, server in ((item.owner, item.owner), (COPIES, "")):
            size, files = self.quotas.limits_of(owner)
            if item.blob.size > size > 0:
                raise OverQuota(f"the file has more than the {size} bytes that copies may take")
            used, _ = await self.quotas.usage_of(owner)
            over = used.size + item.blob.size - size if size else 0
            many = used.files + 1 - files if files else 0
            if over > 0 or many > 0:
                await self._remove_rows(await self._unused_copies(server, over, many))

    async def _evict_copies(self, size: int) -> bool:
        """Let go of copies of so many bytes, those unused for longest first; whether any was there."""
        async with self._one:
            return await self._remove_rows(await self._unused_copies("", size, 0)) > 0

    async def _unused_copies(self, server: str, size: int, files: int) -> list[MxcUri]:
        """Copies, of one server or of any, of so many bytes and files, those unused for longest first."""
        index, equal = (("server", "used"), (server,)) if server else (("remote", "used"), (1,))
        rows = await self._ctx.store.scan("media", index=index, equal=equal, limit=_PAGE_SIZE)
        gone: list[MxcUri] = []
        for row in rows:
            if (size <= 0 and files <= 0) or row.key[0] == self._server:
                break
            item = _item_from_row(row)
            gone.append(item.mxc)
            size, files = size - item.blob.size, files - 1
        self._ctx.count("matrix_media_evicted")
        return gone

    async def sweep(self) -> None:
        """Let go of files of other servers that nobody asked for in a while: they can be fetched again."""
        until = self._ctx.clock.now() - self._ctx.config.remote_media_ttl * 1000
        async for rows in pages(self._ctx.store, "media", index=("used",), upto=until, size=_PAGE_SIZE):
            for row in rows:
                mxc = MxcUri(str(row.key[0]), str(row.key[1]))
                if mxc.server != self._server or self.foreign.find_source(mxc) is not None:
                    await self.remove_file(mxc)
        await self._remove_gone_copies()
        await self.quotas.purge_empty()
        await self._remove_orphans()

    async def _remove_gone_copies(self) -> None:
        """Removes the copies of other networks' files that were deleted there."""
        last = f"{FOREIGN_PREFIX}\x7f"
        async for rows in pages(
            self._ctx.store, "media", equal=(self._server,), after=FOREIGN_PREFIX, upto=last, size=_PAGE_SIZE
        ):
            for row in rows:
                mxc = MxcUri(self._server, str(row.key[1]))
                source = self.foreign.find_source(mxc)
                if source is not None and await self.foreign.is_gone(source):
                    await self.remove_file(mxc)

    async def _remove_orphans(self) -> None:
        """Remove bytes that no address has, as a crash between the two leaves them: a part of the folder at a
        time, all of it within a day.
        """
        before = self._ctx.clock.now() - ORPHAN_TTL_MS
        async for rows in pages(self._ctx.store, _REMOVING, index=("at",), upto=before, size=_PAGE_SIZE):
            for row in rows:  # a crash kept them from going
                async with self._one:
                    await self._finish_removal(str(row.key[0]))
        for _ in range(_FOLDERS_PER_SWEEP):
            self._part = (self._part + 1) % 256
            for digest in await self._ctx.blobs.old(f"{self._part:02x}", before):
                async with self._one:
                    if await self._release_blob(digest):
                        self._ctx.count("matrix_media_orphans")


def _media_write(item: MediaItem, server: str) -> Insert:
    fields: dict[str, Value] = {
        "digest": item.blob.digest,
        "used": item.last_used,
        "remote": int(item.mxc.server != server),
    }
    kept = {"size": item.blob.size, "type": item.type, "name": item.name, "owner": item.owner}
    if item.charset:
        kept["charset"] = item.charset
    return Insert("media", (item.mxc.server, item.mxc.media_id), orjson.dumps(kept), fields)


def _item_from_row(row: Row) -> MediaItem:
    kept = orjson.loads(row.body)
    return MediaItem(
        mxc=MxcUri(str(row.key[0]), str(row.key[1])),
        blob=Blob(str(row.fields["digest"]), kept["size"]),
        type=kept["type"],
        name=kept["name"],
        last_used=int(row.fields["used"] or 0),
        owner=kept.get("owner", ""),
        charset=kept.get("charset", ""),
    )
