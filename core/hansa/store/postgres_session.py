"""Sessions with PostgreSQL: where the database is, how a session is made, what an error says.

A URL is libpq's: ``sslmode``, ``sslrootcert``, ``sslcert``, ``sslkey``, ``passfile`` and what else asyncpg
knows, ``PGPASSFILE`` and ``~/.pgpass`` with it. Of several hosts the first that takes writes is used; each is
asked for ``_CONNECT_TIMEOUT_S`` seconds, so that one that does not answer keeps nobody from the next.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import asyncpg
from asyncpg.exceptions import (
    ClientConfigurationError,
    InterfaceError,
    InternalClientError,
    TargetServerAttributeNotMatched,
)

from hansa.store.base import StoreError
from hansa.store.credentials import Credentials
from hansa.store.faults import FaultKind, StoreFault, postgres_kind
from hansa.store.postgres_rights import DENIED, denied

_log = logging.getLogger("hansa.store")
_CONNECT_TIMEOUT_S = 4.0
#: Statements that a session has ready: some of each collection.
_STATEMENTS = 1000
#: PostgreSQL 14, the oldest that is maintained.
_OLDEST = 14
#: Options of libpq that say how it connects; asyncpg would take them for settings of the server.
_LIBPQ = frozenset(
    {
        "channel_binding",
        "connect_timeout",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "require_auth",
        "target_session_attrs",
        "tcp_user_timeout",
    }
)
#: The base classes of all errors of the driver and of the network.
ERRORS = (asyncpg.PostgresError, InterfaceError, InternalClientError, OSError, asyncio.TimeoutError)
_WHERE = """
SELECT concat_ws(' ', pg_postmaster_start_time(), inet_server_addr(), inet_server_port()),
  current_setting('synchronous_commit'), current_setting('fsync')
"""


def sqlstate(error: BaseException) -> str:
    """The five characters, empty where the server said nothing."""
    return str(getattr(error, "sqlstate", None) or "")


def is_cut(error: BaseException) -> bool:
    """True if the session cannot be used any more: it ended, its server takes no writes, or no more
    sessions.
    """
    if isinstance(error, asyncpg.PostgresError):
        state = sqlstate(error)
        return state[:2] == "08" or state[:4] == "57P0" or state in {"25006", "53300"}
    return True


def reason(error: BaseException) -> str:
    """An error for a log: never a row, which an error's details may contain."""
    if isinstance(error, asyncpg.PostgresError):
        first = str(error.args[0] if error.args else "").partition("\n")[0]
        return f"{first[:200]} ({sqlstate(error) or type(error).__name__})"
    return f"{type(error).__name__}: {str(error)[:200]}" if str(error) else type(error).__name__


def _hosts(spec: str) -> list[tuple[str, int | None]]:
    """Hosts of a URL, or of its option ``host``, with their ports."""
    found = list[tuple[str, int | None]]()
    for one in filter(None, spec.split(",")):
        host, colon, port = one.rpartition(":")
        if colon and port.isdigit() and (":" not in host or host.startswith("[")):
            found.append((unquote(host).strip("[]"), int(port)))
        else:
            found.append((unquote(one).strip("[]"), None))
    return found


#: Every statement is made for an index, and a table that has no statistics yet shall be read by it too.
_BY_INDEX = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


class PostgresSession:
    """A connection, and the server it is with. ``warned``: the server did as it was asked, with a warning, as
    it does when its wait for a standby is ended.
    """

    __slots__ = ("connection", "server", "warned")

    def __init__(self, connection: Any, server: str) -> None:
        self.connection = connection
        self.server = server
        self.warned = False
        connection.add_log_listener(self._on_notice)

    def _on_notice(self, _: Any, message: Any) -> None:
        self.warned |= message.severity_en == "WARNING"

    def cut_after(self, seconds: float) -> asyncio.TimerHandle:
        """End it unless the returned handle is cancelled before; what waits for an answer then fails."""
        return asyncio.get_running_loop().call_later(seconds, self.connection.terminate)


