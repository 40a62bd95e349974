"""The stream that clients read: a client that has read up to a position has missed nothing.

A row is written in the commit that it announces. ``topic`` says who it is for: a room id (an event of its
timeline), a user id (something of one user), ``RECEIPTS`` and a room id, ``DEVICES`` (a user's devices or
keys changed). ``ref`` identifies the item, ``state`` is the room's state group from an event on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from hansa import Append, Delete, Row, ScopedStore, StreamTail, scan_all

#: The prefix of the topics of receipts, and the topic of devices and keys.
RECEIPTS, DEVICES = "receipts", "*"
#: Rows in memory: a client that reads before so many rows are added gets its answer from them.
_TAIL = 20_000
_PAGE_SIZE, _AT_ONCE = 10_000, 500


@dataclass(frozen=True, slots=True)
class StreamItem:
    """One row."""

    position: int
    topic: str
    ref: str
    state: int


def stream_write(topic: str, ref: str, state: int = 0) -> Append:
    """The write that tells of something."""
    return Append("news", b"", {"topic": topic, "ref": ref, "state": state})


class TopicSet(Protocol):
    """Some topics, which may be many."""

    def __contains__(self, topic: str) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...

    def __len__(self) -> int: ...


class ClientStream:
    """The end of the stream in memory, the rest in the store, and who waits for more."""

    def __init__(self, store: ScopedStore) -> None:
        self._store = store
        self._by_topic: dict[str, deque[StreamItem]] = {}
        self._tail = StreamTail(
            store,
            "news",
            _TAIL,
            _item_from_row,
            reach=_TAIL,
            page_size=_PAGE_SIZE,
            on_added=self._add_to_tail,
            on_dropped=self._drop_from_tail,
        )
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def now(self) -> int:
        """How far the stream is, with everything up to there in reach."""
        return await self._tail.catch_up()

    def _add_to_tail(self, item: StreamItem) -> None:
        self._by_topic.setdefault(item.topic, deque()).append(item)

    def _drop_from_tail(self, item: StreamItem) -> None:
        of_topic = self._by_topic[item.topic]
        of_topic.popleft()
        if not of_topic:
            del self._by_topic[item.topic]

    async def items_between(
        self, since: int, upto: int, topics: TopicSet, most: int
    ) -> dict[str, Sequence[StreamItem]]:
        """By topic what was told of it after ``since`` and up to ``upto``, in order; nothing for a topic
        without any. Of a room and of ``DEVICES`` the last ``most`` at most, so that as many are not all of
        them; of what else was told more often the last time of each.
        """
        found: dict[str, Sequence[StreamItem]] = {}
        near = self._tail.reaches(since)
        if near and upto - since < len(topics):  # less has happened than there are topics
            latest: dict[str, list[StreamItem]] = {}
            for item in reversed(self._tail.items):
                if item.position <= since:
                    break
                if item.position <= upto and item.topic in topics:
                    latest.setdefault(item.topic, []).append(item)
            return {topic: _items_of_topic(topic, items, most)[::-1] for topic, items in latest.items()}
        for topic in topics:
            if near and topic not in self._by_topic:
                continue
            items = await self.last_items(topic, upto + 1, most, since=since)
            if len(items) == most and topic != DEVICES and not topic.startswith("!"):
                items = await self._latest_per_ref(topic, since, upto)
            if items:
                found[topic] = items
        return found

    async def _latest_per_ref(self, topic: str, since: int, upto: int) -> list[StreamItem]:
        """The last time that each was told of under a topic, however often that was."""
        latest: dict[str, StreamItem] = {}
        index = ("topic", "position")
        async for row in scan_all(self._store, "news", index=index, equal=(topic,), after=since, upto=upto):
            item = _item_from_row(row)
            latest[item.ref] = item
        return sorted(latest.values(), key=lambda item: item.position)

    async def last_items(self, topic: str, before: int, most: int, *, since: int = 0) -> list[StreamItem]:
        """The last ``most`` of a topic before a position and after ``since``, in order."""
        if before > self._tail.end + 1:
            await self.now()
        found: list[StreamItem] = []
        for item in reversed(self._by_topic.get(topic, ())):
            if item.position <= since or len(found) == most:
                break
            if item.position < before:
                found.append(item)
        found.reverse()
        if len(found) == most or (self._tail.reaches(since) and before <= self._tail.end + 1):
            return found
        rows = await self._store.scan(
            "news",
            index=("topic", "position"),
            equal=(topic,),
            after=before,
            upto=since + 1,
            limit=most,
            reverse=True,
        )
        return [_item_from_row(row) for row in reversed(rows)]

    async def first_items(
        self, topic: str, after: int, most: int, *, upto: int | None = None
    ) -> list[StreamItem]:
        """The first ``most`` of a topic after a position, in order."""
        rows = await self._store.scan(
            "news", index=("topic", "position"), equal=(topic,), after=after, upto=upto, limit=most
        )
        return [_item_from_row(row) for row in rows]

    async def position_of(self, topic: str, ref: str) -> int:
        """The position of what was told last of a topic under a name, 0 if nothing was."""
        rows = await self._store.scan(
            "news", index=("ref", "position"), equal=(ref,), limit=100, reverse=True
        )
        return next((row.position for row in rows if row.fields["topic"] == topic), 0)

    async def purge_topic(self, topic: str) -> None:
        """Remove all that was told of a topic."""
        index = ("topic", "position")
        while rows := await self._store.scan("news", index=index, equal=(topic,), limit=_AT_ONCE):
            await self._store.commit([Delete("news", row.key) for row in rows])

    def notify_topic(self, topic: str) -> None:
        """Wake who waits for news of a topic: some are durable, or were never to be."""
        for event in self._waiting.get(topic, ()):
            event.set()

    @contextmanager
    def subscribe_to(self, topics: Iterable[str]) -> Iterator[asyncio.Event]:
        """An event that is set by news of any of some topics."""
        event, listed = asyncio.Event(), list(topics)
        for topic in listed:
            self._waiting.setdefault(topic, set()).add(event)
        try:
            yield event
        finally:
            for topic in listed:
                waiting = self._waiting[topic]
                waiting.discard(event)
                if not waiting:
                    del self._waiting[topic]


def _items_of_topic(topic: str, items: list[StreamItem], most: int) -> list[StreamItem]:
    """Returns the items of a topic, the newest first: see ``ClientStream.items_between``."""
    return items[:most] if topic == DEVICES or topic.startswith("!") else items


def _item_from_row(row: Row) -> StreamItem:
    fields = row.fields
    return StreamItem(row.position, str(fields["topic"]), str(fields["ref"]), int(fields["state"] or 0))
