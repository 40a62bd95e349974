"""A channel of a real ngircd decides in a room that people of a real Prosody share with it."""

from __future__ import annotations

import pytest
from e2e.three_servers import MUC, xmpp_config
from peers.waiting import until

pytestmark = pytest.mark.e2e
CHANNEL = "#lobby"
_TABLE = """
[networks.irc]
plugin = "irc"
host = "127.0.0.1"
port = {port}
transport = "tls"
ca_file = "{ca}"
lines_per_second = 0
decides = true
[[rooms]]
links = ["irc:{channel}", "xmpp:{room}"]
"""


async def test_the_channel_decides_what_an_xmpp_user_says_in_it(
    installed_irc, hansa, ngircd, prosody, irc_user, xmpp_user
):
    romeo = await irc_user("Romeo")
    await romeo.join(CHANNEL)  # the first one there is its operator
    table = _TABLE.format(
        port=ngircd.tls_port, ca=ngircd.ca.certificate, channel=CHANNEL, room=MUC.partition("@")[0]
    )
    server = await hansa(xmpp_config(prosody) + table)

    async def linked():
        return any(len(room["links"]) == 2 for room in await server.run("rooms", "ls"))

    await until("the room is linked", linked)
    juliet = await xmpp_user("juliet", "balcony")
    nurse = await xmpp_user("nurse", "hall")
    await juliet.join(MUC, "Juliet")
    await nurse.join(MUC, "Nurse")
    juliet.say(MUC, "ahoy", "first")
    await romeo.seen(CHANNEL, "<Juliet> ahoy")
    await nurse.until("what the channel reflected", lambda: "ahoy" in nurse.bodies(MUC))

    romeo.send(f"MODE {CHANNEL} +m")
    await romeo.until("the channel is moderated", lambda: any("+m" in line for line in romeo.lines))
    juliet.say(MUC, "not heard", "second")
    refused = await juliet.verdict("second", MUC)
    assert refused is not None and refused.condition == "forbidden"
    assert "channel" in str(refused).lower() or "cannot" in str(refused).lower()

    romeo.send(f"MODE {CHANNEL} -m")
    await romeo.until("it is not any more", lambda: any("-m" in line for line in romeo.lines))
    juliet.say(MUC, "heard again", "third")
    await romeo.seen(CHANNEL, "<Juliet> heard again")
    await nurse.until("the last message", lambda: "heard again" in nurse.bodies(MUC))
    assert "not heard" not in nurse.bodies(MUC)
    assert not any("not heard" in text for text in romeo.texts(CHANNEL))