class PostgresServer:
    """Where a database is. Its text, and that of its errors, has no password."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        given = parse_qsl(parts.query)
        options = dict(given)
        spec = parts.netloc.rpartition("@")[2] or options.get("host", "")
        port = options.get("port", "")
        self._hosts = [(host, own or (int(port) if port.isdigit() else None)) for host, own in _hosts(spec)]
        kept = urlencode([(k, v) for k, v in given if k not in _LIBPQ | {"host", "port"}])
        self._url = parts._replace(query=kept).geturl()
        self._settings = {} if "application_name" in options else {"application_name": "hansa"}
        self._credentials = Credentials(url)
        self.role = unquote(parts.username or options.get("user", ""))
        self._name = f"{parts.path.strip('/')} at {spec or 'this machine'}"
        self._last = 0
        self._told = False

    def __str__(self) -> str:
        return self._name

    def fault(self, error: BaseException) -> StoreError:
        """Returns an error of the driver or of the network as one of this store."""
        text, kind = self._credentials.blank(reason(error)), postgres_kind(sqlstate(error))
        if isinstance(error, TargetServerAttributeNotMatched):
            return StoreFault(FaultKind.READ_ONLY, f"PostgreSQL {self._name}: no host takes writes")
        if sqlstate(error) == DENIED:
            return denied(self._name, self.role, text)
        if isinstance(error, ClientConfigurationError | ssl.SSLCertVerificationError):
            kind = FaultKind.FAILING  # no waiting mends what is configured
        return StoreFault(kind, f"PostgreSQL {self._name}: {text}")

    async def connect(self, **settings: str) -> PostgresSession:
        """A session with the host that takes writes. Raises what ``ERRORS`` names, StoreError."""
        error: BaseException | None = None
        hosts: list[tuple[str | None, int | None]] = [*self._hosts] or [(None, None)]
        for offset in range(len(hosts)):
            at = (self._last + offset) % len(hosts)
            try:
                session = await self._connect_to(*hosts[at], settings)
            except ERRORS as failed:
                # A host that could write, but for now, says more than one that is a standby.
                if error is None or not isinstance(failed, TargetServerAttributeNotMatched):
                    error = failed
            else:
                self._last = at
                return session
        assert error is not None
        raise error

    async def _connect_to(
        self, host: str | None, port: int | None, settings: Mapping[str, str]
    ) -> PostgresSession:
        connection = await asyncpg.connect(
            self._url,
            host=host,
            port=port,
            timeout=_CONNECT_TIMEOUT_S,
            target_session_attrs="read-write",
            statement_cache_size=_STATEMENTS,
            max_cached_statement_lifetime=0,
            server_settings={**self._settings, "jit": "off", **settings},
        )
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                return await self._require_usable(connection)
        except BaseException:
            connection.terminate()
            raise

    async def _require_usable(self, connection: Any) -> PostgresSession:
        version = connection.get_server_version().major
        if version < _OLDEST:
            raise StoreError(f"PostgreSQL {self._name} is too old: {version}; {_OLDEST} is the least")
        encoding = connection.get_settings().server_encoding
        if encoding != "UTF8":
            raise StoreError(
                f"the encoding of PostgreSQL {self._name} is {encoding}: make the database with "
                f"ENCODING 'UTF8' TEMPLATE template0"
            )
        server, synchronous, fsync = await connection.fetchrow(_WHERE)
        if synchronous == "off":
            await connection.execute("SET synchronous_commit = on")
        if fsync == "off" and not self._told:
            self._told = True
            _log.warning("PostgreSQL %s runs with fsync = off: a crash may lose or damage all", self._name)
        return PostgresSession(connection, server)


class PostgresReaders:
    """A few sessions that read, with the server that the writer is with: another may be one of before."""

    def __init__(self, place: PostgresServer, most: int, seconds: float) -> None:
        self._place = place
        self._free = asyncio.Semaphore(most)
        self._idle: list[PostgresSession] = []
        self._every: set[PostgresSession] = set()
        self._seconds = seconds
        self._server = ""

    def moved(self, server: str) -> None:
        """The server that is written to from now on."""
        self._server = server

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        """A connection to read with, cut off after a while. Raises what ``ERRORS`` names, StoreError."""
        async with self._free:
            session = await self._take_session()
            cut = session.cut_after(self._seconds)
            try:
                yield session.connection
            except BaseException as error:
                if not isinstance(error, asyncpg.PostgresError) or is_cut(error):
                    self._drop_session(session)
                raise
            else:
                self._idle.append(session)
            finally:
                cut.cancel()

    async def _take_session(self) -> PostgresSession:
        while self._idle:
            session = self._idle.pop()
            if session.server == self._server and not session.connection.is_closed():
                return session
            self._drop_session(session)
        timeout = str(round(self._seconds * 1000))
        session = await self._place.connect(statement_timeout=timeout, **_BY_INDEX)
        self._every.add(session)
        if session.server != self._server:
            self._drop_session(session)
            raise ConnectionError("another server than the one that is written to")
        return session

    def _drop_session(self, session: PostgresSession) -> None:
        self._every.discard(session)
        session.connection.terminate()

    def close(self) -> None:
        """End all sessions; what they read fails."""
        for session in list(self._every):
            self._drop_session(session)
        self._idle.clear()
