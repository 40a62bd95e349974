"""People of other networks who log in with accounts of their own, by SASL PLAIN over TLS."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager

import hansa_irc
import pytest
from certificate import make_certificate
from hansa import NativeId
from hansa.testing import Actor, CommandSettings, MemoryStore, run_hansa, until
from hansa.testing.actor import Config, module
from hansa_irc.connection import Account, ConnectionLost
from irc_server import IrcServer

ROOM = "#room"
SECRET = "open-sesame"  # noqa: S105
ZOE = NativeId("other", "zoe@x")


class People(Actor):
    """A network that proves who its people are."""

    def is_proven_person(self, user: str) -> bool:
        del user
        return True

    def has_private_chat(self, user: str) -> bool:
        del user
        return True


class Stage:
    """A server with accounts, and the bridge."""

    def __init__(self, app, server: IrcServer, other: People) -> None:
        self.app, self.server, self.other = app, server, other

    async def log_in(self, password: str = SECRET, person: NativeId = ZOE) -> str:
        """A person logs in; the last answer."""
        answer = ""
        for text in ("login irc", "Zoe_B", password):
            answer = await self.other.ctx.answer_command(person.id, text)
        return answer

    @property
    def accounts(self) -> list[str]:
        """The accounts of the connections there are."""
        found = self.server.logged_in.items()
        return [account for user, account in found if self.server.users.get(user.nick.lower()) is user]

    async def connected(self) -> None:
        """Waits until Zoe's account has its connection."""

        def is_up():
            connection = self.app.network("irc").puppets.find(ZOE)
            return connection is not None and connection.up.is_set()

        await until(is_up)
        assert self.accounts == ["zoe_b"]

    async def speaks(self, text: str) -> str:
        """Zoe speaks; who said it on IRC."""
        await self.other.say("room", ZOE.id, text)
        ann = self.server.users["ann"]

        def lines():
            return [line for line in ann.got if line.command == "PRIVMSG" and text in line.param(1)]

        await until(lines)
        (line,) = lines()
        return f"{line.nick}: {line.param(1)}"


@asynccontextmanager
async def stage(tmp_path, *, store=None, server=None, certificate=None, **options):
    own = server is None
    if own:
        certificate, tls = make_certificate(tmp_path)
        server = IrcServer()
        server.tls, server.accounts = tls, {"zoe_b": SECRET}
        await server.start()
    settings = {
        "host": "127.0.0.1",
        "port": server.port,
        "ca_file": certificate,
        "lines_per_second": 0,
        **options,
    }
    made = {}
    networks = {
        "irc": (hansa_irc, hansa_irc.Config(**settings)),
        "other": (module(made, People), Config()),
    }
    commands = CommandSettings(enabled=True, logins=frozenset({"irc"}))
    rooms = [[f"irc:{ROOM}", "other:room"]]
    try:
        async with run_hansa(
            networks, rooms=rooms, commands=commands, login_key=bytes(32), store=store or MemoryStore()
        ) as app:
            server.person("Ann", ROOM)
            await made["other"].join("room", ZOE.id, "Zoe")
            yield Stage(app, server, made["other"])
    finally:
        if own:
            await server.stop()


async def test_a_person_speaks_by_their_own_account(tmp_path):
    async with stage(tmp_path) as one:
        assert await one.speaks("before") == "hansa: <Zoe> before"
        assert await one.log_in() == "You are logged in to irc as zoe_b."
        await one.connected()
        assert await one.speaks("after") == "zoe_b: after"
        answer = await one.other.ctx.answer_command(ZOE.id, "irc nick")
        assert answer == "You are zoe_b on IRC."


async def test_two_messages_wait_for_the_one_connection_of_their_sender(tmp_path):
    async with stage(tmp_path, puppets=5) as one:
        irc = one.app.network("irc")
        one.server.holding = True
        both = [asyncio.ensure_future(irc.puppets.get(ZOE, "Zoe", irc.channels.features)) for _ in "ab"]
        await until(lambda: one.server.held)
        with pytest.raises(ConnectionLost):  # the answer would not be read during the registration
            await asyncio.wait_for(irc.puppets.find(ZOE).tell(b"JOIN #room\r\n"), 5)
        assert not any(wait.done() for wait in both)
        one.server.release()
        first, second = await asyncio.gather(*both)
        assert first is second
        assert first.up.is_set()


