"""Links to files: who can open them, for how long, and what an answer says."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import replace
from io import BytesIO
from typing import Any
from urllib.parse import quote

import pytest
from core.media_rig import BASE, MediaRig, media_rig
from hansa import (
    Action,
    Attachment,
    Edit,
    Features,
    Kind,
    Level,
    MediaStream,
    MediaTransfer,
    MediaUnavailable,
    Message,
    NativeId,
    NetworkContext,
    Reason,
    Refusal,
    RefusalCode,
    RemoteProtocolError,
    Request,
    Response,
    Retraction,
    Router,
    Verdict,
    hookimpl,
)
from hansa.admin.media_links import MediaLinkCommands
from hansa.http.listener import Dispatcher
from hansa.media.transfer_slots import MAX_TRANSFERS
from hansa.testing import run_hansa, until
from hansa.testing.actor import Actor, Config, module
from PIL import Image

DAY_MS = 86_400_000


def denied(text: str = "no pictures") -> Verdict:
    return Verdict(Action.DENY, (Reason(code="NO", policy="judge", rule="r", text=text),))


@pytest.fixture
async def rig(tmp_path) -> AsyncIterator[MediaRig]:
    """Gives a running service with two networks."""
    async with media_rig(tmp_path / "media") as made:
        yield made


def in_use(rig: MediaRig) -> int:
    opener = rig.app.media.opener
    return opener.slots.taken + opener.link_slots.taken


def picture() -> bytes:
    made = BytesIO()
    Image.new("RGB", (64, 48), "blue").save(made, "PNG")
    return made.getvalue()


async def test_a_link_gives_the_file_to_who_has_it(rig):
    data = picture()
    attachment = await rig.store(data, "balcony view.png", "application/octet-stream")
    assert (attachment.media_type, attachment.size) == ("image/png", len(data))
    assert (attachment.width, attachment.height) == (64, 48)
    event = await rig.send(attachment)
    url = rig.right.ctx.media.link(attachment, "b", event.id)
    assert url.startswith(f"{BASE}/_hansa/media/") and url.endswith("/balcony%20view.png")
    answer = await rig.get(url)
    assert (answer.status, answer.body) == (200, data)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"].startswith("inline")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "private, no-store"
    assert (await rig.get(url.rpartition("/")[0])).body == data


async def test_a_link_fits_into_a_line_of_a_chat(rig):
    url, _ = await rig.linked(b"x", "n" * 255)
    assert len(url) < 220


async def test_head_tells_the_size_and_gives_no_byte(rig):
    url, _ = await rig.linked(b"0123456789")
    answer = await rig.get(url, "HEAD")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "10")
    await until(lambda: in_use(rig) == 0)


@pytest.mark.parametrize(
    ("asked", "status", "body", "shown"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=0-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, b"the file has 10 bytes", "bytes */10"),
        ("bytes=5-2", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=-" + "9" * 30, 200, b"0123456789", None),
    ],
)
async def test_a_part_of_a_file(rig, asked, status, body, shown):
    url, _ = await rig.linked(b"0123456789")
    answer = await rig.get(url, Range=asked)
    assert (answer.status, answer.body, answer.headers.get("content-range")) == (status, body, shown)
    await until(lambda: in_use(rig) == 0)


@pytest.mark.parametrize(
    ("data", "claimed"),
    [
        (b"<html><script>alert(1)</script>", "image/png"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "image/svg+xml"),
        (b"%PDF-1.4", "text/plain"),
        (b"anything", "application/xhtml+xml"),
    ],
)
async def test_nothing_that_a_browser_runs_is_shown_in_a_page(rig, data, claimed):
    url, _ = await rig.linked(data, "x.html", claimed)
    answer = await rig.get(url)
    assert answer.body == data
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "name", ['a"; filename=evil.html', "a\r\nSet-Cookie: x=y", "../../x", "ä€😀.png", ""]
)
async def test_a_hostile_name_stays_a_name(rig, name):
    url, _ = await rig.linked(b"words", name)
    answer = await rig.get(url)
    assert answer.status == 200
    assert "set-cookie" not in answer.headers
    assert "\n" not in url and " " not in url


async def test_a_forged_link_opens_nothing(rig):
    url, _ = await rig.linked(b"secret")
    head, token, name = url.removeprefix(f"{BASE}").rsplit("/", 2)
    raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    assert (await rig.get(f"{head}/{token}/{name}")).status == 200
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        forged = urlsafe_b64encode(changed).decode().rstrip("=")
        assert (await rig.get(f"{head}/{forged}/{name}")).status == 404
    for text in (token + "=", token[:-1], "A" * 600, quote("ä"), "%00", token + "A"):
        assert (await rig.get(f"{head}/{text}/{name}")).status == 404


async def test_a_link_ends(rig):
    url, _ = await rig.linked(b"words")
    rig.clock.advance(7 * 86_400 - 1)
    assert (await rig.get(url)).status == 200
    rig.clock.advance(2)
    assert (await rig.get(url)).status == 410


async def test_the_key_of_links_is_renewed_and_old_links_live_on(rig):
    url, event = await rig.linked(b"words")
    rig.clock.advance(4 * 86_400)
    attachment = event.content.attachments[0]
    later = rig.right.ctx.media.link(attachment, "b", event.id)
    rig.clock.advance(4 * 86_400)
    await rig.app.media.keys.load()
    assert len(rig.app.media.keys.keys) == 2
    assert (await rig.get(later)).status == 200
    assert (await rig.get(url)).status == 410
    newest = rig.right.ctx.media.link(attachment, "b", event.id)
    rig.clock.advance(8 * 86_400)
    await rig.app.media.keys.load()
    assert len(rig.app.media.keys.keys) == 2
    assert await MediaLinkCommands(rig.app).revoke_links(Request(method="POST", target="/", host=""), {})
    assert (await rig.get(newest)).status == 404
    assert (await rig.get(rig.right.ctx.media.link(attachment, "b", event.id))).status == 200


async def test_links_outlive_a_restart(tmp_path):
    from hansa.store import open_store

    url = ""
    for attempt in range(2):
        store = open_store("sqlite:hansa.db", tmp_path)
        async with media_rig(tmp_path / "media", store=store) as rig:
            if not attempt:
                url, _ = await rig.linked(b"words")
            assert (await rig.get(url)).body == b"words"


async def test_a_link_names_one_file_of_one_event_for_one_network(rig):
    """Neither another event's file, nor another link's people."""
    one, two = await rig.store(b"one"), await rig.store(b"two")
    event = await rig.send(one)
    await rig.send(two)
    assert (await rig.get(rig.right.ctx.media.link(one, "b", event.id))).status == 200
    assert (await rig.get(rig.right.ctx.media.link(two, "b", event.id))).status == 410
    assert (await rig.get(rig.right.ctx.media.link(one, "other", event.id))).status == 410
    assert (await rig.get(rig.right.ctx.media.link(one, "b", "nothing"))).status == 410
    await rig.right.ctx.close_link("b")
    assert (await rig.get(rig.right.ctx.media.link(one, "b", event.id))).status == 410


async def test_a_retracted_event_ends_its_links_and_deletes_its_file(rig):
    url, event = await rig.linked(b"my secret")
    assert len(rig.files) == 1
    await rig.left.do("a", "ann@x", Retraction(target=event.id))
    assert (await rig.get(url)).status == 410
    await until(lambda: not rig.files)
    assert await rig.app.core.count("event") >= 2


async def test_a_file_goes_with_the_last_event_that_names_it(rig):
    attachment = await rig.store(b"shared")
    first, second = await rig.send(attachment), await rig.send(attachment)
    await rig.left.do("a", "ann@x", Retraction(target=first.id))
    assert (await rig.get(rig.right.ctx.media.link(attachment, "b", first.id))).status == 410
    assert await rig.app.media.cleaner.release_files([first.id]) == 0
    assert (await rig.get(rig.right.ctx.media.link(attachment, "b", second.id))).body == b"shared"
    await rig.left.do("a", "ann@x", Retraction(target=second.id))
    await until(lambda: not rig.files)


async def test_a_file_of_an_edit_goes_with_the_message(rig):
    event = await rig.send(text="look")
    attachment = await rig.store(b"by edit")
    edit = (
        await rig.left.do(
            "a", "ann@x", Edit(target=event.id, message=Message(text="look", attachments=(attachment,)))
        )
    ).event
    url = rig.right.ctx.media.link(attachment, "b", edit.id)
    assert (await rig.get(url)).body == b"by edit"
    await rig.left.do("a", "ann@x", Retraction(target=event.id))
    assert (await rig.get(url)).status == 410
    await until(lambda: not rig.files)


async def test_the_policies_of_now_judge_a_link_when_it_is_opened(rig):
    url, event = await rig.linked(picture(), "party.png", "image/png")
    judge = rig.judged()
    assert (await rig.get(url)).status == 200
    asked = [one for one in judge.asked if isinstance(one, MediaTransfer)]
    assert [(one.network, one.name, one.type, one.size, one.outbound) for one in asked] == [
        ("right", "party.png", "image/png", event.content.attachments[0].size, True)
    ]
    judge.denies = lambda one: (
        denied() if isinstance(one, MediaTransfer) and one.name == "party.png" else None
    )
    answer = await rig.get(url)
    assert answer.status == 403 and answer.body.startswith(b"no pictures [d-")


async def test_a_link_is_judged_for_each_server_of_the_people_who_get_it(rig):
    await rig.right.join("b", "bob@near.example")
    await rig.right.join("b", "eve@far.example")
    await rig.left.join("a", "ann@left.example")
    attachment = await rig.store(b"words")
    event = (await rig.left.do("a", "ann@left.example", Message(text="", attachments=(attachment,)))).event
    assert event is not None
    url = rig.right.ctx.media.link(attachment, "b", event.id)
    judge = rig.judged()
    assert (await rig.get(url)).status == 200
    servers = [one.server for one in judge.asked if isinstance(one, MediaTransfer)]
    assert servers == ["far.example", "near.example"]
    judge.denies = lambda one: (
        denied() if isinstance(one, MediaTransfer) and one.server == "near.example" else None
    )
    assert (await rig.get(url)).status == 403


async def test_a_link_is_judged_for_the_last_of_many_servers_too(rig, monkeypatch):
    for number in range(30):
        await rig.right.join("b", f"bob@s{number:02}.example")
    attachment = await rig.store(b"words")
    event = await rig.send(attachment)
    url = rig.right.ctx.media.link(attachment, "b", event.id)
    judge = rig.judged()
    assert (await rig.get(url)).status == 200
    judge.denies = lambda one: (
        denied() if isinstance(one, MediaTransfer) and one.server == "s29.example" else None
    )
    assert (await rig.get(url)).status == 403
    judge.denies = lambda _one: None
    monkeypatch.setattr("hansa.media.link_endpoint.MAX_SERVERS_ASKED", 29)
    assert (await rig.get(url)).status == 403


async def test_policies_are_not_asked_about_a_link_for_which_no_slot_is_free(rig):
    url, _ = await rig.linked(b"words")
    judge = rig.judged()
    with rig.app.media.opener.link_slots.hold_slot(*["127.0.0.0/24"] * 8):
        assert (await rig.get(url)).status == 429
    assert not judge.asked


async def test_a_room_that_is_unlinked_and_linked_again_does_not_revive_its_links(rig):
    url, event = await rig.linked(b"words")
    room = rig.app.rooms.room_of(NativeId("right", "b"))
    assert (await rig.get(url)).status == 200
    await rig.app.linker.unlink_room(rig.app.rooms.link(NativeId("right", "b")))
    assert (await rig.get(url)).status == 410
    await rig.app.link_room(["right:b"], room.id)
    assert (await rig.get(url)).status == 410
    (attachment,) = event.content.attachments
    again = (await rig.left.do("a", "ann@x", Message(text="", attachments=(attachment,)))).event
    assert (await rig.get(rig.right.ctx.media.link(attachment, "b", again.id))).status == 200


async def test_an_opened_file_is_judged_by_the_server_that_it_comes_from(rig):
    rig.left.open_media = Keeper({"mxc://far.example/f": b"01234", "f": b"01234"}).open_media
    judge = rig.judged()
    own = await rig.store(b"words", sender="ann@home.example")
    for attachment in (own, kept("mxc://far.example/f"), kept("f"), kept("http://[")):
        with suppress(MediaUnavailable):
            await (await rig.right.ctx.media.open(attachment)).chunks.aclose()
    transfers = [one for one in judge.asked if isinstance(one, MediaTransfer)]
    assert [one.server for one in transfers] == ["home.example", "far.example", "left", "left"]
    assert {(one.network, one.outbound) for one in transfers} == {("right", False)}


async def test_a_file_of_a_withheld_event_is_withheld(rig):
    from hansa import EventOut

    url, _ = await rig.linked(b"words")
    judge = rig.judged()
    judge.denies = lambda one: denied() if isinstance(one, EventOut) and one.link.id == "right:b" else None
    assert (await rig.get(url)).status == 403


async def test_a_network_without_files_is_sent_the_name_and_a_link(tmp_path, monkeypatch):
    """The way of a picture to IRC: what the people there read is what they can open."""
    plain = Features(levels={Kind.MESSAGE: Level.FULL})
    monkeypatch.setattr(Actor, "features", property(lambda self: plain))
    async with media_rig(tmp_path) as rig:
        data = picture()
        await rig.send(await rig.store(data, "balcony.png", "image/png"), text="our view")
        (text,) = await rig.right.until("b", 1)
        words, _, url = text.rpartition(" ")
        assert words.startswith("our view") and "balcony.png" in words
        assert (await rig.get(url)).body == data


# Files that a network keeps.


class Keeper:
    """A network's files, by id."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.closed = 0

    async def open_media(self, media: str, *, first: int = 0, last: int | None = None) -> MediaStream:
        if media not in self.files:
            raise MediaUnavailable(Refusal(code=RefusalCode.NOT_FOUND, text="no such file"))
        data = self.files[media]

        async def chunks() -> Any:
            try:
                yield data[first : None if last is None else last + 1]
            finally:
                self.closed += 1

        return MediaStream(media_type="image/png", name="k.png", size=len(data), first=first, chunks=chunks())


