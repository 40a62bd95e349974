"""Opens a file, wherever it is kept: by the core, by a network, at a URL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import replace

from hansa.api.contracts import Network
from hansa.api.media import KeepsMedia, MediaStream, MediaUnavailable
from hansa.bus.media_references import MEDIA
from hansa.environment import Clock
from hansa.media.bus_access import BusAccess
from hansa.media.fetcher import MediaFetcher, refuse_media
from hansa.media.files import MediaFiles
from hansa.media.transfer_slots import TransferSlots
from hansa.model.errors import HansaError, RemoteProtocolError
from hansa.model.events import RefusalCode
from hansa.model.ref import NativeId
from hansa.store.faults import StoreFault

#: Seconds that a network has to open a file.
OPEN_TIMEOUT_S = 60.0
#: Someone with a link takes so many bytes a second on average, after so many seconds.
LINK_LEAST_SPEED, LINK_GRACE_S = 4096, 60.0
_log = logging.getLogger("hansa.media")


class MediaOpener:
    """Each open file holds a slot until its ``chunks`` are closed. Those who open links have slots of their
    own, so that slow readers on the public port hold up no transfer of a network.
    """

    def __init__(self, files: MediaFiles, fetcher: MediaFetcher, access: BusAccess, clock: Clock) -> None:
        self._files = files
        self._fetcher = fetcher
        self._access = access
        self._clock = clock
        self.slots = TransferSlots()
        self.link_slots = TransferSlots()

    async def open_source(
        self, source: NativeId, network: str, *, first: int = 0, last: int | None = None
    ) -> MediaStream:
        """Opens a file for ``network``. The first chunk is empty. Raises ``MediaUnavailable``, ``Busy``."""
        return await self._open_in_slot(self.slots.hold_slot(f"{network}:"), source, network, first, last)

    async def open_linked(
        self, source: NativeId, network: str, reader: str, *, first: int = 0, last: int | None = None
    ) -> MediaStream:
        """The same for someone with a link; the slot counts against ``reader``, a neighbourhood of addresses.
        The chunks end with an error where they are taken too slowly.
        """
        slot = self.link_slots.hold_slot(reader)
        return await self._open_in_slot(slot, source, network, first, last, paced=True)

    async def _open_in_slot(
        self,
        slot: AbstractContextManager[None],
        source: NativeId,
        network: str,
        first: int,
        last: int | None,
        *,
        paced: bool = False,
    ) -> MediaStream:
        async with AsyncExitStack() as held:
            held.enter_context(slot)
            stream = await self._open_kept(source, network, first, last)
            held.push_async_callback(stream.chunks.aclose)
            chunks = _release_after(held.pop_all(), self._paced(stream.chunks) if paced else stream.chunks)
            # From here on, closing the chunks gives back what is held, also where nothing is read.
            await anext(chunks)
        return replace(stream, chunks=chunks)

    async def _paced(self, chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        begun, taken = self._clock.monotonic(), 0
        async for chunk in chunks:
            yield chunk
            taken += len(chunk)
            if self._clock.monotonic() - begun > LINK_GRACE_S + taken / LINK_LEAST_SPEED:
                self._access.count("media_links_slow")
                raise RemoteProtocolError("the file is taken too slowly")

    async def _open_kept(self, source: NativeId, network: str, first: int, last: int | None) -> MediaStream:
        if source.network == MEDIA:
            return await self._files.open_file(source.id, first, last)
        keeper = self._access.network(source.network)
        if isinstance(keeper, KeepsMedia):
            return await self._ask_network(keeper, source, first, last)
        if source.id.startswith(("http://", "https://")):
            return await self._open_url(source.id, network, first, last)
        raise refuse_media(RefusalCode.NOT_FOUND, "no network keeps this file")

    async def _ask_network(
        self, keeper: KeepsMedia, source: NativeId, first: int, last: int | None
    ) -> MediaStream:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                return await keeper.open_media(source.id, first=first, last=last)
        except (MediaUnavailable, StoreFault):
            raise
        except (HansaError, OSError) as error:
            _log.info("%s cannot be opened: %s", source, error)
            raise refuse_media(RefusalCode.UNREACHABLE, "the file cannot be opened now") from error
        except Exception as error:
            self._access.count("media_open_failed", network=source.network)
            _log.exception("network %s failed to open a file", source.network)
            raise refuse_media(RefusalCode.UNREACHABLE, "the file cannot be opened now") from error

    async def _open_url(self, url: str, network: str, first: int, last: int | None) -> MediaStream:
        async with AsyncExitStack() as held:
            opened = self._fetcher.open_url(url, network, self._files.limits.max_file)
            stream = await held.enter_async_context(opened)
            chunks = _release_after(held.pop_all(), _cut_chunks(stream.chunks, first, last))
            await anext(chunks)
        return replace(stream, chunks=chunks, first=first)


def can_keep_media(network: Network | None) -> bool:
    """True if a network keeps files under ids of its own."""
    return isinstance(network, KeepsMedia)


async def _release_after(held: AsyncExitStack, chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The same chunks after an empty one; ``held`` is released with the last, or when they are closed."""
    async with held:
        yield b""
        async for chunk in chunks:
            yield chunk


async def _cut_chunks(chunks: AsyncGenerator[bytes], first: int, last: int | None) -> AsyncGenerator[bytes]:
    at = 0
    async for chunk in chunks:
        end = len(chunk) if last is None else max(0, last + 1 - at)
        part = chunk[max(0, first - at) : end]
        at += len(chunk)
        if part:
            yield part
        if last is not None and at > last:
            break