async def test_a_private_message_to_the_account_reaches_the_person_who_says_nothing(tmp_path):
    async with stage(tmp_path) as one:

        async def open_direct_chat(user, other):
            return await one.other.open_room(f"{user} {other}", create=True)

        async def require_direct_chat(user, other): ...

        one.other.open_direct_chat, one.other.require_direct_chat = open_direct_chat, require_direct_chat
        await one.log_in()
        await one.connected()
        one.server.act("Ann", "PRIVMSG", "zoe_b", "psst")
        assert "psst" in await one.other.until("zoe@x irc:ann", 2)


async def test_a_wrong_password_logs_nobody_in(tmp_path):
    async with stage(tmp_path) as one:
        assert await one.log_in("sesame") == "The IRC server refuses this account or its password."
        assert one.accounts == []
        assert await one.speaks("as before") == "hansa: <Zoe> as before"


async def test_a_password_that_is_changed_on_irc_ends_the_login(tmp_path):
    async with stage(tmp_path, puppets=5) as one:
        await one.log_in()
        await one.connected()
        one.server.accounts["zoe_b"] = "changed"
        one.server.cut()
        await until(lambda: one.app.runners["irc"].state == "up" and "hansa" in one.server.users)
        await until(lambda: one.other.told)
        user, text = one.other.told.pop()
        assert user == ZOE.id
        assert text.startswith("Your login to irc as zoe_b has ended: the server refuses the SASL account")
        assert SECRET not in text
        assert await one.app.logins.rows.list_logins("irc") == []


@pytest.mark.parametrize("fault", ["no SASL", "906", "908"])
async def test_a_server_without_accounts_for_a_while_ends_no_login(tmp_path, fault):
    async with stage(tmp_path, puppets=5) as one:
        await one.log_in()
        await one.connected()
        one.server.logged_in.clear()
        if fault == "no SASL":
            one.server.accounts = None
        else:
            one.server.refuse["AUTHENTICATE"] = fault
        one.server.cut()
        await until(lambda: one.app.runners["irc"].state == "up" and "hansa" in one.server.users)
        # The bridge says it: there is no connection that has her name without her account.
        assert await one.speaks("meanwhile") == "hansa: <Zoe> meanwhile"
        (login,) = await one.app.logins.rows.list_logins("irc")
        assert login.account == "zoe_b"


async def test_a_restart_connects_the_account_again(tmp_path):
    store = MemoryStore()
    certificate, tls = make_certificate(tmp_path)
    server = IrcServer()
    server.tls, server.accounts = tls, {"zoe_b": SECRET}
    await server.start()
    try:
        async with stage(tmp_path, store=store, server=server, certificate=certificate) as one:
            await one.log_in()
            await one.connected()
        await until(lambda: "zoe_b" not in server.users)
        async with stage(tmp_path, store=store, server=server, certificate=certificate) as one:
            await one.connected()
            assert await one.speaks("again") == "zoe_b: again"
            out = await one.other.ctx.answer_command(ZOE.id, "logout irc")
            assert out == "You are logged out of irc. The password of zoe_b is removed here."
            await until(lambda: "zoe_b" not in server.users)
            assert await one.speaks("without") == "hansa: <Zoe> without"
    finally:
        await server.stop()


async def test_without_tls_nobody_logs_in(tmp_path):
    server = await IrcServer().start()
    server.accounts = {"zoe_b": SECRET}
    try:
        async with stage(tmp_path, server=server, certificate=None, transport="tcp") as one:
            answer = await one.other.ctx.answer_command(ZOE.id, "login irc")
            assert answer == "The connection to this IRC server is not encrypted: nobody logs in by it."
    finally:
        await server.stop()


async def test_the_number_of_accounts_is_bounded(tmp_path):
    async with stage(tmp_path, accounts=0) as one:
        answer = await one.other.ctx.answer_command(ZOE.id, "login irc")
        assert answer == "0 people are logged in, which is the limit."


async def test_a_password_is_in_no_log_and_no_repr(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    async with stage(tmp_path) as one:
        await one.log_in("wrong-" + SECRET, NativeId("other", "yan@x"))
        assert await one.log_in() == "You are logged in to irc as zoe_b."
        await one.connected()
        assert SECRET not in caplog.text
        assert SECRET not in repr(Account(name="zoe_b", password=SECRET))


async def test_an_account_has_one_person(tmp_path):
    async with stage(tmp_path) as one:
        assert await one.log_in() == "You are logged in to irc as zoe_b."
        assert (
            await one.log_in(person=NativeId("other", "yan@x"))
            == "zoe_b belongs to another person here already."
        )
