"""Our files, given to other servers. SPEC: server-server API, "Content Repository"."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from hansa import BlobTooLarge, NetworkContext, Request, Response

from hansa_matrix.errors import denial_error, matrix_error
from hansa_matrix.media.media_services import Media
from hansa_matrix.media.remote import media_transfer
from hansa_matrix.media.repository import MediaItem
from hansa_matrix.media.thumbnails import parse_thumbnail_query
from hansa_matrix.proto.media import MxcUri, is_valid_media_id, multipart_head, multipart_tail, with_charset
from hansa_matrix.server_api.auth import FederationHandler


class FederationMedia:
    """The endpoints from which peers fetch files: those of this server, never copies of other servers'
    files.
    """

    def __init__(self, ctx: NetworkContext, media: Media) -> None:
        self._ctx = ctx
        self._server = media.repository.server
        self._library = media.repository
        self._media = media
        self._thumbnails = media.thumbnails

    def routes(self) -> Mapping[tuple[str, str], FederationHandler]:
        """See ``auth.FederationEndpoints.routes``."""
        return {
            ("GET", "/v1/media/download/{media}"): self.download,
            ("GET", "/v1/media/thumbnail/{media}"): self.thumbnail,
        }

    async def download(self, origin: str, request: Request, _body: Any) -> Response:
        """``GET /media/download``: two parts, the second of which is read from the disk as it is sent."""
        return self._multipart_file(await self._require_media(origin, request))

    async def thumbnail(self, origin: str, request: Request, _body: Any) -> Response:
        """``GET /media/thumbnail``: a smaller picture, or the picture itself where it is as small already."""
        request.reads_only()
        size, crop = parse_thumbnail_query(request)
        item = await self._require_media(origin, request)
        small = await self._thumbnails.get_thumbnail(item, size, crop=crop, who=origin)
        if small is None:
            return self._multipart_file(item)
        return self._multipart_response(small.type, "", _single_chunk(small.data))

    async def _require_media(self, origin: str, request: Request) -> MediaItem:
        media_id = request.path["media"]
        if not is_valid_media_id(media_id):
            raise matrix_error(404, "M_NOT_FOUND", "there is no such file")
        item = await self._find_media(MxcUri(self._server, media_id))
        verdict = await self._ctx.check(media_transfer(self._ctx.id, origin, item, outbound=True))
        if not verdict.allowed:
            raise denial_error(verdict)
        return item

    async def _find_media(self, mxc: MxcUri) -> MediaItem:
        """A file of this server, or one of another network, which is copied first."""
        try:
            return await self._media.remote.get(mxc)
        except (BlobTooLarge, OSError) as error:
            raise matrix_error(502, "M_UNKNOWN", "the file cannot be had from its network") from error

    def _multipart_file(self, item: MediaItem) -> Response:
        return self._multipart_response(
            with_charset(item.type, item.charset), item.name, self._library.read_chunks(item)
        )

    def _multipart_response(self, kind: str, name: str, file: AsyncIterator[bytes]) -> Response:
        boundary = self._ctx.random.bytes(16).hex()

        async def chunks() -> AsyncGenerator[bytes]:
            yield multipart_head(boundary, kind, name)
            async for chunk in file:
                yield chunk
            yield multipart_tail(boundary)

        return Response(content_type=f"multipart/mixed; boundary={boundary}", chunks=chunks())


async def _single_chunk(data: bytes) -> AsyncIterator[bytes]:
    yield data
