"""A database that speaks MongoDB's wire protocol: SecantusDB in a process of its own, or the deployment that
``HANSA_TEST_MONGO`` names (a URL, with whatever options it needs; every test gets a database of its own and
drops it). Its user may make databases. ``HANSA_TEST_MONGO_KILL`` and ``HANSA_TEST_MONGO_START`` are commands that
kill a deployment and bring it back; tests that kill are skipped without them.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pymongo
import pytest
from pymongo.errors import PyMongoError

from peers.process import Process, free_port
from peers.require import absent


def url_with(url: str, **options: str) -> str:
    """A MongoDB URL with more options, which replace those of the same names."""
    parts = urlsplit(url)
    names = {name.lower() for name in options}
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name.lower() not in names]
    query = urlencode([*kept, *options.items()], quote_via=quote)
    return parts._replace(path=parts.path or "/", query=query).geturl()


def database_url(server: str, name: str) -> str:
    """Returns the URL of a database of a deployment: the user in the URL of the deployment stays a user of
    the database that it names, or of ``admin``, and not of this one.
    """
    parts = urlsplit(server)
    options = {option.lower() for option, _ in parse_qsl(parts.query)}
    url = parts._replace(path=f"/{name}").geturl()
    if parts.username is not None and "authsource" not in options:
        return url_with(url, authSource=parts.path.strip("/") or "admin")
    return url


def through_url(url: str, port: int) -> str:
    """The URL of the same database by way of a port of this machine. A driver that finds a replica set asks its
    members by the names they have among themselves, and not by the way it came: here it must not.
    """
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    near = parts._replace(scheme="mongodb", netloc=f"{user}{at}127.0.0.1:{port}").geturl()
    options = {name.lower(): value for name, value in parse_qsl(parts.query)}
    secure = "true" in {options.get("tls"), options.get("ssl")}
    names = {"tlsAllowInvalidHostnames": "true"} if secure else {}
    return url_with(near, directConnection="true", **names)


class Mongo:
    """One server for many tests."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.base = os.environ.get("HANSA_TEST_MONGO", "")
        self._folder = folder
        self._options = options
        self._ours = not self.base
        self._kills = os.environ.get("HANSA_TEST_MONGO_KILL", "")
        self._mends = os.environ.get("HANSA_TEST_MONGO_START", "")
        self._killed = False
        self._port = 0
        self._process: Process | None = None
        self._made: list[str] = []

    def start(self) -> Mongo:
        if self._ours:
            if importlib.util.find_spec("secantus") is None:
                absent("MongoDB", "pip install secantusdb, or set HANSA_TEST_MONGO")
            self._port = self._port or free_port()
            data = self._folder / "data"
            command = [sys.executable, "-W", "ignore", "-m", "secantus", "--port", str(self._port)]
            command += [
                "--storage-path",
                str(data),
                "--log-level",
                "WARNING",
                "--enable-test-commands",
                *self._options,
            ]
            self._process = Process(command, self._folder)
            self.base = f"mongodb://127.0.0.1:{self._port}"
        elif self._killed:
            self._told(self._mends)
            self._killed = False
        self._until_up()
        return self

    def _until_up(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            if self._process is not None and not self._process.running:
                raise RuntimeError(f"SecantusDB ended: {self._process.tail()}")
            try:
                with pymongo.MongoClient(self.base, serverSelectionTimeoutMS=500) as client:
                    client.admin.command("ping")
                    return
            except PyMongoError as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"no MongoDB: {error}") from error
            time.sleep(0.05)

    def database(self) -> str:
        """The URL of a database that nobody has used."""
        name = f"hansa_test_{secrets.token_hex(6)}"
        self._made.append(name)
        return database_url(self.base, name)

    def address(self) -> tuple[str, int]:
        """Returns the address of the primary, as the deployment reports it."""
        with pymongo.MongoClient(self.base) as client:
            client.admin.command("ping")
            found = client.address
        assert found is not None
        return found

    @property
    def mortal(self) -> bool:
        """True if it may be killed."""
        return self._ours or bool(self._kills and self._mends)

    def require_mortal(self) -> Mongo:
        """Skip a test of a deployment that may not be killed: before it begins, so that nothing is left behind."""
        if not self.mortal:
            pytest.skip("HANSA_TEST_MONGO_KILL and HANSA_TEST_MONGO_START say how HANSA_TEST_MONGO is killed")
        return self

    def kill(self) -> None:
        """As a crash would end it; ``start`` brings it back with its data."""
        if self._process is not None:
            self._process.kill()
            return
        self.require_mortal()
        self._told(self._kills)
        self._killed = True

    @staticmethod
    def _told(command: str) -> None:
        subprocess.run(command, shell=True, check=True, timeout=120)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            return
        if self._killed:
            self.start()
        with pymongo.MongoClient(self.base) as client:
            for name in self._made:
                client.drop_database(name)
