"""A PostgreSQL of the system's package in a folder of its own, or the deployment that ``HANSA_TEST_POSTGRES``
names (a URL with a database, whose role may create databases; every test gets a database of its own).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from peers.process import Process, free_port
from peers.require import absent

#: What a test's server need not survive is the loss of power.
_FAST = ("fsync=off", "full_page_writes=off", "shared_buffers=64MB", "max_connections=200")


def programs() -> Path | None:
    """Where ``initdb`` and ``postgres`` are: the newest that the system has."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda one: int(one.parts[-3]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


def require_postgres() -> Path:
    found = programs()
    if found is None:
        absent("PostgreSQL", "run scripts/bootstrap-peers, or set HANSA_TEST_POSTGRES")
    assert found is not None
    return found


def as_postgres(*command: str | Path) -> list[str]:
    """A command as the user of the package: PostgreSQL refuses to run as root."""
    words = [str(word) for word in command]
    if os.getuid() != 0:
        return words
    who = ["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL"]
    return ["setpriv", *who, *words]


class Postgres:
    """One server for many tests. ``options``: settings as ``NAME=VALUE``."""

    def __init__(self, *options: str) -> None:
        self.base = os.environ.get("HANSA_TEST_POSTGRES", "")
        self.ours = not self.base
        self.port = 0
        self._options = options
        self._folder: Path | None = None
        self._process: Process | None = None
        self._made: list[str] = []

    @property
    def data(self) -> Path:
        assert self._folder is not None
        return self._folder / "data"

    def start(self) -> Postgres:
        if self.ours:
            if self._folder is None:
                self._create()
            self._run()
        self.until_up()
        return self

    def folder(self) -> Path:
        """Where only the user of the package may look."""
        made = Path(tempfile.mkdtemp(prefix="hansa-postgres-"))
        if os.getuid() == 0:
            shutil.chown(made, "postgres", "postgres")
        return made

    def _create(self) -> None:
        self._folder = self.folder()
        command = (require_postgres() / "initdb", "-D", self.data, "-U", "hansa", "--auth=trust")
        locale = ("--encoding=UTF8", "--locale=C", "--no-sync")
        subprocess.run(as_postgres(*command, *locale), check=True, capture_output=True)

    def standby_of(self, primary: Postgres, name: str) -> Postgres:
        """Become a copy of a server, which follows it under a name of its own."""
        self._folder = self.folder()
        source = f"host=127.0.0.1 port={primary.port} user=hansa application_name={name}"
        command = (require_postgres() / "pg_basebackup", "-D", self.data, "-d", source)
        flags = ("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync")
        subprocess.run(as_postgres(*command, *flags), check=True, capture_output=True)
        return self

    def _run(self) -> None:
        self.port = self.port or free_port()
        assert self._folder is not None
        settings = (*_FAST, "listen_addresses=127.0.0.1", f"port={self.port}", *self._options)
        settings += (f"unix_socket_directories={self._folder}",)
        words = [word for setting in settings for word in ("-c", setting)]
        command = as_postgres(require_postgres() / "postgres", "-D", self.data, *words)
        self._process = Process(command, self._folder, foreign=True)
        self.base = f"postgres://hansa@127.0.0.1:{self.port}/postgres"

    def sql(self, statement: str, url: str = "") -> str:
        """Returns the output of ``psql``."""
        where = url or self.base
        words = [
            "psql",
            "--no-psqlrc",
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
            where,
        ]
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def until_up(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            if self._process is not None and not self._process.running:
                raise RuntimeError(f"PostgreSQL ended: {self._process.tail()}")
            try:
                self.sql("SELECT 1")
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(0.05)

    def database(self) -> str:
        """The URL of a database that nobody has used."""
        name = f"hansa_test_{secrets.token_hex(6)}"
        self.sql(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        self._made.append(name)
        return urlsplit(self.base)._replace(path=f"/{name}").geturl()

    def drop(self, url: str) -> None:
        """Removes a database and ends its sessions."""
        name = urlsplit(url).path.strip("/")
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self._made.remove(name)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """To the server and each of its processes."""
        assert self._process is not None
        for state in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parent = state.read_text().rpartition(")")[2].split()[1]
                if int(parent) == self.pid:
                    os.kill(int(state.parent.name), number)
        self._process.send(number)

    def kill(self) -> None:
        """As a crash would end it; ``start`` brings it back with its data."""
        if self._process is None:
            pytest.skip("HANSA_TEST_POSTGRES is not ours to kill")
        self._process.kill()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
        elif not self.ours:
            for name in self._made:
                self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        if self._folder is not None:
            subprocess.run(["rm", "-rf", str(self._folder)], check=False, timeout=120)
