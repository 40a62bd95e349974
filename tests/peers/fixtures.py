"""Peers for tests. A Synapse takes seconds to start, so one serves a whole session."""

from __future__ import annotations

import gc
import os
import secrets
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from peers.ca import PrivateCA
from peers.dendrite import Dendrite
from peers.hansa import Hansa
from peers.irc_bridge import bridge_table, wait_linked
from peers.mongo import Mongo
from peers.ngircd import IrcUser, Ngircd
from peers.postgres import Postgres
from peers.prosody import Prosody, XmppUser
from peers.require import require_ngircd, require_prosody, require_synapse
from peers.scripted_hansa import ScriptedHansa
from peers.synapse import MatrixUser, Synapse

if TYPE_CHECKING:  # their packages are asked for by the tests that need them
    from peers.browser import Page
    from peers.nio import NioUser

IRC_EXAMPLE = Path(__file__).parents[2] / "examples" / "hansa-irc"


@pytest.fixture(scope="session")
def ca(tmp_path_factory) -> PrivateCA:
    return PrivateCA(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def synapse_server(ca, tmp_path_factory) -> Iterator[Synapse]:
    """A Synapse that runs until the end."""
    import asyncio

    require_synapse()
    server = Synapse(tmp_path_factory.mktemp("synapse"), ca)
    asyncio.run(server.start())
    yield server
    server.stop()


@pytest.fixture
async def synapse(synapse_server) -> Synapse:
    return synapse_server


@pytest.fixture
async def matrix_user(synapse) -> AsyncIterator[Callable[..., Awaitable[MatrixUser]]]:
    """Makes users of the shared Synapse; each has a name nobody else has."""
    made: list[MatrixUser] = []

    async def make(name: str) -> MatrixUser:
        user = await synapse.user(f"{name}{secrets.token_hex(3)}")
        made.append(user)
        return user

    yield make
    for user in made:
        await user.close()


@pytest.fixture
async def prosody(ca, tmp_path) -> AsyncIterator[Prosody]:
    """A Prosody of the test's own: it starts within a second."""
    require_prosody()
    server = await Prosody(tmp_path / "prosody", ca).start()
    yield server
    await server.stop()


@pytest.fixture
def installed_irc(tmp_path, monkeypatch) -> None:
    """The example hansa-irc as if it were installed: importable, with its entry point."""
    info = tmp_path / "site" / "hansa_irc-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hansa-irc\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[hansa.plugins]\nirc = hansa_irc\n")
    paths = [str(info.parent), str(IRC_EXAMPLE), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    for path in paths[:2]:
        monkeypatch.syspath_prepend(path)


@pytest.fixture
async def ngircd(ca, tmp_path) -> AsyncIterator[Ngircd]:
    """An ngircd of the test's own."""
    require_ngircd()
    server = await Ngircd(tmp_path / "ngircd", ca).start()
    yield server
    await server.stop()


@pytest.fixture
async def irc_user(ngircd) -> AsyncIterator[Callable[..., Awaitable[IrcUser]]]:
    """Makes users of the test's ngircd."""
    made: list[IrcUser] = []

    async def make(nick: str) -> IrcUser:
        made.append(await ngircd.user(nick))
        return made[-1]

    yield make
    for user in made:
        await user.close()


@pytest.fixture
def bridged(installed_irc, hansa, ngircd) -> Callable[..., Awaitable[Hansa]]:
    """Makes a Hansa whose lobby is linked with the channel ``#lobby``: see ``bridge_table``."""

    async def make(**settings: Any) -> Hansa:
        server: Hansa = await hansa(lambda server: bridge_table(server, ngircd, **settings))
        await wait_linked(server)
        return server

    return make


@pytest.fixture
async def xmpp_user(prosody) -> AsyncIterator[Callable[..., Awaitable[XmppUser]]]:
    """Makes users of the test's Prosody."""
    made: list[XmppUser] = []

    async def make(name: str, resource: str = "") -> XmppUser:
        user = await prosody.user(name, resource)
        made.append(user)
        return user

    yield make
    for user in made:
        await user.close()


@pytest.fixture
async def hansa(ca, tmp_path) -> AsyncIterator[Callable[..., Awaitable[Hansa]]]:
    """Makes Hansa processes."""
    made: list[Hansa] = []

    async def make(more="", **options) -> Hansa:
        process = Hansa(tmp_path / f"hansa{len(made)}", ca, more, **options)
        made.append(process)
        return await process.start()

    yield make
    for process in made:
        await process.stop()


@pytest.fixture
async def local_user() -> AsyncIterator[Callable[..., Awaitable[MatrixUser]]]:
    """Makes people with an account on a server; what they hold open is closed however the test ends."""
    made: list[MatrixUser] = []

    async def make(server: Hansa | Synapse | Dendrite, name: str) -> MatrixUser:
        made.append(await server.user(name))
        return made[-1]

    yield make
    for user in made:
        await user.close()


@pytest.fixture
async def nio_user(ca, tmp_path) -> AsyncIterator[Callable[..., Awaitable[NioUser]]]:
    """Makes clients of matrix-nio, logged in at a server: ``(url, user id)``."""
    from peers import nio

    made: list[NioUser] = []

    async def make(url: str, user: str, password: str = "pw") -> NioUser:
        client = nio.NioUser(tmp_path / f"nio{len(made)}", url, user, ca.certificate)
        made.append(client)
        return await client.login(password)

    yield make
    for client in made:
        await client.close()


@pytest.fixture
async def page() -> AsyncIterator[Callable[..., Awaitable[Page]]]:
    """Makes pages with a client of matrix-js-sdk, logged in at a server: ``(name, url, user)``."""
    from peers.browser import Browser, Page

    browser = Browser()

    async def make(name: str, url: str, user: str, password: str = "pw") -> Page:
        return await Page(browser, name).login(url, user, password)

    await browser.start()
    yield make
    await browser.stop()


@pytest.fixture
async def stage(ca, tmp_path) -> AsyncIterator[Callable[..., Awaitable[ScriptedHansa]]]:
    """Makes Hansas in this process, with people that the test moves."""
    made: list[ScriptedHansa] = []

    async def make(more="", **options) -> ScriptedHansa:
        one = ScriptedHansa(tmp_path / f"stage{len(made)}", ca, more, **options)
        made.append(one)
        return await one.start()

    yield make
    for one in made:
        await one.stop()


@pytest.fixture(scope="session")
def mongo_server(tmp_path_factory) -> Iterator[Mongo]:
    """A MongoDB that runs until the end."""
    server = Mongo(tmp_path_factory.mktemp("mongo")).start()
    yield server
    server.stop()


@pytest.fixture
def mongo_url(mongo_server) -> Iterator[str]:
    """The URL of an empty database. PyMongo's monitor, cancelled while it connects, leaves its socket to the
    collector: it is collected here, so that no other test is told.
    """
    yield mongo_server.database()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL that runs until the end."""
    server = Postgres().start()
    yield server
    server.stop()


@pytest.fixture
def postgres_url(postgres_server) -> Iterator[str]:
    """The URL of an empty database."""
    url = postgres_server.database()
    yield url
    postgres_server.drop(url)
