"""Files given to other servers and fetched from them: streamed, bounded, and never a way into anything else."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hansa import Action, HttpResponse, LocalProtocolError, MediaTransfer, RemoteProtocolError, Verdict
from hansa.model import media_types
from hansa_matrix.errors import MatrixError
from hansa_matrix.federation.client import RemoteError, ServerUnreachable
from hansa_matrix.media.repository import MediaItem
from hansa_matrix.proto.media import MultipartFileReader, MxcUri, multipart_head, multipart_tail, parse_mxc
from hypothesis import given
from hypothesis import strategies as st
from matrix.server_with_peer import OURS, THEIRS, V1, ServerWithPeer, server_with_peer
from PIL import Image

PICTURE = bytes(range(256)) * 500
MXC = MxcUri(THEIRS, "abc_DEF-1")


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def kept(
    house: ServerWithPeer, data: bytes = PICTURE, kind: str = "image/png", name: str = "a b.png"
) -> MediaItem:
    return await house.matrix.media.add_file(pieces(data), kind, name)


async def body_of(answer: Any) -> bytes:
    return b"".join([chunk async for chunk in answer.chunks])


def read_parts(content_type: str, body: bytes, at_once: int = 1000) -> tuple[dict[str, str], bytes]:
    parts, found = MultipartFileReader(content_type), b""
    for at in range(0, len(body), at_once):
        found += parts.feed(body[at : at + at_once])
    parts.finish()
    return dict(parts.headers or {}), found


def fetcher(house: ServerWithPeer) -> Any:
    return house.matrix.remote_media


async def bytes_of(house: ServerWithPeer, item: MediaItem) -> bytes:
    return b"".join([c async for c in house.matrix.media.read_chunks(item)])


# Given.


async def test_a_file_is_given_in_two_parts(tmp_path):
    async with server_with_peer(tmp_path) as house:
        item = await kept(house)
        answer = await house.whole("GET", f"{V1}/media/download/{item.mxc.media_id}?timeout_ms=1")
        headers, found = read_parts(answer.content_type, await body_of(answer))
        assert answer.status == 200 and found == PICTURE
        assert headers["content-type"] == "image/png"
        assert headers["content-disposition"] == "inline; filename*=utf-8''a%20b.png"


async def test_a_smaller_picture_is_given_in_two_parts(tmp_path):
    async with server_with_peer(tmp_path) as house:
        out = io.BytesIO()
        Image.new("RGB", (900, 600), "red").save(out, "PNG")
        item = await kept(house, out.getvalue())
        for width, size in ((90, (96, 64)), (1600, (900, 600))):
            target = f"{V1}/media/thumbnail/{item.mxc.media_id}?width={width}&height={width}"
            answer = await house.whole("GET", target)
            headers, found = read_parts(answer.content_type, await body_of(answer))
            with Image.open(io.BytesIO(found)) as picture:
                assert picture.size == size
            assert headers["content-type"] == ("image/jpeg" if width == 90 else "image/png")
        status, answer = await house.ask("GET", f"{V1}/media/thumbnail/{item.mxc.media_id}")
        assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("media_id", ["none", "..%2F..%2Fmatrix.key", "a.b", "%00", "x" * 300])
async def test_what_is_not_there_is_404(tmp_path, media_id):
    async with server_with_peer(tmp_path) as house:
        await kept(house)
        status, answer = await house.ask("GET", f"{V1}/media/download/{media_id}")
        assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")


async def test_a_file_of_another_server_is_not_passed_on(tmp_path):
    async with server_with_peer(tmp_path) as house:
        library = house.matrix.media
        await library.add_file(pieces(b"x"), "text/plain", "", mxc=MXC)
        assert (await house.ask("GET", f"{V1}/media/download/{MXC.media_id}"))[0] == 404


async def test_what_a_browser_might_run_is_never_shown_inline(tmp_path):
    async with server_with_peer(tmp_path) as house:
        for kind, shown in (
            ("text/html; charset=utf-8", "text/html; charset=utf-8"), ("image/svg+xml", "image/svg+xml"),
            ("APPLICATION/PDF; charset=utf-8", "application/pdf"), ("nonsense\r\nX: y", "application/octet-stream"),
        ):  # fmt: skip
            item = await kept(house, b"<x>", kind, 'a"\r\nX: y/../b.html')
            answer = await house.whole("GET", f"{V1}/media/download/{item.mxc.media_id}")
            headers, _ = read_parts(answer.content_type, await body_of(answer))
            assert set(headers) == {"content-type", "content-disposition"}
            assert headers["content-type"] == shown
            assert headers["content-disposition"].startswith("attachment;")
            assert "b.html" in headers["content-disposition"] and "/" not in headers["content-disposition"]


async def test_there_is_no_thumbnail_of_what_is_no_picture(tmp_path):
    async with server_with_peer(tmp_path) as house:
        item = await kept(house, kind="text/plain")
        target = f"{V1}/media/thumbnail/{item.mxc.media_id}?width=9&height=9"
        status, answer = await house.ask("GET", target)
        assert (status, answer["errcode"]) == (400, "M_UNKNOWN")


async def test_a_policy_decides_what_goes_to_whom(tmp_path):
    async with server_with_peer(tmp_path) as house:
        item, asked = await kept(house), []
        context = house.app.contexts["matrix"]

        async def check(crossing: Any) -> Verdict:
            asked.append(crossing)
            return Verdict(Action.DENY if isinstance(crossing, MediaTransfer) else Action.ALLOW)

        context.check = check
        assert (await house.ask("GET", f"{V1}/media/download/{item.mxc.media_id}"))[0] == 403
        size = len(PICTURE)
        assert asked[-1] == MediaTransfer(
            network="matrix",
            server=THEIRS,
            media=str(item.mxc),
            outbound=True,
            type="image/png",
            size=size,
            name="a b.png",
        )
        with pytest.raises(MatrixError) as refused:
            await fetcher(house).get(MXC)
        assert refused.value.hint == 403
        assert asked[-1] == MediaTransfer(network="matrix", server=THEIRS, media=str(MXC), outbound=False)


# Fetched.


def in_parts(
    data: bytes = PICTURE, kind: str = "image/png", name: str = "x.png", **over: Any
) -> HttpResponse:
    body = multipart_head("bound", kind, name) + data + multipart_tail("bound")
    headers = {"content-type": "multipart/mixed; boundary=bound"}
    return HttpResponse(status=200, headers=headers, body=over.get("body", body))


def targets(house: ServerWithPeer) -> list[str]:
    return [r.target for r in house.peer.asked if "/media/" in r.target]


async def test_a_file_is_fetched_once_for_all_who_ask_and_kept(tmp_path):
    async with server_with_peer(tmp_path) as house:
        house.peer.answer = lambda _: in_parts()
        items = await asyncio.gather(*(fetcher(house).get(MXC) for _ in range(5)))
        item = await fetcher(house).get(MXC)
        assert {*items, item} == {item}
        assert (item.type, item.name, item.blob.size) == ("image/png", "x.png", len(PICTURE))
        assert await bytes_of(house, item) == PICTURE
        assert targets(house) == [f"{V1}/media/download/abc_DEF-1"]
        assert "Authorization" in house.peer.asked[-1].headers


@pytest.mark.parametrize("code", ["M_UNRECOGNIZED", "M_NOT_FOUND"])
async def test_a_server_that_does_not_know_that_is_asked_as_before(tmp_path, code):
    async with server_with_peer(tmp_path) as house:

        def answer(request: Any) -> Any:
            if "/v1/media/" in request.target:
                return 404, {"errcode": code}
            headers = {
                "content-type": "text/plain; charset=utf-8",
                "content-disposition": 'attachment; filename="é.txt"',
            }
            return HttpResponse(status=200, headers=headers, body=b"old")

        house.peer.answer = answer
        item = await fetcher(house).get(MXC)
        assert (item.type, item.blob.size) == ("text/plain", 3)
        legacy = f"/_matrix/media/v3/download/{THEIRS.replace(':', '%3A')}/abc_DEF-1?allow_remote=false"
        assert targets(house)[1] == legacy
        assert "Authorization" not in house.peer.asked[-1].headers


async def test_a_file_that_is_elsewhere_is_fetched_there(tmp_path):
    async with server_with_peer(tmp_path) as house:
        head = b"--bound\r\nContent-Type: application/json\r\n\r\n{}\r\n--bound\r\nLocation: "
        places = [
            b"https://cdn.example:444/f?x=1", b"http://cdn.example/f", b"file:///etc/passwd", b"https://[bad/f", b"",
        ]  # fmt: skip

        def answer(request: Any) -> Any:
            if request.host == "cdn.example":
                headers = {"content-type": "image/gif", "content-disposition": "inline"}
                return HttpResponse(status=200, headers=headers, body=b"GIF")
            return in_parts(body=head + places.pop(0) + b"\r\n\r\n\r\n--bound--\r\n")

        house.peer.answer = answer
        item = await fetcher(house).get(MXC)
        assert (item.type, await bytes_of(house, item)) == ("image/gif", b"GIF")
        asked = house.peer.asked[-1]
        assert (asked.port, asked.target, asked.tls_name) == (444, "/f?x=1", "cdn.example")
        assert (asked.host_header, "Authorization" in asked.headers) == ("cdn.example:444", False)
        while places:
            with pytest.raises(RemoteProtocolError, match="the address in the answer is not"):
                await fetcher(house).get(MxcUri(THEIRS, "other"))


WRONG = {
    "no multipart": HttpResponse(status=200, headers={"content-type": "image/png"}, body=b"x"),
    "no boundary": HttpResponse(status=200, headers={"content-type": "multipart/mixed"}, body=b"x"),
    "one part": in_parts(body=b"--bound\r\n\r\n{}\r\n--bound--\r\n"),
    "three parts": in_parts(
        body=multipart_head("bound", "a/b", "") + b"x\r\n--bound\r\n\r\ny\r\n--bound--\r\n"
    ),
    "cut off": in_parts(body=multipart_head("bound", "a/b", "") + b"only half"),
    "nothing": in_parts(body=b""),
    "no part": in_parts(body=b"--bound--\r\n"),
    "endless header": in_parts(body=b"--bound\r\nA: " + b"x" * 100_000),
    "many headers": in_parts(body=b"--bound\r\n" + b"A: x\r\n" * 100 + b"\r\n"),
    "large first part": in_parts(
        body=b"--bound\r\n\r\n" + b" " * 100_000 + b"\r\n--bound\r\n\r\nx\r\n--bound--"
    ),
}


@pytest.mark.parametrize("how", WRONG)
async def test_an_answer_that_is_none_leaves_nothing(tmp_path, how):
    async with server_with_peer(tmp_path) as house:
        house.peer.answer = lambda _: WRONG[how]
        with pytest.raises(RemoteProtocolError):
            await fetcher(house).get(MXC)
        assert house.app.setup.blobs.stored == {} and await fetcher(house)._library.list_files() == []
        assert not fetcher(house)._under_way
        house.peer.answer = lambda _: in_parts()
        assert (await fetcher(house).get(MXC)).blob.size == len(PICTURE)  # it is tried again


async def test_a_file_that_is_too_large_is_refused(tmp_path):
    async with server_with_peer(tmp_path, max_upload_size=1000) as house:
        house.peer.answer = lambda _: in_parts(b"x" * 1000)
        assert (await fetcher(house).get(MXC)).blob.size == 1000
        house.peer.answer = lambda _: in_parts(b"x" * 1001)
        with pytest.raises(MatrixError) as refused:
            await fetcher(house).get(MxcUri(THEIRS, "large"))
        assert (refused.value.hint, refused.value.code) == (502, "M_TOO_LARGE")


async def test_what_is_not_anywhere(tmp_path):
    async with server_with_peer(tmp_path) as house:
        house.peer.answer = lambda _: (404, {"errcode": "M_NOT_FOUND"})
        with pytest.raises(RemoteError) as refused:
            await fetcher(house).get(MXC)
        assert refused.value.hint == 404
        with pytest.raises(MatrixError):
            await fetcher(house).get(MxcUri(OURS, "none"))
        assert len(targets(house)) == 2  # a local file is not requested from a server
        house.peer.answer = lambda _: (504, {"errcode": "M_NOT_YET_UPLOADED"})
        with pytest.raises(ServerUnreachable):
            await fetcher(house).get(MXC)


async def test_remote_files_go_when_nobody_asks_for_them_and_the_bytes_with_the_last(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        library, clock = house.matrix.media, house.app.contexts["matrix"].clock
        mine = await kept(house, b"same")
        for name in ("old", "used"):
            await library.add_file(pieces(b"same"), "a/b", "", mxc=MxcUri(THEIRS, name))
        await library.add_file(pieces(b"other"), "a/b", "", mxc=MxcUri(THEIRS, "other"))
        start = clock.now()
        now = [start + 20 * 86_400_000]
        monkeypatch.setattr(type(clock), "now", lambda _: now[0])
        assert await library.get(MxcUri(THEIRS, "used")) is not None
        now[0] = start + 31 * 86_400_000
        await library.sweep()
        assert {str(i.mxc) for i in await library.list_files()} == {str(mine.mxc), f"mxc://{THEIRS}/used"}
        assert len(house.app.setup.blobs.stored) == 1
        assert await bytes_of(house, mine) == b"same"


# What an operator does.


async def test_an_operator_adds_gets_lists_and_removes(tmp_path):
    async with server_with_peer(tmp_path) as house:
        operations = house.matrix.network.admin_commands()
        source = tmp_path / "room picture.png"
        source.write_bytes(PICTURE)
        added = await operations["media add"]({"file": str(source)})
        assert (added["type"], added["size"], added["name"]) == ("image/png", len(PICTURE), source.name)
        assert added["media"].startswith(f"mxc://{OURS}/")
        target = tmp_path / "copy.png"
        got = await operations["media get"]({"media": added["media"], "file": str(target)})
        assert target.read_bytes() == PICTURE and got["file"] == str(target)
        assert [m["media"] for m in await operations["media ls"]({})] == [added["media"]]
        assert await operations["media ls"]({"server": THEIRS}) == []
        mistakes: list[tuple[str, dict[str, Any], str]] = [
            ("media get", {"media": added["media"], "file": str(target)}, "File exists"),
            ("media get", {"media": "mxc://x", "file": str(target)}, "not like mxc"),
            ("media get", {"media": f"mxc://{OURS}/none", "file": str(tmp_path / "n")}, "no such file"),
            ("media add", {"file": "relative.png"}, "whole path"),
            ("media add", {"file": str(tmp_path / "none")}, "No such file"),
            ("media rm", {"media": f"mxc://{OURS}/none"}, "is not here"),
        ]
        for words, arguments, why in mistakes:
            with pytest.raises(LocalProtocolError, match=why):
                await operations[words](arguments)
        assert not (tmp_path / "n").exists()
        await operations["media rm"]({"media": added["media"]})
        assert await operations["media ls"]({}) == [] and house.app.setup.blobs.stored == {}


# Ids and names.


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mxc://",
        "mxc://a",
        "mxc://a/",
        "mxc:///b",
        "mxc://a/b/c",
        "mxc://a/../b",
        "http://a/b",
        "mxc://a b/c",
    ],
)
def test_what_is_no_address(text):
    assert parse_mxc(text) is None


def test_addresses():
    assert parse_mxc("mxc://a.example:1/b-C_1") == MxcUri("a.example:1", "b-C_1")
    assert str(MxcUri("a", "b")) == "mxc://a/b"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ('inline; filename="a.png"', "a.png"), ("attachment; filename*=utf-8''%C3%A9.txt", "é.txt"),
        ('inline; filename="../../etc/passwd"', "passwd"), ('inline; filename="a\\\\..\\\\b"', "b"),
        ('inline; filename="a\udcff.png"', "a\ufffd\ufffd\ufffd.png"), ("a\udcff=\u00c3", ""),
        ("inline; filename*=utf-8''a; filename*0=b", ""), ("inline; filename*=nope''%ff", "\u00ff"),
        ("inline", ""), ("", ""), (None, ""), ('inline; filename="x' + "y" * 3000 + '"', ""),
    ],
)  # fmt: skip
def test_names_of_files(given, name):
    assert media_types.parse_file_name(given) == name


@given(st.text(st.characters() | st.sampled_from("*=;'\"0123 \udcff")))
def test_any_disposition_gives_a_name_or_none(parameters: str) -> None:
    assert media_types.parse_file_name(f"inline; filename{parameters}").isprintable()


@given(st.text(), st.text())
def test_no_name_or_type_breaks_out_of_its_header(kind: str, name: str) -> None:
    head = multipart_head("b", media_types.parse_media_type(kind), media_types.sanitise_name(name)).decode()
    lines = head.split("\r\n")
    assert len(lines) == 9 and "\n" not in "".join(lines)
    headers, found = read_parts("multipart/mixed; boundary=b", head.encode() + b"x" + multipart_tail("b"))
    assert found == b"x" and set(headers) == {"content-type", "content-disposition"}
    if media_types.sanitise_name(name).strip() == media_types.sanitise_name(name):
        assert media_types.parse_file_name(headers["content-disposition"]) == media_types.sanitise_name(name)


@given(st.binary(max_size=2000), st.integers(1, 500))
def test_any_file_survives_in_any_chunks(data: bytes, at_once: int) -> None:
    body = multipart_head("bound", "a/b", "n") + data + multipart_tail("bound")
    assert read_parts("multipart/mixed; boundary=bound", body, at_once)[1] == data


@given(st.binary(max_size=500), st.integers(1, 100))
def test_nothing_makes_the_reader_raise_otherwise(data: bytes, at_once: int) -> None:
    for body in (data, b"--b\r\n" + data, multipart_head("b", "a/b", "") + data):
        with contextlib.suppress(RemoteProtocolError):
            read_parts("multipart/mixed; boundary=b", body, at_once)
