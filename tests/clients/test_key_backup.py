"""Backups of the keys to encrypted rooms."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from clients.matrix_server import LocalUser, Refused, matrix_server, part
from hansa.testing import until
from hansa_matrix.client_api import key_backup
from hansa_matrix.users import key_backups

ROOM, OTHER = "!room:elsewhere", "!other:elsewhere"
ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
KEYS = "/room_keys/keys"


def key(index: int = 0, forwarded: int = 0, *, verified: bool = False, data: str = "x") -> dict[str, Any]:
    return {
        "first_message_index": index,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": {"ciphertext": data},
    }


def many(**sessions: Any) -> dict[str, Any]:
    return {"rooms": {ROOM: {"sessions": sessions}}}


async def created(person: LocalUser, public: str = "one") -> str:
    body = {"algorithm": ALGORITHM, "auth_data": {"public_key": public}}
    return str((await person.call("POST", "/room_keys/version", body))["version"])


async def refused(person: LocalUser, method: str, target: str, body: Any = None) -> tuple[int, Any]:
    with pytest.raises(Refused) as found:
        await person.call(method, target, body)
    return found.value.status, found.value.code


async def test_a_backup_is_made_filled_read_and_deleted(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        assert await refused(alice, "GET", "/room_keys/version") == (404, "M_NOT_FOUND")
        version = await created(alice)
        about = {"algorithm": ALGORITHM, "auth_data": {"public_key": "one"}, "version": version}
        assert await alice.get("/room_keys/version") == {**about, "count": 0, "etag": "0"}
        where = f"version={version}"
        assert await alice.get(f"{KEYS}?{where}") == {"rooms": {}}
        body = {"rooms": {ROOM: {"sessions": {"a": key(), "b": key(3)}}, OTHER: {"sessions": {"c": key()}}}}
        assert await alice.call("PUT", f"{KEYS}?{where}", body) == {"count": 3, "etag": "1"}
        assert await alice.get(f"{KEYS}?{where}") == body
        sessions = {"sessions": {"d": key(data="d")}}
        assert (await alice.call("PUT", f"{KEYS}/{part(ROOM)}?{where}", sessions))["count"] == 4
        one = f"{KEYS}/{part(ROOM)}/{part('e/+')}?{where}"
        assert await alice.call("PUT", one, key(data="e")) == {"count": 5, "etag": "3"}
        assert await alice.get(one) == key(data="e")
        assert set((await alice.get(f"{KEYS}/{part(ROOM)}?{where}"))["sessions"]) == {"a", "b", "d", "e/+"}
        assert await alice.get(f"{KEYS}/{part('!none:x')}?{where}") == {"sessions": {}}
        assert await refused(alice, "GET", f"{KEYS}/{part(ROOM)}/none?{where}") == (404, "M_NOT_FOUND")
        assert (await alice.get(f"/room_keys/version/{version}"))["count"] == 5
        # They are hers alone.
        for target in (f"{KEYS}?{where}", f"/room_keys/version/{version}", "/room_keys/version"):
            assert await refused(bob, "GET", target) == (404, "M_NOT_FOUND")
        assert await refused(bob, "PUT", f"{KEYS}?{where}", body) == (404, "M_NOT_FOUND")
        assert (await alice.call("DELETE", one))["count"] == 4
        assert (await alice.call("DELETE", f"{KEYS}/{part(ROOM)}?{where}"))["count"] == 1
        last = await alice.call("DELETE", f"{KEYS}?{where}")
        assert (last["count"], await alice.get(f"{KEYS}?{where}")) == (0, {"rooms": {}})
        assert await alice.call("DELETE", f"/room_keys/version/{version}") == {}
        assert await refused(alice, "GET", "/room_keys/version") == (404, "M_NOT_FOUND")
        assert await refused(alice, "DELETE", f"/room_keys/version/{version}") == (404, "M_NOT_FOUND")
        assert await created(alice) != version  # no number is given again


@pytest.mark.parametrize(
    ("before", "after", "stays"),
    [
        (key(), key(data="new"), True), (key(5), key(4, data="new"), False), (key(4), key(5, data="new"), True),
        (key(0), key(9, verified=True, data="new"), False), (key(9, verified=True), key(0, data="new"), True),
        (key(1, 3), key(1, 2, data="new"), False), (key(1, 2), key(1, 3, data="new"), True),
    ],
)  # fmt: skip
async def test_of_two_keys_of_a_session_the_better_stays(tmp_path, before, after, stays):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        where = f"version={await created(alice)}"
        first = await alice.call("PUT", f"{KEYS}?{where}", many(a=before))
        second = await alice.call("PUT", f"{KEYS}?{where}", many(a=after))
        assert (second["count"], second["etag"] == first["etag"]) == (1, stays)
        found = await alice.get(f"{KEYS}/{part(ROOM)}/a?{where}")
        assert found == (before if stays else after)


async def test_keys_go_to_the_newest_backup(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        first = await created(alice)
        await alice.call("PUT", f"{KEYS}?version={first}", many(a=key()))
        second = await created(alice, "two")
        with pytest.raises(Refused) as wrong:
            await alice.call("PUT", f"{KEYS}?version={first}", many(b=key()))
        assert (wrong.value.status, wrong.value.code) == (403, "M_WRONG_ROOM_KEYS_VERSION")
        assert wrong.value.body["current_version"] == second
        assert await alice.get(f"{KEYS}?version={first}") == many(a=key())  # and may be read
        assert await alice.get(f"{KEYS}?version={second}") == {"rooms": {}}
        await alice.call("DELETE", f"/room_keys/version/{second}")
        assert (await alice.get("/room_keys/version"))["version"] == first
        await alice.call("PUT", f"{KEYS}?version={first}", many(b=key()))


async def test_what_says_how_it_is_encrypted_may_change(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        version = await created(alice)
        target, body = f"/room_keys/version/{version}", {"algorithm": ALGORITHM, "auth_data": {"x": 1}}
        await alice.call("PUT", f"{KEYS}?version={version}", many(a=key()))
        await alice.call("PUT", target, body)
        await alice.call("PUT", target, body | {"version": version})
        found = await alice.get(target)
        assert (found["auth_data"], found["count"]) == ({"x": 1}, 1)
        assert await refused(alice, "PUT", target, body | {"version": "99"}) == (400, "M_INVALID_PARAM")
        assert await refused(alice, "PUT", target, body | {"algorithm": "x"}) == (400, "M_INVALID_PARAM")
        assert await refused(alice, "PUT", "/room_keys/version/99", body) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "target", "body", "code"),
    [
        ("POST", "/room_keys/version", {}, "M_MISSING_PARAM"), ("POST", "/room_keys/version", {"algorithm": "x"}, "M_MISSING_PARAM"),
        ("POST", "/room_keys/version", {"algorithm": "x", "auth_data": 1}, "M_BAD_JSON"), ("PUT", KEYS, many(), "M_MISSING_PARAM"),
        ("POST", "/room_keys/version", {"algorithm": "x", "auth_data": {"x": "x" * 70_000}}, "M_TOO_LARGE"),
        ("PUT", f"{KEYS}?version=1", {}, "M_MISSING_PARAM"), ("PUT", f"{KEYS}?version=1", {"rooms": []}, "M_BAD_JSON"),
        ("PUT", f"{KEYS}?version=1", {"rooms": {ROOM: 1}}, "M_BAD_JSON"), ("PUT", f"{KEYS}?version=1", {"rooms": {"x": {"sessions": {"a": key()}}}}, "M_BAD_JSON"),
        ("PUT", f"{KEYS}?version=1", many(a=1), "M_BAD_JSON"), ("PUT", f"{KEYS}?version=1", many(a=key() | {"is_verified": 1}), "M_BAD_JSON"),
        ("PUT", f"{KEYS}?version=1", many(a=key(-1)), "M_BAD_JSON"), ("PUT", f"{KEYS}?version=1", many(a=key() | {"forwarded_count": True}), "M_BAD_JSON"),
        ("PUT", f"{KEYS}?version=1", many(**{"s" * 256: key()}), "M_BAD_JSON"), ("PUT", f"{KEYS}?version=1", many(a=key(data="x" * 20_000)), "M_BAD_JSON"),
        ("GET", KEYS, None, "M_MISSING_PARAM"), ("GET", f"{KEYS}?version=x", None, "M_NOT_FOUND"), ("DELETE", f"{KEYS}?version=7", None, "M_NOT_FOUND"),
        ("GET", f"/room_keys/version/{'9' * 40}", None, "M_NOT_FOUND"), ("GET", "/room_keys/version/-1", None, "M_NOT_FOUND"),
    ],
)  # fmt: skip
async def test_what_is_no_backup(tmp_path, method, target, body, code):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        await created(alice)
        assert (await refused(alice, method, target, body))[1] == code
        assert (await alice.get("/room_keys/version"))["count"] == 0


async def test_backups_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(key_backups, "MAX_BACKUP_BYTES", 20_000)
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        versions = [await created(alice) for _ in range(key_backups.MAX_BACKUPS)]
        assert (await refused(alice, "POST", "/room_keys/version", {"algorithm": "x", "auth_data": {}}))[
            0
        ] == 400
        where = f"version={versions[-1]}"
        await alice.call("PUT", f"{KEYS}?{where}", many(a=key(3, data="x" * 9000), b=key(data="x" * 9000)))
        too_much = many(c=key(data="x" * 9000))
        assert await refused(alice, "PUT", f"{KEYS}?{where}", too_much) == (413, "M_TOO_LARGE")
        await alice.call("PUT", f"{KEYS}?{where}", many(a=key(2, data="x")))  # less than before
        await alice.call("PUT", f"{KEYS}?{where}", too_much)
        await alice.call("DELETE", f"/room_keys/version/{versions[0]}")
        last = await created(alice)
        assert await refused(alice, "PUT", f"{KEYS}?version={last}", too_much) == (413, "M_TOO_LARGE")
        await alice.call("DELETE", f"/room_keys/version/{versions[-1]}")
        await alice.call("PUT", f"{KEYS}?version={last}", too_much)


async def test_what_devices_add_at_once_is_all_there(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        where = f"version={await created(alice)}"
        await asyncio.gather(
            *(
                alice.call("PUT", f"{KEYS}?{where}", many(**{f"s{n}-{m}": key() for m in range(3)}))
                for n in range(20)
            )
        )
        found = (await alice.get(f"{KEYS}?{where}"))["rooms"][ROOM]["sessions"]
        assert len(found) == 60
        assert (await alice.get("/room_keys/version"))["count"] == 60


async def test_pages_of_many_keys(tmp_path, monkeypatch):
    monkeypatch.setattr(key_backups, "_PAGE_SIZE", 3)
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        version = await created(alice)
        body = {"rooms": {f"!{r}:x": {"sessions": {f"s{n}": key(n) for n in range(7)}} for r in range(4)}}
        await alice.call("PUT", f"{KEYS}?version={version}", body)
        assert await alice.get(f"{KEYS}?version={version}") == body
        assert (await alice.call("DELETE", f"{KEYS}/{part('!1:x')}?version={version}"))["count"] == 21
        await alice.call("DELETE", f"/room_keys/version/{version}")
        store = home.matrix.store
        assert await store.scan("key_backup_key") == []


async def test_who_closes_their_account_leaves_no_keys(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        await alice.call("PUT", f"{KEYS}?version={await created(alice)}", many(a=key()))
        who = {"type": "m.id.user", "user": alice.user}
        auth = {"type": "m.login.password", "identifier": who, "password": "of alice"}
        await alice.call("POST", "/account/deactivate", {"auth": auth})
        store = home.matrix.store

        async def gone() -> bool:
            return await store.scan("key_backup_key") == []

        await until(gone)


async def test_a_large_backup_is_written_as_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(key_backup, "CHUNK_BYTES", 2000)
    monkeypatch.setattr(key_backups, "_PAGE_SIZE", 7)
    sizes: list[int] = []
    inner = key_backup._continue_stream

    async def measured(begun, chunks):
        async for chunk in inner(begun, chunks):
            sizes.append(len(chunk))
            yield chunk

    monkeypatch.setattr(key_backup, "_continue_stream", measured)
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        where = f"version={await created(alice)}"
        rooms = {f"!r{n}:x": {"sessions": {f"s{m}": key(m) for m in range(20)}} for n in range(5)}
        await alice.call("PUT", f"{KEYS}?{where}", {"rooms": rooms})
        assert await alice.get(f"{KEYS}?{where}") == {"rooms": rooms}
        assert len(sizes) > 4 and max(sizes) < 2500
        assert await alice.get(f"{KEYS}/{part('!r2:x')}?{where}") == rooms["!r2:x"]
        assert await alice.get(f"{KEYS}/{part('!none:x')}?{where}") == {"sessions": {}}


async def test_a_change_that_others_always_come_before_is_no_success(tmp_path, monkeypatch):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        version = await created(alice)
        real = key_backups._backup_write
        monkeypatch.setattr(
            key_backups,
            "_backup_write",
            lambda user, before, after: real(user, replace(before, etag=99), after),
        )
        with pytest.raises(Refused) as found:
            await alice.call("DELETE", f"/room_keys/version/{version}")
        assert found.value.status in {409, 429, 503}


async def test_keys_that_are_there_are_read_some_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(key_backups, "_PAGE_SIZE", 7)
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        where, read = f"version={await created(alice)}", []
        store = type(home.matrix.store)
        inner = store.get_many

        async def counted(self, collection, keys):
            if collection == "key_backup_key":
                read.append(len(keys))
            return await inner(self, collection, keys)

        monkeypatch.setattr(store, "get_many", counted)
        for index in (9, 4):
            body = many(**{f"s{n}": key(index) for n in range(30)})
            assert (await alice.call("PUT", f"{KEYS}?{where}", body))["count"] == 30
        assert (await alice.get(f"{KEYS}?{where}")) == body
        assert max(read) == 7 and sum(read) == 60


async def test_many_keys_are_looked_at_in_several_turns_of_the_loop(tmp_path, monkeypatch):
    turn, looked, valid = 0, set[int](), key_backup.is_valid_key

    async def turning():
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def noted(data):
        looked.add(turn)
        return valid(data)

    monkeypatch.setattr(key_backup, "is_valid_key", noted)
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        where = f"version={await created(alice)}"
        task = asyncio.ensure_future(turning())
        body = many(**{f"s{n}": key() for n in range(3 * key_backup.KEYS_PER_STEP)})
        assert (await alice.call("PUT", f"{KEYS}?{where}", body))["count"] == 3 * key_backup.KEYS_PER_STEP
        task.cancel()
        assert len(looked) == 3
