"""Files: given by people here, and fetched for them from anywhere. SPEC: client-server API, "Content
Repository".

What comes from others is never shown inline where a browser would run it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from hansa import BlobTooLarge, NetworkContext, RemoteProtocolError, Request, Response, Router

from hansa_matrix.client_api.door import ROOT, Door, Handler, Limited
from hansa_matrix.federation.client import Refused, Unreachable
from hansa_matrix.federation.server import error, error_response, json_response
from hansa_matrix.media.fetch import Fetcher
from hansa_matrix.media.library import Item, Library
from hansa_matrix.media.thumbnails import Thumbnails, wanted
from hansa_matrix.proto.ids import valid_server_name
from hansa_matrix.proto.media import Mxc, disposition, plain_name, valid_media_id

_OLD = "/_matrix/media"
_SAFE = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; "
        "style-src 'unsafe-inline'; object-src 'self';"
    ),
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, max-age=31536000, immutable",
}
#: For how long (ms) an address waits for its file.
_RESERVED_FOR = 86_400_000


class Files:
    """The endpoints. The paths of before want a token here too, as what they once gave away is private."""

    def __init__(
        self, ctx: NetworkContext, door: Door, library: Library, fetcher: Fetcher, thumbnails: Thumbnails
    ) -> None:
        self._ctx = ctx
        self._door = door
        self._server = library.server
        self._library = library
        self._fetcher = fetcher
        self._thumbnails = thumbnails

    def table(self) -> Mapping[tuple[str, str], Handler | Limited]:
        """See ``door.Part.table``."""
        return {("GET", "/v1/media/config"): self._config}

    def register(self, router: Router) -> None:
        """What is outside the table: bodies that are streamed, and paths of before."""
        most = self._ctx.config.max_media
        for version in ("v3", "r0", "v1"):
            router.add("POST", f"{_OLD}/{version}/upload", self.upload, max_body=most, streamed=True)
            router.add("GET", f"{_OLD}/{version}/config", self._door.authenticated(self._config))
        router.add("POST", f"{_OLD}/v1/create", self._door.authenticated(Limited(self._create)))
        for version in ("v3", "v1"):
            path = f"{_OLD}/{version}/upload/{{server}}/{{media}}"
            router.add("PUT", path, self.upload, max_body=most, streamed=True)
        for root in (f"{ROOT}/v1/media", f"{_OLD}/v3", f"{_OLD}/r0", f"{_OLD}/v1"):
            router.add("GET", f"{root}/download/{{server}}/{{media}}", self.download)
            router.add("GET", f"{root}/download/{{server}}/{{media}}/{{name}}", self.download)
            router.add("GET", f"{root}/thumbnail/{{server}}/{{media}}", self.thumbnail)

    async def _config(self, *_: Any) -> Any:
        """``GET /media/config``."""
        return {"m.upload.size": self._ctx.config.max_media}

    async def _create(self, *_: Any) -> Any:
        """``POST /media/create``: an address for a file that comes later."""
        until = self._ctx.clock.now() + _RESERVED_FOR
        return {"content_uri": str(await self._library.reserve(until)), "unused_expires_at": until}

    async def upload(self, request: Request) -> Response:
        """``POST /upload``, and ``PUT /upload/{serverName}/{mediaId}`` for an address that was given out."""
        try:
            caller = await self._door.caller(request)
            if request.chunks is None:
                raise error(400, "M_UNKNOWN", "there is no file")
            mxc = None
            if "media" in request.path:
                mxc = self._mxc(request)
                if mxc.server != self._server or not await self._library.reserved(mxc):
                    raise error(403, "M_FORBIDDEN", "that address was not given out, or has a file already")
            kind = request.headers.get("content-type", "application/octet-stream")
            name = plain_name(request.first("filename"))
            item = await self._library.add(request.chunks, kind, name, mxc=mxc)
            self._ctx.log.info("%s gave %s, %d bytes", caller.user, item.mxc, item.blob.size)
        except BlobTooLarge as problem:
            return error_response(error(413, "M_TOO_LARGE", str(problem)))
        except RemoteProtocolError as problem:
            return error_response(problem)
        return json_response({"content_uri": str(item.mxc)} if mxc is None else {})

    def _mxc(self, request: Request) -> Mxc:
        server, media = request.path["server"], request.path["media"]
        if not valid_server_name(server) or not valid_media_id(media):
            raise error(400, "M_INVALID_PARAM", "that is no address of a file")
        return Mxc(server, media)

    async def _item(self, request: Request) -> Item:
        await self._door.caller(request)
        mxc = self._mxc(request)
        found = await self._library.get(mxc)
        if found is not None:
            return found
        if mxc.server == self._server:
            if await self._library.reserved(mxc):
                raise error(504, "M_NOT_YET_UPLOADED", "the file has not come yet")
            raise error(404, "M_NOT_FOUND", "there is no such file")
        if request.first("allow_remote", "true") == "false":
            raise error(404, "M_NOT_FOUND", "the file is not here")
        try:
            return await self._fetcher.get(mxc)
        except Refused as problem:
            status = problem.hint if problem.hint in {403, 404, 413} else 502
            code = {403: "M_FORBIDDEN", 404: "M_NOT_FOUND", 413: "M_TOO_LARGE"}.get(status, "M_UNKNOWN")
            raise error(status, code, problem.reason) from problem
        except (Unreachable, RemoteProtocolError, OSError) as problem:
            raise error(502, "M_UNKNOWN", "the file was not to be had") from problem

    async def download(self, request: Request) -> Response:
        """``GET /media/download/{serverName}/{mediaId}``."""
        try:
            item = await self._item(request)
        except RemoteProtocolError as problem:
            return error_response(problem)
        named = plain_name(request.path.get("name", "")) or item.name
        return self._whole(item, named)

    def _whole(self, item: Item, name: str) -> Response:
        async def chunks() -> AsyncGenerator[bytes]:
            async for chunk in self._library.read(item):
                yield chunk

        headers = {
            **_SAFE,
            "Content-Disposition": disposition(item.type, name),
            "Content-Length": str(item.blob.size),
        }
        return Response(headers=headers, content_type=item.type, chunks=chunks())

    async def thumbnail(self, request: Request) -> Response:
        """``GET /media/thumbnail/{serverName}/{mediaId}``: a smaller picture, or the picture where it is as
        small already.
        """
        try:
            caller = await self._door.caller(request)
            size, crop = wanted(request)
            item = await self._item(request)
            small = await self._thumbnails.of(item, size, crop=crop, who=caller.user)
        except RemoteProtocolError as problem:
            return error_response(problem)
        if small is None:
            return self._whole(item, item.name)
        headers = {**_SAFE, "Content-Disposition": disposition(small.type, "thumbnail")}
        return Response(headers=headers, content_type=small.type, body=small.data)
