"""The process that has a database: its description in a lease, and the check whether that process has
ended.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def _read_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _process_namespace() -> str:
    """Where process ids mean the same: this boot of this kernel and its pid namespace; empty if unknown."""
    boot = _read_file("/proc/sys/kernel/random/boot_id")
    try:
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}" if boot else ""
    except OSError:
        return ""


def _process_start(pid: int) -> str:
    """When a process started, in ticks since boot, which tells a reused id apart; empty if it is gone."""
    state = _read_file(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return state[19] if state and state[0] not in "ZX" else ""


def this_process() -> dict[str, Any]:
    """``host``, ``pid``, ``born`` and ``namespace`` of this process."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "born": _process_start(pid),
        "namespace": _process_namespace(),
    }


def is_self(owner: Mapping[str, Any]) -> bool:
    """True if an owner is this process."""
    return all(owner.get(name) == value for name, value in this_process().items())


def is_dead(owner: Mapping[str, Any]) -> bool:
    """True if an owner was a process of this machine that has ended."""
    if not owner.get("namespace") or owner["namespace"] != _process_namespace():
        return False
    pid = int(owner["pid"])
    born = _process_start(pid)
    if not born and not _is_gone(pid):
        return False  # another user's, which /proc hides (hidepid): nothing tells whether it is this one
    return bool(owner["born"] != born)


def _is_gone(pid: int) -> bool:
    """True if a process has ended, even if its parent has not collected its status."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    except (OSError, OverflowError):
        return True
    return _read_file(f"/proc/{pid}/stat") != ""