def kept(name: str) -> Attachment:
    return Attachment(name="k.png", media_type="image/png", size=5, source=NativeId("left", name))


async def test_a_file_that_a_network_keeps_is_opened_there(rig):
    keeper = Keeper({"mxc://x/y": b"01234"})
    rig.left.open_media = keeper.open_media
    event = await rig.send(kept("mxc://x/y"))
    url = rig.right.ctx.media.link(kept("mxc://x/y"), "b", event.id)
    assert (await rig.get(url)).body == b"01234"
    assert (await rig.get(url, Range="bytes=1-2")).body == b"12"
    async with aclosing((await rig.right.ctx.media.open(kept("mxc://x/y"), first=3)).chunks) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == b"34"
    await until(lambda: in_use(rig) == 0)


async def test_a_network_that_breaks_is_an_answer(rig):
    rig.left.open_media = Keeper({}).open_media
    event = await rig.send(kept("gone"))
    url = rig.right.ctx.media.link(kept("gone"), "b", event.id)
    assert (await rig.get(url)).status == 404

    async def broken(media: str, **_: Any) -> MediaStream:
        raise ValueError(media)

    rig.left.open_media = broken
    assert (await rig.get(url)).status == 502
    await until(lambda: in_use(rig) == 0)


async def test_opening_for_another_network_asks_the_policies(rig):
    rig.left.open_media = Keeper({"f": b"01234"}).open_media
    judge = rig.judged()
    judge.denies = lambda one: denied() if isinstance(one, MediaTransfer) else None
    with pytest.raises(MediaUnavailable) as caught:
        await rig.right.ctx.media.open(kept("f"))
    assert caught.value.refusal.code is RefusalCode.POLICY
    own = await rig.left.ctx.media.open(kept("f"))
    await own.chunks.aclose()


