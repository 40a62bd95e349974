"""Files between a real Synapse and a network without files: a link out of Matrix, an address into it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from e2e.room_sides import PIXEL
from e2e.three_servers import wait_matrix_member
from hansa import Attachment, MediaService, MediaUnavailable, Message, Retraction
from peers.synapse import Refusal
from peers.waiting import until

pytestmark = pytest.mark.e2e


async def test_a_picture_crosses_as_a_link_and_as_an_address_until_it_is_retracted(stage, matrix_user, ca):
    hansa, alice = await stage(), await matrix_user("alice")
    await hansa.run("matrix", "rooms", "create", "#lobby")
    await hansa.run("rooms", "create", "matrix:#lobby", "stage:lobby")
    room = await alice.join(f"#lobby:{hansa.name}")
    actor, juliet = hansa.actor, "juliet@capulet"
    await actor.join("lobby", juliet, "Juliet")
    await wait_matrix_member(alice, room, "Juliet")
    tls = ssl.create_default_context(cafile=str(ca.certificate))

    async def get(url: str) -> tuple[int, bytes]:
        async with aiohttp.ClientSession() as session, session.get(url, ssl=tls) as answer:
            return answer.status, await answer.read()

    # Out of Matrix: Synapse's file, fetched when the link is opened.
    mxc = await alice.upload(PIXEL, "image/png", "balcony.png")
    sent = await alice.call(
        "PUT",
        f"/rooms/{room}/send/m.room.message/picture",
        {"msgtype": "m.image", "body": "balcony.png", "url": mxc, "info": {"mimetype": "image/png"}},
    )
    await actor.until_shown("lobby", lambda shown: any(getattr(one, "attachments", ()) for one in shown))
    delivery = next(one for one in actor.got["lobby"] if getattr(one.content, "attachments", ()))
    url = actor.ctx.media.link(delivery.content.attachments[0], "lobby", delivery.event.id)
    assert urlsplit(url).netloc == hansa.name
    assert await get(url) == (200, PIXEL)
    await alice.call("PUT", f"/rooms/{room}/redact/{sent['event_id']}/gone", {})
    await until("the link ends", lambda: _has_status(get, url, 410))

    # Into Matrix: a file of the core, copied when Synapse asks for it.
    async def chunks() -> AsyncIterator[bytes]:
        yield PIXEL

    attachment = await actor.ctx.media.store(chunks(), name="garden.png", sender=juliet)
    result = await actor.do("lobby", juliet, Message(text="", attachments=(attachment,)))
    assert result.event is not None

    async def shown() -> dict[str, Any] | None:
        events = await alice.history(room)
        return next(
            (e for e in events if e["content"].get("filename", e["content"].get("body")) == "garden.png"),
            None,
        )

    event = await until("the picture is there", shown)
    headers, data = await alice.download(event["content"]["url"])
    assert (headers["content-type"], data) == ("image/png", PIXEL)
    await actor.do("lobby", juliet, Retraction(target=result.event.id))
    await until("the file is deleted", lambda: _is_gone(actor.ctx.media, attachment))
    hansa_only = event["content"]["url"] + "x"
    with pytest.raises(Refusal) as refused:
        await alice.download(hansa_only)
    assert refused.value.status == 404


async def _has_status(get: Any, url: str, status: int) -> bool:
    return (await get(url))[0] == status


async def _is_gone(media: MediaService, attachment: Attachment) -> bool:
    try:
        stream = await media.open(attachment)
    except MediaUnavailable:
        return True
    await stream.chunks.aclose()
    return False
