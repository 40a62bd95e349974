"""The command line's side of the admin socket."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import tomllib
from pathlib import Path
from typing import Any

from hansa import terminal
from hansa.model.errors import ConfigError, HansaError

#: Seconds; entering a large room takes minutes.
_TIMEOUT_S = 3600
_POLL_S = 0.5


#: Why a running Hansa lacks a path: a standby has few, and one that serves lacks what a standby has.
_STANDS_BY = (
    "the running Hansa is a standby, or has another version than this command (see `hansa status`): "
    "ask the process that has the database"
)
_UNKNOWN_HERE = {"/promote": "the running Hansa is not a standby: promote a standby"}


class AdminRequestFailed(HansaError):
    """The running Hansa said no. The text says why."""


class _OverUnix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def socket_of(config: Path) -> Path:
    """The admin socket that a configuration names. Raises ConfigError."""
    try:
        data = tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "" if isinstance(error, PermissionError) else "; give its path with -c"
        raise ConfigError(f"{config}: {error.strerror}{hint}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config} is not TOML: {error}") from error
    server = data.get("server")
    admin = str(server.get("admin", "unix:hansa.sock")) if isinstance(server, dict) else "unix:hansa.sock"
    return config.parent.resolve() / admin.removeprefix("unix:")


def call(config: Path, method: str, path: str, body: Any = None) -> Any:
    """Ask the running Hansa. Raises ``AdminRequestFailed``."""
    where = socket_of(config)
    connection = _OverUnix(str(where))
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None)
        answer = connection.getresponse()
        value = json.loads(answer.read())
    except PermissionError as error:
        raise AdminRequestFailed(
            f"{where} belongs to another user: use the account that runs Hansa, or root"
        ) from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise AdminRequestFailed(
            f"no Hansa is running on {where}: start one with `hansa run -c {config}`"
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AdminRequestFailed(f"{where}: {error}") from error
    finally:
        connection.close()
    if answer.status == 404 and value.get("errcode") == "M_UNRECOGNIZED":
        raise AdminRequestFailed(_UNKNOWN_HERE.get(path, _STANDS_BY))
    if answer.status != 200:
        raise AdminRequestFailed(str(value.get("error", value)))
    return value


def call_with_progress(config: Path, method: str, path: str, body: Any = None) -> Any:
    """As ``call``, saying on stderr how far long work is meanwhile."""
    done = threading.Event()
    watcher = threading.Thread(target=_watch_progress, args=(config, done), daemon=True)
    watcher.start()
    try:
        return call(config, method, path, body)
    finally:
        done.set()
        watcher.join(2.0)


def _watch_progress(config: Path, done: threading.Event) -> None:
    said: dict[str, str] = {}
    while not done.wait(_POLL_S):
        try:
            found = call(config, "GET", "/progress")
        except HansaError:
            return
        for one in found:
            total = f" of {one['total']}" if one["total"] else ""
            line = f"{one['network']}: {one['work']}: {one['done']}{total}"
            if said.get(one["work"]) != line:
                said[one["work"]] = line
                terminal.say(line, error=True)
