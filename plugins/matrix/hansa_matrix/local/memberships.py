"""The memberships of local users in rooms."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import orjson
from hansa import (
    CompareAndSwap,
    Conflict,
    Delete,
    Membership,
    NativeId,
    NetworkContext,
    Put,
    Remove,
    Row,
    Write,
    again_on_conflict,
    scan_all,
)

from hansa_matrix.local.client_stream import ClientStream, stream_write
from hansa_matrix.local.membership_listeners import MembershipListeners
from hansa_matrix.local.transaction_ids import TransactionIds
from hansa_matrix.proto.auth_rules.state_keys import MEMBER
from hansa_matrix.proto.event import Pdu, StateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalMembership:
    """How one person stands to one room: the membership, and the event and person that made it so."""

    room_id: str
    membership: str
    event_id: str
    sender: str


def membership_from_event(room_id: str, user: str, member: Pdu | None) -> LocalMembership:
    """By the member event in a room's state; without one nobody is in."""
    if member is None:
        return LocalMembership(room_id=room_id, membership="leave", event_id="", sender=user)
    membership = member.membership or ""
    return LocalMembership(
        room_id=room_id, membership=membership, event_id=member.event_id, sender=member.sender
    )


def _row_body(stay: LocalMembership) -> bytes:
    return orjson.dumps({"membership": stay.membership, "event_id": stay.event_id, "sender": stay.sender})


