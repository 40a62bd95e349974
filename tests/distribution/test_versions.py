"""Newer Pythons, where they are installed: the wheel with every extra from the index, and a Hansa that runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from peers.process import free_port

from .environments import PLAIN, command

#: A room of two networks, one of them Matrix with its signatures and state, in memory.
SCENE = """
import asyncio, sys
from hansa.app import App
from hansa.setup import NetworkSetup, Setup
from hansa.store.memory import MemoryStore
from hansa.environment import Environment, SystemClock, SystemRandom
from hansa.testing.actor import Config, module
from hansa.testing.harness import UnreachableHttp
import hansa_matrix, hansa_xmpp.component, pymongo

async def main():
    made = {}
    actors = module(made)
    matrix = hansa_matrix.Config(server_name="localhost:1", signing_key=sys.argv[1])
    app = App(Setup(store=MemoryStore(), http=UnreachableHttp(), seams=Environment(SystemClock(), SystemRandom()), networks=[
        NetworkSetup(id="matrix", module=hansa_matrix, options=matrix),
        NetworkSetup(id="left", module=actors, options=Config()),
        NetworkSetup(id="right", module=actors, options=Config()),
    ]))
    await app.start()
    await app.runners["matrix"].up()
    await app.link_room(["matrix:#here", "left:a", "right:b"], create=True)
    assert (await made["left"].join("a", "ann@x", "Ann")).refusal is None
    assert (await made["left"].say("a", "ann@x", "hello")).event is not None
    assert await made["right"].until("b", 1) == ["hello"]
    await app.stop()

asyncio.run(main())
print("played")
"""


def interpreter(version: str) -> str | None:
    """That Python, on the path or among pyenv's."""
    found = shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    kept = sorted(pyenv.glob(f"{version}.*/bin/python"))
    for candidate in [*([found] if found else []), *map(str, kept)]:
        if not subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode:
            return candidate
    return None


@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_it_installs_and_runs_on(version, wheel, tmp_path):
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed")
    env = tmp_path / "env"
    command(python, "-m", "venv", env, cwd=tmp_path)
    pip = (env / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    command(*pip, f"hansa[all] @ {wheel.as_uri()}", cwd=tmp_path)
    command(env / "bin" / "hansa", "init", "house", "--name", f"localhost:{free_port()}", cwd=tmp_path)
    (tmp_path / "scene.py").write_text(SCENE)
    played = command(env / "bin" / "python", "-W", "error", "scene.py", "house/matrix.key", cwd=tmp_path)
    assert played.stdout.strip() == "played"
    process = subprocess.Popen(
        [env / "bin" / "hansa", "run"], cwd=tmp_path / "house", env=PLAIN, stdout=subprocess.PIPE, text=True
    )
    with process:
        lines = [process.stdout.readline().strip()]
        while lines[-1] and lines[-1] != "network matrix: up":
            lines.append(process.stdout.readline().strip())
        process.send_signal(signal.SIGTERM)
        lines += process.stdout.read().split()
    assert process.returncode == 0 and "ready" in lines, lines
