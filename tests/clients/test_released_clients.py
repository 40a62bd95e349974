"""Requirements of released clients: fields that must be there, pages that must go on, bodies that must be
accepted.
"""

from __future__ import annotations

import json

import pytest
from clients.matrix_server import Refused, matrix_server, part
from matrix.server_with_peer import THEIRS, V1


async def test_every_page_that_has_events_says_where_the_next_one_begins(tmp_path):
    """nheko drops a page without ``end``: all that was said in a small room."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        await alice.say(room, "hello")
        for direction in ("b", "f"):
            path = f"/rooms/{part(room)}/messages?dir={direction}&limit=100"
            page = await alice.get(path)
            assert page["chunk"]
            last = await alice.get(f"{path}&from={page['end']}")
            assert last["chunk"] == []
            assert "end" not in last


async def test_a_page_up_to_a_token_ends_there(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        start = (await alice.sync())["next_batch"]
        await alice.say(room, "hello")
        page = await alice.get(f"/rooms/{part(room)}/messages?dir=b&limit=100&to={start}")
        assert [e["content"].get("body") for e in page["chunk"]] == ["hello"]
        again = await alice.get(f"/rooms/{part(room)}/messages?dir=b&from={page['end']}&to={start}")
        assert again["chunk"] == []


async def test_a_body_of_null_is_an_empty_one(tmp_path):
    """nheko logs out with it."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        answer = await alice.whole("POST", "/logout", data=b"null")
        assert (answer.status, answer.body) == (200, b"{}")
        with pytest.raises(Refused) as refused:
            await alice.get("/account/whoami")
        assert refused.value.code == "M_UNKNOWN_TOKEN"


async def test_devices_say_what_they_are_called_and_when_they_asked_last(tmp_path):
    """matrix-nio refuses a list without these."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice", "PHONE")
        alice.address = "198.51.100.7"
        (device,) = (await alice.get("/devices"))["devices"]
        assert device["display_name"] is None
        assert device["last_seen_ip"] == "198.51.100.7"
        assert device["last_seen_ts"] > 0
        again = await alice.get("/devices/PHONE")  # a moment later
        assert again["last_seen_ts"] >= device["last_seen_ts"]
        assert {**again, "last_seen_ts": 0} == {**device, "last_seen_ts": 0}
        other = await home.person("alice", "LAPTOP")
        await alice.call("POST", "/logout", {})
        seen = await other.get("/devices")
        assert [one["device_id"] for one in seen["devices"]] == ["LAPTOP"]


async def test_when_a_device_asked_last_outlives_the_process(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice", "PHONE")
        alice.address = "198.51.100.7"
        await alice.get("/account/whoami")
        seen = home.matrix.client_api.accounts.last_seen
        await seen.save_noted()
        seen._noted.clear()
        assert (await seen.devices_of(alice.user))["PHONE"].address == "198.51.100.7"
        await alice.call("POST", "/logout", {})
        assert await seen.devices_of(alice.user) == {}


async def test_members_have_a_name_and_a_picture_or_null(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        joined = await alice.get(f"/rooms/{part(room)}/joined_members")
        assert joined["joined"] == {alice.user: {"display_name": "alice", "avatar_url": None}}


async def test_a_new_account_is_called_by_its_name(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        assert await alice.get(f"/profile/{part(alice.user)}/displayname") == {"displayname": "alice"}


async def test_nobody_says_the_same_of_an_event_twice(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        said = await alice.say(room, "hello")

        def thumb(key="+1"):
            return {"m.relates_to": {"rel_type": "m.annotation", "event_id": said, "key": key}}

        path = f"/rooms/{part(room)}/send/m.reaction"
        first = await alice.call("PUT", f"{path}/one", thumb())
        assert await alice.call("PUT", f"{path}/one", thumb()) == first  # the same request again
        with pytest.raises(Refused) as refused:
            await alice.call("PUT", f"{path}/two", thumb())
        assert (refused.value.status, refused.value.code) == (400, "M_DUPLICATE_ANNOTATION")
        await alice.call("PUT", f"{path}/three", thumb("-1"))
        await bob.call("PUT", f"{path}/one", thumb())
        await alice.call("PUT", f"/rooms/{part(room)}/redact/{part(first['event_id'])}/r", {})
        await alice.call("PUT", f"{path}/four", thumb())


async def test_who_is_banned_cannot_leave(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await alice.room(room, "ban", {"user_id": bob.user})
        with pytest.raises(Refused) as refused:
            await bob.room(room, "leave")
        assert (refused.value.status, refused.value.code) == (403, "M_FORBIDDEN")


UPLOAD, FILES = "/_matrix/media/v3/upload", "/_matrix/client/v1/media/download"


async def file_of(person, data, **headers):
    """Returns the path of a file that a user uploads."""
    answer = await person.whole("POST", UPLOAD, data=data, **headers)
    return f"{FILES}/{json.loads(answer.body)['content_uri'].removeprefix('mxc://')}"


async def whole(answer):
    return b"".join([chunk async for chunk in answer.chunks])


@pytest.mark.parametrize(
    ("asked", "named", "got"),
    [
        ("bytes=2-5", "bytes 2-5/10", b"2345"),
        ("bytes=7-", "bytes 7-9/10", b"789"),
        ("bytes=-3", "bytes 7-9/10", b"789"),
        ("bytes=0-99", "bytes 0-9/10", b"0123456789"),
        ("bytes=-99", "bytes 0-9/10", b"0123456789"),
    ],
)
async def test_a_player_gets_the_part_of_a_video_that_it_seeks(tmp_path, asked, named, got):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        path = await file_of(alice, b"0123456789", content_type="video/mp4")
        answer = await alice.whole("GET", path, range=asked)
        assert answer.status == 206
        assert answer.headers["Content-Range"] == named
        assert answer.headers["Content-Length"] == str(len(got))
        assert await whole(answer) == got


async def test_a_part_that_is_not_there_is_refused_and_what_is_no_range_is_the_whole(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        path = await file_of(alice, b"0123456789", content_type="video/mp4")
        for asked in ("bytes=10-", "bytes=-0"):
            beyond = await alice.whole("GET", path, range=asked)
            assert (beyond.status, beyond.headers["Content-Range"]) == (416, "bytes */10")
        for asked in ("bytes=1-2,4-5", "bytes=5-2", "bytes=", "lines=1-2", "bytes=a-b", "bytes=-"):
            answer = await alice.whole("GET", path, range=asked)
            assert (answer.status, await whole(answer)) == (200, b"0123456789")
            assert answer.headers["Accept-Ranges"] == "bytes"
        changed = await alice.whole("GET", path, range="bytes=1-2", if_range='"other"')
        assert (changed.status, await whole(changed)) == (200, b"0123456789")


async def test_a_player_asks_how_long_a_video_is_first(tmp_path):
    """By HEAD, which has no part and no bytes; and old paths are the same."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        path = await file_of(alice, b"0123456789", content_type="video/mp4")
        old = path.replace("/_matrix/client/v1/media/", "/_matrix/media/v3/")
        assert old != path
        for where in (path, old, f"{path}/name.mp4"):
            head = await alice.whole("HEAD", where, range="bytes=2-3")
            assert (head.status, head.headers["Content-Length"]) == (200, "10")
            assert (head.headers["Accept-Ranges"], head.content_type) == ("bytes", "video/mp4")
            seeking = await alice.whole("GET", where, range="bytes=2-3")
            assert (seeking.status, await whole(seeking)) == (206, b"23")
        assert (await home.anybody.whole("HEAD", path)).status == 401


