"""Files of Matrix, local and remote, that the core opens for the people of other networks."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from hansa import Attachment, KeepsMedia, MediaUnavailable, NativeId, RefusalCode
from hansa_matrix.proto.media import MxcUri
from matrix.server_with_peer import OURS, THEIRS, ServerWithPeer, server_with_peer
from matrix.test_media import MXC, PICTURE, in_parts, kept


async def read(house: ServerWithPeer, uri: str, first: int = 0, last: int | None = None) -> bytes:
    network = house.app.network("matrix")
    assert isinstance(network, KeepsMedia)
    stream = await network.open_media(uri, first=first, last=last)
    assert (stream.media_type, stream.size) == ("image/png", len(PICTURE))
    async with aclosing(stream.chunks) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_a_file_of_this_server_is_opened_by_its_address(tmp_path):
    async with server_with_peer(tmp_path) as house:
        item = await kept(house)
        assert await read(house, str(item.mxc)) == PICTURE
        assert await read(house, str(item.mxc), 3, 9) == PICTURE[3:10]
        assert await read(house, str(item.mxc), len(PICTURE)) == b""
        attachment = Attachment(name="x.png", source=NativeId("matrix", str(item.mxc)))
        stream = await house.app.contexts["matrix"].media.open(attachment, first=1)
        async with aclosing(stream.chunks) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == PICTURE[1:]


async def test_a_file_of_another_server_is_fetched_and_opened(tmp_path):
    async with server_with_peer(tmp_path) as house:
        house.peer.answer = lambda _: in_parts()
        assert await read(house, str(MXC)) == PICTURE
        assert await house.matrix.media.get(MXC) is not None


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        (str(MxcUri(OURS, "none")), RefusalCode.NOT_FOUND),
        ("mxc://x", RefusalCode.NOT_FOUND),
        ("https://files.example/x", RefusalCode.NOT_FOUND),
        (str(MxcUri(THEIRS, "none")), RefusalCode.NOT_FOUND),
    ],
)
async def test_a_file_that_is_not_there_is_refused(tmp_path, uri, code):
    async with server_with_peer(tmp_path) as house:
        network = house.app.network("matrix")
        assert isinstance(network, KeepsMedia)
        with pytest.raises(MediaUnavailable) as caught:
            await network.open_media(uri)
        assert caught.value.refusal.code is code