class LocalMemberships:
    """In memory for all people with an account; the store has it too."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx
        self.news = ClientStream(ctx.store)
        self.sent = TransactionIds()
        self.listeners = MembershipListeners()
        #: Everybody who has, or had, an account.
        self.accounts: set[str] = set()
        #: Those of them who closed their account and asked for erasure.
        self.erased: set[str] = set()
        self._stays: dict[str, dict[str, LocalMembership]] = {}
        self._joined: dict[str, set[str]] = {}

    async def load(self) -> None:
        """Take up who is where."""
        async for row in scan_all(self._ctx.store, "account"):
            self.accounts.add(str(row.key[0]))
            if orjson.loads(row.body).get("erased"):
                self.erased.add(str(row.key[0]))
        for user in self.accounts:
            async for row in scan_all(self._ctx.store, "stay", equal=(user,)):
                self._set_membership(user, LocalMembership(room_id=str(row.key[1]), **orjson.loads(row.body)))

    def _set_membership(self, user: str, stay: LocalMembership) -> None:
        self._stays.setdefault(user, {})[stay.room_id] = stay
        if stay.membership == "join":
            self._joined.setdefault(stay.room_id, set()).add(user)
        else:
            self._joined.get(stay.room_id, set()).discard(user)

    def memberships_of(self, user: str) -> Mapping[str, LocalMembership]:
        """Everything that one person is or was in, or is asked into, by room."""
        return self._stays.get(user, {})

    def joined_users(self, room_id: str) -> Collection[str]:
        """Those with an account who are in a room."""
        return self._joined.get(room_id, ())

    async def as_kept(self, user: str, room_ids: Iterable[str]) -> dict[str, LocalMembership]:
        """How one person stands to some rooms by what is durable, which memory follows a moment later."""
        rows = await self._ctx.store.get_many("stay", [(user, room_id) for room_id in room_ids])
        return {
            str(key[1]): LocalMembership(room_id=str(key[1]), **orjson.loads(row.body))
            for key, row in rows.items()
        }

    def membership_of(self, user: str, room_id: str) -> LocalMembership | None:
        """How one person stands to one room."""
        return self._stays.get(user, {}).get(room_id)

    def share_a_room(self, user: str, other: str | NativeId) -> bool:
        """True if a local user and another user, of Matrix or of any network, are in one room."""
        who = NativeId(self._ctx.id, other) if isinstance(other, str) else other
        for stay in self.memberships_of(user).values():
            view = self._ctx.get_view(stay.room_id) if stay.membership == "join" else None
            if view is not None and view.membership(who) is Membership.JOIN:
                return True
        return False

    def notify_room(self, room_id: str) -> None:
        """Wake those with an account in a room who wait for news, and who looks into it."""
        self.news.notify_topic(room_id)
        for user in self._joined.get(room_id, ()):
            self.news.notify_topic(user)

    async def affected_users(self, keys: Iterable[StateKey]) -> list[str]:
        """Those with an account among the people whose member event has one of some state keys."""
        people = [key[1] for key in keys if key[0] == MEMBER]
        await self.load_accounts(user for user in people if user not in self.accounts and self.may_have(user))
        return [user for user in people if user in self.accounts]

    def may_have(self, user: str) -> bool:
        """True if an account may have this id: ghosts and the bridge user have no account."""
        local, _, server = user[1:].partition(":")
        config = self._ctx.config
        ghost = local == config.bridge_user or local.startswith(config.ghost_prefix)
        return server == config.server_name and not ghost

    async def has_account(self, user: str) -> bool:
        """True if a user has, or had, an account, even one that another process made."""
        if user not in self.accounts and self.may_have(user):
            await self.load_accounts([user])
        return user in self.accounts

    async def load_accounts(self, users: Iterable[str]) -> None:
        """Take up accounts that were made where we did not see it, if there are some of these names."""
        wanted = [(user,) for user in users]
        for row in (await self._ctx.store.get_many("account", wanted) if wanted else {}).values():
            await self._add_account(row)

    async def _add_account(self, account: Row) -> None:
        user = str(account.key[0])
        rows = [row async for row in scan_all(self._ctx.store, "stay", equal=(user,))]
        self.accounts.add(user)
        if orjson.loads(account.body).get("erased"):
            self.erased.add(user)
        for row in rows:
            stay = LocalMembership(room_id=str(row.key[1]), **orjson.loads(row.body))
            if self.membership_of(user, stay.room_id) is None:
                self._set_membership(user, stay)

    async def reload_room(self, room_id: str, state: Iterable[StateKey]) -> None:
        """Take up how everybody stands to a room by what is durable."""
        people = await self.affected_users(state)
        people += [user for user, stays in self._stays.items() if room_id in stays and user not in people]
        rows = await self._ctx.store.get_many("stay", [(user, room_id) for user in people])
        for user in people:
            row = rows.get((user, room_id))
            stay = LocalMembership(room_id=room_id, **orjson.loads(row.body)) if row is not None else None
            if stay is not None and stay != self.membership_of(user, room_id):
                self.on_committed(user, stay)
        self.notify_room(room_id)

    @staticmethod
    def membership_writes(user: str, stay: LocalMembership) -> list[Write]:
        """Returns the writes that store a membership and announce it to its user: they belong to the commit
        of the room.
        """
        return [Put("stay", (user, stay.room_id), _row_body(stay)), stream_write(user, stay.room_id)]

    @staticmethod
    def _replace_writes(user: str, stay: LocalMembership, before: bytes | None) -> list[Write]:
        """The same, in place of the row that was read."""
        return [
            CompareAndSwap("stay", (user, stay.room_id), before, _row_body(stay)),
            stream_write(user, stay.room_id),
        ]

    def on_committed(self, user: str, stay: LocalMembership) -> None:
        """``membership_writes`` are durable."""
        before = self.membership_of(user, stay.room_id)
        self._set_membership(user, stay)
        self.news.notify_topic(user)
        if stay.membership == "join" and (before is None or before.membership != "join"):
            self.listeners.notify_joined(user, stay.room_id)

    async def store_membership(
        self, user: str, stay: LocalMembership, *, over: Collection[str] | None = None
    ) -> None:
        """Stores a membership that was not made by an event of a local room; ``over``: only in place of such
        memberships.
        """
        if not await self.has_account(user):
            return

        async def turn() -> bool:
            row = await self._ctx.store.get("stay", (user, stay.room_id))
            before = row.body if row is not None else None
            if over is not None and (row is None or orjson.loads(row.body)["membership"] not in over):
                return False
            await self._ctx.store.commit(self._replace_writes(user, stay, before))
            return True

        if await again_on_conflict(turn):
            self.on_committed(user, stay)

    async def purge_room(self, room_id: str) -> None:
        """A room is removed: nobody was in it, and nothing of it is told any more."""
        for user, stays in self._stays.items():
            if room_id in stays:
                await self.forget_room(user, room_id)
        await self.news.purge_topic(room_id)

    async def forget_room(self, user: str, room_id: str) -> None:
        """The person does not want to hear of a room any more that they left."""
        left = self.membership_of(user, room_id)
        row = await self._ctx.store.get("stay", (user, room_id))
        writes: list[Write] = [Delete("left", (user, room_id))]
        if row is not None:
            writes.append(Remove("stay", (user, room_id), row.body))
        try:
            await self._ctx.store.commit(writes)
        except Conflict:  # they came in meanwhile
            return
        if self.membership_of(user, room_id) is left:  # else they came in meanwhile
            self._stays.get(user, {}).pop(room_id, None)
