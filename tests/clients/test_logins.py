"""Matrix users log in to another network: a link in a chat with the bridge user, and the end of an account."""

from __future__ import annotations

import re

from clients.linked_chat import linked_chat
from core.logins_rig import KEY, SECRET, Accounts
from hansa import AccountLogin, NativeId
from hansa.media.quotas import MediaLimits
from hansa.model.chat_commands import CommandSettings
from hansa.testing import until
from matrix.server_with_peer import OURS

ALICE = NativeId("matrix", f"@alice:{OURS}")
OPTIONS = {
    "commands": CommandSettings(enabled=True, logins=frozenset({"chat"})),
    "login_key": KEY,
    "media": MediaLimits(public_url="https://ours.example"),
}


async def test_a_link_is_given_in_the_chat_with_the_bridge_user_alone(tmp_path):
    async with linked_chat(tmp_path, Accounts, **OPTIONS) as (home, _):
        alice = await home.person("alice")
        lobby = await alice.join(f"#lobby:{OURS}")
        await alice.say(lobby, "!hansa login chat")
        chat = await alice.create(is_direct=True, preset="private_chat", invite=[home.matrix.bridge_user])
        await until(lambda: home.app.rooms.link(NativeId("matrix", chat)) is not None)
        await alice.say(chat, "!hansa login chat")

        async def link():
            found = re.findall(r"https://ours\.example/_hansa/login/\S+", "\n".join(await alice.texts(chat)))
            return found[0] if found else None

        await until(link)
        url = await link()
        page = await home.anybody.whole("GET", url.removeprefix("https://ours.example"))
        assert page.status == 200
        assert ALICE.id.encode() in page.body

        async def refused():
            texts = await alice.texts(lobby)
            return "Write this to the bridge itself, in a chat with nobody else." in texts

        await until(refused)
        assert not any("/_hansa/login/" in text for text in await alice.texts(lobby))


async def test_who_closes_their_account_is_logged_out_elsewhere(tmp_path):
    async with linked_chat(tmp_path, Accounts, **OPTIONS) as (home, chat):
        alice = await home.person("alice")
        login = AccountLogin(person=ALICE, account="annette", secret=SECRET)
        await home.app.logins.rows.insert("chat", login)
        await chat.use_login(login)
        who = {"type": "m.id.user", "user": alice.user}
        auth = {"type": "m.login.password", "identifier": who, "password": "of alice"}
        await alice.call("POST", "/account/deactivate", {"auth": auth})
        await until(lambda: not chat.logins)
        assert await home.app.logins.rows.list_logins("chat") == []
