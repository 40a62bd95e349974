"""Keys and files: what this server keeps for clients and never reads."""

from __future__ import annotations

import base64
import io
import json

import pytest
from clients.matrix_server import Refused, matrix_server, part
from hansa_matrix.proto.signing import signable_bytes
from matrix.server_with_peer import OURS
from nacl.signing import SigningKey
from PIL import Image


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def sign(obj, user, key_id, key):
    signature = b64(key.sign(signable_bytes(obj)).signature)
    signatures = {**obj.get("signatures", {})}
    signatures[user] = {**signatures.get(user, {}), key_id: signature}
    return {**obj, "signatures": signatures}


def keys_of(person, key):
    device = person.device
    keys = {f"ed25519:{device}": b64(bytes(key.verify_key)), f"curve25519:{device}": "x" * 43}
    obj = {
        "user_id": person.user,
        "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": keys,
    }
    return sign(obj, person.user, f"ed25519:{device}", key)


def cross(person, usage, key, by=None):
    public = b64(bytes(key.verify_key))
    obj = {"user_id": person.user, "usage": [usage], "keys": {f"ed25519:{public}": public}}
    if by is None:
        return obj
    return sign(obj, person.user, f"ed25519:{b64(bytes(by.verify_key))}", by)


async def test_device_keys_are_their_devices_own(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice", "A"), await home.person("bob", "B")
        key = SigningKey.generate()
        good = keys_of(alice, key)
        counts = await alice.call("POST", "/keys/upload", {"device_keys": good})
        assert counts == {"one_time_key_counts": {"signed_curve25519": 0}}
        found = await bob.call("POST", "/keys/query", {"device_keys": {alice.user: []}})
        assert found["device_keys"][alice.user]["A"]["keys"] == good["keys"]
        assert found["failures"] == {}
        other = keys_of(alice, SigningKey.generate())
        unsigned = {k: v for k, v in good.items() if k != "signatures"}
        for bad in (
            other,
            {**good, "user_id": bob.user},
            {**good, "device_id": "B"},
            {**unsigned, "signatures": {}},
            {**good, "algorithms": ["changed"]},
            {**good, "keys": {}},
            7,
        ):
            status, answer = await alice.ask("POST", "/keys/upload", {"device_keys": bad})
            assert status == 400, answer


async def test_one_time_keys_are_handed_out_once_and_fallback_keys_after_them(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice", "A"), await home.person("bob", "B")
        once = {f"signed_curve25519:{n}": {"key": str(n)} for n in range(3)}
        await alice.call("POST", "/keys/upload", {"one_time_keys": once})
        assert (await alice.sync())["device_one_time_keys_count"] == {"signed_curve25519": 3}
        with pytest.raises(Refused, match="400"):
            await alice.call(
                "POST", "/keys/upload", {"one_time_keys": {"signed_curve25519:0": {"key": "other"}}}
            )
        spare = {"signed_curve25519:s": {"key": "spare", "fallback": True}}
        await alice.call("POST", "/keys/upload", {"fallback_keys": spare})
        assert (await alice.sync())["device_unused_fallback_key_types"] == ["signed_curve25519"]
        wanted = {"one_time_keys": {alice.user: {"A": "signed_curve25519"}}}
        got = [
            (await bob.call("POST", "/keys/claim", wanted))["one_time_keys"][alice.user]["A"]
            for _ in range(5)
        ]
        assert [next(iter(k)) for k in got] == [f"signed_curve25519:{n}" for n in (0, 1, 2)] + [
            "signed_curve25519:s"
        ] * 2
        found = await alice.sync()
        assert found["device_one_time_keys_count"] == {"signed_curve25519": 0}
        assert found["device_unused_fallback_key_types"] == []


async def test_cross_signing_and_who_sees_which_signature(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, eve = (
            await home.person("alice", "A"),
            await home.person("bob", "B"),
            await home.person("eve"),
        )
        device, master, selfs, users = (SigningKey.generate() for _ in range(4))
        await alice.call("POST", "/keys/upload", {"device_keys": keys_of(alice, device)})
        keys = {
            "master_key": cross(alice, "master", master),
            "self_signing_key": cross(alice, "self_signing", selfs, master),
            "user_signing_key": cross(alice, "user_signing", users, master),
        }
        await alice.call("POST", "/keys/device_signing/upload", keys)  # the first time without a password
        assert await alice.call("POST", "/keys/device_signing/upload", keys) == {}  # the same again
        mine = await alice.call("POST", "/keys/query", {"device_keys": {alice.user: []}})
        theirs = await bob.call("POST", "/keys/query", {"device_keys": {alice.user: []}})
        assert mine["user_signing_keys"][alice.user] == keys["user_signing_key"]
        assert theirs["user_signing_keys"] == {}
        assert theirs["master_keys"][alice.user] == keys["master_key"]
        fresh = {"master_key": cross(alice, "master", SigningKey.generate())}
        status, answer = await alice.ask("POST", "/keys/device_signing/upload", fresh)
        assert (status, answer["flows"]) == (401, [{"stages": ["m.login.password"]}])

        own = sign(keys_of(alice, device), alice.user, f"ed25519:{b64(bytes(selfs.verify_key))}", selfs)
        bob_master = SigningKey.generate()
        await bob.call(
            "POST", "/keys/device_signing/upload", {"master_key": cross(bob, "master", bob_master)}
        )
        vouched = sign(
            cross(bob, "master", bob_master), alice.user, f"ed25519:{b64(bytes(users.verify_key))}", users
        )
        forged = sign(
            cross(bob, "master", bob_master), alice.user, f"ed25519:{b64(bytes(users.verify_key))}", device
        )
        name = b64(bytes(bob_master.verify_key))
        done = await alice.call(
            "POST", "/keys/signatures/upload", {alice.user: {"A": own}, bob.user: {name: vouched}}
        )
        assert done == {"failures": {}}
        bad = await alice.call(
            "POST", "/keys/signatures/upload", {bob.user: {name: forged}, alice.user: {"none": own}}
        )
        assert set(bad["failures"]) == {alice.user, bob.user}
        assert bad["failures"][bob.user][name]["errcode"] == "M_INVALID_SIGNATURE"
        wanted = {"device_keys": {alice.user: [], bob.user: []}}
        by_alice, by_eve = (
            await alice.call("POST", "/keys/query", wanted),
            await eve.call("POST", "/keys/query", wanted),
        )
        assert alice.user in by_alice["master_keys"][bob.user]["signatures"]
        assert alice.user not in by_eve["master_keys"][bob.user].get("signatures", {})
        signatures = by_eve["device_keys"][alice.user]["A"]["signatures"][alice.user]
        assert set(signatures) == {"ed25519:A", f"ed25519:{b64(bytes(selfs.verify_key))}"}


async def test_whose_devices_changed(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, eve = (
            await home.person("alice", "A"),
            await home.person("bob", "B"),
            await home.person("eve", "E"),
        )
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        for one in (alice, bob, eve):
            await one.sync()
        before = alice.since
        await bob.call("POST", "/keys/upload", {"device_keys": keys_of(bob, SigningKey.generate())})
        assert (await alice.sync())["device_lists"] == {"changed": [bob.user], "left": []}
        assert "device_lists" not in await eve.sync()
        assert "device_lists" not in await alice.sync()
        await bob.call("PUT", f"/profile/{part(bob.user)}/displayname", {"displayname": "Bobby"})
        assert "device_lists" not in await alice.sync()  # another name, and the same keys
        changes = await alice.get(f"/keys/changes?from={before}&to={alice.since}")
        assert changes == {"changed": [bob.user], "left": []}
        await eve.join(room)
        assert eve.user in (await alice.sync())["device_lists"]["changed"]
        assert set((await eve.sync())["device_lists"]["changed"]) >= {alice.user, bob.user}
        await bob.room(room, "leave")
        assert (await alice.sync())["device_lists"]["left"] == [bob.user]
        await eve.call("POST", "/logout", {})
        assert (await alice.sync())["device_lists"]["changed"] == [eve.user]


async def test_whom_one_meets_no_more_is_told_whatever_one_is_called_meanwhile(tmp_path):
    """Another name is a member event of one's own, and no coming in: nobody else's keys are new by it."""
    async with matrix_server(tmp_path) as home:
        alice, bob, carol, dave = [await home.person(n) for n in ("alice", "bob", "carol", "dave")]
        room = await alice.create(preset="public_chat")
        for one in (bob, carol, dave):
            await one.join(room)
        await alice.sync()
        name = f"/profile/{part(alice.user)}/displayname"
        await alice.call("PUT", name, {"displayname": "Al"})
        assert "device_lists" not in await alice.sync()
        await alice.call("PUT", name, {"displayname": "Ali"})
        await bob.room(room, "leave")
        assert (await alice.sync())["device_lists"] == {"changed": [], "left": [bob.user]}
        await alice.room(room, "leave")
        await carol.room(room, "leave")
        await bob.join(room)
        await alice.join(room)
        await alice.call("PUT", name, {"displayname": "Alice"})
        assert (await alice.sync())["device_lists"] == {
            "changed": [bob.user, dave.user],
            "left": [carol.user],
        }
        # Who left just before one left oneself is met no more either.
        await bob.room(room, "leave")
        await alice.room(room, "leave")
        assert (await alice.sync())["device_lists"] == {"changed": [], "left": [bob.user, dave.user]}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/keys/query", {}), ("POST", "/keys/query", {"device_keys": 7}), ("POST", "/keys/query", {"device_keys": {"@a:b": 7}}),
        ("POST", "/keys/claim", {"one_time_keys": {"@a:b": []}}), ("POST", "/keys/claim", {}),
        ("POST", "/keys/upload", {"one_time_keys": 7}), ("POST", "/keys/upload", {"one_time_keys": {"x": {}}}),
        ("POST", "/keys/signatures/upload", {"x": {}}), ("POST", "/keys/query", {"device_keys": {}, "timeout": "x"}),
        ("PUT", "/sendToDevice/t/1", {}), ("PUT", "/sendToDevice/t/1", {"messages": {"@a:b": {"D": 7}}}),
        ("PUT", "/sendToDevice/t/1", {"messages": {"nobody": {"D": {}}}}), ("GET", "/keys/changes", None),
        ("GET", "/keys/changes?from=x&to=y", None), ("POST", "/keys/device_signing/upload", {"master_key": {}}),
    ],
)  # fmt: skip
async def test_questions_about_keys_that_are_none(tmp_path, method, path, body):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        status, found = await alice.ask(method, path, body)
        assert status == 400, found


def picture(size=(900, 600), kind="PNG"):
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, kind)
    return out.getvalue()


async def whole(answer):
    if answer.chunks is None:
        return answer.body
    return b"".join([chunk async for chunk in answer.chunks])


async def test_files_are_given_and_fetched(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        data = picture()
        answer = await alice.whole(
            "POST", "/_matrix/media/v3/upload?filename=a%20cat.png", data=data, content_type="image/png"
        )
        mxc = json.loads(answer.body)["content_uri"]
        path = mxc.removeprefix("mxc://")
        for root in ("/_matrix/client/v1/media", "/_matrix/media/v3"):
            got = await bob.whole("GET", f"{root}/download/{path}")
            assert (got.status, got.content_type, await whole(got)) == (200, "image/png", data)
            assert got.headers["Content-Disposition"] == "inline; filename*=utf-8''a%20cat.png"
            assert "sandbox" in got.headers["Content-Security-Policy"]
            assert (await home.anybody.whole("GET", f"{root}/download/{path}")).status == 401
        named = await bob.whole("GET", f"/_matrix/client/v1/media/download/{path}/other.png")
        assert "other.png" in named.headers["Content-Disposition"]
        assert (await home.anybody.whole("POST", "/_matrix/media/v3/upload", data=b"x")).status == 401
        assert (await bob.ask("GET", f"/_matrix/client/v1/media/download/{OURS}/none"))[1][
            "errcode"
        ] == "M_NOT_FOUND"
        assert await bob.get("/_matrix/client/v1/media/config") == {"m.upload.size": 100 * 1024 * 1024}


async def test_what_a_browser_would_run_is_only_downloaded(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        for kind in ("text/html", "image/svg+xml", "application/javascript"):
            answer = await alice.whole(
                "POST", "/_matrix/media/v3/upload", data=b"<script>", content_type=kind
            )
            path = json.loads(answer.body)["content_uri"].removeprefix("mxc://")
            got = await alice.whole("GET", f"/_matrix/client/v1/media/download/{path}")
            assert got.headers["Content-Disposition"].startswith("attachment"), kind


async def test_an_address_first_and_the_file_later(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        mxc = (await alice.call("POST", "/_matrix/media/v1/create", {}))["content_uri"].removeprefix("mxc://")
        status, found = await alice.ask("GET", f"/_matrix/client/v1/media/download/{mxc}")
        assert (status, found["errcode"]) == (504, "M_NOT_YET_UPLOADED")
        put = f"/_matrix/media/v3/upload/{mxc}"
        assert (await alice.whole("PUT", put, data=b"here it is", content_type="text/plain")).status == 200
        assert (
            await whole(await alice.whole("GET", f"/_matrix/client/v1/media/download/{mxc}")) == b"here it is"
        )
        answer = await alice.whole("PUT", put, data=b"another")
        assert (answer.status, json.loads(answer.body)["errcode"]) == (409, "M_CANNOT_OVERWRITE_MEDIA")
        assert (await alice.whole("PUT", f"/_matrix/media/v3/upload/{OURS}/made-up", data=b"x")).status == 403


async def test_too_large_a_file(tmp_path):
    async with matrix_server(tmp_path, max_upload_size=2500) as home:
        alice = await home.person("alice")
        answer = await alice.whole("POST", "/_matrix/media/v3/upload", data=b"x" * 3000)
        assert (answer.status, json.loads(answer.body)["errcode"]) == (413, "M_TOO_LARGE")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
async def test_smaller_pictures(tmp_path, kind):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        answer = await alice.whole(
            "POST", "/_matrix/media/v3/upload", data=picture(kind=kind), content_type=f"image/{kind.lower()}"
        )
        path = json.loads(answer.body)["content_uri"].removeprefix("mxc://")
        base = f"/_matrix/client/v1/media/thumbnail/{path}?"
        for query, size in (
            ("width=90&height=90&method=crop", (96, 96)),
            ("width=300&height=300", (320, 213)),
            ("width=800&height=800", (800, 533)),
        ):
            small = await alice.whole("GET", base + query)
            with Image.open(io.BytesIO(small.body)) as shown:
                assert (small.status, shown.size) == (200, size)
        same = await alice.whole("GET", f"{base}width=1600&height=1600")
        assert await whole(same) == picture(kind=kind)  # never larger than it is
        for query in ("width=0&height=9", "width=x&height=9", "width=9&height=9&method=cut", ""):
            assert (await alice.whole("GET", base + query)).status == 400


async def test_pictures_that_are_none(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        bomb = io.BytesIO()
        Image.new("1", (7000, 7000)).save(bomb, "PNG")
        for data, kind, status in (
            (b"not a picture", "image/png", 400),
            (b"%PDF", "application/pdf", 400),
            (picture()[:200], "image/png", 400),
            (bomb.getvalue(), "image/png", 413),
        ):
            answer = await alice.whole("POST", "/_matrix/media/v3/upload", data=data, content_type=kind)
            path = json.loads(answer.body)["content_uri"].removeprefix("mxc://")
            got = await alice.whole("GET", f"/_matrix/client/v1/media/thumbnail/{path}?width=90&height=90")
            assert got.status == status, (kind, got.body)


async def test_keys_of_thousands_whom_nobody_knows_take_few_reads(tmp_path, monkeypatch):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        key = SigningKey.generate()
        await alice.call("POST", "/keys/upload", {"device_keys": keys_of(alice, key)})
        store, reads = home.app.store, 0
        read, scan = store.get_many, store.scan

        async def counted(*args, **options):
            nonlocal reads
            reads += 1
            return await read(*args, **options)

        async def scanned(*args, **options):
            nonlocal reads
            reads += 1
            return await scan(*args, **options)

        monkeypatch.setattr(store, "get_many", counted)
        monkeypatch.setattr(store, "scan", scanned)
        wanted = {f"@nobody{n}:{OURS}": [] for n in range(2000)} | {alice.user: []}
        found = await alice.call("POST", "/keys/query", {"device_keys": wanted})
        assert list(found["device_keys"]) == [alice.user]
        assert reads < 60
