"""Files of other networks under ``mxc:`` URIs of this server.

The URI names the file itself, signed by the core, so that the event of a message can be made before a byte of
the file was read. A file is copied when it is first asked for, and the copy is deleted with the file.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from hansa import Attachment, MediaStream, MediaUnavailable, NativeId, NetworkContext, RefusalCode

from hansa_matrix.conversion.native_ids import FOREIGN_PREFIX, NativeIds
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto.media import MxcUri

_STATUS = {
    RefusalCode.NOT_FOUND: (404, "M_NOT_FOUND"),
    RefusalCode.POLICY: (403, "M_FORBIDDEN"),
    RefusalCode.FORBIDDEN: (403, "M_FORBIDDEN"),
    RefusalCode.TOO_LARGE: (502, "M_TOO_LARGE"),
}


class ForeignFiles:
    """Translates between files of other networks and their URIs here, and opens them."""

    def __init__(self, ctx: NetworkContext, server: str) -> None:
        self._ctx = ctx
        self._server = server
        self._ids = NativeIds(ctx, server)

    def make_uri(self, source: NativeId | None) -> str:
        """The ``mxc:`` URI of a file: its own if it is a file of Matrix. Empty where it cannot have one."""
        return self._ids.uri_of(source)

    def find_source(self, mxc: MxcUri) -> NativeId | None:
        """The file of another network that a URI names, None for a file of Matrix."""
        if mxc.server != self._server or not mxc.media_id.startswith(FOREIGN_PREFIX):
            return None
        return self._ctx.media.find_source(mxc.media_id.removeprefix(FOREIGN_PREFIX))

    @asynccontextmanager
    async def open_source(self, source: NativeId) -> AsyncIterator[MediaStream]:
        """Opens a file of another network. Raises ``MatrixError``, ``Busy``."""
        try:
            stream = await self._ctx.media.open(Attachment(name="", source=source))
            async with aclosing(stream.chunks):
                yield stream
        except MediaUnavailable as error:
            status, code = _STATUS.get(error.refusal.code, (502, "M_UNKNOWN"))
            raise matrix_error(status, code, error.refusal.text) from error

    async def is_gone(self, source: NativeId) -> bool:
        """True if a file was deleted where it is kept."""
        try:
            stream = await self._ctx.media.open(Attachment(name="", source=source))
        except MediaUnavailable as error:
            return error.refusal.code is RefusalCode.NOT_FOUND
        await stream.chunks.aclose()
        return False
