"""Accounts of people of other networks: they log in by SASL PLAIN, and their puppets speak by it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from hansa import (
    AccountLogin,
    AskFields,
    HansaError,
    LoginDone,
    LoginFailed,
    LoginField,
    LoginFlow,
    LoginStep,
    NativeId,
    NetworkContext,
)

from hansa_irc.channels import Channels
from hansa_irc.config import Config
from hansa_irc.connection import Account, AccountRefused, Connection
from hansa_irc.isupport import ServerFeatures, make_nick
from hansa_irc.lines import Line
from hansa_irc.puppets import Puppets

#: Seconds that a login waits for the server.
_CHECK_TIMEOUT_S = 20.0
_ASKED = AskFields(
    fields=(
        LoginField(name="account", label="the name of your IRC account"),
        LoginField(name="password", label="its password", secret=True),
    ),
    text="You will speak on IRC by this account, with its name.",
)


class AccountCheck:
    """One attempt of one person: a connection of its own shows whether the password is right."""

    def __init__(self, ctx: NetworkContext, puppets: Puppets) -> None:
        self._ctx, self._puppets = ctx, puppets
        self._config: Config = ctx.config

    async def next_step(self, answers: Mapping[str, str]) -> LoginStep:
        """See ``hansa.LoginFlow.next_step``."""
        if self._config.transport != "tls":
            return LoginFailed(
                text="The connection to this IRC server is not encrypted: nobody logs in by it."
            )
        if self._puppets.account_count >= self._config.accounts:
            return LoginFailed(text=f"{self._config.accounts} people are logged in, which is the limit.")
        if not answers:
            return _ASKED
        account = Account(name=answers["account"].strip(), password=answers["password"])
        try:
            name = await self._find_name(account)
        except AccountRefused:
            return LoginFailed(text="The IRC server refuses this account or its password.")
        except (HansaError, TimeoutError) as error:
            self._ctx.log.info("a login could not be tried: %s", error)
            return LoginFailed(
                text=f"{self._config.host} cannot be reached, or has no accounts. Try again later."
            )
        return LoginDone(account=name, secret=account.password)

    async def _find_name(self, account: Account) -> str:
        """The name of the account as the server writes it."""

        async def ignore(_line: Line) -> None: ...

        def be_up() -> None: ...

        nick = make_nick(account.name, ServerFeatures().nick_length)
        connection = Connection(self._ctx, self._config, nick, ignore, be_up, account=account)
        running = asyncio.ensure_future(connection.run())
        up = asyncio.ensure_future(connection.up.wait())
        try:
            await asyncio.wait({running, up}, timeout=_CHECK_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            if not up.done():
                raise TimeoutError("the server does not answer")
            await connection.close("the account is checked")
        finally:
            for task in (up, running):
                task.cancel()
            await asyncio.gather(up, running, return_exceptions=True)
        return connection.account_name


class SpeaksByAccounts:
    """The part of the network that implements ``hansa.LogsIn``."""

    ctx: NetworkContext
    config: Config
    puppets: Puppets
    channels: Channels

    @property
    def login_server(self) -> str:
        """See ``hansa.LogsIn.login_server``."""
        return self.config.host

    def begin_login(self, person: NativeId) -> LoginFlow:
        """See ``hansa.LogsIn.begin_login``."""
        del person
        return AccountCheck(self.ctx, self.puppets)

    async def use_login(self, login: AccountLogin) -> None:
        """See ``hansa.LogsIn.use_login``: the puppet of the person is another one from now on."""
        await self.puppets.take_account(login.person, Account(name=login.account, password=login.secret))
        self.ctx.spawn(partial(self.puppets.connect_accounts, self.channels.features), "accounts")

    async def drop_login(self, person: NativeId) -> None:
        """See ``hansa.LogsIn.drop_login``."""
        await self.puppets.drop_account(person)

    async def load_accounts(self) -> None:
        """Takes the accounts of people who logged in before this start."""
        if self.config.transport != "tls":
            return
        for login in await self.ctx.list_logins():
            await self.puppets.take_account(login.person, Account(name=login.account, password=login.secret))
