"""A real Hansa process on loopback, driven by its command line."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import secrets
import signal
import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import aiohttp
from hansa.cli.main import main

from peers.ca import PrivateCA
from peers.process import Process, free_port
from peers.signed import Signer
from peers.synapse import MatrixUser
from peers.waiting import until

_TOML = """
[server]
listen = ["https://127.0.0.1:{port}"]
tls = {{ certificate = "{chain}", key = "{key}" }}
ca_file = "{ca}"
private_networks = ["127.0.0.0/8"]
[store]
url = "{store}"
[networks.matrix]
plugin = "matrix"
server_name = "{name}"
room_version = "{version}"
naming_level = 0
"""

#: What a command prints goes to the whole process's output.
_COMMAND = threading.Lock()


class CommandFailed(Exception):
    """The command line said no."""


class Hansa:
    """One process with its configuration. ``more`` is further TOML, or makes it of what is known of it."""

    def __init__(
        self,
        folder: Path,
        ca: PrivateCA,
        more: str | Callable[[Hansa], str] = "",
        *,
        version: str = "12",
        store: str = "sqlite:hansa.db",
        seen_at: int = 0,
        host: str = "127.0.0.1",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        #: How Python is started: a profiler goes here.
        self.python: tuple[str, ...] = (sys.executable,)
        self.port = free_port()
        self.name = f"{host}:{seen_at or self.port}"
        chain, key = ca.issue(f"hansa-{self.port}", "127.0.0.1", "localhost")
        self.config = folder / "hansa.toml"
        self.write_key("matrix.key")
        self.base = _TOML.format(
            port=self.port,
            name=self.name,
            chain=chain,
            key=key,
            ca=ca.certificate,
            version=version,
            store=store,
        )
        self.ca = ca
        rest = more if isinstance(more, str) else more(self)
        self.config.write_text(self.base + rest)
        self._process: Process | None = None

    def tables_before(self, line: str) -> str:
        """Put a line into the ``[server]`` table; for ``more``."""
        self.base = self.base.replace("[server]\n", f"[server]\n{line}\n")
        return ""

    def write_key(self, name: str) -> None:
        """A new signing key in the folder."""
        seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        (self.folder / name).write_text(f"ed25519 a_{secrets.token_hex(2)} {seed}\n")
        (self.folder / name).chmod(0o600)

    async def metrics(self) -> str:
        """Its counters and gauges, in Prometheus's format."""
        socket = aiohttp.UnixConnector(path=str(self.folder / "hansa.sock"))
        async with (
            aiohttp.ClientSession(connector=socket) as http,
            http.get("http://localhost/metrics") as answer,
        ):
            return await answer.text()

    @property
    def url(self) -> str:
        """Where its clients speak to."""
        return f"https://127.0.0.1:{self.port}"

    async def account(self, name: str, password: str = "pw") -> str:
        """A new account; its user id."""
        file = self.folder / "password"
        file.touch(0o600)
        file.write_text(password + "\n")
        return str((await self.run("user", "add", name, "--password-file", str(file)))["user"])

    async def user(self, name: str) -> MatrixUser:
        """A new account, logged in."""
        user = await self.account(name)
        tls = ssl.create_default_context(cafile=str(self.ca.certificate))
        who = {"type": "m.id.user", "user": user}
        body = {"type": "m.login.password", "identifier": who, "password": "pw"}
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as http,
            http.post(f"{self.url}/_matrix/client/v3/login", json=body) as answer,
        ):
            found = await answer.json()
            assert answer.status == 200, found
        return MatrixUser(self.url, user, found["access_token"], self.ca.certificate)

    def signer(self) -> Signer:
        """Speaks as this server."""
        return Signer(self.name, self.folder / "matrix.key", self.ca.certificate)

    async def start(self) -> Self:
        command = [*self.python, "-m", "hansa", "run", "-v", "-c", str(self.config)]
        self._process = Process(command, self.folder)

        async def ready() -> bool:
            assert self._process is not None
            if not self._process.running:
                raise RuntimeError(f"Hansa ended with {self._process.exit_code}:\n{self._process.tail()}")
            return (self.folder / "hansa.sock").exists() and await self._answers()

        await until("Hansa answers", ready, 30)
        return self

    async def _answers(self) -> bool:
        try:
            await self.run("status")
        except CommandFailed:
            return False
        return await self._opened()

    async def _opened(self) -> bool:
        """True if clients are answered: while the rooms are loaded they must wait."""
        tls = ssl.create_default_context(cafile=str(self.ca.certificate))
        connector = aiohttp.TCPConnector(ssl=tls)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(5)) as http,
                http.get(f"{self.url}/_matrix/client/v3/account/whoami") as answer,
            ):
                return answer.status != 429
        except (aiohttp.ClientError, TimeoutError):  # what it is configured for, others test
            return True

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._process is not None
        return self._process.exit_code

    def send(self, number: signal.Signals) -> None:
        """A signal to the process."""
        assert self._process is not None
        self._process.send(number)

    def log(self) -> str:
        return (self.folder / "output.log").read_text(errors="replace")

    async def stop(self) -> int | None:
        if self._process is None:
            return None
        process, self._process = self._process, None
        return await asyncio.to_thread(process.stop)

    async def kill(self) -> None:
        assert self._process is not None
        process, self._process = self._process, None
        await asyncio.to_thread(process.kill)

    def hang_up(self) -> None:
        assert self._process is not None
        self._process.send(signal.SIGHUP)

    async def run(self, *arguments: str) -> Any:
        """One command with ``--json``: all that the command line does, without a Python of its own."""
        return await asyncio.to_thread(self._run, arguments)

    async def findings(self, *arguments: str) -> tuple[int, Any]:
        """The exit code and the answer of a command that looks whether something is wrong."""
        code, out, errors = await asyncio.to_thread(self._answered, arguments)
        if errors:
            raise CommandFailed(errors)
        return code, json.loads(out)

    def _run(self, arguments: tuple[str, ...]) -> Any:
        code, out, errors = self._answered(arguments)
        if code:
            raise CommandFailed(f"{' '.join(arguments)}: {errors}{out}")
        return json.loads(out)

    def _answered(self, arguments: tuple[str, ...]) -> tuple[int, str, str]:
        out, errors = io.StringIO(), io.StringIO()
        with _COMMAND, contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = main([*arguments, "--json", "-c", str(self.config)])
        return code, out.getvalue(), errors.getvalue()
