"""From a room to the one that replaces it. SPEC: client-server API, "Room Upgrades".

The new room gets what the old one had that outlives it, its alias and the people of other networks; the old
one says where it went. What is linked to the old room is linked to the new one afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from hansa import (
    Conflict,
    Custom,
    Delete,
    LocalProtocolError,
    Membership,
    NetworkContext,
    Ref,
    Refusal,
    RefusalCode,
    RemoteProtocolError,
    RoomRefused,
    RoomUpgrade,
    RoomView,
    ViewChange,
    Write,
)

from hansa_matrix.proto import ids
from hansa_matrix.proto.acl import acl_of
from hansa_matrix.proto.event import Pdu, StateKey
from hansa_matrix.proto.levels import Levels
from hansa_matrix.proto.state_keys import ACL_KEY, CREATE_KEY, MEMBER, POWER_LEVELS, POWER_LEVELS_KEY
from hansa_matrix.proto.versions import VERSIONS, RoomVersion
from hansa_matrix.room.administration import Administration
from hansa_matrix.room.aliases import Alias, aliases_of, moved
from hansa_matrix.room.create import PUBLIC, Founder, Founding, Step
from hansa_matrix.room.directory import listing
from hansa_matrix.room.judging import Judging, Said
from hansa_matrix.room.levels import inherited, raised
from hansa_matrix.room.native import Own
from hansa_matrix.room.room import MatrixRoom
from hansa_matrix.room.speech import Speech
from hansa_matrix.room.uncommitted import Uncommitted

TOMBSTONE = "m.room.tombstone"
_ALIAS_EVENT = "m.room.canonical_alias"
_COPIED = frozenset(
    [
        "m.room.server_acl",
        "m.room.encryption",
        "m.room.name",
        "m.room.avatar",
        "m.room.topic",
        "m.room.guest_access",
        "m.room.history_visibility",
        "m.room.join_rules",
    ]
)
#: State that says something, and rules nothing.
_SAID = frozenset({"m.room.name", "m.room.avatar", "m.room.topic", _ALIAS_EVENT})
#: What a create event says that outlives the room.
_LASTING = ("type", "m.federate")
#: Commits by which a room's names are moved, 1,000 of them by each, lost races included.
_ROUNDS = 10


class Upgrades:
    """Of our rooms by command, and of others' by their word."""

    def __init__(
        self, own: Own, founder: Founder, judging: Judging, administration: Administration, user: str
    ) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._founder = founder
        self._judging = judging
        self._administration = administration
        self._user = user
        #: Rooms that are being replaced.
        self._closing: set[str] = set()

    async def upgrade(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """``hansa matrix rooms upgrade``. Raises LocalProtocolError."""
        old, version = self._administration.room(str(arguments["room"])), str(arguments["version"])
        if version not in VERSIONS:
            raise LocalProtocolError(f"there is no room version {version!r}: {', '.join(VERSIONS)}")
        try:
            new = await self.replace(old, version, self._user)
        except RoomRefused as error:
            raise LocalProtocolError(error.refusal.text) from error
        return {"room": new, "version": version, "replaces": old.room_id}

    async def replace(self, old: MatrixRoom, version: str, user: str, creators: Sequence[str] = ()) -> str:
        """Put a new room in an old one's place, in the name of somebody of ours; its id. ``creators`` are
        further ones, where the version has them. Raises ``RoomRefused`` where a policy or the old room denies
        it, LocalProtocolError where the rules of either room do.
        """
        if old.room_id in self._closing:
            raise LocalProtocolError(f"{old.room_id} is being replaced")
        self._closing.add(old.room_id)
        try:
            return await self._replace(old, version, user, creators)
        finally:
            self._closing.discard(old.room_id)

    async def _replace(self, old: MatrixRoom, version: str, user: str, creators: Sequence[str]) -> str:
        present = await old.state()
        state = {p.key: p for p in await old.state_events(present) if p.state_key is not None}
        closed = state.get((TOMBSTONE, ""))
        if closed is not None:
            if await self._finished(old, closed):
                return str(closed.content["replacement_room"])
            raise LocalProtocolError(f"{old.room_id} has been replaced already")
        levels = old.levels(state[CREATE_KEY], state.get(POWER_LEVELS_KEY), old.version)
        self._may(old, user, levels, VERSIONS[version])
        view = self._ctx.view(old.room_id)
        await self._judging.check(
            RoomUpgrade(
                network=self._ctx.id,
                room=old.room_id,
                user=Ref(self._ctx.id, user),
                user_server=self._own.server,
                version=version,
                servers=view.servers() if view is not None else frozenset(),
            )
        )
        body = {"body": "This room has been replaced", "replacement_room": old.room_id}
        if view is not None:
            tombstone = Said(Ref(self._ctx.id, user), self._own.server, (TOMBSTONE, "", body))
            await self._judging.drafts(old.room_id, view, [tombstone])
        names = await aliases_of(self._ctx.store, old.room_id)
        said = [key for key, event in state.items() if _speaks(event)]
        shown = await old.shown_of(present, said)
        state = {key: event for key, event in state.items() if not _speaks(event)} | shown
        founding = _founding(old, state, VERSIONS[version], (user, *creators), names)
        new = await self._founder.create(user, version, "", founding)
        body["replacement_room"] = new.room_id
        refusal = await self._administration.say(
            user, old.room_id, Custom(type=TOMBSTONE), (TOMBSTONE, "", body)
        )
        if refusal is not None:
            text = f"{TOMBSTONE} was refused: {refusal.text}; {new.room_id} was made and replaces nothing"
            raise RoomRefused(replace(refusal, text=text))
        await self._rename(old.room_id, new.room_id)
        await self._bring(new, old.room_id, frozenset())
        await self._moved(old, new)
        return new.room_id

    @staticmethod
    def _may(old: MatrixRoom, user: str, levels: Levels, version: RoomVersion) -> None:
        """Who may close the room may replace it. A version that sets its creators above everybody takes who
        may set the old room's levels: nobody becomes more than they were.
        """
        needed = levels.required(TOMBSTONE, True)  # a state event
        if version.privileged_creators:
            needed = max(needed, levels.required(POWER_LEVELS, True))
        if levels.user(user) < needed:
            text = f"{user} may not replace {old.room_id} by version {version.id}: that takes level {needed}"
            raise RoomRefused(Refusal(code=RefusalCode.FORBIDDEN, text=text))

    async def _finished(self, old: MatrixRoom, closed: Pdu) -> bool:
        """Whether an upgrade by this server was cut off before the names had moved, and is done now."""
        new = self._founder.room(str(closed.content.get("replacement_room")))
        if new is None or ids.domain_of(closed.sender) != self._own.server:
            return False
        create = (await new.events_of(await new.state(), [])).get(CREATE_KEY)
        before = create.content.get("predecessor") if create is not None else None
        if create is None or create.sender != closed.sender or not isinstance(before, dict):
            return False
        if before.get("room_id") != old.room_id:
            return False
        return await self._rename(old.room_id, new.room_id)

    async def _rename(self, old: str, new: str) -> bool:
        """The names that are the old room's by our own rows become the new one's, and its place in the public
        list; False if it has neither. A name that somebody gives or takes meanwhile stays as they want it.
        """
        store = self._ctx.store
        for done in range(_ROUNDS):
            writes: list[Write] = [moved(alias, new) for alias in await aliases_of(store, old)]
            listed = await store.get("published", (old,))
            if listed is not None:
                writes += [Delete("published", (old,)), listing(new, listed.body.decode())]
            if not writes:
                return bool(done)
            with suppress(Conflict):  # what changed meanwhile is read again
                await store.commit(writes)
        raise LocalProtocolError(f"the names of {old} change too fast to be moved to {new}")

    async def follow(self, old: MatrixRoom, new: MatrixRoom, sender: str) -> None:
        """Somebody replaced a room that we are in, and we have entered the new one. Raises LocalProtocolError
        if that does not say that it replaces the old one, ``RoomRefused`` where a policy denies it.
        """
        server = ids.domain_of(sender)
        state = await new.state()
        create = (await new.events_of(state, [])).get(CREATE_KEY)
        predecessor = create.content.get("predecessor") if create is not None else None
        if not isinstance(predecessor, dict) or predecessor.get("room_id") != old.room_id:
            raise LocalProtocolError(f"{new.room_id} does not say that it replaces {old.room_id}")
        members = [key for key in state if key[0] == MEMBER]
        joined = await new.events_of(state, members)
        servers = {
            ids.domain_of(k[1]) for k, p in joined.items() if k[0] == MEMBER and p.membership == "join"
        }
        await self._judging.check(
            RoomUpgrade(
                network=self._ctx.id,
                room=old.room_id,
                user=Ref(self._ctx.id, sender),
                user_server=server,
                version=new.version.id,
                servers=frozenset({*servers, server}),
            )
        )
        await self._bring(new, old.room_id, frozenset({*servers, server}) - {self._own.server})
        await self._moved(old, new)

    async def _bring(self, new: MatrixRoom, old_id: str, servers: frozenset[str]) -> None:
        """The people of other networks enter the new room, as far as it lets them."""
        view = self._ctx.view(old_id)
        people = [p for p in view.people.values() if p.user.network != self._ctx.id] if view else []
        draft, writes = Uncommitted(new, self._own, servers), list[Write]()
        speech, present = Speech(draft), await self._present(new)
        for person in people:
            if person.membership is not Membership.JOIN:
                continue
            ghost = await self._ctx.ghost(person.user)
            content = {"membership": "join"} | ({"displayname": person.name} if person.name else {})
            try:
                said = Said(person.user, person.server, (MEMBER, ghost, content))
                await self._judging.drafts(new.room_id, present, [said])
                writes += await speech.own_event(ghost, MEMBER, ghost, content)
            except (LocalProtocolError, RemoteProtocolError, RoomRefused) as error:
                self._ctx.count("matrix_upgrade_left_behind")
                self._ctx.log.info("%s stays behind: %s", ghost, error)
        if writes:
            await self._ctx.store.commit([*writes, new.put(draft.head)])
            draft.committed()

    async def _present(self, new: MatrixRoom) -> RoomView:
        """A room as the core sees it, before the core has it."""
        view = RoomView("")
        view.apply(await self._whole(new))
        return view

    async def _whole(self, new: MatrixRoom) -> ViewChange:
        state = await new.state()
        rules = await new.events_of(state, [POWER_LEVELS_KEY])
        levels = new.levels(rules[CREATE_KEY], rules.get(POWER_LEVELS_KEY), new.version)
        return await self._own.views.whole(new.shown_in_steps(state, list(state)), new.version.id, levels)

    async def _moved(self, old: MatrixRoom, new: MatrixRoom) -> None:
        await self._ctx.supersede(old.room_id, new.room_id, await self._whole(new))
        self._ctx.log.info("%s is replaced by %s", old.room_id, new.room_id)


def _speaks(event: Pdu) -> bool:
    """Whether the new room gets what people may be shown of an event: of the others, what is withheld
    may be a rule, without which the new room would be less safe than the old one.
    """
    return event.membership == "ban" if event.type == MEMBER else event.type in _SAID and not event.state_key


def _founding(
    old: MatrixRoom,
    state: Mapping[StateKey, Pdu],
    version: RoomVersion,
    creators: Sequence[str],
    names: Sequence[Alias],
) -> Founding:
    """The new room: what outlives the old one, on its levels. The first of ``creators`` makes it."""
    said = state[CREATE_KEY].content
    create: dict[str, Any] = {key: said[key] for key in _LASTING if key in said}
    create["predecessor"] = {"room_id": old.room_id}
    if not version.hashed_room_id:
        create["predecessor"]["event_id"] = next(iter(old.head.extremities))
    if version.privileged_creators and creators[1:]:
        create["additional_creators"] = list(creators[1:])
    own = ids.domain_of(creators[0])
    copied: list[Step] = [
        (p.type, p.state_key or "", dict(p.content))
        for p in state.values()
        if (p.type in _COPIED and not p.state_key) or (p.type == MEMBER and p.membership == "ban")
        if p.key != ACL_KEY or acl_of(p.content).allows(own)  # a room of ours that bars us serves nobody
    ]
    given = {type_ for type_, key, _ in copied if not key}
    steps = [step for step in PUBLIC if step[0] not in given] + copied + _named(state, names)
    present = state.get(POWER_LEVELS_KEY)
    if present is None:
        return Founding(create=create, then=steps, replaces=old.room_id)
    levels = old.levels(state[CREATE_KEY], present, old.version)
    final = inherited(present.content, levels, old.version, version, creators)
    first = final if version.privileged_creators else raised(final, creators[0], levels, steps)
    if first != final:  # who was lower in the old room is as low in the new one, once it is made
        steps.append((POWER_LEVELS, "", final))
    return Founding(create=create, levels=first, then=steps, replaces=old.room_id)


def _named(state: Mapping[StateKey, Pdu], names: Sequence[Alias]) -> list[Step]:
    """The names that the room calls itself by, of those which are its own."""
    event = state.get((_ALIAS_EVENT, ""))
    if event is None:
        return []
    owned = {alias.name for alias in names}
    alias, more = event.content.get("alias"), event.content.get("alt_aliases")
    content: dict[str, Any] = {"alias": alias} if alias in owned else {}
    others = [one for one in more if one in owned] if isinstance(more, list) else []
    if others:
        content["alt_aliases"] = others
    return [(_ALIAS_EVENT, "", content)] if content else []
