"""One HTTP client: how long heads and answers may take, and the answer to bytes that are not HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping

import orjson
from aiohttp import StreamReader, web

from hansa.environment import Admitted, Response
from hansa.http.connection_limits import ConnectionEntry, ConnectionLimiter
from hansa.http.router import Route
from hansa.pacing.log_limit import LogLimit

#: Seconds from the first byte of a request's head, or from the connection, to its end, and between requests.
_HEAD_TIMEOUT_S, _IDLE_TIMEOUT_S = 15.0, 75.0
#: Seconds in which some of an answer has to be taken, and that the rest of a refused body is read.
_TAKEN_TIMEOUT_S, _LINGER = 60.0, 3.0
#: Bytes of a body that are read before the endpoint reads them; reading pauses at twice as many.
_BUFFER = 32 * 1024
_LONGEST_LINE = 16_384
#: Bytes of a head that has not ended, and whole heads that wait while a request is answered.
_LARGEST_HEAD, _PIPELINED = 64 * 1024, 2
_log = logging.getLogger("hansa.http")


def error_response(status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error answer in the form that Matrix gave the web."""
    body = orjson.dumps({"errcode": code, "error": text.encode(errors="replace").decode()})
    return Response(status=status, body=body, headers=headers or {})


def out_of_order() -> Response:
    """The answer while the database fails. The database's own error text is for the operator."""
    return come_again("this server cannot reach its storage at the moment", 10)


def come_again(text: str, seconds: int) -> Response:
    """The answer to what is to be asked again later, by clients and servers."""
    return error_response(503, "M_UNKNOWN", text, {"Retry-After": str(seconds)})


class _Answer(web.Response):
    """The library keeps the last answer of a connection until the next request: without its body."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write all of it, and let go of it."""
        try:
            await super().write_eof(data)
        finally:
            self._body = None


def bind_protocol(answer: Response) -> web.Response:
    """An answer as the server library wants it."""
    return _Answer(
        status=answer.status,
        body=answer.body,
        headers=dict(answer.headers),
        content_type=answer.content_type,
    )


