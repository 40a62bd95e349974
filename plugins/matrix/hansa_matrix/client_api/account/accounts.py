"""People who log in here: how they prove who they are, and the tokens that stand for that.

Of a token only the hash is kept, of a password what argon2id makes of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import orjson
from hansa import (
    Changed,
    Conflict,
    Delete,
    Insert,
    LocalProtocolError,
    NetworkContext,
    Put,
    Row,
    Write,
    again_on_conflict,
    change_row,
    pieces,
    scan_all,
)

from hansa_matrix.bounds.generations import Generations
from hansa_matrix.bounds.key_locks import KeyLocks
from hansa_matrix.client_api.account.deactivation import forget_private
from hansa_matrix.client_api.account.last_seen import LastSeen
from hansa_matrix.client_api.account.passwords import Passwords
from hansa_matrix.crossings import Crossings, is_allowed, require_allowed, texts_of_values
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto import ids
from hansa_matrix.proto.devices import Device, is_valid_device_id, truncate_name
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.texts import texts_of_keys
from hansa_matrix.users.devices import Devices

_LOCALPART = re.compile(r"[a-z0-9._=\-/+]+", re.ASCII)
_MAX_CACHED_TOKENS = 10_000


class Proof(Enum):
    """The result of a password check: ``CLOSED`` is the right password of an account that is closed."""

    RIGHT = "right"
    CLOSED = "closed"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One person. ``password`` is what argon2id made of it, empty where nobody logs in by one."""

    user: str
    password: str = ""
    admin: bool = False
    deactivated: bool = False
    erased: bool = False
    created: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """The user and device of an access token. ``token`` is the token's hash."""

    user: str
    device: str
    token: str
    admin: bool = False


