"""A throw-away ngircd on loopback, with TLS, and a small client for its users."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Self

from peers.ca import PrivateCA
from peers.irc_services import IrcServices
from peers.process import Process, free_port
from peers.require import require_ngircd
from peers.waiting import until

_NAME = "irc.x.example"
_CONF = """
[Global]
Name = {name}
Info = a test
Listen = 127.0.0.1
Ports = {port}
MotdPhrase = hello
[Limits]
MaxConnectionsIP = 0
MaxJoins = 0
MaxNickLength = 20
MaxPenaltyTime = {penalty}
[Options]
PAM = no
Ident = no
DNS = no
[SSL]
CertFile = {folder}/chain.pem
KeyFile = {folder}/key.pem
Ports = {tls_port}
"""


class Ngircd:
    """One server. ``penalty`` is its longest penalty for a flood in seconds, 0 for none; ``stop``, ``kill`` and
    ``start`` keep its ports.
    """

    def __init__(self, folder: Path, ca: PrivateCA, *, penalty: int = 0) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        self.folder, self.ca = folder, ca
        self.port, self.tls_port = free_port(), free_port()
        chain, key = ca.issue(f"ngircd-{self.port}", "127.0.0.1")
        shutil.copy(chain, folder / "chain.pem")
        shutil.copy(key, folder / "key.pem")
        self._conf = folder / "ngircd.conf"
        self._conf.write_text(
            _CONF.format(name=_NAME, port=self.port, tls_port=self.tls_port, folder=folder, penalty=penalty)
        )
        self._process: Process | None = None

    async def start(self) -> Self:
        self._process = Process([require_ngircd(), "-n", "-f", str(self._conf)], self.folder)

        async def ready() -> bool:
            assert self._process is not None
            if not self._process.running:
                raise RuntimeError(f"ngircd ended:\n{self._process.tail()}")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.tls_port)
            except OSError:
                return False
            writer.close()
            return True

        await until("ngircd listens", ready)
        return self

    async def stop(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            await asyncio.to_thread(process.stop)

    def freeze(self) -> None:
        """The process stops without a word: what it is sent waits in its socket."""
        assert self._process is not None
        self._process.send(signal.SIGSTOP)

    async def kill(self) -> None:
        assert self._process is not None
        process, self._process = self._process, None
        await asyncio.to_thread(process.kill)

    async def user(self, nick: str) -> IrcUser:
        """A person who is connected."""
        return await IrcUser(self, nick).connect()


class IrcUser:
    """One person. Every line that arrives is kept in ``lines``, also over several connections."""

    def __init__(self, server: Ngircd | IrcServices, nick: str) -> None:
        self.nick = nick
        self.lines: list[str] = []
        self._server = server
        self._news = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def connect(self) -> Self:
        assert self._server.ca is not None
        context = ssl.create_default_context(cafile=str(self._server.ca.certificate))
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._server.tls_port, ssl=context)
        start = len(self.lines)
        self._reading = asyncio.get_running_loop().create_task(self._read(reader))
        self.send(f"NICK {self.nick}", f"USER {self.nick} 0 * :{self.nick}")
        await self.until(
            "the welcome", lambda: any(" 376 " in one or " 422 " in one for one in self.lines[start:])
        )
        return self

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while raw := await reader.readline():
                line = raw.decode().rstrip("\r\n")
                if line.startswith("PING "):
                    self.send(line.replace("PING", "PONG", 1))
                    continue
                self.lines.append(line)
                self._news.set()
                self._news = asyncio.Event()

    def send(self, *lines: str) -> None:
        """Lines as they are."""
        assert self._writer is not None
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())

    async def until(self, what: str, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait until something that arrives makes ``condition`` true."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await self._news.wait()
        except TimeoutError:
            raise TimeoutError(f"{self.nick} did not see {what}; the last were: {self.lines[-8:]}") from None

    async def join(self, channel: str) -> None:
        """Enter a channel, until its names have come."""
        start = len(self.lines)
        self.send(f"JOIN {channel}")
        await self.until("the names", lambda: any(f" {channel} :End" in one for one in self.lines[start:]))

    def say(self, target: str, text: str) -> None:
        """A message, to a channel or a person."""
        self.send(f"PRIVMSG {target} :{text}")

    def texts(self, target: str, *, by: str = "") -> list[str]:
        """The texts that came to a channel or to this person, in order, of one nick if it is given."""
        found: list[str] = []
        for line in self.lines:
            source, _, rest = line.partition(" ")
            command, _, rest = rest.partition(" ")
            to, _, text = rest.partition(" :")
            if command in {"PRIVMSG", "NOTICE"} and to == target and source.startswith(f":{by}"):
                found.append(text)
        return found

    async def seen_line(self, text: str) -> None:
        """Wait for a line of another user with this behind its source, whatever the case of nicks."""

        def came() -> bool:
            rests = (one.partition(" ")[2].lower() for one in self.lines)
            return any(rest.replace(" :", " ") == text.lower().replace(" :", " ") for rest in rests)

        await self.until(repr(text), came)

    async def seen(self, target: str, text: str) -> None:
        """Wait for a message."""
        await self.until(f"{text!r}", lambda: text in self.texts(target))
