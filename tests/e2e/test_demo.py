"""The demo, as a visitor runs it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from peers.postgres import require_postgres
from peers.require import require_prosody, require_synapse

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]


async def demo(*arguments: str, **env: str):
    require_synapse()
    require_prosody()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), **env}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "scripts" / "demo.py"),
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_every_line_arrives(store):
    if store == "postgres":
        require_postgres()
    child = await demo("--store", store)
    out = (await child.communicate())[0].decode()
    assert child.returncode == 0, out
    said = re.findall(r"says   (.*)", out)
    for line in said:
        stopped = line == "the plans are classified"
        assert (re.search(rf"reads  \w+: {re.escape(line)}", out) is None) is stopped, line
    assert "is refused: policy-violation:" in out and "may not join: 403" in out
    assert out.count("hansa policy explain d-") == 3
    assert out.rstrip().endswith("every line arrived")


async def test_kept_it_says_how_to_connect_and_runs_until_told_otherwise():
    child = await demo("--keep")
    lines: list[str] = []
    while not lines or "policy log" not in lines[-1]:
        lines.append((await child.stdout.readline()).decode())
        assert lines[-1], "".join(lines)
    command = re.search(r"hansa (rooms ls -c \S+)", "".join(lines))[1].split()
    asked = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hansa", *command, stdout=asyncio.subprocess.PIPE
    )
    shown = (await asked.communicate())[0].decode()
    assert asked.returncode == 0 and "xmpp:lobby@gw.x.example" in shown
    child.send_signal(signal.SIGINT)
    await child.communicate()
    assert child.returncode == 0


async def test_what_does_not_work_is_no_success():
    child = await demo(HANSA_SYNAPSE_PYTHON="/bin/false")
    out = (await child.communicate())[0].decode()
    assert child.returncode == 1 and "demo: it did not work" in out, out
