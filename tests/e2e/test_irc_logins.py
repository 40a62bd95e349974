"""People of Matrix and XMPP speak on IRC as accounts of their own: InspIRCd and Atheme, a form in Chromium."""

from __future__ import annotations

import asyncio
import re
import sqlite3

import pytest
from e2e.three_servers import MUC, xmpp_config
from peers.irc_services import IrcServices
from peers.login_form import fill_form
from peers.ngircd import IrcUser
from peers.prosody import GATEWAY
from peers.waiting import until

pytestmark = pytest.mark.e2e
CHANNEL = "#lobby"
ALICE, JULIET = "open-sesame-alice", "open-sesame-juliet"
TABLES = """
[commands]
enabled = true
logins = ["irc"]
[networks.irc]
plugin = "irc"
host = "127.0.0.1"
port = {port}
ca_file = "{ca}"
lines_per_second = 0
{xmpp}
[[rooms]]
links = ["matrix:#lobby:{name}", "irc:#lobby", "xmpp:lobby"]
"""


async def says_in_chat(user, text: str, answer: str) -> str:
    """A user of XMPP writes to the component; the first answer that has these words."""
    start = len(user.stanzas)
    user.raw(f"<message to='{GATEWAY}' type='chat'><body>{text}</body></message>")

    def found():
        bodies = [e.findtext("{jabber:client}body") or "" for e in user.stanzas[start:]]
        return next((body for body in bodies if answer in body), None)

    return await user.until(f"an answer to {text}", found)


async def test_people_speak_by_their_own_accounts(
    ca, installed_irc, hansa, prosody, xmpp_user, matrix_user, tmp_path
):
    irc = await IrcServices(tmp_path / "services", ca).start()
    romeo = None
    try:
        async with asyncio.timeout(90):
            await irc.register("Ally", ALICE)
            await irc.register("Julie", JULIET)
        romeo = await IrcUser(irc, "Romeo").connect()
        await romeo.join(CHANNEL)

        def tables(server):
            return TABLES.format(
                port=irc.tls_port, ca=server.ca.certificate, xmpp=xmpp_config(prosody), name=server.name
            )

        server = await hansa(tables)

        async def linked():
            return any(len(room["links"]) == 3 for room in await server.run("rooms", "ls"))

        await until("three networks are linked", linked)
        alice, juliet = await matrix_user("alice"), await xmpp_user("juliet")
        await juliet.join(MUC, "Juliet")
        lobby = await alice.join(f"#lobby:{server.name}")

        chat = await alice.create_room(invite=[f"@hansa:{server.name}"], is_direct=True)

        async def in_chat():
            return len(await alice.members(chat)) == 2

        await until("the bridge is in the chat", in_chat)
        await alice.say(chat, "!hansa login irc")

        async def link():
            bodies = [body for body in await alice.bodies(chat) if "/_hansa/login/" in body]
            return re.search(r"https://\S+", bodies[0]) if bodies else None

        url = (await until("a link", link))[0]
        page = await fill_form(url, account="ally", password=ALICE)
        assert f"{alice.id} will speak on irc (127.0.0.1)" in page["form"]
        assert page["said"].endswith("You are logged in to irc as Ally. You can close this page.")
        assert page["refused"] == []
        assert ALICE not in page["url"]

        await says_in_chat(juliet, "login irc", "the name of your IRC account")
        await says_in_chat(juliet, "julie", "its password")
        await says_in_chat(juliet, JULIET, "You are logged in to irc as Julie.")

        await alice.say(lobby, "ahoy by alice")
        await romeo.until("a line", lambda: "ahoy by alice" in romeo.texts(CHANNEL))
        juliet.say(MUC, "ahoy by juliet")
        await romeo.until("a line", lambda: "ahoy by juliet" in romeo.texts(CHANNEL))
        assert "ahoy by alice" in romeo.texts(CHANNEL, by="Ally!")
        assert "ahoy by juliet" in romeo.texts(CHANNEL, by="Julie!")

        await server.kill()
        await server.start()
        await alice.say(lobby, "again by alice")
        await romeo.until("a line", lambda: "again by alice" in romeo.texts(CHANNEL))
        assert "again by alice" in romeo.texts(CHANNEL, by="Ally!")

        written = [path.read_bytes() for path in server.folder.rglob("*") if path.is_file()]
        assert len(written) > 5
        for secret in (ALICE, JULIET):
            assert not any(secret.encode() in content for content in written)
            assert secret not in server.log()
        with sqlite3.connect(server.folder / "hansa.db") as database:
            assert not any(secret in line for line in database.iterdump() for secret in (ALICE, JULIET))
        for words in (("status",), ("policy", "log"), ("rooms", "ls")):
            assert "open-sesame" not in repr(await server.run(*words))
    finally:
        if romeo is not None:
            await romeo.close()
        await irc.stop()
