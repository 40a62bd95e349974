"""The oracle's other end: finds Synapse's interpreter, starts ``synapse_oracle.py``, asks."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

PROGRAM = Path(__file__).with_name("synapse_oracle.py")
DEFAULT = Path.home() / ".cache/hansa/synapse/bin/python"


def interpreter() -> str:
    """Synapse's interpreter; without one the test is skipped, or fails where peers are required."""
    path = Path(os.environ.get("HANSA_SYNAPSE_PYTHON") or DEFAULT)
    if path.is_file():
        return str(path)
    reason = f"no Synapse to ask: {path} does not exist; set HANSA_SYNAPSE_PYTHON to its interpreter"
    if os.environ.get("HANSA_REQUIRE_PEERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class Oracle:
    """One running oracle. Between ``submit`` and ``collect`` it works while the caller does something else."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [interpreter(), str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1 << 20,
        )
        assert self.collect() == {"ready": True}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if kind is not None:
            self._process.kill()
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=10)

    def submit(self, **request: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def collect(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the oracle ended"
        reply: dict[str, Any] = json.loads(line)
        assert "error" not in reply, reply
        return reply

    def ask(self, **request: Any) -> dict[str, Any]:
        self.submit(**request)
        return self.collect()