class Connection(web.RequestHandler):
    """The library's protocol, which neither bounds the time of a head nor answers faults in JSON."""

    def __init__(
        self,
        server: HttpProtocolFactory,
        loop: asyncio.AbstractEventLoop,
        entry: ConnectionEntry,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None is what turns it off
            keepalive_timeout=_IDLE_TIMEOUT_S,
            max_field_size=_LONGEST_LINE,
            max_line_size=_LONGEST_LINE,
            auto_decompress=False,
            read_bufsize=_BUFFER,
            lingering_time=_LINGER,
        )
        # The library would keep 32 heads of up to 2 MiB each for one client that is being answered.
        self._max_msg_queue_size, self._msg_queue_resume_size = _PIPELINED, _PIPELINED - 1
        #: Bytes of the head that comes, and the body of the last whole one.
        self._head = 0
        self._body: StreamReader | None = None
        self._count = server.count
        self._told = server.told
        self._intake = server.intake
        self.entry = entry
        entry.hold(self)
        self._deadline: asyncio.TimerHandle | None = None
        self._untaken: asyncio.TimerHandle | None = None
        #: Bytes of the answer that goes out in pieces, all of which are held until the last has left.
        self.answering = 0
        #: True once a body turned out to be no HTTP, while its request is being answered.
        self.broken = False
        #: True while a request is answered whose work is in vain once the client is gone.
        self.reads_only = False

    def idle(self) -> bool:
        """See ``hansa.http.connection_limits.LimitedConnection``."""
        return not self._request_in_progress and not self._messages

    def heard(self) -> bool:
        """See ``hansa.http.connection_limits.LimitedConnection``."""
        return self._request_count > 0

    def abort(self) -> None:
        """See ``hansa.http.connection_limits.LimitedConnection``."""
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first head has to come in time, too."""
        super().connection_made(transport)
        self._deadline = self._loop.call_later(_HEAD_TIMEOUT_S, self._on_head_timeout)
        if self.entry.gone:  # let go while it shook hands
            self.abort()

    def read_only(self) -> None:
        """See ``hansa.Request.reads_only``."""
        self.reads_only = True

    def routed(self, route: Route) -> None:
        """See ``hansa.http.listener.Wire``."""
        self.reads_only = route.cancel_on_disconnect

    def admitted(self, admitted: Admitted) -> None:
        """See ``hansa.http.listener.Wire``: without a body nothing is charged."""

    def pause_writing(self) -> None:
        """The client takes less than we say."""
        super().pause_writing()
        self._untaken = self._loop.call_later(_TAKEN_TIMEOUT_S, self._not_taken)
        if self.transport is not None:
            size = max(self.answering, self.transport.get_write_buffer_size())
            self._intake.untaken.hold(self, "" if self.entry.trusted else self.entry.group, size)

    def resume_writing(self) -> None:
        """The client takes it."""
        super().resume_writing()
        self._intake.untaken.release(self)
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def _not_taken(self) -> None:
        self._untaken = None
        self._count("http_not_taken")
        self.abort()

    def let_go(self) -> None:
        """See ``hansa.http.unread_responses.UnreadHolder``."""
        self._count("http_not_taken")
        self.abort()

    def _in_head(self) -> bool:
        return not self._messages and self._current_request is None

    def data_received(self, data: bytes) -> None:
        """A head that has begun has to end in time, however many small pieces it comes in."""
        count, body = self._request_count, self._body
        within_body = body is not None and not body.is_eof()
        super().data_received(data)
        if self._request_count != count:
            self._head, self._body = 0, self._messages[-1][1]
        elif not within_body:
            self._head += len(data)
            if self._head > _LARGEST_HEAD:
                self._count("http_large_heads")
                self.abort()
                return
        request = self._current_request
        if request is not None and self._messages and hasattr(self._messages[-1][0], "exc"):
            self.broken = True
            request.content.feed_eof()  # nothing more of it can come
        if not self._in_head():
            self._cancel_deadline()
        elif self._deadline is None:
            self._deadline = self._loop.call_later(_HEAD_TIMEOUT_S, self._on_head_timeout)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone, and with it what only it waited for."""
        self._cancel_deadline()
        if self._untaken is not None:
            self._untaken.cancel()
        self._intake.untaken.release(self)
        self._intake.leave(self.entry)
        work = self._task_handler if self.reads_only and self._request_in_progress else None
        super().connection_lost(exc)
        if work is not None:
            self._count("http_abandoned")
            work.cancel()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_head_timeout(self) -> None:
        self._deadline = None
        if self._in_head():
            self._count("http_slow")
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # the library's signature; it quotes the peer
    ) -> web.StreamResponse:
        """Bytes that are not HTTP are the peer's fault: one count and one line, no traceback."""
        if status < 500:
            self._count("http_malformed")
            self._told.info(self.entry.group, "%s sent invalid HTTP: %s", request.remote, type(exc).__name__)
            answer = error_response(status, "M_UNKNOWN", "this is not HTTP as it has to be")
        else:
            self._count("http_internal_errors")
            failure = exc or RuntimeError("no error was given")
            self._told.exception(failure, "a request of %s failed", request.remote)
            answer = error_response(status, "M_UNKNOWN", "an internal error, which was logged")
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        response = bind_protocol(answer)
        response.force_close()
        return response


class HttpProtocolFactory(web.Server):
    """Makes a ``Connection`` of every client. ``count`` is told what goes wrong before there is a request."""

    def __init__(
        self,
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        count: Callable[..., None],
        intake: ConnectionLimiter,
    ) -> None:
        super().__init__(answer)
        self.count = count
        self.intake = intake
        self.told = LogLimit(_log)
        #: The transports of the connections that have not left yet. The library forgets its own too early.
        self._transports: dict[web.RequestHandler, asyncio.Transport] = {}
        self._all_left = asyncio.Event()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """A connection begins, after its handshake if it has one."""
        super().connection_made(handler, transport)
        self._transports[handler] = transport

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """The socket of a connection is closed."""
        super().connection_lost(handler, exc)
        self._transports.pop(handler, None)
        if not self._transports:
            self._all_left.set()

    async def wait_closed(self, timeout_s: float) -> None:
        """Wait until the socket of every connection is closed. What is left after ``timeout_s`` is aborted:
        a closed transport still waits for the client to take the rest of an answer and the end of TLS.
        """
        await self._wait_until_left(timeout_s)
        for transport in list(self._transports.values()):
            self.count("http_not_taken")
            transport.abort()
        await self._wait_until_left(timeout_s)

    async def _wait_until_left(self, timeout_s: float) -> None:
        self._all_left.clear()
        if self._transports:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._all_left.wait()

    def connection(self, entry: ConnectionEntry) -> Connection:
        """A connection that was let in."""
        return Connection(self, self._loop, entry)
