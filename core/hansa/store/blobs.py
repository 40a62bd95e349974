"""Files that people send each other: kept by what is in them, streamed in and out, never whole in memory.

A blob is named by the SHA-256 of its bytes, so that the same file is kept once per scope. The plugin that
stores it knows its references, and until when it is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from hansa.model.errors import HansaError

CHUNK = 64 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class BlobTooLarge(HansaError):
    """A file is over what it may have; nothing of it was kept."""


class BlobNotFound(HansaError):
    """There is no such file, or not any more."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A file that is kept: its SHA-256 in hex and its size in bytes."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Space:
    """The disk that files are kept on: bytes that may still be written, and bytes in all."""

    free: int
    total: int


class Blobs(Protocol):
    """Where the files of all plugins are. ``scope`` is the first argument everywhere; ``ScopedBlobs`` binds
    it.
    """

    async def put(self, scope: str, chunks: AsyncIterator[bytes], most: int) -> Blob:
        """Keep a file of at most ``most`` bytes: durable on return, and nothing is left if ``chunks`` raises.
        Raises ``BlobTooLarge``, OSError.
        """
        ...

    async def size(self, scope: str, digest: str) -> int:
        """Its size. Raises ``BlobNotFound``."""
        ...

    def read(self, scope: str, digest: str, start: int = 0) -> AsyncGenerator[bytes]:
        """Its bytes from the one at ``start`` on, in chunks. Raises ``BlobNotFound`` before the first."""
        ...

    async def remove(self, scope: str, digest: str) -> None:
        """Forget it; nothing happens if it is not there."""
        ...

    async def space(self) -> Space:
        """Returns the free space of the disk. Raises OSError."""
        ...

    async def old(self, scope: str, begins: str, before: int) -> list[str]:
        """The digests that begin with two hexadecimal digits, of files put before a time (ms)."""
        ...


class ScopedBlobs:
    """The files of one plugin: ``ctx.blobs``."""

    def __init__(self, blobs: Blobs, scope: str) -> None:
        self._blobs = blobs
        self._scope = scope

    async def put(self, chunks: AsyncIterator[bytes], most: int) -> Blob:
        """See ``Blobs.put``."""
        return await self._blobs.put(self._scope, chunks, most)

    async def size(self, digest: str) -> int:
        """See ``Blobs.size``."""
        return await self._blobs.size(self._scope, digest)

    def read(self, digest: str, start: int = 0) -> AsyncGenerator[bytes]:
        """See ``Blobs.read``."""
        return self._blobs.read(self._scope, digest, start)

    async def remove(self, digest: str) -> None:
        """See ``Blobs.remove``."""
        await self._blobs.remove(self._scope, digest)

    async def space(self) -> Space:
        """See ``Blobs.space``."""
        return await self._blobs.space()

    async def old(self, begins: str, before: int) -> list[str]:
        """See ``Blobs.old``."""
        return await self._blobs.old(self._scope, begins, before)


class MemoryBlobs:
    """For tests. ``disk`` is the size of a disk that these files alone are on."""

    def __init__(self, disk: int = 1 << 40) -> None:
        self.stored: dict[tuple[str, str], bytes] = {}
        self.disk = disk

    async def put(self, scope: str, chunks: AsyncIterator[bytes], most: int) -> Blob:
        """See ``Blobs.put``."""
        whole = bytearray()
        async for chunk in chunks:
            whole += chunk
            if len(whole) > most:
                raise BlobTooLarge(f"over {most} bytes")
        digest = hashlib.sha256(whole).hexdigest()
        self.stored[scope, digest] = bytes(whole)
        return Blob(digest, len(whole))

    async def size(self, scope: str, digest: str) -> int:
        """See ``Blobs.size``."""
        return len(self._get_bytes(scope, digest))

    def _get_bytes(self, scope: str, digest: str) -> bytes:
        found = self.stored.get((scope, digest))
        if found is None:
            raise BlobNotFound("there is no such file")
        return found

    async def read(self, scope: str, digest: str, start: int = 0) -> AsyncGenerator[bytes]:
        """See ``Blobs.read``."""
        whole = self._get_bytes(scope, digest)
        for at in range(start, len(whole), CHUNK):
            yield whole[at : at + CHUNK]

    async def remove(self, scope: str, digest: str) -> None:
        """See ``Blobs.remove``."""
        self.stored.pop((scope, digest), None)

    async def space(self) -> Space:
        """See ``Blobs.space``."""
        return Space(self.disk - sum(map(len, self.stored.values())), self.disk)

    async def old(self, scope: str, begins: str, before: int) -> list[str]:
        """See ``Blobs.old``: when a file was put is not known here."""
        del scope, begins, before
        return []


