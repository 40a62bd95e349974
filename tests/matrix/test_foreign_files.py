"""Files of other networks for Matrix clients and servers, under URIs of this server."""

from __future__ import annotations

from typing import Any

from hansa import Attachment, Message, NativeId
from hansa_matrix.conversion.native_ids import FOREIGN_PREFIX
from hansa_matrix.media.repository import MediaRepository
from hansa_matrix.proto.media import parse_mxc
from matrix.server_with_peer import OURS, V1, ServerWithPeer, server_with_peer
from matrix.test_kinds_cross import linked
from matrix.test_media import PICTURE, body_of, bytes_of, fetcher, pieces, read_parts


async def stored(house: ServerWithPeer) -> Attachment:
    media = house.app.contexts["matrix"].media
    return await media.store(pieces(PICTURE), name="a b.png", media_type="image/png")


def repository(house: ServerWithPeer) -> MediaRepository:
    found: MediaRepository = house.matrix.media
    return found


def uri_of(house: ServerWithPeer, attachment: Attachment) -> Any:
    uri = repository(house).foreign.make_uri(attachment.source)
    mxc = parse_mxc(uri)
    assert mxc is not None and mxc.server == OURS and mxc.media_id.startswith(FOREIGN_PREFIX)
    return mxc


async def test_a_file_of_the_core_has_a_uri_and_is_copied_when_asked_for(tmp_path):
    async with server_with_peer(tmp_path) as house:
        attachment = await stored(house)
        mxc = uri_of(house, attachment)
        assert uri_of(house, attachment) == mxc
        assert await repository(house).get(mxc) is None
        item = await fetcher(house).get(mxc)
        assert (item.type, item.name) == ("application/octet-stream", "a b.png")
        assert await bytes_of(house, item) == PICTURE
        assert await repository(house).get(mxc) == item


async def test_another_server_gets_a_file_of_another_network(tmp_path):
    async with server_with_peer(tmp_path) as house:
        mxc = uri_of(house, await stored(house))
        answer = await house.whole("GET", f"{V1}/media/download/{mxc.media_id}")
        headers, found = read_parts(answer.content_type, await body_of(answer))
        assert found == PICTURE and headers["content-type"] == "application/octet-stream"


async def test_a_uri_that_this_server_did_not_make_opens_nothing(tmp_path):
    async with server_with_peer(tmp_path) as house:
        mxc = uri_of(house, await stored(house))
        for media_id in (
            mxc.media_id[:-1],
            mxc.media_id + "A",
            FOREIGN_PREFIX,
            FOREIGN_PREFIX + "A" * 40,
            mxc.media_id.swapcase(),
        ):
            status, answer = await house.ask("GET", f"{V1}/media/download/{media_id}")
            assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


async def test_a_copy_is_deleted_with_the_file(tmp_path):
    async with server_with_peer(tmp_path) as house:
        attachment = await stored(house)
        mxc = uri_of(house, attachment)
        await fetcher(house).get(mxc)
        assert attachment.source is not None
        assert await house.app.media.files.remove_file(attachment.source.id)
        status, _ = await house.ask("GET", f"{V1}/media/download/{mxc.media_id}")
        assert status == 404
        assert await repository(house).list_files() == []


async def test_a_sweep_deletes_the_copies_of_deleted_files(tmp_path):
    async with server_with_peer(tmp_path) as house:
        gone, left = await stored(house), await stored(house)
        for attachment in (gone, left):
            await fetcher(house).get(uri_of(house, attachment))
        assert gone.source is not None
        await house.app.media.files.remove_file(gone.source.id)
        await repository(house).sweep()
        assert [item.mxc for item in await repository(house).list_files()] == [uri_of(house, left)]


async def test_a_file_of_matrix_keeps_its_own_uri(tmp_path):
    async with server_with_peer(tmp_path) as house:
        foreign = repository(house).foreign
        assert foreign.make_uri(NativeId("matrix", "mxc://a.example/b")) == "mxc://a.example/b"
        assert foreign.make_uri(None) == ""
        assert foreign.make_uri(NativeId("xmpp", "https://files.example/" + "x" * 300)) == ""


async def test_a_file_of_another_network_that_is_sent_on_from_matrix_is_what_it_was(tmp_path):
    """Else policies would judge it as a file of this server."""
    async with linked(tmp_path) as house:
        media = house.stage.ctx.media
        file = await media.store(
            pieces(PICTURE), name="a.png", media_type="image/png", sender="bad@far.example"
        )
        uri = str(uri_of(house.peer, file))
        content = {"msgtype": "m.image", "body": "a.png", "url": uri, "info": {"thumbnail_url": uri}}
        event = await house.core(await house.hears("m.room.message", content))
        assert isinstance(event.content, Message)
        (attachment,) = event.content.attachments
        assert (attachment.source, attachment.thumbnail) == (file.source, file.source)
        forged = f"mxc://{OURS}/{FOREIGN_PREFIX}{'A' * 40}"
        event = await house.core(await house.hears("m.room.message", {**content, "url": forged}))
        assert isinstance(event.content, Message)
        assert event.content.attachments[0].source == NativeId("matrix", forged)
