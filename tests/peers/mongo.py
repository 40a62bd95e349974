"""A database that speaks MongoDB's wire protocol: SecantusDB in a process of its own, or the deployment that
``HANSA_TEST_MONGO`` names (a URL without a database; every test gets a database of its own and drops it).
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
import time
from pathlib import Path

import pymongo
import pytest
from pymongo.errors import PyMongoError

from peers.process import Process, free_port
from peers.require import absent


class Mongo:
    """One server for many tests."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.base = os.environ.get("HANSA_TEST_MONGO", "").rstrip("/")
        self._folder = folder
        self._options = options
        self._ours = not self.base
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
        server, _, options = self.base.partition("?")
        return f"{server.rstrip('/')}/{name}{'?' + options if options else ''}"

    def kill(self) -> None:
        """As a crash would end it; ``start`` brings it back with its data."""
        if self._process is None:
            pytest.skip("HANSA_TEST_MONGO is not ours to kill")
        self._process.kill()

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            return
        with pymongo.MongoClient(self.base) as client:
            for name in self._made:
                client.drop_database(name)
