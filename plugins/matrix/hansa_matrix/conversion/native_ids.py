"""The ids of Matrix, as the core names users, files and rooms of any network."""

from __future__ import annotations

from typing import Final

from hansa import NativeId, NetworkContext

from hansa_matrix.proto.ids import domain_of
from hansa_matrix.proto.media import MxcUri, parse_mxc
from hansa_matrix.proto.message_content import file_id

#: The beginning of the media ids of other networks' files; ids of files of this server have another length.
FOREIGN_PREFIX: Final = "foreign_"


class NativeIds:
    """Makes the core's ids. ``server`` is the name of this server, which ghosts belong to."""

    def __init__(self, ctx: NetworkContext, server: str) -> None:
        self._ctx = ctx
        self._server = server
        #: The id of the network.
        self.network = ctx.id

    async def home_of(self, user: str) -> NativeId:
        """Returns the native id of a Matrix user. For a ghost this is the id of a person of another network;
        a ghost is also a user of this server.
        """
        if domain_of(user) != self._server:
            return NativeId(self.network, user)
        return await self._ctx.home_of(user)

    def file_of(self, url: str | None) -> NativeId | None:
        """The id of a file by its ``mxc:`` URI, None for any other address. A URI by which this server names
        another network's file gives that file: it is judged, and kept, as what it is.
        """
        return self.original_of(file_id(url, self.network))

    def original_of(self, source: NativeId | None) -> NativeId | None:
        """The file of another network that a file of Matrix stands for, else the file itself."""
        mxc = parse_mxc(source.id) if source is not None and source.network == self.network else None
        if mxc is None or mxc.server != self._server or not mxc.media_id.startswith(FOREIGN_PREFIX):
            return source
        return self._ctx.media.find_source(mxc.media_id.removeprefix(FOREIGN_PREFIX)) or source

    def uri_of(self, source: NativeId | None) -> str:
        """The ``mxc:`` URI of a file of any network: its own if it is a file of Matrix, else one of this
        server that names the file. Empty where it cannot have one.
        """
        if source is None:
            return ""
        if source.network == self.network:
            return source.id if parse_mxc(source.id) is not None else ""
        name = self._ctx.media.name_source(source)
        return str(MxcUri(self._server, FOREIGN_PREFIX + name)) if name else ""

    def room_of(self, room_id: str | None) -> NativeId | None:
        """The id of a room."""
        return NativeId(self.network, room_id) if room_id else None
