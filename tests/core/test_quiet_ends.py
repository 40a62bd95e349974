"""A failure around the command line is reported in one line; a closed output, in none."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from pathlib import Path

import pytest
from core.test_operator import command
from hansa.cli.main import main
from peers.process import free_port
from peers.waiting import until


def _of_another_version(*_: object) -> list[dict[str, str]]:
    return [{"room": "r"}]


def _enough(*_: object) -> None:
    raise BrokenPipeError


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["init", "/proc/nowhere/x"], 1, "hansa: /proc/nowhere: No such file or directory"),
        (["check", "-c", "/"], 2, "/: Is a directory; give its path with -c"),
        (["status", "-c", "/nowhere"], 1, "hansa: /nowhere: No such file or directory; give its path with -c"),
        (["user", "add", "x", "-c", "/nowhere", "--password-file", "/nowhere"], 1, "hansa: /nowhere: No such file or directory"),
    ],
)  # fmt: skip
def test_what_the_system_refuses_is_one_line(words, code, said, capsys):
    assert main(words) == code
    out = capsys.readouterr()
    assert (out.out + out.err).startswith(said) and (out.out + out.err).count("\n") == 1


def test_who_may_not_read_a_configuration_is_not_sent_to_look_for_it(monkeypatch, capsys):
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", forbidden)
    assert (main(["check"]), main(["status"])) == (2, 1)
    out = capsys.readouterr()
    assert out.out + out.err == "hansa.toml: Permission denied\nhansa: hansa.toml: Permission denied\n"


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [(_of_another_version, 1, "has another version"), (_enough, 1, ""), (_interrupted, 130, "")],
)
def test_an_answer_that_cannot_be_shown_is_one_line_or_none(asked, code, said, monkeypatch, capsys):
    monkeypatch.setattr("hansa.cli.socket_client.call_with_progress", asked)
    monkeypatch.setattr("hansa.terminal.give_up", lambda: None)
    assert main(["rooms", "ls"]) == code
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == bool(said)


async def _up(folder: Path) -> str:
    said = (await command("status", "--json", cwd=folder))[1]
    return said if '"state": "up"' in said.partition("networks")[2] else ""


@pytest.mark.timeout(60)
async def test_a_closed_pipe_ends_neither_a_listing_nor_a_server(tmp_path):
    port = free_port()
    await command("init", "house", "--name", f"localhost:{port}", cwd=tmp_path)
    folder = tmp_path / "house"
    read, write = os.pipe()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hansa", "run", cwd=folder, stdout=write, stderr=asyncio.subprocess.PIPE
    )
    os.close(write)
    os.close(read)  # before it has said a word
    try:
        said = await until("the network is up", lambda: _up(folder), 30)
        assert '"restarts": 0' in said
        code, said = await command("rooms", "create", "matrix:#a", cwd=folder)
        assert code == 0, said
        listing = await asyncio.create_subprocess_shell(
            f"{sys.executable} -m hansa rooms ls | head -c 0", cwd=folder, stderr=asyncio.subprocess.PIPE
        )
        assert (await listing.communicate())[1] == b""
    finally:
        child.send_signal(signal.SIGTERM)
        errors = (await child.communicate())[1]
    assert child.returncode == 0, errors
    assert b"Traceback" not in errors


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [("a password\nmore\n", 0, ""), ("\n", 1, "nor a password in the standard input")],
)
def test_without_a_terminal_a_password_is_a_line_of_the_standard_input(
    given, code, said, monkeypatch, capsys, recwarn
):
    asked = list[object]()

    def call(*words: object) -> dict[str, str]:
        asked.extend(words)
        return {"user": "@ann:x"}

    monkeypatch.setattr("hansa.cli.socket_client.call_with_progress", call)
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    assert main(["user", "add", "ann"]) == code
    assert said in capsys.readouterr().err and not recwarn.list
    assert ("'password': 'a password'" in str(asked)) is not code
