"""Words of peers on a terminal and in the log: escaped, on the line of what they belong to, and bounded."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from core.test_operator import command
from hansa import terminal
from hansa.logs import MARK, MAX_TRACEBACK, Lines
from hansa.model.printable import MAX_LOGGED, MAX_SHOWN, printable, printable_values

ROOT = Path(__file__).parents[2]
FORGED = "2026-01-01 00:00:00,000 ERROR hansa: all is lost"
EVIL = f"\x1b[2J\x1b]0;owned\x07\r\n{FORGED}\u202egnp.exe\u2028x\x9b31m\x7f\u200b\U000e0041\ud800"
#: What may not reach a terminal as it is: all controls but the end of a line, and what turns or hides.
HARMFUL = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)


def test_every_control_and_every_mark_of_direction_is_escaped():
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        kind, turns = unicodedata.category(character), unicodedata.bidirectional(character)
        joins = character in "\u200c\u200d"
        if kind in {"Cc", "Cs", "Zl", "Zp"} or turns in {
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        }:
            assert printable(character).isascii(), hex(number)
            assert printable(character).startswith("\\"), hex(number)
        elif kind not in {"Cf", "Cn", "Lo"} or joins:
            assert printable(character) == character, hex(number)


def test_what_people_write_stays():
    for text in ("Grüße aus Lübeck", "日本語", "שלום", "👩\u200d🚀 und 🇩🇪", "a\\b", "क्\u200dष"):
        assert printable(text) == text


def test_escapes_can_be_read():
    assert printable("a\x1b[31m\r\n\tb\x9b\u202e\U000e0041") == r"a\x1b[31m\r\n\tb\x9b\u202e\U000e0041"
    assert printable("x" * 5000) == "x" * MAX_SHOWN + "… (3000 more)"
    assert printable_values({"\x1b": ["\n", 1, None, {"a": "\r"}]}) == {
        r"\x1b": [r"\n", 1, None, {"a": r"\r"}]
    }


def test_nothing_but_the_terminal_module_prints():
    found = [
        path.relative_to(ROOT)
        for folder in ("core/hansa", "plugins")
        for path in (ROOT / folder).rglob("*.py")
        if "testing" not in path.parts and "tests" not in path.parts
        and re.search(r"(?<![\w.])print\(|std(out|err)\.write|basicConfig|StreamHandler", path.read_text())
    ]  # fmt: skip
    assert sorted(map(str, found)) == ["core/hansa/logs.py", "core/hansa/terminal.py"]


def test_a_record_is_one_line_and_a_traceback_is_marked(tmp_path):
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(Lines())
    logger = logging.getLogger("hansa.plugin.x\ny")
    logger.addHandler(handler)
    logger.propagate = False
    logger.warning("the name %s, %r", EVIL, {"k": EVIL})
    logger.warning("much %s", "x" * 100_000)
    try:
        raise ValueError(EVIL)
    except ValueError:
        logger.exception("broke: %s", EVIL)

    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise KeyError(EVIL * 1000)

    try:
        try:
            deep(3)
        except KeyError as error:
            raise ExceptionGroup(EVIL, [error] * 50) from error
    except ExceptionGroup:
        logger.exception("and many")
    text = out.getvalue()
    assert not HARMFUL.search(text)
    lines = text.splitlines()
    assert sum(not line.startswith(MARK) for line in lines) == 4
    assert not any(line.startswith(FORGED) for line in lines)
    assert max(map(len, lines)) < MAX_LOGGED + 100
    assert len(lines) < 2 * MAX_TRACEBACK + 20
    assert "\\x1b[2J" in text


def test_terminals_of_few_characters_are_no_reason_to_fail():
    script = "from hansa import terminal; terminal.say('Gr\\u00fc\\u00dfe \\x1b \\ud800'); terminal.show_json({'a': '\\x1b\\x7f\\u202e'})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        check=True,
    )
    assert b"Gr\\xfc\\xdfe \\x1b \\ud800" in done.stdout
    assert not HARMFUL.search(done.stdout.decode("ascii"))
    assert json.loads(done.stdout.split(b"\n", 1)[1]) == {"a": "\x1b\x7f\u202e"}


def test_progress_and_errors_are_clean_too(capsys):
    terminal.say(EVIL, error=True)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert not HARMFUL.search(err)


@pytest.mark.timeout(60)
async def test_hostile_names_reach_no_terminal_and_forge_no_line_of_a_real_log(hansa):
    server = await hansa()
    alice = await server.user("alice")
    name = EVIL.replace("\ud800", "")
    made = await alice.call("POST", "/createRoom", {"name": name, "topic": name})
    await alice.call("PUT", f"/profile/{alice.id}/displayname", {"displayname": name[:200]})
    await alice.call("POST", f"/rooms/{made['room_id']}/report", {"reason": name})
    await alice.close()
    (room,) = await server.run("rooms", "ls")
    assert room["name"] == name
    config = ("-c", str(server.config))
    for words in (
        ("rooms", "ls"), ("rooms", "show", room["room"]), ("matrix", "reports", "ls"), ("status",), ("rooms", "show", EVIL[:40]),
        ("where", "$" + name), ("policy", "explain", name), ("rooms", "create", "matrix:" + name),
    ):  # fmt: skip
        code, said = await command(*words, *config)
        assert not HARMFUL.search(said), (words, said)
        assert not any(line.startswith(FORGED) for line in said.splitlines()), (words, said)
        assert code in {0, 1}
        code, said = await command(*words, "--json", *config)
        assert not HARMFUL.search(said), (words, said)
    _, said = await command("rooms", "ls", *config)
    assert len(said.splitlines()) == 2
    assert "\\x1b[2J" in said
    await asyncio.to_thread(_ask_rawly, server)
    log = server.log()
    assert not HARMFUL.search(log)
    assert not any(line.startswith(FORGED) for line in log.splitlines())


def _ask_rawly(server) -> None:
    """A request whose target has what a log may not have."""
    import socket
    import ssl

    tls = ssl.create_default_context(cafile=str(server.ca.certificate))
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain,
        tls.wrap_socket(plain, server_hostname="127.0.0.1") as raw,
    ):
        raw.sendall(b"GET /_matrix/\x1b[2J\x9b HTTP/1.1\r\nHost: x\x1b[2J\r\nConnection: close\r\n\r\n")
        while raw.recv(4096):
            pass
