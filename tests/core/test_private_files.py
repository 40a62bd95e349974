"""Files that Hansa makes are for its user alone, from the first moment."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys

import aiohttp
import pytest
from core.test_operator import command
from hansa.store.base import Put
from hansa.store.sqlite import SqliteStore
from hansa.testing.store_suite import SCHEMA
from peers.process import free_port


def open_to_others(folder) -> dict[str, str]:
    found = {}
    for path in (folder, *folder.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & 0o077:
            found[str(path.relative_to(folder))] = oct(mode)
    return found


@pytest.mark.timeout(60)
async def test_all_that_init_and_run_make_is_private(tmp_path):
    before = os.umask(0o000)  # the most careless operator
    try:
        code, said = await command("init", "house", "--name", f"localhost:{free_port()}", cwd=tmp_path)
        assert code == 0, said
        folder = tmp_path / "house"
        config = folder / "hansa.toml"
        registration = '\nregistration = "open"\n'
        config.write_text(config.read_text().replace("\n# room_version", registration + "\n# room_version"))
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hansa", "run", cwd=folder, stdout=asyncio.subprocess.PIPE
        )
        line = b"x"
        while line and line != b"network matrix: up\n":
            line = await child.stdout.readline()
        port = json.loads((await command("status", "--json", cwd=folder))[1]) and _port(config)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as http:
            base, body = (
                f"https://localhost:{port}/_matrix",
                {"username": "a", "password": "pw", "auth": {"type": "m.login.dummy"}},
            )
            async with http.post(f"{base}/client/v3/register", json=body) as answer:
                token = (await answer.json())["access_token"]
            bearer = {"Authorization": f"Bearer {token}"}
            async with http.post(f"{base}/media/v3/upload", data=b"x" * 1000, headers=bearer) as answer:
                assert answer.status == 200, await answer.text()
        files = {path.name for path in folder.rglob("*")}
        assert {
            "hansa.toml",
            "matrix.key",
            "key.pem",
            "hansa.db",
            "hansa.db-wal",
            "hansa.db.lock",
            "hansa.sock",
            "media",
        } <= files
        assert open_to_others(folder) == {}
        child.terminate()
        assert await child.wait() == 0
        code, said = await command("check", "--json", cwd=folder)
        assert (code, json.loads(said)["warnings"]) == (0, [])
    finally:
        os.umask(before)


async def _running(folder) -> asyncio.subprocess.Process:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hansa", "run", cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    line = b"x"
    while line and line != b"network matrix: up\n":
        line = await child.stdout.readline()
    return child


@pytest.mark.timeout(120)
async def test_all_stays_private_through_restarts_reloads_new_keys_and_another_configuration(tmp_path):
    before = os.umask(0o000)
    try:
        code, said = await command("init", "a/b/house", "--name", f"localhost:{free_port()}", cwd=tmp_path)
        assert code == 0, said
        assert open_to_others(tmp_path / "a") == {}  # the folders above it are new as well
        folder = tmp_path / "a" / "b" / "house"
        picture = folder / "picture.txt"
        for round_ in range(2):
            child = await _running(folder)
            for words in (
                ("reload",),
                ("matrix", "keys", "rotate"),
                ("rooms", "create", "matrix:#lobby"),
            ):
                code, said = await command(*words, cwd=folder)
                assert code == 0, said
            if not round_:
                picture.write_text("not a picture")
                picture.chmod(0o600)
                code, said = await command("matrix", "media", "add", str(picture), "--json", cwd=folder)
                assert code == 0, said
                media = json.loads(said)["media"]
            code, said = await command(
                "matrix", "media", "get", media, str(folder / f"out{round_}"), cwd=folder
            )
            assert code == 0, said
            config = folder / "hansa.toml"
            config.write_text(config.read_text().replace("# room_version", "# again\n# room_version"))
            child.send_signal(signal.SIGHUP)
            while not (line := await child.stdout.readline()).startswith(b"reloaded"):
                assert line
            assert open_to_others(folder) == {}, f"round {round_}"
            child.terminate()
            assert await child.wait() == 0
            assert open_to_others(folder) == {}, f"after round {round_}"
    finally:
        os.umask(before)


@pytest.mark.timeout(60)
async def test_a_database_of_before_that_others_may_read_is_told_at_the_start(tmp_path):
    await command("init", "house", "--name", f"localhost:{free_port()}", cwd=tmp_path)
    folder = tmp_path / "house"
    child = await _running(folder)
    child.terminate()
    await child.wait()
    (folder / "hansa.db").chmod(0o644)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hansa", "run", cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    first = (await child.stdout.readline()).decode()
    child.terminate()
    await child.wait()
    assert first.startswith("warning: ") and first.endswith(
        "hansa.db is open to others (mode 0644): chmod 600 it\n"
    )


def _port(config) -> int:
    return int(config.read_text().partition("https://127.0.0.1:")[2].partition('"')[0])


async def test_a_database_and_its_log_are_private_whatever_the_umask_is(tmp_path):
    before = os.umask(0o000)
    try:
        store = SqliteStore(tmp_path / "db" / "hansa.db")
        await store.open()
        await store.declare("s", SCHEMA)
        await store.commit("s", [Put("thing", ("a", 1))])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "db").iterdir()}
        await store.close()
    finally:
        os.umask(before)
    assert modes.keys() >= {"hansa.db", "hansa.db-wal", "hansa.db.lock"}
    assert set(modes.values()) == {0o600}


async def test_check_warns_of_files_that_others_may_read(tmp_path):
    await command("init", "house", cwd=tmp_path)
    folder = tmp_path / "house"
    (folder / "media").mkdir(mode=0o755)
    (folder / "hansa.db").touch(0o640)
    (folder / "hansa.toml").chmod(0o644)
    (folder / "tls" / "key.pem").chmod(0o604)
    code, said = await command("check", cwd=folder)
    assert code == 0
    for name, mode in (("hansa.toml", "0644"), ("hansa.db", "0640"), ("key.pem", "0604"), ("media", "0755")):
        assert any(
            line.startswith("warning: ") and name in line and mode in line for line in said.splitlines()
        ), said
    assert said.splitlines()[-1].startswith("hansa.toml is good")
    code, said = await command("check", "--json", cwd=folder)
    assert len(json.loads(said)["warnings"]) == 4


async def test_a_key_of_logins_that_others_may_read_is_told(tmp_path):
    await command("init", "house", "--name", f"localhost:{free_port()}", cwd=tmp_path)
    folder = tmp_path / "house"
    (folder / "logins.key").write_text("x")
    (folder / "logins.key").chmod(0o644)
    code, said = await command("check", "--json", cwd=folder)
    (warning,) = json.loads(said)["warnings"]
    assert code == 0
    assert "logins.key is open to others (mode 0644): chmod 600 it" in warning


@pytest.mark.timeout(60)
async def test_a_file_that_is_no_key_of_logins_is_told_at_the_start(tmp_path):
    await command("init", "house", "--name", f"localhost:{free_port()}", cwd=tmp_path)
    folder = tmp_path / "house"
    config = folder / "hansa.toml"
    config.write_text(f'{config.read_text()}\n[commands]\nenabled = true\nlogins = ["matrix"]\n')
    (folder / "logins.key").write_text("short\n")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hansa", "run", cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    said = (await child.communicate())[0].decode()
    assert child.returncode == 1
    assert "cannot start: " in said
    assert "logins.key is not a key of 32 bytes in base64" in said
