"""IQ requests to rooms of other services. SPEC: RFC 6120 section 8.2.3."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from hansa import Random

from hansa_xmpp.proto import render
from hansa_xmpp.proto.render import OutboundStanza
from hansa_xmpp.proto.stanza import Stanza

#: Seconds that an answer may take.
QUERY_TIMEOUT_S = 20.0


class QueryFailed(Exception):
    """There is no result. ``condition`` is that of the error, ``remote-server-timeout`` without an answer."""

    def __init__(self, condition: str, text: str = "") -> None:
        super().__init__(text or condition)
        self.condition = condition


def error_text(stanza: Stanza) -> str:
    """The words of an error stanza, or else its condition."""
    error = stanza.child("error")
    words = "" if error is None else next((e.text or "" for e in error if e.tag.endswith("}text")), "")
    return words.strip()[:300] or stanza.condition or "undefined-condition"


class ForeignQueries:
    """The requests under way. ``say`` sends."""

    def __init__(self, random: Random, say: Callable[[Iterable[OutboundStanza]], None]) -> None:
        self._random = random
        self.say = say
        self._waiting: dict[tuple[str, str], asyncio.Future[Stanza]] = {}

    async def ask(self, sender: str, to: str, inner: str, *, type_: str = "get") -> Stanza:
        """The result of a request of ``sender`` to ``to``. Raises ``QueryFailed``."""
        name = "muc-" + self._random.bytes(9).hex()
        future: asyncio.Future[Stanza] = asyncio.get_running_loop().create_future()
        self._waiting[to, name] = future
        try:
            self.say([render.stanza("iq", sender, [to], inner, type_=type_, id_=name)])
            async with asyncio.timeout(QUERY_TIMEOUT_S):
                answer = await future
        except TimeoutError:
            raise QueryFailed("remote-server-timeout", "there is no answer") from None
        finally:
            del self._waiting[to, name]
        if answer.type == "error":
            raise QueryFailed(answer.condition, error_text(answer))
        return answer

    def answered(self, stanza: Stanza) -> bool:
        """Takes an iq result or error; False if it does not answer a request."""
        future = self._waiting.get((stanza.sender.full, stanza.id))
        if future is None:
            return False
        if not future.done():
            future.set_result(stanza)
        return True