class FileBlobs:
    """Files in a folder that only its owner may read: ``FOLDER/SCOPE/ab/ab12...``. The disk is used in
    threads, so that a slow one holds nobody.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _blob_path(self, scope: str, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise BlobNotFound("that names no file")
        return self._folder / (scope or "core") / digest[:2] / digest

    async def put(self, scope: str, chunks: AsyncIterator[bytes], most: int) -> Blob:
        """See ``Blobs.put``."""
        file, name = await asyncio.to_thread(self._begin_file, scope)
        hashing, size = hashlib.sha256(), 0
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > most:
                    raise BlobTooLarge(f"over {most} bytes")
                hashing.update(chunk)
                await asyncio.to_thread(file.write, chunk)
            digest = hashing.hexdigest()
            await asyncio.to_thread(self._finish_file, file, name, self._blob_path(scope, digest))
        except BaseException:
            file.close()
            name.unlink(missing_ok=True)
            raise
        return Blob(digest, size)

    def _begin_file(self, scope: str) -> tuple[BinaryIO, Path]:
        incoming = self._folder / (scope or "core") / "incoming"
        incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=incoming)
        return os.fdopen(handle, "wb"), Path(name)

    @staticmethod
    def _finish_file(file: BinaryIO, name: Path, path: Path) -> None:
        file.flush()
        os.fsync(file.fileno())
        file.close()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        name.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    async def size(self, scope: str, digest: str) -> int:
        """See ``Blobs.size``."""
        path = self._blob_path(scope, digest)
        try:
            return (await asyncio.to_thread(path.stat)).st_size
        except FileNotFoundError:
            raise BlobNotFound("there is no such file") from None

    async def read(self, scope: str, digest: str, start: int = 0) -> AsyncGenerator[bytes]:
        """See ``Blobs.read``."""
        path = self._blob_path(scope, digest)
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except FileNotFoundError:
            raise BlobNotFound("there is no such file") from None
        try:
            if start:
                await asyncio.to_thread(file.seek, start)
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk
        finally:
            file.close()

    async def remove(self, scope: str, digest: str) -> None:
        """See ``Blobs.remove``."""
        with contextlib.suppress(FileNotFoundError):
            await asyncio.to_thread(self._blob_path(scope, digest).unlink)

    async def space(self) -> Space:
        """See ``Blobs.space``."""
        folder = next(one for one in (self._folder, *self._folder.absolute().parents) if one.exists())
        usage = await asyncio.to_thread(shutil.disk_usage, folder)
        return Space(usage.free, usage.total)

    async def old(self, scope: str, begins: str, before: int) -> list[str]:
        """See ``Blobs.old``."""
        return await asyncio.to_thread(self._old_in_folder, self._folder / (scope or "core") / begins, before)

    @staticmethod
    def _old_in_folder(folder: Path, before: int) -> list[str]:
        found = list[str]()
        with contextlib.suppress(FileNotFoundError):
            for one in os.scandir(folder):
                with contextlib.suppress(FileNotFoundError):
                    if _DIGEST.fullmatch(one.name) and one.stat().st_mtime * 1000 < before:
                        found.append(one.name)
        return found

    def remove_unfinished(self) -> None:
        """Remove what was begun and never ended, as by a crash; before anything is put."""
        for incoming in self._folder.glob("*/incoming"):
            for left in incoming.iterdir():
                left.unlink(missing_ok=True)
