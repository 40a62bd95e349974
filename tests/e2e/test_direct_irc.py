"""Direct chats of people of a real Prosody and of a real ngircd."""

from __future__ import annotations

import pytest
from e2e.test_direct import chat_bodies, error_texts, write
from e2e.three_servers import wait_linked, xmpp_config
from hansa import NativeId
from hansa_xmpp.proto import jid
from peers.irc_bridge import bridge_table
from peers.prosody import GATEWAY

pytestmark = pytest.mark.e2e


async def test_people_of_xmpp_and_irc_write_to_each_other(
    installed_irc, hansa, prosody, ngircd, xmpp_user, irc_user
):
    server = await hansa(lambda made: xmpp_config(prosody) + bridge_table(made, ngircd, puppets=5))
    await wait_linked(server)
    juliet, romeo = await xmpp_user("juliet"), await irc_user("Romeo")
    puppet = jid.puppet(NativeId("irc", "romeo"), GATEWAY)
    write(juliet, puppet, "wherefore art thou?", "j1")
    await romeo.seen("Romeo", "wherefore art thou?")
    notice, *said = romeo.texts("Romeo", by="juliet!")
    assert "It is not encrypted" in notice
    assert said == ["wherefore art thou?"]
    romeo.say("juliet", "thou knowest")
    await juliet.until("Romeo's answer", lambda: chat_bodies(juliet, puppet) == ["thou knowest"])
    romeo.say("juliet", "\x02by\x02 night")
    write(juliet, puppet, "good night", "j2")
    await romeo.seen("Romeo", "good night")
    await juliet.until("both answers", lambda: len(chat_bodies(juliet, puppet)) == 2)
    assert romeo.texts("Romeo", by="juliet!") == [notice, "wherefore art thou?", "good night"]
    assert error_texts(juliet, puppet) == []


async def test_a_person_who_does_not_exist_is_refused_in_words_on_each_side(
    installed_irc, hansa, prosody, ngircd, xmpp_user, irc_user
):
    server = await hansa(lambda made: xmpp_config(prosody) + bridge_table(made, ngircd, puppets=5))
    await wait_linked(server)
    juliet, romeo = await xmpp_user("juliet"), await irc_user("Romeo")
    nobody = jid.puppet(NativeId("irc", "mercutio"), GATEWAY)
    write(juliet, nobody, "hello?", "j1")
    await juliet.until("an error", lambda: error_texts(juliet, nobody))
    ((condition, text),) = error_texts(juliet, nobody)
    assert condition == "item-not-found"
    assert "there is nobody with the nick mercutio on IRC now" in text
    romeo.say("mercutio", "hello?")
    await romeo.until("an answer", lambda: any(" 401 Romeo mercutio " in line for line in romeo.lines))
    # The one who stays reads that the other has left, in words as well.
    puppet = jid.puppet(NativeId("irc", "romeo"), GATEWAY)
    write(juliet, puppet, "art thou there?", "j2")
    await romeo.seen("Romeo", "art thou there?")
    await romeo.close()
    write(juliet, puppet, "and now?", "j3")
    loss = "romeo did not get a message: No such nick or channel name"
    await juliet.until("a notice of the loss", lambda: loss in chat_bodies(juliet, puppet))
