"""Files of other servers, fetched once and kept. SPEC: server-server API, "Content Repository".

First by the signed endpoint, which gives the file in parts or says where it is; a server that does not know
it is asked as it was done before. A fetch ends when nobody waits for it any more, and when it is too slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote, urlsplit

from hansa import (
    BlobTooLarge,
    Busy,
    FairSlots,
    HttpError,
    HttpRequest,
    HttpStream,
    MediaTransfer,
    NativeId,
    NetworkContext,
    PeerConnect,
    RemoteProtocolError,
    SlotShares,
    StoreFault,
)
from hansa.model.media_types import parse_file_name, parse_media_type

from hansa_matrix.errors import denial_error, matrix_error
from hansa_matrix.federation.client import (
    REQUEST_FAILURES,
    FederationClient,
    RemoteError,
    ServerUnreachable,
    build_path,
    unreachable_error,
)
from hansa_matrix.media.minimum_rate import MinimumRate, at_minimum_rate
from hansa_matrix.media.quotas import DiskFull, OverQuota
from hansa_matrix.media.repository import MediaItem, MediaRepository
from hansa_matrix.proto.media import MultipartFileReader, MxcUri

#: Seconds for a whole file.
_DOWNLOAD_TIMEOUT_S = 300.0
#: The least that comes of a file: so many bytes in each window of so many seconds.
MIN_WINDOW_BYTES, RATE_WINDOW_S = 160 * 1024, 10.0
#: Files that are fetched at a time: in all, of one server, for one person.
DOWNLOAD_LIMITS = SlotShares(in_all=40, each={"server": 4, "person": 10}, waiting=100)
_UNKNOWN = frozenset({"M_UNRECOGNIZED", "M_NOT_FOUND", "M_UNKNOWN"})


def media_transfer(network: str, server: str, item: MediaItem, *, outbound: bool) -> MediaTransfer:
    """Returns the question to the policies about a file with known properties."""
    return MediaTransfer(
        network=network,
        server=server,
        media=str(item.mxc),
        outbound=outbound,
        type=item.type,
        size=item.blob.size,
        name=item.name,
    )


@dataclass(slots=True, eq=False)
class _UnderWay:
    """A fetch, and how many wait for it."""

    future: asyncio.Future[MediaItem]
    task: asyncio.Task[None] | None = None
    readers: int = 0


class RemoteMedia:
    """Everybody who asks for a file while it is fetched gets the same one."""

    def __init__(self, ctx: NetworkContext, client: FederationClient, library: MediaRepository) -> None:
        self._ctx = ctx
        self._client = client
        self._library = library
        self._under_way: dict[MxcUri, _UnderWay] = {}
        self._shares = FairSlots(DOWNLOAD_LIMITS)

    async def get(self, mxc: MxcUri, who: str = "") -> MediaItem:
        """A file from here, or fetched for ``who``, a person here. Raises ``MatrixError`` (404 if there is
        none here, 403 by policy, 502 if it is too large), ``Busy``, and as ``FederationClient.request``.
        """
        found = await self._library.get(mxc)
        if found is not None:
            return found
        if mxc.server == self._client.server and self._library.foreign.find_source(mxc) is None:
            raise matrix_error(404, "M_NOT_FOUND", "there is no such file")
        under_way = self._under_way.get(mxc)
        if under_way is None:
            under_way = self._under_way[mxc] = _UnderWay(asyncio.get_running_loop().create_future())
            under_way.future.add_done_callback(lambda done: done.cancelled() or done.exception())
            under_way.task = self._ctx.spawn(partial(self._run_fetch, mxc, under_way, who), f"fetch {mxc}")
        under_way.readers += 1
        try:
            return await asyncio.shield(under_way.future)
        finally:
            under_way.readers -= 1
            if not under_way.readers and not under_way.future.done():
                self._ctx.count("matrix_media_abandoned")
                self._end_fetch(mxc, under_way)
                if under_way.task is not None:
                    under_way.task.cancel()

    def _end_fetch(self, mxc: MxcUri, under_way: _UnderWay) -> None:
        if self._under_way.get(mxc) is under_way:
            del self._under_way[mxc]

    async def _run_fetch(self, mxc: MxcUri, under_way: _UnderWay, who: str) -> None:
        try:
            async with self._shares.hold_slot(("server", mxc.server), ("person", who)):
                under_way.future.set_result(await self._download_in_time(mxc))
        except (*REQUEST_FAILURES, Busy, StoreFault, OSError) as error:
            self._ctx.count("matrix_media_failed")
            self._ctx.log.info("%s was not fetched: %s", mxc, getattr(error, "detail", error))
            under_way.future.set_exception(error)
        finally:
            self._end_fetch(mxc, under_way)
            under_way.future.cancel()

    async def _download_in_time(self, mxc: MxcUri) -> MediaItem:
        try:
            async with at_minimum_rate(MIN_WINDOW_BYTES, RATE_WINDOW_S) as pace:
                return await self._download_file(mxc, pace)
        except TimeoutError as error:
            self._ctx.count("matrix_media_slow")
            raise ServerUnreachable(f"{mxc.server} gives the file too slowly") from error

    async def _copy_foreign(self, mxc: MxcUri, source: NativeId, pace: MinimumRate) -> MediaItem:
        """Copies a file of another network."""
        async with self._library.foreign.open_source(source) as stream:
            chunks = pace.enforce_on(stream.chunks)
            return await self._library.add_file(
                chunks, stream.media_type, stream.name, mxc=mxc, size=stream.size or None
            )

    async def _download_file(self, mxc: MxcUri, pace: MinimumRate) -> MediaItem:
        try:
            if (source := self._library.foreign.find_source(mxc)) is not None:
                return await self._copy_foreign(mxc, source, pace)
            return await self._download_remote(mxc, pace)
        except BlobTooLarge as error:
            text = f"the file has over {self._ctx.config.max_upload_size} bytes"
            raise matrix_error(502, "M_TOO_LARGE", text) from error
        except (OverQuota, DiskFull) as error:
            raise matrix_error(502, "M_TOO_LARGE", "there is no space for the file") from error
        except HttpError as error:
            raise unreachable_error(mxc.server, error) from error

    async def _download_remote(self, mxc: MxcUri, pace: MinimumRate) -> MediaItem:
        verdict = await self._ctx.check(
            MediaTransfer(network=self._ctx.id, server=mxc.server, media=str(mxc), outbound=False)
        )
        if not verdict.allowed:
            raise denial_error(verdict)
        try:
            return await self._download_multipart(mxc, pace)
        except RemoteError as error:
            if error.hint not in {400, 404} or error.code not in _UNKNOWN:
                raise
        return await self._download_legacy(mxc, pace)

    async def _download_multipart(self, mxc: MxcUri, pace: MinimumRate) -> MediaItem:
        target = build_path("_matrix", "federation", "v1", "media", "download", mxc.media_id)
        # The file may be as large as it may be, and what is around it is little.
        most = self._ctx.config.max_upload_size + 128 * 1024
        async with self._client.stream(mxc.server, target, most=most, seconds=_DOWNLOAD_TIMEOUT_S) as answer:
            parts = MultipartFileReader(answer.headers.get("content-type", ""))
            begun = b""
            async for chunk in answer.chunks:
                begun += parts.feed(chunk)
                if parts.headers is not None:
                    break
            if parts.headers is None:
                parts.finish()
            headers = parts.headers or {}
            elsewhere = headers.get("location")
            if elsewhere is not None:
                async with self._open_location(mxc, elsewhere) as moved:
                    return await self._store_file(mxc, moved.headers, pace.enforce_on(moved.chunks))

            async def file_chunks() -> AsyncIterator[bytes]:
                yield begun
                async for chunk in pace.enforce_on(answer.chunks):
                    yield parts.feed(chunk)
                parts.finish()

            return await self._store_file(mxc, headers, file_chunks())

    async def _download_legacy(self, mxc: MxcUri, pace: MinimumRate) -> MediaItem:
        where = f"{quote(mxc.server, safe='')}/{mxc.media_id}"
        target = f"/_matrix/media/v3/download/{where}?allow_remote=false"
        most = self._ctx.config.max_upload_size
        asked = self._client.stream(mxc.server, target, most=most, seconds=_DOWNLOAD_TIMEOUT_S, signed=False)
        async with asked as answer:
            return await self._store_file(mxc, answer.headers, pace.enforce_on(answer.chunks))

    async def _store_file(
        self, mxc: MxcUri, headers: Mapping[str, str], chunks: AsyncIterator[bytes]
    ) -> MediaItem:
        """Keep a file, if policies let one of this type and name in."""
        name = parse_file_name(headers.get("content-disposition"))
        kind = parse_media_type(headers.get("content-type"))
        asked = MediaTransfer(
            network=self._ctx.id, server=mxc.server, media=str(mxc), outbound=False, type=kind, name=name
        )
        verdict = await self._ctx.check(asked)
        if not verdict.allowed:
            raise denial_error(verdict)
        described = headers.get("content-type", "")
        return await self._library.add_file(chunks, described, name, mxc=mxc)

    @asynccontextmanager
    async def _open_location(self, mxc: MxcUri, location: str) -> AsyncIterator[HttpStream]:
        """A file where a server says that it is: one step further, over TLS, unsigned, and where policies let
        us ask for files.
        """
        try:
            url = urlsplit(location)
            host, port = url.hostname or "", url.port or 443
        except ValueError as error:
            raise RemoteProtocolError("the address in the answer is not valid") from error
        plain = location.isascii() and location.isprintable() and " " not in location
        if url.scheme != "https" or not host or len(location) > 8192 or not plain or "@" in url.netloc:
            raise RemoteProtocolError("the address in the answer is not an https address")
        await self._check_host(mxc, f"[{host}]" if ":" in host else host, port)
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        request = HttpRequest(
            method="GET",
            host=host,
            port=port,
            target=target,
            host_header=url.netloc,
            tls_name=host,
            headers={"User-Agent": "Hansa"},
            timeout=_DOWNLOAD_TIMEOUT_S,
            max_body=self._ctx.config.max_upload_size,
        )
        async with AsyncExitStack() as stack:
            answer = await stack.enter_async_context(self._ctx.http.stream(request))
            if answer.status != 200:
                text = "the place that the answer names has no file"
                raise ServerUnreachable(text, detail=f"{host} answered {answer.status}")
            yield answer

    async def _check_host(self, mxc: MxcUri, host: str, port: int) -> None:
        """Another host is judged as the peer that it is: by its name, and with a port also by both."""
        for server in (host,) if port == 443 else (host, f"{host}:{port}"):
            if server == self._client.server:
                raise RemoteProtocolError("the place that the answer names is this server")
            for crossing in (
                PeerConnect(network=self._ctx.id, server=server, outbound=True),
                MediaTransfer(network=self._ctx.id, server=server, media=str(mxc), outbound=False),
            ):
                verdict = await self._ctx.check(crossing)
                if not verdict.allowed:
                    raise denial_error(verdict)