class Accounts:
    """Accounts, passwords and tokens."""

    def __init__(self, own: LocalServer, devices: Devices) -> None:
        self.ctx: NetworkContext = own.ctx
        self._ctx = ctx = self.ctx
        self._server = own.server
        self._attendance = own.memberships
        self._devices = devices
        self.last_seen = LastSeen(ctx)
        config = ctx.config
        self._passwords = Passwords(rounds=config.argon2_time_cost, memory=config.argon2_memory_kib)
        #: By the hash of a token; whose owner is a user id.
        self._known: Generations[str, Requester] = Generations(_MAX_CACHED_TOKENS)
        #: When users, and their devices, were logged out: for logins that are in progress.
        self._logins: Generations[str, None] = Generations(1)
        self._entering = KeyLocks()
        self._notifier = own.notifier
        self._deactivated: tuple[Callable[[str], None], ...] = ()

    def on_deactivated(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with every user whose account was deactivated. Listeners are added while the
        server is built.
        """
        self._deactivated += (listener,)

    def user_id(self, name: str) -> str:
        """The user id of a name: a localpart or a whole id. Raises LocalProtocolError for one that no account
        here can have.
        """
        local = name
        if name.startswith("@"):
            local, _, domain = name[1:].partition(":")
            if domain != self._server:
                raise LocalProtocolError(f"{name[:80]} is not of {self._server}")
        user = f"@{local}:{self._server}"
        if not _LOCALPART.fullmatch(local) or not ids.is_valid_user_id(user):
            raise LocalProtocolError("a user name may contain lower-case letters, digits and . _ = - / +")
        return user

    def resolve_user_id(self, name: str) -> str:
        """The user id that who logs in means by a localpart or a whole id: as it stands where there is such
        an account, in small letters where not. Raises as ``user_id`` does.

        SPEC: appendices, "Historical User IDs": accounts of before may have any letters.
        """
        whole = name if name.startswith("@") else f"@{name}:{self._server}"
        return whole if whole in self._attendance.accounts else self.user_id(name.lower())

    def is_reserved(self, user: str) -> bool:
        """True if an id is the bridge user's, or may become a ghost's."""
        local = user[1:].partition(":")[0]
        return local == self._ctx.config.bridge_user or local.startswith(self._ctx.config.ghost_prefix)

    async def get(self, user: str) -> Account | None:
        """An account, closed ones too."""
        row = await self._ctx.store.get("account", (user,))
        return None if row is None else Account(user=user, **orjson.loads(row.body))

    async def deactivated_accounts(self) -> AsyncIterator[Account]:
        """Those that are closed."""
        async for account in self.all_accounts():
            if account.deactivated:
                yield account

    async def all_accounts(self) -> AsyncIterator[Account]:
        """All of them."""
        async for row in scan_all(self._ctx.store, "account"):
            yield Account(user=str(row.key[0]), **orjson.loads(row.body))

    @staticmethod
    def _encode_account(account: Account) -> bytes:
        return orjson.dumps(
            {
                "password": account.password,
                "admin": account.admin,
                "deactivated": account.deactivated,
                "erased": account.erased,
                "created": account.created,
            }
        )

    async def create_account(
        self,
        user: str,
        password: str,
        *,
        admin: bool = False,
        using: Callable[[], Awaitable[Write]] | None = None,
    ) -> Account:
        """Creates an account; without a password where it is empty. ``using`` returns the writes of things
        that the account uses up, in the same commit, and is called again if they were used at the same
        moment. Raises ``Conflict`` where the account exists, or has existed, and what ``using`` raises.
        """
        account = Account(
            user=user,
            password=await self._passwords.hash_password(password) if password else "",
            admin=admin,
            created=self._ctx.clock.now(),
        )

        async def create_once() -> None:
            writes: list[Write] = [
                Insert("account", (user,), self._encode_account(account)),
                Put("profile", (user,), orjson.dumps({"displayname": user[1:].partition(":")[0]})),
            ]
            if using is not None:
                writes.append(await using())
            await self._ctx.store.commit(writes)

        await again_on_conflict(create_once, collections={"registration_token"})
        self._attendance.accounts.add(user)
        return account

    async def set_password(self, user: str, password: str) -> None:
        """Another password."""
        hashed = await self._passwords.hash_password(password)
        await self._change_account(
            user, lambda account: account if account.deactivated else replace(account, password=hashed)
        )
        self._logins.revoke_owner(user)  # who proved the old one and is not let in yet is not let in

    async def _change_account(self, user: str, change: Callable[[Account], Account]) -> None:
        """Make an account otherwise, whatever becomes of it at the same time."""

        def update_row(row: Row | None) -> Changed:
            if row is None:
                raise LocalProtocolError(f"there is no {user}")
            return Changed(body=self._encode_account(change(Account(user=user, **orjson.loads(row.body)))))

        await change_row(self._ctx.store, "account", (user,), update_row)

    def current_generation(self) -> int:
        """The generation before a proof, for ``log_in``."""
        return self._logins.began()

    async def check_password(self, user: str, password: str) -> Proof:
        """Checks a password of an account. It takes the same time whether or not the account exists. A
        directory that plugins ask takes precedence over the stored password, and a user that it knows gets an
        account.
        """
        account = await self.get(user)
        known = await self._ctx.check_password(user, password)
        if known is not None:
            right = known and not self.is_reserved(user)
            if right and account is None:
                with contextlib.suppress(Conflict):  # two devices at once
                    await self.create_account(user, "")
        else:
            right = await self._passwords.verify_password(
                account.password if account is not None else "", password
            )
        if not right:
            return Proof.WRONG
        return Proof.CLOSED if account is not None and account.deactivated else Proof.RIGHT

    async def log_in(
        self, user: str, device_id: str, name: str, *, group: str = "", began: int | None = None
    ) -> tuple[str, str]:
        """A device and its new token, which takes the place of those it had: ``(device id, token)``.
        ``group`` is where it comes from. Raises LocalProtocolError, and the error answer of a login whose
        person was logged out everywhere, or given another password, since ``current_generation``: that means
        those too who are about to come in. So does a new device whose id a policy denies, since others see
        it; one whose name is denied goes without it.
        """
        began = self._logins.began() if began is None else began
        device_id = device_id or self._new_device_id()
        if not is_valid_device_id(device_id):
            raise LocalProtocolError("a device ID must have 1 to 255 bytes")
        known = await self._devices.get(user, device_id)
        if known is None:
            crossings = Crossings(self._ctx)
            if self._ctx.has_policies and (called := texts_of_keys(device_id)):
                await require_allowed(self._ctx, crossings.profile_change(user, called))
            named = crossings.profile_change(user, texts_of_values(body=name), again=True)
            shown = truncate_name(name) if await is_allowed(self._ctx, named) else ""
            await self._devices.put(user, Device(device_id=device_id, name=shown))
        token = urlsafe_b64encode(self._ctx.random.bytes(32)).decode().rstrip("=")
        fields = {"user_id": user, "device_id": device_id}
        async with self._entering.hold_key((user, device_id)):  # of two at once one takes the other's place
            gone = await self._delete_tokens(user, device_id)
            await self._ctx.store.commit(
                [*gone, Insert("access_token", (_hash_token(token),), group.encode(), fields)]
            )
        account = await self.get(user)
        out = self._logins.is_revoked_since(user, began) or self._logins.is_revoked_since(
            _default_device_name(user, device_id), began
        )
        if out or account is None or account.deactivated:
            await self.log_out(user, [device_id])
            raise matrix_error(403, "M_FORBIDDEN", "this account was logged out meanwhile")
        for delete in gone:
            self._known.drop(str(delete.key[0]))
        return device_id, token

    async def came_from(self, user: str, group: str) -> bool:
        """True if one of the user's devices logged in from a group of addresses."""
        async for row in self._token_rows(user):
            if row.body == group.encode():
                return True
        return False

    def _token_rows(self, user: str, *device_id: str) -> AsyncIterator[Row]:
        """Yields the tokens of a device, or of all devices of a user."""
        index = ("user_id", "device_id")
        return scan_all(self._ctx.store, "access_token", index=index, equal=(user, *device_id))

    async def _delete_tokens(self, user: str, *device_id: str) -> list[Delete]:
        """Returns the writes that delete the tokens of a device, or of all devices."""
        return [Delete("access_token", row.key) async for row in self._token_rows(user, *device_id)]

    def _new_device_id(self) -> str:
        return "".join(chr(ord("A") + byte % 26) for byte in self._ctx.random.bytes(10))

    async def get_by_token(self, token: str) -> Requester | None:
        """Returns the owner of a token; None if the token is not valid."""
        if len(token) > 1000:
            return None
        hashed = _hash_token(token)
        known = self._known.get(hashed)
        if known is not None:
            return known
        began = self._known.began()
        row = await self._ctx.store.get("access_token", (hashed,))
        if row is None:
            return None
        user = str(row.fields["user_id"])
        account = await self.get(user)
        if account is None or account.deactivated:
            return None
        caller = Requester(user=user, device=str(row.fields["device_id"]), token=hashed, admin=account.admin)
        # Of a token that was revoked while it was read, the caller learns the owner, and no more.
        return caller if self._known.put(hashed, user, caller, began) else await self._load_by_token(caller)

    async def _load_by_token(self, caller: Requester) -> Requester | None:
        row = await self._ctx.store.get("access_token", (caller.token,))
        return caller if row is not None else None

    async def is_token_valid(self, caller: Requester) -> bool:
        """True if a caller's token is still valid."""
        return caller.token in self._known or bool(await self._ctx.store.get("access_token", (caller.token,)))

    async def log_out(self, user: str, device_ids: Sequence[str]) -> None:
        """Devices are gone, with their tokens, keys, and what waits for them."""
        for device_id in device_ids:  # no login under way is let in that the search below does not see
            self._logins.revoke_owner(_default_device_name(user, device_id))
        gone: list[Delete] = []
        for device_id in device_ids:
            gone += await self._delete_tokens(user, device_id)
        await self._delete_devices(user, gone, device_ids)

    async def _delete_devices(self, user: str, gone: Sequence[Delete], device_ids: Sequence[str]) -> None:
        for piece in pieces(gone):
            await self._ctx.store.commit(piece)
        self._known.revoke_owner(user)  # nor does a request under way keep what it read before
        await self._devices.remove(user, device_ids)
        await self.last_seen.forget_devices(user, device_ids)
        self._notifier.wake_user(user)

    async def log_out_all(self, user: str, but: str = "") -> None:
        """Every device, but one that may stay; tokens without a device too."""
        self._logins.revoke_owner(user)
        rows = self._token_rows(user)
        gone = [Delete("access_token", row.key) async for row in rows if row.fields["device_id"] != but]
        devices = (await self._devices.get_all(user)).devices
        await self._delete_devices(user, gone, [device_id for device_id in devices if device_id != but])

    async def deactivate_account(self, user: str, *, erase: bool = False) -> None:
        """Closes an account: no login works any more, and the name stays taken; data for the user alone is
        removed. ``erase``: the user's messages are shown only to users who were there.
        """

        def close_account(account: Account) -> Account:
            return replace(account, password="", deactivated=True, erased=erase or account.erased)

        await self._change_account(user, close_account)
        if erase:
            self._attendance.erased.add(user)
            await self._ctx.store.commit([Delete("profile", (user,))])
        # Servers that are told of the last device ask for what is left: there are no other keys by then.
        await forget_private(self._ctx, user)
        await self.log_out_all(user)
        await forget_private(self._ctx, user)
        for listener in self._deactivated:
            listener(user)

    async def finish_deactivation(self, user: str) -> None:
        """Do what a crash, or an earlier version, left undone when an account was closed."""
        account = await self.get(user)
        if account is not None and account.password:
            await self._change_account(user, lambda account: replace(account, password=""))
        if account is not None and account.erased:
            await self._ctx.store.commit([Delete("profile", (user,))])
        await self.log_out_all(user)
        await forget_private(self._ctx, user)

    def admin_commands(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """See ``hansa.HasAdminCommands.admin_commands``."""
        return {
            "user add": self._add_user,
            "user ls": self._list_users,
            "user passwd": self._set_user_password,
            "user deactivate": self._deactivate_user,
        }

    async def _add_user(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        user = self.user_id(str(arguments["name"]))
        if self.is_reserved(user):
            raise LocalProtocolError(f"{user} is kept for the bridge and its ghosts")
        if not arguments.get("password"):
            raise LocalProtocolError("the password must not be empty")
        try:
            await self.create_account(user, str(arguments["password"]), admin=bool(arguments.get("admin")))
        except Conflict as conflict:
            raise LocalProtocolError(f"{user} exists already, or has existed") from conflict
        return {"user": user, "admin": bool(arguments.get("admin"))}

    async def _list_users(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "user": account.user,
                "admin": account.admin,
                "deactivated": account.deactivated,
                "created": account.created,
                "devices": len((await self._devices.get_all(account.user)).devices),
            }
            async for account in self.all_accounts()
        ]

    async def _set_user_password(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        user = self.user_id(str(arguments["name"]))
        if not arguments.get("password"):
            raise LocalProtocolError("the password must not be empty")
        account = await self.get(user)
        if account is not None and account.deactivated:
            raise LocalProtocolError(f"{user} is deactivated: it cannot be given a password")
        await self.set_password(user, str(arguments["password"]))
        await self.log_out_all(user)
        return {"user": user, "devices": "logged out"}

    async def _deactivate_user(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        user = self.user_id(str(arguments["name"]))
        erase = bool(arguments.get("erase"))
        await self.deactivate_account(user, erase=erase)
        return {"user": user, "deactivated": True, **({"erased": True} if erase else {})}


def _default_device_name(user: str, device_id: str) -> str:
    return f"{user} {device_id}"


def _hash_token(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
