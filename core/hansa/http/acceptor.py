"""Sockets that listen: every connection is counted from the moment it is accepted, its handshake included."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hansa.http.connection_limits import ConnectionEntry, ConnectionLimiter
from hansa.http.tls_handshakes import HandshakeLimits, HandshakeRates, HandshakeTurns, hello_received
from hansa.model.addresses import neighbourhood
from hansa.pacing.log_limit import LogLimit

if TYPE_CHECKING:
    from hansa.http.connection import Connection

#: Seconds for a TLS handshake, and for the end of one.
_HANDSHAKE_TIMEOUT_S, _GOODBYE_TIMEOUT_S = 10.0, 1.0
#: Connections that the system holds for us until they are accepted.
_BACKLOG = 1024
#: Connections that are accepted in one go.
_AT_ONCE = 64
#: Seconds without accepting after descriptors or memory ran out, and idle connections that make room then.
_PAUSE, _RELIEVED = 0.1, 16
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_log = logging.getLogger("hansa.http")


class _Handshake:
    """A connection until its protocol has it."""

    def __init__(self, accepted: socket.socket) -> None:
        self._accepted = accepted

    def idle(self) -> bool:
        return True

    def heard(self) -> bool:
        return False

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._accepted.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptRules:
    """How one address accepts. ``is_proxy`` is true for the address of a trusted proxy; ``tls`` None serves
    plain HTTP.
    """

    is_proxy: Callable[[str], bool]
    tls: ssl.SSLContext | None


class Acceptor:
    """Accepts connections of one address for a ``ConnectionLimiter``."""

    def __init__(
        self,
        intake: ConnectionLimiter,
        connection: Callable[[ConnectionEntry], Connection],
        count: Callable[..., None],
        rules: AcceptRules,
    ) -> None:
        self._intake = intake
        self._connection = connection
        self._count = count
        self._rules = rules
        self._sockets: list[socket.socket] = []
        self._taking: set[asyncio.Task[None]] = set()
        self._pauses: set[asyncio.TimerHandle] = set()
        self._told = LogLimit(_log)
        self._turns = HandshakeTurns()
        self._rates = HandshakeRates(HandshakeLimits(), lambda: asyncio.get_running_loop().time())

    @property
    def port(self) -> int:
        """The port of the first address; 0 for a unix socket."""
        return int(self._sockets[0].getsockname()[1]) if self._sockets[0].family != socket.AF_UNIX else 0

    def start(self, host: str, port: int) -> None:
        """Bind to every address of a host, all addresses if it is empty, or to a unix socket if it begins
        with a slash, which only its owner may use. Raises OSError.
        """
        try:
            self._sockets = [_bind_unix_socket(host)] if host.startswith("/") else _bind_addresses(host, port)
        except OSError as error:
            where = host if host.startswith("/") else f"{host}:{port}"
            raise OSError(error.errno, f"cannot listen on {where}: {error.strerror}") from error
        for bound in self._sockets:
            asyncio.get_running_loop().add_reader(bound, self._accept_waiting, bound)

    async def stop(self) -> None:
        """Accept nothing any more."""
        loop = asyncio.get_running_loop()
        for pause in self._pauses:
            pause.cancel()
        for bound in self._sockets:
            loop.remove_reader(bound)
            bound.close()
        self._sockets.clear()
        under_way = list(self._taking)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def _accept_waiting(self, bound: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, address = bound.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # gone before it was accepted
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause_accepting(bound, error)
                return
            self._take_socket(accepted, str(address[0]) if isinstance(address, tuple) else "")

    def _pause_accepting(self, bound: socket.socket, error: OSError) -> None:
        """The socket stays readable: it is not looked at for a moment, or the loop would turn for nothing."""
        self._count("http_no_descriptors")
        self._told.warning(
            "", "no connection can be accepted: %s; raise the limit (ulimit -n)", error.strerror
        )
        for _ in range(_RELIEVED):
            self._intake.relieve()
        loop = asyncio.get_running_loop()
        loop.remove_reader(bound)

        def again() -> None:
            self._pauses.discard(pause)
            loop.add_reader(bound, self._accept_waiting, bound)

        pause = loop.call_later(_PAUSE, again)
        self._pauses.add(pause)

    def _take_socket(self, accepted: socket.socket, address: str) -> None:
        accepted.setblocking(False)  # the library's signature
        entry = self._intake.enter(address, trusted=self._rules.is_proxy(address))
        if entry is None:
            group = neighbourhood(address)
            self._told.warning(group, "connections from %s are turned away: it has too many", group)
            accepted.close()
            return
        entry.hold(_Handshake(accepted))
        task = asyncio.get_running_loop().create_task(self._connect_protocol(accepted, entry))
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)

    def _too_often(self, accepted: socket.socket, entry: ConnectionEntry) -> None:
        self._count("http_turned_away", share="handshakes")
        self._told.warning(
            entry.group, "connections from %s are turned away: it makes too many a second", entry.group
        )
        self._intake.leave(entry)
        accepted.close()

    async def _connect_protocol(self, accepted: socket.socket, entry: ConnectionEntry) -> None:
        secure = self._rules.tls is not None
        try:
            if secure:
                async with asyncio.timeout(_HANDSHAKE_TIMEOUT_S):
                    await hello_received(accepted)
                if not entry.trusted and not self._rates.begin(entry.address):
                    self._too_often(accepted, entry)
                    return
                await self._turns.mine(entry.group)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._connection(entry),
                accepted,
                ssl=self._rules.tls,
                ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S if secure else None,
                ssl_shutdown_timeout=_GOODBYE_TIMEOUT_S if secure else None,
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is one
            self._count("http_no_handshake")
            self._told.info(entry.group, "%s made no connection: %s", entry.address, type(error).__name__)
            self._intake.leave(entry)
            accepted.close()
        except BaseException:
            self._intake.leave(entry)
            accepted.close()
            raise


def _bind_addresses(host: str, port: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    try:
        for family, kind, proto, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, proto)
            bound.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setblocking(False)  # the library's signature
            one.bind(address)
            one.listen(_BACKLOG)
    except OSError:
        for one in bound:
            one.close()
        raise
    return bound


def _is_served(path: str) -> bool:
    """True if a process answers at a unix socket. A socket that a dead process left behind does not
    answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
        asker.setblocking(False)  # the library's signature
        try:
            asker.connect(path)
        except BlockingIOError:  # many wait there
            return True
        except OSError:
            return False
    return True


def _bind_unix_socket(path: str) -> socket.socket:
    if _is_served(path):
        raise OSError(errno.EADDRINUSE, "another process answers there")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108  # one call, before anything else runs
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        bound.setblocking(False)  # the library's signature
        bound.bind(path)
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    finally:
        os.umask(before)
    return bound
