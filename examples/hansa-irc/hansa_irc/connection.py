"""One connection to the server, as one user."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hansa import HansaError, PluginContext, RemoteProtocolError, TokenBucket

from hansa_irc.isupport import ServerFeatures, with_tokens
from hansa_irc.lines import MAX_LINE, MAX_TAGS, Line, format_line, parse_line
from hansa_irc.registration import Registration

if TYPE_CHECKING:
    from hansa_irc.config import Config

_CONNECT_TIMEOUT_S, _REGISTER_TIMEOUT_S, _ANSWER_TIMEOUT_S = 20.0, 60.0, 60.0
#: Seconds without a line after which the server is asked if it is there.
_SILENCE_S = 90.0
#: Lines that cannot be read before the peer is taken for something else than a server of IRC.
_MAX_BAD_LINES = 20
_MAX_ERRORS = 100


class ConnectionLost(HansaError):
    """The connection ended, or did not come about."""


class AccountRefused(ConnectionLost):
    """The server refuses the account of a connection, or its password."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account for SASL PLAIN."""

    name: str
    password: str = field(repr=False)


class Connection:
    """One connection. ``run`` connects, and reads until it ends. ``up`` is set while the server knows us.

    ``on_line`` gets each line but those of the connection itself, in order, and ``on_up`` is called before
    the first that may concern a channel. Neither may wait for ``tell``.
    """

    def __init__(
        self,
        ctx: PluginContext,
        config: Config,
        nick: str,
        on_line: Callable[[Line], Awaitable[None]],
        on_up: Callable[[], None],
        *,
        account: Account | None = None,
    ) -> None:
        self.nick = nick
        self.source = ""
        #: The name of its account as the server writes it.
        self.account_name = ""
        self._account = account
        self.features = ServerFeatures()
        self.capabilities: frozenset[str] = frozenset()
        self.up = asyncio.Event()
        self.ended = asyncio.Event()
        self._ctx, self._config, self._on_line, self._on_up = ctx, config, on_line, on_up
        self._writer: asyncio.StreamWriter | None = None
        self._sending = asyncio.Lock()
        self._budget = TokenBucket(config.lines_per_second or 1.0, float(config.burst), ctx.clock.monotonic())
        self._pongs: dict[str, asyncio.Future[None]] = {}
        self._errors: list[Line] = []
        self._asked = 0
        self._bad_lines = 0

    @property
    def shown_source(self) -> str:
        """How others see us; while that is not known, the longest that it can be (RFC 2812)."""
        return self.source or f"{self.nick}!{'u' * 11}@{'h' * 63}"

    async def run(self) -> None:
        """Raises ConnectionLost, or RemoteProtocolError for what is not IRC."""
        try:
            reader = await self._connect()
            await self._register(reader)
            await self._read(reader)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            raise ConnectionLost(str(error) or type(error).__name__) from error
        finally:
            self._end()

    async def close(self, reason: str) -> None:
        """Take leave."""
        writer = self._writer
        if writer is not None:
            with contextlib.suppress(OSError, TimeoutError, ConnectionLost):
                async with asyncio.timeout(1.0):
                    self._write(format_line("QUIT", reason))
                    await writer.drain()
        self._end()

    def post(self, *lines: bytes) -> None:
        """Send lines without waiting for anything. Raises ConnectionLost."""
        for line in lines:
            self._write(line)

    async def tell(self, *lines: bytes) -> Sequence[Line]:
        """Send lines, and wait until the server has worked on them. Returns the errors it answered them with.
        Raises ConnectionLost: then it is not known which lines it got.
        """
        async with self._sending:
            if not self.up.is_set():  # nothing is answered during the registration
                raise ConnectionLost("there is no connection yet")
            self._errors.clear()
            for line in lines:
                await self._take_budget()
                self._write(line)
            self._asked += 1
            token = f"hansa{self._asked}"
            answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._pongs[token] = answer
            try:
                self._write(format_line("PING", token))
                async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                    await answer
            except (TimeoutError, OSError) as error:
                self._end()
                raise ConnectionLost("the server does not answer") from error
            finally:
                self._pongs.pop(token, None)
            return tuple(self._errors)

    async def _connect(self) -> asyncio.StreamReader:
        config, context = self._config, None
        if config.transport == "tls":
            context = ssl.create_default_context(cafile=str(config.ca_file) if config.ca_file else None)
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            reader, self._writer = await asyncio.open_connection(
                config.host, config.port, ssl=context, limit=MAX_LINE + MAX_TAGS
            )
        return reader

    async def _register(self, reader: asyncio.StreamReader) -> None:
        config, account = self._config, self._account
        if account is None and config.sasl_account:
            password = config.sasl_password.get_secret_value() if config.sasl_password else ""
            account = Account(name=config.sasl_account, password=password)
        registration = Registration(
            self.nick,
            config.user,
            config.real_name,
            password=config.password.get_secret_value() if config.password else "",
            sasl=(account.name, account.password) if account is not None else None,
        )
        for raw in registration.begin():
            self._write(raw)
        async with asyncio.timeout(_REGISTER_TIMEOUT_S):
            while not registration.done:
                line = parse_line(await self._read_raw(reader))
                if line.command == "PING":
                    self._write(format_line("PONG", line.params[-1] if line.params else ""))
                for raw in registration.receive(line):
                    self._write(raw)
                if registration.failure and registration.account_refused:
                    raise AccountRefused(registration.failure)
                if registration.failure:
                    raise ConnectionLost(registration.failure)
        self.nick = registration.nick
        # A server without RPL_LOGGEDIN: accounts differ in more than the case of letters.
        self.account_name = registration.account or (account.name.lower() if account is not None else "")
        self.capabilities = frozenset(registration.capabilities)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        silent = False
        while True:
            try:
                async with asyncio.timeout(_SILENCE_S):
                    raw = await self._read_raw(reader)
            except TimeoutError:
                if silent:
                    raise
                silent = True
                self._write(format_line("PING", "hansa"))
                continue
            silent = False
            if raw:
                await self._receive(raw)

    async def _read_raw(self, reader: asyncio.StreamReader) -> bytes:
        return (await reader.readuntil(b"\n")).rstrip(b"\r\n")

    async def _receive(self, raw: bytes) -> None:
        try:
            line = parse_line(raw)
        except RemoteProtocolError as error:
            self._ctx.count("irc_bad_lines")
            self._bad_lines += 1
            if self._bad_lines > _MAX_BAD_LINES:
                raise ConnectionLost(f"the server does not speak IRC: {error}") from error
            return
        match line.command:
            case "PING":
                self._write(format_line("PONG", line.params[-1] if line.params else ""))
            case "PONG":
                answer = self._pongs.get(line.params[-1] if line.params else "")
                if answer is not None and not answer.done():
                    answer.set_result(None)
            case "ERROR":
                raise ConnectionLost(line.params[-1] if line.params else "the server closes the connection")
            case "005":
                self.features = with_tokens(self.features, line.params[1:-1])
            case "376" | "422":
                if not self.up.is_set():
                    self._on_up()
                    self.up.set()
            case _:
                await self._pass_on(line)

    async def _pass_on(self, line: Line) -> None:
        if line.command.isdecimal() and line.command[0] in "45" and len(self._errors) < _MAX_ERRORS:
            self._errors.append(line)
        if "!" in line.source and self.features.fold(line.nick) == self.features.fold(self.nick):
            self.source = line.source
            if line.command == "NICK":
                self.nick = line.param(0)
                self.source = ""
        await self._on_line(line)

    async def _take_budget(self) -> None:
        if not self._config.lines_per_second:
            return
        while True:
            self._budget.refill(self._ctx.clock.monotonic())
            wait = self._budget.wait()
            if not wait:
                break
            await asyncio.sleep(wait)
        self._budget.take()

    def _write(self, raw: bytes) -> None:
        if self._writer is None or self._writer.is_closing():
            raise ConnectionLost("there is no connection")
        self._writer.write(raw)

    def _end(self) -> None:
        self.up.clear()
        self.ended.set()
        if self._writer is not None:
            self._writer.close()
        for answer in self._pongs.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError("the connection ended"))