async def test_without_an_address_there_is_no_link(tmp_path):
    async with media_rig(tmp_path, public_url="") as rig:
        attachment = await rig.store(b"x")
        assert rig.right.ctx.media.link(attachment, "b", "e") == ""
        assert rig.right.ctx.media.link(replace(attachment, source=None), "b", "e") == ""
        elsewhere = replace(attachment, source=NativeId("left", "https://files.example/x"))
        assert rig.right.ctx.media.link(elsewhere, "b", "e") == "https://files.example/x"


async def test_too_many_transfers_of_one_address_are_refused(rig: MediaRig):
    url, _ = await rig.linked(b"words")
    slots = rig.app.media.opener.link_slots
    with slots.hold_slot(*["127.0.0.0/24"] * 8):
        assert (await rig.get(url)).status == 429
    assert (await rig.get(url)).status == 200
    await until(lambda: slots.taken == 0)


async def test_readers_of_links_hold_up_no_transfer_of_a_network(rig: MediaRig):
    url, event = await rig.linked(b"words")
    (named,) = event.content.attachments
    async with AsyncExitStack() as held:
        for reader in range(MAX_TRANSFERS):
            stream = await rig.app.media.opener.open_linked(named.source, "right", f"10.0.{reader}.0/24")
            held.push_async_callback(stream.chunks.aclose)
        assert (await rig.get(url)).status == 429
        assert (await rig.store(b"more")).size == 4
        opened = await rig.right.ctx.media.open(named)
        await opened.chunks.aclose()
    assert (await rig.get(url)).status == 200


