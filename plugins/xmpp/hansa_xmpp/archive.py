"""The archive of a hosted room, from the log: what the room showed, with the ids under which it did.

A person reads what the room's history visibility and their membership at the time allow. Policies judge what
has changed since. SPEC: XEP-0313 section 4, section 5 and section 6.1.2 (archives of rooms).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from hansa import (
    Custom,
    Delivery,
    Event,
    Kind,
    Member,
    Membership,
    Message,
    Name,
    NativeId,
    NetworkContext,
    Retraction,
    RoomView,
    Style,
    TokenBuckets,
    fallback_text,
    target_of,
)
from hansa.model.content import BLANK
from hansa.model.features import Features, split_content

from hansa_xmpp.proto import archive_xml, errors, iq, jid
from hansa_xmpp.proto.archive_query import (
    ArchiveQuery,
    ArchiveRefused,
    is_metadata_request,
    parse_archive_query,
)
from hansa_xmpp.proto.archive_xml import ArchivedMessage
from hansa_xmpp.proto.convert import MAX_TEXT
from hansa_xmpp.proto.render import OutboundStanza
from hansa_xmpp.proto.stanza import MAX_ID, Stanza
from hansa_xmpp.room_history import IN_WORDS
from hansa_xmpp.service import HostedRoom, MucService
from hansa_xmpp.submissions import find_person
from hansa_xmpp.transport import Transport

#: Bytes of a page, and events that are looked at for it.
_MAX_BYTES, MAX_EXAMINED = 512 * 1024, 2000
#: Reads of the log that a person, and the people of one domain, may cause a second, and at once.
_PERSON_RATE, _PERSON_BURST = 5.0, 20.0
_DOMAIN_RATE, _DOMAIN_BURST = 50.0, 200.0
#: Events that are read at a time, and ids that are looked up for the price of such a read.
_READ_SIZE, _NAMED_SIZE = 100, 10
#: Reads of what was said before the log, for one page. The ids of it begin so.
_MAX_EARLIER_READS, _EARLIER = 5, "~"
#: Pages that are made at the same time.
MAX_PAGES = 4
_SPLIT = Features(max_text=MAX_TEXT)


@dataclass(frozen=True, slots=True)
class _ArchiveReader:
    """A person who reads the archive of a room, whose present is ``view``."""

    room: HostedRoom
    view: RoomView
    user: NativeId

    @property
    def native(self) -> str:
        """The room's address."""
        return self.room.muc.room


@dataclass(slots=True)
class _Page:
    """The messages of a page, in the order in which they are read, of ``sender`` and with ``ids`` alone where
    these are given. ``examined`` is the id of the last event
    that was looked at, ``complete`` says that no other message matches.
    """

    limit: int
    sender: NativeId | None = None
    ids: tuple[str, ...] | None = None
    messages: list[ArchivedMessage] = field(default_factory=list)
    size: int = 0
    examined: str = ""
    complete: bool = False

    def add(self, parts: Sequence[ArchivedMessage]) -> bool:
        """Add a message, in the order in which it is read; False if there is no place for it. The first one
        always has a place: one message may come in many parts.
        """
        size = sum(part.stanza.size for part in parts)
        full = len(self.messages) + len(parts) > self.limit or self.size + size > _MAX_BYTES
        if not self.limit or (self.messages and full):
            return False
        self.messages += parts
        self.size += size
        return True


