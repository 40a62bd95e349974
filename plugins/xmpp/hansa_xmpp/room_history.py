"""The history that a new occupant of a MUC is given. SPEC: XEP-0045 section 7.2.13 to 7.2.15."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace

from hansa import (
    Call,
    Custom,
    Edit,
    Event,
    Location,
    Message,
    NativeId,
    NetworkContext,
    PollEnd,
    PollStart,
    PollVote,
    RoomView,
    Style,
    Upgrade,
    fallback_text,
)

from hansa_xmpp.proto.commands import HistoryEntry, HistoryRequest
from hansa_xmpp.proto.muc import Muc

#: Kinds that are shown in words.
_IN_WORDS = Location | PollStart | PollVote | PollEnd | Call | Upgrade
_PAGE_SIZE, _MAX_PAGES = 50, 240
#: Bytes of text in the history for a new occupant.
_MAX_BYTES = 4 * 1024 * 1024


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
        allow.
        """
        most, since = self._limits(asked)
        if asked.chars == 0 or not most or upto < 1:
            return []
        found, left = deque[HistoryEntry](), _MAX_BYTES
        latest: dict[str, Event] = {}
        for _ in range(_MAX_PAGES):
            page = await self._ctx.read_history_for(
                muc.room, user, limit=_PAGE_SIZE, since=since, upto_seq=upto
            )
            for event in reversed(page):
                await asyncio.sleep(0)  # formatting a message of 64 KiB may take some milliseconds
                if isinstance(event.content, Edit):
                    latest.setdefault(event.content.target, event)
                    continue
                inner = await self._entry_xml(muc, view, event, latest.pop(event.id, None))
                if inner is None:
                    continue
                left -= len(inner.encode())
                if len(found) >= most or left < 0:
                    return list(found)
                found.appendleft(HistoryEntry(event, inner))
            if len(page) < _PAGE_SIZE or page[0].seq <= 1:
                break
            upto = page[0].seq - 1
        return list(found)

    def _limits(self, asked: HistoryRequest) -> tuple[int, int]:
        """How many messages, and since when (ms)."""
        config, since = self._ctx.config, asked.since or 0
        if asked.seconds is not None:
            since = max(since, self._ctx.clock.now() - asked.seconds * 1000)
        timed = asked.since is not None or asked.seconds is not None
        most = config.history_most if timed else config.history
        return most if asked.stanzas is None else min(asked.stanzas, config.history_most), since

    async def _entry_xml(self, muc: Muc, view: RoomView, event: Event, edit: Event | None) -> str | None:
        content, shown = event.content, event
        if isinstance(content, Custom) and not content.text:
            return None
        if edit is not None and isinstance(edit.content, Edit):
            content, shown = edit.content.message, edit
        target = None
        if isinstance(content, Message) and content.reply_to:
            target = await self._ctx.event_with_id(muc.room, content.reply_to)
        if isinstance(content, _IN_WORDS):
            content = Message(text=fallback_text(content), style=Style.NOTICE)
        if self._ctx.has_policies and shown.generation != self._ctx.policy_generation:
            shown = replace(shown, payload=b"")  # the policies of now have not read it
        return muc.message_inner(shown, content, target, view)
