"""The history that a new occupant of a MUC is given. SPEC: XEP-0045 section 7.2.13 to 7.2.15."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hansa import (
    Call,
    Custom,
    Edit,
    Event,
    Kind,
    Location,
    Message,
    NativeId,
    NetworkContext,
    PollEnd,
    PollStart,
    PollVote,
    Reaction,
    Retraction,
    RoomView,
    Style,
    Upgrade,
    fallback_text,
)

from hansa_xmpp.proto.commands import HistoryEntry, HistoryRequest
from hansa_xmpp.proto.muc import Muc
from hansa_xmpp.proto.targeted import ReactionSet

#: Kinds that are shown in words.
IN_WORDS = Location | PollStart | PollVote | PollEnd | Call | Upgrade
_PAGE_SIZE, _MAX_PAGES, _MAX_EARLIER_PAGES = 50, 240, 4
#: Bytes of stanzas in the history for a new occupant.
_MAX_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class _Walk:
    """A walk through the log from its end. What concerns a message comes before it: its latest edits, and by
    target and sender the newest reaction with the keys of all, the newest first.
    """

    left: int
    bytes_left: int
    latest: dict[str, Event] = field(default_factory=dict)
    reactions: dict[str, dict[NativeId, tuple[Event, list[str]]]] = field(default_factory=dict)
    found: list[HistoryEntry] = field(default_factory=list)

    def add_reaction(self, event: Event, content: Reaction) -> None:
        """Keep a reaction for its message."""
        of_target = self.reactions.setdefault(content.target, {})
        keys = of_target.setdefault(event.sender, (event, []))[1]
        if content.key not in keys:
            keys.append(content.key)

    def add(self, entries: Sequence[HistoryEntry]) -> bool:
        """Add a message and its reactions; False if the message is one too many. Reactions for which there is
        no place are left out.
        """
        for number, entry in enumerate(entries):
            size = entry.stanza.size
            if not self.left or size > self.bytes_left:
                return number > 0
            self.left, self.bytes_left = self.left - 1, self.bytes_left - size
            self.found.append(entry)
        return True

    def entries(self) -> list[HistoryEntry]:
        """What was found, in the order of the log. What was said before it has no place in it."""
        entries = self.found[::-1]
        entries.sort(key=lambda entry: entry.event.seq)
        return entries


class RoomHistory:
    """Reads what was said in a room. A message is shown with the text of its latest correction, and under
    its own id, so that it can be corrected again.
    """

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx

    async def read_entries(
        self, muc: Muc, view: RoomView, user: NativeId, asked: HistoryRequest, upto: int
    ) -> list[HistoryEntry]:
        """The messages up to the event ``upto`` that ``user`` may read, as many as the request and the bounds
        allow, with the reactions to them and what was retracted.
        """
        most, since = self._limits(asked)
        if asked.chars == 0 or not most or upto < 1:
            return []
        walk, at = _Walk(most, _MAX_BYTES), upto
        for _ in range(_MAX_PAGES):
            page = await self._ctx.read_history_for(
                muc.room, user, limit=_PAGE_SIZE, since=since, upto_seq=at
            )
            for event in reversed(page.events):
                await asyncio.sleep(0)  # formatting a message of 64 KiB may take some milliseconds
                if isinstance(event.content, Edit):
                    walk.latest.setdefault(event.content.target, event)
                elif isinstance(event.content, Reaction):
                    walk.add_reaction(event, event.content)
                elif not walk.add(await self._entries_of(muc, view, event, walk, user)):
                    return walk.entries()
            if page.next_seq is None:
                await self._add_earlier(muc, view, user, walk, since)
                break
            at = page.next_seq
        return walk.entries()

    async def _add_earlier(self, muc: Muc, view: RoomView, user: NativeId, walk: _Walk, since: int) -> None:
        """Goes on before the log, with what is here: nobody waits for other servers to enter."""
        before: str | None = ""
        for _ in range(_MAX_EARLIER_PAGES):
            found = await self._ctx.read_earlier_for(
                muc.room, user, before or "", limit=_PAGE_SIZE, ask_others=False
            )
            if found is None:
                return
            for event in reversed(found.events):
                if isinstance(event.content, Edit):
                    walk.latest.setdefault(event.content.target, event)
                elif event.received >= since:  # a time that its sender claims: the others may be later
                    entries = await self._entries_of(muc, view, event, walk, user)
                    if not walk.add(entries):
                        return
            if found.before is None or found.before == before:
                return
            before = found.before

    async def _entries_of(
        self, muc: Muc, view: RoomView, event: Event, walk: _Walk, user: NativeId
    ) -> list[HistoryEntry]:
        """What shows an event, and after it the reactions to it; nothing where it is not shown."""
        if isinstance(event.content, Retraction):
            return await self._retraction_entry(muc, view, event, event.content, user)
        shown = [await self._shown_message(muc, view, event, walk.latest.pop(event.id, None))]
        if shown[0] is not None:
            for newest, keys in walk.reactions.pop(event.id, {}).values():
                reactions = ReactionSet(event.id, tuple(reversed(keys)))
                shown.append(HistoryEntry.of(newest, muc.past_message(newest, reactions, event, view)))
        return [entry for entry in shown if entry is not None]

    async def _retraction_entry(
        self, muc: Muc, view: RoomView, event: Event, content: Retraction, user: NativeId
    ) -> list[HistoryEntry]:
        """For who was here when the message was said, and may still show it."""
        if content.of in {Kind.REACTION, Kind.EDIT}:
            return []  # what is left of them is shown as it is now
        target = await self._ctx.event_with_id(muc.room, content.target)
        if target is None or not await self._ctx.was_joined(muc.room, user, target.seq):
            return []
        shown = HistoryEntry.of(event, muc.past_message(event, content, target, view))
        return [shown] if shown is not None else []

    async def _shown_message(
        self, muc: Muc, view: RoomView, event: Event, edit: Event | None
    ) -> HistoryEntry | None:
        inner = await self._message_xml(muc, view, event, edit)
        return HistoryEntry.of(event, None if inner is None else muc.message_with(event, inner, view))

    def _limits(self, asked: HistoryRequest) -> tuple[int, int]:
        """How many messages, and since when (ms)."""
        config, since = self._ctx.config, asked.since or 0
        if asked.seconds is not None:
            since = max(since, self._ctx.clock.now() - asked.seconds * 1000)
        timed = asked.since is not None or asked.seconds is not None
        most = config.history_most if timed else config.history
        return most if asked.stanzas is None else min(asked.stanzas, config.history_most), since

    async def _message_xml(self, muc: Muc, view: RoomView, event: Event, edit: Event | None) -> str | None:
        content, shown = event.content, event
        if isinstance(content, Custom) and not content.text:
            return None
        if edit is not None and isinstance(edit.content, Edit):
            content, shown = edit.content.message, edit
        target = None
        if isinstance(content, Message) and content.reply_to:
            target = await self._ctx.event_with_id(muc.room, content.reply_to)
        if isinstance(content, IN_WORDS):
            content = Message(text=fallback_text(content), style=Style.NOTICE)
        if self._ctx.has_policies and shown.generation != self._ctx.policy_generation:
            shown = replace(shown, payload=b"")  # the policies of now have not read it
        return muc.message_inner(shown, content, target, view)
