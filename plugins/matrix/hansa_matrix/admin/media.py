"""The admin commands about files: upload a room picture, export evidence, remove a file."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from hansa import AdminCommand, BlobNotFound, BlobTooLarge, Busy, LocalProtocolError

from hansa_matrix.federation.client import REQUEST_FAILURES
from hansa_matrix.media.quotas import DiskFull
from hansa_matrix.media.remote import RemoteMedia
from hansa_matrix.media.repository import MediaItem, MediaRepository
from hansa_matrix.proto.media import MxcUri, parse_mxc

_CHUNK = 256 * 1024


class MediaCommands:
    """``commands.py`` declares them. Files are named by their whole path, as the running Hansa sees it."""

    def __init__(self, library: MediaRepository, fetcher: RemoteMedia) -> None:
        self._library = library
        self._fetcher = fetcher

    def admin_commands(self) -> Mapping[str, AdminCommand]:
        """See ``hansa.HasAdminCommands.admin_commands``."""
        return {
            "media add": self.add,
            "media get": self.get,
            "media ls": self.all,
            "media rm": self.remove,
        }

    async def add(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """A file of the operator's becomes one of this server."""
        path = _path_argument(arguments)
        kind = str(arguments.get("type") or mimetypes.guess_type(path.name)[0] or "")
        try:
            file = await asyncio.to_thread(path.open, "rb")
            try:
                return _describe_item(await self._library.add_file(_read_chunks(file), kind, path.name))
            finally:
                file.close()
        except OSError as error:
            raise LocalProtocolError(f"{path}: {error.strerror or error}") from error
        except BlobTooLarge as error:
            raise LocalProtocolError(f"{path} is too large: {error} (max_upload_size)") from error
        except DiskFull as error:
            raise LocalProtocolError(f"{path} was not added: {error} (media_reserve)") from error

    async def get(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a file of any server, fetched if needed, to a new local file."""
        mxc, path = _mxc_argument(arguments), _path_argument(arguments)
        try:
            item = await self._fetcher.get(mxc)
        except (*REQUEST_FAILURES, Busy) as error:
            raise LocalProtocolError(f"{mxc}: {getattr(error, 'detail', error)}") from error
        try:
            file = await asyncio.to_thread(path.open, "xb")
            try:
                async for chunk in self._library.read_chunks(item):
                    await asyncio.to_thread(file.write, chunk)
            finally:
                file.close()
        except OSError as error:
            raise LocalProtocolError(f"{path}: {error.strerror or error}") from error
        except BlobNotFound as error:
            raise LocalProtocolError(f"the bytes of {mxc} are gone: `hansa matrix media rm {mxc}`") from error
        return _describe_item(item) | {"file": str(path)}

    async def all(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Lists the stored files."""
        return [
            _describe_item(item)
            for item in await self._library.list_files(str(arguments.get("server") or ""))
        ]

    async def remove(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Not here any more; of another server it can be fetched again."""
        mxc = _mxc_argument(arguments)
        if not await self._library.remove_file(mxc):
            raise LocalProtocolError(f"{mxc} is not here: `hansa matrix media ls`")
        return {"removed": str(mxc)}


async def _read_chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        yield chunk


def _describe_item(item: MediaItem) -> dict[str, Any]:
    return {
        "media": str(item.mxc),
        "size": item.blob.size,
        "type": item.type,
        "name": item.name,
        "used": item.last_used,
        "owner": item.owner,
    }


def _path_argument(arguments: Mapping[str, Any]) -> Path:
    path = Path(str(arguments["file"]))
    if not path.is_absolute():
        raise LocalProtocolError(f"name {path} by its whole path: the running Hansa opens it")
    return path


def _mxc_argument(arguments: Mapping[str, Any]) -> MxcUri:
    found = parse_mxc(str(arguments["media"]))
    if found is None:
        raise LocalProtocolError(f"{arguments['media']} is not like mxc://SERVER/ID")
    return found
