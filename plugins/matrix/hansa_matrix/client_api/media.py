"""Files: given by people here, and fetched for them from anywhere. SPEC: client-server API, "Content
Repository".

What comes from others is never shown inline where a browser would run it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from hansa import (
    BlobTooLarge,
    BodyTooLarge,
    FairSlots,
    MediaUpload,
    NativeId,
    NetworkContext,
    Request,
    Response,
    Router,
    SlotShares,
)
from hansa.model.media_types import (
    content_disposition,
    parse_byte_range,
    parse_media_type,
    sanitise_name,
)

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import ROOT, ClientHttp, Handler, RateLimited
from hansa_matrix.client_api.remote_refusals import file_error
from hansa_matrix.errors import MatrixError, denial_error, error_response, json_response, matrix_error
from hansa_matrix.federation.client import REQUEST_FAILURES, RemoteError
from hansa_matrix.media.media_services import Media
from hansa_matrix.media.minimum_rate import at_minimum_rate
from hansa_matrix.media.quotas import DiskFull, OverQuota
from hansa_matrix.media.remote import media_transfer
from hansa_matrix.media.repository import HasFile, MediaItem, NotReserved
from hansa_matrix.media.thumbnails import parse_thumbnail_query
from hansa_matrix.proto.ids import is_valid_server_name
from hansa_matrix.proto.media import (
    MxcUri,
    is_valid_media_id,
    with_charset,
)

_LEGACY_PREFIX = "/_matrix/media"
_SAFE_HEADERS = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; "
        "style-src 'unsafe-inline'; object-src 'self';"
    ),
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, max-age=31536000, immutable",
}
#: For how long (ms) an address waits for its file.
_PENDING_TTL_MS = 86_400_000
#: Files that are given at a time, by everybody and by one person, and the least that comes of each: bytes in
#: a window of seconds. A file that does not come holds a place on the disk.
UPLOAD_LIMITS = SlotShares(in_all=200, each={"person": 8}, waiting=50)
_MIN_UPLOAD_RATE = (16 * 1024, 30.0)


class MediaEndpoints:
    """The endpoints. The paths of before want a token here too, as what they once gave away is private."""

    def __init__(self, ctx: NetworkContext, http: ClientHttp, media: Media) -> None:
        self._ctx = ctx
        self._http = http
        self._server = media.repository.server
        self._library = media.repository
        self._fetcher = media.remote
        self._thumbnails = media.thumbnails
        self._uploads = FairSlots(UPLOAD_LIMITS)

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {("GET", "/v1/media/config"): self._get_config}

    def add_routes(self, router: Router) -> None:
        """Adds the routes outside the table: bodies that are streamed, and paths of older versions."""
        most, upload = self._ctx.config.max_upload_size, RateLimited(self.upload_file)
        add = partial(self._http.add_media_route, router)
        for version in ("v3", "r0", "v1"):
            root = f"{_LEGACY_PREFIX}/{version}"
            add("POST", f"{root}/upload", upload, max_file=most)
            add("GET", f"{root}/config", self._get_config)
        add("POST", f"{_LEGACY_PREFIX}/v1/create", RateLimited(self._create_pending))
        for version in ("v3", "v1"):
            add("PUT", f"{_LEGACY_PREFIX}/{version}/upload/{{server}}/{{media}}", upload, max_file=most)
        roots = (
            f"{ROOT}/v1/media",
            f"{_LEGACY_PREFIX}/v3",
            f"{_LEGACY_PREFIX}/r0",
            f"{_LEGACY_PREFIX}/v1",
        )
        for root in roots:
            add("GET", f"{root}/download/{{server}}/{{media}}", self.download_file)
            add("GET", f"{root}/download/{{server}}/{{media}}/{{name}}", self.download_file)
            add("GET", f"{root}/thumbnail/{{server}}/{{media}}", self.get_thumbnail)

    async def _get_config(self, *_: Any) -> Any:
        """``GET /media/config``."""
        return {"m.upload.size": self._ctx.config.max_upload_size}

    async def _create_pending(self, caller: Requester, *_: Any) -> Any:
        """``POST /media/create``: an address for a file that the same person gives later."""
        until = self._ctx.clock.now() + _PENDING_TTL_MS
        return {
            "content_uri": str(await self._library.create_pending(caller.user, until)),
            "unused_expires_at": until,
        }

    async def upload_file(self, caller: Requester, request: Request, _body: Any) -> Response:
        """``POST /upload``, and ``PUT /upload/{serverName}/{mediaId}`` for an address that was given out.

        Errors are as the specification has them: 403 for a quota, 409 for an address with a file; and 507 for
        a full disk, as M_RESOURCE_LIMIT_EXCEEDED has no status of its own and the client can do nothing.
        """
        try:
            item = await self._store_upload(caller, request)
        except (BlobTooLarge, BodyTooLarge) as problem:
            return error_response(matrix_error(413, "M_TOO_LARGE", str(problem)))
        except HasFile as problem:
            return error_response(matrix_error(409, "M_CANNOT_OVERWRITE_MEDIA", str(problem)))
        except (NotReserved, OverQuota) as problem:
            return error_response(matrix_error(403, "M_FORBIDDEN", str(problem)))
        except (DiskFull, OSError) as problem:
            if isinstance(problem, ConnectionError | TimeoutError):
                raise  # the client's, who did not send it all
            self._ctx.log.warning("a file of %s was not kept: %s", caller.user, problem)
            text, contact = "the disk is full", self._ctx.config.admin_contact
            return error_response(matrix_error(507, "M_RESOURCE_LIMIT_EXCEEDED", text, admin_contact=contact))
        return json_response({} if "media" in request.path else {"content_uri": str(item.mxc)})

    async def _store_upload(self, caller: Requester, request: Request) -> MediaItem:
        """Keep what a request brings."""
        if request.chunks is None:
            raise matrix_error(400, "M_UNKNOWN", "there is no file")
        mxc = self._mxc_of(request) if "media" in request.path else self._library.new_address()
        if mxc.server != self._server:
            raise matrix_error(403, "M_FORBIDDEN", "the address belongs to another server")
        described = request.headers.get("content-type", "")
        kind = parse_media_type(described)
        name = sanitise_name(request.first("filename"))
        length = request.headers.get("content-length", "")
        size = int(length) if length.isascii() and length.isdigit() and len(length) < 16 else None
        verdict = await self._ctx.check(
            MediaUpload(
                network=self._ctx.id,
                user=NativeId(self._ctx.id, caller.user),
                user_server=self._server,
                media=str(mxc),
                name=name,
                type=kind,
                size=size or 0,
            )
        )
        if not verdict.allowed:
            raise denial_error(verdict)
        reserved = "media" in request.path
        async with (
            self._uploads.hold_slot(("person", caller.user)),
            at_minimum_rate(*_MIN_UPLOAD_RATE) as pace,
        ):
            chunks = pace.enforce_on(request.chunks)
            item = await self._library.add_file(
                chunks, described, name, mxc=mxc, reserved=reserved, owner=caller.user, size=size
            )
        self._ctx.log.info("%s gave %s, %d bytes", caller.user, item.mxc, item.blob.size)
        return item

    def _mxc_of(self, request: Request) -> MxcUri:
        server, media = request.path["server"], request.path["media"]
        if not is_valid_server_name(server) or not is_valid_media_id(media):
            raise matrix_error(400, "M_INVALID_PARAM", "this is not the address of a file")
        return MxcUri(server, media)

    async def _require_media(self, caller: Requester, request: Request) -> MediaItem:
        mxc = self._mxc_of(request)
        item = await self._library.get(mxc)
        if item is None:
            item = await self._get_remote_media(caller, request, mxc)
        verdict = await self._ctx.check(media_transfer(self._ctx.id, mxc.server, item, outbound=False))
        if not verdict.allowed:
            raise denial_error(verdict)
        return item

    async def _get_remote_media(self, caller: Requester, request: Request, mxc: MxcUri) -> MediaItem:
        if mxc.server == self._server:
            if await self._library.is_pending(mxc):
                raise matrix_error(504, "M_NOT_YET_UPLOADED", "the file has not been uploaded yet")
            if self._library.foreign.find_source(mxc) is None:
                raise matrix_error(404, "M_NOT_FOUND", "there is no such file")
        elif request.first("allow_remote", "true") == "false":
            raise matrix_error(404, "M_NOT_FOUND", "the file is not stored on this server")
        try:
            return await self._fetcher.get(mxc, caller.user)
        except RemoteError as problem:
            raise file_error(problem) from problem
        except MatrixError:
            raise
        except (*REQUEST_FAILURES, OSError) as problem:
            raise matrix_error(502, "M_UNKNOWN", "the file could not be fetched") from problem

    async def download_file(self, caller: Requester, request: Request, _body: Any) -> Response:
        """``GET /media/download/{serverName}/{mediaId}``."""
        item = await self._require_media(caller, request)
        named = sanitise_name(request.path.get("name", "")) or item.name
        return self._file_response(item, named, request)

    def _file_response(self, item: MediaItem, name: str, request: Request) -> Response:
        """A file, or the part of it that is asked for, as players do that seek. SPEC: RFC 9110, "Range"."""
        size = item.blob.size
        asked = request.headers.get("range", "") if request.method == "GET" else ""
        # Without a validator of this server no condition can hold: the answer is the whole file then.
        part = None if "if-range" in request.headers else parse_byte_range(asked, size)
        headers = {
            **_SAFE_HEADERS,
            "Accept-Ranges": "bytes",
            "Content-Disposition": content_disposition(item.type, name),
        }
        if part is not None and part.start == part.stop:
            headers["Content-Range"] = f"bytes */{size}"
            refusal = error_response(matrix_error(416, "M_UNKNOWN", f"the file has {size} bytes"))
            return replace(refusal, headers=headers)
        status, start, stop = 200, 0, size
        if part is not None:
            status, start, stop = 206, part.start, part.stop
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        headers["Content-Length"] = str(stop - start)

        async def file_chunks() -> AsyncGenerator[bytes]:
            left = stop - start
            async for chunk in self._library.read_chunks(item, start):
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    break

        kind = with_charset(item.type, item.charset)
        return Response(status=status, headers=headers, content_type=kind, chunks=file_chunks())

    async def get_thumbnail(self, caller: Requester, request: Request, _body: Any) -> Response:
        """``GET /media/thumbnail/{serverName}/{mediaId}``: a smaller picture, or the picture where it is as
        small already.
        """
        size, crop = parse_thumbnail_query(request)
        item = await self._require_media(caller, request)
        small = await self._thumbnails.get_thumbnail(item, size, crop=crop, who=caller.user)
        if small is None:
            return self._file_response(item, item.name, request)
        headers = {**_SAFE_HEADERS, "Content-Disposition": content_disposition(small.type, "thumbnail")}
        return Response(headers=headers, content_type=small.type, body=small.data)
