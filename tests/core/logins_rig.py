"""Two networks, of which one has accounts that people of the other log in to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from hansa import AccountLogin, AskFields, LoginDone, LoginFailed, LoginField, LoginStep, NativeId
from hansa.app import App
from hansa.media.quotas import MediaLimits
from hansa.model.chat_commands import CommandSettings
from hansa.testing import run_hansa
from hansa.testing.actor import Actor, Config, module

KEY = bytes(range(32))
BASE = "https://chat.example"
ANN, BEN = NativeId("left", "ann@x"), NativeId("left", "ben@x")
SECRET = "open-sesame-äöü"
ON = CommandSettings(enabled=True, logins=frozenset({"right"}))


class People(Actor):
    """A network that proves who its people are. ``private``: its chats with the bridge are."""

    private = True

    def is_proven_person(self, user: str) -> bool:
        return not user.startswith("nick.")

    def has_private_chat(self, user: str) -> bool:
        del user
        return self.private


class Accounts(Actor):
    """A network with the accounts of ``passwords``; ``logins`` are those in use. ``gate`` holds a step."""

    login_server = "right.example"
    gate: asyncio.Event | None = None

    def __init__(self, ctx: Any, **options: Any) -> None:
        super().__init__(ctx, **options)
        self.passwords = {"annette": SECRET}
        self.logins: dict[NativeId, AccountLogin] = {}
        self.tried: list[Mapping[str, str]] = []

    async def start(self) -> None:
        self.logins = {one.person: one for one in await self.ctx.list_logins()}

    def begin_login(self, person: NativeId) -> _Flow:
        del person
        return _Flow(self)

    async def use_login(self, login: AccountLogin) -> None:
        self.logins[login.person] = login

    async def drop_login(self, person: NativeId) -> None:
        self.logins.pop(person, None)


class _Flow:
    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def next_step(self, answers: Mapping[str, str]) -> LoginStep:
        fields = (
            LoginField(name="account", label="your account"),
            LoginField(name="password", label="its password", secret=True),
        )
        if not answers:
            return AskFields(fields=fields, text="An account of right.example.")
        self._accounts.tried.append(dict(answers))
        if self._accounts.gate is not None:
            await self._accounts.gate.wait()
        account, password = answers["account"].lower(), answers["password"]
        if account == "broken":
            raise RuntimeError(f"could not use {password}")
        if self._accounts.passwords.get(account) != password:
            return LoginFailed(text="The account or its password is wrong.")
        return LoginDone(account=account, secret=password)


@asynccontextmanager
async def logins_rig(
    people: type[Actor] = People, **options: Any
) -> AsyncIterator[tuple[App, People, Accounts]]:
    """A running Hansa with both networks; ``options`` are those of ``run_hansa``."""
    made: dict[str, Any] = {}
    networks = {
        "left": (module(made, people), Config()),
        "right": (module(made, Accounts), Config()),
    }
    settings = {"commands": ON, "login_key": KEY, "media": MediaLimits(public_url=BASE), **options}
    async with run_hansa(networks, rooms=[["left:a", "right:b"]], **settings) as app:
        yield app, made["left"], made["right"]