class Archive:
    """Answers what people ask of the archives of the hosted rooms."""

    def __init__(self, ctx: NetworkContext, service: MucService, transport: Transport) -> None:
        self._ctx = ctx
        self._service = service
        self._transport = transport
        self._people = TokenBuckets(ctx.clock, _PERSON_RATE, _PERSON_BURST)
        self._domains = TokenBuckets(ctx.clock, _DOMAIN_RATE, _DOMAIN_BURST)
        self._pages = asyncio.Semaphore(MAX_PAGES)

    async def answer(self, stanza: Stanza, room: HostedRoom) -> None:
        """Answer an IQ for which ``is_archive_request`` is true, and which the policies allow."""
        try:
            if not 0 < len(stanza.id.encode()) <= MAX_ID:
                stanza = replace(stanza, id="")
                raise ArchiveRefused(errors.BAD_REQUEST, f"an iq has an id of at most {MAX_ID} bytes")
            reader = await self._require_reader(room, NativeId(self._ctx.id, stanza.sender.bare))
            asked = stanza.element[0]
            if stanza.type == "get" and is_metadata_request(asked):
                ends = await self._read_ends(reader)
                self._service.send_stanzas(iq.result(stanza, archive_xml.metadata_xml(ends)).stanzas)
            elif stanza.type == "get":
                self._service.send_stanzas(iq.result(stanza, archive_xml.form_xml()).stanzas)
            else:
                await self._send_page(stanza, reader, parse_archive_query(asked))
        except ArchiveRefused as refused:
            self._ctx.count("xmpp_refused", why=refused.condition.name)
            self._service.send_stanzas(errors.error_reply(stanza, refused.condition, refused.text))

    async def _require_reader(self, room: HostedRoom, user: NativeId) -> _ArchiveReader:
        """Who may enter the room may ask: its members, who is invited, and everybody where the history is for
        everybody. What they read is judged event by event.
        """
        await self._ctx.get_judged_view(room.muc.room)
        view = self._service.view(room.muc.room)
        membership = view.membership(user)
        public = view.facts.history_visibility == "world_readable" and membership is not Membership.BAN
        if membership not in {Membership.JOIN, Membership.INVITE} and not public:
            raise ArchiveRefused(errors.FORBIDDEN, "only people of the room read its archive")
        return _ArchiveReader(room, view, user)

    async def _send_page(self, stanza: Stanza, reader: _ArchiveReader, query: ArchiveQuery) -> None:
        page = await self._read_page(reader, query)
        messages = page.messages[::-1] if query.from_end else page.messages
        to = stanza.sender.full
        shown = reversed(messages) if query.flipped else messages
        self._service.send_stanzas(message.result(reader.native, to, query.query_id) for message in shown)
        # Who pages on from here must come on also where nothing matched among all that was looked at.
        nothing = "" if page.complete or not query.limit else page.examined
        first, last = (messages[0].id, messages[-1].id) if messages else (nothing, nothing)
        fin = archive_xml.fin_xml(first, last, complete=page.complete)
        self._service.send_stanzas(iq.result(stanza, fin).stanzas)
        await self._transport.wait_drained()

    async def _read_ends(self, reader: _ArchiveReader) -> list[ArchivedMessage]:
        first = (await self._read_page(reader, ArchiveQuery(limit=1))).messages
        if not first:
            return []
        last = (await self._read_page(reader, ArchiveQuery(limit=1, from_end=True))).messages
        return [first[0], last[0]] if last else []

    async def _read_page(self, reader: _ArchiveReader, query: ArchiveQuery) -> _Page:
        """The messages of a page, which is given when its work is within the reader's rate."""
        named = len(query.after) + len(query.before) + len(query.ids or ())
        await self._wait_turns(reader.user, 1 + named // _NAMED_SIZE)
        earlier = [id_ for id_ in query.before if id_.startswith(_EARLIER)]
        goes_on = query.from_end and not query.after and query.ids is None
        if earlier and not (goes_on and len(query.before) == 1):
            raise ArchiveRefused(errors.NOT_FOUND, "what was said before the log is only read backward")
        sender = await self._sender_of(reader, query.sender) if query.sender else None
        page, reads = _Page(query.limit, sender, query.ids), 1
        if not earlier:
            async with self._pages:
                reads = await self._fill_page(reader, query, page)
        if goes_on and query.limit and (earlier or page.complete) and await self._begins_later(reader, query):
            page.complete = False
            await self._add_earlier(reader, query, page, earlier[0] if earlier else "")
        await self._wait_turns(reader.user, reads - 1)
        return page

    async def _begins_later(self, reader: _ArchiveReader, query: ArchiveQuery) -> bool:
        """False where the log has messages from before the time that a query begins at: it has all of it."""
        if query.start is None:
            return True
        older = await self._ctx.read_history_for(
            reader.native, reader.user, limit=1, until=query.start, after_seq=0
        )
        return not older.events

    async def _add_earlier(
        self, reader: _ArchiveReader, query: ArchiveQuery, page: _Page, before: str
    ) -> None:
        """Go on before the log, where the page is read from its end. Other servers may be asked."""
        for _ in range(_MAX_EARLIER_READS):
            size = min(query.limit + 1, _READ_SIZE)
            # A page of the log is not held up by other servers.
            found = await self._ctx.read_earlier_for(
                reader.native, reader.user, before, limit=size, ask_others=not page.messages
            )
            if found is None:
                raise ArchiveRefused(errors.NOT_FOUND, "there is no message with this id in the archive")
            for event in reversed(found.events):
                # A time that its sender claims: what lies before it may be later.
                timely = (query.start or 0) <= event.received and (
                    query.end is None or event.received <= query.end
                )
                parts = await self._parts_of(reader, page, event) if timely else []
                if parts and not page.add(parts[::-1]):
                    return
                page.examined = event.id
            if found.before is None:
                page.complete = True
                return
            if found.before == before:
                return
            before = page.examined = found.before
            await self._wait_turns(reader.user, 1)

    async def _parts_of(self, reader: _ArchiveReader, page: _Page, event: Event) -> list[ArchivedMessage]:
        """The messages that showed an event and match the filters of the page."""
        if page.sender is not None and event.sender != page.sender:
            return []
        parts = await self._messages_of(reader, event)
        return [part for part in parts if page.ids is None or part.id in page.ids]

    async def _fill_page(self, reader: _ArchiveReader, query: ArchiveQuery, page: _Page) -> int:
        """The reads that the messages of the log took. One message more is looked for, to say whether the
        page is the last one.
        """
        examined = 0
        low = max([(await self._require_event(reader, id_)).seq for id_ in query.after], default=0)
        befores = [(await self._require_event(reader, id_)).seq - 1 for id_ in query.before]
        events = self._events_of(reader, query, low, min(befores, default=None))
        async with aclosing(events):
            async for event in events:
                if examined >= MAX_EXAMINED:
                    break
                await asyncio.sleep(0)  # formatting a message of 64 KiB may take some milliseconds
                examined += 1
                parts = await self._parts_of(reader, page, event)
                if parts and not page.add(parts[::-1] if query.from_end else parts):
                    break
                page.examined = event.id
            else:
                page.complete = True
        return 1 + examined // _READ_SIZE

    async def _events_of(
        self, reader: _ArchiveReader, query: ArchiveQuery, low: int, high: int | None
    ) -> AsyncGenerator[Event, None]:
        """The events after ``low`` and up to ``high`` that the person may read and that are of the time of
        the query, or those with its ids, in the order in which the page is read.
        """
        until = None if query.end is None else query.end + 1
        if query.ids is not None:
            named = {event.seq: event for event in [await self._require_event(reader, i) for i in query.ids]}
            for _, event in sorted(named.items(), reverse=query.from_end):
                early = event.seq <= low or event.received < (query.start or 0)
                late = (high is not None and event.seq > high) or (
                    until is not None and event.received >= until
                )
                if not early and not late:
                    yield event
            return
        at, size = high if query.from_end else low, min(query.limit + 1, _READ_SIZE)
        while high is None or high > low:
            found = await self._ctx.read_history_for(
                reader.native,
                reader.user,
                limit=size,
                since=query.start or 0,
                until=until,
                after_seq=None if query.from_end else at,
                upto_seq=at if query.from_end else high,
            )
            for event in reversed(found.events) if query.from_end else found.events:
                if event.seq > low:
                    yield event
            if found.next_seq is None or (query.from_end and found.next_seq <= low):
                return
            at, size = found.next_seq, _READ_SIZE

    async def _wait_turns(self, user: NativeId, count: int) -> None:
        """Wait until a person, and their domain, may cause so many reads more."""
        for _ in range(count):
            for buckets, name in ((self._people, user.id), (self._domains, jid.domain_of(user.id))):
                wait = buckets.take(name)
                while wait:
                    await asyncio.sleep(wait)
                    wait = buckets.take(name)

    async def _require_event(self, reader: _ArchiveReader, id_: str) -> Event:
        """The event with an id of the archive. Raises ``ArchiveRefused`` where the person may not know it."""
        event = await self._ctx.event_with_id(reader.native, id_.partition(".")[0])
        if event is not None:
            found = await self._ctx.read_history_for(
                reader.native, reader.user, limit=1, after_seq=event.seq - 1, upto_seq=event.seq
            )
            if found.events:
                return found.events[0]
        raise ArchiveRefused(errors.NOT_FOUND, "there is no message with this id in the archive")

    async def _sender_of(self, reader: _ArchiveReader, address: str) -> NativeId:
        """The person with a JID, or the occupant with an address of the room."""
        bare, _, nick = address.partition("/")
        occupant = reader.room.muc.roster.by_nick(nick) if bare == reader.native else None
        if occupant is not None:
            return occupant.user
        return await find_person(self._ctx, bare)

    async def _messages_of(self, reader: _ArchiveReader, event: Event) -> list[ArchivedMessage]:
        """The messages that showed an event: more than one where its text is too long for one, none for what
        no message showed.
        """
        if isinstance(event.content, Member | Name) or (
            isinstance(event.content, Custom) and not event.content.text and not event.payload
        ):
            return await self._tombstone(reader, event) if event.content == BLANK else []
        if self._ctx.has_policies and event.generation != self._ctx.policy_generation:
            event = replace(event, payload=b"")  # the policies of now have not read it
        wanted, target = target_of(event.content), None
        if wanted.startswith(_EARLIER):
            target = replace(event, id=wanted)  # of a message of before the log only the id is needed
        elif wanted:
            target = await self._ctx.event_with_id(reader.native, wanted)
        link = self._ctx.get_link(reader.native)
        if link is None:
            return []
        delivery = Delivery(key="", link=link, event=event, content=event.content, target=target)
        content, target = await self._service.targets.shown_content(delivery)
        if isinstance(content, IN_WORDS):
            content = Message(text=fallback_text(content), style=Style.NOTICE)
        if content is None:
            return []
        parts = split_content(content, _SPLIT) if isinstance(content, Message) else (content,)
        shown = list[ArchivedMessage]()
        for number, part in enumerate(parts):
            told = replace(event, id=f"{event.id}.{number}") if number else event
            stanza = reader.room.muc.past_message(told, part, target, reader.view)
            if stanza is not None:
                shown.append(self._archived(told, stanza))
        return shown

    async def _tombstone(self, reader: _ArchiveReader, event: Event) -> list[ArchivedMessage]:
        """What is left of a message: nothing of reactions and corrections, which were about others."""
        async for retraction in self._ctx.related(event, Kind.RETRACTION, newest_first=True):
            content = retraction.content
            if not isinstance(content, Retraction) or content.of in {Kind.REACTION, Kind.EDIT}:
                continue
            if await self._ctx.event_with_id(reader.native, retraction.id) is None:
                continue
            stanza = reader.room.muc.tombstone(event, retraction, content, reader.view)
            return [self._archived(event, stanza)]
        return []

    def _archived(self, event: Event, stanza: OutboundStanza) -> ArchivedMessage:
        address = jid.address_of(event.sender, self._ctx.id, self._ctx.config.component)
        return ArchivedMessage(event.id, event.received, stanza, address)
