"""Files of Matrix for the people of other networks: the end of ``hansa.KeepsMedia``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from hansa import (
    BlobNotFound,
    MediaStream,
    MediaUnavailable,
    Refusal,
    RefusalCode,
    RemoteProtocolError,
)

from hansa_matrix.federation.client import RemoteError
from hansa_matrix.media.media_services import Media
from hansa_matrix.media.repository import MediaItem
from hansa_matrix.proto.media import parse_mxc

_CODES = {403: RefusalCode.FORBIDDEN, 404: RefusalCode.NOT_FOUND, 429: RefusalCode.BUSY}


class SharedFiles:
    """Opens files by their ``mxc:`` URIs; a file of another server is fetched first, and kept."""

    def __init__(self, media: Media) -> None:
        self._media = media

    async def open_file(self, uri: str, first: int, last: int | None) -> MediaStream:
        """See ``hansa.KeepsMedia.open_media``."""
        mxc = parse_mxc(uri)
        if mxc is None:
            raise _refuse_file(RefusalCode.NOT_FOUND, "this is not the address of a file")
        try:
            item = await self._media.remote.get(mxc)
        except (RemoteError, RemoteProtocolError) as error:
            code = _CODES.get(error.hint, RefusalCode.UNREACHABLE)
            raise _refuse_file(code, "the file cannot be had from its server") from error
        return MediaStream(
            media_type=item.type,
            name=item.name,
            size=item.blob.size,
            first=first,
            chunks=self._read_part(item, first, last),
        )

    async def _read_part(self, item: MediaItem, first: int, last: int | None) -> AsyncGenerator[bytes]:
        left = (item.blob.size if last is None else min(item.blob.size, last + 1)) - first
        if left <= 0:
            return
        try:
            async with aclosing(self._media.repository.read_chunks(item, first)) as chunks:
                async for chunk in chunks:
                    yield chunk[:left]
                    left -= len(chunk)
                    if left <= 0:
                        break
        except BlobNotFound as error:
            raise _refuse_file(RefusalCode.NOT_FOUND, "the bytes of the file are lost") from error


def _refuse_file(code: RefusalCode, text: str) -> MediaUnavailable:
    return MediaUnavailable(Refusal(code=code, text=text))
