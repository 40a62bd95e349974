"""The media service as one network has it: ``ctx.media``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from urllib.parse import urlsplit

from hansa.api.media import MediaStream, MediaUnavailable
from hansa.bus.media_references import MEDIA
from hansa.media.core_media import CoreMedia
from hansa.media.fetcher import refuse_media
from hansa.media.files import FileBeginning, StoredFile
from hansa.media.quotas import FileOwner
from hansa.media.signed_links import sign_source, verify_source
from hansa.model.content import Attachment
from hansa.model.crossing import MediaTransfer, MediaUpload
from hansa.model.events import RefusalCode
from hansa.model.media_types import detect_media_type, sanitise_name
from hansa.model.ref import NativeId

#: Seconds for a whole upload or fetch.
TRANSFER_TIMEOUT_S = 900.0


class NetworkMedia:
    """See ``hansa.MediaService``."""

    def __init__(self, media: CoreMedia, network: str) -> None:
        self._media = media
        self._network = network

    async def store(
        self,
        chunks: AsyncIterator[bytes],
        *,
        name: str = "",
        media_type: str = "",
        sender: str = "",
        size: int = 0,
    ) -> Attachment:
        """See ``hansa.MediaService.store``."""
        with self._media.opener.slots.hold_slot(f"{self._network}:{sender}"):
            return await self._store_file(chunks, name, media_type, sender, size)

    async def _store_file(
        self, chunks: AsyncIterator[bytes], name: str, media_type: str, sender: str, size: int
    ) -> Attachment:
        files, name = self._media.files, sanitise_name(name)
        id_, server = files.new_id(), self._network
        if sender:
            server = self._media.access.server_of(self._network, sender)
        try:
            async with asyncio.timeout(TRANSFER_TIMEOUT_S):
                begun = FileBeginning(chunks)
                kind = detect_media_type(await begun.read_head(), media_type)
                await self._media.fetcher.require_allowed(
                    MediaUpload(
                        network=self._network,
                        user=NativeId(self._network, sender),
                        user_server=server,
                        media=id_,
                        name=name,
                        type=kind,
                        size=size,
                    )
                )
                owner = FileOwner(f"{self._network}:{sender}", f"*{self._network}:{server}")
                file = await files.add_file(id_, begun, name=name, media_type=kind, owner=owner, size=size)
        except MediaUnavailable as error:
            self._media.access.count("media_refused", reason=error.refusal.code.value)
            raise
        except TimeoutError as error:
            self._media.access.count("media_refused", reason="slow")
            raise refuse_media(RefusalCode.UNREACHABLE, "the file came too slowly") from error
        self._media.access.count("media_stored", network=self._network)
        return _to_attachment(file)

    async def open(self, attachment: Attachment, *, first: int = 0, last: int | None = None) -> MediaStream:
        """See ``hansa.MediaService.open``."""
        source = attachment.source
        if source is None or first < 0 or (last is not None and last < first):
            raise refuse_media(RefusalCode.NOT_FOUND, "there is no such file")
        if source.network != self._network:
            await self._media.fetcher.require_allowed(
                MediaTransfer(
                    network=self._network,
                    server=await self._server_of_file(source),
                    media=str(source),
                    outbound=False,
                    type=attachment.media_type,
                    size=attachment.size,
                    name=attachment.name,
                )
            )
        return await self._media.opener.open_source(source, self._network, first=first, last=last)

    async def _server_of_file(self, source: NativeId) -> str:
        """The server that a file comes from: that of its sender, else that of its URI, else its network."""
        if source.network != MEDIA:
            try:
                return urlsplit(source.id).netloc or source.network
            except ValueError:
                return source.network
        file = await self._media.files.find_file(source.id)
        network, _, user = file.owner.sender.partition(":") if file is not None else (MEDIA, "", "")
        return self._media.access.server_of(network, user) if user else network

    def link(self, attachment: Attachment, native_room: str, event_id: str) -> str:
        """See ``hansa.MediaService.link``."""
        return self._media.make_link(attachment, NativeId(self._network, native_room), event_id)

    def name_source(self, source: NativeId) -> str:
        """See ``hansa.MediaService.name_source``."""
        return sign_source(source, self._media.keys.name_key)

    def find_source(self, name: str) -> NativeId | None:
        """See ``hansa.MediaService.find_source``."""
        return verify_source(name, self._media.keys.name_key)

    async def fetch(self, url: str, *, sender: str = "", name: str = "") -> Attachment:
        """See ``hansa.MediaService.fetch``."""
        share, limit = f"{self._network}:{sender}", self._media.limits.max_file
        with ExitStack() as held:
            held.enter_context(self._media.opener.slots.hold_slot(share))
            async with self._media.fetcher.open_url(url, self._network, limit) as stream:
                return await self._store_file(
                    stream.chunks, name or stream.name, stream.media_type, sender, stream.size
                )


def _to_attachment(file: StoredFile) -> Attachment:
    return Attachment(
        name=file.name,
        media_type=file.media_type,
        size=file.blob.size,
        width=file.width,
        height=file.height,
        source=NativeId(MEDIA, file.id),
        sha256=file.blob.digest,
    )
