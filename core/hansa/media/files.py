"""Files that the core keeps itself: stored in a stream, named by events, deleted with the last of them."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import orjson

from hansa.api.media import MediaStream, MediaUnavailable
from hansa.environment import Environment
from hansa.media.quotas import FileOwner, MediaLimits, MediaQuotas
from hansa.model.errors import LocalProtocolError
from hansa.model.events import Refusal, RefusalCode
from hansa.model.image_size import HEADER_BYTES, read_image_size
from hansa.model.media_types import sanitise_name
from hansa.store.base import Conflict, Delete, Insert, Remove, Row, ScopedStore, Value, Write
from hansa.store.blobs import Blob, BlobNotFound, BlobTooLarge, ScopedBlobs

_MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that the core keeps. ``stored`` is the time of its upload in ms; ``width`` and ``height`` are in
    pixels, 0 where it is not a picture.
    """

    id: str
    blob: Blob
    name: str
    media_type: str
    owner: FileOwner
    stored: int
    width: int = 0
    height: int = 0


class FileBeginning:
    """The first bytes of a stream, read ahead of the rest."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self.head = b""

    async def read_head(self) -> bytes:
        """The first ``HEADER_BYTES``, or all bytes if there are fewer."""
        parts: list[bytes] = []
        size = 0
        async for chunk in self._chunks:
            parts.append(chunk)
            size += len(chunk)
            if size >= HEADER_BYTES:
                break
        self.head = b"".join(parts)
        return self.head

    async def all_chunks(self) -> AsyncIterator[bytes]:
        """The whole stream, with the bytes that were read already."""
        head, self.head = self.head, b""
        yield head
        del head
        async for chunk in self._chunks:
            yield chunk


def not_found(text: str = "there is no such file") -> MediaUnavailable:
    """The refusal of a file that is not there."""
    return MediaUnavailable(Refusal(code=RefusalCode.NOT_FOUND, text=text))


class MediaFiles:
    """Files by their id. The bytes are kept once, however many files have them."""

    def __init__(
        self, store: ScopedStore, blobs: ScopedBlobs, seams: Environment, limits: MediaLimits
    ) -> None:
        self._store = store
        self.blobs = blobs
        self._seams = seams
        self.limits = limits
        self.quotas = MediaQuotas(store, blobs, limits)
        self._one = asyncio.Lock()

    def new_id(self) -> str:
        """An id for a file to come, which cannot be guessed."""
        return urlsafe_b64encode(self._seams.random.bytes(18)).decode()

    async def add_file(
        self, id_: str, begun: FileBeginning, *, name: str, media_type: str, owner: FileOwner, size: int = 0
    ) -> StoredFile:
        """Stores a stream as the file ``id_``: durable on return, and nothing is left where it fails.
        ``media_type`` was found from its first bytes; ``size`` is 0 where it is not known. Raises
        ``MediaUnavailable``, OSError.
        """
        width, height = read_image_size(begun.head) if media_type.startswith("image/") else (0, 0)
        async with self.quotas.reserve_space(owner, size) as most:
            try:
                blob = await self.blobs.put(begun.all_chunks(), most)
            except BlobTooLarge as error:
                text = f"the file is over the {most} bytes that it may have"
                raise MediaUnavailable(Refusal(code=RefusalCode.TOO_LARGE, text=text)) from error
            file = StoredFile(
                id=id_,
                blob=blob,
                name=sanitise_name(name),
                media_type=media_type,
                owner=owner,
                stored=self._seams.clock.now(),
                width=width,
                height=height,
            )
            async with self._one:
                try:
                    await self._commit_file(file)
                except BaseException:
                    await self._release_blob(blob.digest)
                    raise
        return file

    async def _commit_file(self, file: StoredFile) -> None:
        key = (file.blob.digest,)
        for _ in range(_MAX_ATTEMPTS):
            await self._require_blob(file)
            # A removal of the same bytes under way makes this conflict.
            writes: list[Write] = [Insert("removal", key), Remove("removal", key), _file_insert(file)]
            writes += await self.quotas.usage_writes(file.owner, file.blob.size, 1)
            try:
                await self._store.commit(writes)
            except Conflict:
                continue
            return
        raise OSError("files are changed by too many at once: try again")

    async def _require_blob(self, file: StoredFile) -> None:
        try:
            await self.blobs.size(file.blob.digest)
        except BlobNotFound as error:
            raise OSError("the same bytes were removed at this moment: try again") from error

    async def find_file(self, id_: str) -> StoredFile | None:
        """The file with an id, None if there is none."""
        row = await self._store.get("file", (id_,))
        return _file_from_row(row) if row is not None else None

    async def open_file(self, id_: str, first: int = 0, last: int | None = None) -> MediaStream:
        """Opens a file. Raises ``MediaUnavailable``."""
        file = await self.find_file(id_)
        if file is None:
            raise not_found()
        try:
            await self.blobs.size(file.blob.digest)
        except BlobNotFound:
            raise not_found("the bytes of the file are lost") from None
        return MediaStream(
            media_type=file.media_type,
            name=file.name,
            size=file.blob.size,
            first=first,
            chunks=self._read_part(file.blob, first, last),
        )

    async def _read_part(self, blob: Blob, first: int, last: int | None) -> AsyncGenerator[bytes]:
        left = (blob.size if last is None else min(blob.size, last + 1)) - first
        if left <= 0:
            return
        async with aclosing(self.blobs.read(blob.digest, first)) as chunks:
            async for chunk in chunks:
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    break

    async def remove_file(self, id_: str) -> bool:
        """Deletes a file that no event names; True if it was deleted. An event that comes to name it at this
        moment names a file that is gone.
        """
        async with self._one:
            for _ in range(_MAX_ATTEMPTS):
                row = await self._store.get("file", (id_,))
                if row is None or await self._store.count("reference", equal={"file": id_}):
                    return False
                file = _file_from_row(row)
                writes: list[Write] = [Remove("file", row.key, row.body)]
                writes += await self.quotas.usage_writes(file.owner, -file.blob.size, -1)
                try:
                    await self._store.commit(writes)
                except Conflict:
                    continue
                await self._release_blob(file.blob.digest)
                return True
        return False

    async def _release_blob(self, digest: str) -> bool:
        """Removes bytes that no file has; True if they were removed. A row says meanwhile that they go."""
        if await self._store.count("file", equal={"digest": digest}):
            return False
        try:
            begun: dict[str, Value] = {"begun": self._seams.clock.now()}
            await self._store.commit([Insert("removal", (digest,), b"", begun)])
        except Conflict:
            return False
        return await self._finish_removal(digest)

    async def _finish_removal(self, digest: str) -> bool:
        unused = not await self._store.count("file", equal={"digest": digest})
        if unused:
            await self.blobs.remove(digest)
        await self._store.commit([Delete("removal", (digest,))])
        return unused

    async def remove_orphan_bytes(self, part: int, before: int) -> int:
        """Removes bytes stored before a time (ms) that no file has, as a crash leaves them: those whose
        digest begins with the byte ``part``, and those whose removal had begun. Returns how many.
        """
        if not 0 <= part < 256:
            raise LocalProtocolError("a part of the folder is a number below 256")
        removed = 0
        for row in await self._store.scan("removal", index=("begun",), upto=before, limit=500):
            async with self._one:
                removed += await self._finish_removal(str(row.key[0]))
        for digest in await self.blobs.old(f"{part:02x}", before):
            async with self._one:
                removed += await self._release_blob(digest)
        return removed


def _file_insert(file: StoredFile) -> Insert:
    fields: dict[str, Value] = {"digest": file.blob.digest, "stored": file.stored}
    body = {
        "name": file.name,
        "type": file.media_type,
        "size": file.blob.size,
        "owner": [file.owner.sender, file.owner.server],
        "pixels": [file.width, file.height],
    }
    return Insert("file", (file.id,), orjson.dumps(body), fields)


def _file_from_row(row: Row) -> StoredFile:
    body = orjson.loads(row.body)
    width, height = body["pixels"]
    return StoredFile(
        id=str(row.key[0]),
        blob=Blob(str(row.fields["digest"]), body["size"]),
        name=body["name"],
        media_type=body["type"],
        owner=FileOwner(*body["owner"]),
        stored=int(row.fields["stored"] or 0),
        width=width,
        height=height,
    )
