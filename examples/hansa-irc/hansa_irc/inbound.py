"""What happens on IRC goes to the core: in order, in batches, and again where the core is busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from hansa import (
    Busy,
    Member,
    Membership,
    NativeId,
    NetworkContext,
    Refusal,
    Submission,
    ViewDelta,
)

from hansa_irc.channels import Channels, Happening, role_of

#: Lines that wait for the core; then the server is not read.
MAX_WAITING = 1000
_BATCH = 50
_BUSY_S = 1.0


class Inbound:
    """The queue of one network."""

    def __init__(
        self, ctx: NetworkContext, channels: Channels, on_refused: Callable[[Happening, Refusal], None]
    ) -> None:
        self._ctx, self._channels, self._on_refused = ctx, channels, on_refused
        self._queue: asyncio.Queue[Submission | str] = asyncio.Queue(MAX_WAITING)
        #: What is being submitted. A fault of the database repeats it: the same origins are the same events.
        self._batch: list[Submission] = []
        self._ranked: set[str] = set()
        self._run = ctx.random.bytes(8).hex()
        self._number = 0

    async def put(self, happening: Happening, msgid: str = "") -> None:
        """Queue what a person did."""
        if self._ctx.get_link(happening.channel) is None:
            self._forget(happening)
            return
        self._number += 1
        await self._queue.put(
            Submission(
                origin=NativeId(self._ctx.id, msgid or f"{self._run}.{self._number}"),
                room=NativeId(self._ctx.id, happening.channel),
                sender=NativeId(self._ctx.id, happening.sender),
                content=happening.content,
                ts=self._ctx.clock.now(),
            )
        )

    async def rank(self, channel: str) -> None:
        """Queue that the ranks of a channel are compared with what the core knows."""
        await self._queue.put(channel)

    async def run(self) -> None:
        """Submit for ever."""
        while True:
            if not self._batch and not self._ranked:
                self._take(await self._queue.get())
                while len(self._batch) < _BATCH and not self._ranked and not self._queue.empty():
                    self._take(self._queue.get_nowait())
            await self._submit()
            for channel in sorted(self._ranked):
                await self._compare_ranks(channel)
            self._ranked.clear()

    def _take(self, item: Submission | str) -> None:
        if isinstance(item, str):
            self._ranked.add(item)
        else:
            self._batch.append(item)

    async def _submit(self) -> None:
        self._batch = [one for one in self._batch if self._ctx.get_link(one.room.id) is not None]
        if not self._batch:
            return
        while True:
            try:
                outcomes = await self._ctx.submit(self._batch)
            except Busy as error:
                await asyncio.sleep(error.after or _BUSY_S)
            else:
                break
        for submission, outcome in zip(self._batch, outcomes, strict=True):
            refusal = outcome.refused
            if refusal is not None:
                self._ctx.count("irc_refused", code=refusal.code)
                self._ctx.log.info("%s in %s: %s", submission.sender, submission.room, refusal.text)
                happening = Happening(
                    channel=submission.room.id, sender=submission.sender.id, content=submission.content
                )
                self._forget(happening)
                self._on_refused(happening, refusal)
        self._batch = []

    def _forget(self, happening: Happening) -> None:
        """The core has not taken a change of a membership. A person who is not in the room is shown when they
        do something the next time; one who was not thrown out of it is still in it.
        """
        content, channel = happening.content, self._channels.find(happening.channel)
        if channel is None or not isinstance(content, Member) or content.user.network != self._ctx.id:
            return
        view = self._ctx.get_view(happening.channel)
        if content.membership is Membership.JOIN:
            channel.shown.discard(content.user.id)
        elif view is not None and view.membership(content.user) is Membership.JOIN:
            channel.shown.add(content.user.id)

    async def _compare_ranks(self, name: str) -> None:
        """The server knows the ranks of its own people; the core's room says the same."""
        channel = self._channels.find(name)
        view = self._ctx.get_view(name)
        if channel is None or view is None:
            return
        upserts = [
            replaced
            for key, modes in channel.ranks.items()
            if (row := view.person(NativeId(self._ctx.id, key))) is not None
            and (replaced := replace(row, role=role_of(modes), voice=channel.has_voice(modes))) != row
        ]
        moderated = replace(view.facts, moderated=channel.is_moderated)
        if upserts or moderated != view.facts:
            info = moderated if moderated != view.facts else None
            await self._ctx.reconcile_view(name, ViewDelta(upserts=tuple(upserts), info=info))
