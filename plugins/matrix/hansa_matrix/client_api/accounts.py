"""People who log in here: how they prove who they are, and the tokens that stand for that.

Of a token only the hash is kept, of a password what argon2id makes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from hansa import Conflict, Delete, Insert, LocalProtocolError, NetworkContext, Put

from hansa_matrix.crossings import Crossings, passes, said
from hansa_matrix.proto import ids
from hansa_matrix.proto.devices import Device, shortened, valid_device_id
from hansa_matrix.room.attendance import Attendance
from hansa_matrix.users.devices import Devices

_LOCALPART = re.compile(r"[a-z0-9._=\-/+]+", re.ASCII)
_REMEMBERED = 10_000
_MOST_PASSWORD = 1024
#: Passwords that are hashed at a time: each takes a core and its memory.
_AT_A_TIME = 2


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
class Caller:
    """Whose token a request has. ``token`` is the token's hash."""

    user: str
    device: str
    token: str
    admin: bool = False


class Accounts:
    """Accounts, passwords and tokens."""

    def __init__(self, ctx: NetworkContext, server: str, attendance: Attendance, devices: Devices) -> None:
        self._ctx = ctx
        self._server = server
        self._attendance = attendance
        self._devices = devices
        config = ctx.config
        self._hasher = PasswordHasher(
            time_cost=config.password_rounds, memory_cost=config.password_memory, parallelism=1
        )
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        self._known: OrderedDict[str, Caller] = OrderedDict()
        #: Told of a person some of whose devices are logged out, and of one whose account is closed.
        self.closed: Callable[[str], None] = lambda _: None
        self.gone: Callable[[str], None] = lambda _: None

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
        if not _LOCALPART.fullmatch(local) or not ids.valid_user_id(user):
            raise LocalProtocolError("a name has small letters, digits and . _ = - / +")
        return user

    def reserved(self, user: str) -> bool:
        """Whether an id is the bridge user's, or may become a ghost's."""
        local = user[1:].partition(":")[0]
        return local == self._ctx.config.bridge_user or local.startswith(self._ctx.config.ghost_prefix)

    async def get(self, user: str) -> Account | None:
        """An account, closed ones too."""
        row = await self._ctx.store.get("account", (user,))
        return None if row is None else Account(user=user, **orjson.loads(row.body))

    async def every(self) -> list[Account]:
        """All of them, 10,000 at most."""
        rows = await self._ctx.store.scan("account", limit=10_000)
        return [Account(user=str(row.key[0]), **orjson.loads(row.body)) for row in rows]

    @staticmethod
    def _body(account: Account) -> bytes:
        return orjson.dumps(
            {
                "password": account.password,
                "admin": account.admin,
                "deactivated": account.deactivated,
                "erased": account.erased,
                "created": account.created,
            }
        )

    async def create(self, user: str, password: str, *, admin: bool = False) -> Account:
        """A new account; without a password where it is empty. Raises ``Conflict`` where it exists, or has
        existed.
        """
        account = Account(
            user=user,
            password=await self._hashed(password) if password else "",
            admin=admin,
            created=self._ctx.clock.now(),
        )
        await self._ctx.store.commit([Insert("account", (user,), self._body(account))])
        self._attendance.accounts.add(user)
        return account

    async def _hashed(self, password: str) -> str:
        if len(password.encode(errors="replace")) > _MOST_PASSWORD:
            raise LocalProtocolError(f"a password has at most {_MOST_PASSWORD} bytes")
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, password.encode(errors="replace"))

    async def set_password(self, user: str, password: str) -> None:
        """Another password."""
        account = await self.get(user)
        if account is None:
            raise LocalProtocolError(f"there is no {user}")
        await self._put(replace(account, password=await self._hashed(password)))

    async def _put(self, account: Account) -> None:
        await self._ctx.store.commit([Put("account", (account.user,), self._body(account))])

    async def proves(self, user: str, password: str) -> bool:
        """Whether it is the password of an account. Takes as long for nobody as for somebody. A directory
        that plugins ask goes before what is kept here, and whom it knows gets an account.
        """
        account = await self.get(user)
        known = await self._ctx.check_password(user, password)
        if known is not None:
            closed = account is not None and account.deactivated
            if known and account is None:
                with contextlib.suppress(Conflict):  # two devices at once
                    await self.create(user, "")
            return known and not closed and not self.reserved(user)
        kept = account.password if account is not None and not account.deactivated else ""
        if len(password) > _MOST_PASSWORD:
            return False
        async with self._slots:
            return await asyncio.to_thread(self._verified, kept, password.encode(errors="replace"))

    def _verified(self, kept: str, password: bytes) -> bool:
        try:
            if not kept:
                self._hasher.hash(password)
                return False
            return self._hasher.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return False

    async def login(self, user: str, device_id: str, name: str) -> tuple[str, str]:
        """A device and its new token, which takes the place of those it had: ``(device id, token)``. Raises
        LocalProtocolError.
        """
        device_id = device_id or self._device_id()
        if not valid_device_id(device_id):
            raise LocalProtocolError("a device id has 1 to 255 bytes")
        known = await self._devices.get(user, device_id)
        if known is None:
            named = Crossings(self._ctx).profile_change(user, said(body=name))
            shown = shortened(name) if await passes(self._ctx, named) else ""
            await self._devices.put(user, Device(device_id=device_id, name=shown))
        token = urlsafe_b64encode(self._ctx.random.bytes(32)).decode().rstrip("=")
        gone = await self._tokens_gone(user, device_id)
        fields = {"user_id": user, "device_id": device_id}
        await self._ctx.store.commit([*gone, Insert("access_token", (_hash(token),), b"", fields)])
        for delete in gone:
            self._known.pop(str(delete.key[0]), None)
        return device_id, token

    async def _tokens_gone(self, user: str, device_id: str) -> list[Delete]:
        rows = await self._ctx.store.scan(
            "access_token", index=("user_id", "device_id"), equal=(user, device_id), limit=100
        )
        return [Delete("access_token", row.key) for row in rows]

    def _device_id(self) -> str:
        return "".join(chr(ord("A") + byte % 26) for byte in self._ctx.random.bytes(10))

    async def bearer(self, token: str) -> Caller | None:
        """Whose token it is."""
        if len(token) > 1000:
            return None
        hashed = _hash(token)
        known = self._known.get(hashed)
        if known is not None:
            self._known.move_to_end(hashed)
            return known
        row = await self._ctx.store.get("access_token", (hashed,))
        if row is None:
            return None
        user = str(row.fields["user_id"])
        account = await self.get(user)
        if account is None or account.deactivated:
            return None
        caller = Caller(user=user, device=str(row.fields["device_id"]), token=hashed, admin=account.admin)
        self._known[hashed] = caller
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return caller

    async def holds(self, caller: Caller) -> bool:
        """Whether a caller's token is still one."""
        return caller.token in self._known or bool(await self._ctx.store.get("access_token", (caller.token,)))

    async def logout(self, user: str, device_ids: list[str]) -> None:
        """Devices are gone, with their tokens, keys, and what waits for them."""
        gone: list[Delete] = []
        for device_id in device_ids:
            gone += await self._tokens_gone(user, device_id)
        if gone:
            await self._ctx.store.commit(gone)
        for delete in gone:
            self._known.pop(str(delete.key[0]), None)
        await self._devices.remove(user, device_ids)
        self.closed(user)

    async def logout_all(self, user: str, but: str = "") -> None:
        """Every device, but one that may stay."""
        devices = (await self._devices.of(user)).devices
        await self.logout(user, [device_id for device_id in devices if device_id != but])

    async def deactivate(self, user: str, *, erase: bool = False) -> None:
        """Nobody logs in there any more, and nobody else gets that name. ``erase``: what the person said is
        shown to nobody who was not there.
        """
        account = await self.get(user)
        if account is None:
            raise LocalProtocolError(f"there is no {user}")
        await self._put(replace(account, password="", deactivated=True, erased=erase or account.erased))
        if erase:
            self._attendance.erased.add(user)
            await self._ctx.store.commit([Delete("profile", (user,))])
        await self.logout_all(user)
        self.gone(user)

    def operations(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """See ``hansa.Operated.operations``."""
        return {
            "user add": self._add,
            "user ls": self._list,
            "user passwd": self._passwd,
            "user deactivate": self._deactivate,
        }

    async def _add(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        user = self.user_id(str(arguments["name"]))
        if self.reserved(user):
            raise LocalProtocolError(f"{user} is kept for the bridge and its ghosts")
        if not arguments.get("password"):
            raise LocalProtocolError("a password is not empty")
        try:
            await self.create(user, str(arguments["password"]), admin=bool(arguments.get("admin")))
        except Conflict as conflict:
            raise LocalProtocolError(f"{user} exists already, or has existed") from conflict
        return {"user": user, "admin": bool(arguments.get("admin"))}

    async def _list(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "user": account.user,
                "admin": account.admin,
                "deactivated": account.deactivated,
                "created": account.created,
                "devices": len((await self._devices.of(account.user)).devices),
            }
            for account in await self.every()
        ]

    async def _passwd(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        user = self.user_id(str(arguments["name"]))
        if not arguments.get("password"):
            raise LocalProtocolError("a password is not empty")
        await self.set_password(user, str(arguments["password"]))
        await self.logout_all(user)
        return {"user": user, "devices": "logged out"}

    async def _deactivate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        user = self.user_id(str(arguments["name"]))
        await self.deactivate(user)
        return {"user": user, "deactivated": True}


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
