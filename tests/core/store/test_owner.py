"""The check whether a process that had a database has ended, as far as this machine can tell."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from subprocess import Popen

import pytest
from hansa.store import lease_owner


@pytest.fixture
def sleeper() -> Iterator[Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


def _owner(pid: int) -> dict[str, object]:
    return {**lease_owner.this_process(), "pid": pid, "born": lease_owner._process_start(pid)}


def test_a_process_is_dead_once_it_has_ended(sleeper):
    one = _owner(sleeper.pid)
    assert not lease_owner.is_dead(one)
    assert lease_owner.is_dead({**one, "born": "1"})
    sleeper.kill()
    sleeper.wait()
    assert lease_owner.is_dead(one)


def test_a_process_that_proc_hides_is_not_taken_for_dead(sleeper, monkeypatch):
    """``hidepid`` and systemd's ``ProtectProc=invisible`` hide the processes of other users."""
    one = _owner(sleeper.pid)
    read = lease_owner._read_file
    monkeypatch.setattr(lease_owner, "_read_file", lambda path: "" if path.endswith("/stat") else read(path))
    assert not lease_owner.is_dead(one)
    sleeper.kill()
    sleeper.wait()
    assert lease_owner.is_dead(one)