async def test_who_takes_a_file_too_slowly_is_let_go(rig: MediaRig):
    _, event = await rig.linked(b"words" * 20_000)
    (named,) = event.content.attachments
    stream = await rig.app.media.opener.open_linked(named.source, "right", "10.0.0.0/24")
    await anext(stream.chunks)
    rig.clock.advance(59)
    await anext(stream.chunks)
    rig.clock.advance(100)
    with pytest.raises(RemoteProtocolError, match="too slowly"):
        async for _ in stream.chunks:
            pass
    assert in_use(rig) == 0


class Serving(Actor):
    """A network with a route and without a server name."""

    @hookimpl
    def register_routes(self, router: Router) -> None:
        async def answer(_: Request) -> Response:
            return Response(body=b"mine")

        router.add("GET", "/mine", answer)


async def test_a_network_without_a_server_name_shares_its_router_with_the_links():
    def open_network(ctx: NetworkContext) -> Actor:
        return Serving(ctx)

    plugin: Any = module({})
    plugin.open_network = hookimpl(open_network)
    async with run_hansa({"left": (plugin, Config())}) as app:
        dispatcher = Dispatcher(app.routers, app.count)

        async def read(_limit: int) -> bytes:
            return b""

        statuses = [
            (await dispatcher.answer(Request(method="GET", target=target, host="any.example"), read)).status
            for target in ("/mine", "/_hansa/media/none", "/nowhere")
        ]
        assert statuses == [200, 404, 404]
        assert app.counters["media_links", (("status", "404"),)] == 1
