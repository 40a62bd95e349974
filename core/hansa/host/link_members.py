"""Those who are there when a native room is linked enter the other side, also over a crash.

The commit of the link has their rows. Each person is submitted under an id that the row gives, so that a
repetition is answered as before, and a row is removed once all of its people have an outcome.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from hansa.bus.rooms import Room
from hansa.model.content import Member, Membership
from hansa.model.errors import Busy, LocalProtocolError
from hansa.model.events import Link, Submission
from hansa.model.ref import NativeId
from hansa.model.view import RoomMember
from hansa.store.base import Delete, Put
from hansa.store.paging import first_page, pages, scan_all

if TYPE_CHECKING:
    from hansa.api.contracts import OpenedRoom
    from hansa.host.plugin_host import PluginHost

#: Members that are submitted at a time, and those of one row.
_BATCH = 50
#: Seconds that those who are submitted have, once their link ends.
_END_TIMEOUT_S = 30.0


class LinkMembers:
    """Submits that people came or left because of a link."""

    def __init__(self, host: PluginHost) -> None:
        self._host = host
        #: Tasks that submit those of a link, by its id.
        self.running: dict[str, asyncio.Task[None]] = {}
        #: Links that got rows while those before were submitted.
        self._again: set[str] = set()
        #: Links that bring in nobody else.
        self._ending: set[str] = set()
        self._log = logging.getLogger("hansa.rooms")

    def entering_writes(self, native: NativeId, opened: OpenedRoom, room: Room) -> list[Put]:
        """The rows of those of each side who are there before a native room is tied to ``room``, for the
        commit that ties them.
        """
        if not opened.authority:
            people = [p for p in opened.view_delta.upserts if p.user.network == native.network]
        else:
            people = [p for p in room.view.joined() if p.user.network != native.network]
        by_network: dict[str, list[RoomMember]] = {}
        for person in people:
            if person.membership is Membership.JOIN:
                by_network.setdefault(person.user.network, []).append(person)
        name = self._host.seams.random.bytes(12).hex()
        rows = [
            [_encode(person, room) for person in some[at : at + _BATCH]]
            for some in by_network.values()
            for at in range(0, len(some), _BATCH)
        ]
        return [
            Put("entering", (str(native), name, part), orjson.dumps(row)) for part, row in enumerate(rows)
        ]

    def begin(self, link: Link) -> None:
        """Submit those of a link, if there are any."""
        if link.id in self.running:
            self._again.add(link.id)
            return
        task = self._host.spawn(partial(self._bring_in, link.native), f"members of {link.id}")
        self.running[link.id] = task
        task.add_done_callback(partial(self._on_ended, link.id))

    def _on_ended(self, link_id: str, task: asyncio.Task[None]) -> None:
        if self.running.get(link_id) is task:  # it failed, or was cancelled
            del self.running[link_id]

    async def resume(self) -> None:
        """Go on where a process ended."""
        seen = {str(row.key[0]) async for row in scan_all(self._host.core, "entering")}
        links = {link.id: link for room in self._host.rooms for link in room.links.values()}
        for name in seen:
            if name in links:
                self.begin(links[name])
            else:
                await self._remove_rows(name)

    async def forget(self, link: Link) -> None:
        """Bring in nobody else of a link: it ends. Those who are submitted already are waited for: they would
        come in after the others have left.
        """
        task = self.running.get(link.id)
        self._ending.add(link.id)
        try:
            if task is not None:
                _, late = await asyncio.wait({task}, timeout=_END_TIMEOUT_S)
                task.cancel()
                await asyncio.wait({task})
                if late:
                    self._log.warning("members of %s may come in after it ended", link.id)
            await self._remove_rows(link.id)
        finally:
            self._ending.discard(link.id)

    async def _remove_rows(self, link_id: str) -> None:
        async for page in pages(self._host.core, "entering", equal=(link_id,)):
            await self._host.core.commit([Delete("entering", row.key) for row in page])

    async def _bring_in(self, native: NativeId) -> None:
        link_id = str(native)
        while self._host.rooms.link(native) is not None and link_id not in self._ending:
            self._again.discard(link_id)
            rows = await first_page(self._host.core, "entering", equal=(link_id,), size=1)
            if rows:
                row = rows[0]
                await self.submit_row(native, f"{row.key[1]}-{row.key[2]}", orjson.loads(row.body))
                await self._host.core.commit([Delete("entering", row.key)])
            elif link_id not in self._again:
                break
        if self._host.rooms.link(native) is None:  # it ended meanwhile
            await self._remove_rows(link_id)
        self.running.pop(link_id, None)

    async def submit_row(self, native: NativeId, name: str, people: list[Any]) -> None:
        """Submits the people of one row, called ``name``."""
        room = self._host.rooms.room_of(native)
        batch = list[Submission]()
        for number, (network, user, shown_as, avatar, before) in enumerate(people):
            person, link = NativeId(network, user), room.link_of(network)
            # Who came or left since decided that themselves.
            if link is None or (room.view.membership(person) or "") != before:
                continue
            content = Member(
                user=person,
                membership=Membership.JOIN,
                name=shown_as,
                avatar=NativeId(*avatar) if avatar is not None else None,
            )
            batch.append(self._submission(link, content, f"link {name}-{number}"))
        if batch:
            await self._submit_batch(batch, str(native))

    async def submit_leaves(self, room: Room, people: Sequence[RoomMember], reason: str) -> None:
        """Says of each that they left, through a link of their own network. Refusals are logged."""
        by_network: dict[str, list[RoomMember]] = {}
        for person in people:
            by_network.setdefault(person.user.network, []).append(person)
        for network, some in by_network.items():
            link = room.link_of(network)
            for start in range(0, len(some) if link is not None else 0, _BATCH):
                assert link is not None
                batch = [
                    self._submission(
                        link,
                        Member(user=person.user, membership=Membership.LEAVE, reason=reason),
                        f"link {self._host.seams.random.bytes(12).hex()}",
                    )
                    for person in some[start : start + _BATCH]
                ]
                await self._submit_batch(batch)

    def _submission(self, link: Link, content: Member, origin: str) -> Submission:
        return Submission(
            origin=NativeId(content.user.network, origin),
            room=link.native,
            sender=content.user,
            content=content,
            ts=self._host.seams.clock.now(),
        )

    async def _submit_batch(self, batch: Sequence[Submission], link_id: str = "") -> None:
        """Submits until there is an outcome, or until the link of ``link_id`` ends."""
        while True:
            try:
                results = await self._host.pipeline.submit(batch[0].sender.network, batch)
            except Busy as busy:
                if link_id in self._ending:
                    return
                await asyncio.sleep(busy.after)
                continue
            except LocalProtocolError as error:  # the link went meanwhile
                self._log.info("the members of %s are not told: %s", batch[0].room, error)
                return
            refused = [result.refusal for result in results if result.refusal is not None]
            if refused:
                self._log.info("%d members of %s: %s", len(refused), batch[0].room, refused[0].text)
            return


def _encode(person: RoomMember, room: Room) -> list[Any]:
    avatar = [person.avatar.network, person.avatar.id] if person.avatar is not None else None
    before = room.view.membership(person.user)
    return [person.user.network, person.user.id, person.name, avatar, before.value if before else ""]
