"""The ids of Matrix, as the core names users, files and rooms of any network."""

from __future__ import annotations

from hansa import NativeId, NetworkContext

from hansa_matrix.proto.ids import domain_of
from hansa_matrix.proto.message_content import file_id


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
        """The id of a file by its ``mxc:`` URI, None for any other address."""
        return file_id(url, self.network)

    def room_of(self, room_id: str | None) -> NativeId | None:
        """The id of a room."""
        return NativeId(self.network, room_id) if room_id else None
