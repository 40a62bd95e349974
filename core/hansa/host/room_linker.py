"""Core rooms and their native rooms: tied together, kept as configured, and untied with their people."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from hansa.api.contracts import (
    CannotOpenRoom,
    FollowsLinks,
    FoundsRooms,
    LateAuthority,
    LinksRooms,
    RemovesRooms,
)
from hansa.bus.room_removal import remove_room
from hansa.bus.rooms import Room
from hansa.host.link_members import LinkMembers
from hansa.host.room_owners import appoint_owners
from hansa.model.content import Membership
from hansa.model.errors import HansaError, LocalProtocolError
from hansa.model.events import Link, Refusal, RefusalCode
from hansa.model.ref import NativeId
from hansa.model.view import RoomMember, ViewDelta
from hansa.pacing.backoff import Backoff
from hansa.store.faults import StoreFault

if TYPE_CHECKING:
    from hansa.api.contracts import OpenedRoom, RoomWish
    from hansa.host.plugin_host import PluginHost
    from hansa.setup import RoomSetup

#: Seconds that a network has to take notice of a link, and to show what went before a link's end.
_FOLLOW_TIMEOUT_S, _CATCH_UP_S = 10.0, 5.0
_POLL_S = 0.02
#: Seconds after which a configured room looks at its networks again: a reload may have replaced one.
_LOOK_EVERY_S = 10.0


class RoomLinker:
    """Ties native rooms to core rooms, and unties them."""

    def __init__(self, host: PluginHost) -> None:
        self._host = host
        self.members = LinkMembers(host)
        self._log = logging.getLogger("hansa.rooms")

    async def link_opened(self, opened: OpenedRoom, room: str | None) -> Link:
        """Link a native room that is open, to ``room`` or to a core room of its own."""
        rooms = self._host.rooms
        known = rooms.link(opened.native)
        moves = known is not None and room not in {None, known.room}
        if moves:
            await self._host.stop_consuming(opened.native)
        opened, yields = self._settle_authority(opened, room)
        link = await rooms.open_link(
            opened.native,
            room=room,
            hosted=opened.hosted,
            authority=opened.authority,
            view=opened.view_delta if opened.authority and opened.view_delta else None,
            yields=yields,
            beside=partial(self.members.entering_writes, opened.native, opened),
        )
        await self._host.start_consumer(link)
        if yields is not None and (plain := rooms.link(yields.native)) is not None:
            await self._host.start_consumer(plain)
        if known is None or moves:
            holder = rooms.room_of(link.native)
            self.members.begin(link)
            await self._tell_networks(
                holder, lambda network, own: network.on_link_added(own, link, holder.view)
            )
        return link

    def _settle_authority(self, opened: OpenedRoom, room: str | None) -> tuple[OpenedRoom, Link | None]:
        """One link of a room decides in it at most. A native room that decides by reflecting leaves that to
        any other authority: it is opened as a plain link, or the link that it has becomes one.
        """
        target = self._host.rooms.get(room) if room is not None else None
        before = target.authority if target is not None else None
        if not opened.authority or before is None or before.native == opened.native:
            return opened, None
        if self._decides_late(opened.native.network):
            return replace(opened, authority=False), None
        return opened, before if self._decides_late(before.native.network) else None

    def _decides_late(self, network: str) -> bool:
        return isinstance(self._host.network(network), LateAuthority)

    async def _tell_networks(
        self, room: Room, tell: Callable[[FollowsLinks, Link], Awaitable[None]], *others: Link
    ) -> None:
        for link in (*room.links.values(), *others):
            network = self._host.network(link.native.network)
            if not isinstance(network, FollowsLinks):
                continue
            try:
                async with asyncio.timeout(_FOLLOW_TIMEOUT_S):
                    await tell(network, link)
            except Exception:  # noqa: BLE001  # a network's fault: the link is as it is
                self._log.exception("%s did not take notice of a link", link.id)

    async def unlink_room(self, link: Link) -> None:
        """Untie a native room: its people leave the other native rooms, the others' leave it; what it holds
        stays. If the network has a further link of the room, its people stay: they may be there, and the
        network says who is not.
        """
        await self.members.forget(link)
        room = self._host.rooms.room_of(link.native)
        network = link.native.network
        others = [one.native.network for one in room.links.values() if one.id != link.id]
        gone = [
            person
            for person in room.view.people.values()
            if person.user.network == network
            and person.membership in {Membership.JOIN, Membership.INVITE, Membership.KNOCK}
        ]
        if gone and others and network not in others:
            if not link.authority:  # there they stay: it is their own room
                await self.members.submit_leaves(room, gone, "the room is no longer linked")
            await self._remove_from_view(room, gone)
            await self._catch_up(link, room)
        view = room.view
        await self._host.stop_consuming(link.native)
        await self._host.rooms.close_link(link.native)
        await self._tell_networks(room, lambda network, own: network.on_link_removed(own, link, view), link)

    async def _remove_from_view(self, room: Room, people: Iterable[RoomMember]) -> None:
        """Those who could not be said to have left are taken out of the present."""
        there = {Membership.JOIN, Membership.INVITE, Membership.KNOCK}
        left = tuple(p.user for p in people if room.view.membership(p.user) in there)
        if left:
            await self._host.pipeline.correct(room.id, ViewDelta(removed=left))

    async def _catch_up(self, link: Link, room: Room) -> None:
        """Wait until the native room was told that its people left, a short while at most."""
        consumer, upto = self._host.consumers.get(link.id), room.head
        try:
            async with asyncio.timeout(_CATCH_UP_S):
                while consumer is not None and consumer.position < upto:  # noqa: ASYNC110  # no event tells
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            self._log.warning("%s was not told everything before it was unlinked", link.id)

    async def link_room(
        self,
        specs: Sequence[str],
        room: str | None = None,
        *,
        create: bool = False,
        wish: RoomWish | None = None,
        move: bool = True,
    ) -> str:
        """Open every ``NETWORK:ADDRESS`` and tie them together; the room's id. ``wish`` is how what is made
        should be. If one cannot be, what was made for the others is removed. Raises ``CannotOpenRoom``, and
        unless it may ``move`` for a native room that is linked to another room.
        """
        openers = [(spec.partition(":")[2], self._room_opener(spec)) for spec in specs]
        before = {
            link.native
            for network in {spec.partition(":")[0] for spec in specs}
            for link in self._host.rooms.links(network)
        }
        made: list[tuple[NativeId, LinksRooms]] = []
        try:
            for address, network in openers:
                if create and wish is not None and isinstance(network, FoundsRooms):
                    opened = await network.found_room(address, wish)
                else:
                    opened = await network.open_room(address, create=create)
                if opened.native not in before:
                    made.append((opened.native, network))
                known = self._host.rooms.link(opened.native)
                if known is not None and room not in {None, known.room} and not move:
                    raise _linked_elsewhere(f"{opened.native.network}:{address}")
                if known is not None and room is None:
                    room = known.room
                    continue
                room = (await self.link_opened(opened, room)).room
        except Exception:
            for native, network in reversed(made):
                await self._undo_link(native, network)
            raise
        if room is None:
            raise LocalProtocolError("name at least one NETWORK:ADDRESS")
        return room

    async def _undo_link(self, native: NativeId, network: LinksRooms) -> None:
        """Remove a native room that was made a moment ago, and its core room if nothing else is in it."""
        link = self._host.rooms.link(native)
        room = self._host.rooms.room_of(native) if link is not None else None
        try:
            if isinstance(network, RemovesRooms):
                await network.remove_room(native.id)
            if link is not None and self._host.rooms.link(native) is not None:
                await self.unlink_room(link)
            if room is not None and not room.links:
                await remove_room(self._host.core, self._host.rooms, room)
        except Exception:  # noqa: BLE001  # the first mistake is the one to tell
            self._log.exception("%s was made for a room that failed, and stays", native)

    def _room_opener(self, spec: str) -> LinksRooms:
        network, colon, address = spec.partition(":")
        if not colon or not address:
            raise LocalProtocolError(f"{spec} is not NETWORK:ADDRESS, such as matrix:#lobby")
        instance = self._host.network(network)
        if not isinstance(instance, LinksRooms):
            raise LocalProtocolError(f"{spec}: there is no network {network!r} that opens rooms")
        return instance

    async def keep_room(self, wanted: RoomSetup) -> None:
        """Make a configured room of the networks that are up, and add each of the others once it is up."""
        room: str | None = None
        waiting = list(wanted.links)
        backoff, failures = Backoff(first=0.2, most=30.0), 0
        while waiting:
            ready = [spec for spec in waiting if self._is_up(spec)]
            failed = False
            for spec in ready:
                try:
                    room = await self.link_room([spec], room, create=True, wish=wanted.wish)
                except (HansaError, StoreFault, OSError) as error:
                    failed = True
                    self._log.warning("room %s waits: %s", spec, error)
                else:
                    waiting.remove(spec)
            if failed:
                failures += 1
                await asyncio.sleep(backoff.delay(failures, self._host.seams.random.uniform()))
            elif waiting:
                await self._wait_any_up(waiting)
        while room is not None:
            try:
                await appoint_owners(self._host, room, wanted.owners)
            except (HansaError, StoreFault) as error:
                failures += 1
                self._log.warning("the owners of room %s are not set yet: %s", room, error)
                await asyncio.sleep(backoff.delay(failures, self._host.seams.random.uniform()))
            else:
                return

    def _is_up(self, spec: str) -> bool:
        runner = self._host.runners.get(spec.partition(":")[0])
        return runner is None or runner.state == "up"

    async def _wait_any_up(self, specs: Sequence[str]) -> None:
        """Wait until the network of one of these rooms is up, or was perhaps replaced."""
        runners = [self._host.runners[spec.partition(":")[0]] for spec in specs]
        tasks = [asyncio.ensure_future(runner.up()) for runner in runners]
        try:
            await asyncio.wait(tasks, timeout=_LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()


def _linked_elsewhere(spec: str) -> CannotOpenRoom:
    text = f"{spec} is linked to another room"
    return CannotOpenRoom(Refusal(code=RefusalCode.CONFLICT, text=text))
