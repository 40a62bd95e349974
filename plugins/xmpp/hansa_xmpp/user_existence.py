"""Asks the server of a person whether the person exists. SPEC: XEP-0030 section 8; RFC 6120 section 8.3.3.

Many servers tell strangers nothing of their users, whether they exist or not: that does not count as an
answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from hansa import Clock, LruCache, Random

from hansa_xmpp.proto import render
from hansa_xmpp.proto.jid import domain_of
from hansa_xmpp.proto.render import OutboundStanza, xml_element
from hansa_xmpp.proto.stanza import NS_DISCO_INFO, Stanza

#: Queries under way in all and to one domain, and the seconds that each has.
MAX_QUERIES, MAX_QUERIES_OF_DOMAIN, QUERY_TIMEOUT_S = 64, 8, 5.0
#: Answers that are remembered, and for how many seconds.
MAX_REMEMBERED, REMEMBERED_TTL_S = 1000, 60.0
_NO_SUCH_USER = "item-not-found"


class UserExistenceQueries:
    """The queries of one component, which asks as ``asker``."""

    def __init__(
        self, asker: str, clock: Clock, random: Random, say: Callable[[Iterable[OutboundStanza]], None]
    ) -> None:
        self._asker = asker
        self._clock = clock
        self._random = random
        self._say = say
        self._waiting: dict[tuple[str, str], asyncio.Future[bool]] = {}
        self._of_domain: Counter[str] = Counter()
        #: By bare JID, until when an answer holds, and the answer.
        self._known: LruCache[str, tuple[float, bool]] = LruCache(MAX_REMEMBERED)

    async def is_absent(self, person: str) -> bool:
        """True if the server of a bare JID says that it does not exist. False for any other answer, without
        an answer in time, and where too many are asked.
        """
        now, domain = self._clock.monotonic(), domain_of(person)
        until, known = self._known.get(person) or (0.0, False)
        if now < until:
            return known
        if len(self._waiting) >= MAX_QUERIES or self._of_domain[domain] >= MAX_QUERIES_OF_DOMAIN:
            return False
        name = "who-" + self._random.bytes(9).hex()
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[person, name] = future
        self._of_domain[domain] += 1
        try:
            query = xml_element("query", NS_DISCO_INFO)
            self._say([render.stanza("iq", self._asker, [person], query, type_="get", id_=name)])
            async with asyncio.timeout(QUERY_TIMEOUT_S):
                found = await future
        except TimeoutError:
            found = False
        finally:
            del self._waiting[person, name]
            self._of_domain[domain] -= 1
            if not self._of_domain[domain]:
                del self._of_domain[domain]
        self._known.put(person, (self._clock.monotonic() + REMEMBERED_TTL_S, found))
        return found

    def answered(self, stanza: Stanza) -> bool:
        """Takes an iq result or error; False if it does not answer a query of this component."""
        future = self._waiting.get((stanza.sender.bare, stanza.id))
        if future is None or stanza.sender.resource:
            return False
        if not future.done():
            future.set_result(stanza.type == "error" and stanza.condition == _NO_SUCH_USER)
        return True
