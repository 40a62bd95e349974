"""Files of other servers, fetched once and kept. SPEC: server-server API, "Content Repository".

First by the signed endpoint, which gives the file in parts or says where it is; a server that does not know
it is asked as it was done before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import quote, urlsplit

from hansa import (
    BlobTooLarge,
    HttpError,
    HttpRequest,
    HttpStream,
    MediaTransfer,
    NetworkContext,
    RemoteProtocolError,
)

from hansa_matrix.federation.client import Client, Refused, Unreachable, path, unreached
from hansa_matrix.media.library import Item, Library
from hansa_matrix.proto.media import FileInParts, Mxc, file_name

#: Seconds for a whole file, and files that are fetched at a time.
_WITHIN, _AT_A_TIME = 300.0, 20
_UNKNOWN = frozenset({"M_UNRECOGNIZED", "M_NOT_FOUND", "M_UNKNOWN"})


class Fetcher:
    """Everybody who asks for a file while it is fetched gets the same one."""

    def __init__(self, ctx: NetworkContext, client: Client, library: Library) -> None:
        self._ctx = ctx
        self._client = client
        self._library = library
        self._under_way: dict[Mxc, asyncio.Future[Item]] = {}
        self._slots = asyncio.Semaphore(_AT_A_TIME)

    async def get(self, mxc: Mxc) -> Item:
        """A file from here, or fetched. Raises ``Refused`` (404 if there is none, 403 by policy, 502 if it
        is too large) and ``Unreachable``.
        """
        found = await self._library.get(mxc)
        if found is not None:
            return found
        if mxc.server == self._client.server:
            raise Refused("there is no such file", hint=404, code="M_NOT_FOUND")
        under_way = self._under_way.get(mxc)
        if under_way is None:
            under_way = self._under_way[mxc] = asyncio.get_running_loop().create_future()
            under_way.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._ctx.spawn(self._fill(mxc, under_way), f"fetch {mxc}")
        return await asyncio.shield(under_way)

    async def _fill(self, mxc: Mxc, future: asyncio.Future[Item]) -> None:
        try:
            async with self._slots:
                future.set_result(await self._fetch(mxc))
        except (RemoteProtocolError, Unreachable, OSError) as error:
            self._ctx.count("matrix_media_failed")
            self._ctx.log.info("%s was not fetched: %s", mxc, getattr(error, "detail", error))
            future.set_exception(error)
        finally:
            self._under_way.pop(mxc, None)
            future.cancel()

    async def _fetch(self, mxc: Mxc) -> Item:
        transfer = MediaTransfer(network=self._ctx.id, server=mxc.server, media=str(mxc), outbound=False)
        verdict = await self._ctx.check(transfer)
        if not verdict.allowed:
            raise Refused(verdict.text, hint=403, code="M_FORBIDDEN")
        try:
            try:
                return await self._in_parts(mxc)
            except Refused as error:
                if error.hint not in {400, 404} or error.code not in _UNKNOWN:
                    raise
            return await self._as_before(mxc)
        except BlobTooLarge as error:
            text = f"the file has over {self._ctx.config.max_media} bytes"
            raise Refused(text, hint=502, code="M_TOO_LARGE") from error
        except HttpError as error:
            raise unreached(mxc.server, error) from error

    async def _in_parts(self, mxc: Mxc) -> Item:
        target = path("_matrix", "federation", "v1", "media", "download", mxc.media_id)
        # The file may be as large as it may be, and what is around it is little.
        most = self._ctx.config.max_media + 128 * 1024
        async with self._client.stream(mxc.server, target, most=most, seconds=_WITHIN) as answer:
            parts = FileInParts(answer.headers.get("content-type", ""))
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
                async with self._at(elsewhere) as moved:
                    return await self._keep(mxc, moved.headers, moved.chunks)

            async def file() -> AsyncIterator[bytes]:
                yield begun
                async for chunk in answer.chunks:
                    yield parts.feed(chunk)
                parts.finish()

            return await self._keep(mxc, headers, file())

    async def _as_before(self, mxc: Mxc) -> Item:
        where = f"{quote(mxc.server, safe='')}/{mxc.media_id}"
        target = f"/_matrix/media/v3/download/{where}?allow_remote=false"
        most = self._ctx.config.max_media
        asked = self._client.stream(mxc.server, target, most=most, seconds=_WITHIN, signed=False)
        async with asked as answer:
            return await self._keep(mxc, answer.headers, answer.chunks)

    async def _keep(self, mxc: Mxc, headers: object, chunks: AsyncIterator[bytes]) -> Item:
        known = headers if isinstance(headers, dict) else {}
        name = file_name(known.get("content-disposition"))
        return await self._library.add(chunks, known.get("content-type", ""), name, mxc=mxc)

    @asynccontextmanager
    async def _at(self, location: str) -> AsyncIterator[HttpStream]:
        """A file where a server says that it is: anywhere that the way out leads to, over TLS, unsigned."""
        try:
            url = urlsplit(location)
            host, port = url.hostname or "", url.port or 443
        except ValueError as error:
            raise RemoteProtocolError("the place that the answer names is none") from error
        if url.scheme != "https" or not host or len(location) > 8192 or not location.isascii():
            raise RemoteProtocolError("the place that the answer names is no https address")
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        request = HttpRequest(
            method="GET",
            host=host,
            port=port,
            target=target,
            host_header=url.netloc.rpartition("@")[2],
            tls_name=host,
            headers={"User-Agent": "Hansa"},
            timeout=_WITHIN,
            max_body=self._ctx.config.max_media,
        )
        async with AsyncExitStack() as stack:
            answer = await stack.enter_async_context(self._ctx.http.stream(request))
            if answer.status != 200:
                text = "the place that the answer names has no file"
                raise Unreachable(text, detail=f"{host} answered {answer.status}")
            yield answer
