"""Processes that never outlive the one that started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
from pathlib import Path


def _ports() -> list[int]:
    """The ports of this process in random order. Each of several workers has ports that no other has.

    They lie below those that Linux gives to outgoing connections, so that none is taken between here and its use.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    mine = range(20_000 + number % workers, 32_000, workers)
    return random.SystemRandom().sample(mine, len(mine))


_PORTS = _ports()


def free_port() -> int:
    """A TCP port that was free a moment ago and was not handed out before: it is part of server names, and a
    peer that outlives its first holder remembers that one's keys, rooms and aliases.
    """
    while True:
        port = _PORTS.pop()
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def _die_with_parent() -> None:
    ctypes.CDLL("libc.so.6", use_errno=True).prctl(1, signal.SIGKILL)


class Process:
    """A child in its own session, its output in a file. ``foreign``: it is not ours, nor is our import path
    its.
    """

    def __init__(
        self, command: list[str], folder: Path, env: dict[str, str] | None = None, *, foreign: bool = False
    ) -> None:
        self.log = folder / "output.log"
        clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        if foreign:
            clean.pop("PYTHONPATH", None)
        with self.log.open("ab") as out:
            self._popen = subprocess.Popen(
                command,
                cwd=folder,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**clean, **(env or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._popen.poll()

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)

    def stop(self, seconds: float = 15.0) -> int | None:
        """Sends SIGTERM, and SIGKILL if the process does not end."""
        if self.running:
            self.send(signal.SIGTERM)
            try:
                self._popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._popen.returncode

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
