"""From a room to the one that replaces it. SPEC: client-server API, "Room Upgrades".

The new room gets what the old one had that outlives it, its alias and the people of other networks; the old
one says where it went, and takes no messages any more. The links of the old room lead to the new one
afterwards. A row says that an upgrade is in progress: after a crash it is finished, or undone where the old
room does not name the new one yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from hansa import (
    Busy,
    CannotOpenRoom,
    Conflict,
    LocalProtocolError,
    Membership,
    NativeId,
    NetworkContext,
    Refusal,
    RefusalCode,
    RemoteProtocolError,
    Remove,
    RoomUpgrade,
    RoomView,
    Upgrade,
    ViewDelta,
    Write,
)

from hansa_matrix.proto import ids
from hansa_matrix.proto.auth_rules.levels import PowerLevels
from hansa_matrix.proto.auth_rules.state_keys import CREATE_KEY, MEMBER, POWER_LEVELS, POWER_LEVELS_KEY
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.room_versions import VERSIONS, RoomVersion
from hansa_matrix.proto.state_content import predecessor_room, replacement_room
from hansa_matrix.rooms.create_room import RoomCreator
from hansa_matrix.rooms.directory.aliases import aliases_of, move_alias_write
from hansa_matrix.rooms.directory.public_rooms import publish_write
from hansa_matrix.rooms.event_builder import EventBuilder
from hansa_matrix.rooms.local_events import LocalEvents
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.policy.policy_checks import CheckedEvent, PolicyChecks
from hansa_matrix.rooms.room import MatrixRoom
from hansa_matrix.rooms.room_draft import RoomDraft
from hansa_matrix.rooms.upgrade.inherited_levels import closed_power_levels
from hansa_matrix.rooms.upgrade.replacement_room import is_copied, successor_template
from hansa_matrix.rooms.upgrade.unfinished_upgrades import UnfinishedUpgrade, all_unfinished, unfinished_of

TOMBSTONE = "m.room.tombstone"
#: Commits by which a room's names are moved, lost races included, and names that are moved by each.
_ROUNDS, _NAMES = 10, 1000


class RoomUpgrades:
    """Of our rooms by command, and of others' by their word."""

    def __init__(
        self,
        own: LocalServer,
        founder: RoomCreator,
        judging: PolicyChecks,
        administration: LocalEvents,
    ) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._founder = founder
        self._judging = judging
        self._administration = administration
        self._user = own.bridge_user
        #: Rooms that are being replaced.
        self._closing: set[str] = set()

    async def upgrade(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """``hansa matrix rooms upgrade``. Raises LocalProtocolError."""
        old, version = self._administration.require_room(str(arguments["room"])), str(arguments["version"])
        if version not in VERSIONS:
            raise LocalProtocolError(f"there is no room version {version!r}: {', '.join(VERSIONS)}")
        try:
            new = await self.replace(old, version, self._user)
        except CannotOpenRoom as error:
            raise LocalProtocolError(error.refusal.text) from error
        return {"room": new, "version": version, "replaces": old.room_id}

    async def replace(self, old: MatrixRoom, version: str, user: str, creators: Sequence[str] = ()) -> str:
        """Replaces an old room by a new one, in the name of a local user; returns its id. ``creators`` are
        further ones, where the version has them. Raises ``CannotOpenRoom`` where a policy or the old room
        denies it, LocalProtocolError where the rules of either room do.
        """
        if old.room_id in self._closing:
            raise LocalProtocolError(f"{old.room_id} is being replaced")
        self._closing.add(old.room_id)
        try:
            return await self._replace_room(old, version, user, creators)
        finally:
            self._closing.discard(old.room_id)

    async def _replace_room(self, old: MatrixRoom, version: str, user: str, creators: Sequence[str]) -> str:
        present = await old.state()
        state = {p.key: p for p in await old.state_events(present) if p.state_key is not None}
        begun = await unfinished_of(self._ctx.store, old.room_id)
        closed = state.get((TOMBSTONE, ""))
        if closed is not None:
            return await self._continue_upgrade(old, closed, begun)
        if begun is not None:
            await self._undo_upgrade(begun)
        levels = old.levels(state[CREATE_KEY], state.get(POWER_LEVELS_KEY), old.version)
        self._require_may_upgrade(old, user, levels, VERSIONS[version])
        view = self._ctx.get_view(old.room_id)
        await self._judging.check(
            RoomUpgrade(
                network=self._ctx.id,
                room=old.room_id,
                user=NativeId(self._ctx.id, user),
                user_server=self._own.server,
                version=version,
                servers=view.servers() if view is not None else frozenset(),
            )
        )
        body = {"body": "This room has been replaced", "replacement_room": old.room_id}
        if view is not None:
            tombstone = CheckedEvent(NativeId(self._ctx.id, user), self._own.server, (TOMBSTONE, "", body))
            await self._judging.drafts(old.room_id, view, [tombstone])
        names = await aliases_of(self._ctx.store, old.room_id)
        copied = [key for key, event in state.items() if is_copied(event)]
        shown = await old.shown_of(present, copied)
        state = {key: event for key, event in state.items() if not is_copied(event)} | shown
        founding = successor_template(old, state, VERSIONS[version], (user, *creators), names)
        try:
            new = await self._founder.create(user, version, "", founding)
        except Conflict as conflict:  # another process was first
            raise LocalProtocolError(f"{old.room_id} is being replaced") from conflict
        begun = UnfinishedUpgrade(old=old.room_id, new=new.room_id)
        body["replacement_room"] = new.room_id
        try:
            said = Upgrade(successor=NativeId(self._ctx.id, new.room_id), text=body["body"])
            refusal = await self._administration.send(user, old.room_id, said, (TOMBSTONE, "", body))
        except Busy:
            await self._undo_upgrade(begun)
            raise
        if refusal is not None:
            await self._undo_upgrade(begun)
            raise CannotOpenRoom(replace(refusal, text=f"{TOMBSTONE} was refused: {refusal.text}"))
        await self._finish_upgrade(old, new, user)
        return new.room_id

    async def _continue_upgrade(self, old: MatrixRoom, closed: Pdu, begun: UnfinishedUpgrade | None) -> str:
        """Finish an upgrade that was cut off; the id of the new room. Raises LocalProtocolError if there is
        nothing to finish.
        """
        named = replacement_room(closed.content)
        new = self._own.rooms.get_resident(named) if named is not None else None
        if new is not None and await self._is_own_upgrade(old, new, closed):
            if begun is not None and begun.new == new.room_id:
                await self._finish_upgrade(old, new, closed.sender)
                return new.room_id
            if await self._move_aliases(old.room_id, new.room_id):
                return new.room_id
        raise LocalProtocolError(f"{old.room_id} has been replaced already")

    async def resume(self) -> None:
        """Finish or undo what a crash cut off. Runs once, after the network has started."""
        for begun in await all_unfinished(self._ctx.store):
            try:
                await self._resume_upgrade(begun)
            except (LocalProtocolError, RemoteProtocolError, CannotOpenRoom, Busy) as error:
                self._ctx.log.warning("the upgrade of %s to %s waits: %s", begun.old, begun.new, error)

    async def _resume_upgrade(self, begun: UnfinishedUpgrade) -> None:
        old, new = self._own.rooms.get_resident(begun.old), self._own.rooms.get_resident(begun.new)
        closed = await self._tombstone_of(old) if old is not None else None
        says = replacement_room(closed.content) if closed is not None else None
        if closed is not None and says == begun.new and begun.followed:
            self._own.rooms.listeners.notify_accepted(closed)
        elif old is not None and new is not None and closed is not None and says == begun.new:
            self._ctx.log.info("the upgrade of %s to %s goes on", begun.old, begun.new)
            await self._finish_upgrade(old, new, closed.sender)
        elif begun.followed:
            await self._ctx.store.commit([begun.end()])
        else:
            self._ctx.log.info("the upgrade of %s to %s is undone", begun.old, begun.new)
            await self._undo_upgrade(begun)

    async def _tombstone_of(self, room: MatrixRoom) -> Pdu | None:
        """Returns the event in which a room names its replacement."""
        key = (TOMBSTONE, "")
        return (await room.events_of(await room.state(), [key])).get(key)

    async def _finish_upgrade(self, old: MatrixRoom, new: MatrixRoom, user: str) -> None:
        """Runs the steps after the old room names its replacement. Each step can be repeated."""
        await self._move_aliases(old.room_id, new.room_id)
        if self._ctx.get_link(new.room_id) is None:
            await self._join_ghosts(new, old.room_id, frozenset())
            await self._move_link(old, new)
        await self._restrict_old_room(old, user)
        await self._ctx.store.commit([UnfinishedUpgrade(old=old.room_id, new=new.room_id).end()])

    async def _restrict_old_room(self, old: MatrixRoom, user: str) -> None:
        """Let nobody speak in the old room, or invite into it, who is not set over others; as far as who
        replaces it may say so.
        """

        def close(present: Mapping[str, Any] | None) -> dict[str, Any] | None:
            return closed_power_levels(present, old.version) if present is not None else None

        outcome = await self._administration.change_power_levels(user, old.room_id, close)
        refusal = outcome.refusal if outcome is not None else None
        if refusal is not None:
            self._ctx.count("matrix_upgrades_left_open")
            self._ctx.log.info("%s stays open: %s", old.room_id, refusal.text)

    async def _undo_upgrade(self, begun: UnfinishedUpgrade) -> None:
        """Leave a room that is to replace nothing: nobody has heard of it but who made it."""
        new = self._own.rooms.get_resident(begun.new)
        if new is not None:
            await self._own.rooms.refresh_room(new)
            writes = list[Write]()
            draft = RoomDraft(new, self._own)
            speech = EventBuilder(draft)
            people = [user async for user in new.joined_users_of(self._own.server)]
            for user in people:
                writes += await speech.local_event(user, MEMBER, user, {"membership": "leave"})
            draft.leave()
            await draft.commit([*writes, begun.end()])
            self._ctx.count("matrix_upgrades_undone")
        else:
            await self._ctx.store.commit([begun.end()])

    @staticmethod
    def _require_may_upgrade(old: MatrixRoom, user: str, levels: PowerLevels, version: RoomVersion) -> None:
        """Requires the right to replace a room, which is the right to close it. In a version whose creators
        are above all others it also requires the right to set the old room's levels: no user gains rights.
        """
        needed = levels.required_level(TOMBSTONE, True)  # a state event
        if version.privileged_creators:
            needed = max(needed, levels.required_level(POWER_LEVELS, True))
        if levels.user_level(user) < needed:
            text = f"{user} may not replace {old.room_id} by version {version.id}: that takes level {needed}"
            raise CannotOpenRoom(Refusal(code=RefusalCode.FORBIDDEN, text=text))

    async def _is_own_upgrade(self, old: MatrixRoom, new: MatrixRoom, closed: Pdu) -> bool:
        """True if the user who names the replacement is a local one, and created the new room for it."""
        if ids.domain_of(closed.sender) != self._own.server:
            return False
        create = (await new.events_of(await new.state(), [])).get(CREATE_KEY)
        if create is None or create.sender != closed.sender:
            return False
        return predecessor_room(create.content) == old.room_id

    async def _move_aliases(self, old: str, new: str) -> bool:
        """Moves the old room's aliases of this server to the new room, and its place in the public list;
        False if it has neither. An alias that a user adds or removes meanwhile stays as they want it.
        """
        store = self._ctx.store
        for done in range(_ROUNDS):
            names = (await aliases_of(store, old))[:_NAMES]
            writes: list[Write] = [move_alias_write(alias, new) for alias in names]
            listed = await store.get("published", (old,))
            if listed is not None:
                writes += [Remove("published", (old,), listed.body), publish_write(new, listed.body.decode())]
            if not writes:
                return bool(done)
            with suppress(Conflict):  # what changed meanwhile is read again
                await store.commit(writes)
        raise LocalProtocolError(f"the names of {old} change too fast to be moved to {new}")

    async def follow(self, old: MatrixRoom, new: MatrixRoom, sender: str) -> None:
        """Follows the replacement of a joined room; the new one is joined already. Raises LocalProtocolError
        if that does not say that it replaces the old one, ``CannotOpenRoom`` where a policy denies it.
        """
        server = ids.domain_of(sender)
        state = await new.state()
        create = (await new.events_of(state, [])).get(CREATE_KEY)
        if create is None or predecessor_room(create.content) != old.room_id:
            raise LocalProtocolError(f"{new.room_id} does not say that it replaces {old.room_id}")
        if (
            self._ctx.get_link(new.room_id) is not None
        ):  # the first local user there has made it a room of its own
            raise LocalProtocolError(f"{new.room_id} is linked already")
        members = [key for key in state if key[0] == MEMBER]
        joined = await new.events_of(state, members)
        servers = {
            ids.domain_of(k[1]) for k, p in joined.items() if k[0] == MEMBER and p.membership == "join"
        }
        await self._judging.check(
            RoomUpgrade(
                network=self._ctx.id,
                room=old.room_id,
                user=NativeId(self._ctx.id, sender),
                user_server=server,
                version=new.version.id,
                servers=frozenset({*servers, server}),
            )
        )
        await self._join_ghosts(new, old.room_id, frozenset({*servers, server}) - {self._own.server})
        await self._move_link(old, new)

    async def _join_ghosts(self, new: MatrixRoom, old_id: str, servers: frozenset[str]) -> None:
        """The people of other networks enter the new room, as far as it lets them."""
        view = self._ctx.get_view(old_id)
        people = [p for p in view.people.values() if p.user.network != self._ctx.id] if view else []
        await self._own.rooms.refresh_room(new)
        draft, writes = RoomDraft(new, self._own, servers), list[Write]()
        speech, present = EventBuilder(draft), await self._view_of_new_room(new)
        state = await new.state()
        for person in people:
            if person.membership is not Membership.JOIN:
                continue
            ghost = await self._ctx.get_ghost_id(person.user)
            if [user async for user in new.joined_of(state, [ghost])]:
                continue  # before it was cut off
            content = {"membership": "join"} | ({"displayname": person.name} if person.name else {})
            try:
                said = CheckedEvent(person.user, person.server, (MEMBER, ghost, content))
                await self._judging.drafts(new.room_id, present, [said])
                writes += await speech.local_event(ghost, MEMBER, ghost, content)
            except (LocalProtocolError, RemoteProtocolError, CannotOpenRoom) as error:
                self._ctx.count("matrix_upgrade_left_behind")
                self._ctx.log.info("%s stays behind: %s", ghost, error)
        if writes:
            await draft.commit(writes)

    async def _view_of_new_room(self, new: MatrixRoom) -> RoomView:
        """A room as the core sees it, before the core has it."""
        view = RoomView("")
        view.apply(await self._full_view_delta(new))
        return view

    async def _full_view_delta(self, new: MatrixRoom) -> ViewDelta:
        state = await new.state()
        rules = await new.events_of(state, [POWER_LEVELS_KEY])
        levels = new.levels(rules[CREATE_KEY], rules.get(POWER_LEVELS_KEY), new.version)
        return await self._own.views.whole(new.shown_in_steps(state, list(state)), new.version.id, levels)

    async def _move_link(self, old: MatrixRoom, new: MatrixRoom) -> None:
        if self._ctx.get_link(old.room_id) is None:
            await self._ctx.open_link(new.room_id, authority=True, view=await self._full_view_delta(new))
            return
        await self._ctx.supersede_room(old.room_id, new.room_id, await self._full_view_delta(new))
        self._ctx.log.info("%s is replaced by %s", old.room_id, new.room_id)
