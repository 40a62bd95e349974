"""Into rooms: by address, by invite, by knocking, and from one that was replaced into the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from hansa import (
    AdminCommand,
    Backoff,
    CannotOpenRoom,
    Conflict,
    LocalProtocolError,
    NativeId,
    NetworkContext,
    OpenedRoom,
    Refusal,
    RefusalCode,
    RoomWish,
    ViewDelta,
)

from hansa_matrix.conversion import view_state_keys
from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY, MEMBER, POWER_LEVELS_KEY
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.room_versions import VERSIONS, version_of
from hansa_matrix.proto.state_content import replacement_room
from hansa_matrix.rooms.create_room import PUBLIC, RoomCreator, RoomTemplate
from hansa_matrix.rooms.directory.aliases import room_id_of
from hansa_matrix.rooms.directory.public_rooms import PublicRoomList
from hansa_matrix.rooms.local_events import LocalEvents
from hansa_matrix.rooms.membership.pending_invites import PendingInvite, PendingInvites
from hansa_matrix.rooms.membership.remote_membership import RemoteMembership
from hansa_matrix.rooms.native_events import LocalServer
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.upgrade.unfinished_upgrades import UnfinishedUpgrade, unfinished_of
from hansa_matrix.rooms.upgrade.upgrade_room import TOMBSTONE, RoomUpgrades

#: A transaction waits for a room that is being entered, 30 s at most.
_LOOK, _LOOKS = 0.1, 300
_NAME_KEY = ("m.room.name", "")
#: Seconds between attempts to follow an invite.
_ACCEPT_BACKOFF, _MAX_TRIES = Backoff(first=0.5, most=4.0), 5


def parse_address(address: str) -> tuple[str, list[str]]:
    """``!id``, ``!id:server`` or ``!id?via=server&via=server``: the room and the servers to ask."""
    room_id, _, query = address.partition("?")
    via = [value for key, value in parse_qsl(query) if key == "via" and ids.is_valid_server_name(value)]
    own = [ids.domain_of(room_id)] if ":" in room_id else []
    return room_id, list(dict.fromkeys([*via, *own]))


class RoomJoiner:
    """Brings local users into rooms, which are in the registry from then on."""

    def __init__(  # noqa: PLR0917  # eight parts, each used
        self,
        own: LocalServer,
        founder: RoomCreator,
        membership: RemoteMembership,
        pending: PendingInvites,
        upgrades: RoomUpgrades,
        administration: LocalEvents,
        directory: PublicRoomList,
    ) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._user = f"@{own.ctx.config.bridge_user}:{own.server}"
        self._founder = founder
        self._membership = membership
        self.pending = pending
        self._upgrades = upgrades
        self._administration = administration
        self._directory = directory
        self._rooms = own.rooms
        self._entering: set[str] = set()
        self._linking: set[str] = set()
        #: How many PDUs of a room wait.
        self.waiting: Callable[[str], int] = lambda _: 0

    def operations(self) -> Mapping[str, AdminCommand]:
        """See ``hansa.HasAdminCommands.operations``."""
        return {
            "rooms ls": self._list_rooms,
            "rooms create": self._create_room,
            "rooms knock": self._knock,
            "invites ls": self._list_invites,
            "invites accept": self._accept_invite,
            "invites decline": self._decline_invite,
        }

    async def open(self, address: str, *, create: bool) -> OpenedRoom:
        """Opens an address: ``#name`` is of this server, ``#name:server`` and ``!id`` of any server. Raises
        ``CannotOpenRoom``.
        """
        alias = address if ":" in address or address.startswith("!") else f"{address}:{self._own.server}"
        if alias.startswith("!"):
            room_id, via = parse_address(alias)
            return await self.enter(room_id, via)
        if not ids.is_valid_alias(alias):
            refusal = Refusal(code=RefusalCode.INVALID, text=f"{address!r} is not a room alias")
            raise CannotOpenRoom(refusal)
        if ids.domain_of(alias) != self._own.server:
            room_id, via = await self._membership.resolve(alias)
            return await self.enter(room_id, via)
        known = await self.alias(alias)
        if known is not None and known in self._rooms:
            return await self.opened(self._rooms[known])
        if not create or known is not None:  # a name of a room that is forgotten is not free
            raise CannotOpenRoom(Refusal(code=RefusalCode.NOT_FOUND, text=f"there is no room {alias}"))
        return await self._made(alias, self._ctx.config.room_version)

    async def found(self, address: str, wish: RoomWish) -> OpenedRoom:
        """See ``hansa.FoundsRooms.found_room``."""
        ours = ":" not in address or ids.domain_of(address) == self._own.server
        if not address.startswith("#") or not ours:
            return await self.open(address, create=True)
        alias = address if ":" in address else f"{address}:{self._own.server}"
        if not ids.is_valid_alias(alias) or await self.alias(alias) is not None:
            opened = await self.open(address, create=True)
            await self._wished(opened.native.id, wish)
            return opened
        return await self._made(alias, self._ctx.config.room_version, wish)

    async def _wished(self, room_id: str, wish: RoomWish) -> None:
        """A room that exists is published, and named if it has no name. What its rules or a policy refuse is
        told in the log: the room is there all the same.
        """
        room = self._rooms[room_id]
        try:
            if wish.published and room_id not in await self._directory.published():
                await self._directory.publish(room_id, listed=True)
            if wish.name and _NAME_KEY not in await room.state():
                await self._administration.send_state(room_id, *_NAME_KEY, {"name": wish.name})
        except LocalProtocolError as problem:
            self._ctx.log.warning("%s is not as [[rooms]] says: %s", room_id, problem)

    async def alias(self, alias: str) -> str | None:
        """The room id behind one of our aliases."""
        return await room_id_of(self._ctx.store, alias)

    async def _made(self, alias: str, version: str, wish: RoomWish | None = None) -> OpenedRoom:
        name = (wish.name or alias[1:].partition(":")[0]) if wish is not None else ""
        profile = self._membership.profile
        founding = RoomTemplate(
            member=await profile(self._user) if profile is not None else {},
            then=[*PUBLIC, *([(*_NAME_KEY, {"name": name})] if name else [])],
            published=wish is not None and wish.published,
        )
        return await self.opened(await self._founder.create(self._user, version, alias, founding))

    async def enter(
        self, room_id: str, via: Sequence[str], user: str = "", more: Mapping[str, Any] | None = None
    ) -> OpenedRoom:
        """Joins a room as a local user (the bridge user if none is named), unless a local user is in it
        already. ``more`` is further content of the join. Raises ``CannotOpenRoom``.
        """
        if self._rooms.is_blocked(room_id):
            text = f"{room_id} is blocked: `hansa matrix rooms unblock` ends that"
            raise CannotOpenRoom(Refusal(code=RefusalCode.FORBIDDEN, text=text))
        user = user or self._user
        room = self._rooms.get(room_id)
        anew = room is None or not room.resident
        if room is None or anew:
            self._entering.add(room_id)
            try:
                room = await self._membership.join(room_id, user, via, more or {})
                self._rooms.add(room)
                await self.pending.drop(room_id, user)
            finally:
                self._entering.discard(room_id)
        return await self.opened(room, anew=anew)

    async def entered(self, room_id: str) -> bool:
        """See ``PduStaging.entered``. Others count us in from send_join on, and send; the core knows the room
        from its link on.
        """
        for _ in range(_LOOKS):
            room = self._rooms.get(room_id)
            idle = room is None or not room.resident or self._ctx.link(room_id) is not None
            if idle and room_id not in self._entering:
                return True
            await asyncio.sleep(_LOOK)
        if room_id not in self._entering and room_id not in self._linking:
            self._linking.add(room_id)
            self._ctx.spawn(partial(self._link, room_id), f"link {room_id}")
        return False

    async def _link(self, room_id: str) -> None:
        """Links a room that was joined but not linked, because the database went away between the two."""
        room = self._rooms.get(room_id)
        if room is not None and room.resident and room_id not in await self._upgrades.waiting():
            opened = await self.opened(room)
            await self._ctx.open_link(room_id, authority=True, view=opened.view)
        self._linking.discard(room_id)

    async def opened(self, room: MatrixRoom, *, anew: bool = False) -> OpenedRoom:
        """Returns a joined room in the form of the core; ``anew`` if the core's knowledge of it is from
        before.
        """
        native = NativeId(self._ctx.id, room.room_id)
        linked = self._ctx.link(room.room_id) is not None
        if linked and not anew:
            return OpenedRoom(native=native, authority=True)
        present = await room.state()
        powers = await room.events_of(present, [POWER_LEVELS_KEY])
        levels = room.levels(powers[CREATE_KEY], powers.get(POWER_LEVELS_KEY), room.version)
        wanted = [*view_state_keys(), *(key for key in present if key[0] == MEMBER)]
        shown = room.shown_in_steps(present, wanted)
        view: ViewDelta = await self._own.views.whole(shown, room.version.id, levels)
        if linked:  # we had left: what is known of the room's people is from then
            before = self._ctx.view(room.room_id)
            here = {person.user for person in view.upserts}
            gone = [user for user in (before.people if before else ()) if user not in here]
            await self._ctx.reconcile(room.room_id, replace(view, removed=tuple(gone)))
        return OpenedRoom(native=native, authority=True, view=view)

    async def complete(self, room: MatrixRoom) -> None:
        """COMPAT: what versions up to d365809 kept of a room does not say who set its name and topic, without
        which no policy can judge them by that. Its state says so.
        """
        view = self._ctx.view(room.room_id)
        if view is None or not room.resident:
            return
        facts = view.facts
        unknown = (facts.name and facts.name_by is None, facts.topic and facts.topic_by is None)
        wanted = [("m.room.name", "")] * bool(unknown[0]) + [("m.room.topic", "")] * bool(unknown[1])
        state = await room.state() if wanted else {}
        if any(key in state for key in wanted):
            await self.opened(room, anew=True)

    def invited(self, pdu: Pdu, origin: str) -> None:
        """See ``entitled.Rooms.invited``: the bridge user accepts, others wait for their person."""
        if pdu.state_key == self._user and self._ctx.config.accept_invites:
            self._ctx.spawn(partial(self._accept, pdu, origin), f"accept invite to {pdu.room_id}")

    async def _accept(self, pdu: Pdu, origin: str) -> None:
        for tried in range(1, _MAX_TRIES + 1):
            try:
                opened = await self.enter(pdu.room_id, [origin])
                break
            except CannotOpenRoom as error:
                if error.refusal.code in {RefusalCode.INVITE_ONLY, RefusalCode.BUSY} and tried < _MAX_TRIES:
                    # Their server asks for our signature before the invite is a part of the room.
                    await asyncio.sleep(_ACCEPT_BACKOFF.delay(tried))
                    continue
                self._ctx.log.warning("invite to %s: %s", pdu.room_id, error.refusal.text)
                if error.refusal.decision:
                    await self._membership.leave_remote(pdu.room_id, self._user, [origin])
                    await self.pending.drop(pdu.room_id, self._user)
                return
        await self._ctx.open_link(opened.native.id, authority=True, view=opened.view)
        self._ctx.log.info("joined %s, invited by %s", pdu.room_id, pdu.sender)

    def arrived(self, pdu: Pdu) -> None:
        """See ``PduStaging.arrived``: when a room is replaced, its links follow."""
        replacement = replacement_room(pdu.content) if pdu.type == TOMBSTONE and pdu.state_key == "" else None
        if replacement is not None:
            self._ctx.spawn(partial(self._follow, pdu, replacement), f"follow {pdu.room_id}")

    async def _follow(self, tombstone: Pdu, replacement: str) -> None:
        old, key = self._rooms.get(tombstone.room_id), (TOMBSTONE, "")
        if old is None or not self._ctx.config.accept_invites:
            return
        if (await old.state()).get(key) != tombstone.event_id:  # another one counts
            return
        begun = UnfinishedUpgrade(old=old.room_id, new=replacement, followed=True)
        try:
            await self._ctx.store.commit([begun.begin()])
        except Conflict:
            known = await unfinished_of(self._ctx.store, old.room_id)
            if known is not None and known != begun:
                self._ctx.log.warning("%s is not followed: it is being replaced here", old.room_id)
                return
        await self._followed(old, tombstone, replacement)
        new = self._rooms.get(replacement)
        if new is not None and new.resident and self._ctx.link(replacement) is None:
            opened = await self.opened(new)  # it replaces nothing, and is a room like others
            await self._ctx.open_link(replacement, authority=True, view=opened.view)
        await self._ctx.store.commit([begun.end()])

    async def _followed(self, old: MatrixRoom, tombstone: Pdu, replacement: str) -> None:
        server = ids.domain_of(tombstone.sender)
        for tried in range(1, _MAX_TRIES + 1):
            try:
                if replacement not in self._rooms:
                    await self.enter(replacement, [server])
                await self._upgrades.follow(old, self._rooms[replacement], tombstone.sender)
                return
            except CannotOpenRoom as error:
                if tried == _MAX_TRIES or error.refusal.decision:
                    text = error.refusal.text
                    self._ctx.log.warning("%s, which replaces %s: %s", replacement, old.room_id, text)
                    return
                await asyncio.sleep(_ACCEPT_BACKOFF.delay(tried))
            except LocalProtocolError as error:
                self._ctx.log.warning("%s is not followed: %s", old.room_id, error)
                return

    async def _list_invites(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {"room": w.room_id, "user": w.user, "is": w.membership, "by": w.sender, "server": w.origin}
            for w in await self.pending.every()
        ]

    async def _invite_of(self, arguments: Mapping[str, Any]) -> PendingInvite:
        user = str(arguments.get("user") or self._user)
        waiting = await self.pending.get(str(arguments["room"]), user)
        if waiting is None or waiting.membership != "invite":
            raise LocalProtocolError(f"{user} is not invited there: `hansa matrix invites ls` lists invites")
        return waiting

    async def _accept_invite(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        waiting = await self._invite_of(arguments)
        try:
            opened = await self.enter(waiting.room_id, [waiting.origin], waiting.user)
        except CannotOpenRoom as error:
            raise LocalProtocolError(error.refusal.text) from error
        await self._ctx.open_link(opened.native.id, authority=True, view=opened.view)
        return {"room": waiting.room_id, "joined": waiting.user}

    async def _decline_invite(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """An invite that nobody can be told of any more is declined all the same."""
        waiting = await self._invite_of(arguments)
        told = await self._membership.leave_remote(waiting.room_id, waiting.user, [waiting.origin])
        await self.pending.drop(waiting.room_id, waiting.user, told)
        return {"room": waiting.room_id, "declined": waiting.user, "told": told is not None}

    async def _knock(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        address = str(arguments["room"])
        try:
            room_id, via = (
                parse_address(address) if address.startswith("!") else await self._membership.resolve(address)
            )
            generation = self._ctx.policy_generation
            event, server, version, shown = await self._membership.knock(room_id, self._user, via)
        except CannotOpenRoom as error:
            raise LocalProtocolError(error.refusal.text) from error
        await self.pending.keep(event, server, shown, version, generation=generation)
        return {"room": room_id, "knocked": self._user}

    async def _create_room(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        alias, version = f"{arguments['alias']}:{self._own.server}", str(arguments.get("version") or "")
        if not ids.is_valid_alias(alias) or alias.count(":") != self._own.server.count(":") + 1:
            raise LocalProtocolError(f"{arguments['alias']!r} is not a room alias: use #name")
        if version_of(version or self._ctx.config.room_version) is None:
            raise LocalProtocolError(f"there is no room version {version!r}: {', '.join(VERSIONS)}")
        if await self.alias(alias) is not None:
            raise LocalProtocolError(f"{alias} exists already")
        try:
            wish = RoomWish(name=str(arguments.get("name") or ""), published=bool(arguments.get("published")))
            opened = await self._made(alias, version or self._ctx.config.room_version, wish)
        except CannotOpenRoom as error:
            raise LocalProtocolError(error.refusal.text) from error
        await self._ctx.open_link(opened.native.id, authority=True, view=opened.view)
        return {"room": opened.native.id, "alias": alias}

    async def _list_rooms(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "room": room.room_id,
                "version": room.version.id,
                "resident": room.resident,
                "extremities": len(room.head.extremities),
                "waiting": self.waiting(room.room_id),
            }
            for room in self._rooms.values()
        ]