@pytest.mark.parametrize(("asked", "status"), [("bytes=0-", 416), ("bytes=-1", 416), ("", 200)])
async def test_a_file_of_no_bytes_has_no_part(tmp_path, asked, status):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        path = await file_of(alice, b"", content_type="video/mp4")
        answer = await alice.whole("GET", path, range=asked)
        assert answer.status == status
        if status == 416:
            assert answer.headers["Content-Range"] == "bytes */0"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("text/plain; charset=ISO-8859-1", "text/plain; charset=iso-8859-1"),
        ('Text/HTML;charset="utf-8"', "text/html; charset=utf-8"),
        ("text/plain", "text/plain"),
        ("text/plain; charset=a\tb", "text/plain"),
        ("image/png; charset=utf-8", "image/png"),
    ],
)
async def test_a_text_keeps_its_character_set(tmp_path, given, kept):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        path = await file_of(alice, b"caf\xe9", content_type=given)
        assert (await alice.whole("GET", path)).content_type == kept
        to_others = await home.wire.whole("GET", f"{V1}/media/download/{path.rpartition('/')[2]}")
        assert f"Content-Type: {kept}\r\n".encode() in await whole(to_others)


# What other servers refuse.


def refusing(home, status, code, version=None):
    """The other server answers so to every ``make_join`` and ``make_knock``."""

    def answer(request):
        if version is not None:
            return 200, {"room_version": version, "event": {}}
        error = {"errcode": code, "error": "because"} | ({"room_version": "13"} if "VERSION" in code else {})
        return status, error if "/make_" in request.target else None

    home.wire.peer.answer = answer


@pytest.mark.parametrize("action", ["join", "knock"])
@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "M_INCOMPATIBLE_ROOM_VERSION"), (403, "M_FORBIDDEN"), (400, "M_UNABLE_TO_AUTHORISE_JOIN")],
)
async def test_why_another_server_lets_nobody_in_is_told(tmp_path, action, status, code):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        refusing(home, status, code)
        with pytest.raises(Refused) as refused:
            await alice.call("POST", f"/{action}/{part(f'!room:{THEIRS}')}?server_name={THEIRS}", {})
        assert (refused.value.status, refused.value.code) == (status, code)
        assert refused.value.body.get("room_version") == ("13" if "VERSION" in code else None)


async def test_a_room_of_an_unknown_version_is_incompatible(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        refusing(home, 200, "", version="99")
        with pytest.raises(Refused) as refused:
            await alice.call("POST", f"/join/{part(f'!room:{THEIRS}')}?server_name={THEIRS}", {})
        assert (refused.value.status, refused.value.code) == (400, "M_INCOMPATIBLE_ROOM_VERSION")
        assert refused.value.body["room_version"] == "99"


@pytest.mark.parametrize("code", ["M_UNKNOWN_TOKEN", "M_UNRECOGNIZED", "M_LIMIT_EXCEEDED"])
async def test_what_another_server_says_of_itself_is_not_said_of_a_client(tmp_path, code):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        refusing(home, 403, code)
        with pytest.raises(Refused) as refused:
            await alice.call("POST", f"/join/{part(f'!room:{THEIRS}')}?server_name={THEIRS}", {})
        assert refused.value.code == "M_FORBIDDEN"
